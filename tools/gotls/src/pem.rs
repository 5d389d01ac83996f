//! Certificates and keys in PEM, refused in the words of Go's `tls.X509KeyPair` and etcd's `NewCertPool`.

use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, TrustAnchor};
use rustls::sign::CertifiedKey;
use rustls::{DistinguishedName, Error, InconsistentKeys};

use super::leaf::Leaf;
use super::suites::{Suites, provider};

/// The kinds of the PEM blocks in a text.
fn kinds(text: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(text);
    let lines = text.lines().filter_map(|line| line.trim_end().strip_prefix("-----BEGIN "));
    lines.filter_map(|line| line.strip_suffix("-----")).map(str::to_owned).collect()
}

/// A list as Go's `%v` prints it.
fn listed(kinds: &[String]) -> String {
    format!("[{}]", kinds.join(" "))
}

/// A certificate with its chain, and the key that belongs to it.
///
/// # Errors
/// One of them is malformed, or they do not belong together.
pub fn key_pair(certificate: &[u8], key: &[u8]) -> Result<Arc<CertifiedKey>, String> {
    let chain = chain(certificate)?;
    let key = private_key(key)?;
    let unusable = || "tls: failed to parse private key".to_owned();
    let key = provider(&Suites::All).key_provider.load_private_key(key).map_err(|_| unusable())?;
    let pair = CertifiedKey::new(chain, key);
    match pair.keys_match() {
        Ok(()) | Err(Error::InconsistentKeys(InconsistentKeys::Unknown)) => Ok(Arc::new(pair)),
        Err(Error::InconsistentKeys(_)) => {
            Err("tls: private key does not match public key".to_owned())
        }
        Err(error) => Err(unservable(&error)),
    }
}

/// Certificates that Go serves and rustls does not read: version 1.
fn unservable(error: &Error) -> String {
    format!("the certificate cannot be used, it needs to be of version 3 of X.509: {error}")
}

fn chain(text: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let kinds = kinds(text);
    if !kinds.iter().any(|kind| kind == "CERTIFICATE") {
        return Err(match &kinds[..] {
            [] => "tls: failed to find any PEM data in certificate input".to_owned(),
            [one] if one.ends_with("PRIVATE KEY") => {
                "tls: failed to find certificate PEM data in certificate input, but did find a \
                 private key; PEM inputs may have been switched"
                    .to_owned()
            }
            others => format!(
                "tls: failed to find \"CERTIFICATE\" PEM block in certificate input after skipping \
                 PEM blocks of the following types: {}",
                listed(others)
            ),
        });
    }
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text).collect();
    let malformed = || "x509: malformed certificate".to_owned();
    let chain = chain.map_err(|_| malformed())?;
    let first = chain.first().ok_or_else(malformed)?;
    Leaf::parse(first)?;
    Ok(chain)
}

/// The common name of the first certificate in a file.
///
/// # Errors
/// There is no certificate in it, in Go's words.
pub fn common_name(certificate: &[u8]) -> Result<Option<String>, String> {
    let chain = chain(certificate)?;
    // `chain` has at least one certificate.
    Ok(Leaf::parse(&chain[0])?.common_name)
}

fn private_key(text: &[u8]) -> Result<PrivateKeyDer<'static>, String> {
    let kinds = kinds(text);
    let is_key = |kind: &String| kind == "PRIVATE KEY" || kind.ends_with(" PRIVATE KEY");
    if !kinds.iter().any(is_key) {
        return Err(match &kinds[..] {
            [] => "tls: failed to find any PEM data in key input".to_owned(),
            [one] if one == "CERTIFICATE" => {
                "tls: found a certificate rather than a key in the PEM for the private key"
                    .to_owned()
            }
            others => format!(
                "tls: failed to find PEM block with type ending in \"PRIVATE KEY\" in key input \
                 after skipping PEM blocks of the following types: {}",
                listed(others)
            ),
        });
    }
    // Encrypted ones, too, which neither Go nor etcd decrypts.
    PrivateKeyDer::from_pem_slice(text).map_err(|_| "tls: failed to parse private key".to_owned())
}

