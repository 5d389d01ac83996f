//! Sets of JSON web keys (RFC 7517, 7518 and 8037), as issuers of tokens publish them: the public keys that are for one method,
//! in the forms in which [`super::keys`] takes keys from PEM files.

use base64::Engine as _;
use serde::Deserialize;

use super::encoding::BASE64;
use super::method::{Method, Scheme};

/// A public key of a set.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct WebKey {
    /// The name by which tokens choose it.
    pub(super) id: Option<String>,
    /// A PKCS#1 `RSAPublicKey`, an uncompressed point, or the bytes of an Ed25519 key.
    pub(super) bits: Vec<u8>,
}

#[derive(Deserialize)]
struct Set {
    keys: Vec<Member>,
}

/// The members of a key that count. Those of private keys do not.
#[derive(Deserialize)]
struct Member {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    used_for: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

/// True for a file that is JSON instead of PEM.
pub(super) fn is_set(file: &[u8]) -> bool {
    file.trim_ascii_start().first() == Some(&b'{')
}

/// The keys of a set that are for this method. Others, and those that lack a part, are passed over, as RFC 7517 (5) asks.
///
/// # Errors
/// It is no set of keys.
pub(super) fn read(method: Method, file: &[u8]) -> Result<Vec<WebKey>, String> {
    let set: Set = serde_json::from_slice(file)
        .map_err(|error| format!("not a set of JSON web keys: {error}"))?;
    let keys = set.keys.iter().filter(|key| key.is_for(method));
    Ok(keys
        .filter_map(|key| Some(WebKey { id: key.kid.clone(), bits: key.bits(method)? }))
        .collect())
}

impl Member {
    fn is_for(&self, method: Method) -> bool {
        self.used_for.as_deref().is_none_or(|used_for| used_for == "sig")
            && self.alg.as_deref().is_none_or(|alg| alg == method.name())
    }

    fn bits(&self, method: Method) -> Option<Vec<u8>> {
        let (kty, crv) = (self.kty.as_str(), self.crv.as_deref().unwrap_or_default());
        match method.scheme() {
            Scheme::Rsa(..) if kty == "RSA" => {
                let (modulus, exponent) = (decoded(&self.n)?, decoded(&self.e)?);
                Some(sequence(&[integer(&modulus), integer(&exponent)].concat()))
            }
            Scheme::Ecdsa(..) if kty == "EC" => {
                let (name, length) = method.curve()?;
                let (x, y) = (decoded(&self.x)?, decoded(&self.y)?);
                let fits = crv == name && x.len() == length && y.len() == length;
                fits.then(|| [&[UNCOMPRESSED][..], &x, &y].concat())
            }
            Scheme::Ed25519(_) if kty == "OKP" && crv == "Ed25519" => decoded(&self.x),
            // A secret is no public key.
            Scheme::Hmac(_) | Scheme::Rsa(..) | Scheme::Ecdsa(..) | Scheme::Ed25519(_) => None,
        }
    }
}

/// The form of a point that has both coordinates (SEC 1, 2.3.3).
const UNCOMPRESSED: u8 = 4;
const INTEGER: u8 = 0x02;
const SEQUENCE: u8 = 0x30;

fn decoded(text: &Option<String>) -> Option<Vec<u8>> {
    BASE64.decode(text.as_ref()?).ok().filter(|bytes| !bytes.is_empty())
}

fn integer(bytes: &[u8]) -> Vec<u8> {
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    let digits = &bytes[zeros.min(bytes.len() - 1)..];
    // It would be negative without.
    let sign: &[u8] = if digits[0] & 0x80 == 0 { &[] } else { &[0] };
    tagged(INTEGER, &[sign, digits].concat())
}

fn sequence(content: &[u8]) -> Vec<u8> {
    tagged(SEQUENCE, content)
}

/// An element of DER.
fn tagged(tag: u8, content: &[u8]) -> Vec<u8> {
    let bytes = content.len().to_be_bytes();
    let length = &bytes[content.len().leading_zeros() as usize / 8..];
    let head = match content.len() {
        short @ 0..0x80 => vec![tag, short as u8],
        _ => [&[tag, 0x80 | length.len() as u8], length].concat(),
    };
    [head.as_slice(), content].concat()
}
