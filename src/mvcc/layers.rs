//! The record cache in front of a view: for readers of the published state, and for apply.

use std::ops::Bound;

use bytes::Bytes;

use super::cache::RecordCache;
use crate::store::{Overlay, Pair, Space, View};
use crate::types::Fault;

/// A published view with the record cache in front of it.
pub(super) struct Cached<'a, V> {
    pub(super) view: &'a V,
    pub(super) revision: i64,
    pub(super) cache: &'a RecordCache,
}

impl<V: View> View for Cached<'_, V> {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, Fault> {
        if space == Space::Kv
            && let Some(record) = self.cache.get(key)
            && record.main()? <= self.revision
        {
            return Ok(Some(record.bytes().clone()));
        }
        self.view.get(space, key)
    }

    fn scan<'b>(
        &'b self,
        space: Space,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
    ) -> impl DoubleEndedIterator<Item = Result<Pair, Fault>> + 'b {
        self.view.scan(space, from, to)
    }
}

/// The view of apply: its own writes, then the cache of committed records, then the store.
pub(super) struct Pending<'a, V> {
    pub(super) tx: &'a Overlay<V>,
    pub(super) cache: &'a RecordCache,
}

impl<V: View> View for Pending<'_, V> {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, Fault> {
        if let Some(written) = self.tx.written(space, key) {
            return Ok(written.cloned());
        }
        if space == Space::Kv
            && let Some(record) = self.cache.get(key)
        {
            return Ok(Some(record.bytes().clone()));
        }
        self.tx.base().get(space, key)
    }

    fn scan<'b>(
        &'b self,
        space: Space,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
    ) -> impl DoubleEndedIterator<Item = Result<Pair, Fault>> + 'b {
        self.tx.scan(space, from, to)
    }
}
