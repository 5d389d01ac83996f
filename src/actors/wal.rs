//! Hosts [`crate::wal`] through [`WalFile`]: appends what consensus asks and makes it durable, many
//! batches at a time. One per member, on the executor of consensus. Batches become durable in the order
//! received; a disk error stops the member.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::consensus::ReadyNumber;
use crate::io::WalFile;
use crate::io::clock::{self, Moment};
use crate::metrics;
use crate::types::limits::{WAL_MAILBOX, WAL_WRITE_BYTES_MAX};
use crate::types::{ConfState, Fault, LogIndex, Term};
use crate::wal::Record;

use super::consensus;

/// What the actor can be asked.
pub enum Msg {
    /// Answered by [`consensus::Msg::Persisted`]. Consensus waits if the mailbox is full.
    Persist {
        /// To answer with.
        number: ReadyNumber,
        /// To append.
        records: Vec<Record>,
    },
    /// The store holds everything up to here on disk: the log below may go.
    Mark {
        /// Up to and including this entry.
        index: LogIndex,
        /// Its term.
        term: Term,
        /// The members as of this entry.
        conf_state: ConfState,
    },
}

/// How often the next segment is tried again that the disk had no room for.
const RETRY: Duration = Duration::from_millis(250);

/// Cheap to clone.
#[derive(Clone)]
pub struct Handle {
    inbox: flume::Sender<Msg>,
    room: Arc<Room>,
}

/// What can still be appended. Written by the actor and its handles, read by any.
struct Room {
    /// Bytes that fit behind what is on disk; [`PLENTY`] while there is a next segment.
    left: AtomicU64,
    /// Bytes that wait to be appended.
    queued: AtomicU64,
}

/// More than anybody asks for.
const PLENTY: u64 = u64::MAX;

impl Handle {
    /// Queues a batch; waits while too many are in flight.
    pub async fn persist(&self, number: ReadyNumber, records: Vec<Record>) {
        self.room.queued.fetch_add(bytes_of(&records), Ordering::Relaxed);
        // Fails only when the actor is gone, and then so is the member.
        drop(self.inbox.send_async(Msg::Persist { number, records }).await);
    }

    /// Lets the log below `index` go.
    pub async fn mark(&self, index: LogIndex, term: Term, conf_state: ConfState) {
        drop(self.inbox.send_async(Msg::Mark { index, term, conf_state }).await);
    }

    /// Bytes that can be appended behind all that waits, if the disk has no room for another segment.
    pub(super) fn room_left(&self) -> Option<u64> {
        let left = self.room.left.load(Ordering::Relaxed);
        (left < PLENTY).then(|| left.saturating_sub(self.room.queued.load(Ordering::Relaxed)))
    }
}

/// What the actor serves.
pub struct Inbox {
    inbox: flume::Receiver<Msg>,
    room: Arc<Room>,
    /// When the next segment was last tried that the disk had no room for.
    tried: Moment,
}

/// The actor's mailbox.
pub fn mailbox() -> (Handle, Inbox) {
    let (sender, inbox) = flume::bounded(WAL_MAILBOX);
    let room = Arc::new(Room { left: AtomicU64::new(PLENTY), queued: AtomicU64::new(0) });
    (Handle { inbox: sender, room: Arc::clone(&room) }, Inbox { inbox, room, tried: Moment::now() })
}

fn bytes_of(records: &[Record]) -> u64 {
    records.iter().map(Record::size_hint).sum::<usize>() as u64
}

impl Inbox {
    /// The next message; `None` when all handles are gone. While the disk has no room for the next segment, that is
    /// tried now and then.
    async fn next(&mut self, file: &mut WalFile) -> Result<Option<Msg>, Fault> {
        loop {
            let left = file.room_left()?;
            self.room.left.store(left.unwrap_or(PLENTY), Ordering::Relaxed);
            if left.is_none() {
                return Ok(self.inbox.recv_async().await.ok());
            }
            if self.tried.elapsed() >= RETRY {
                self.tried = Moment::now();
                file.retry()?;
            }
            if let Some(msg) = clock::deadline(RETRY, self.inbox.recv_async()).await {
                return Ok(msg.ok());
            }
        }
    }
}

/// Serves until all handles are gone.
///
/// # Errors
/// The disk failed: what was asked for may or may not be on it, and the member must stop.
pub async fn run(
    mut file: WalFile,
    mut inbox: Inbox,
    consensus: consensus::Handle,
) -> Result<(), Fault> {
    let mut records = Vec::new();
    let mut marked = 0;
    while let Some(first) = inbox.next(&mut file).await? {
        let mut next = Some(first);
        let mut durable = None;
        let mut bytes = 0;
        // Take all that waited while the last write ran: load makes batches, idle makes none.
        while let Some(msg) = next {
            match msg {
                Msg::Persist { number, records: batch } => {
                    durable = Some(number);
                    bytes += bytes_of(&batch);
                    marked = batch.iter().fold(marked, |marked, record| match record {
                        Record::Mark { index, .. } => marked.max(*index),
                        Record::Entry(_) | Record::Metadata { .. } | Record::HardState(_) => marked,
                    });
                    records.extend(batch);
                }
                // A snapshot was faster.
                Msg::Mark { index, .. } if index < marked => (),
                Msg::Mark { index, term, conf_state } => {
                    marked = index;
                    records.push(Record::Mark { index, term, conf_state });
                }
            }
            next =
                if bytes < WAL_WRITE_BYTES_MAX as u64 { inbox.inbox.try_recv().ok() } else { None };
        }
        if records.is_empty() && durable.is_none() {
            continue;
        }
        let began = Moment::now();
        file.append(&records).await?;
        // One write is both: it returns when it is durable.
        let took = began.elapsed().as_secs_f64();
        metrics::WAL_FSYNC.observe(took);
        metrics::WAL_WRITE.observe(took);
        metrics::WAL_BYTES.add(bytes as i64);
        records.clear();
        inbox.room.queued.fetch_sub(bytes, Ordering::Relaxed);
        if let Some(number) = durable {
            consensus.persisted(number);
        }
    }
    Ok(())
}
