//! Splits a line into words as etcdctl does, and the part of `fmt.Sscanf` that its transactions need.

use gocompat::quote::unquote;

/// Words of a line: `"..."` with Go's escapes, `'...'` as it is, or text between spaces.
///
/// # Errors
/// A quoted word with an escape that Go does not know.
pub(crate) fn words(line: &str) -> Result<Vec<Vec<u8>>, &'static str> {
    let mut words = Vec::new();
    let mut rest = line;
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '"' => double_quoted(rest),
            '\'' => rest[1..].find('\'').map(|end| end + 2),
            _ if is_space(first) => None,
            _ => Some(bare(rest)),
        };
        let Some(length) = length else {
            rest = &rest[first.len_utf8()..];
            continue;
        };
        let (word, tail) = rest.split_at(length);
        rest = tail;
        words.push(match first {
            '"' => unquote(&word.as_bytes()[1..length - 1]).ok_or("invalid syntax")?,
            '\'' => word.as_bytes()[1..length - 1].to_vec(),
            _ => word.as_bytes().to_vec(),
        });
    }
    Ok(words)
}

/// The end of the quoted word at the beginning, if it has one.
fn double_quoted(text: &str) -> Option<usize> {
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            // The pattern's dot does not match a newline.
            b'\n' if escaped => return None,
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return Some(at + 1),
            _ => {}
        }
    }
    None
}

/// The length of a word without quotes in front: one character, then all up to a space.
fn bare(text: &str) -> usize {
    text.find(is_space).unwrap_or(text.len())
}

fn is_space(c: char) -> bool {
    matches!(c, '\t' | '\n' | '\x0c' | '\r' | ' ')
}

/// Parses `"key") operator "value"` as far as possible: the number of parts read, and the parts.
pub(crate) fn comparison(text: &[u8]) -> (u8, Vec<u8>, String, Vec<u8>) {
    let (mut key, mut operator, mut value) = (Vec::new(), String::new(), Vec::new());
    let count = scan(text, &mut key, &mut operator, &mut value);
    (count, key, operator, value)
}

fn scan(text: &[u8], key: &mut Vec<u8>, operator: &mut String, value: &mut Vec<u8>) -> u8 {
    let Some((found, rest)) = quoted(text) else { return 0 };
    *key = found;
    let Some(rest) = rest.strip_prefix(b")") else { return 1 };
    if !rest.first().is_none_or(u8::is_ascii_whitespace) {
        return 1;
    }
    let rest = rest.trim_ascii_start();
    let end = rest.iter().position(u8::is_ascii_whitespace).unwrap_or(rest.len());
    if end == 0 {
        return 1;
    }
    *operator = String::from_utf8_lossy(&rest[..end]).into_owned();
    let Some((found, _)) = quoted(&rest[end..]) else { return 2 };
    *value = found;
    3
}

/// A string in double or back quotes, after spaces.
fn quoted(text: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let text = text.trim_ascii_start();
    if let Some(raw) = text.strip_prefix(b"`") {
        let end = raw.iter().position(|it| *it == b'`')?;
        return Some((raw[..end].to_vec(), &raw[end + 1..]));
    }
    let inner = text.strip_prefix(b"\"")?;
    let mut escaped = false;
    for (at, byte) in inner.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return Some((unquote(&inner[..at])?, &inner[at + 1..])),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(line: &str) -> Vec<String> {
        let words = words(line).unwrap();
        words.into_iter().map(|it| String::from_utf8(it).unwrap()).collect()
    }

    #[test]
    fn lines_are_cut_as_etcdctl_does() {
        assert_eq!(cut("put a  b"), ["put", "a", "b"]);
        assert_eq!(cut(r#"put "a b" 'c "d' --x="y z""#), ["put", "a b", "c \"d", "--x=\"y", "z\""]);
        assert_eq!(cut(r#"put "a\"b\n" ''"#), ["put", "a\"b\n", ""]);
        assert_eq!(cut("\"open"), ["open"]);
        assert!(words(r#""\q""#).is_err());
    }

    #[test]
    fn comparisons_are_read_as_far_as_they_go() {
        let read = |text: &str| comparison(text.as_bytes());
        assert_eq!(read("\"k\") = \"v\""), (3, b"k".to_vec(), "=".to_owned(), b"v".to_vec()));
        assert_eq!(read("\"k\")=\"v\"").0, 1);
        assert_eq!(read("k) = \"v\"").0, 0);
        assert_eq!(read("\"k\") = v").0, 2);
    }
}
