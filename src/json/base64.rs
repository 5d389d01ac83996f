//! Bytes in JSON: base64 with either alphabet, padded or not, is read; the standard one is written.

use base64::Engine as _;
use base64::alphabet::{Alphabet, STANDARD, URL_SAFE};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

/// Go ignores unused bits of the last character.
const fn engine(alphabet: &Alphabet, padding: DecodePaddingMode) -> GeneralPurpose {
    let config = GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(padding);
    GeneralPurpose::new(alphabet, config)
}

const PADDED: DecodePaddingMode = DecodePaddingMode::RequireCanonical;
const BARE: DecodePaddingMode = DecodePaddingMode::RequireNone;
static STANDARD_PADDED: GeneralPurpose = engine(&STANDARD, PADDED);
static STANDARD_BARE: GeneralPurpose = engine(&STANDARD, BARE);
static URL_PADDED: GeneralPurpose = engine(&URL_SAFE, PADDED);
static URL_BARE: GeneralPurpose = engine(&URL_SAFE, BARE);

/// Bytes of a text, if it is base64.
pub(super) fn decode(text: &str) -> Option<Vec<u8>> {
    let engine = match (text.contains(['-', '_']), text.len().is_multiple_of(4)) {
        (false, true) => &STANDARD_PADDED,
        (false, false) => &STANDARD_BARE,
        (true, true) => &URL_PADDED,
        (true, false) => &URL_BARE,
    };
    match text.contains(['\r', '\n']) {
        // Go skips line ends.
        true => engine.decode(text.replace(['\r', '\n'], "")).ok(),
        false => engine.decode(text).ok(),
    }
}

/// Appends bytes as base64.
pub(super) fn encode(bytes: &[u8], out: &mut String) {
    STANDARD_PADDED.encode_string(bytes, out);
}
