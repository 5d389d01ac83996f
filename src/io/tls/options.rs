//! Options of the TLS of one side: towards clients, or towards other members.

use std::path::PathBuf;

use gotls::{Allowed, Suites};
use rustls::SupportedProtocolVersion;

/// Versions of TLS.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum TlsVersions {
    /// 1.2 and 1.3.
    #[default]
    Both,
    /// 1.2.
    Tls12,
    /// 1.3.
    Tls13,
}

impl TlsVersions {
    pub(super) fn list(self) -> &'static [&'static SupportedProtocolVersion] {
        match self {
            Self::Both => gotls::VERSIONS,
            Self::Tls13 => &gotls::VERSIONS[..1],
            Self::Tls12 => &gotls::VERSIONS[1..],
        }
    }
}

/// A certificate with its chain, and its key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PairFiles {
    /// `--cert-file`.
    pub certificate: PathBuf,
    /// `--key-file`.
    pub key: PathBuf,
}

/// TLS options of one side.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Options {
    /// `client` or `peer`: the side, in logs and metrics.
    pub kind: &'static str,
    /// The server certificate: `--cert-file`, `--key-file`.
    pub server: Option<PairFiles>,
    /// The client certificate of this member: `--client-cert-file`, `--client-key-file`, or the same as above.
    pub client: Option<PairFiles>,
    /// `--trusted-ca-file`; without it the system's, where certificates are verified.
    pub trusted_ca: Option<PathBuf>,
    /// Certificates are demanded: `--client-cert-auth`, or a trusted CA is given.
    pub demands_certificates: bool,
    /// `--client-cert-auth`: common names are users. A trusted CA alone makes none of them.
    pub certificate_users: bool,
    /// `--client-crl-file`.
    pub revoked: Option<PathBuf>,
    /// The accepted common names or hosts.
    pub allowed: Allowed,
    /// The alternative names of certificates are not compared with the address that connects.
    pub skips_address_check: bool,
    /// This member's certificates are made by itself: it verifies none when it connects.
    pub self_signed: bool,
    /// `--cipher-suites`.
    pub suites: Suites,
    /// `--tls-min-version`, `--tls-max-version`.
    pub versions: TlsVersions,
    /// The offered ALPN protocols.
    pub protocols: &'static [&'static [u8]],
}

impl Options {
    /// True if it names any file.
    pub fn has_files(&self) -> bool {
        self.files().next().is_some()
    }

    /// The files, and what they are called in metrics.
    pub(super) fn files(&self) -> impl Iterator<Item = &PathBuf> {
        let pairs = [&self.server, &self.client].into_iter().flatten();
        let pairs = pairs.flat_map(|pair| [&pair.certificate, &pair.key]);
        pairs.chain(&self.trusted_ca).chain(&self.revoked)
    }
}
