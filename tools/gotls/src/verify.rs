//! Verification of both sides' certificates by Go's and etcd's rules.
//!
//! webpki builds paths. Beyond it, as in Go: a certificate that is in the trust file itself is trusted, whatever it is
//! (a self-signed one that is CA, server and client at once); one that is marked as a CA may be a leaf; the dates of a
//! root count.

use std::cell::RefCell;
use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};
use webpki::{EndEntityCert, KeyUsage, VerifiedPath};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::crl::Revoked;
use super::leaf::{Leaf, Usage};
use super::pem::Roots;

thread_local! {
    /// Why the last certificate was refused on this thread, in Go's words. rustls carries the alert alone.
    static REASON: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Why the last certificate was refused on this thread; once.
pub(super) fn take_reason() -> Option<String> {
    REASON.take()
}

/// Whose certificates are accepted, beside that they are trusted.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Allowed {
    /// Everybody's.
    #[default]
    All,
    /// Of these common names.
    CommonNames(Vec<String>),
    /// Valid for one of these hosts.
    HostNames(Vec<String>),
}

impl Allowed {
    fn allows(&self, leaf: &Leaf) -> bool {
        match self {
            Self::All => true,
            Self::CommonNames(names) => {
                names.iter().any(|name| Some(name) == leaf.common_name.as_ref())
            }
            Self::HostNames(hosts) => hosts.iter().any(|host| leaf.verify_host(host).is_ok()),
        }
    }
}

/// Rules for the certificates of peers.
#[derive(Clone, Debug, Default)]
pub struct Trust {
    /// Certificates of authorities.
    pub roots: Roots,
    /// Serial numbers that are refused, of all certificates that are shown.
    pub revoked: Option<Revoked>,
    /// Accepted owners of certificates.
    pub allowed: Allowed,
}

/// A refusal: the alert that is sent, and Go's words for the log.
struct Refused {
    alert: CertificateError,
    text: String,
}

impl From<Refused> for Error {
    fn from(refused: Refused) -> Self {
        REASON.set(Some(refused.text));
        Self::InvalidCertificate(refused.alert)
    }
}

const UNKNOWN: &str = "x509: certificate signed by unknown authority";
const USAGE: &str = "x509: certificate specifies an incompatible key usage";

/// A refusal by Go's crypto/x509.
fn untrusted(alert: CertificateError, text: impl std::fmt::Display) -> Refused {
    Refused { alert, text: format!("tls: failed to verify certificate: {text}") }
}

/// etcd's own refusals; rustls sends `access_denied` for those of an application, and the other side waits for
/// `bad certificate`.
fn refused(text: impl Into<String>) -> Refused {
    Refused { alert: CertificateError::NotValidForName, text: text.into() }
}

fn unknown() -> Refused {
    untrusted(CertificateError::UnknownIssuer, UNKNOWN)
}

impl Trust {
    /// Verifies who shows these certificates.
    fn verify(
        &self,
        algorithms: &WebPkiSupportedAlgorithms,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
        usage: Usage,
        host: Option<&str>,
    ) -> Result<(), Refused> {
        let leaf = Leaf::parse(end_entity).map_err(|why| Refused {
            alert: CertificateError::BadEncoding,
            text: format!("tls: failed to parse certificate from server: {why}"),
        })?;
        check_times((leaf.not_before, leaf.not_after), now)?;
        if let Some(host) = host {
            let not_valid = |why| untrusted(CertificateError::NotValidForName, why);
            leaf.verify_host(host).map_err(not_valid)?;
        }
        let is_root = self.roots.certificates().iter().any(|root| root == end_entity);
        if !is_root {
            self.verify_path(algorithms, end_entity, intermediates, now, usage, &leaf)?;
        }
        if !leaf.allows(usage) {
            return Err(untrusted(CertificateError::NotValidForName, USAGE));
        }
        if let Some(revoked) = &self.revoked {
            check_revoked(revoked, &leaf, intermediates)?;
        }
        if !self.allowed.allows(&leaf) {
            return Err(refused("client certificate authentication failed"));
        }
        Ok(())
    }

