//! Log records as bytes: framing, checksums, segments, and recovery of a torn tail. Works on bytes, never on files.
//!
//! ```text
//!  segment   frame | frame | … | zeros, or frames of the segment whose file was recycled
//!  frame     header (32 bytes) | records | zeros up to the next block of 4 KiB
//!  header    magic u32 · crc u32 · segment u64 · offset u64 · length u32 · previous frame's crc u32
//! ```
//!
//! A frame is one write to the disk, made durable at once. It starts at a block of its own, so that no block that holds
//! acknowledged records is ever written again. Its checksum covers the segment's number, which is never used again, and
//! its offset: old frames in a recycled file, or blocks that a disk wrote to the wrong place, are not accepted as
//! frames. Each frame contains the checksum of the frame before it, across segments too, so that a missing frame is
//! detected anywhere. The first frame of a segment repeats the state that is needed from earlier segments, so that
//! those can be recycled.

mod codec;
mod replay;
#[cfg(test)]
mod tests;

pub use self::codec::{Frame, FrameHead, encode_frame};
pub use self::replay::{Replay, Segment, replay_segment};
use crate::types::{ConfState, Entry, HardState, LogIndex, MemberId, Term};

/// One record of the log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Record {
    /// The identity of the log's owner.
    Metadata {
        /// The cluster's id.
        cluster_id: u64,
        /// The member's id.
        member_id: MemberId,
    },
    /// An entry; one whose index exists already replaces the log from there on.
    Entry(Entry),
    /// Term, vote and commit index as of this record.
    HardState(HardState),
    /// Start of the log: the store holds everything up to and including this entry (raft's snapshot marker).
    LogStart {
        /// The index of that entry.
        index: LogIndex,
        /// The term of that entry.
        term: Term,
        /// The configuration as of this entry.
        conf_state: ConfState,
    },
}

impl Record {
    /// Approximate encoded size in bytes.
    pub fn size_hint(&self) -> usize {
        match self {
            Self::Entry(entry) => entry.data.len() + 32,
            Self::Metadata { .. } | Self::HardState(_) | Self::LogStart { .. } => 128,
        }
    }
}
