//! Inputs and outputs of [`super::Replica`].

use std::time::Duration;

use bytes::Bytes;

use crate::consensus::{Message, ReadyNumber, Role};
use crate::types::{ConfChange, DiskSpace, Entry, LogIndex, MemberId, Term};
use crate::wal::Record;

/// Anything that can happen to a replica. `S` is the host's own form of a snapshot that was received.
pub enum Input<S> {
    /// Requests of the sessions of one executor.
    Requests {
        /// The executor that is to be told of the read index.
        executor: usize,
        /// Encoded commands, in order.
        proposals: Vec<Bytes>,
        /// The executor's number of a batch of reads that needs a read index.
        read: Option<u64>,
    },
    /// Encoded commands that only the leader of this term may propose; dropped if this member is not.
    LeaderRequests(Term, Vec<Bytes>),
    /// An encoded [`ConfChange`] to propose.
    ConfChange(Bytes),
    /// A message of another member.
    Peer(Box<Message>),
    /// Messages to this member do not arrive.
    Unreachable(MemberId),
    /// The snapshot sent to this member arrived, or did not.
    SnapshotSent(MemberId, bool),
    /// A message that announces a snapshot, and the snapshot, received in whole.
    Snapshot(Box<Message>, S),
    /// Hand leadership to this member.
    Transfer(MemberId),
    /// One tick of time, and the state of this member's disk.
    Tick(DiskSpace),
    /// The log has all batches up to this one on disk.
    Persisted(ReadyNumber),
    /// The state machine holds everything up to here.
    Applied {
        /// Up to and including this entry.
        index: LogIndex,
        /// Configuration changes among the applied entries, in order.
        conf_changes: Vec<ConfChange>,
    },
    /// Stand for election now.
    Campaign,
}

/// Inputs wait in four lanes, which are served in this order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lane {
    /// `Persisted` and `Applied`: never delayed, because everything else waits for them.
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
    /// A heartbeat that leaves with the next [`Output::Send`] is late.
    HeartbeatLate {
        /// The member that waits for it.
        to: MemberId,
        /// By how much.
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
        /// The entry it stands at.
        index: LogIndex,
        /// The term of that entry.
        term: Term,
    },
    /// A snapshot that raft did not need. Dropping it may take long, so the host does that elsewhere.
    Discard(S),
    /// Apply in order, then answer [`Input::Applied`].
    Commit(Vec<Entry>),
    /// Tell the executor that its batch of reads may be served once this index is applied.
    ReadAt {
        /// The executor.
        executor: usize,
        /// Its number of the batch.
        batch: u64,
        /// The index that reads have to wait for.
        index: LogIndex,
    },
    /// The term, the leader or this member's part changed.
    RoleChanged {
        /// As it was.
        before: Role,
        /// As it is.
        now: Role,
    },
    /// No quorum of voters has room on its disks any more, and these members have none; or one has again, if there are none.
    QuorumFull(Vec<MemberId>),
}
