//! The mailbox of the consensus actor: the lanes of [`crate::replica::Inputs`], and queries.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures_lite::future::or;

use super::apply::Prepared;
use crate::consensus::wire::{Priority, priority};
use crate::consensus::{Message, ReadyNumber};
use crate::io::spawn;
use crate::replica::{Inputs, Lane};
use crate::types::limits::{APPENDS_MAILBOX, CONSENSUS_MAILBOX, READIES_IN_FLIGHT_MAX};
use crate::types::{ConfChange, DiskSpace, LogIndex, MemberId, Term};

/// An input of the replica, whose snapshots are opened stores.
pub type Input = crate::replica::Input<Box<Prepared>>;

/// Query for the index up to which a member's log matches, and the last index of this one; `None` unless this member leads.
pub struct Matched(pub MemberId, pub flume::Sender<Option<(LogIndex, LogIndex)>>);

/// The newest acknowledgement of apply that consensus has not taken. Acknowledgements are merged instead of queued, so
/// that they cannot overflow while consensus waits for a snapshot to be installed.
type AppliedCell = Arc<Mutex<Option<(LogIndex, Vec<ConfChange>)>>>;

/// The handle of the consensus actor. Cheap to clone.
#[derive(Clone)]
pub struct Handle {
    persisted: flume::Sender<ReadyNumber>,
    applied: AppliedCell,
    applied_bell: flume::Sender<()>,
    control: flume::Sender<Input>,
    appends: flume::Sender<Input>,
    requests: flume::Sender<Input>,
    questions: flume::Sender<Matched>,
}

impl Handle {
    /// Sends the requests of one executor; waits while the mailbox is full. `false` when the member is stopping.
    pub async fn requests(
        &self,
        executor: usize,
        proposals: Vec<Bytes>,
        read: Option<u64>,
    ) -> bool {
        self.requests.send_async(Input::Requests { executor, proposals, read }).await.is_ok()
    }

    /// Proposes commands that only the leader of this term may propose, unless the mailbox is full. The result
    /// is not reported.
    pub fn try_leader_requests(&self, term: Term, proposals: Vec<Bytes>) {
        drop(self.requests.try_send(Input::LeaderRequests(term, proposals)));
    }

    /// Proposes a change of the membership; waits while the mailbox is full.
    pub async fn conf_change(&self, payload: Bytes) {
        drop(self.requests.send_async(Input::ConfChange(payload)).await);
    }

    /// A message of another member. Appends wait while the mailbox is full; others are dropped, and raft sends them again.
    pub async fn peer(&self, message: Box<Message>) {
        match priority(&message) {
            Priority::Urgent => drop(self.control.try_send(Input::Peer(message))),
            Priority::Bulk => drop(self.appends.send_async(Input::Peer(message)).await),
            // Snapshots arrive with a store, by [`Handle::snapshot`].
            Priority::Snapshot => (),
        }
    }

    /// A member is unreachable. Dropped if the mailbox is full: raft detects it by itself.
    pub fn unreachable(&self, member: MemberId) {
        drop(self.control.try_send(Input::Unreachable(member)));
    }

    /// A snapshot was sent to a member, or the attempt failed. Waits in the background while the mailbox is full.
    pub fn snapshot_sent(&self, member: MemberId, arrived: bool) {
        let control = self.control.clone();
        spawn(async move {
            drop(control.send_async(Input::SnapshotSent(member, arrived)).await);
        });
    }

    /// A message with a snapshot, and the store built from it; waits while the mailbox is full.
    pub async fn snapshot(&self, message: Box<Message>, prepared: Box<Prepared>) {
        drop(self.control.send_async(Input::Snapshot(message, prepared)).await);
    }

    /// Requests a leadership transfer. Dropped if the mailbox is full: the caller then times out.
    pub fn transfer(&self, to: MemberId) {
        drop(self.control.try_send(Input::Transfer(to)));
    }

    /// Queries [`Matched`]; waits while too many queries are queued.
    pub async fn matched(&self, member: MemberId) -> Option<(LogIndex, LogIndex)> {
        let (sender, answer) = flume::bounded(1);
        self.questions.send_async(Matched(member, sender)).await.ok()?;
        answer.recv_async().await.ok()?
    }

    /// A tick, and the disk space level. Skipped if the mailbox is full: the member is overloaded, not dead. `false`
    /// when the member is stopping.
    pub fn tick(&self, disk: DiskSpace) -> bool {
        let sent = self.control.try_send(Input::Tick(disk));
        !matches!(sent, Err(flume::TrySendError::Disconnected(_)))
    }

