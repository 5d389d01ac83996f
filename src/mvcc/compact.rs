//! Forgetting: at once for clients, slice by slice in the store.
//!
//! The walk goes through `log` from the last finished compaction (inclusive) to the new one. An event there
//! makes its key's previous version unreachable; a tombstone before the new compaction is unreachable
//! itself; one at the very revision stays, for the watch that starts there, until the next compaction comes
//! by. So the work is as large as what changed, and a walk that was cut short is simply walked again.

use std::ops::Bound;

use bytes::Bytes;

use super::Mvcc;
use super::record::Record;
use crate::store::{Overlay, Space, View};
use crate::types::{Error, Fault, Refusal, Revision};

/// etcd's meta keys.
const SCHEDULED: &[u8] = b"scheduledCompactRev";
const FINISHED: &[u8] = b"finishedCompactRev";

/// How far compaction got; −1 stands for never.
pub(super) struct Compaction {
    scheduled: i64,
    finished: i64,
    walk: Option<Walk>,
}

/// A walk on its way.
struct Walk {
    /// The revision it compacts to: what was scheduled when it set out.
    to: i64,
    /// Where it goes on.
    next: Revision,
}

impl Compaction {
    pub(super) fn open(view: &impl View) -> Result<Self, Fault> {
        let read = |key: &[u8]| -> Result<i64, Fault> {
            let stored = view.get(Space::Meta, key)?;
            let main = |bytes: Bytes| Revision::from_key(&bytes).map(|revision| revision.main);
            Ok(stored.and_then(main).unwrap_or(-1))
        };
        Ok(Self { scheduled: read(SCHEDULED)?, finished: read(FINISHED)?, walk: None })
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
        let Compaction { scheduled, finished, walk } = &mut self.compaction;
        let walk = walk.get_or_insert(Walk {
            to: *scheduled,
            next: Revision { main: (*finished).max(0), sub: 0 },
        });
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
            *finished = to;
            self.compaction.walk = None;
            note(tx, FINISHED, to);
        }
        Ok(!self.compaction_pending())
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
