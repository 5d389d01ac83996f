//! Forgetting: at once for clients, slice by slice in the store.
//!
//! The walk goes through `log` from the last finished compaction (inclusive) to the new one. An event there
//! makes its key's previous version unreachable; a tombstone before the new compaction is unreachable
//! itself; one at the very revision stays, for the watch that starts there, until the next compaction comes
//! by. So the work is as large as what changed, and a walk that was cut short is simply walked again.

use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;

use super::Mvcc;
use super::hash::{HashCursor, KEPT_MAX, KvHash, everything};
use super::record::Record;
use crate::store::{Overlay, Space, View};
use crate::types::{Error, Fault, Refusal, Revision};

/// etcd's meta keys.
const SCHEDULED: &[u8] = b"scheduledCompactRev";
const FINISHED: &[u8] = b"finishedCompactRev";

/// How far compaction got; −1 stands for never.
pub(super) struct Compaction {
    scheduled: i64,
    pub(super) finished: i64,
    walk: Option<Walk>,
    /// The hash of a compaction is only kept if the one before it was done when it was asked for.
    hash_wanted: bool,
    pub(super) hashes: Arc<Vec<KvHash>>,
}

/// A walk on its way.
struct Walk {
    /// The revision it compacts to: what was scheduled when it set out.
    to: i64,
    /// Where it goes on.
    next: Revision,
    /// The hash to take before anything goes.
    hash: Option<HashCursor>,
}

impl Compaction {
    pub(super) fn open(view: &impl View) -> Result<Self, Fault> {
        let read = |key: &[u8]| -> Result<i64, Fault> {
            let stored = view.get(Space::Meta, key)?;
            let main = |bytes: Bytes| Revision::from_key(&bytes).map(|revision| revision.main);
            Ok(stored.and_then(main).unwrap_or(-1))
        };
        Ok(Self {
            scheduled: read(SCHEDULED)?,
            finished: read(FINISHED)?,
            walk: None,
            hash_wanted: false,
            hashes: Arc::default(),
        })
    }

    pub(super) fn scheduled(&self) -> i64 {
        self.scheduled
    }
}

fn note<V: View>(tx: &mut Overlay<V>, key: &'static [u8], main: i64) {
    let value = Bytes::copy_from_slice(&Revision { main, sub: 0 }.to_key());
    tx.put(Space::Meta, Bytes::from_static(key), value);
}

impl Mvcc {
    /// Forgets history before `revision`, for readers at once.
    ///
    /// # Errors
    /// It is forgotten already, or lies in the future.
    pub fn compact<V: View>(&mut self, tx: &mut Overlay<V>, revision: i64) -> Result<(), Error> {
        if revision <= self.compacted {
            return Err(Refusal::Compacted.into());
        }
        if revision > self.revision {
            return Err(Refusal::FutureRev.into());
        }
        self.compaction.hash_wanted = !self.compaction_pending();
        self.compacted = revision;
        self.compaction.scheduled = revision;
        note(tx, SCHEDULED, revision);
        Ok(())
    }

    /// Whether the store still holds what is forgotten.
    pub fn compaction_pending(&self) -> bool {
        self.compaction.finished < self.compaction.scheduled
    }

    /// Looks at up to `budget` entries of history and takes from the store what they make unreachable.
    /// `true` when nothing is left to do.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn compact_step<V: View>(
        &mut self,
        tx: &mut Overlay<V>,
        budget: usize,
    ) -> Result<bool, Fault> {
        if !self.compaction_pending() {
            return Ok(true);
        }
        let mut walk = match self.compaction.walk.take() {
            Some(walk) => walk,
            None => self.set_out(tx)?,
        };
        if let Some(cursor) = &mut walk.hash {
            if let Some(hash) = cursor.step(tx, budget)? {
                self.keep_hash(hash);
                walk.hash = None;
            }
            self.compaction.walk = Some(walk);
            return Ok(false);
        }
        let end = Revision { main: walk.to + 1, sub: 0 }.to_key();
        let start = walk.next.to_key();
        let bounds = (Bound::Included(&start[..]), Bound::Excluded(&end[..]));
        let slice: Vec<_> =
            tx.scan(Space::Log, bounds.0, bounds.1).take(budget).collect::<Result<_, _>>()?;
        let (to, ended) = (walk.to, slice.len() < budget);
        for (key, bytes) in slice {
            let record = Record::parse(bytes)?;
            let at = record.at();
            walk.next = Revision { main: at.main, sub: at.sub + 1 };
            forget(tx, &key, &record, to)?;
        }
        if ended {
            self.compaction.finished = to;
            note(tx, FINISHED, to);
        } else {
            self.compaction.walk = Some(walk);
        }
        Ok(!self.compaction_pending())
    }

    /// A walk to what is scheduled now.
    fn set_out<V: View>(&mut self, tx: &Overlay<V>) -> Result<Walk, Fault> {
        let Compaction { scheduled: to, finished, hash_wanted, .. } = self.compaction;
        let hash = if hash_wanted {
            let start = Revision { main: to, sub: 0 }.to_key();
            let end = Revision { main: to + 1, sub: 0 }.to_key();
            let last = tx.scan(Space::Log, Bound::Included(&start), Bound::Excluded(&end));
            let mut tombstone_at_end = false;
            for pair in last {
                tombstone_at_end |= Record::parse(pair?.1)?.tombstone;
            }
            let any_live = self.source(tx).count(&everything(), to)? > 0;
            Some(HashCursor::of_compaction(to, finished, any_live || tombstone_at_end))
        } else {
            None
        };
        self.compaction.hash_wanted = false;
        Ok(Walk { to, next: Revision { main: finished.max(0), sub: 0 }, hash })
    }

    fn keep_hash(&mut self, hash: KvHash) {
        let hashes = Arc::make_mut(&mut self.compaction.hashes);
        hashes.push(hash);
        let surplus = hashes.len().saturating_sub(KEPT_MAX);
        hashes.drain(..surplus);
    }
}

/// Takes away what an event at or before the compaction to `to` makes unreachable.
fn forget<V: View>(
    tx: &mut Overlay<V>,
    log_key: &Bytes,
    record: &Record,
    to: i64,
) -> Result<(), Fault> {
    if let Some(previous) = record.previous {
        tx.delete(Space::Log, Bytes::copy_from_slice(&previous.to_key()));
    }
    if !record.tombstone || record.modified == to {
        return Ok(());
    }
    tx.delete(Space::Log, log_key.clone());
    let key = record.key();
    let newest = tx.get(Space::Kv, &key)?.map(Record::parse).transpose()?;
    if newest.is_some_and(|newest| newest.tombstone && newest.modified == record.modified) {
        tx.delete(Space::Kv, key);
    }
    Ok(())
}
