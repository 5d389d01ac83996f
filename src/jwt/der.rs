//! Wrappings of keys: PEM blocks, and as much of DER (X.690) as finds a public key in them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const SEQUENCE: u8 = 0x30;
/// `[0]`, explicit: the version of a certificate.
const VERSION: u8 = 0xa0;

/// The contents of all PEM blocks, whatever they say that they are: Go's parsers do not look at that either.
pub(super) fn pem_blocks(text: &[u8]) -> Vec<Vec<u8>> {
    let text = String::from_utf8_lossy(text);
    let mut blocks = Vec::new();
    let mut block: Option<String> = None;
    for line in text.lines().map(str::trim) {
        if line.starts_with("-----BEGIN ") {
            block = Some(String::new());
        } else if line.starts_with("-----END ") {
            blocks.extend(block.take().and_then(|body| STANDARD.decode(body).ok()));
        } else if let Some(body) = &mut block {
            body.push_str(line);
        }
    }
    blocks
}

/// The bits of a public key: a PKCS#1 `RSAPublicKey`, a point of a curve, or the bytes of an Ed25519 key. They are found in a
/// `SubjectPublicKeyInfo`, in a certificate, and in a bare `RSAPublicKey`.
pub(super) fn public_key(der: &[u8]) -> Option<&[u8]> {
    let (outer, []) = tagged(SEQUENCE, der)? else { return None };
    let (first, content, rest) = element(outer)?;
    if first == INTEGER {
        let (_, []) = tagged(INTEGER, rest)? else { return None };
        return Some(der);
    }
    match element(rest)? {
        (BIT_STRING, bits, []) => bits.strip_prefix(&[0]),
        // The rest of a certificate is the algorithm of the signature and the signature.
        (SEQUENCE, ..) => public_key(certified(content)?),
        _ => None,
    }
}

/// The `SubjectPublicKeyInfo` of a certificate's signed part (RFC 5280, 4.1).
fn certified(signed: &[u8]) -> Option<&[u8]> {
    let fields = match element(signed)? {
        (VERSION, _, rest) => rest,
        _ => signed,
    };
    let (_, mut rest) = tagged(INTEGER, fields)?;
    // Algorithm, issuer, validity, subject.
    for _ in 0..4 {
        rest = tagged(SEQUENCE, rest)?.1;
    }
    let (_, after) = tagged(SEQUENCE, rest)?;
    rest.get(..rest.len() - after.len())
}

/// The content of the first element, which has this tag, and what follows it.
fn tagged(tag: u8, der: &[u8]) -> Option<(&[u8], &[u8])> {
    element(der).and_then(|(found, content, rest)| (found == tag).then_some((content, rest)))
}

/// The first element: tag, content, and what follows it.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&[tag, length], rest) = der.split_first_chunk::<2>()?;
    let (length, rest) = match length {
        short if short < 0x80 => (usize::from(short), rest),
        // Keys and certificates have less than 16 MiB.
        long @ 0x81..=0x83 => {
            let (bytes, rest) = rest.split_at_checked(usize::from(long & 0x7f))?;
            (bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}
