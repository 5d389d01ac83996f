//! Certificates that the system trusts.

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use super::Roots;

/// Where systems keep them.
const FILES: &[&str] = &[
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Those of `SSL_CERT_FILE`, or of the first file that can be read. Malformed ones are left out, as in Go.
pub fn system_roots() -> Roots {
    let named = std::env::var("SSL_CERT_FILE").ok();
    let files = named.iter().map(String::as_str).chain(FILES.iter().copied());
    let text = files.into_iter().find_map(|path| std::fs::read(path).ok()).unwrap_or_default();
    Roots::parsable(CertificateDer::pem_slice_iter(&text).flatten())
}
