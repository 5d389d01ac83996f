//! Messages of the lease actor, and its handle.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::lease::Grant;
use crate::replica::LeaseChange;
use crate::types::{LeaseId, Refusal, Term};

/// Capacity of the mailbox.
const MAILBOX: usize = 4096;

/// Messages of the actor.
pub enum Msg {
    /// Apply granted or revoked a lease. Apply waits if the mailbox is full: a lease whose grant was lost
    /// would never expire.
    Changed(LeaseChange),
    /// A snapshot replaced all leases. Apply waits if the mailbox is full.
    Replaced(Vec<Grant>),
    /// Renews a lease; answers with the time to live in seconds, or 0. The session waits if the mailbox is full.
    KeepAlive(LeaseId, flume::Sender<i64>),
    /// Answers with seconds granted and left. The session waits if the mailbox is full.
    TimeToLive(LeaseId, flume::Sender<Option<(i64, i64)>>),
    /// Answers with all leases in the order of expiry.
    List(flume::Sender<Vec<LeaseId>>),
    /// Checks for expired leases. Skipped if the mailbox is full; due leases stay due.
    Tick,
}

/// The handle of the lease actor. Cheap to clone.
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

    /// Renews a lease; returns its time to live in seconds, 0 if there is none or this member does not lead.
    ///
    /// # Errors
    /// The member is stopping.
    pub async fn keep_alive(&self, id: LeaseId) -> Result<i64, Refusal> {
        self.ask(|answer| Msg::KeepAlive(id, answer)).await
    }

    /// Seconds granted and seconds left.
    ///
    /// # Errors
    /// The member is stopping.
    pub async fn time_to_live(&self, id: LeaseId) -> Result<Option<(i64, i64)>, Refusal> {
        self.ask(|answer| Msg::TimeToLive(id, answer)).await
    }

    /// All leases, in the order in which they expire.
    ///
    /// # Errors
    /// The member is stopping.
    pub async fn list(&self) -> Result<Vec<LeaseId>, Refusal> {
        self.ask(Msg::List).await
    }

    /// A lease was granted or revoked.
    pub async fn changed(&self, change: LeaseChange) {
        drop(self.inbox.send_async(Msg::Changed(change)).await);
    }

    /// Sets the term in which this member leads, if it does. Never waits, since consensus calls it, and is never lost
    /// when the mailbox is full: the actor reads it before each message.
    pub fn leads(&self, term: Option<Term>) {
        self.leads.store(term.unwrap_or(NOT_LEADING), Ordering::Release);
    }

    /// Requests a check for expired leases. `false` when the member is stopping.
    pub fn tick(&self) -> bool {
        !matches!(self.inbox.try_send(Msg::Tick), Err(flume::TrySendError::Disconnected(_)))
    }

    /// A snapshot replaced all leases.
    pub async fn replaced(&self, leases: Vec<Grant>) {
        drop(self.inbox.send_async(Msg::Replaced(leases)).await);
    }
}

/// Value for no term: the first one is 1.
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
