//! Reads at a revision: the newest from one scan of `kv`, older ones by following each newer record's ancestors
//! back through `log`.

use std::ops::Bound;

use bytes::Bytes;

use super::count_index::CountIndex;
use super::record::Record;
use super::versions::{newest, version_at, whole};
use crate::store::{Space, View};
use crate::types::{Fault, KeyRange, Refusal, Revision};

/// A reader of a view whose newest revision is `revision`.
pub(super) struct Reader<'a, V> {
    pub(super) view: &'a V,
    pub(super) revision: i64,
    pub(super) compacted: i64,
    pub(super) count_index: &'a CountIndex,
}

impl<V: View> Reader<'_, V> {
    /// The revision that a request for `revision` reads at.
    pub(super) fn resolve(&self, revision: i64) -> Result<i64, Refusal> {
        match revision {
            future if future > self.revision => Err(Refusal::FutureRev),
            ..=0 => Ok(self.revision),
            past if past < self.compacted => Err(Refusal::Compacted),
            within => Ok(within),
        }
    }

    /// The version at `at` of a record of `kv`: not a tombstone, maybe a stub; `None` if the key does not exist at `at`.
    pub(super) fn live_at(&self, newest: Record, at: i64) -> Result<Option<Record>, Fault> {
        let found =
            if at >= self.revision { Some(newest) } else { version_at(self.view, newest, at)? };
        Ok(found.filter(|record| !record.is_tombstone()))
    }

    /// One key at `at`.
    pub(super) fn one(&self, key: &[u8], at: i64) -> Result<Option<Record>, Fault> {
        self.find(key, at)?.map(|record| whole(self.view, record)).transpose()
    }

    /// The same, maybe a stub.
    pub(super) fn find(&self, key: &[u8], at: i64) -> Result<Option<Record>, Fault> {
        match newest(self.view, key)? {
            Some(newest) => self.live_at(newest, at),
            None => Ok(None),
        }
    }

    /// Calls `visit` with each version in the range at `at`, tombstones excluded, maybe a stub, until it returns false;
    /// returns true if the end was reached.
    fn find_each(
        &self,
        range: &KeyRange,
        at: i64,
        mut visit: impl FnMut(Record) -> Result<bool, Fault>,
    ) -> Result<bool, Fault> {
        if let KeyRange::One(key) = range {
            return match self.find(key, at)? {
                Some(record) => visit(record),
                None => Ok(true),
            };
        }
        let (from, to) = range.bounds();
        for pair in self.view.scan(Space::Kv, from, to) {
            if let Some(record) = self.live_at(Record::new(pair?.1)?, at)?
                && !visit(record)?
            {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Number of keys of a range at `at`.
    pub(super) fn count(&self, range: &KeyRange, at: i64) -> Result<i64, Fault> {
        if let KeyRange::One(key) = range {
            return Ok(i64::from(self.find(key, at)?.is_some()));
        }
        if at >= self.revision {
            return self.count_index.count(self.view, range);
        }
        let scanned = self.count_index.records_max(range);
        if let Some(change) = self.change_since(range, at, scanned)? {
            return Ok(self.count_index.count(self.view, range)? - change);
        }
        let mut count = 0;
        self.find_each(range, at, |_| {
            count += 1;
            Ok(true)
        })?;
        Ok(count)
    }

    /// By how many keys a range has grown since `at`, if at most `steps_max` events are enough to compute it.
    pub(super) fn change_since(
        &self,
        range: &KeyRange,
        at: i64,
        steps_max: i64,
    ) -> Result<Option<i64>, Fault> {
        if self.revision - at > steps_max {
            return Ok(None);
        }
        let from = Revision { main: at + 1, sub: 0 }.to_key();
        let mut change = 0;
        let mut steps = 0;
        for pair in self.view.scan(Space::Log, Bound::Included(&from), Bound::Unbounded) {
            steps += 1;
            if steps > steps_max {
                return Ok(None);
            }
            let record = Record::new(pair?.1)?;
            if (record.is_creation() || record.is_tombstone()) && range.contains(&record.key()?) {
                change += if record.is_tombstone() { -1 } else { 1 };
            }
        }
        Ok(Some(change))
    }

    /// Calls `visit` with each version in the range at `at` among the next `records_max` records. Returns the rest of
    /// the range; `None` at its end.
    pub(super) fn each_some(
        &self,
        range: &KeyRange,
        at: i64,
        records_max: usize,
        mut visit: impl FnMut(Record) -> Result<(), Fault>,
    ) -> Result<Option<KeyRange>, Fault> {
        if let KeyRange::One(key) = range {
            self.one(key, at)?.map_or(Ok(()), visit)?;
            return Ok(None);
        }
        let (from, to) = range.bounds();
        let mut last = None;
        for (number, pair) in self.view.scan(Space::Kv, from, to).take(records_max).enumerate() {
            let (key, record) = pair?;
            if let Some(record) = self.live_at(Record::new(record)?, at)? {
                visit(whole(self.view, record)?)?;
            }
            last = Some(key).filter(|_| number + 1 == records_max);
        }
        Ok(last.map(|last| rest_after(range.clone(), &last, false)))
    }
}

/// The rest of a range that was read up to this key.
pub(super) fn rest_after(range: KeyRange, last: &[u8], backward: bool) -> KeyRange {
    if backward {
        return KeyRange::Span(range.start().clone(), Bytes::copy_from_slice(last));
    }
    let next = Bytes::from([last, &[0]].concat());
    match range {
        KeyRange::Span(_, end) => KeyRange::Span(next, end),
        KeyRange::From(_) | KeyRange::One(_) => KeyRange::From(next),
    }
}
