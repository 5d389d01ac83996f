//! TLS by the rules and in the words of Go's `crypto/tls` and `crypto/x509`, on rustls: files of certificates and keys,
//! verification of both sides, cipher suites by their names in Go, and texts of errors. Opens no file and no socket.
//!
//! ```text
//!  PEM files ─► pem ─► KeyPair, Roots ─┐
//!  CRL file ─► crl ─► Revoked ─────────┼─► verify ─► ClientVerifier, ServerVerifier ─► rustls' configurations
//!  allowed names ──────────────────────┘      └ refused: the alert is rustls', the text is Go's (messages)
//! ```

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "the enums are those of other crates, which add to them"
)]

mod crl;
mod leaf;
mod messages;
mod pem;
mod suites;
mod system;
mod verify;

use std::sync::Arc;

use rustls::client::danger::ServerCertVerifier;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, SupportedProtocolVersion};

pub use self::crl::Revoked;
pub use self::leaf::Leaf;
pub use self::messages::{handshake_error, remote_error};
pub use self::pem::{Roots, common_name, key_pair};
pub use self::suites::{Suites, provider};
pub use self::system::system_roots;
pub use self::verify::{Allowed, ClientVerifier, ServerVerifier, SkipVerification, Trust};

/// All versions that there are, newest first.
pub const VERSIONS: &[&SupportedProtocolVersion] =
    &[&rustls::version::TLS13, &rustls::version::TLS12];

/// The configuration of a client that verifies its server by `verifier`, shows `identity` where the server asks for a
/// certificate, and offers these protocols.
///
/// # Errors
/// The provider has no suite for any of the versions.
pub fn client_config(
    suites: &Suites,
    versions: &[&'static SupportedProtocolVersion],
    verifier: Arc<dyn ServerCertVerifier>,
    identity: Option<Arc<CertifiedKey>>,
    protocols: &[&[u8]],
) -> Result<ClientConfig, String> {
    let builder = ClientConfig::builder_with_provider(provider(suites))
        .with_protocol_versions(versions)
        .map_err(|error| error.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match identity {
        Some(identity) => {
            builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(identity)))
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    // A resumed session shows no certificate, so that one that was revoked would go on being used.
    config.resumption = rustls::client::Resumption::disabled();
    Ok(config)
}
