//! Revisions over the store: range, put, delete, txn, compact, hash, history.
//!
//! [`Mvcc`] is the single writer, driven by the machine inside an [`Overlay`]; [`ReadView`] is the state published
//! after each commit, which sessions read on their own cores.
//!
//! ```text
//!  kv   user key          -> newest record (or tombstone until compaction passes it)
//!  log  (main, sub)       -> the record of that change, its ancestors, the event it makes
//!                            (without a large value, which is in kv or, once replaced, in superseded)
//!
//!  apply ─put, delete, txn─► Mvcc ─► Overlay ─(machine commits)─► Engine
//!                              └─publish─► ReadView { view, revision, compacted, count_index, caches }
//! ```
//!
//! It never reads a clock, never waits, and knows leases by number only.

mod bucket;
mod bucket_hash;
mod cache;
mod check;
mod choice;
mod compaction;
mod count_index;
mod crc;
mod cursor;
mod deletion;
mod events;
mod hash;
mod history;
mod layers;
mod list_cache;
mod range;
mod range_plan;
mod read;
mod record;
mod retention;
mod steps;
#[cfg(test)]
mod tests;
mod txn;
mod usage;
mod versions;
mod write;

use std::ops::Bound;
use std::sync::Arc;

use basalt_proto::encoded::{RangeResponse, TxnResponse};
use basalt_proto::etcdserverpb::{RangeRequest, TxnRequest};
use bytes::Bytes;

use self::bucket_hash::CompactionHash;
use self::cache::RecordCache;
use self::compaction::Pass;
use self::count_index::CountIndex;
use self::events::Events;
use self::layers::Cached;
use self::list_cache::ListCache;
use self::read::Reader;
use self::record::{Encoder, Record};
use crate::store::{Overlay, Space, View};
use crate::types::{CacheBytes, Error, Fault, KeyRange, LeaseId, Revision};

pub use self::bucket::{Import, bucket, bucket_outline};
pub use self::check::{
    check_delete, check_put, check_range, check_range_stream, check_txn, is_read_only,
    is_serializable,
};
pub use self::cursor::{Chunk, RangeCursor};
pub use self::events::Changes;
pub use self::hash::{HashCursor, KvHash};
pub use self::history::History;
pub use self::retention::{AutoCompaction, Retention};
pub use self::steps::{Outcome, Steps};
pub use self::usage::Usage;

/// `Meta`: the newest revision, big-endian. Written with every change, so that it commits with the applied index.
const REVISION_KEY: &[u8] = b"revision";

/// The revision of an empty store.
const FIRST_REVISION: i64 = 1;

/// One change of one key, as watchers receive it. Encoded once; clones share the bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Position in history.
    pub revision: Revision,
    /// The key that changed.
    pub key: Bytes,
    /// True if the key was deleted.
    pub delete: bool,
    /// The encoded `mvccpb.Event` without `prev_kv`.
    pub encoded: Bytes,
    /// The encoded `mvccpb.KeyValue` that this change replaced; `None` for a creation.
    pub prev: Option<Bytes>,
}

/// A key whose lease changed: the input with which the lease room updates its attachments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// The key.
    pub key: Bytes,
    /// The lease it had, 0 for none.
    pub old: LeaseId,
    /// The lease it has now, 0 for none.
    pub new: LeaseId,
}

/// The single writer of all keys.
pub struct Mvcc {
    revision: i64,
    compacted: i64,
    usage: Usage,
    /// Revision and sums as last written.
    written_meta: Option<(i64, Usage)>,
    count_index: CountIndex,
    cache: Arc<RecordCache>,
    lists: Arc<ListCache>,
    /// Records for the cache, inserted when they are committed; `None` for those that left `kv`.
    written: Vec<(Bytes, Option<Record>)>,
    encoder: Encoder,
    events: Events,
    changes: Changes,
    attachments: Vec<Attachment>,
    pass: Option<Pass>,
    compaction_hash: Option<CompactionHash>,
}

