//! Messages to the log's actor, its handle, and how much the log can still take.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::consensus::ReadyNumber;
use crate::types::limits::WAL_MAILBOX;
use crate::types::{ConfState, LogIndex, Term};
use crate::wal::Record;

/// What the actor can be asked.
pub enum Msg {
    /// Answered by [`crate::replica::Input::Persisted`]. Consensus waits if the mailbox is full.
    Persist {
        /// To answer with.
        number: ReadyNumber,
        /// To append.
        records: Vec<Record>,
    },
    /// The store holds everything up to here on disk: the log below may go.
    LogStart {
        /// Up to and including this entry.
        index: LogIndex,
        /// Its term.
        term: Term,
        /// The members as of this entry.
        conf_state: ConfState,
    },
}

/// Cheap to clone.
#[derive(Clone)]
pub struct Handle {
    inbox: flume::Sender<Msg>,
    space: Arc<Space>,
}

/// What can still be appended. Written by the actor and its handles, read by any.
pub struct Space {
    /// Bytes that fit behind what is on disk; [`UNLIMITED`] while there is a next segment.
    left: AtomicU64,
    /// Bytes that wait to be appended.
    queued: AtomicU64,
}

/// There is a next segment.
const UNLIMITED: u64 = u64::MAX;

impl Space {
    /// Notes the bytes that fit behind what is on disk; `None` while there is a next segment.
    pub fn set_left(&self, bytes: Option<u64>) {
        self.left.store(bytes.unwrap_or(UNLIMITED), Ordering::Relaxed);
    }

    /// So many bytes do not wait any more.
    pub fn dequeued(&self, bytes: u64) {
        self.queued.fetch_sub(bytes, Ordering::Relaxed);
    }

    fn left(&self) -> Option<u64> {
        let left = self.left.load(Ordering::Relaxed);
        (left < UNLIMITED).then(|| left.saturating_sub(self.queued.load(Ordering::Relaxed)))
    }
}

impl Handle {
    /// Queues a batch; waits while too many are in flight.
    pub async fn persist(&self, number: ReadyNumber, records: Vec<Record>) {
        self.space.queued.fetch_add(bytes_of(&records), Ordering::Relaxed);
        // Fails only when the actor is gone, and then so is the member.
        drop(self.inbox.send_async(Msg::Persist { number, records }).await);
    }

    /// Lets the log below `index` go.
    pub async fn log_start(&self, index: LogIndex, term: Term, conf_state: ConfState) {
        drop(self.inbox.send_async(Msg::LogStart { index, term, conf_state }).await);
    }

    /// Bytes that can be appended behind all that waits, if the disk has no room for another segment.
    pub fn room_left(&self) -> Option<u64> {
        self.space.left()
    }
}

/// The actor's mailbox.
pub fn mailbox() -> (Handle, flume::Receiver<Msg>, Arc<Space>) {
    let (sender, inbox) = flume::bounded(WAL_MAILBOX);
    let space = Arc::new(Space { left: AtomicU64::new(UNLIMITED), queued: AtomicU64::new(0) });
    (Handle { inbox: sender, space: Arc::clone(&space) }, inbox, space)
}

/// Bytes that records take in the log, about.
pub fn bytes_of(records: &[Record]) -> u64 {
    records.iter().map(Record::size_hint).sum::<usize>() as u64
}
