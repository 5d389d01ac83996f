//! Encoding and decoding of frames.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use prost::Message;

use crate::types::limits::PEER_FRAME_BYTES_MAX;

/// Length and checksum.
const HEAD_BYTES: usize = 8;

/// The kind of a frame's payload.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Kind {
    /// [`super::Hello`].
    Hello = 1,
    /// [`super::Welcome`]: the connection is accepted.
    Welcome = 2,
    /// [`super::Refused`].
    Refused = 3,
    /// A message of raft.
    Raft = 4,
    /// [`super::Question`].
    Question = 5,
    /// [`super::Answer`].
    Answer = 6,
    /// The next bytes of a snapshot.
    Chunk = 7,
    /// The last chunk was sent.
    End = 8,
    /// The snapshot arrived completely.
    Arrived = 9,
    /// No content: the sender is alive. Sent only to members whose hello or welcome states that they read it.
    Ping = 10,
}

impl Kind {
    const ALL: [Self; 10] = [
        Self::Hello,
        Self::Welcome,
        Self::Refused,
        Self::Raft,
        Self::Question,
        Self::Answer,
        Self::Chunk,
        Self::End,
        Self::Arrived,
        Self::Ping,
    ];
}

/// One decoded frame.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Frame {
    /// The kind of the payload.
    pub kind: Kind,
    /// The payload.
    pub payload: Bytes,
}

impl Frame {
    /// The payload decoded as a message, if the frame is of this kind.
    pub fn read<M: Message + Default>(&self, kind: Kind) -> Option<M> {
        (self.kind == kind).then(|| M::decode(self.payload.clone()).ok()).flatten()
    }
}

/// The bytes of a frame up to `rest`, which follows unchanged and may be shared with other frames.
pub fn encode(kind: Kind, payload: &[u8], rest: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(HEAD_BYTES + 1 + payload.len());
    let crc = crc32c::crc32c_append(crc32c::crc32c(&[kind as u8]), payload);
    out.put_u32_le((1 + payload.len() + rest.len()) as u32);
    out.put_u32_le(crc32c::crc32c_append(crc, rest));
    out.put_u8(kind as u8);
    out.put_slice(payload);
    out.freeze()
}

/// A frame that holds one of our messages.
pub fn message(kind: Kind, message: &impl Message) -> Bytes {
    encode(kind, &message.encode_to_vec(), &[])
}

/// The bytes are not a frame: another protocol, or changed in transit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Damage;

/// Splits a byte stream into frames.
#[derive(Debug, Default)]
pub struct Decoder {
    read: BytesMut,
}

impl Decoder {
    /// Appends received bytes.
    pub fn take(&mut self, bytes: &[u8]) {
        self.read.extend_from_slice(bytes);
    }

    /// The next whole frame.
    ///
    /// # Errors
    /// The bytes are not a frame.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, Damage> {
        if self.read.len() < HEAD_BYTES {
            return Ok(None);
        }
        let mut head = &self.read[..HEAD_BYTES];
        let (length, crc) = (head.get_u32_le() as usize, head.get_u32_le());
        if length == 0 || length > PEER_FRAME_BYTES_MAX {
            return Err(Damage);
        }
        if self.read.len() < HEAD_BYTES + length {
            // The buffer grows with received bytes, not with the announced length.
            return Ok(None);
        }
        self.read.advance(HEAD_BYTES);
        let mut payload = self.read.split_to(length).freeze();
        if crc32c::crc32c(&payload) != crc {
            return Err(Damage);
        }
        let number = payload.get_u8();
        let kind = Kind::ALL.into_iter().find(|kind| *kind as u8 == number).ok_or(Damage)?;
        Ok(Some(Frame { kind, payload }))
    }
}
