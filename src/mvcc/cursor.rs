//! A range in the order of keys, read in chunks: from lists that are kept, section by section, or from the store.

use std::ops::Bound;

use basalt_proto::encoded::KeyValues;
use basalt_proto::etcdserverpb::RangeRequest;
use bytes::Bytes;

use super::count_index::Section;
use super::list_cache::{List, ListCache};
use super::range_plan::without_value;
use super::read::{Reader, rest_after};
use super::record::{Record, RecordHeader};
use super::versions;
use super::{ReadView, check_range_stream};
use crate::store::{Space, View};
use crate::types::limits::{FENCE_RECORDS_MIN, LIST_BYTES_MAX, RANGE_STEP_RECORDS_MAX};
use crate::types::{Error, Fault, KeyRange};

/// State of a range read.
#[derive(Clone, Debug)]
pub struct RangeCursor {
    rest: KeyRange,
    at: i64,
    /// Number of keys that the limit still allows.
    left: Option<i64>,
    keys_only: bool,
    count_only: bool,
    returned: i64,
}

/// The part of a range that one step has read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Chunk {
    /// Number of its keys. May be 0 before the end, after a stretch of deleted keys.
    pub keys: usize,
    /// Bytes of its encoded `KeyValue`s.
    pub bytes: usize,
    /// True for the last chunk; only in it the following fields are set.
    pub done: bool,
    /// True if the limit left keys out.
    pub more: bool,
    /// Number of keys in the whole range.
    pub count: i64,
}

/// A step in progress: its bounds, and its chunk so far.
struct Step<'a> {
    keys_max: usize,
    bytes_max: usize,
    /// Number of records that may still be looked at.
    records_left: usize,
    chunk: Chunk,
    kvs: &'a mut KeyValues,
}

/// The key-values of a section.
enum Found {
    List(List),
    /// The first ones; they are too many bytes for a list.
    Begin(Vec<Bytes>),
    /// To be read from the store.
    Nothing,
}

impl Step<'_> {
    /// True if no further key may be taken. One always may.
    fn is_full(&self) -> bool {
        let Chunk { keys, bytes, .. } = self.chunk;
        keys == self.keys_max || (bytes >= self.bytes_max && keys > 0)
    }

    fn is_over(&self) -> bool {
        self.is_full() || self.records_left == 0
    }

    fn has_room_for(&self, keys: usize, bytes: usize) -> bool {
        self.chunk.keys + keys <= self.keys_max && self.chunk.bytes + bytes <= self.bytes_max
    }

    fn take(&mut self, kv: Bytes) {
        self.chunk.keys += 1;
        self.chunk.bytes += kv.len();
        self.kvs.push(kv);
    }

    fn take_list(&mut self, list: &List) {
        self.chunk.keys += list.keys;
        self.chunk.bytes += list.bytes;
        list.runs().for_each(|run| self.kvs.push_run(run));
    }
}

impl<V: View> ReadView<V> {
    /// Starts to read a range in the order of keys, without filters. The cursor must be used with this view
    /// or a clone of it.
    ///
    /// # Errors
    /// Those of [`ReadView::range`] and [`check_range_stream`].
    pub fn range_cursor(&self, request: &RangeRequest) -> Result<RangeCursor, Error> {
        check_range_stream(request)?;
        let at = self.reader(&self.cached()).resolve(request.revision)?;
        Ok(RangeCursor {
            rest: KeyRange::new(request.key.clone(), request.range_end.clone()),
            at,
            left: (request.limit > 0).then_some(request.limit),
            keys_only: request.keys_only,
            count_only: request.count_only,
            returned: 0,
        })
    }
}

