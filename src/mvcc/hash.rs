//! `HashKV`: a number that is equal wherever the same history is, in etcd too.

use std::collections::BTreeSet;
use std::ops::Bound;

use bytes::Bytes;

use super::ReadView;
use super::record::{Record, tombstone_value};
use crate::store::{Space, View};
use crate::types::{Error, Fault, KeyRange, Refusal, Revision};

/// A finished hash.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KvHash {
    /// CRC-32C over etcd's `key` bucket up to `revision`.
    pub hash: u32,
    /// History up to here was gone.
    pub compact_revision: i64,
    /// The revision hashed.
    pub revision: i64,
}

/// A hash on its way. The rule (etcd's `storage/mvcc/hash.go`): entries after the revision do not count;
/// entries up to the compaction count only if they are their key's newest version at the revision and no
/// tombstone, a rule that is off if no key lives at the revision; a tombstone at the very revision of the
/// compaction never counts.
#[derive(Clone, Debug)]
pub struct HashCursor {
    revision: i64,
    compacted: i64,
    any_live: bool,
    /// Versions up to the compaction that were replaced later.
    replaced: BTreeSet<Revision>,
    pass: Pass,
    hash: u32,
}

#[derive(Clone, Copy, Debug)]
enum Pass {
    /// Looking for what was replaced, from here.
    Replaced(Revision),
    /// Adding up, from here.
    Sum(Revision),
    /// The answer was known.
    Known(KvHash),
}

/// Hashes that compactions took on their way are kept, as many as etcd keeps.
pub(super) const KEPT_MAX: usize = 10;

impl<V: View> ReadView<V> {
    /// Opens the hash at a revision, 0 for the newest; the caller steps it with this same view.
    ///
    /// # Errors
    /// The revision is compacted or in the future.
    pub fn hash_kv(&self, revision: i64) -> Result<HashCursor, Error> {
        if let Some(known) = self.hashes.iter().find(|known| known.revision == revision) {
            let pass = Pass::Known(*known);
            return Ok(HashCursor { pass, ..HashCursor::new(revision, known.compact_revision) });
        }
        if revision > 0 && revision < self.compacted {
            return Err(Refusal::Compacted.into());
        }
        if revision > self.revision {
            return Err(Refusal::FutureRev.into());
        }
        let revision = if revision <= 0 { self.revision } else { revision };
        Ok(HashCursor {
            any_live: self.source().count(&everything(), revision)? > 0,
            pass: Pass::Replaced(Revision { main: self.cleaned.max(0), sub: 0 }),
            ..HashCursor::new(revision, self.compacted)
        })
    }
}

impl HashCursor {
    fn new(revision: i64, compacted: i64) -> Self {
        Self {
            revision,
            compacted,
            any_live: true,
            replaced: BTreeSet::new(),
            pass: Pass::Sum(Revision::default()),
            hash: crc32c::crc32c(b"key"),
        }
    }

    /// The hash that the compaction to `revision` takes, which follows one to `compacted` that is done.
    /// `any_kept` says whether it keeps anything: a live key, or a tombstone at its very revision.
    pub(super) fn of_compaction(revision: i64, compacted: i64, any_kept: bool) -> Self {
        let pass = Pass::Replaced(Revision { main: compacted.max(0), sub: 0 });
        Self { any_live: any_kept, pass, ..Self::new(revision, compacted) }
    }

    /// Looks at up to `budget` entries; the hash when there are no more.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn step(&mut self, view: &impl View, budget: usize) -> Result<Option<KvHash>, Fault> {
        let from = match self.pass {
            Pass::Replaced(from) | Pass::Sum(from) => from,
            Pass::Known(known) => return Ok(Some(known)),
        };
        let end = Revision { main: self.revision + 1, sub: 0 }.to_key();
        let start = from.to_key();
        let mut entries =
            view.scan(Space::Log, Bound::Included(&start), Bound::Excluded(&end)).take(budget);
        let mut seen = 0;
        let mut next = from;
        entries.try_for_each(|pair| {
            let (key, bytes) = pair?;
            let at =
                Revision::from_key(&key).ok_or_else(|| Fault::new("a log key is no revision"))?;
            (seen, next) = (seen + 1, Revision { main: at.main, sub: at.sub + 1 });
            self.look(at, &Record::parse(bytes)?);
            Ok::<_, Fault>(())
        })?;
        self.pass = match self.pass {
            Pass::Replaced(_) if seen < budget => Pass::Sum(Revision::default()),
            Pass::Replaced(_) => Pass::Replaced(next),
            Pass::Sum(_) if seen < budget => return Ok(Some(self.finish())),
            Pass::Sum(_) => Pass::Sum(next),
            known @ Pass::Known(_) => known,
        };
        Ok(None)
    }

    fn look(&mut self, at: Revision, record: &Record) {
        match self.pass {
            Pass::Replaced(_) => {
                let replaced = record.previous.filter(|link| link.main <= self.compacted);
                self.replaced.extend(replaced);
            }
            Pass::Sum(_) if self.counts(at, record) => self.add(at, record),
            Pass::Sum(_) | Pass::Known(_) => (),
        }
    }

    fn counts(&self, at: Revision, record: &Record) -> bool {
        if at.main > self.compacted {
            return true;
        }
        if record.tombstone && at.main == self.compacted {
            return false;
        }
        !self.any_live || (!record.tombstone && !self.replaced.contains(&at))
    }

    fn add(&mut self, at: Revision, record: &Record) {
        self.hash = crc32c::crc32c_append(self.hash, &at.to_key());
        if record.tombstone {
            self.hash = crc32c::crc32c_append(self.hash, b"t");
            self.hash = crc32c::crc32c_append(self.hash, &tombstone_value(&record.key()));
        } else {
            self.hash = crc32c::crc32c_append(self.hash, &record.kv());
        }
    }

    fn finish(&self) -> KvHash {
        KvHash { hash: self.hash, compact_revision: self.compacted, revision: self.revision }
    }
}

/// Every key.
pub(super) fn everything() -> KeyRange {
    KeyRange::From(Bytes::from_static(&[0]))
}
