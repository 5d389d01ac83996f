//! Messages to the consensus actor, its handle and its mailbox of four lanes.

use bytes::Bytes;

use super::apply::{MAILBOX as APPLY_MAILBOX, Prepared};
use crate::consensus::wire::{Travels, travels};
use crate::consensus::{Message, ReadyNumber};
use crate::io::spawn;
use crate::types::limits::{APPENDS_MAILBOX, CONSENSUS_MAILBOX, READIES_IN_FLIGHT_MAX};
use crate::types::{ConfChange, LogIndex, MemberId, Term};

/// What the actor can be asked.
pub enum Msg {
    /// What the sessions of one executor handed in. They wait if the mailbox is full.
    Work {
        /// Whom to tell of the read.
        executor: usize,
        /// Encoded `InternalRaftRequest`s.
        proposals: Vec<Bytes>,
        /// The executor's number of a read round.
        read: Option<u64>,
    },
    /// Proposals that only this leader may make, in this term.
    OwnWork(Term, Vec<Bytes>),
    /// A change of the membership. The session waits if the mailbox is full.
    ConfChange(Bytes),
    /// From another member; dropped if the mailbox is full, raft sends again. Appends have a mailbox of their
    /// own, and their connection waits.
    Peer(Box<Message>),
    /// A member cannot be reached; dropped if the mailbox is full, raft finds out itself.
    Unreachable(MemberId),
    /// A snapshot reached a member, or did not. The sender waits if the mailbox is full.
    SnapshotSent(MemberId, bool),
    /// A message with a snapshot, and the store that was made of it. The receiver waits likewise.
    Snapshot(Box<Message>, Box<Prepared>),
    /// Hand leadership over. Dropped if the mailbox is full; whoever asks sees no change.
    Transfer(MemberId),
    /// Answers up to where a member's log matches, and where this one ends; only while this member leads.
    Matched(MemberId, flume::Sender<Option<(LogIndex, LogIndex)>>),
    /// A tick of time. Skipped if the mailbox is full: the member is overloaded, not dead.
    Tick,
    /// The disk has all batches up to this one. Has its own mailbox, as long as batches in flight.
    Persisted(ReadyNumber),
    /// The state machine holds everything up to here.
    Applied {
        /// Up to and including this entry.
        index: LogIndex,
        /// Configuration changes among what was applied, in order.
        conf_changes: Vec<ConfChange>,
    },
    /// Stand for election at once.
    Campaign,
}

/// Cheap to clone.
#[derive(Clone)]
pub struct Handle {
    acks: flume::Sender<Msg>,
    control: flume::Sender<Msg>,
    appends: flume::Sender<Msg>,
    work: flume::Sender<Msg>,
}

impl Handle {
    /// Hands in the work of one executor; waits while the mailbox is full. `false` when the member is
    /// going down.
    pub async fn work(&self, executor: usize, proposals: Vec<Bytes>, read: Option<u64>) -> bool {
        self.work.send_async(Msg::Work { executor, proposals, read }).await.is_ok()
    }

    /// Proposes what only the leader of this term may, and whose answers nobody waits for, unless the mailbox
    /// is full.
    pub fn try_own_work(&self, term: Term, proposals: Vec<Bytes>) {
        drop(self.work.try_send(Msg::OwnWork(term, proposals)));
    }

    /// Proposes a change of the membership.
    pub async fn conf_change(&self, payload: Bytes) {
        drop(self.work.send_async(Msg::ConfChange(payload)).await);
    }

    /// A message of another member; appends wait.
    pub async fn peer(&self, message: Box<Message>) {
        match travels(&message) {
            Travels::Urgent => drop(self.control.try_send(Msg::Peer(message))),
            Travels::Bulk => drop(self.appends.send_async(Msg::Peer(message)).await),
            // It comes with a store, or not at all.
            Travels::Snapshot => (),
        }
    }

    pub fn unreachable(&self, member: MemberId) {
        drop(self.control.try_send(Msg::Unreachable(member)));
    }

    pub fn snapshot_sent(&self, member: MemberId, arrived: bool) {
        let control = self.control.clone();
        spawn(async move {
            drop(control.send_async(Msg::SnapshotSent(member, arrived)).await);
        });
    }

    pub async fn snapshot(&self, message: Box<Message>, prepared: Box<Prepared>) {
        drop(self.control.send_async(Msg::Snapshot(message, prepared)).await);
    }

    /// Asks for a change of leadership.
    pub fn transfer(&self, to: MemberId) {
        drop(self.control.try_send(Msg::Transfer(to)));
    }

    /// See [`Msg::Matched`].
    pub async fn matched(&self, member: MemberId) -> Option<(LogIndex, LogIndex)> {
        let (sender, answer) = flume::bounded(1);
        self.control.send_async(Msg::Matched(member, sender)).await.ok()?;
        answer.recv_async().await.ok()?
    }

    /// A tick of time. `false` when the member is going down.
    pub fn tick(&self) -> bool {
        !matches!(self.control.try_send(Msg::Tick), Err(flume::TrySendError::Disconnected(_)))
    }

    /// Stand for election at once.
    pub fn campaign(&self) {
        drop(self.control.try_send(Msg::Campaign));
    }

    pub fn persisted(&self, number: ReadyNumber) {
        self.ack(Msg::Persisted(number));
    }

    pub fn applied(&self, index: LogIndex, conf_changes: Vec<ConfChange>) {
        self.ack(Msg::Applied { index, conf_changes });
    }

    fn ack(&self, msg: Msg) {
        let full = matches!(self.acks.try_send(msg), Err(flume::TrySendError::Full(_)));
        assert!(!full, "more acknowledgements than batches in flight");
    }
}

/// The actor's mailbox, in four lanes: acknowledgements, then time and peers, then appends, then clients.
pub struct Inbox {
    /// Acknowledgements of the disk and of apply.
    pub acks: flume::Receiver<Msg>,
    /// Time, and what other members send but for appends.
    pub control: flume::Receiver<Msg>,
    /// Appends of other members.
    pub appends: flume::Receiver<Msg>,
    /// What clients asked for.
    pub work: flume::Receiver<Msg>,
}

/// Acknowledgements that can be under way: one per batch at the disk and one per batch at apply.
const ACKS: usize = READIES_IN_FLIGHT_MAX + APPLY_MAILBOX + 2;

/// The actor's mailbox.
pub fn mailbox() -> (Handle, Inbox) {
    let (acks_in, acks) = flume::bounded(ACKS);
    let (control_in, control) = flume::bounded(CONSENSUS_MAILBOX);
    let (appends_in, appends) = flume::bounded(APPENDS_MAILBOX);
    let (work_in, work) = flume::bounded(CONSENSUS_MAILBOX);
    let handle = Handle { acks: acks_in, control: control_in, appends: appends_in, work: work_in };
    (handle, Inbox { acks, control, appends, work })
}
