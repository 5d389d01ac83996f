//! A sequence of JSON values that arrives in pieces.

use bytes::{Bytes, BytesMut};

use super::scan::{Scanner, Step, is_space};

/// One value with valid syntax. Made by [`Values`] alone.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Value(Bytes);

impl Value {
    /// Bytes of its text.
    #[expect(clippy::len_without_is_empty, reason = "no value is empty")]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Its text, without blanks around it.
    pub(super) fn text(&self) -> &[u8] {
        &self.0
    }
}

/// Splits text into values.
#[derive(Debug)]
pub struct Values {
    text: BytesMut,
    /// Bytes of `text` that were scanned.
    seen: usize,
    scanner: Scanner,
}

impl Default for Values {
    fn default() -> Self {
        Self { text: BytesMut::new(), seen: 0, scanner: Scanner::new() }
    }
}

impl Values {
    /// Appends received text.
    pub fn push(&mut self, text: &[u8]) {
        self.text.extend_from_slice(text);
    }

    /// Bytes of an incomplete value.
    pub fn waiting(&self) -> usize {
        self.text.len()
    }

    /// The next complete value; `None` if there is no more yet.
    ///
    /// # Errors
    /// The syntax error, with Go's text. The parser cannot continue then.
    pub fn take(&mut self) -> Result<Option<Value>, String> {
        while let Some(byte) = self.text.get(self.seen) {
            match self.scanner.step(*byte)? {
                Step::On => self.seen += 1,
                Step::Ended => {
                    self.seen += 1;
                    return Ok(Some(self.cut()));
                }
                Step::EndedBefore => return Ok(Some(self.cut())),
            }
        }
        Ok(None)
    }

    /// The last value, at the end of the text; `None` if all were taken.
    ///
    /// # Errors
    /// The text ends inside a value.
    pub fn last(&mut self) -> Result<Option<Value>, String> {
        if let Some(value) = self.take()? {
            return Ok(Some(value));
        }
        // A blank completes values without an end of their own: numbers and literals.
        if self.scanner.step(b' ') == Ok(Step::EndedBefore) {
            return Ok(Some(self.cut()));
        }
        match self.text.iter().all(|byte| is_space(*byte)) {
            true => Ok(None),
            false => Err("unexpected EOF".to_owned()),
        }
    }

    fn cut(&mut self) -> Value {
        let value = self.text.split_to(std::mem::take(&mut self.seen)).freeze();
        self.scanner = Scanner::new();
        let begin = value.iter().position(|byte| !is_space(*byte)).unwrap_or(0);
        let end = value.iter().rposition(|byte| !is_space(*byte)).map_or(begin, |at| at + 1);
        Value(value.slice(begin..end))
    }
}
