//! The uncommitted writes of the batch being applied, on top of a committed view.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::Bytes;

use super::{Batch, Pair, Space, View};
use crate::types::Fault;

/// A view with the writes of the batch being applied on top. Itself a [`View`], so that commands of the batch read the
/// writes of earlier ones.
#[derive(Clone, Debug)]
pub struct Overlay<V> {
    base: V,
    writes: [BTreeMap<Bytes, Option<Bytes>>; Space::ALL.len()],
}

impl<V: View> Overlay<V> {
    /// An overlay without writes.
    pub fn new(base: V) -> Self {
        Self { base, writes: Default::default() }
    }

    /// Writes a pair.
    pub fn put(&mut self, space: Space, key: Bytes, value: Bytes) {
        self.writes[space as usize].insert(key, Some(value));
    }

    /// Deletes a pair, if there is one.
    pub fn delete(&mut self, space: Space, key: Bytes) {
        self.writes[space as usize].insert(key, None);
    }

    /// Takes all writes, to be committed. The overlay then shows its base alone, so that
    /// [`Overlay::rebase`] must follow before anything is read.
    pub fn take(&mut self) -> Batch {
        let mut batch = Batch::default();
        for space in Space::ALL {
            let writes = std::mem::take(&mut self.writes[space as usize]);
            batch.writes.extend(writes.into_iter().map(|(key, value)| (space, key, value)));
        }
        batch
    }

    /// Pairs written and deleted since the last commit.
    pub fn len(&self) -> usize {
        self.writes.iter().map(BTreeMap::len).sum()
    }

    /// True if nothing was written since the last commit.
    pub fn is_empty(&self) -> bool {
        self.writes.iter().all(BTreeMap::is_empty)
    }

    /// Continues on top of `base`, a view that includes the committed writes.
    pub fn rebase(&mut self, base: V) {
        self.base = base;
    }

    /// The write to `key` since the last commit: `Some(None)` for a delete.
    pub fn written(&self, space: Space, key: &[u8]) -> Option<Option<&Bytes>> {
        self.writes[space as usize].get(key).map(Option::as_ref)
    }

    /// The committed view under the writes.
    pub fn base(&self) -> &V {
        &self.base
    }
}

impl<V: View> View for Overlay<V> {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, Fault> {
        match self.writes[space as usize].get(key) {
            Some(written) => Ok(written.clone()),
            None => self.base.get(space, key),
        }
    }

    fn written(&self, space: Space, key: &[u8]) -> Option<&Option<Bytes>> {
        self.writes[space as usize].get(key)
    }

    fn scan<'a>(
        &'a self,
        space: Space,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
    ) -> impl DoubleEndedIterator<Item = Result<Pair, Fault>> + 'a {
        let written = self.writes[space as usize].range::<[u8], _>((from, to));
        Merge {
            base: Ends::new(self.base.scan(space, from, to)),
            written: Ends::new(written.map(|(key, value)| (key.clone(), value.clone()))),
        }
    }
}

/// An iterator whose next item can be seen at either end.
struct Ends<I: Iterator> {
    inner: I,
    front: Option<I::Item>,
    back: Option<I::Item>,
}

impl<I: DoubleEndedIterator> Ends<I> {
    fn new(inner: I) -> Self {
        Self { inner, front: None, back: None }
    }

    fn peek(&mut self) -> Option<&I::Item> {
        if self.front.is_none() {
            self.front = self.inner.next().or_else(|| self.back.take());
        }
        self.front.as_ref()
    }

    fn peek_back(&mut self) -> Option<&I::Item> {
        if self.back.is_none() {
            self.back = self.inner.next_back().or_else(|| self.front.take());
        }
        self.back.as_ref()
    }
}

/// Merges two sorted runs; a written pair hides the committed pair of the same key.
struct Merge<B: Iterator, W: Iterator> {
    base: Ends<B>,
    written: Ends<W>,
}

type Written = (Bytes, Option<Bytes>);

impl<B, W> Merge<B, W>
where
    B: DoubleEndedIterator<Item = Result<Pair, Fault>>,
    W: DoubleEndedIterator<Item = Written>,
{
    /// The order of the next two pairs; `None` when both runs are at their end.
    fn order(
        base: Option<&Result<Pair, Fault>>,
        written: Option<&Written>,
        backward: bool,
    ) -> Option<Ordering> {
        match (base, written) {
            (None, None) => None,
            (Some(_), None) | (Some(Err(_)), Some(_)) => Some(Ordering::Less),
            (None, Some(_)) => Some(Ordering::Greater),
            (Some(Ok((base, _))), Some((written, _))) if backward => Some(written.cmp(base)),
            (Some(Ok((base, _))), Some((written, _))) => Some(base.cmp(written)),
        }
    }
}

impl<B, W> Iterator for Merge<B, W>
where
    B: DoubleEndedIterator<Item = Result<Pair, Fault>>,
    W: DoubleEndedIterator<Item = Written>,
{
    type Item = Result<Pair, Fault>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let order = Self::order(self.base.peek(), self.written.peek(), false)?;
            let base = if order.is_le() { self.base.front.take() } else { None };
            if order.is_lt() {
                return base;
            }
            if let Some((key, Some(value))) = self.written.front.take() {
                return Some(Ok((key, value)));
            }
        }
    }
}

impl<B, W> DoubleEndedIterator for Merge<B, W>
where
    B: DoubleEndedIterator<Item = Result<Pair, Fault>>,
    W: DoubleEndedIterator<Item = Written>,
{
    fn next_back(&mut self) -> Option<Self::Item> {
        loop {
            let order = Self::order(self.base.peek_back(), self.written.peek_back(), true)?;
            let base = if order.is_le() { self.base.back.take() } else { None };
            if order.is_lt() {
                return base;
            }
            if let Some((key, Some(value))) = self.written.back.take() {
                return Some(Ok((key, value)));
            }
        }
    }
}
