//! `HashKV`: the same number as etcd for the same history, which verifies a migration.
//!
//! etcd hashes its bucket `key` in order: every event, as 17-byte revision (and `t` for a tombstone) and encoded
//! `KeyValue`. `log` holds the same events. Up to the compacted revision C, etcd counts only a key's newest version at
//! the hash's revision R, unless it is a tombstone; but if no key exists at R, it counts all versions that a compaction
//! at C keeps. A tombstone at C is never counted.
//!
//! ```text
//!        finished F              C                     R
//!  log ──────┼───────────────────┼─────────────────────┼──────►
//!            └ first pass: what is superseded here ────┘
//!  └───────────────── second pass: hashed ─────────────┘
//! ```

use std::ops::Bound;

use super::bucket_hash::{BucketHash, CompactionHash};
use super::compaction;
use super::record::Record;
use super::versions;
use super::{ReadView, log_revision};
use crate::store::{Pair, Space, View};
use crate::types::{Error, Fault, Refusal, Revision};

/// The name of etcd's bucket, with which its hash starts.
const BUCKET: &[u8] = b"key";

/// The answer to `HashKV`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KvHash {
    /// The checksum.
    pub hash: u32,
    /// The compaction revision that the hash covers; -1 for none.
    pub compact_revision: i64,
    /// The revision up to which it was computed.
    pub revision: i64,
}

/// A hash being computed in steps.
#[derive(Clone, Debug)]
pub struct HashCursor {
    revision: i64,
    compacted: i64,
    /// Set if the hash can end at the compaction, whose own hash is known.
    compaction: Option<CompactionHash>,
    stage: Stage,
    /// Versions that the compaction at C supersedes and that may still be in `log`.
    before_compaction: Vec<Revision>,
    /// Versions up to C that are superseded between C and R.
    since_compaction: Vec<Revision>,
    /// The hash if a key exists at R, and the hash if none does.
    alive: BucketHash,
    none_alive: BucketHash,
    /// Number of keys at R, as far as known.
    keys: i64,
}

#[derive(Clone, Copy, Debug)]
enum Stage {
    /// First pass: superseded versions are collected, from this revision on.
    Find(Revision),
    /// Second pass: events are hashed, from this revision on.
    Hash(Revision),
}

impl<V: View> ReadView<V> {
    /// Starts to compute the hash at `revision`, 0 for the newest. At the newest compaction's own revision it is, as in
    /// etcd, the hash that this compaction stored: with the previous one as its compacted revision.
    /// compacted revision.
    ///
    /// # Errors
    /// `Compacted`, `FutureRev`, or a fault of the store.
    pub fn hash_kv(&self, revision: i64) -> Result<HashCursor, Error> {
        let compaction = self.compaction_hash.filter(|hash| hash.revision == revision);
        if compaction.is_none() {
            self.check_hash_revision(revision)?;
        }
        let finished = compaction::finished(&self.view)?;
        let mut start = BucketHash::default();
        start.bytes(BUCKET);
        Ok(HashCursor {
            revision: if revision == 0 && compaction.is_none() { self.revision } else { revision },
            compacted: compaction.map_or(self.compacted, |hash| hash.previous),
            compaction,
            stage: match compaction {
                Some(_) => Stage::Hash(Revision::default()),
                None => Stage::Find(Revision { main: finished.max(0) + 1, sub: 0 }),
            },
            before_compaction: Vec::new(),
            since_compaction: Vec::new(),
            alive: start,
            none_alive: start,
            keys: 0,
        })
    }

    fn check_hash_revision(&self, revision: i64) -> Result<(), Refusal> {
        match revision {
            // etcd treats a negative revision as one before all history.
            ..=0 => Ok(()),
            past if past < self.compacted => Err(Refusal::Compacted),
            future if future > self.revision => Err(Refusal::FutureRev),
            _ => Ok(()),
        }
    }
}

impl HashCursor {
    /// Continues, reading at most `budget` events; `None` if there is more to do. `view` must be that of the
    /// [`ReadView`] that made the cursor.
    ///
    /// # Errors
    /// A fault of the store.
    pub fn step(&mut self, view: &impl View, budget: usize) -> Result<Option<KvHash>, Fault> {
        let (Stage::Find(from) | Stage::Hash(from)) = self.stage;
        // Without later events to read, the compaction's own hash needs the events before it.
        let last = if self.compaction.is_some() { self.compacted } else { self.revision };
        let end = Revision { main: last.max(-1) + 1, sub: 0 }.to_key();
        let start = from.to_key().min(end);
        let mut next = from;
        let mut scanned = 0;
        for pair in
            view.scan(Space::Log, Bound::Included(&start), Bound::Excluded(&end)).take(budget)
        {
            let revision = self.event(view, pair)?;
            next = Revision { sub: revision.sub + 1, ..revision };
            scanned += 1;
        }
        match self.stage {
            Stage::Find(_) if scanned == budget => self.stage = Stage::Find(next),
            Stage::Find(_) => {
                self.before_compaction.sort_unstable();
                self.since_compaction.sort_unstable();
                self.stage = Stage::Hash(Revision::default());
            }
            Stage::Hash(_) if scanned == budget => self.stage = Stage::Hash(next),
            Stage::Hash(_) => return Ok(Some(self.finish())),
        }
        Ok(None)
    }

    fn event(&mut self, view: &impl View, pair: Result<Pair, Fault>) -> Result<Revision, Fault> {
        let (key, record) = pair?;
        let revision = log_revision(&key)?;
        let record = Record::new(record)?;
        match self.stage {
            Stage::Find(_) => self.find(revision, &record)?,
            Stage::Hash(_) => self.hash(view, revision, record)?,
        }
        Ok(revision)
    }

    fn find(&mut self, revision: Revision, record: &Record) -> Result<(), Fault> {
        if let Some(previous) =
            record.previous()?.filter(|previous| previous.main <= self.compacted)
        {
            if revision.main <= self.compacted {
                self.before_compaction.push(previous);
            } else {
                self.since_compaction.push(previous);
            }
        }
        Ok(())
    }

    fn hash(&mut self, view: &impl View, revision: Revision, record: Record) -> Result<(), Fault> {
        if revision.main > self.compacted {
            let record = &versions::whole(view, record)?;
            self.keys += i64::from(record.is_creation()) - i64::from(record.is_tombstone());
            self.alive.write(revision, record)?;
            return self.none_alive.write(revision, record);
        }
        if record.is_tombstone() || self.before_compaction.binary_search(&revision).is_ok() {
            return Ok(());
        }
        self.keys += 1;
        let record = &versions::whole(view, record)?;
        self.none_alive.write(revision, record)?;
        if self.since_compaction.binary_search(&revision).is_err() {
            self.alive.write(revision, record)?;
        }
        Ok(())
    }

    fn finish(&self) -> KvHash {
        let mut hash = if self.keys > 0 { self.alive } else { self.none_alive };
        if let Some(compaction) = &self.compaction {
            hash = self.alive;
            hash.join(&compaction.stretch);
        }
        KvHash { hash: hash.sum(), compact_revision: self.compacted, revision: self.revision }
    }
}