impl RangeCursor {
    /// Reads the next chunk: at most `keys_max` keys (at least one), and no further key once `bytes_max` is reached. The
    /// encoded `mvccpb.KeyValue`s are added to `kvs`. `view` must be the one that made the cursor. Not to be called after
    /// the last chunk.
    ///
    /// # Errors
    /// A fault of the store.
    pub fn next<V: View>(
        &mut self,
        view: &ReadView<V>,
        keys_max: usize,
        bytes_max: usize,
        kvs: &mut KeyValues,
    ) -> Result<Chunk, Error> {
        let cached = view.cached();
        let reader = view.reader(&cached);
        if self.count_only {
            let count = reader.count(&self.rest, self.at)?;
            return Ok(Chunk { done: true, count, ..Chunk::default() });
        }
        let allowed =
            self.left.map_or(usize::MAX, |left| usize::try_from(left).unwrap_or(usize::MAX));
        let keys_max = keys_max.clamp(1, allowed.max(1));
        let records_left = RANGE_STEP_RECORDS_MAX.saturating_add(keys_max);
        let chunk = Chunk::default();
        let mut step = Step { keys_max, bytes_max, records_left, chunk, kvs };
        let ended = self.fill(&reader, &view.lists, &mut step)?;
        let mut chunk = step.chunk;
        let keys = chunk.keys.cast_signed() as i64;
        self.returned += keys;
        if let Some(left) = &mut self.left {
            *left -= keys;
        }
        if ended || self.left == Some(0) {
            let beyond = if ended { 0 } else { reader.count(&self.rest, self.at)? };
            chunk.done = true;
            chunk.more = beyond > 0;
            chunk.count = self.returned + beyond;
        }
        Ok(chunk)
    }

    /// Reads on; returns true at the end of the range.
    fn fill<V: View>(
        &mut self,
        reader: &Reader<'_, V>,
        lists: &ListCache,
        step: &mut Step<'_>,
    ) -> Result<bool, Fault> {
        if let KeyRange::One(key) = &self.rest {
            if let Some(record) = reader.one(key, self.at)? {
                step.take(self.shape(reader, record)?);
            }
            return Ok(true);
        }
        if self.keys_only || !lists.is_on() {
            return self.scan(reader, Bound::Unbounded, step);
        }
        while !self.rest.is_empty() {
            if step.is_over() {
                return Ok(false);
            }
            let start = self.rest.start().clone();
            let section = reader.count_index.section(&start);
            if self.is_for_next_step(&section, step, section.live.unsigned_abs() as usize, 0) {
                return Ok(false);
            }
            let is_through = match self.find(reader, lists, &section, step)? {
                Found::List(list)
                    if self.is_for_next_step(&section, step, list.keys, list.bytes) =>
                {
                    return Ok(false);
                }
                Found::List(list) => self.take_list(&list, &section, step)?,
                Found::Begin(kvs) => {
                    self.take_each(kvs.into_iter(), step)?;
                    false
                }
                Found::Nothing => self.scan(reader, section.end, step)?,
            };
            match section.end {
                _ if !is_through => (),
                Bound::Excluded(end) => self.go_to(Bytes::copy_from_slice(end)),
                Bound::Included(_) | Bound::Unbounded => return Ok(true),
            }
        }
        Ok(true)
    }

    /// The list of a section, from the cache, or read now if most of it is wanted.
    fn find<V: View>(
        &self,
        reader: &Reader<'_, V>,
        lists: &ListCache,
        section: &Section<'_>,
        step: &Step<'_>,
    ) -> Result<Found, Fault> {
        if section.name.changed > self.at {
            return Ok(Found::Nothing);
        }
        if let Some(list) = lists.get(section.name) {
            return Ok(Found::List(list));
        }
        let half = section.live.unsigned_abs() as usize / 2;
        if !self.covers(section) || step.keys_max - step.chunk.keys < half {
            return Ok(Found::Nothing);
        }
        let (mut kvs, mut bytes) = (Vec::new(), 0);
        for pair in reader.view.scan(Space::Kv, Bound::Included(section.start), section.end) {
            if let Some(record) = reader.live_at(Record::new(pair?.1)?, self.at)? {
                let kv = self.shape(reader, record)?;
                bytes += kv.len();
                kvs.push(kv);
            }
            if bytes > LIST_BYTES_MAX {
                return Ok(Found::Begin(kvs));
            }
        }
        let list = List::new(kvs);
        lists.insert(section.name, list.clone());
        Ok(Found::List(list))
    }

