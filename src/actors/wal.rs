//! Hosts [`crate::wal`] through [`WalFile`]: appends what consensus asks and makes it durable, many
//! batches at a time. One per member, on the executor of consensus. Batches become durable in the order
//! received; a disk error stops the member.

use crate::consensus::ReadyNumber;
use crate::io::WalFile;
use crate::io::clock::Moment;
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

/// Cheap to clone.
#[derive(Clone)]
pub struct Handle(flume::Sender<Msg>);

impl Handle {
    /// Queues a batch; waits while too many are in flight.
    pub async fn persist(&self, number: ReadyNumber, records: Vec<Record>) {
        // Fails only when the actor is gone, and then so is the member.
        drop(self.0.send_async(Msg::Persist { number, records }).await);
    }

    /// Lets the log below `index` go.
    pub async fn mark(&self, index: LogIndex, term: Term, conf_state: ConfState) {
        drop(self.0.send_async(Msg::Mark { index, term, conf_state }).await);
    }
}

/// The actor's mailbox.
pub fn mailbox() -> (Handle, flume::Receiver<Msg>) {
    let (sender, receiver) = flume::bounded(WAL_MAILBOX);
    (Handle(sender), receiver)
}

/// Serves until all handles are gone.
///
/// # Errors
/// The disk failed: what was asked for may or may not be on it, and the member must stop.
pub async fn run(
    mut file: WalFile,
    inbox: flume::Receiver<Msg>,
    consensus: consensus::Handle,
) -> Result<(), Fault> {
    let mut records = Vec::new();
    let mut marked = 0;
    while let Ok(first) = inbox.recv_async().await {
        let mut next = Some(first);
        let mut durable = None;
        let mut bytes = 0;
        // Take all that waited while the last write ran: load makes batches, idle makes none.
        while let Some(msg) = next {
            match msg {
                Msg::Persist { number, records: batch } => {
                    durable = Some(number);
                    bytes += batch.iter().map(Record::size_hint).sum::<usize>();
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
            next = if bytes < WAL_WRITE_BYTES_MAX { inbox.try_recv().ok() } else { None };
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
        if let Some(number) = durable {
            consensus.persisted(number);
        }
    }
    Ok(())
}
