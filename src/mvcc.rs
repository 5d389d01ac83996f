//! Revisions over the store: range, put, delete, transaction, compaction, hash, history.
//!
//! [`Mvcc`] is the single writer, driven by the machine inside an [`Overlay`](crate::store::Overlay);
//! [`ReadView`] is what it publishes after each commit and what sessions read on their own cores.
//!
//! ```text
//!  kv    user key    -> newest record, or a tombstone until compaction passes it
//!  log   (main, sub) -> the same record, for ever (until compaction passes it)
//!
//!  record = [ kind | depth | previous version | older versions ] [ encoded mvccpb.Event ]
//!                                                                   └ its kv: encoded KeyValue
//! ```
//!
//! A record holds its event as watchers get it, the event holds the `KeyValue` as ranges and hashes want
//! it: one buffer is stored twice, cached, sent and hashed, and nothing is encoded again. The links lead
//! from a version to the ones before it (see [`record`]), so that no index of revisions sits in memory.

mod cache;
mod check;
mod compact;
mod count;
mod fences;
mod hash;
mod history;
mod range;
mod record;
#[cfg(test)]
mod tests;
mod txn;
mod write;

use bytes::Bytes;

pub use self::cache::RecordCache;
pub use self::check::{
    check_delete_range, check_put, check_range, check_txn, is_read_only, is_serializable,
    is_stream_supported, put_cost, txn_cost,
};
pub use self::hash::{HashCursor, KvHash};
pub use self::history::History;
pub use self::range::{Chunk, RangeCursor};
pub use self::write::Mvcc;
use crate::types::{LeaseId, Revision};

/// One change of one key, as watchers get it. Encoded once; clones share the bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Where in history.
    pub revision: Revision,
    /// Which key.
    pub key: Bytes,
    /// Whether the key was deleted.
    pub delete: bool,
    /// The encoded `mvccpb.Event` without `prev_kv`.
    pub encoded: Bytes,
    /// The encoded `mvccpb.KeyValue` that this change replaced; `None` for a creation.
    pub prev: Option<Bytes>,
}

/// A key whose lease changed: what keeps the lease room's attachments right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// Which key.
    pub key: Bytes,
    /// The lease it had, 0 for none.
    pub old: LeaseId,
    /// The lease it has now, 0 for none.
    pub new: LeaseId,
}

/// The key space as of one commit: what readers use, and all they use.
#[derive(Clone)]
pub struct ReadView<V> {
    /// The store.
    pub view: V,
    /// The newest revision.
    pub revision: i64,
    /// History up to here is gone; −1 before the first compaction.
    pub compacted: i64,
    fences: fences::Fences,
    cache: std::sync::Arc<RecordCache>,
    /// Up to here the store holds nothing that was compacted.
    cleaned: i64,
    hashes: std::sync::Arc<Vec<KvHash>>,
}
