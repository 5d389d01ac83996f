//! Messages of the log's actor, its handle, and the free space of the log.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::consensus::ReadyNumber;
use crate::types::limits::WAL_MAILBOX;
use crate::types::{ConfState, LogIndex, Term};
use crate::wal::Record;

/// Messages of the actor.
pub enum Msg {
    /// Answered by [`crate::replica::Input::Persisted`]. Consensus waits if the mailbox is full.
    Persist {
        /// The number for the answer.
        number: ReadyNumber,
        /// The records to append.
        records: Vec<Record>,
    },
    /// The store is durable up to and including this entry: the log below may be deleted.
    LogStart {
        /// Index of the entry.
        index: LogIndex,
        /// The term of that entry.
        term: Term,
        /// The configuration as of this entry.
        conf_state: ConfState,
    },
}

/// The handle of the log's actor. Cheap to clone.
#[derive(Clone)]
pub struct Handle {
    inbox: flume::Sender<Msg>,
    space: Arc<Space>,
}

/// Free space of the log. Written by the actor and its handles, readable by all.
pub struct Space {
    /// Bytes that fit behind the records on disk; [`UNLIMITED`](Space::UNLIMITED) while there is a next segment.
    left: AtomicU64,
    /// Bytes in the queue.
    queued: AtomicU64,
}

/// Value of `left` while there is a next segment.
const UNLIMITED: u64 = u64::MAX;

impl Space {
    /// Sets the bytes that fit behind the records on disk; `None` while there is a next segment.
    pub fn set_left(&self, bytes: Option<u64>) {
        self.left.store(bytes.unwrap_or(UNLIMITED), Ordering::Relaxed);
    }

    /// Subtracts bytes from the queue.
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
        // Fails only after the actor ended, and then the member stops too.
        drop(self.inbox.send_async(Msg::Persist { number, records }).await);
    }

    /// Lets the log below `index` be deleted.
    pub async fn log_start(&self, index: LogIndex, term: Term, conf_state: ConfState) {
        drop(self.inbox.send_async(Msg::LogStart { index, term, conf_state }).await);
    }

    /// Bytes that can be appended behind the queue, if the disk has no space for another segment; `None` otherwise.
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

/// Approximate bytes of records in the log.
pub fn bytes_of(records: &[Record]) -> u64 {
    records.iter().map(Record::size_hint).sum::<usize>() as u64
}
