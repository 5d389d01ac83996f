//! Compaction: takes effect at once for readers, and frees space in slices between applies.
//!
//! A pass walks only the part of `log` between the last compaction, inclusive, and the new one. An
//! event there makes its predecessor unreachable; a tombstone before the new one is unreachable itself,
//! and if it is its key's newest record, so is that. A tombstone exactly at the compaction stays until
//! the next one, since watchers may still start there. Progress commits with the slice's deletes.

use std::ops::Bound;

use bytes::Bytes;

use super::bucket_hash::{BucketHash, CompactionHash};
use super::record::{Record, Replaced};
use super::versions;
use super::{Mvcc, log_revision};
use crate::store::{Overlay, Space, View};
use crate::types::{Error, Fault, Refusal, Revision};

/// `Meta`, as in etcd: the newest requested compaction.
const SCHEDULED_KEY: &[u8] = b"scheduledCompactRev";
/// `Meta`, as in etcd: the compaction whose pass has ended.
const FINISHED_KEY: &[u8] = b"finishedCompactRev";
/// `Meta`: position of the pass in progress.
const PROGRESS_KEY: &[u8] = b"compactProgress";

/// The compacted revision of a store that was never compacted.
const NEVER: i64 = -1;

/// A pass in progress.
#[derive(Clone, Debug)]
pub(super) struct Pass {
    /// The compaction revision at which it ends.
    target: i64,
    /// The position at which it continues.
    next: Revision,
    /// The first event that no pass has read: the predecessors of earlier events are removed already, and must be
    /// removed and subtracted once only.
    fresh: Revision,
    /// The hash of the events that it reads; `None` if it did not read all of them.
    hash: Option<PassHash>,
}

#[derive(Clone, Copy, Debug)]
struct PassHash {
    previous: i64,
    stretch: BucketHash,
}

/// Reads the compaction revision, -1 if there is none, and a pass that was interrupted.
pub(super) fn open(view: &impl View) -> Result<(i64, Option<Pass>), Fault> {
    let finished = finished(view)?;
    let scheduled = read_revision(view, SCHEDULED_KEY)?.map_or(NEVER, |revision| revision.main);
    if scheduled <= finished {
        return Ok((finished, None));
    }
    let (next, fresh) = progress(view, finished)?;
    Ok((scheduled, Some(Pass { target: scheduled, next, fresh, hash: None })))
}

/// The newest compaction whose pass has ended, -1 if there is none.
pub(super) fn finished(view: &impl View) -> Result<i64, Fault> {
    Ok(read_revision(view, FINISHED_KEY)?.map_or(NEVER, |revision| revision.main))
}

fn start(finished: i64) -> Revision {
    Revision { main: finished.max(0), sub: 0 }
}

fn fresh(finished: i64) -> Revision {
    Revision { main: finished + 1, sub: 0 }
}

/// `next` and `fresh` of the pass in progress. Earlier versions wrote the first alone.
fn progress(view: &impl View, finished: i64) -> Result<(Revision, Revision), Fault> {
    let Some(bytes) = view.get(Space::Meta, PROGRESS_KEY)? else {
        return Ok((start(finished), fresh(finished)));
    };
    let (next, behind) = bytes.split_at(bytes.len().min(Revision::KEY_LENGTH));
    let fresh = if behind.is_empty() { fresh(finished) } else { log_revision(behind)? };
    Ok((log_revision(next)?, fresh))
}

fn write_progress<V: View>(tx: &mut Overlay<V>, pass: &Pass) {
    let places = Bytes::from([pass.next.to_key(), pass.fresh.to_key()].concat());
    tx.put(Space::Meta, Bytes::from_static(PROGRESS_KEY), places);
}

fn read_revision(view: &impl View, key: &[u8]) -> Result<Option<Revision>, Fault> {
    view.get(Space::Meta, key)?.map(|bytes| log_revision(&bytes)).transpose()
}

fn write_revision<V: View>(tx: &mut Overlay<V>, key: &'static [u8], revision: Revision) {
    tx.put(Space::Meta, Bytes::from_static(key), Bytes::copy_from_slice(&revision.to_key()));
}

