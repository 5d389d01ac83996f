//! Cache of lists: the key-values between two fences of the count index, encoded as the response to a range has them.
//!
//! A fence knows when its keys were last changed. That revision is a part of the name under which a list is cached, so that
//! no write has to remove one: it is not found any more. A list is right for every reader at the revision of its name or
//! later, up to the next change.

use std::sync::Arc;

use basalt_proto::encoded::{KeyValues, messages};
use bytes::Bytes;
use quick_cache::Weighter;
use quick_cache::sync::Cache;

use super::cache::bounded;
use crate::types::limits;

/// Name of a fence's content: the fence, and the revision of its last change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct ListName {
    pub(super) fence: u64,
    pub(super) changed: i64,
}

/// All key-values between two fences.
#[derive(Clone, Debug)]
pub(super) struct List {
    runs: Arc<[Bytes]>,
    pub(super) keys: usize,
    pub(super) bytes: usize,
}

impl List {
    /// The list of encoded `KeyValue`s.
    pub(super) fn new(kvs: Vec<Bytes>) -> Self {
        let keys = kvs.len();
        let mut all = KeyValues::default();
        kvs.into_iter().for_each(|kv| all.push(kv));
        Self { keys, bytes: all.bytes(), runs: all.into_runs().into() }
    }

    /// The list as parts of a response.
    pub(super) fn runs(&self) -> impl Iterator<Item = Bytes> + '_ {
        self.runs.iter().cloned()
    }

    /// The encoded `KeyValue`s.
    pub(super) fn iter(&self) -> impl Iterator<Item = Bytes> + '_ {
        self.runs().flat_map(messages)
    }
}

/// The cache, described in the module; without capacity it is `None`.
pub(super) struct ListCache(Option<Cache<ListName, List, Weight>>);

#[derive(Clone)]
struct Weight;

impl Weighter<ListName, List> for Weight {
    fn weight(&self, _: &ListName, list: &List) -> u64 {
        (list.bytes + limits::LIST_CACHE_OVERHEAD_BYTES) as u64
    }
}

impl ListCache {
    /// A cache of at most `bytes`.
    pub(super) fn new(bytes: u64) -> Self {
        let (list_bytes, shards) = (limits::LIST_CACHE_LIST_BYTES, limits::LIST_CACHE_SHARDS);
        Self(bounded(bytes, list_bytes, shards, Weight))
    }

    pub(super) fn get(&self, name: ListName) -> Option<List> {
        self.0.as_ref()?.get(&name)
    }

    /// The content of a fence must be read at the revision in its name, or at a later one without a change between.
    pub(super) fn insert(&self, name: ListName, list: List) {
        if let Some(cache) = &self.0 {
            cache.insert(name, list);
        }
    }

    /// True if lists are kept.
    pub(super) fn is_on(&self) -> bool {
        self.0.is_some()
    }
}
