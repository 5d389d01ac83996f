//! The certificate that a connection's other end has shown, as far as requests need it.

use std::sync::Arc;

use gotls::Leaf;
use rustls::pki_types::CertificateDer;
use sha2::{Digest as _, Sha256};

/// Whose certificate was verified when a connection was made. Parsed once for each connection.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PeerCertificate {
    /// The last common name of the subject; empty if it has none.
    pub common_name: Arc<str>,
    /// `--client-cert-auth` is on: the common name is a user's, even if it is empty.
    is_user: bool,
    /// SHA-256 of the certificate, in hexadecimal.
    pub fingerprint: String,
    /// The last second at which it is valid, since 1970.
    pub not_after: i64,
}

impl PeerCertificate {
    /// Of a certificate that was verified.
    pub(super) fn new(der: &CertificateDer<'_>, leaf: &Leaf, is_user: bool) -> Self {
        Self {
            is_user,
            common_name: leaf.common_name.clone().unwrap_or_default().into(),
            fingerprint: format!("{:x}", Sha256::digest(der)),
            not_after: leaf.not_after,
        }
    }

    /// The user that the certificate stands for; nobody without `--client-cert-auth`.
    pub fn user(&self) -> Option<&Arc<str>> {
        self.is_user.then_some(&self.common_name)
    }

    /// The same, for requests that it does not make a user's.
    #[must_use]
    pub fn without_user(&self) -> Self {
        Self { is_user: false, ..self.clone() }
    }
}
