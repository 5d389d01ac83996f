//! Go's double-quoted strings, printed (`%q`) and parsed (`strconv.Unquote`).

use std::fmt::Write as _;

/// Quotes bytes as `%q` does.
pub fn quote(text: impl AsRef<[u8]>) -> String {
    let mut out = String::from("\"");
    for chunk in text.as_ref().utf8_chunks() {
        for c in chunk.valid().chars() {
            push(&mut out, c);
        }
        for byte in chunk.invalid() {
            let _ = write!(out, "\\x{byte:02x}");
        }
    }
    out.push('"');
    out
}

fn push(out: &mut String, c: char) {
    let number = u32::from(c);
    match c {
        '"' | '\\' => {
            out.push('\\');
            out.push(c);
        }
        '\x07' => out.push_str("\\a"),
        '\x08' => out.push_str("\\b"),
        '\x0c' => out.push_str("\\f"),
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        '\x0b' => out.push_str("\\v"),
        _ if is_printable(c) => out.push(c),
        _ => {
            let _ = match number {
                0..0x20 | 0x7f => write!(out, "\\x{number:02x}"),
                0x20..0x1_0000 => write!(out, "\\u{number:04x}"),
                0x1_0000.. => write!(out, "\\U{number:08x}"),
            };
        }
    }
}

/// Rust and Go agree on printable characters, except that Rust escapes a combining mark that comes first.
fn is_printable(c: char) -> bool {
    let mut pair = String::from("a");
    pair.push(c);
    c == '\'' || pair.escape_debug().count() == 2
}

/// Quotes one character as `%q` does.
pub fn quote_char(c: char) -> String {
    match c {
        '\'' => "'\\''".to_owned(),
        '"' => "'\"'".to_owned(),
        _ => {
            let mut out = String::from("'");
            push(&mut out, c);
            out.push('\'');
            out
        }
    }
}

/// The content of double quotes, with its escapes resolved; `None` if Go refuses it.
pub fn unquote(inner: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(inner.len());
    let mut rest = inner;
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        match byte {
            b'\n' | b'"' => return None,
            b'\\' => rest = escape(rest, &mut out)?,
            _ => out.push(byte),
        }
    }
    Some(out)
}

/// Resolves the escape after a backslash; returns the rest.
fn escape<'a>(rest: &'a [u8], out: &mut Vec<u8>) -> Option<&'a [u8]> {
    let (&kind, tail) = rest.split_first()?;
    let plain = match kind {
        b'a' => 7,
        b'b' => 8,
        b'f' => 12,
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'v' => 11,
        b'\\' => b'\\',
        b'"' => b'"',
        b'x' => {
            let (number, tail) = digits(tail, 2, 16)?;
            out.push(u8::try_from(number).ok()?);
            return Some(tail);
        }
        b'0'..=b'7' => {
            let (number, tail) = digits(rest, 3, 8)?;
            out.push(u8::try_from(number).ok()?);
            return Some(tail);
        }
        b'u' | b'U' => {
            let (number, tail) = digits(tail, if kind == b'u' { 4 } else { 8 }, 16)?;
            let c = char::from_u32(number)?;
            out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            return Some(tail);
        }
        _ => return None,
    };
    out.push(plain);
    Some(tail)
}

fn digits(rest: &[u8], count: usize, radix: u32) -> Option<(u32, &[u8])> {
    let (digits, tail) = rest.split_at_checked(count)?;
    let text = std::str::from_utf8(digits).ok().filter(|it| !it.starts_with('+'))?;
    Some((u32::from_str_radix(text, radix).ok()?, tail))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_as_go_does() {
        assert_eq!(quote("a\"b\\\n\x01\u{7f}é"), "\"a\\\"b\\\\\\n\\x01\\x7fé\"");
        assert_eq!(quote(b"\xff\x00ok"), "\"\\xff\\x00ok\"");
        assert_eq!(quote("\u{a0}\u{200b}\u{fffd}"), "\"\\u00a0\\u200b\u{fffd}\"");
        assert_eq!(quote("it's e\u{301}"), "\"it's e\u{301}\"");
    }

    #[test]
    fn unquotes_as_go_does() {
        assert_eq!(unquote(b"a\\x41\\101\\u00e9\\n").unwrap(), "aAA\u{e9}\n".as_bytes());
        assert_eq!(unquote(b"\\q"), None);
        assert_eq!(unquote(b"\\xff").unwrap(), vec![0xff]);
    }
}
