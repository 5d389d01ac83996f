//! TLS by the flags `--cacert`, `--cert`, `--key` and `--insecure-skip-tls-verify`.

use std::path::Path;
use std::sync::Arc;

use tokio_rustls::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{
    CertificateDer, PrivateKeyDer, ServerName as PeerName, UnixTime,
};
use tokio_rustls::rustls::{
    ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};

/// The flags about TLS.
#[derive(Clone, Debug, Default)]
pub(crate) struct Security {
    pub(crate) cert: String,
    pub(crate) key: String,
    pub(crate) cacert: String,
    pub(crate) server_name: String,
    pub(crate) insecure_transport: bool,
    pub(crate) skip_verify: bool,
}

/// Files in which systems keep the certificates they trust.
const SYSTEM_ROOTS: &[&str] = &[
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// The configuration, if a flag asks for TLS.
///
/// # Errors
/// A file cannot be read or has other content; Go's text.
pub(crate) fn config(security: &Security) -> Result<Option<Arc<ClientConfig>>, String> {
    let Security { cert, key, cacert, server_name, .. } = security;
    let named = [cert, key, cacert, server_name].iter().any(|it| !it.is_empty());
    if !named && security.insecure_transport && !security.skip_verify {
        return Ok(None);
    }
    if cert.is_empty() != key.is_empty() {
        let text = format!("KeyFile and CertFile must both be present[key: {key}, cert: {cert}]");
        return Err(text);
    }
    let roots = if cacert.is_empty() { system_roots() } else { roots(cacert)? };
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|it| it.to_string())?
        .with_root_certificates(roots);
    let mut config = match cert.is_empty() {
        true => builder.with_no_client_auth(),
        false => {
            let chain = certificates(cert)?;
            let text = read(key)?;
            let key = PrivateKeyDer::from_pem_slice(&text)
                .map_err(|_| "tls: failed to find any PEM data in key input".to_owned())?;
            builder.with_client_auth_cert(chain, key).map_err(|it| {
                if matches!(it, Error::InconsistentKeys(_)) {
                    return "tls: private key does not match public key".to_owned();
                }
                it.to_string()
            })?
        }
    };
    if security.skip_verify {
        config.dangerous().set_certificate_verifier(Arc::new(Trusting));
    }
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Some(Arc::new(config)))
}

/// The configuration for `https` endpoints without any flag: the system's certificates.
pub(crate) fn default() -> Arc<ClientConfig> {
    let security = Security { insecure_transport: false, ..Security::default() };
    let config = config(&security).ok().flatten();
    config.expect("the system's roots need no file of ours")
}

fn read(path: &str) -> Result<Vec<u8>, String> {
    crate::command::files::read(Path::new(path))
}

fn certificates(path: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let text = read(path)?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match chain {
        Ok(chain) if !chain.is_empty() => Ok(chain),
        _ if String::from_utf8_lossy(&text).contains("PRIVATE KEY-----") => {
            Err("tls: failed to find certificate PEM data in certificate input, but did find a \
             private key; PEM inputs may have been switched"
                .to_owned())
        }
        _ => Err("tls: failed to find any PEM data in certificate input".to_owned()),
    }
}

fn roots(path: &str) -> Result<RootCertStore, String> {
    let text = read(path)?;
    let begun = String::from_utf8_lossy(&text);
    if begun.matches("-----BEGIN ").count() != begun.matches("-----BEGIN CERTIFICATE").count() {
        return Err("x509: malformed tbs certificate".to_owned());
    }
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&text).flatten() {
        roots.add(certificate).map_err(|it| it.to_string())?;
    }
    Ok(roots)
}

fn system_roots() -> RootCertStore {
    let named = std::env::var("SSL_CERT_FILE").ok();
    let files = named.iter().map(String::as_str).chain(SYSTEM_ROOTS.iter().copied());
    let mut roots = RootCertStore::empty();
    for path in files {
        let Ok(text) = read(path) else { continue };
        roots.add_parsable_certificates(CertificateDer::pem_slice_iter(&text).flatten());
        break;
    }
    roots
}

/// Accepts every certificate, for `--insecure-skip-tls-verify`.
#[derive(Debug)]
struct Trusting;

impl ServerCertVerifier for Trusting {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &PeerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let schemes = ring::default_provider().signature_verification_algorithms;
        schemes.supported_schemes()
    }
}
