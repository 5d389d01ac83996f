//! gRPC's framing of messages in a body: one byte that is 1 if the message is compressed, four bytes of length, the message.
//! Bodies may be cut anywhere (gRPC over HTTP/2, "Length-Prefixed-Message").

use bytes::{BufMut as _, Bytes, BytesMut};

/// Bytes before each message.
pub const HEAD_BYTES: usize = 5;

/// The flag of a message that is not compressed.
pub const PLAIN: u8 = 0;
/// The flag of a message compressed with the method of the header `grpc-encoding`.
pub const COMPRESSED: u8 = 1;

/// The bytes before a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Head {
    /// [`PLAIN`] or [`COMPRESSED`]; other values are errors of the sender.
    pub flag: u8,
    /// Bytes of the message that follows.
    pub length: u32,
}

impl Head {
    /// The head at the beginning of these bytes; `None` if they are too few.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        bytes.first_chunk().map(|bytes| Self::from_bytes(*bytes))
    }

    /// The head in these bytes.
    pub const fn from_bytes([flag, length @ ..]: [u8; HEAD_BYTES]) -> Self {
        Self { flag, length: u32::from_be_bytes(length) }
    }

    /// The head as bytes.
    pub const fn to_bytes(self) -> [u8; HEAD_BYTES] {
        let [a, b, c, d] = self.length.to_be_bytes();
        [self.flag, a, b, c, d]
    }

    /// Bytes of the message with its head.
    pub const fn framed_length(self) -> usize {
        HEAD_BYTES + self.length as usize
    }
}

/// A message with its head, not compressed.
///
/// # Panics
/// The message is longer than a head can encode (4 GiB).
pub fn frame(message: &[u8]) -> Bytes {
    let length = u32::try_from(message.len()).expect("messages are shorter than 4 GiB");
    let mut frame = BytesMut::with_capacity(HEAD_BYTES + message.len());
    frame.put_slice(&Head { flag: PLAIN, length }.to_bytes());
    frame.put_slice(message);
    frame.freeze()
}

/// Counts messages in a body that arrives in pieces.
#[derive(Debug, Default)]
pub struct MessageCounter {
    head: [u8; HEAD_BYTES],
    filled: usize,
    /// Bytes of the current message, and of those the ones that are still to come.
    length: usize,
    left: usize,
}

impl MessageCounter {
    /// Bytes of the current message that have come; 0 if it is complete.
    pub fn incomplete(&self) -> usize {
        if self.left == 0 { 0 } else { self.length - self.left }
    }

    /// Takes the next piece; returns the number of messages that begin in it.
    pub fn count(&mut self, mut data: &[u8]) -> u64 {
        let mut begun = 0;
        while !data.is_empty() {
            let skip = self.left.min(data.len());
            self.left -= skip;
            data = &data[skip..];
            let take = data.len().min(HEAD_BYTES - self.filled);
            self.head[self.filled..self.filled + take].copy_from_slice(&data[..take]);
            self.filled += take;
            data = &data[take..];
            if self.filled == HEAD_BYTES {
                self.length = Head::from_bytes(self.head).length as usize;
                self.left = self.length;
                self.filled = 0;
                begun += 1;
            }
        }
        begun
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_there_and_back() {
        let head = Head { flag: COMPRESSED, length: 0x0102_0304 };
        assert_eq!(head.to_bytes(), [1, 1, 2, 3, 4]);
        assert_eq!(Head::read(&[1, 1, 2, 3, 4, 9]), Some(head));
        assert_eq!(Head::read(&[1, 1, 2, 3]), None);
        assert_eq!(frame(b"ab"), &b"\0\0\0\0\x02ab"[..]);
    }

    #[test]
    fn messages_are_counted_however_they_are_cut() {
        let bytes = [&frame(&[9; 3])[..], &frame(&[])[..], &frame(&[7])[..]].concat();
        for size in 1..=bytes.len() {
            let mut messages = MessageCounter::default();
            let counted: u64 = bytes.chunks(size).map(|chunk| messages.count(chunk)).sum();
            assert_eq!(counted, 3, "in pieces of {size}");
            assert_eq!(messages.incomplete(), 0);
        }
    }

    #[test]
    fn the_part_of_a_message_that_has_come_is_known() {
        let mut messages = MessageCounter::default();
        let bytes = [&frame(&[9; 3])[..], &frame(&[7; 100])[..]].concat();
        let (first, second) = bytes.split_at(3 + 2 * HEAD_BYTES + 40);
        messages.count(first);
        assert_eq!(messages.incomplete(), 40);
        messages.count(second);
        assert_eq!(messages.incomplete(), 0);
    }
}
