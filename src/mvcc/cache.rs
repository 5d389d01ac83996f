//! Cache of the newest records of frequently read keys, in front of the store.
//!
//! Only apply inserts, after the commit and before it publishes the revision, and deletes insert their tombstones. So a
//! record in the cache that is not newer than the reader's revision is the right one for that reader; otherwise the
//! reader uses its view. A reader that filled the cache could put an old record over a newer one, and members would
//! answer differently.

use std::hash::Hash;

use bytes::Bytes;
use quick_cache::sync::{Cache, DefaultLifecycle};
use quick_cache::{DefaultHashBuilder, OptionsBuilder, Weighter};

use super::record::Record;
use crate::types::limits;

/// The cache, described in the module; without capacity it is `None`.
pub(super) struct RecordCache(Option<Cache<Bytes, Record, Weight>>);

#[derive(Clone)]
struct Weight;

impl Weighter<Bytes, Record> for Weight {
    fn weight(&self, _: &Bytes, record: &Record) -> u64 {
        (record.bytes().len() + limits::RECORD_CACHE_OVERHEAD_BYTES) as u64
    }
}

/// A cache of at most `bytes`, as `weight` counts them, of items of about `item_bytes`; `None` without capacity.
pub(super) fn bounded<K: Eq + Hash, V: Clone, W: Weighter<K, V> + Clone>(
    bytes: u64,
    item_bytes: usize,
    shards: usize,
    weight: W,
) -> Option<Cache<K, V, W>> {
    let options = OptionsBuilder::new()
        .shards(shards)
        .estimated_items_capacity(usize::try_from(bytes).unwrap_or(usize::MAX) / item_bytes)
        .weight_capacity(bytes)
        .build();
    let room = options.ok().filter(|_| bytes > 0);
    room.map(|options| {
        let hasher = DefaultHashBuilder::default();
        Cache::with_options(options, weight, hasher, DefaultLifecycle::default())
    })
}

impl RecordCache {
    /// A cache of at most `bytes`.
    pub(super) fn new(bytes: u64) -> Self {
        let (item_bytes, shards) = (limits::RECORD_CACHE_RECORD_BYTES, limits::RECORD_CACHE_SHARDS);
        Self(bounded(bytes, item_bytes, shards, Weight))
    }

    /// The cached newest record of `key`.
    pub(super) fn get(&self, key: &[u8]) -> Option<Record> {
        self.0.as_ref()?.get(key)
    }

    /// Inserts the newest record of `key`.
    pub(super) fn insert(&self, key: Bytes, record: Record) {
        let Some(cache) = &self.0 else { return };
        cache.insert(key, record);
    }

    /// Removes `key`.
    pub(super) fn remove(&self, key: &[u8]) {
        if let Some(cache) = &self.0 {
            cache.remove(key);
        }
    }
}
