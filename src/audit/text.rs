//! JSON, written field by field into a line. A tree of values for each line would cost more than the request.

use serde_json::to_writer;

/// An object that is being written at the end of a buffer.
pub(super) struct JsonObject<'a> {
    line: &'a mut Vec<u8>,
    is_empty: bool,
}

impl<'a> JsonObject<'a> {
    pub(super) fn begin(line: &'a mut Vec<u8>) -> Self {
        line.push(b'{');
        Self { line, is_empty: true }
    }

    /// An object whose beginning is elsewhere: each field has a comma before it.
    pub(super) fn go_on(line: &'a mut Vec<u8>) -> Self {
        Self { line, is_empty: false }
    }

    /// Fields that were written so.
    pub(super) fn fields(&mut self, fields: &[u8]) {
        self.line.extend_from_slice(fields);
    }

    /// A word that needs no escapes.
    #[inline]
    pub(super) fn word(&mut self, name: &'static str, word: &'static str) {
        self.quoted(name, word.as_bytes());
    }

    /// A string.
    #[inline]
    pub(super) fn text(&mut self, name: &str, value: &str) {
        if is_plain(value.as_bytes()) {
            return self.quoted(name, value.as_bytes());
        }
        self.name(name, "");
        to_writer(&mut *self.line, value).expect("memory takes what is written");
    }

    /// A string, or null.
    pub(super) fn optional(&mut self, name: &str, value: Option<&str>) {
        match value {
            Some(value) => self.text(name, value),
            None => {
                self.name(name, "");
                self.line.extend_from_slice(b"null");
            }
        }
    }

    #[inline]
    pub(super) fn number(&mut self, name: &str, value: u64) {
        self.name(name, "");
        to_writer(&mut *self.line, &value).expect("memory takes what is written");
    }

    /// A key or name: as text if it can be read, else in hex, which the field's name says then.
    pub(super) fn bytes(&mut self, name: &str, value: &[u8]) {
        if is_plain(value) {
            return self.quoted(name, value);
        }
        match std::str::from_utf8(value) {
            Ok(text) if !text.chars().any(char::is_control) => self.text(name, text),
            Ok(_) | Err(_) => {
                self.name(name, "-hex");
                self.line.push(b'"');
                let digit = |half: u8| b"0123456789abcdef"[usize::from(half)];
                self.line.extend(value.iter().flat_map(|it| [digit(it >> 4), digit(it & 15)]));
                self.line.push(b'"');
            }
        }
    }

    /// The buffer, in which a value of this name is to be written next.
    pub(super) fn value(&mut self, name: &str) -> &mut Vec<u8> {
        self.name(name, "");
        self.line
    }

    pub(super) fn end(self) {
        self.line.push(b'}');
    }

    /// A string that needs no escapes.
    #[inline(always)]
    fn quoted(&mut self, name: &str, value: &[u8]) {
        self.name(name, "");
        self.line.reserve(value.len() + 2);
        self.line.push(b'"');
        self.line.extend_from_slice(value);
        self.line.push(b'"');
    }

    /// Names need no escapes. In place, the length of each is known.
    #[inline(always)]
    fn name(&mut self, name: &str, suffix: &str) {
        self.line.extend_from_slice(if self.is_empty { b"\"" } else { b",\"" });
        self.is_empty = false;
        self.line.extend_from_slice(name.as_bytes());
        self.line.extend_from_slice(suffix.as_bytes());
        self.line.extend_from_slice(b"\":");
    }
}

/// Tells if bytes are text as they are, as most keys: ASCII without escapes. All are looked at, many by one instruction.
fn is_plain(bytes: &[u8]) -> bool {
    bytes.iter().fold(true, |plain, byte| {
        plain & (0x20..0x7f).contains(byte) & (*byte != b'"') & (*byte != b'\\')
    })
}