    fn verify_path(
        &self,
        algorithms: &WebPkiSupportedAlgorithms,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
        usage: Usage,
        leaf: &Leaf,
    ) -> Result<(), Refused> {
        let usage = match usage {
            Usage::Client => KeyUsage::client_auth(),
            Usage::Server => KeyUsage::server_auth(),
        };
        // webpki looks at no dates of roots.
        let root_is_valid = |path: &VerifiedPath<'_>| {
            let times = self.roots.times(path.anchor());
            let (not_before, not_after) = times.unwrap_or((i64::MIN, i64::MAX));
            let seconds = |time: i64| {
                UnixTime::since_unix_epoch(std::time::Duration::from_secs(
                    u64::try_from(time).unwrap_or(0),
                ))
            };
            match check_times((not_before, not_after), now) {
                Ok(()) => Ok(()),
                Err(_) => {
                    Err(webpki::Error::CertExpired { time: now, not_after: seconds(not_after) })
                }
            }
        };
        let certificate = EndEntityCert::try_from(end_entity).map_err(refusal)?;
        let verified = certificate.verify_for_usage(
            algorithms.all,
            self.roots.anchors(),
            intermediates,
            now,
            usage,
            None,
            Some(&root_is_valid),
        );
        match verified {
            Ok(_) => Ok(()),
            Err(webpki::Error::CaUsedAsEndEntity) => {
                self.verify_authority(algorithms, end_entity, now, leaf)
            }
            Err(error) => Err(refusal(error)),
        }
    }

    /// Verifies a leaf that is marked as an authority, which webpki refuses: one that a root itself has signed.
    fn verify_authority(
        &self,
        algorithms: &WebPkiSupportedAlgorithms,
        end_entity: &CertificateDer<'_>,
        now: UnixTime,
        leaf: &Leaf,
    ) -> Result<(), Refused> {
        if !leaf.is_plain {
            return Err(unknown());
        }
        let (_, certificate) = X509Certificate::from_der(end_entity).map_err(|_| unknown())?;
        let signed = certificate.tbs_certificate.as_ref();
        let signature = certificate.signature_value.as_ref();
        let issuer = certificate.issuer().as_raw();
        let mut outcome = Err(unknown());
        for root in self.roots.certificates() {
            let Ok((_, read)) = X509Certificate::from_der(root) else { continue };
            let Ok(key) = EndEntityCert::try_from(root) else { continue };
            let is_plain = Leaf::parse(root).is_ok_and(|root| root.is_plain);
            if read.subject().as_raw() != issuer || !read.is_ca() || !is_plain {
                continue;
            }
            let is_signed = algorithms
                .all
                .iter()
                .any(|algorithm| key.verify_signature(*algorithm, signed, signature).is_ok());
            if is_signed {
                let validity = read.validity();
                let times = (validity.not_before.timestamp(), validity.not_after.timestamp());
                outcome = check_times(times, now);
                if outcome.is_ok() {
                    break;
                }
            }
        }
        outcome
    }
}

fn check_times((not_before, not_after): (i64, i64), now: UnixTime) -> Result<(), Refused> {
    let seconds = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    let (side, bound) = match () {
        () if seconds < not_before => ("before", not_before),
        () if seconds > not_after => ("after", not_after),
        () => return Ok(()),
    };
    let (now, bound) = (rfc3339(seconds), rfc3339(bound));
    let text = format!(
        "x509: certificate has expired or is not yet valid: current time {now} is {side} {bound}"
    );
    Err(untrusted(CertificateError::Expired, text))
}

