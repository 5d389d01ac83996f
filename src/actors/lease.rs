//! Hosts [`crate::lease::Expiry`]: keeps the time of all leases on the leader, renews them from memory and
//! proposes to revoke those that expired. One per member.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::consensus;
use crate::io::clock;
use crate::lease::{Expiry, Grant};
use crate::metrics;
use crate::types::limits::LEASE_REVOKES_PER_SECOND;
use crate::types::{LeaseId, Refusal, Term};

/// How often expired leases are looked for; etcd's too.
const TICK: Duration = Duration::from_millis(500);

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

    pub(super) async fn keep_alive(&self, id: LeaseId) -> Result<i64, Refusal> {
        self.ask(|answer| Msg::KeepAlive(id, answer)).await
    }

    pub(super) async fn time_to_live(&self, id: LeaseId) -> Result<Option<(i64, i64)>, Refusal> {
        self.ask(|answer| Msg::TimeToLive(id, answer)).await
    }

    pub(super) async fn list(&self) -> Result<Vec<LeaseId>, Refusal> {
        self.ask(Msg::List).await
    }

    pub(super) async fn granted(&self, grant: Grant) {
        drop(self.inbox.send_async(Msg::Granted(grant)).await);
    }

    pub(super) async fn revoked(&self, id: LeaseId) {
        drop(self.inbox.send_async(Msg::Revoked(id)).await);
    }

    /// The term in which this member leads, or that it does not. Neither waits, for consensus calls it, nor
    /// gets lost when the mailbox is full: the actor looks before everything that it does.
    pub fn leads(&self, term: Option<Term>) {
        self.leads.store(term.unwrap_or(NOT_LEADING), Ordering::Release);
    }

    pub(super) async fn replaced(&self, leases: Vec<Grant>) {
        drop(self.inbox.send_async(Msg::Replaced(leases)).await);
    }
}

/// No term: the first one is 1.
const NOT_LEADING: Term = 0;

/// The actor's mailbox.
pub struct Inbox {
    inbox: flume::Receiver<Msg>,
    leads: Arc<AtomicU64>,
}

/// The actor's mailbox.
pub fn mailbox() -> (Handle, Inbox) {
    let (sender, receiver) = flume::bounded(MAILBOX);
    let leads = Arc::new(AtomicU64::new(NOT_LEADING));
    let handle = Handle { inbox: sender, leads: Arc::clone(&leads) };
    (handle, Inbox { inbox: receiver, leads })
}

/// Wakes the actor every [`TICK`].
pub async fn ticks(handle: Handle) {
    loop {
        clock::sleep(TICK).await;
        if matches!(handle.inbox.try_send(Msg::Tick), Err(flume::TrySendError::Disconnected(_))) {
            return;
        }
    }
}

/// Serves until all handles are gone. Revokes are nobody's requests: their answers are not waited for. Only the
/// leader of the term in which a lease ran out proposes that, so that a deposed one revokes nothing.
pub async fn run(mut expiry: Expiry, Inbox { inbox, leads }: Inbox, consensus: consensus::Handle) {
    let mut term = NOT_LEADING;
    while let Ok(msg) = inbox.recv_async().await {
        let now = clock::now_ms();
        let before = std::mem::replace(&mut term, leads.load(Ordering::Acquire));
        if before != term {
            // Who led in between may have renewed what this member does not know of.
            expiry.demote(now);
            if term != NOT_LEADING {
                expiry.promote(now);
            }
        }
        match msg {
            Msg::Granted(grant) => expiry.granted(grant, now),
            Msg::Revoked(id) => expiry.revoked(id),
            Msg::Replaced(leases) => {
                expiry.by_expiry().into_iter().for_each(|id| expiry.revoked(id));
                leases.into_iter().for_each(|grant| expiry.granted(grant, now));
            }
            Msg::KeepAlive(id, answer) => {
                let renewed = expiry.renew(id, now);
                metrics::LEASES_RENEWED.add(u64::from(renewed.is_some()));
                let _ = answer.try_send(renewed.unwrap_or(0));
            }
            Msg::TimeToLive(id, answer) => drop(answer.try_send(expiry.remaining(id, now))),
            Msg::List(answer) => drop(answer.try_send(expiry.by_expiry())),
            Msg::Tick => {
                let due = expiry.due(now, LEASE_REVOKES_PER_SECOND / 2);
                if !due.is_empty() {
                    metrics::LEASES_EXPIRED.add(due.len() as u64);
                    // Only tried: apply waits for this actor and consensus for apply, so that this actor must
                    // not wait for consensus. What is not taken is due again later.
                    consensus.try_own_work(term, due.into_iter().map(expire).collect());
                }
            }
        }
    }
}

fn expire(grant: Grant) -> bytes::Bytes {
    grant.expire().to_payload(0)
}
