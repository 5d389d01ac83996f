//! Messages to the apply actor, its handle, and what it answers to the executors.

use bytes::Bytes;

use crate::io::{IncomingSnapshot, LsmEngine};
use crate::machine::Machine;
use crate::types::{Entry, LeaseId, LogIndex, Refusal};

/// Messages from consensus that may wait.
pub const MAILBOX: usize = 1024;

/// What the actor can be asked.
pub enum Msg {
    /// Answered by [`crate::replica::Input::Applied`]. Consensus waits if the mailbox is full.
    Commit(Vec<Entry>),
    /// Answered by a [`crate::replica::Delivery`] once `index` is applied. Consensus waits if the mailbox is full.
    ReadAt {
        /// Whom to answer.
        executor: usize,
        /// The executor's number of the batch of reads.
        batch: u64,
        /// What must be applied.
        index: LogIndex,
    },
    /// Another member's state replaces this one's; answered when it is published.
    Install(Box<Prepared>, flume::Sender<()>),
    /// Answers with a lease's keys. The session waits if the mailbox is full.
    LeaseKeys(LeaseId, flume::Sender<Vec<Bytes>>),
    /// Answers when no compaction is under way. The session waits if the mailbox is full.
    CompactionDone(flume::Sender<()>),
    /// Publishes again if the store's files changed, so that those go that only an older view reads; answered then.
    /// Skipped by the clock if the mailbox is full.
    Refresh(Option<flume::Sender<()>>),
    /// Answers with the engine that the store is in. The session waits if the mailbox is full.
    Engine(flume::Sender<LsmEngine>),
    /// The member stops: makes durable what is applied, and answers then.
    Close(flume::Sender<()>),
}

/// Another member's state, in a store of its own.
pub struct Prepared {
    /// Opened on that store.
    pub machine: Machine<LsmEngine>,
    /// Where it is.
    pub incoming: IncomingSnapshot,
}

/// Cheap to clone.
#[derive(Clone)]
pub struct Handle(flume::Sender<Msg>);

impl Handle {
    pub async fn commit(&self, entries: Vec<Entry>) {
        drop(self.0.send_async(Msg::Commit(entries)).await);
    }

    pub async fn read_at(&self, executor: usize, batch: u64, index: LogIndex) {
        drop(self.0.send_async(Msg::ReadAt { executor, batch, index }).await);
    }

    pub async fn install(&self, prepared: Box<Prepared>) {
        let (sender, done) = flume::bounded(1);
        if self.0.send_async(Msg::Install(prepared, sender)).await.is_ok() {
            let _ = done.recv_async().await;
        }
    }

    pub async fn lease_keys(&self, id: LeaseId) -> Result<Vec<Bytes>, Refusal> {
        let (sender, answer) = flume::bounded(1);
        self.0.send_async(Msg::LeaseKeys(id, sender)).await.map_err(|_| Refusal::Stopped)?;
        answer.recv_async().await.map_err(|_| Refusal::Stopped)
    }

    /// The engine that the store is in now; none if the member stops.
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

    /// Has the state published again if the store's files changed, unless the mailbox is full. `false` when the member is
    /// going down.
    pub fn try_refresh(&self) -> bool {
        !matches!(self.0.try_send(Msg::Refresh(None)), Err(flume::TrySendError::Disconnected(_)))
    }

    /// Makes durable what is applied, so that the next start need not apply it again.
    pub async fn close(&self) {
        let (sender, answer) = flume::bounded(1);
        if self.0.send_async(Msg::Close(sender)).await.is_ok() {
            let _ = answer.recv_async().await;
        }
    }

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
