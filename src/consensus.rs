//! Drives raft-rs: every input becomes outputs to perform. Never waits, never looks at a clock, never
//! touches a disk or a socket; the time comes with each input, randomness from the seed in [`Config`].
//!
//! ```text
//!  Tick, Propose, ReadIndex, Step ──► Driver::on ──► raft ──► Driver::drain ──► Persist, Commit,
//!  Persisted, Applied             ──►                                           Send, ReadAt, Role
//! ```
//!
//! The host performs outputs in the order given, with two freedoms: a [`Output::Persist`] may run while
//! later outputs are performed (raft counts this member's disk as one vote among equals), and so may a
//! [`Output::Commit`]. What must wait for the disk is held back here and comes out after
//! [`Input::Persisted`].

mod convert;
mod disks;
mod driver;
mod leader_lease;
mod log;
mod reads;
#[cfg(test)]
mod tests;
pub mod wire;

use std::time::Duration;

use bytes::Bytes;
pub use raft::eraftpb::{Message, MessageType};

pub use self::driver::Driver;
pub use self::leader_lease::{DRIFT_PERCENT, vote_lease};
use crate::types::{ConfChange, ConfState, DiskSpace, Entry, HardState, LogIndex, MemberId, Term};

/// Counts the batches handed to the disk; they become durable in this order.
pub type ReadyNumber = u64;

/// What never changes while the member runs.
#[derive(Clone, Debug)]
pub struct Config {
    /// This member.
    pub id: MemberId,
    /// Ticks without a leader before an election, at least; raft draws up to twice as many.
    pub election_ticks: usize,
    /// Ticks between two heartbeats.
    pub heartbeat_ticks: usize,
    /// Ask before campaigning, so that a member that was cut off does not depose a leader.
    pub pre_vote: bool,
    /// Seed of the election timeouts.
    pub seed: u64,
    /// Different at every start of every member, so that no two reads ever share a context.
    pub boot_nonce: u64,
    /// Entries kept in memory below the applied index for members that lag a little.
    pub catch_up_entries: u64,
    /// How long this member promises not to vote after it heard a leader, in whole ms: [`vote_lease`] of its election
    /// timeout. While it leads itself, it answers reads alone for as long as a quorum promises. Zero turns both off.
    pub vote_lease: Duration,
    /// Takes the log lines of the consensus library; `None` drops them.
    pub logger: Option<slog::Logger>,
}

/// What was found on disk.
#[derive(Clone, Debug, Default)]
pub struct Restored {
    /// The newest hard state.
    pub hard_state: HardState,
    /// Members as of `log_start_index`.
    pub conf_state: ConfState,
    /// The log below this index is gone; 0 for a new member.
    pub log_start_index: LogIndex,
    /// The term of `log_start_index`.
    pub log_start_term: Term,
    /// The log after the mark.
    pub entries: Vec<Entry>,
    /// What the state machine holds already.
    pub applied: LogIndex,
    /// Ticks until what this member promised in an earlier life is over for sure (see [`Config::promise`]): until then
    /// it does not vote, as if it had heard a leader just now.
    pub vote_lease_ticks: usize,
}

/// Whatever can happen to the driver.
#[derive(Clone, Debug)]
pub enum Input {
    /// A tick of time went by.
    Tick,
    /// Payloads of normal entries to append to the log, in this order, all or none.
    Propose(Vec<Bytes>),
    /// A read that must see everything acknowledged before now. The number is the host's own.
    ReadIndex(u64),
    /// Another member's message.
    Step(Box<Message>),
    /// All batches up to this one are on disk.
    Persisted(ReadyNumber),
    /// The state machine holds everything up to here.
    Applied(LogIndex),
    /// An encoded [`ConfChange`] to append to the log.
    ProposeConfChange(Bytes),
    /// Like [`Input::Propose`], but only while this member leads in this term; forgotten if it cannot be taken.
    ProposeAsLeader(Term, Vec<Bytes>),
    /// The state machine took over this configuration change. Comes before its [`Input::Applied`].
    ConfChange(ConfChange),
    /// A snapshot reached this member, or did not.
    SnapshotSent(MemberId, bool),
    /// Stand for election now rather than after a timeout.
    Campaign,
    /// Hand leadership to this member.
    Transfer(MemberId),
    /// Messages to this member do not arrive.
    Unreachable(MemberId),
    /// The state of this member's disk.
    Disk(DiskSpace),
}

/// What the host must do.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// Send to other members; may be lost.
    Send(Vec<Message>),
    /// Make durable, then answer [`Input::Persisted`].
    Persist {
        /// To answer with.
        number: ReadyNumber,
        /// Changed term, vote or commit index.
        hard_state: Option<HardState>,
        /// To append; an index that exists already replaces the log from there on.
        entries: Vec<Entry>,
    },
    /// Apply in order, then answer [`Input::Applied`].
    Commit(Vec<Entry>),
    /// The read with this number may be served once this index is applied.
    ReadAt {
        /// The number of its [`Input::ReadIndex`].
        read: u64,
        /// What it must see.
        index: LogIndex,
    },
    /// Replace the state by that of the snapshot that was stepped in last. Comes before the
    /// [`Output::Persist`] of the same batch, which must make the new beginning of the log durable.
    Install {
        /// Up to here.
        index: LogIndex,
        /// The term of that entry.
        term: Term,
        /// Who counts from then on.
        conf_state: ConfState,
    },
    /// These payloads found no leader: nothing was appended.
    ProposalsDropped(Vec<Bytes>),
    /// This configuration change found no leader, or the one before it is not applied yet: nothing was
    /// appended, and it may be proposed again.
    ConfChangeDropped(Bytes),
    /// Who leads, or that nobody is known to.
    Role(Role),
    /// No quorum of voters has room on its disks any more, and these have none; or one has, if there are none. Holds
    /// until the next one comes.
    Full(Vec<MemberId>),
}

/// This member's place in the cluster.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Role {
    /// The leader, as far as this member knows.
    pub leader: Option<MemberId>,
    /// The current term.
    pub term: Term,
    /// Whether this member leads.
    pub leads: bool,
}

/// Numbers for status and metrics.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Progress {
    /// The newest committed index.
    pub committed: LogIndex,
    /// The newest index in the log.
    pub last: LogIndex,
    /// The newest applied index raft knows of.
    pub applied: LogIndex,
}
