//! Keys and names in JSON.

use serde_json::Value;

/// A key or name: as text if it can be read, else in hex.
pub(super) fn text_of(name: &str, bytes: &[u8]) -> (String, Value) {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.chars().any(char::is_control) => (name.to_owned(), text.into()),
        Ok(_) | Err(_) => {
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            (format!("{name}-hex"), hex.into())
        }
    }
}
