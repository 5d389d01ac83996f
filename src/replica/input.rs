//! Inputs and outputs of [`super::Replica`].

use std::time::Duration;

use bytes::Bytes;

use crate::consensus::{Message, ReadyNumber, Role};
use crate::types::{ConfChange, DiskSpace, Entry, LogIndex, MemberId, Term};
use crate::wal::Record;

/// Inputs of a replica. `S` is the host's own form of a snapshot that was received.
pub enum Input<S> {
    /// Requests of the sessions of one executor.
    Requests {
        /// The executor that receives the read index.
        executor: usize,
        /// Encoded commands, in order.
        proposals: Vec<Bytes>,
        /// The executor's number of a batch of reads that needs a read index.
        read: Option<u64>,
    },
    /// Encoded commands that only the leader of this term may propose; dropped if this member is not that leader.
    LeaderRequests(Term, Vec<Bytes>),
    /// An encoded [`ConfChange`] to propose.
    ConfChange(Bytes),
    /// A message of another member.
    Peer(Box<Message>),
    /// Messages to this member cannot be delivered.
    Unreachable(MemberId),
    /// A snapshot was sent to this member, or the attempt failed.
    SnapshotSent(MemberId, bool),
    /// A message that announces a snapshot, and the complete snapshot.
    Snapshot(Box<Message>, S),
    /// Transfer leadership to this member.
    Transfer(MemberId),
    /// One tick of time, and the state of this member's disk.
    Tick(DiskSpace),
    /// All batches up to this one are durable in the log.
    Persisted(ReadyNumber),
    /// Entries were applied.
    Applied {
        /// The last applied entry.
        index: LogIndex,
        /// Configuration changes among the applied entries, in order.
        conf_changes: Vec<ConfChange>,
    },
    /// Campaign now.
    Campaign,
}

/// Inputs wait in four lanes, which are served in this order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lane {
    /// `Persisted` and `Applied`: never delayed, because all other work depends on them.
    Acks,
    /// Ticks and messages of other members without entries.
    Control,
    /// Appends and forwarded proposals; they wait while [`super::Replica::accepts_appends`] is false.
    Appends,
    /// Requests of clients; they wait while [`super::Replica::accepts_requests`] is false.
    Requests,
}

/// The lanes of a host's mailbox.
pub trait Inputs<S> {
    /// Takes the next input of a lane, if one waits.
    fn pop(&mut self, lane: Lane) -> Option<Input<S>>;
}

/// Work for the host, to be performed in the order given. `Persist` and `Commit` may run while later outputs are
/// performed; `Install` must be complete before the next one.
pub enum Output<S> {
    /// Send to other members. Proposals that cannot be sent come back by [`super::Replica::undeliverable`].
    Send(Vec<Message>),
    /// The heartbeat in the next [`Output::Send`] is late.
    HeartbeatLate {
        /// The receiver of the heartbeat.
        to: MemberId,
        /// Time by which it is late.
        late: Duration,
    },
    /// Append to the log, then answer [`Input::Persisted`].
    Persist {
        /// The number to answer with.
        number: ReadyNumber,
        /// Records in order.
        records: Vec<Record>,
    },
    /// Replace the state by this snapshot.
    Install {
        /// The snapshot of the [`Input::Snapshot`] that raft accepted.
        snapshot: S,
        /// The index of the last entry in it.
        index: LogIndex,
        /// The term of that entry.
        term: Term,
    },
    /// A snapshot that raft did not need. The host drops it in a background thread, since that may take long.
    Discard(S),
    /// Apply in order, then answer [`Input::Applied`].
    Commit(Vec<Entry>),
    /// The executor's batch of reads may be served once this index is applied.
    ReadAt {
        /// The executor.
        executor: usize,
        /// The executor's number of the batch.
        batch: u64,
        /// The index that reads have to wait for.
        index: LogIndex,
    },
    /// The term, the leader or this member's role changed.
    RoleChanged {
        /// The previous role.
        before: Role,
        /// The new role.
        now: Role,
    },
    /// No quorum of voters has enough disk space, and these members are short of it; or a quorum has again, if
    /// there are none.
    QuorumFull(Vec<MemberId>),
}
