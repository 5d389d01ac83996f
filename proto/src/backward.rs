//! A buffer that is filled from its end: the length of a nested message is known when it is written before it, so that
//! transactions in each other are encoded in one pass. prost computes lengths first, of each message once for every message
//! that holds it, which takes time by the square of the depth.

use bytes::BufMut;
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint};

/// Bytes that a key and a length take, at most.
const HEAD_BYTES_MAX: usize = 20;
/// Bytes of a new buffer.
const FIRST_BYTES: usize = 512;

/// The buffer.
#[derive(Debug, Default)]
pub(crate) struct Backward {
    bytes: Vec<u8>,
    /// Where the content begins.
    begin: usize,
}

impl Backward {
    /// The content.
    pub(crate) fn as_slice(&self) -> &[u8] {
        &self.bytes[self.begin..]
    }

    /// Bytes of the content.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len() - self.begin
    }

    /// Writes what takes so many bytes before the content.
    pub(crate) fn prepend(&mut self, length: usize, write: impl FnOnce(&mut &mut [u8])) {
        if length > self.begin {
            let content = self.len();
            let mut larger = vec![0; (2 * self.bytes.len()).max(content + length + FIRST_BYTES)];
            let begin = larger.len() - content;
            larger[begin..].copy_from_slice(self.as_slice());
            (self.bytes, self.begin) = (larger, begin);
        }
        let mut room = &mut self.bytes[self.begin - length..self.begin];
        write(&mut room);
        debug_assert!(room.is_empty(), "the length is that of what is written");
        self.begin -= length;
    }

    /// A field whose content is what was written since the buffer had this length.
    pub(crate) fn head(&mut self, tag: u32, end: usize) {
        let length = (self.len() - end) as u64;
        let mut head = [0; HEAD_BYTES_MAX];
        let mut rest = &mut head[..];
        encode_key(tag, WireType::LengthDelimited, &mut rest);
        encode_varint(length, &mut rest);
        let written = HEAD_BYTES_MAX - rest.len();
        self.prepend(written, |room| room.put_slice(&head[..written]));
    }

    /// A field with a message that holds no transactions.
    pub(crate) fn message(&mut self, tag: u32, message: &impl Message) {
        let end = self.len();
        let length = message.encoded_len();
        self.prepend(length, |room| message.encode_raw(room));
        self.head(tag, end);
    }
}

/// A transaction, or its response.
pub(crate) trait Nests {
    /// Writes its fields before the content, the last one first.
    fn prepend_to(&self, buffer: &mut Backward);

    /// Appends a field with it.
    fn encode_field(&self, tag: u32, to: &mut impl BufMut) {
        let mut buffer = Backward::default();
        self.prepend_to(&mut buffer);
        encode_key(tag, WireType::LengthDelimited, to);
        encode_varint(buffer.len() as u64, to);
        to.put_slice(buffer.as_slice());
    }
}
