//! Strings in JSON.

use std::fmt::Write as _;

/// A JSON string; with `html`, as `encoding/json` escapes it, without, as zap does.
pub fn string(out: &mut String, text: &str, html: bool) {
    out.push('"');
    for c in text.chars() {
        let _ = match c {
            '"' => write!(out, "\\\""),
            '\\' => write!(out, "\\\\"),
            '\n' => write!(out, "\\n"),
            '\r' => write!(out, "\\r"),
            '\t' => write!(out, "\\t"),
            '\x08' if html => write!(out, "\\b"),
            '\x0c' if html => write!(out, "\\f"),
            '<' | '>' | '&' if html => write!(out, "\\u{:04x}", u32::from(c)),
            '\u{2028}' | '\u{2029}' if html => write!(out, "\\u{:04x}", u32::from(c)),
            _ if u32::from(c) < 0x20 => write!(out, "\\u{:04x}", u32::from(c)),
            _ => {
                out.push(c);
                Ok(())
            }
        };
    }
    out.push('"');
}
