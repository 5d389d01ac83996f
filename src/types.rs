//! The nouns that every room shares: positions, ids, ranges of keys, and the two ways in which
//! something can go wrong (a [`Refusal`] is an answer, a [`Fault`] is a stop).

mod budgets;
mod conf_change;
mod disk;
mod feature_level;
pub mod limits;
mod range;
mod refusal;

use std::fmt;

use bytes::Bytes;

pub use self::budgets::{Budgets, CacheBytes};
pub use self::conf_change::{ConfChange, ConfChangeKind};
pub use self::disk::{DiskBounds, DiskSpace};
pub use self::feature_level::FeatureLevel;
pub use self::range::KeyRange;
pub use self::refusal::{Code, Refusal};

/// Position of an entry in the raft log; the first entry has index 1.
pub type LogIndex = u64;
/// A raft term.
pub type Term = u64;
/// A member's id, computed as etcd does.
pub type MemberId = u64;
/// A lease's id; 0 stands for no lease.
pub type LeaseId = i64;

/// Position of one change in history: all changes of one transaction share `main` and count `sub`
/// up from 0. An empty store stands at `main` 1, so that the first write makes 2.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Hash)]
pub struct Revision {
    /// The revision clients know.
    pub main: i64,
    /// Position inside the transaction.
    pub sub: i64,
}

impl Revision {
    /// Length of [`Revision::to_key`].
    pub const KEY_LENGTH: usize = 17;

    /// The 17-byte key of etcd's `key` bucket: big-endian main, `_`, big-endian sub. Sorts like the
    /// revision itself.
    pub fn to_key(self) -> [u8; Self::KEY_LENGTH] {
        let mut key = [b'_'; Self::KEY_LENGTH];
        key[..8].copy_from_slice(&self.main.to_be_bytes());
        key[9..].copy_from_slice(&self.sub.to_be_bytes());
        key
    }

    /// The inverse of [`Revision::to_key`]; `None` unless `key` is 17 bytes long.
    pub fn from_key(key: &[u8]) -> Option<Self> {
        let key: &[u8; Self::KEY_LENGTH] = key.try_into().ok()?;
        let part = |at: usize| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&key[at..at + 8]);
            i64::from_be_bytes(bytes)
        };
        Some(Self { main: part(0), sub: part(9) })
    }
}

/// The encoding of a raft entry's payload.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EntryKind {
    /// An encoded `InternalRaftRequest` (`command` reads it), or nothing (a new leader's first entry).
    Normal,
    /// An encoded `eraftpb.ConfChange` whose context is the member as JSON.
    ConfChange,
    /// An encoded `eraftpb.ConfChangeV2`.
    ConfChangeV2,
}

/// One entry of the raft log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// Position in the log.
    pub index: LogIndex,
    /// The term in which it was proposed.
    pub term: Term,
    /// The encoding of `data`.
    pub kind: EntryKind,
    /// The payload.
    pub data: Bytes,
}

/// The state that raft persists beside the log (`raftpb.HardState`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct HardState {
    /// The newest term this member has seen.
    pub term: Term,
    /// The candidate that this member voted for in that term; 0 for none.
    pub vote: MemberId,
    /// The newest index it knows to be committed.
    pub commit: LogIndex,
}

/// The members of a raft configuration at one log index (`raftpb.ConfState`).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ConfState {
    /// Members whose votes count.
    pub voters: Vec<MemberId>,
    /// Members that follow the log without a vote.
    pub learners: Vec<MemberId>,
    /// The voters of the configuration that is being left.
    pub voters_outgoing: Vec<MemberId>,
    /// Learners once the outgoing configuration is left.
    pub learners_next: Vec<MemberId>,
    /// True if raft leaves the joint configuration without another proposal.
    pub auto_leave: bool,
}

/// This member cannot go on: its disk failed or its data is not what it wrote. Never an answer to a
/// client, since the other members may have succeeded.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fault(pub String);

impl Fault {
    /// A fault with the sentence that the operator will read.
    pub fn new(sentence: impl Into<String>) -> Self {
        Self(sentence.into())
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

impl std::error::Error for Fault {}

/// Either kind of failure, for code in which both can happen; [`Error::refusal`] parts them again.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Error {
    /// The same on every member: goes to the client.
    Refused(Refusal),
    /// This member's alone: stops it.
    Faulty(Fault),
}

impl Error {
    /// Separates an outcome into a fault that stops this member (`Err`) and an answer to the client (`Ok`).
    ///
    /// # Errors
    /// The fault, if the outcome is one.
    pub fn refusal<T>(outcome: Result<T, Self>) -> Result<Result<T, Refusal>, Fault> {
        match outcome {
            Ok(value) => Ok(Ok(value)),
            Err(Self::Refused(refusal)) => Ok(Err(refusal)),
            Err(Self::Faulty(fault)) => Err(fault),
        }
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Self {
        Self::Faulty(fault)
    }
}
