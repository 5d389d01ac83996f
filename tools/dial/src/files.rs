//! Reads files, with Go's error texts.

use std::io;
use std::path::Path;

/// # Errors
/// `open <path>: no such file or directory` and the like.
pub fn read(path: &Path) -> Result<Vec<u8>, String> {
    std::fs::read(path).map_err(|it| format!("open {}: {}", path.display(), why(&it)))
}

/// The system's error text, as Go prints it.
pub fn why(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut chars = text.chars();
    let first = chars.next().map(|it| it.to_ascii_lowercase());
    first.into_iter().chain(chars).collect()
}
