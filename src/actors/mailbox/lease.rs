//! Messages to the lease actor and its handle.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::lease::Grant;
use crate::types::{LeaseId, Refusal, Term};

/// Messages that may wait.
const MAILBOX: usize = 4096;

/// What the actor can be asked.
pub enum Msg {
    /// Apply granted a lease. Apply waits if the mailbox is full: a lost one is a lease that never ends.
    Granted(Grant),
    /// Apply revoked a lease. Apply waits likewise.
    Revoked(LeaseId),
    /// A snapshot replaced all leases. Apply waits if the mailbox is full.
    Replaced(Vec<Grant>),
    /// Prolong; answers with the time to live in seconds, or 0. The session waits if the mailbox is full.
    KeepAlive(LeaseId, flume::Sender<i64>),
    /// Answers with seconds granted and left. The session waits if the mailbox is full.
    TimeToLive(LeaseId, flume::Sender<Option<(i64, i64)>>),
    /// Answers with all leases, the one that expires first first.
    List(flume::Sender<Vec<LeaseId>>),
    /// Time to look for expired leases. Skipped if the mailbox is full; due leases stay due.
    Tick,
}

/// Cheap to clone.
#[derive(Clone)]
pub struct Handle {
    inbox: flume::Sender<Msg>,
    leads: Arc<AtomicU64>,
}

impl Handle {
    async fn ask<T>(&self, ask: impl FnOnce(flume::Sender<T>) -> Msg) -> Result<T, Refusal> {
        let (sender, answer) = flume::bounded(1);
        self.inbox.send_async(ask(sender)).await.map_err(|_| Refusal::Stopped)?;
        answer.recv_async().await.map_err(|_| Refusal::Stopped)
    }

    pub async fn keep_alive(&self, id: LeaseId) -> Result<i64, Refusal> {
        self.ask(|answer| Msg::KeepAlive(id, answer)).await
    }

    pub async fn time_to_live(&self, id: LeaseId) -> Result<Option<(i64, i64)>, Refusal> {
        self.ask(|answer| Msg::TimeToLive(id, answer)).await
    }

    pub async fn list(&self) -> Result<Vec<LeaseId>, Refusal> {
        self.ask(Msg::List).await
    }

    pub async fn granted(&self, grant: Grant) {
        drop(self.inbox.send_async(Msg::Granted(grant)).await);
    }

    pub async fn revoked(&self, id: LeaseId) {
        drop(self.inbox.send_async(Msg::Revoked(id)).await);
    }

    /// The term in which this member leads, or that it does not. Neither waits, for consensus calls it, nor
    /// gets lost when the mailbox is full: the actor looks before everything that it does.
    pub fn leads(&self, term: Option<Term>) {
        self.leads.store(term.unwrap_or(NOT_LEADING), Ordering::Release);
    }

    /// Time to look for expired leases. `false` when the member is going down.
    pub fn tick(&self) -> bool {
        !matches!(self.inbox.try_send(Msg::Tick), Err(flume::TrySendError::Disconnected(_)))
    }

    pub async fn replaced(&self, leases: Vec<Grant>) {
        drop(self.inbox.send_async(Msg::Replaced(leases)).await);
    }
}

/// No term: the first one is 1.
pub const NOT_LEADING: Term = 0;

/// The actor's mailbox.
pub struct Inbox {
    /// The messages.
    pub inbox: flume::Receiver<Msg>,
    /// The term in which this member leads, or [`NOT_LEADING`].
    pub leads: Arc<AtomicU64>,
}

/// The actor's mailbox.
pub fn mailbox() -> (Handle, Inbox) {
    let (sender, receiver) = flume::bounded(MAILBOX);
    let leads = Arc::new(AtomicU64::new(NOT_LEADING));
    let handle = Handle { inbox: sender, leads: Arc::clone(&leads) };
    (handle, Inbox { inbox: receiver, leads })
}
