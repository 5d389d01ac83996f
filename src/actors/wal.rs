//! Hosts [`crate::wal`] through [`WalFile`]: appends the batches of consensus and makes them durable, many at a time. One
//! per member, on the executor of consensus. Batches become durable in the order received; a disk error stops the member.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use futures_lite::future::or;

use super::mailbox::consensus;
use super::mailbox::wal::{Msg, Space, bytes_of};
use crate::io::WalFile;
use crate::io::clock::{self, Instant};
use crate::metrics;
use crate::types::Fault;
use crate::types::limits::WAL_WRITE_BYTES_MAX;
use crate::wal::Record;

/// Pause before the creation of the next segment is tried again after a lack of disk space.
const RETRY: Duration = Duration::from_millis(250);

struct Actor {
    inbox: flume::Receiver<Msg>,
    space: Arc<Space>,
    /// Time of the last failed attempt to create the next segment.
    tried: Instant,
}

impl Actor {
    /// The next message; `None` when all handles are dropped. While the disk has no space for the next segment, its
    /// creation is tried again at intervals.
    async fn next(&mut self, file: &mut WalFile) -> Result<Option<Msg>, Fault> {
        loop {
            let left = file.room_left()?;
            self.space.set_left(left);
            if left.is_some() && self.tried.elapsed() >= RETRY {
                self.tried = Instant::now();
                file.retry()?;
            }
            // Others learn at once that there is no room, not with the next message.
            let changed = async {
                file.room_known().await?;
                match left {
                    _ if file.room_left()? != left => (),
                    None => pending::<()>().await,
                    Some(_) => clock::sleep(RETRY).await,
                }
                Ok(None)
            };
            let message = async { Ok::<_, Fault>(Some(self.inbox.recv_async().await.ok())) };
            if let Some(message) = or(message, changed).await? {
                return Ok(message);
            }
        }
    }
}

/// Runs until all handles are dropped.
///
/// # Errors
/// The disk failed: unacknowledged batches may or may not be durable, and the member must stop.
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
        // Take all that arrived while the last write ran: load makes batches, idle makes none.
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
                // A snapshot has set a later log start already.
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
        let (began, written) = (Instant::now(), file.written_bytes());
        file.append(&records).await?;
        // The write is synchronous: it returns when it is durable.
        let took = began.elapsed().as_secs_f64();
        metrics::WAL_FSYNC.observe(took);
        metrics::WAL_WRITE.observe(took);
        metrics::WAL_BYTES.add((file.written_bytes() - written) as i64);
        records.clear();
        actor.space.dequeued(bytes);
        if let Some(number) = durable {
            consensus.persisted(number);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::mailbox::wal;
    use super::*;
    use crate::io::{Executors, Place, WalOptions};
    use crate::types::ConfState;

    /// How long a member may take to notice something without a message.
    const PATIENCE: Duration = Duration::from_secs(30);

    async fn until(is_so: impl Fn() -> bool) {
        while !is_so() {
            clock::sleep(Duration::from_millis(1)).await;
        }
    }

    #[test]
    fn missing_room_and_room_again_are_told_without_a_message() {
        use std::sync::atomic::{AtomicBool, Ordering};
        let dir = tempfile::tempdir().expect("a directory");
        let (fits, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let is_room = {
            let (fits, asked) = (Arc::clone(&fits), Arc::clone(&asked));
            move |_| {
                // The actor waits for messages by then.
                while !asked.load(Ordering::Relaxed) {
                    std::thread::yield_now();
                }
                fits.load(Ordering::Relaxed)
            }
        };
        let options = WalOptions {
            dir: dir.path().to_owned(),
            segment_bytes: 64 << 10,
            free_max: 1,
            fits: Arc::new(is_room),
            unsafe_no_fsync: true,
        };
        let run = async move || {
            let owner = Record::Metadata { cluster_id: 7, member_id: 8 };
            let log_start =
                Record::LogStart { index: 0, term: 1, conf_state: ConfState::default() };
            let mut file = WalFile::open(options, Some([owner, log_start])).await?.0;
            let (handle, inbox, space) = wal::mailbox();
            let mut actor = Actor { inbox, space, tried: Instant::now() };
            let told = async {
                clock::sleep(Duration::from_millis(10)).await;
                asked.store(true, Ordering::Relaxed);
                until(|| handle.room_left().is_some()).await;
                fits.store(true, Ordering::Relaxed);
                until(|| handle.room_left().is_none()).await;
                Ok(true)
            };
            let waits = async { actor.next(&mut file).await.map(|_| false) };
            let is_told = clock::deadline(PATIENCE, or(told, waits)).await;
            assert_eq!(is_told.transpose()?, Some(true), "nobody learns of it");
            Ok(())
        };
        let mut executors = Executors::default();
        executors.start(Place::default(), run).expect("an executor");
        executors.watch();
        executors.join().expect("it goes well");
    }
}
