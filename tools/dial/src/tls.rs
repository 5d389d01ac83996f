//! TLS by the flags `--cacert`, `--cert`, `--key` and `--insecure-skip-tls-verify`.

use std::path::Path;
use std::sync::Arc;

use gotls::{Roots, ServerVerifier, SkipVerification, Suites, Trust};
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::client::danger::ServerCertVerifier;

/// The flags about TLS.
#[derive(Clone, Debug, Default)]
pub struct Security {
    pub cert: String,
    pub key: String,
    pub cacert: String,
    pub server_name: String,
    pub insecure_transport: bool,
    pub skip_verify: bool,
}

/// The configuration, if any flag asks for TLS.
///
/// # Errors
/// A file cannot be read or has other content; Go's text.
pub fn config(security: &Security) -> Result<Option<Arc<ClientConfig>>, String> {
    let Security { cert, key, cacert, server_name, .. } = security;
    let named = [cert, key, cacert, server_name].iter().any(|it| !it.is_empty());
    if !named && security.insecure_transport && !security.skip_verify {
        return Ok(None);
    }
    if cert.is_empty() != key.is_empty() {
        let text = format!("KeyFile and CertFile must both be present[key: {key}, cert: {cert}]");
        return Err(text);
    }
    let roots = match cacert.is_empty() {
        true => gotls::system_roots(),
        false => Roots::parse(&read(cacert)?)?,
    };
    let identity = match cert.is_empty() {
        true => None,
        false => Some(gotls::key_pair(&read(cert)?, &read(key)?)?),
    };
    let suites = Suites::All;
    let provider = gotls::provider(&suites);
    let verifier: Arc<dyn ServerCertVerifier> = match security.skip_verify {
        true => SkipVerification::new(provider),
        // gRPC verifies the host that is dialed: `server_name` alone does no more than ask for TLS.
        false => ServerVerifier::new(provider, Trust { roots, ..Trust::default() }),
    };
    gotls::client_config(&suites, gotls::VERSIONS, verifier, identity, &[b"h2"])
        .map(|config| Some(Arc::new(config)))
}

/// The configuration for `https` endpoints without any flag: the system's certificates.
pub fn default() -> Arc<ClientConfig> {
    let security = Security { insecure_transport: false, ..Security::default() };
    let config = config(&security).ok().flatten();
    config.expect("the system's roots need no file of ours")
}

fn read(path: &str) -> Result<Vec<u8>, String> {
    crate::files::read(Path::new(path))
}

/// Go's text for an error of a connection with TLS.
pub fn why(error: &std::io::Error) -> String {
    let inner = error.get_ref().and_then(|it| it.downcast_ref::<tokio_rustls::rustls::Error>());
    inner.map_or_else(|| crate::files::why(error), gotls::handshake_error)
}
