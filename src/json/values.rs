//! JSON values one behind the other, as they come in pieces from a client.

use bytes::{Bytes, BytesMut};

use super::scan::{Scanner, Step, is_space};

/// One value, whose syntax is right. Made by [`Values`] alone.
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

/// Cuts text into values.
#[derive(Debug)]
pub struct Values {
    text: BytesMut,
    /// Bytes of `text` that the scanner has seen.
    seen: usize,
    scanner: Scanner,
}

impl Default for Values {
    fn default() -> Self {
        Self { text: BytesMut::new(), seen: 0, scanner: Scanner::new() }
    }
}

impl Values {
    /// Adds what came.
    pub fn push(&mut self, text: &[u8]) {
        self.text.extend_from_slice(text);
    }

    /// Bytes that wait for the end of their value.
    pub fn waiting(&self) -> usize {
        self.text.len()
    }

    /// The next whole value; none if there is no more yet.
    ///
    /// # Errors
    /// What is wrong with the syntax, in Go's words. There is no going on then.
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

    /// The last value, when nothing follows any more; none if all were taken.
    ///
    /// # Errors
    /// The text stops inside a value.
    pub fn last(&mut self) -> Result<Option<Value>, String> {
        if let Some(value) = self.take()? {
            return Ok(Some(value));
        }
        // A blank ends what needs no end of its own: a number, a word, a text.
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
