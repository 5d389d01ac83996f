//! `HashKV`: a number that is equal wherever the same history is, in etcd too.

use std::collections::BTreeSet;
use std::ops::Bound;

use super::ReadView;
use super::record::{Record, tombstone_value};
use crate::store::{Space, View};
use crate::types::{Error, Fault, Refusal, Revision};

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
}

impl<V: View> ReadView<V> {
    /// Opens the hash at a revision, 0 for the newest; the caller steps it with this same view.
    ///
    /// # Errors
    /// The revision is compacted or in the future.
    pub fn hash_kv(&self, revision: i64) -> Result<HashCursor, Error> {
        if revision > self.revision {
            return Err(Refusal::FutureRev.into());
        }
        if revision > 0 && revision < self.compacted {
            return Err(Refusal::Compacted.into());
        }
        let revision = if revision == 0 { self.revision } else { revision };
        let everything = crate::types::KeyRange::From(bytes::Bytes::from_static(&[0]));
        Ok(HashCursor {
            revision,
            compacted: self.compacted,
            any_live: self.source().count(&everything, revision)? > 0,
            replaced: BTreeSet::new(),
            pass: Pass::Replaced(Revision::default()),
            hash: crc32c::crc32c(b"key"),
        })
    }
}

impl HashCursor {
    /// Looks at up to `budget` entries; the hash when there are no more.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn step<V: View>(
        &mut self,
        view: &ReadView<V>,
        budget: usize,
    ) -> Result<Option<KvHash>, Fault> {
        let from = match self.pass {
            Pass::Replaced(from) | Pass::Sum(from) => from,
        };
        let end = Revision { main: self.revision + 1, sub: 0 }.to_key();
        let start = from.to_key();
        let mut entries =
            view.view.scan(Space::Log, Bound::Included(&start), Bound::Excluded(&end)).take(budget);
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
            Pass::Sum(_) => (),
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
