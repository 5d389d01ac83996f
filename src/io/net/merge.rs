//! Merges small received DATA frames before h2 reads them.
//!
//! h2 keeps each DATA frame that its stream has not read as an entry of its own, and ends a connection with too many
//! small ones (`too_many_data_frames`: some 9,000 here). grpc-go sends a frame for each message, so a client that keeps
//! 20,000 leases alive on one stream, or creates as many watches, sends them faster than they are answered and would
//! lose its connection. Merged frames are as large as one read, so that only flow control bounds the queue: in bytes.
//!
//! ```text
//!  socket:  HEADERS(3)  DATA(1) DATA(5) DATA(1) DATA(5) DATA(1)  PING
//!  h2:      HEADERS(3)  DATA(1)          DATA(5)                 PING
//! ```
//!
//! Only whole frames in one read are merged, so that no byte waits for more. The order within a stream is kept, and so
//! is that of all frames that are not plain DATA; flow control counts the same bytes. Frames without payload, padded
//! ones and the last ones of a stream are not changed: h2 has limits of its own for them.

/// Length, type, flags and stream of a frame (RFC 9113, 4.1).
const HEAD_BYTES: usize = 9;
const DATA: u8 = 0;
/// Flags of a plain frame: neither padded nor the last one of its stream.
const PLAIN: u8 = 0;
/// The largest payload of a frame that this end accepts: the default, which hyper does not change.
const PAYLOAD_MAX: usize = 16 << 10;
/// Streams whose frames are merged at a time. With more, frames of the same stream are seldom near each other.
const STREAMS_MAX: usize = 16;

/// Parser state of one connection.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Merge {
    /// Remaining bytes of the current frame's payload.
    left: usize,
    /// The current frame's header, and how much of it was received.
    head: [u8; HEAD_BYTES],
    filled: usize,
}

/// Merged payload of one stream.
struct Joined {
    stream: u32,
    payload: Vec<u8>,
}

impl Joined {
    fn write(&self, into: &mut Vec<u8>) {
        let length = self.payload.len() as u32;
        into.extend_from_slice(&length.to_be_bytes()[1..]);
        into.extend_from_slice(&[DATA, PLAIN]);
        into.extend_from_slice(&self.stream.to_be_bytes());
        into.extend_from_slice(&self.payload);
    }
}

impl Merge {
    /// Merges frames in `bytes`, the next ones of the connection; returns the number of bytes that remain at its beginning.
    pub(super) fn merge(&mut self, bytes: &mut [u8]) -> usize {
        let mut ahead = *self;
        if !ahead.finds_any(bytes) {
            *self = ahead;
            return bytes.len();
        }
        let (mut merged, mut joined, mut at) = (Vec::with_capacity(bytes.len()), Vec::new(), 0);
        while at < bytes.len() {
            let (length, stream) = self.next(&bytes[at..]);
            let piece = &bytes[at..at + length];
            match stream {
                Some(stream) => join(&mut joined, stream, &piece[HEAD_BYTES..], &mut merged),
                None => {
                    flush(&mut joined, &mut merged);
                    merged.extend_from_slice(piece);
                }
            }
            at += length;
        }
        flush(&mut joined, &mut merged);
        bytes[..merged.len()].copy_from_slice(&merged);
        merged.len()
    }

    /// Skips all of `bytes`, or stops at the second plain frame of a stream in a sequence of plain frames: then there
    /// is something to merge. Mostly there is not.
    fn finds_any(&mut self, bytes: &[u8]) -> bool {
        let (mut row, mut length, mut at) = ([0; STREAMS_MAX], 0, 0);
        while at < bytes.len() {
            let (piece, stream) = self.next(&bytes[at..]);
            at += piece;
            match stream {
                Some(stream) if row[..length].contains(&stream) => return true,
                Some(stream) => {
                    length = length % STREAMS_MAX + 1;
                    row[length - 1] = stream;
                }
                None => length = 0,
            }
        }
        false
    }

    /// Bytes of the next frame or part of one, and its stream if it is a whole plain DATA frame.
    fn next(&mut self, bytes: &[u8]) -> (usize, Option<u32>) {
        if self.left > 0 {
            let length = self.left.min(bytes.len());
            self.left -= length;
            return (length, None);
        }
        let Some((head, payload)) = bytes.split_first_chunk().filter(|_| self.filled == 0) else {
            let length = (HEAD_BYTES - self.filled).min(bytes.len());
            self.head[self.filled..self.filled + length].copy_from_slice(&bytes[..length]);
            self.filled += length;
            if self.filled == HEAD_BYTES {
                (self.left, self.filled) = (payload_of(&self.head), 0);
            }
            return (length, None);
        };
        let length = payload_of(head);
        if payload.len() < length {
            self.left = length - payload.len();
            return (bytes.len(), None);
        }
        let [_, _, _, kind, flags, stream @ ..] = *head;
        let is_plain = (kind, flags) == (DATA, PLAIN) && length > 0;
        (HEAD_BYTES + length, is_plain.then(|| u32::from_be_bytes(stream)))
    }
}

fn payload_of(head: &[u8; HEAD_BYTES]) -> usize {
    u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize
}

fn join(joined: &mut Vec<Joined>, stream: u32, payload: &[u8], merged: &mut Vec<u8>) {
    match joined.iter_mut().find(|it| it.stream == stream) {
        Some(it) if it.payload.len() + payload.len() <= PAYLOAD_MAX => {
            it.payload.extend_from_slice(payload);
        }
        Some(it) => {
            it.write(merged);
            it.payload.clear();
            it.payload.extend_from_slice(payload);
        }
        None => {
            if joined.len() == STREAMS_MAX {
                flush(joined, merged);
            }
            joined.push(Joined { stream, payload: payload.to_vec() });
        }
    }
}

fn flush(joined: &mut Vec<Joined>, merged: &mut Vec<u8>) {
    joined.drain(..).for_each(|it| it.write(merged));
}

#[cfg(test)]
mod tests;