    /// Makes this member campaign at once.
    pub fn campaign(&self) {
        drop(self.control.try_send(Input::Campaign));
    }

    /// All batches up to this one are durable in the log.
    pub fn persisted(&self, number: ReadyNumber) {
        let full = matches!(self.persisted.try_send(number), Err(flume::TrySendError::Full(_)));
        assert!(!full, "more acknowledgements than batches in flight");
    }

    /// The state machine has applied everything up to `index`.
    pub fn applied(&self, index: LogIndex, conf_changes: Vec<ConfChange>) {
        let mut cell = self.applied.lock().unwrap_or_else(PoisonError::into_inner);
        let (newest, changes) = cell.get_or_insert_default();
        *newest = index;
        changes.extend(conf_changes);
        drop(cell);
        let _ = self.applied_bell.try_send(());
    }
}

/// The receiving side, for the actor.
pub struct Inbox {
    persisted: flume::Receiver<ReadyNumber>,
    applied: AppliedCell,
    applied_bell: flume::Receiver<()>,
    control: flume::Receiver<Input>,
    appends: flume::Receiver<Input>,
    requests: flume::Receiver<Input>,
    /// Queries; answered at any time.
    pub questions: flume::Receiver<Matched>,
    /// An input that ended a wait, and its lane.
    first: Option<(Lane, Input)>,
}

impl Inbox {
    /// Waits until there is an input in one of the lanes that are accepted, or a query; `false` when all
    /// handles are dropped.
    pub async fn wait(&mut self, appends: bool, requests: bool) -> bool {
        let persisted = async {
            let number = self.persisted.recv_async().await.ok()?;
            Some(Some((Lane::Acks, Input::Persisted(number))))
        };
        let applied = async { self.applied_bell.recv_async().await.ok().map(|()| None) };
        let acks = or(persisted, applied);
        let vital = or(acks, next_of(Lane::Control, &self.control, true));
        let vital = or(vital, next_of(Lane::Appends, &self.appends, appends));
        let next = or(vital, next_of(Lane::Requests, &self.requests, requests)).await;
        let is_open = next.is_some();
        self.first = next.flatten();
        is_open
    }
}

/// The next input of a lane; waits for ever if the lane is not accepted. `None` when all handles are dropped.
async fn next_of(
    lane: Lane,
    inbox: &flume::Receiver<Input>,
    is_served: bool,
) -> Option<Option<(Lane, Input)>> {
    if !is_served {
        return std::future::pending().await;
    }
    inbox.recv_async().await.ok().map(|input| Some((lane, input)))
}

impl Inputs<Box<Prepared>> for Inbox {
    fn pop(&mut self, lane: Lane) -> Option<Input> {
        if let Some((_, input)) = self.first.take_if(|(its, _)| *its == lane) {
            return Some(input);
        }
        match lane {
            Lane::Acks => match self.persisted.try_recv() {
                Ok(number) => Some(Input::Persisted(number)),
                Err(_) => {
                    let mut cell = self.applied.lock().unwrap_or_else(PoisonError::into_inner);
                    let (index, conf_changes) = cell.take()?;
                    Some(Input::Applied { index, conf_changes })
                }
            },
            Lane::Control => self.control.try_recv().ok(),
            Lane::Appends => self.appends.try_recv().ok(),
            Lane::Requests => self.requests.try_recv().ok(),
        }
    }
}

/// The actor's mailbox.
pub fn mailbox() -> (Handle, Inbox) {
    let (persisted_in, persisted) = flume::bounded(READIES_IN_FLIGHT_MAX + 1);
    let (bell_in, applied_bell) = flume::bounded(1);
    let (control_in, control) = flume::bounded(CONSENSUS_MAILBOX);
    let (appends_in, appends) = flume::bounded(APPENDS_MAILBOX);
    let (requests_in, requests) = flume::bounded(CONSENSUS_MAILBOX);
    let (questions_in, questions) = flume::bounded(CONSENSUS_MAILBOX);
    let applied = AppliedCell::default();
    let handle = Handle {
        persisted: persisted_in,
        applied: Arc::clone(&applied),
        applied_bell: bell_in,
        control: control_in,
        appends: appends_in,
        requests: requests_in,
        questions: questions_in,
    };
    let inbox = Inbox {
        persisted,
        applied,
        applied_bell,
        control,
        appends,
        requests,
        questions,
        first: None,
    };
    (handle, inbox)
}
