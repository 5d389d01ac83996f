//! Messages of the apply actor, and its handle.

use bytes::Bytes;

use crate::auth::{Action, AuthInfo};
use crate::io::{IncomingSnapshot, LsmEngine};
use crate::machine::Machine;
use crate::types::limits::LEASES_CHECKED_MAX;
use crate::types::{Entry, LeaseId, LogIndex, Refusal};

/// Messages from consensus that may wait.
pub const MAILBOX: usize = 1024;

/// Messages of the actor.
pub enum Msg {
    /// Answered by [`crate::replica::Input::Applied`]. Consensus waits if the mailbox is full.
    Commit(Vec<Entry>),
    /// Answered by a [`crate::replica::Delivery`] once `index` is applied. Consensus waits if the mailbox is full.
    ReadAt {
        /// The executor of the reads.
        executor: usize,
        /// The executor's number of the batch of reads.
        batch: u64,
        /// The index that must be applied.
        index: LogIndex,
    },
    /// Replace the state by another member's; answered when it is published.
    Install(Box<Prepared>, flume::Sender<()>),
    /// Answers with the keys of a lease. The session waits if the mailbox is full.
    LeaseKeys(LeaseId, flume::Sender<Vec<Bytes>>),
    /// Answers whether somebody may do this to all keys of these leases, a bounded number of them. The session waits if the
    /// mailbox is full.
    CheckLeases {
        /// In whose name.
        who: Option<AuthInfo>,
        /// Read or write.
        action: Action,
        /// At most [`LEASES_CHECKED_MAX`].
        leases: Vec<LeaseId>,
        /// The first refusal.
        answer: flume::Sender<Result<(), Refusal>>,
    },
    /// Answers when no compaction is in progress. The session waits if the mailbox is full.
    CompactionDone(flume::Sender<()>),
    /// Publish again if the store's files changed, so that files that only an older view reads can be deleted; answered
    /// then. The periodic one is skipped if the mailbox is full.
    Refresh(Option<flume::Sender<()>>),
    /// Answers with the present engine of the store. The session waits if the mailbox is full.
    Engine(flume::Sender<LsmEngine>),
    /// The member stops: make the applied state durable, and answer then.
    Close(flume::Sender<()>),
}

impl Msg {
    /// True for a message that waits while a large entry is applied, because it would see a part of it: all but reads,
    /// which wait for their index, and the periodic refresh, which is repeated.
    pub fn waits_for_large_entry(&self) -> bool {
        match self {
            Self::ReadAt { .. } | Self::Refresh(None) => false,
            Self::Commit(_)
            | Self::Install(..)
            | Self::LeaseKeys(..)
            | Self::CheckLeases { .. }
            | Self::CompactionDone(_)
            | Self::Refresh(Some(_))
            | Self::Engine(_)
            | Self::Close(_) => true,
        }
    }
}

/// Another member's state, in a store of its own.
pub struct Prepared {
    /// The state machine, opened on that store.
    pub machine: Machine<LsmEngine>,
    /// The directory of the store.
    pub incoming: IncomingSnapshot,
}

/// Cheap to clone.
#[derive(Clone)]
pub struct Handle(flume::Sender<Msg>);

impl Handle {
    /// Sends committed entries to be applied. Waits while the mailbox is full.
    pub async fn commit(&self, entries: Vec<Entry>) {
        drop(self.0.send_async(Msg::Commit(entries)).await);
    }

    /// Asks for a [`Delivery`] to `executor` once `index` is applied. Waits while the mailbox is full.
    pub async fn read_at(&self, executor: usize, batch: u64, index: LogIndex) {
        drop(self.0.send_async(Msg::ReadAt { executor, batch, index }).await);
    }

    /// Replaces the state by a received snapshot; returns when that is published.
    pub async fn install(&self, prepared: Box<Prepared>) {
        let (sender, done) = flume::bounded(1);
        if self.0.send_async(Msg::Install(prepared, sender)).await.is_ok() {
            let _ = done.recv_async().await;
        }
    }

    /// The keys of a lease, in order; none if there is no such lease.
    ///
    /// # Errors
    /// The member is stopping.
    pub async fn lease_keys(&self, id: LeaseId) -> Result<Vec<Bytes>, Refusal> {
        let (sender, answer) = flume::bounded(1);
        self.0.send_async(Msg::LeaseKeys(id, sender)).await.map_err(|_| Refusal::Stopped)?;
        answer.recv_async().await.map_err(|_| Refusal::Stopped)
    }

    /// Checks that a user may do this to all keys of these leases, however many there are.
    pub async fn check_leases(
        &self,
        who: Option<&AuthInfo>,
        action: Action,
        leases: &[LeaseId],
    ) -> Result<(), Refusal> {
        for leases in leases.chunks(LEASES_CHECKED_MAX) {
            let (sender, answered) = flume::bounded(1);
            let (who, leases, answer) = (who.cloned(), leases.to_vec(), sender);
            let msg = Msg::CheckLeases { who, action, leases, answer };
            self.0.send_async(msg).await.map_err(|_| Refusal::Stopped)?;
            answered.recv_async().await.map_err(|_| Refusal::Stopped)??;
        }
        Ok(())
    }

    /// The present engine of the store; `None` if the member stops.
    pub async fn engine(&self) -> Option<LsmEngine> {
        let (sender, answer) = flume::bounded(1);
        self.0.send_async(Msg::Engine(sender)).await.ok()?;
        answer.recv_async().await.ok()
    }

    /// Publishes the store as it is on disk now.
    pub async fn refresh(&self) {
        let (sender, answer) = flume::bounded(1);
        if self.0.send_async(Msg::Refresh(Some(sender))).await.is_ok() {
            let _ = answer.recv_async().await;
        }
    }

    /// Requests that the state is published again if the store's files changed, unless the mailbox is full. `false`
    /// when the member is stopping.
    pub fn try_refresh(&self) -> bool {
        !matches!(self.0.try_send(Msg::Refresh(None)), Err(flume::TrySendError::Disconnected(_)))
    }

    /// Makes the applied state durable, so that the next start need not apply it again.
    pub async fn close(&self) {
        let (sender, answer) = flume::bounded(1);
        if self.0.send_async(Msg::Close(sender)).await.is_ok() {
            let _ = answer.recv_async().await;
        }
    }

    /// Returns when no compaction is in progress, or when the member stops.
    pub async fn compaction_done(&self) {
        let (sender, answer) = flume::bounded(1);
        if self.0.send_async(Msg::CompactionDone(sender)).await.is_ok() {
            let _ = answer.recv_async().await;
        }
    }
}

/// The actor's mailbox.
pub fn mailbox() -> (Handle, flume::Receiver<Msg>) {
    let (sender, receiver) = flume::bounded(MAILBOX);
    (Handle(sender), receiver)
}
