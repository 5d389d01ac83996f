//! The text of a token, and what is known of it in its place.

use sha2::{Digest as _, Sha256};

use crate::types::LogIndex;

/// Letters of a token.
const LETTERS: usize = 16;
/// A token's letters as members know them.
pub type TokenHash = [u8; 32];

/// The hash of a token's letters.
pub fn hash(letters: &[u8]) -> TokenHash {
    Sha256::digest(letters).into()
}

/// Letters of a new token, made of these random bytes.
pub fn letters(random: &[u8; 32]) -> String {
    // Sixteen bits for each of 52 letters: none is likelier than another by more than a thousandth.
    let pairs = random.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]]) % 52);
    pairs
        .map(|letter| char::from(if letter < 26 { b'a' } else { b'A' - 26 } + letter as u8))
        .collect()
}

/// The token of these letters, which an entry with this index made.
pub fn token(letters: &str, index: LogIndex) -> String {
    format!("{letters}.{index}")
}

/// Letters and index of a token; nothing if it is of another form.
pub fn parse(token: &[u8]) -> Option<(&[u8], LogIndex)> {
    let (letters, index) = token.split_at_checked(LETTERS)?;
    let digits = index.strip_prefix(b".")?;
    let are_digits = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    let index = std::str::from_utf8(digits).ok().filter(|_| are_digits)?.parse().ok()?;
    letters.iter().all(u8::is_ascii_alphabetic).then_some((letters, index))
}

/// The first twelve hex digits of the SHA-256 of a token, which is what logs may say of it.
pub fn fingerprint(token: &[u8]) -> String {
    let hash = Sha256::digest(token);
    hash.iter().take(6).map(|byte| format!("{byte:02x}")).collect()
}