/// The whole keyspace at one revision, for any number of readers on any core.
#[derive(Clone)]
pub struct ReadView<V> {
    /// The committed store.
    pub view: V,
    /// The newest revision in it.
    pub revision: i64,
    /// The compaction revision; -1 before the first compaction.
    pub compacted: i64,
    /// Bytes of keys and their kept history.
    pub usage: Usage,
    count_index: CountIndex,
    cache: Arc<RecordCache>,
    lists: Arc<ListCache>,
    compaction_hash: Option<CompactionHash>,
}

impl Mvcc {
    /// Reads the state that this room keeps in a store, which may be empty. Reads every record of `kv` once, to count
    /// the keys.
    ///
    /// # Errors
    /// The store cannot be read, or contradicts itself.
    pub fn open(view: &impl View, caches: CacheBytes) -> Result<Self, Fault> {
        let (compacted, pass) = compaction::open(view)?;
        let newest_logged = newest_logged(view)?;
        let revision = match view.get(Space::Meta, REVISION_KEY)? {
            Some(bytes) => bytes.as_ref().try_into().map(i64::from_be_bytes).map_err(|_| {
                Fault::new("the store's revision cannot be read: the store is damaged")
            })?,
            None => FIRST_REVISION,
        };
        if newest_logged > revision || compacted > revision {
            return Err(Fault::new(format!(
                "the store stands at revision {revision}, but its history reaches {newest_logged} and \
                 it was compacted at {compacted}: it is damaged"
            )));
        }
        Ok(Self {
            revision,
            compacted,
            usage: Usage::open(view)?,
            written_meta: None,
            count_index: CountIndex::open(view, revision)?,
            cache: Arc::new(RecordCache::new(caches.records)),
            lists: Arc::new(ListCache::new(caches.lists)),
            written: Vec::new(),
            encoder: Encoder::default(),
            events: Events::default(),
            changes: Changes::default(),
            attachments: Vec::new(),
            pass,
            compaction_hash: None,
        })
    }

    /// The newest revision, uncommitted changes included.
    pub fn revision(&self) -> i64 {
        self.revision
    }

    /// The compaction revision; -1 before the first compaction.
    pub fn compacted(&self) -> i64 {
        self.compacted
    }

    /// Number of keys, uncommitted changes included.
    pub fn keys(&self) -> i64 {
        self.count_index.total()
    }

    /// Bytes of keys and their kept history, uncommitted changes included.
    pub fn usage(&self) -> Usage {
        self.usage
    }

    /// Takes the events since the last call, in order. Empty if they were too many to be kept;
    /// [`Mvcc::has_left_out_events`] reports that, and has to be called before.
    pub fn take_events(&mut self) -> Vec<Event> {
        self.events.take()
    }

    /// True if events since the last call of [`Mvcc::take_events`] were too many to be kept.
    pub fn has_left_out_events(&self) -> bool {
        !self.events.wants_more()
    }

    /// Takes the counts of changes since the last call.
    pub fn take_changes(&mut self) -> Changes {
        std::mem::take(&mut self.changes)
    }

    /// Has to be called after the written pairs are staged: the store has them, although they are not committed.
    /// Readers of the published state then find their records in the store again.
    pub fn staged(&mut self) {
        for (key, _) in self.written.drain(..) {
            self.cache.remove(&key);
        }
    }

    /// Takes the changes of leases since the last call, in order.
    pub fn take_attachments(&mut self) -> Vec<Attachment> {
        std::mem::take(&mut self.attachments)
    }

    /// Writes the revision and the sums. Called once for a batch, before its commit.
    pub fn write_meta<V: View>(&mut self, tx: &mut Overlay<V>) {
        let meta = (self.revision, self.usage);
        if self.written_meta != Some(meta) {
            self.written_meta = Some(meta);
            write_revision(tx, self.revision);
            self.usage.write(tx);
        }
    }

