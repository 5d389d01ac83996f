//! Tokens of one JSON value. Its syntax is known to be valid, so commas and colons are skipped like blanks; only the
//! content of texts is checked here, where `protojson` is stricter.

use std::borrow::Cow;

use super::Value;

/// The kind of a token.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Kind<'a> {
    /// The end of the value.
    End,
    Null,
    Bool(bool),
    Number,
    /// A text, or the name of a member; escapes are resolved.
    Text(Cow<'a, str>),
    ObjectOpen,
    ObjectClose,
    ArrayOpen,
    ArrayClose,
}

/// A token, and its position.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Token<'a> {
    pub(super) kind: Kind<'a>,
    /// The token as written.
    pub(super) raw: &'a [u8],
    at: usize,
}

/// The tokens of a value.
#[derive(Clone, Debug)]
pub(super) struct Tokens<'a> {
    whole: &'a [u8],
    at: usize,
}

impl<'a> Tokens<'a> {
    pub(super) fn new(value: &'a Value) -> Self {
        Self { whole: value.text(), at: 0 }
    }

    /// The next token.
    ///
    /// # Errors
    /// An invalid text, with the error of `protojson`.
    pub(super) fn read(&mut self) -> Result<Token<'a>, String> {
        self.pass_over();
        let at = self.at;
        let rest = &self.whole[at..];
        let (kind, length) = match rest.first() {
            None => (Kind::End, 0),
            Some(b'{') => (Kind::ObjectOpen, 1),
            Some(b'}') => (Kind::ObjectClose, 1),
            Some(b'[') => (Kind::ArrayOpen, 1),
            Some(b']') => (Kind::ArrayClose, 1),
            Some(b'n') => (Kind::Null, 4),
            Some(b't') => (Kind::Bool(true), 4),
            Some(b'f') => (Kind::Bool(false), 5),
            Some(b'"') => {
                let length = text_length(rest);
                (Kind::Text(self.text(at, &rest[..length])?), length)
            }
            Some(_) => {
                let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || b"+-.".contains(byte);
                (Kind::Number, rest.iter().take_while(|byte| is_part(byte)).count().max(1))
            }
        };
        let length = length.min(rest.len());
        self.at += length;
        Ok(Token { kind, raw: &rest[..length], at })
    }

    /// The next token, without consuming it.
    pub(super) fn peek(&self) -> Result<Token<'a>, String> {
        self.clone().read()
    }

    fn pass_over(&mut self) {
        let blank = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\r' | b'\n' | b',' | b':');
        self.at += self.whole[self.at..].iter().take_while(|byte| blank(byte)).count();
    }

    fn text(&self, at: usize, raw: &'a [u8]) -> Result<Cow<'a, str>, String> {
        let inner = raw.get(1..raw.len() - 1).unwrap_or_default();
        if !inner.contains(&b'\\') {
            let text = std::str::from_utf8(inner);
            return text.map(Cow::Borrowed).map_err(|_| self.not_utf8(at));
        }
        self.resolve(at, inner).map(Cow::Owned)
    }

    fn not_utf8(&self, at: usize) -> String {
        self.syntax_error(at, "invalid UTF-8 in string")
    }

    /// Resolves escapes.
    fn resolve(&self, at: usize, inner: &[u8]) -> Result<String, String> {
        let mut text = String::with_capacity(inner.len());
        let mut rest = inner;
        while let Some(escape) = rest.iter().position(|byte| *byte == b'\\') {
            text.push_str(std::str::from_utf8(&rest[..escape]).map_err(|_| self.not_utf8(at))?);
            rest = &rest[escape..];
            let (resolved, length) = match rest.get(1) {
                Some(b'u') => self.code_point(at, at + 1 + inner.len() - rest.len())?,
                Some(b'b') => ('\u{8}', 2),
                Some(b'f') => ('\u{c}', 2),
                Some(b'n') => ('\n', 2),
                Some(b'r') => ('\r', 2),
                Some(b't') => ('\t', 2),
                Some(itself) => (char::from(*itself), 2),
                None => ('\\', 1),
            };
            text.push(resolved);
            rest = &rest[length..];
        }
        text.push_str(std::str::from_utf8(rest).map_err(|_| self.not_utf8(at))?);
        Ok(text)
    }

    /// Resolves the `\uXXXX` at `here` in the text that begins at `at`, or a surrogate pair. The error for an invalid
    /// second one quotes the following characters, even beyond the text, as Go does.
    fn code_point(&self, at: usize, here: usize) -> Result<(char, usize), String> {
        let (first, second) = self.whole[here..].split_at(6);
        let high = hexadecimal(first).unwrap_or_default();
        if let Some(character) = char::from_u32(high) {
            return Ok((character, 6));
        }
        let Some(second) = second.get(..6) else {
            return Err("proto: unexpected EOF".to_owned());
        };
        let pair = hexadecimal(second).and_then(|low| {
            let is_pair = (0xd800..0xdc00).contains(&high) && (0xdc00..0xe000).contains(&low);
            is_pair.then(|| char::from_u32(0x1_0000 + ((high - 0xd800) << 10) + (low - 0xdc00)))?
        });
        pair.map(|character| (character, 12)).ok_or_else(|| {
            let code = String::from_utf8_lossy(second).replace('\\', "\\\\").replace('"', "\\\"");
            self.syntax_error(at, &format!("invalid escape code \"{code}\" in string"))
        })
    }

    /// The error about a token.
    pub(super) fn error(&self, token: &Token<'_>, what: &str) -> String {
        let (line, column) = self.position(token.at);
        format!("proto: (line {line}:{column}): {what}")
    }

    /// The error for a token that is not allowed here.
    pub(super) fn unexpected(&self, token: &Token<'_>) -> String {
        self.syntax_error(token.at, &format!("unexpected token {}", token.text()))
    }

    fn syntax_error(&self, at: usize, what: &str) -> String {
        let (line, column) = self.position(at);
        format!("proto: syntax error (line {line}:{column}): {what}")
    }

    /// Line and column, both from 1; columns are characters.
    fn position(&self, at: usize) -> (usize, usize) {
        let before = &self.whole[..at];
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        let begin = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        (line, String::from_utf8_lossy(&before[begin..]).chars().count() + 1)
    }
}

impl Token<'_> {
    /// The token as written.
    pub(super) fn text(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(self.raw)
    }
}

/// Length of the text that begins here, with its quotation marks.
fn text_length(rest: &[u8]) -> usize {
    let mut escaped = false;
    for (at, byte) in rest.iter().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return at + 1,
            _ => (),
        }
    }
    rest.len()
}

/// The number after `\u`.
fn hexadecimal(escape: &[u8]) -> Option<u32> {
    let digits = escape.strip_prefix(b"\\u")?.get(..4)?;
    u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}
