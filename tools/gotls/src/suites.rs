//! Cipher suites by their names in Go.

use std::sync::Arc;

use rustls::CipherSuite;
use rustls::crypto::{CryptoProvider, aws_lc_rs};

/// Suites that both Go and rustls have, for TLS 1.2. Those of TLS 1.3 cannot be chosen in Go: they are always on.
const OFFERED: &[(&str, CipherSuite)] = &[
    (
        "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    ),
    (
        "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    ),
    (
        "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    ),
    (
        "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    ),
    ("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256),
    ("TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384", CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384),
    (
        "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
        CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
    ),
    (
        "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305",
        CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
    ),
];

const TLS13: &[&str] =
    &["TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"];

/// Suites in the order in which Go's servers and clients prefer them on processors with instructions for AES. rustls puts
/// AES-256 first, whose handshake costs more: its hash is SHA-384.
const PREFERENCE: [CipherSuite; 9] = [
    CipherSuite::TLS13_AES_128_GCM_SHA256,
    CipherSuite::TLS13_AES_256_GCM_SHA384,
    CipherSuite::TLS13_CHACHA20_POLY1305_SHA256,
    CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
    CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
    CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
];

/// Suites that Go knows and rustls does not offer: CBC, key exchange by RSA, RC4 and 3DES.
const NOT_OFFERED: &[&str] = &[
    "TLS_RSA_WITH_RC4_128_SHA",
    "TLS_RSA_WITH_3DES_EDE_CBC_SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA",
    "TLS_RSA_WITH_AES_256_CBC_SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA256",
    "TLS_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_ECDSA_WITH_RC4_128_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256",
    "TLS_ECDHE_RSA_WITH_RC4_128_SHA",
    "TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256",
];

/// The suites of TLS 1.2 that may be used.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Suites {
    /// All that rustls has.
    #[default]
    All,
    /// These alone.
    Only(Vec<CipherSuite>),
}

impl Suites {
    /// Reads names as Go has them; no names for all suites. Names of suites that are known and not offered come back.
    ///
    /// # Errors
    /// A name is none of Go's.
    pub fn parse(names: &[String]) -> Result<(Self, Vec<String>), String> {
        if names.is_empty() {
            return Ok((Self::All, Vec::new()));
        }
        let (mut suites, mut skipped) = (Vec::new(), Vec::new());
        for name in names {
            if let Some((_, suite)) = OFFERED.iter().find(|(known, _)| known == name) {
                suites.push(*suite);
            } else if NOT_OFFERED.contains(&name.as_str()) {
                skipped.push(name.clone());
            } else if !TLS13.contains(&name.as_str()) {
                return Err(format!("unexpected TLS cipher suite {name:?}"));
            }
        }
        Ok((Self::Only(suites), skipped))
    }

    /// Tells if no connection of TLS 1.2 is possible.
    pub fn lack_tls12(&self) -> bool {
        matches!(self, Self::Only(suites) if suites.is_empty())
    }
}

/// The cryptographic provider, chosen here alone so that another build can have another one.
pub fn provider(suites: &Suites) -> Arc<CryptoProvider> {
    let mut provider = aws_lc_rs::default_provider();
    if let Suites::Only(suites) = suites {
        provider
            .cipher_suites
            .retain(|suite| suite.tls13().is_some() || suites.contains(&suite.suite()));
    }
    let place = |suite: CipherSuite| PREFERENCE.iter().position(|it| *it == suite);
    provider.cipher_suites.sort_by_key(|suite| place(suite.suite()).unwrap_or(PREFERENCE.len()));
    Arc::new(provider)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suites_are_named_as_in_go() {
        let parse = |names: &[&str]| {
            let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
            Suites::parse(&names)
        };
        assert_eq!(parse(&[]), Ok((Suites::All, vec![])));
        let one = CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256;
        let skipped = "TLS_RSA_WITH_AES_128_GCM_SHA256";
        assert_eq!(
            parse(&["TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", skipped, "TLS_AES_128_GCM_SHA256"]),
            Ok((Suites::Only(vec![one]), vec![skipped.to_owned()]))
        );
        assert_eq!(parse(&["FOO"]), Err("unexpected TLS cipher suite \"FOO\"".to_owned()));
        let none = parse(&[skipped]).expect("it is known").0;
        assert!(none.lack_tls12());
        assert!(provider(&none).cipher_suites.iter().all(|suite| suite.tls13().is_some()));
        assert_eq!(provider(&none).cipher_suites.len(), 3);
        assert_eq!(provider(&Suites::Only(vec![one])).cipher_suites.len(), 4);
    }

    #[test]
    fn suites_are_preferred_as_by_go() {
        let suites = provider(&Suites::All).cipher_suites.clone();
        let order: Vec<_> = suites.iter().map(|suite| suite.suite()).collect();
        assert_eq!(order, PREFERENCE);
    }
}
