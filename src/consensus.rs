//! Drives raft-rs: every input becomes outputs to perform. Never waits, never reads a clock, never touches a disk or a
//! socket; the time comes with each input, randomness from the seed in [`Config`].
//!
//! ```text
//!  Tick, Propose, ReadIndex, Step ──► Driver::on ──► raft ──► Driver::drain ──► Persist, Commit,
//!  Persisted, Applied             ──►                                           Send, ReadAt, Role
//! ```
//!
//! The host performs outputs in the order given, with two freedoms: a [`Output::Persist`] may run while later outputs
//! are performed (raft counts this member's disk as one vote of the quorum), and so may a [`Output::Commit`]. Messages
//! that must not be sent before the disk write are held back here and returned after [`Input::Persisted`].

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

/// Parameters of a member that do not change while it runs.
#[derive(Clone, Debug)]
pub struct Config {
    /// This member's id.
    pub id: MemberId,
    /// Ticks without a leader before an election, at least; raft draws up to twice as many.
    pub election_ticks: usize,
    /// Ticks between two heartbeats.
    pub heartbeat_ticks: usize,
    /// Run a pre-vote before a campaign, so that a member that was partitioned does not depose a leader.
    pub pre_vote: bool,
    /// Seed of the election timeouts.
    pub seed: u64,
    /// Different at every start of every member, so that no two reads ever share a context.
    pub boot_nonce: u64,
    /// Entries kept in memory below the applied index for followers that lag a little.
    pub catch_up_entries: u64,
    /// Bytes that such entries may take: with large values fewer are kept.
    pub catch_up_bytes_max: usize,
    /// Bytes proposed and not yet committed before raft drops proposals.
    pub uncommitted_bytes_max: usize,
    /// Time for which this member refuses to vote after it received a heartbeat: [`vote_lease`] of its election
    /// timeout. As leader it answers reads without a round of heartbeats as long as a quorum's vote leases last. Zero
    /// turns both off.
    pub vote_lease: Duration,
    /// Receives the log lines of raft-rs; `None` drops them.
    pub logger: Option<slog::Logger>,
}

/// The state read from disk at start.
#[derive(Clone, Debug, Default)]
pub struct Restored {
    /// The newest hard state.
    pub hard_state: HardState,
    /// The configuration as of `log_start_index`.
    pub conf_state: ConfState,
    /// Index of the last truncated entry; 0 for a new member.
    pub log_start_index: LogIndex,
    /// The term of `log_start_index`.
    pub log_start_term: Term,
    /// The entries after the log start.
    pub entries: Vec<Entry>,
    /// The last entry that the state machine applied.
    pub applied: LogIndex,
    /// Ticks until the vote lease that this member gave before its restart has certainly ended (see
    /// [`Config::vote_lease`]): until then it refuses to vote, as if it had just received a heartbeat.
    pub vote_lease_ticks: usize,
}

/// Inputs of the driver.
#[derive(Clone, Debug)]
pub enum Input {
    /// One tick passed.
    Tick,
    /// Payloads of normal entries to append to the log, in this order, all or none.
    Propose(Vec<Bytes>),
    /// A read that must see everything acknowledged before now. The number is chosen by the host.
    ReadIndex(u64),
    /// A message of another member.
    Step(Box<Message>),
    /// All batches up to this one are on disk.
    Persisted(ReadyNumber),
    /// The state machine has applied everything up to this index.
    Applied(LogIndex),
    /// An encoded [`ConfChange`] to append to the log.
    ProposeConfChange(Bytes),
    /// Like [`Input::Propose`], but only while this member leads in this term; dropped without an output if raft refuses it.
    ProposeAsLeader(Term, Vec<Bytes>),
    /// The state machine applied this configuration change. Comes before its [`Input::Applied`].
    ConfChange(ConfChange),
    /// A snapshot was sent to this member, or the attempt failed.
    SnapshotSent(MemberId, bool),
    /// Campaign now rather than after a timeout.
    Campaign,
    /// Transfer leadership to this member.
    Transfer(MemberId),
    /// Messages to this member cannot be delivered.
    Unreachable(MemberId),
    /// The state of this member's disk.
    Disk(DiskSpace),
}

/// Work for the host.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// Send to other members; may be lost.
    Send(Vec<Message>),
    /// Make durable, then answer [`Input::Persisted`].
    Persist {
        /// The number for that answer.
        number: ReadyNumber,
        /// Term, vote or commit index, if they changed.
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
        /// The index that must be applied.
        index: LogIndex,
    },
    /// Replace the state by that of the snapshot that was stepped in last. Comes before the [`Output::Persist`] of the
    /// same batch, which must make the new log start durable.
    Install {
        /// Index of the last entry in the snapshot.
        index: LogIndex,
        /// The term of that entry.
        term: Term,
        /// The configuration as of that entry.
        conf_state: ConfState,
    },
    /// These payloads were not appended, since there is no leader.
    ProposalsDropped(Vec<Bytes>),
    /// This configuration change was not appended, since there is no leader or the previous change is not applied yet;
    /// it may be proposed again.
    ConfChangeDropped(Bytes),
    /// Leader, term or this member's role changed.
    Role(Role),
    /// No quorum of voters has enough disk space, and these members are short of space; or a quorum has, if there are
    /// none. Valid until the next such output.
    Full(Vec<MemberId>),
}

/// This member's role in the cluster.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Role {
    /// The leader, as far as this member knows.
    pub leader: Option<MemberId>,
    /// The current term.
    pub term: Term,
    /// True if this member leads.
    pub leads: bool,
}

/// Positions of the log, for status and metrics.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Progress {
    /// The newest committed index.
    pub committed: LogIndex,
    /// The newest index in the log.
    pub last: LogIndex,
    /// The newest applied index that raft knows.
    pub applied: LogIndex,
}
