//! Keys of `--auth-token jwt,…`, from files as etcd takes them: PEM for all methods but HMAC, whose key are the bytes of
//! the file.

use std::collections::BTreeSet;

use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, ParsedPublicKey, RsaKeyPair,
};

use super::der::{pem_blocks, public_key};
use super::jwks::{self, WebKey};
use super::method::{Method, Scheme};

/// The reason why no token is made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SignError {
    /// There is no private key.
    VerifyOnly,
    /// The key does not sign.
    Key,
}

impl SignError {
    /// etcd's text, which clients get with the code `Unknown`.
    pub const fn text(self) -> &'static str {
        match self {
            Self::VerifyOnly => "auth: token signing attempted with verify-only key",
            Self::Key => "key is invalid",
        }
    }
}

/// The contents of the files that hold keys.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct KeyFiles {
    /// Content of the file of the option `priv-key`.
    pub private: Option<Vec<u8>>,
    /// Content of the file of the option `pub-key`.
    pub public: Option<Vec<u8>>,
    /// Contents of the files of `--auth-jwt-public-keys`, whose keys verify too: PEM or sets of JSON web keys; for HMAC, the bytes
    /// of other keys.
    pub others: Vec<Vec<u8>>,
}

/// The keys of a method.
pub struct Keys {
    method: Method,
    private: Option<PrivateKey>,
    public: Vec<PublicKey>,
}

/// A key that verifies.
struct PublicKey {
    /// Its name, if it has one; tokens may name the key that they were signed with.
    id: Option<String>,
    verifier: Verifier,
}

enum PrivateKey {
    Hmac(Box<hmac::Key>),
    Rsa(RsaKeyPair),
    Ecdsa(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

enum Verifier {
    Hmac(Box<hmac::Key>),
    Asymmetric(ParsedPublicKey),
}

/// The reason why there are no keys; the text is etcd's where it has one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeyError(pub String);

impl std::fmt::Display for KeyError {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(&self.0)
    }
}

const MISSING: &str = "auth: missing key data";
const DIFFERENT: &str = "auth: public and private keys don't match";

impl Keys {
    /// Reads keys for a method.
    ///
    /// # Errors
    /// There is none, one is of another kind, or the two do not belong together.
    pub fn read(method: Method, files: &KeyFiles) -> Result<Self, KeyError> {
        let given = |file: &Option<Vec<u8>>| file.clone().filter(|bytes| !bytes.is_empty());
        let (private, public) = (given(&files.private), given(&files.public));
        let others = files.others.iter();
        if let Scheme::Hmac(algorithm) = method.scheme() {
            let own = private.ok_or_else(|| KeyError(MISSING.to_owned()))?;
            let key = |bytes: &[u8]| hmac::Key::new(algorithm, bytes);
            let all = [&own].into_iter().chain(others);
            let verifiers = all.map(|bytes| Verifier::Hmac(Box::new(key(bytes))));
            let public = verifiers.map(|verifier| PublicKey { id: None, verifier }).collect();
            return Ok(Self {
                method,
                private: Some(PrivateKey::Hmac(Box::new(key(&own)))),
                public,
            });
        }
        let private = private.map(|pem| read_private(method, &pem)).transpose()?;
        let public = public.map(|pem| read_public(method, &pem)).transpose()?;
        let own = private.as_ref().map(|key| key.public(method)).transpose()?;
        if let (Some(own), Some(public)) = (&own, &public)
            && !public.iter().any(|public| public.bits == own.bits)
        {
            return Err(KeyError(DIFFERENT.to_owned()));
        }
        let mut keys: Vec<_> = own.into_iter().chain(public.into_iter().flatten()).collect();
        for other in others {
            keys.extend(match jwks::is_set(other) {
                true => read_set(method, other)?,
                false => read_public(method, other)?,
            });
        }
        if keys.is_empty() {
            return Err(KeyError(MISSING.to_owned()));
        }
        let mut known = BTreeSet::new();
        keys.retain(|key| known.insert((key.id.clone(), key.bits.clone())));
        let public = keys.into_iter().map(|Public { id, key, .. }| {
            let verifier = Verifier::Asymmetric(key);
            PublicKey { id, verifier }
        });
        let public = public.collect();
        Ok(Self { method, private, public })
    }

    /// The method of these keys.
    pub fn method(&self) -> Method {
        self.method
    }

    /// Tells if tokens cannot be made.
    pub fn is_verify_only(&self) -> bool {
        self.private.is_none()
    }

    pub(super) fn sign_bytes(&self, bytes: &[u8]) -> Result<Vec<u8>, SignError> {
        let random = SystemRandom::new();
        match self.private.as_ref().ok_or(SignError::VerifyOnly)? {
            PrivateKey::Hmac(key) => Ok(hmac::sign(key, bytes).as_ref().to_vec()),
            PrivateKey::Rsa(key) => {
                let Scheme::Rsa(encoding, _) = self.method.scheme() else {
                    return Err(SignError::Key);
                };
                let mut signature = vec![0; key.public_modulus_len()];
                key.sign(encoding, &random, bytes, &mut signature).map_err(|_| SignError::Key)?;
                Ok(signature)
            }
            PrivateKey::Ecdsa(key) => {
                let signature = key.sign(&random, bytes).map_err(|_| SignError::Key)?;
                Ok(signature.as_ref().to_vec())
            }
            PrivateKey::Ed25519(key) => Ok(key.sign(bytes).as_ref().to_vec()),
        }
    }