/// Certificates that are trusted to sign others, and to be shown themselves.
#[derive(Clone, Debug, Default)]
pub struct Roots {
    certificates: Vec<CertificateDer<'static>>,
    anchors: Vec<TrustAnchor<'static>>,
    subjects: Vec<DistinguishedName>,
    /// From when to when each is valid: seconds since 1970.
    times: Vec<(i64, i64)>,
}

impl Roots {
    /// Reads the certificates of a file.
    ///
    /// # Errors
    /// A block is no certificate.
    pub fn parse(text: &[u8]) -> Result<Self, String> {
        if kinds(text).iter().any(|kind| kind != "CERTIFICATE") {
            return Err("x509: malformed tbs certificate".to_owned());
        }
        let mut roots = Self::default();
        for certificate in CertificateDer::pem_slice_iter(text) {
            let certificate = certificate.map_err(|_| "x509: malformed certificate".to_owned())?;
            roots.add(certificate)?;
        }
        Ok(roots)
    }

    /// Those of these certificates that can be read.
    pub(super) fn parsable(all: impl Iterator<Item = CertificateDer<'static>>) -> Self {
        let mut roots = Self::default();
        for certificate in all {
            drop(roots.add(certificate));
        }
        roots
    }

    fn add(&mut self, certificate: CertificateDer<'static>) -> Result<(), String> {
        let leaf = Leaf::parse(&certificate)?;
        let anchor = webpki::anchor_from_trusted_cert(&certificate)
            .map_err(|error| format!("x509: malformed certificate: {error}"))?
            .to_owned();
        self.subjects.push(DistinguishedName::in_sequence(anchor.subject.as_ref()));
        self.anchors.push(anchor);
        self.times.push((leaf.not_before, leaf.not_after));
        self.certificates.push(certificate);
        Ok(())
    }

    /// The certificates.
    pub fn certificates(&self) -> &[CertificateDer<'static>] {
        &self.certificates
    }

    pub(super) fn anchors(&self) -> &[TrustAnchor<'static>] {
        &self.anchors
    }

    pub(super) fn subjects(&self) -> &[DistinguishedName] {
        &self.subjects
    }

    /// From when to when an anchor is valid.
    pub(super) fn times(&self, anchor: &TrustAnchor<'_>) -> Option<(i64, i64)> {
        let is_it = |known: &TrustAnchor<'_>| {
            known.subject == anchor.subject
                && known.subject_public_key_info == anchor.subject_public_key_info
        };
        // The same key may have been certified more than once: the longest counts.
        let found = self.anchors.iter().zip(&self.times).filter(|(known, _)| is_it(known));
        found.map(|(_, times)| *times).max_by_key(|(_, not_after)| *not_after)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_pair_is_refused_in_gos_words() {
        let key = rcgen::KeyPair::generate().expect("a key");
        let other = rcgen::KeyPair::generate().expect("a key").serialize_pem();
        let params = rcgen::CertificateParams::new(vec!["a".to_owned()]).expect("a name");
        let certificate = params.self_signed(&key).expect("a certificate").pem();
        let key = key.serialize_pem();
        assert!(key_pair(certificate.as_bytes(), key.as_bytes()).is_ok());
        let encrypted = key.replace("BEGIN PRIVATE", "BEGIN ENCRYPTED PRIVATE");
        let encrypted = encrypted.replace("END PRIVATE", "END ENCRYPTED PRIVATE");
        for (certificate, key, why) in [
            (&*certificate, &*other, "tls: private key does not match public key"),
            (&certificate, "", "tls: failed to find any PEM data in key input"),
            ("", &key, "tls: failed to find any PEM data in certificate input"),
            (
                &key,
                &certificate,
                "tls: failed to find certificate PEM data in certificate input, but did find a \
                 private key; PEM inputs may have been switched",
            ),
            (
                &certificate,
                &certificate,
                "tls: found a certificate rather than a key in the PEM for the private key",
            ),
            (&certificate, &encrypted, "tls: failed to parse private key"),
        ] {
            let refused = key_pair(certificate.as_bytes(), key.as_bytes());
            assert_eq!(refused.err().as_deref(), Some(why));
        }
        let refused = Roots::parse(key.as_bytes()).err();
        assert_eq!(refused.as_deref(), Some("x509: malformed tbs certificate"));
    }
}