fn check_revoked(
    revoked: &Revoked,
    leaf: &Leaf,
    intermediates: &[CertificateDer<'_>],
) -> Result<(), Refused> {
    let others = intermediates.iter().filter_map(|der| Leaf::parse(der).ok());
    let hit = std::iter::once(leaf.clone()).chain(others).find(|it| revoked.contains(&it.serial));
    match hit {
        Some(hit) => Err(Refused {
            alert: CertificateError::Revoked,
            text: format!("transport: certificate serial {} revoked", hit.serial_text()),
        }),
        None => Ok(()),
    }
}

/// Seconds since 1970 as RFC 3339 has them, in UTC.
fn rfc3339(seconds: i64) -> String {
    gocompat::time::rfc3339(Duration::from_secs(u64::try_from(seconds).unwrap_or(0)))
}

/// Go's text for an error of webpki.
fn refusal(error: webpki::Error) -> Refused {
    match error {
        webpki::Error::CertExpired { time, not_after } => {
            let (now, bound) =
                (rfc3339(time.as_secs() as i64), rfc3339(not_after.as_secs() as i64));
            untrusted(
                CertificateError::Expired,
                format!(
                    "x509: certificate has expired or is not yet valid: current time {now} is after {bound}"
                ),
            )
        }
        webpki::Error::CertNotValidYet { time, not_before } => {
            let (now, bound) =
                (rfc3339(time.as_secs() as i64), rfc3339(not_before.as_secs() as i64));
            untrusted(
                CertificateError::Expired,
                format!(
                    "x509: certificate has expired or is not yet valid: current time {now} is before {bound}"
                ),
            )
        }
        webpki::Error::RequiredEkuNotFoundContext(_) => {
            untrusted(CertificateError::NotValidForName, USAGE)
        }
        webpki::Error::UnknownIssuer | webpki::Error::InvalidSignatureForPublicKey => unknown(),
        webpki::Error::UnsupportedCriticalExtension => {
            untrusted(CertificateError::NotValidForName, "x509: unhandled critical extension")
        }
        other => untrusted(CertificateError::NotValidForName, format!("x509: {other}")),
    }
}

/// The certificates that were accepted in one second. A client opens many connections with the same one, and to verify it
/// is a seventh of a handshake. Times count in whole seconds, so that within one the outcome is the same.
#[derive(Debug, Default)]
struct Accepted {
    second: u64,
    chains: HashSet<Vec<u8>>,
}

/// Chains of [`Accepted`]; others are verified each time.
const ACCEPTED_MAX: usize = 256;
/// Bytes of such a chain: two or three certificates. All chains have 2 MiB at most.
const ACCEPTED_BYTES_MAX: usize = 8 << 10;

/// All certificates with their lengths, so that no two chains are the same bytes.
fn chain_bytes(end_entity: &CertificateDer<'_>, others: &[CertificateDer<'_>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for certificate in std::iter::once(end_entity).chain(others) {
        bytes.extend_from_slice(&certificate.len().to_be_bytes());
        bytes.extend_from_slice(certificate);
    }
    bytes
}

/// Verifies clients: they must show a certificate.
#[derive(Debug)]
pub struct ClientVerifier {
    provider: Arc<CryptoProvider>,
    trust: Trust,
    accepted: Mutex<Accepted>,
}

impl ClientVerifier {
    /// Accepts whom `trust` trusts.
    pub fn new(provider: Arc<CryptoProvider>, trust: Trust) -> Arc<Self> {
        Arc::new(Self { provider, trust, accepted: Mutex::default() })
    }

    /// True if this chain was accepted in the second of `now`.
    fn has_accepted(&self, chain: &[u8], now: UnixTime) -> bool {
        let accepted = self.accepted.lock().unwrap_or_else(PoisonError::into_inner);
        accepted.second == now.as_secs() && accepted.chains.contains(chain)
    }

    fn note_accepted(&self, chain: Vec<u8>, now: UnixTime) {
        let mut accepted = self.accepted.lock().unwrap_or_else(PoisonError::into_inner);
        if accepted.second != now.as_secs() {
            *accepted = Accepted { second: now.as_secs(), chains: HashSet::new() };
        }
        if accepted.chains.len() < ACCEPTED_MAX && chain.len() <= ACCEPTED_BYTES_MAX {
            accepted.chains.insert(chain);
        }
    }
}

impl ClientCertVerifier for ClientVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.trust.roots.subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let chain = chain_bytes(end_entity, intermediates);
        if !self.has_accepted(&chain, now) {
            let algorithms = &self.provider.signature_verification_algorithms;
            self.trust.verify(algorithms, end_entity, intermediates, now, Usage::Client, None)?;
            self.note_accepted(chain, now);
        }
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Verifies servers.
#[derive(Debug)]
pub struct ServerVerifier {
    provider: Arc<CryptoProvider>,
    trust: Trust,
}

impl ServerVerifier {
    /// Accepts whom `trust` trusts, for the host that is dialed.
    pub fn new(provider: Arc<CryptoProvider>, trust: Trust) -> Arc<Self> {
        Arc::new(Self { provider, trust })
    }
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        let host = server_name.to_str();
        let host = Some(&*host);
        self.trust.verify(algorithms, end_entity, intermediates, now, Usage::Server, host)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Accepts any certificate, and still checks that the server holds its key.
#[derive(Debug)]
pub struct SkipVerification(Arc<CryptoProvider>);

impl SkipVerification {
    /// By this provider.
    pub fn new(provider: Arc<CryptoProvider>) -> Arc<Self> {
        Arc::new(Self(provider))
    }
}

impl ServerCertVerifier for SkipVerification {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(
            message,
            certificate,
            signed,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(
            message,
            certificate,
            signed,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests;
