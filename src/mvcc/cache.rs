//! A bounded cache of newest records in front of `kv`, shared by all cores.
//!
//! Only the writer inserts, after the commit and before the revision is published; deletes insert
//! tombstones. So a hit that is not newer than the reader's revision is what the reader's view holds, and
//! answers are the same with a cache of any size. (A reader that filled it could put an old record over a
//! newer one.)

use bytes::Bytes;
use quick_cache::Weighter;
use quick_cache::sync::Cache;

use super::record::Record;

/// What a cached record costs beside its key and bytes: the parsed fields and the cache's own book-keeping.
const OVERHEAD_BYTES: usize = 256;

#[derive(Clone)]
struct ByBytes;

impl Weighter<Bytes, Record> for ByBytes {
    fn weight(&self, key: &Bytes, record: &Record) -> u64 {
        (key.len() + record.bytes.len() + OVERHEAD_BYTES) as u64
    }
}

/// Newest records by key.
pub struct RecordCache(Cache<Bytes, Record, ByBytes>);

impl RecordCache {
    /// Holds at most about so many bytes; 0 switches it off.
    pub fn new(bytes: u64) -> Self {
        let items = (bytes / 1024).clamp(16, 1 << 20) as usize;
        Self(Cache::with_weighter(items, bytes, ByBytes))
    }

    pub(super) fn insert(&self, key: Bytes, record: Record) {
        self.0.insert(key, record);
    }

    /// The newest record, if it is held and not newer than `revision`.
    pub(super) fn get(&self, key: &[u8], revision: i64) -> Option<Record> {
        self.0.get(key).filter(|record| record.modified <= revision)
    }
}