    /// True if all keys of a section are in the rest of the range.
    fn covers(&self, section: &Section<'_>) -> bool {
        let start = self.rest.start();
        // No key is empty.
        let from_start = start == section.start || (section.start.is_empty() && **start == [0]);
        let to_end = match (&self.rest, section.end) {
            (KeyRange::From(_), _) => true,
            (KeyRange::Span(_, end), Bound::Excluded(section)) => section <= &end[..],
            (KeyRange::Span(..) | KeyRange::One(_), _) => false,
        };
        from_start && to_end
    }

    /// True for a section with so many keys and bytes that is taken as a whole, and does not fit any more.
    fn is_for_next_step(
        &self,
        section: &Section<'_>,
        step: &Step<'_>,
        keys: usize,
        bytes: usize,
    ) -> bool {
        let left = self.left.map_or(usize::MAX, |left| left.unsigned_abs() as usize);
        let is_whole = self.covers(section) && step.chunk.keys + keys <= left;
        is_whole && step.chunk.keys > 0 && !step.has_room_for(keys, bytes)
    }

    /// Takes what is wanted of a list. True if nothing of the section is left.
    fn take_list(
        &mut self,
        list: &List,
        section: &Section<'_>,
        step: &mut Step<'_>,
    ) -> Result<bool, Fault> {
        step.records_left = step.records_left.saturating_sub(list.keys.max(FENCE_RECORDS_MIN));
        if self.covers(section) && step.has_room_for(list.keys, list.bytes) {
            step.take_list(list);
            return Ok(true);
        }
        self.take_each(list.iter(), step)
    }

    /// Takes those of these key-values that are wanted. True if nothing behind them is left out.
    fn take_each(
        &mut self,
        kvs: impl Iterator<Item = Bytes>,
        step: &mut Step<'_>,
    ) -> Result<bool, Fault> {
        let mut last = None;
        let mut is_through = true;
        for kv in kvs {
            let key = kv.slice(RecordHeader::new(&kv)?.key);
            if key < self.rest.start() {
                continue;
            }
            if !self.rest.contains(&key) {
                break;
            }
            if step.is_full() {
                is_through = false;
                break;
            }
            last = Some(key);
            step.take(kv);
        }
        if let Some(last) = last {
            self.go_on_behind(&last);
        }
        Ok(is_through)
    }

    /// Reads pairs up to the end of the range, or `end`. True if it was reached.
    fn scan<V: View>(
        &mut self,
        reader: &Reader<'_, V>,
        end: Bound<&[u8]>,
        step: &mut Step<'_>,
    ) -> Result<bool, Fault> {
        let (from, to) = self.rest.bounds();
        let to = match (to, end) {
            (Bound::Excluded(to), Bound::Excluded(end)) => Bound::Excluded(to.min(end)),
            (Bound::Unbounded, end) => end,
            (to, _) => to,
        };
        let mut last = None;
        let mut is_through = true;
        for pair in reader.view.scan(Space::Kv, from, to) {
            if step.is_over() {
                is_through = false;
                break;
            }
            let (key, record) = pair?;
            step.records_left -= 1;
            last = Some(key);
            if let Some(record) = reader.live_at(Record::new(record)?, self.at)? {
                step.take(self.shape(reader, record)?);
            }
        }
        if let Some(last) = last {
            self.go_on_behind(&last);
        }
        Ok(is_through)
    }

    fn go_on_behind(&mut self, last: &[u8]) {
        self.rest = rest_after(self.rest.clone(), last, false);
    }

    /// `start` is not before the start of the rest.
    fn go_to(&mut self, start: Bytes) {
        self.rest = match std::mem::replace(&mut self.rest, KeyRange::From(Bytes::new())) {
            KeyRange::Span(_, end) => KeyRange::Span(start, end),
            KeyRange::From(_) | KeyRange::One(_) => KeyRange::From(start),
        };
    }

    fn shape<V: View>(&self, reader: &Reader<'_, V>, record: Record) -> Result<Bytes, Fault> {
        if self.keys_only {
            return without_value(&record.into_key_value(), false);
        }
        Ok(versions::whole(reader.view, record)?.into_key_value())
    }
}
