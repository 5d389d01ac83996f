//! The newest records of keys that are in use, in front of the store.
//!
//! Only apply inserts, after the commit and before it publishes the revision, and deletes insert their
//! tombstones. So what is found with a revision not newer than the reader's is the reader's truth;
//! anything else sends the reader to its view. A reader that filled the cache could put an old record
//! over a newer one, and members would answer differently.

use bytes::Bytes;
use quick_cache::sync::Cache;
use quick_cache::{DefaultHashBuilder, OptionsBuilder, Weighter};

use super::record::Record;
use crate::types::limits;

/// See the module; without room it holds nothing.
pub(super) struct RecordCache(Option<Cache<Bytes, Record, Weight>>);

#[derive(Clone)]
struct Weight;

impl Weighter<Bytes, Record> for Weight {
    fn weight(&self, _: &Bytes, record: &Record) -> u64 {
        (record.bytes().len() + limits::RECORD_CACHE_OVERHEAD_BYTES) as u64
    }
}

impl RecordCache {
    /// A cache of at most `bytes`.
    pub(super) fn new(bytes: u64) -> Self {
        let items =
            usize::try_from(bytes).unwrap_or(usize::MAX) / limits::RECORD_CACHE_RECORD_BYTES;
        let options = OptionsBuilder::new()
            .shards(limits::RECORD_CACHE_SHARDS)
            .estimated_items_capacity(items)
            .weight_capacity(bytes)
            .build();
        let room = options.ok().filter(|_| bytes > 0);
        Self(room.map(|options| {
            Cache::with_options(
                options,
                Weight,
                DefaultHashBuilder::default(),
                quick_cache::sync::DefaultLifecycle::default(),
            )
        }))
    }

    /// The newest record of `key`, if it is here.
    pub(super) fn get(&self, key: &[u8]) -> Option<Record> {
        self.0.as_ref()?.get(key)
    }

    /// Takes the newest record of `key` in.
    pub(super) fn insert(&self, key: Bytes, record: Record) {
        let Some(cache) = &self.0 else { return };
        cache.insert(key, record);
    }

    /// Forgets `key`.
    pub(super) fn remove(&self, key: &[u8]) {
        if let Some(cache) = &self.0 {
            cache.remove(key);
        }
    }
}