impl Mvcc {
    /// Compacts at `revision`: older revisions can no longer be read. Space is freed by [`Mvcc::compact_step`].
    ///
    /// # Errors
    /// `Compacted` if it is not newer than the last compaction, `FutureRev` if the revision does not exist yet.
    pub fn compact<V: View>(&mut self, tx: &mut Overlay<V>, revision: i64) -> Result<(), Error> {
        if revision <= self.compacted {
            return Err(Refusal::Compacted.into());
        }
        if revision > self.revision {
            return Err(Refusal::FutureRev.into());
        }
        write_revision(tx, SCHEDULED_KEY, Revision { main: revision, sub: 0 });
        let previous = std::mem::replace(&mut self.compacted, revision);
        self.pass = Some(match self.pass.take() {
            Some(pass) => {
                // Tombstones at the old target were kept, and have to be removed now.
                let next = pass.next.min(start(pass.target));
                let fresh = pass.fresh.max(pass.next);
                let pass = Pass { target: revision, next, fresh, hash: None };
                write_progress(tx, &pass);
                pass
            }
            None => Pass {
                target: revision,
                next: start(previous),
                fresh: fresh(previous),
                hash: Some(PassHash { previous, stretch: BucketHash::default() }),
            },
        });
        Ok(())
    }

    /// Removes versions that can no longer be read, reading at most `budget` events; returns true when all are removed.
    ///
    /// # Errors
    /// A fault of the store.
    pub fn compact_step<V: View>(
        &mut self,
        tx: &mut Overlay<V>,
        budget: usize,
    ) -> Result<bool, Fault> {
        let Some(mut pass) = self.pass.take() else { return Ok(true) };
        let from = pass.next.to_key();
        let to = Revision { main: pass.target + 1, sub: 0 }.to_key();
        let events = tx.scan(Space::Log, Bound::Included(&from), Bound::Excluded(&to));
        let slice: Vec<_> = events.take(budget).collect::<Result<_, _>>()?;
        let done = slice.len() < budget;
        for (key, record) in slice {
            let revision = log_revision(&key)?;
            self.compact_event(tx, &mut pass, revision, &Record::new(record)?)?;
            pass.next = Revision { sub: revision.sub + 1, ..revision };
        }
        if done {
            self.finish(tx, &pass)?;
        } else {
            write_progress(tx, &pass);
            self.pass = Some(pass);
        }
        Ok(done)
    }

    fn compact_event<V: View>(
        &mut self,
        tx: &mut Overlay<V>,
        pass: &mut Pass,
        revision: Revision,
        record: &Record,
    ) -> Result<(), Fault> {
        if let Some(hash) = &mut pass.hash
            && revision.main > hash.previous
        {
            hash.stretch.write(revision, record)?;
        }
        if let Some(previous) = record.previous()?.filter(|_| revision >= pass.fresh)
            // A tombstone before the target is removed when the pass reaches it.
            && !(record.is_creation() && previous.main < pass.target)
        {
            self.remove_replaced(tx, previous, record)?;
        }
        if record.is_tombstone() && revision.main < pass.target {
            tx.delete(Space::Log, Bytes::copy_from_slice(&revision.to_key()));
            self.usage.remove(record.item_bytes()?);
            self.changes.compacted += 1;
            let key = record.key()?;
            let newest = versions::newest(&self.pending(tx), &key)?;
            if newest.as_ref() == Some(record) {
                tx.delete(Space::Kv, key.clone());
                self.count_index.note_removal(tx, &key)?;
                self.written.push((key, None));
            }
        }
        Ok(())
    }

    /// Removes the version that `record` replaced, wherever it is stored.
    fn remove_replaced<V: View>(
        &mut self,
        tx: &mut Overlay<V>,
        previous: Revision,
        record: &Record,
    ) -> Result<(), Fault> {
        let key = Bytes::copy_from_slice(&previous.to_key());
        let replaced = match record.replaced()? {
            Some(replaced) => replaced,
            None => match versions::logged(tx, previous)? {
                Some(older) => Replaced { item_bytes: older.item_bytes()?, superseded: false },
                None => return Ok(()),
            },
        };
        self.usage.remove(replaced.item_bytes);
        self.changes.compacted += 1;
        if replaced.superseded {
            tx.delete(Space::Superseded, key.clone());
        }
        tx.delete(Space::Log, key);
        Ok(())
    }

    fn finish<V: View>(&mut self, tx: &mut Overlay<V>, pass: &Pass) -> Result<(), Fault> {
        write_revision(tx, FINISHED_KEY, Revision { main: pass.target, sub: 0 });
        tx.delete(Space::Meta, Bytes::from_static(PROGRESS_KEY));
        self.compaction_hash = None;
        let Some(hash) = &pass.hash else { return Ok(()) };
        // If the compaction leaves nothing, etcd also hashes the versions before the last compaction that it removes;
        // the pass does not read those, so there is no such hash then.
        let end = Revision { main: pass.target + 1, sub: 0 }.to_key();
        let mut left = tx.scan(Space::Log, Bound::Unbounded, Bound::Excluded(&end));
        if hash.previous <= 1 || left.next().transpose()?.is_some() {
            let PassHash { previous, stretch } = *hash;
            self.compaction_hash =
                Some(CompactionHash { previous, revision: pass.target, stretch });
        }
        Ok(())
    }
}
