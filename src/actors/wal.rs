//! Hosts [`crate::wal`] through [`WalFile`]: appends what consensus asks and makes it durable, many
//! batches at a time. One per member, on the executor of consensus. Batches become durable in the order
//! received; a disk error stops the member.

use std::sync::Arc;
use std::time::Duration;

use super::mailbox::consensus;
use super::mailbox::wal::{Msg, Space, bytes_of};
use crate::io::WalFile;
use crate::io::clock::{self, Instant};
use crate::metrics;
use crate::types::Fault;
use crate::types::limits::WAL_WRITE_BYTES_MAX;
use crate::wal::Record;

/// How often the next segment is tried again that the disk had no room for.
const RETRY: Duration = Duration::from_millis(250);

struct Actor {
    inbox: flume::Receiver<Msg>,
    space: Arc<Space>,
    /// When the next segment was last tried that the disk had no room for.
    tried: Instant,
}

impl Actor {
    /// The next message; `None` when all handles are gone. While the disk has no room for the next segment, that is
    /// tried now and then.
    async fn next(&mut self, file: &mut WalFile) -> Result<Option<Msg>, Fault> {
        loop {
            let left = file.room_left()?;
            self.space.set_left(left);
            if left.is_none() {
                return Ok(self.inbox.recv_async().await.ok());
            }
            if self.tried.elapsed() >= RETRY {
                self.tried = Instant::now();
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
    inbox: flume::Receiver<Msg>,
    space: Arc<Space>,
    consensus: consensus::Handle,
) -> Result<(), Fault> {
    let mut actor = Actor { inbox, space, tried: Instant::now() };
    let mut records = Vec::new();
    let mut log_start_index = 0;
    while let Some(first) = actor.next(&mut file).await? {
        let mut next = Some(first);
        let mut durable = None;
        let mut bytes = 0;
        // Take all that waited while the last write ran: load makes batches, idle makes none.
        while let Some(msg) = next {
            match msg {
                Msg::Persist { number, records: batch } => {
                    durable = Some(number);
                    bytes += bytes_of(&batch);
                    log_start_index = batch.iter().fold(
                        log_start_index,
                        |log_start_index, record| match record {
                            Record::LogStart { index, .. } => log_start_index.max(*index),
                            Record::Entry(_) | Record::Metadata { .. } | Record::HardState(_) => {
                                log_start_index
                            }
                        },
                    );
                    records.extend(batch);
                }
                // A snapshot was faster.
                Msg::LogStart { index, .. } if index < log_start_index => (),
                Msg::LogStart { index, term, conf_state } => {
                    log_start_index = index;
                    records.push(Record::LogStart { index, term, conf_state });
                }
            }
            next =
                if bytes < WAL_WRITE_BYTES_MAX as u64 { actor.inbox.try_recv().ok() } else { None };
        }
        if records.is_empty() && durable.is_none() {
            continue;
        }
        let began = Instant::now();
        file.append(&records).await?;
        // One write is both: it returns when it is durable.
        let took = began.elapsed().as_secs_f64();
        metrics::WAL_FSYNC.observe(took);
        metrics::WAL_WRITE.observe(took);
        metrics::WAL_BYTES.add(bytes as i64);
        records.clear();
        actor.space.dequeued(bytes);
        if let Some(number) = durable {
            consensus.persisted(number);
        }
    }
    Ok(())
}
