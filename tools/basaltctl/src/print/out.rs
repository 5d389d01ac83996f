//! Standard output and standard error.

use std::io::Write as _;

/// Writes text; a closed pipe ends the program as it does others.
pub(crate) fn text(text: &str) {
    bytes(text.as_bytes());
}

pub(crate) fn line(line: &str) {
    bytes(format!("{line}\n").as_bytes());
}

pub(crate) fn bytes(bytes: &[u8]) {
    let mut out = std::io::stdout().lock();
    if out.write_all(bytes).and_then(|()| out.flush()).is_err() {
        std::process::exit(0);
    }
}

pub(crate) fn error(line: &str) {
    // Standard error is closed: there is no other place to report it.
    let _ = std::io::stderr().write_all(format!("{line}\n").as_bytes());
}