    /// The new state for readers. `view` is the store after the commit of all written pairs, and nothing may have
    /// been written since.
    pub fn publish<V: View>(&mut self, view: V) -> ReadView<V> {
        for (key, record) in self.written.drain(..) {
            match record {
                Some(record) => self.cache.insert(key, record),
                None => self.cache.remove(&key),
            }
        }
        ReadView {
            view,
            revision: self.revision,
            compacted: self.compacted,
            usage: self.usage,
            count_index: self.count_index.clone(),
            cache: Arc::clone(&self.cache),
            lists: Arc::clone(&self.lists),
            compaction_hash: self.compaction_hash,
        }
    }
}

/// The main revision of the newest event, 0 without one.
fn newest_logged(view: &impl View) -> Result<i64, Fault> {
    let mut log = view.scan(Space::Log, Bound::Unbounded, Bound::Unbounded);
    let Some((key, _)) = log.next_back().transpose()? else { return Ok(0) };
    log_revision(&key).map(|revision| revision.main)
}

fn log_revision(key: &[u8]) -> Result<Revision, Fault> {
    Revision::from_key(key).ok_or_else(|| Fault::new("a key of the log cannot be read"))
}

impl<V: View> ReadView<V> {
    fn cached(&self) -> Cached<'_, V> {
        Cached { view: &self.view, revision: self.revision, cache: &self.cache }
    }

    fn reader<'a>(&'a self, view: &'a Cached<'a, V>) -> Reader<'a, Cached<'a, V>> {
        Reader {
            view,
            revision: self.revision,
            compacted: self.compacted,
            count_index: &self.count_index,
        }
    }

    /// Answers a range request that passed [`check_range`]. The header contains this view's revision alone; the
    /// caller adds the ids.
    ///
    /// # Errors
    /// [`FutureRev`](crate::types::Refusal::FutureRev) or
    /// [`Compacted`](crate::types::Refusal::Compacted), or a fault of the store.
    pub fn range(&self, request: &RangeRequest) -> Result<RangeResponse, Error> {
        let mut response = self.reader(&self.cached()).range(request)?;
        response.header = None;
        Ok(response)
    }

    /// Answers a transaction that passed [`check_txn`] and [`is_read_only`]. The headers contain the revision alone.
    ///
    /// # Errors
    /// As [`ReadView::range`].
    pub fn read_txn(&self, request: &TxnRequest) -> Result<TxnResponse, Error> {
        txn::read(&self.reader(&self.cached()), request)
    }

    /// Number of keys.
    pub fn keys(&self) -> i64 {
        self.count_index.total()
    }

    /// Number of keys in the range of a request that exist at its revision.
    ///
    /// # Errors
    /// As [`ReadView::range`].
    pub fn count(&self, request: &RangeRequest) -> Result<i64, Error> {
        let cached = self.cached();
        let reader = self.reader(&cached);
        let at = reader.resolve(request.revision)?;
        let keys = KeyRange::new(request.key.clone(), request.range_end.clone());
        Ok(reader.count(&keys, at)?)
    }
}

/// Every key that has a lease, in order: the initial attachments of the lease room.
///
/// # Errors
/// Each item may be a fault of the store.
pub fn leased_keys(view: &impl View) -> impl Iterator<Item = Result<(Bytes, LeaseId), Fault>> {
    let records = view.scan(Space::Kv, Bound::Unbounded, Bound::Unbounded);
    records.filter_map(|pair| leased_key(pair).transpose())
}

fn leased_key(pair: Result<(Bytes, Bytes), Fault>) -> Result<Option<(Bytes, LeaseId)>, Fault> {
    let (key, record) = pair?;
    let record = Record::new(record)?;
    let lease = if record.is_tombstone() { 0 } else { record.peek()?.lease };
    Ok((lease != 0).then_some((key, lease)))
}

/// Writes the newest revision, to be committed with the changes that created it.
fn write_revision<V: View>(tx: &mut Overlay<V>, revision: i64) {
    let value = Bytes::copy_from_slice(&revision.to_be_bytes());
    tx.put(Space::Meta, Bytes::from_static(REVISION_KEY), value);
}
