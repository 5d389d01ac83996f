//! Revisions over the store: range, put, delete, txn, compact, hash, history.
//!
//! [`Mvcc`] is the single writer, driven by the machine inside an [`Overlay`]; [`ReadView`] is what it
//! publishes after each commit and what sessions read on their own cores.
//!
//! ```text
//!  kv   user key          -> newest record (or tombstone until compaction passes it)
//!  log  (main, sub)       -> event: previous version, skip pointer, the record itself
//! ```

use std::sync::Arc;

use basalt_proto::encoded::{DeleteRangeResponse, PutResponse, RangeResponse, TxnResponse};
use basalt_proto::etcdserverpb::{DeleteRangeRequest, PutRequest, RangeRequest, TxnRequest};
use bytes::Bytes;

use crate::store::{Overlay, View};
use crate::types::{Error, Fault, KeyRange, LeaseId, Revision};

/// One change of one key, as watchers get it. Encoded once; clones share the bytes.
#[derive(Clone, Debug)]
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