    /// True if one of the keys has made this signature: that of this name if there is one, else any without a name. A token that
    /// names none may be of any key.
    pub(super) fn verify_bytes(&self, bytes: &[u8], signature: &[u8], id: Option<&str>) -> bool {
        let is_known = id.is_some() && self.public.iter().any(|key| key.id.as_deref() == id);
        let keys = self.public.iter().filter(|key| match id {
            None => true,
            Some(_) if is_known => key.id.as_deref() == id,
            Some(_) => key.id.is_none(),
        });
        keys.map(|key| &key.verifier).any(|key| match key {
            Verifier::Hmac(key) => hmac::verify(key, bytes, signature).is_ok(),
            Verifier::Asymmetric(key) => key.verify_sig(bytes, signature).is_ok(),
        })
    }
}

/// A key that verifies, and its bits, by which keys are compared.
struct Public {
    id: Option<String>,
    bits: Vec<u8>,
    key: ParsedPublicKey,
}

impl PrivateKey {
    fn public(&self, method: Method) -> Result<Public, KeyError> {
        let bits = match self {
            Self::Hmac(_) => &[][..],
            Self::Rsa(key) => key.public_key().as_ref(),
            Self::Ecdsa(key) => key.public_key().as_ref(),
            Self::Ed25519(key) => key.public_key().as_ref(),
        };
        parse_public(method, bits)
    }
}

fn read_private(method: Method, pem: &[u8]) -> Result<PrivateKey, KeyError> {
    let blocks = pem_blocks(pem);
    if blocks.is_empty() {
        return Err(not_pem());
    }
    let key = blocks.iter().find_map(|der| match method.scheme() {
        Scheme::Hmac(_) => None,
        Scheme::Rsa(..) => {
            let key = RsaKeyPair::from_pkcs8(der).or_else(|_| RsaKeyPair::from_der(der));
            key.ok().map(PrivateKey::Rsa)
        }
        Scheme::Ecdsa(algorithm, _) => {
            EcdsaKeyPair::from_private_key_der(algorithm, der).ok().map(PrivateKey::Ecdsa)
        }
        Scheme::Ed25519(_) => {
            Ed25519KeyPair::from_pkcs8_maybe_unchecked(der).ok().map(PrivateKey::Ed25519)
        }
    });
    key.ok_or_else(|| KeyError(format!("key is not a valid {} private key", family(method))))
}

/// All public keys of a file, at least one.
fn read_public(method: Method, pem: &[u8]) -> Result<Vec<Public>, KeyError> {
    let blocks = pem_blocks(pem);
    if blocks.is_empty() {
        return Err(not_pem());
    }
    let bits = blocks.iter().filter_map(|der| public_key(der));
    let keys: Vec<_> = bits.filter_map(|bits| parse_public(method, bits).ok()).collect();
    if keys.is_empty() {
        return Err(KeyError(format!("key is not a valid {} public key", family(method))));
    }
    Ok(keys)
}

/// The public keys of a set of JSON web keys, at least one.
fn read_set(method: Method, file: &[u8]) -> Result<Vec<Public>, KeyError> {
    let found = jwks::read(method, file).map_err(KeyError)?.into_iter();
    let keys = found.filter_map(|WebKey { id, bits }| {
        parse_public(method, &bits).ok().map(|public| Public { id, ..public })
    });
    let keys: Vec<_> = keys.collect();
    if keys.is_empty() {
        return Err(KeyError(format!("no key of the set is for {}", method.name())));
    }
    Ok(keys)
}

fn parse_public(method: Method, bits: &[u8]) -> Result<Public, KeyError> {
    let algorithm = match method.scheme() {
        Scheme::Hmac(_) => return Err(KeyError(MISSING.to_owned())),
        Scheme::Rsa(_, algorithm) | Scheme::Ecdsa(_, algorithm) | Scheme::Ed25519(algorithm) => {
            algorithm
        }
    };
    let key = ParsedPublicKey::new(algorithm, bits)
        .map_err(|_| KeyError(format!("key is not a valid {} public key", family(method))))?;
    Ok(Public { id: None, bits: bits.to_vec(), key })
}

/// As Go's library names the kind of a method's keys.
fn family(method: Method) -> &'static str {
    match method.scheme() {
        Scheme::Hmac(_) => "HMAC",
        Scheme::Rsa(..) => "RSA",
        Scheme::Ecdsa(..) => "ECDSA",
        Scheme::Ed25519(_) => "Ed25519",
    }
}

fn not_pem() -> KeyError {
    KeyError("invalid key: Key must be a PEM encoded PKCS1 or PKCS8 key".to_owned())
}
