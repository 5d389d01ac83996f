//! Log records as bytes: framing, checksums, segments, and what to do about a torn tail.
//!
//! ```text
//!  segment   frame | frame | … | zeros, or frames of the segment whose file was recycled
//!  frame     header (32 bytes) | records | zeros up to the next block of 4 KiB
//!  header    magic u32 · crc u32 · segment u64 · offset u64 · length u32 · previous frame's crc u32
//! ```
//!
//! A frame is one write to the disk, made durable at once. It starts at a block of its own, so that no block
//! that holds acknowledged records is ever written again. Its checksum covers the segment's number, which is
//! never used again, and its offset: what a recycled file still holds, or what a disk put in the wrong place,
//! does not pass for a frame. Each frame names the checksum of the one before it, across segments too: a frame
//! that went missing is found, wherever it stood. The first frame of a segment repeats what is needed from earlier ones, so that
//! they can be recycled.

mod codec;
mod replay;
#[cfg(test)]
mod tests;

pub use self::codec::{Frame, FrameHead, encode_frame};
pub use self::replay::{Replay, Segment, replay_segment};
use crate::types::{ConfState, Entry, HardState, LogIndex, MemberId, Term};

/// One thing to remember.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Record {
    /// Whose log this is.
    Metadata {
        /// The cluster.
        cluster_id: u64,
        /// The member.
        member_id: MemberId,
    },
    /// An entry; one whose index exists already replaces the log from there on.
    Entry(Entry),
    /// Term, vote and commit index from here on.
    HardState(HardState),
    /// The store holds everything up to this entry: the log starts after it.
    LogStart {
        /// Up to and including this entry.
        index: LogIndex,
        /// Its term.
        term: Term,
        /// Who counts as of this entry.
        conf_state: ConfState,
    },
}

impl Record {
    /// About how many bytes it takes.
    pub fn size_hint(&self) -> usize {
        match self {
            Self::Entry(entry) => entry.data.len() + 32,
            Self::Metadata { .. } | Self::HardState(_) | Self::LogStart { .. } => 128,
        }
    }
}
