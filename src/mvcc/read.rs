//! Reading at a revision: the newest from one scan of `kv`, the past by following each newer record's
//! ancestors back through `log`.

use std::cmp::Reverse;
use std::ops::Bound;

use basalt_proto::encoded::RangeResponse;
use basalt_proto::etcdserverpb::range_request::{SortOrder, SortTarget};
use basalt_proto::etcdserverpb::{RangeRequest, ResponseHeader};
use bytes::{BufMut, Bytes, BytesMut};
use prost::encoding::encode_varint;

use super::cache::RecordCache;
use super::count_index::CountIndex;
use super::record::{Record, RecordHeader};
use crate::store::{Overlay, Pair, Space, View};
use crate::types::{Error, Fault, KeyRange, Refusal, Revision};

/// What is read: a view whose newest revision is `revision`.
pub(super) struct Reader<'a, V> {
    pub(super) view: &'a V,
    pub(super) revision: i64,
    pub(super) compacted: i64,
    pub(super) count_index: &'a CountIndex,
}

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

/// What apply sees: its own writes, then the cache, which holds what was committed, then the store.
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

/// The newest record of `key`, tombstones included.
pub(super) fn newest(view: &impl View, key: &[u8]) -> Result<Option<Record>, Fault> {
    view.get(Space::Kv, key)?.map(Record::new).transpose()
}

/// What `log` holds of the event at `revision`, if compaction has not removed it; maybe a stub.
pub(super) fn logged(view: &impl View, revision: Revision) -> Result<Option<Record>, Fault> {
    view.get(Space::Log, &revision.to_key())?.map(Record::new).transpose()
}

/// The record that a stub stands for. A newest one is in `kv`, any other in `superseded`.
pub(super) fn whole(view: &impl View, record: Record) -> Result<Record, Fault> {
    if !record.is_stub() {
        return Ok(record);
    }
    let revision = record.revision()?;
    if let Some(superseded) = view.get(Space::Superseded, &revision.to_key())? {
        return Record::new(superseded);
    }
    match newest(view, &record.key()?)? {
        Some(newest) if newest.revision()? == revision => Ok(newest),
        Some(_) | None => Err(lacks(revision)),
    }
}

/// The fault of a history with a gap.
pub(super) fn lacks(revision: Revision) -> Fault {
    Fault::new(format!("history lacks revision {}", revision.main))
}

/// The version of a key at the main revision `at`, found from a newer one; tombstones included, and maybe
/// a stub.
pub(super) fn version_at(
    view: &impl View,
    newest: Record,
    at: i64,
) -> Result<Option<Record>, Fault> {
    let mut record = newest;
    while record.main()? > at {
        // The oldest that is still too new brings the walk forward most.
        let mut target = None;
        for ancestor in record.ancestors()? {
            let ancestor = ancestor?;
            if ancestor.main > at || target.is_none() {
                target = Some(ancestor);
            }
            if ancestor.main <= at {
                break;
            }
        }
        let Some(target) = target else { return Ok(None) };
        record = match logged(view, target)? {
            Some(older) => older,
            // A tombstone that compaction has passed.
            None if target.main <= at => return Ok(None),
            None => return Err(lacks(target)),
        };
    }
    Ok(Some(record))
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

    /// What a record of `kv` says at `at`: a living version, maybe a stub, or nothing.
    fn live_at(&self, newest: Record, at: i64) -> Result<Option<Record>, Fault> {
        let found =
            if at >= self.revision { Some(newest) } else { version_at(self.view, newest, at)? };
        Ok(found.filter(|record| !record.is_tombstone()))
    }

    /// One key at `at`.
    pub(super) fn one(&self, key: &[u8], at: i64) -> Result<Option<Record>, Fault> {
        self.find(key, at)?.map(|record| whole(self.view, record)).transpose()
    }

    /// The same, maybe a stub.
    fn find(&self, key: &[u8], at: i64) -> Result<Option<Record>, Fault> {
        match newest(self.view, key)? {
            Some(newest) => self.live_at(newest, at),
            None => Ok(None),
        }
    }

    /// Calls `visit` with each living version of the range at `at` until it returns false; says
    /// whether the end was reached.
    pub(super) fn each(
        &self,
        range: &KeyRange,
        at: i64,
        backward: bool,
        mut visit: impl FnMut(Record) -> Result<bool, Fault>,
    ) -> Result<bool, Fault> {
        self.find_each(range, at, backward, |record| visit(whole(self.view, record)?))
    }

    /// The same with versions that may be stubs, for who needs no values.
    fn find_each(
        &self,
        range: &KeyRange,
        at: i64,
        backward: bool,
        mut visit: impl FnMut(Record) -> Result<bool, Fault>,
    ) -> Result<bool, Fault> {
        if let KeyRange::One(key) = range {
            return match self.find(key, at)? {
                Some(record) => visit(record),
                None => Ok(true),
            };
        }
        let (from, to) = range.bounds();
        let mut pairs = self.view.scan(Space::Kv, from, to);
        while let Some(pair) = if backward { pairs.next_back() } else { pairs.next() } {
            if let Some(record) = self.live_at(Record::new(pair?.1)?, at)?
                && !visit(record)?
            {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The living keys of a range at `at`.
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
        self.find_each(range, at, false, |_| {
            count += 1;
            Ok(true)
        })?;
        Ok(count)
    }

    /// How many more living keys a range has now than at `at`, if at most `steps_max` events tell.
    fn change_since(
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

    /// Calls `visit` with each living version of the range at `at` among the next `records_max` records. Gives what is left
    /// of the range; nothing at its end.
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
        Ok(last.map(|last| rest_behind(range.clone(), &last, false)))
    }

    /// Answers a range request; the header holds the revision alone.
    pub(super) fn range(&self, request: &RangeRequest) -> Result<RangeResponse, Error> {
        let mut read = self.begin_range(request)?;
        let answer = self.range_step(&mut read, &mut usize::MAX.clone())?;
        answer.ok_or_else(|| Fault::new("a range did not end").into())
    }

    /// [`Reader::range`] in steps.
    pub(super) fn begin_range(&self, request: &RangeRequest) -> Result<RangeRead, Refusal> {
        Ok(RangeRead {
            at: self.resolve(request.revision)?,
            range: KeyRange::new(request.key.clone(), request.range_end.clone()),
            rest: None,
            plan: Plan::new(request),
            kvs: Vec::new(),
            seen: 0,
        })
    }

    /// Reads on until `budget` records were looked at, which are taken off it. Gives the answer at the end.
    pub(super) fn range_step(
        &self,
        read: &mut RangeRead,
        budget: &mut usize,
    ) -> Result<Option<RangeResponse>, Error> {
        if *budget == 0 {
            return Ok(None);
        }
        if read.plan.count_only {
            let header = self.header();
            let count = self.count(&read.range, read.at)?;
            return Ok(Some(RangeResponse { header, count, ..Default::default() }));
        }
        let Some(is_at_end) = self.read_on(read, budget)? else { return Ok(None) };
        let count = if is_at_end { read.seen } else { self.count(&read.range, read.at)? };
        let response = read.plan.respond(std::mem::take(&mut read.kvs), count)?;
        Ok(Some(RangeResponse { header: self.header(), ..response }))
    }

    fn header(&self) -> Option<ResponseHeader> {
        Some(ResponseHeader { revision: self.revision, ..Default::default() })
    }

    /// Whether the end of the range was reached, when enough was read; nothing if the budget was used up before.
    fn read_on(&self, read: &mut RangeRead, budget: &mut usize) -> Result<Option<bool>, Fault> {
        if let KeyRange::One(key) = &read.range {
            let found = self.find(key, read.at)?;
            return Ok(Some(found.map_or(Ok(true), |record| read.take(self.view, record))?));
        }
        let rest = read.rest.take();
        let (from, to) = rest.as_ref().unwrap_or(&read.range).bounds();
        let mut pairs = self.view.scan(Space::Kv, from, to);
        let mut last = None;
        while let Some(pair) = if read.plan.backward { pairs.next_back() } else { pairs.next() } {
            let (key, record) = pair?;
            if let Some(record) = self.live_at(Record::new(record)?, read.at)?
                && !read.take(self.view, record)?
            {
                return Ok(Some(false));
            }
            *budget -= 1;
            if *budget == 0 {
                last = Some(key);
                break;
            }
        }
        drop(pairs);
        let Some(last) = last else { return Ok(Some(true)) };
        read.rest = Some(rest_behind(
            rest.unwrap_or_else(|| read.range.clone()),
            &last,
            read.plan.backward,
        ));
        Ok(None)
    }
}

/// What is left of a range when it was read up to this key.
fn rest_behind(range: KeyRange, last: &[u8], backward: bool) -> KeyRange {
    if backward {
        return KeyRange::Span(range.start().clone(), Bytes::copy_from_slice(last));
    }
    let next = Bytes::from([last, &[0]].concat());
    match range {
        KeyRange::Span(_, end) => KeyRange::Span(next, end),
        KeyRange::From(_) | KeyRange::One(_) => KeyRange::From(next),
    }
}

/// A range that is read in steps.
pub(super) struct RangeRead {
    at: i64,
    range: KeyRange,
    /// What is left of it, once a step was made.
    rest: Option<KeyRange>,
    plan: Plan,
    kvs: Vec<Bytes>,
    seen: i64,
}

impl RangeRead {
    /// Takes a version that was found in. Whether more are wanted.
    fn take(&mut self, view: &impl View, record: Record) -> Result<bool, Fault> {
        self.seen += 1;
        let heads = self.plan.keys_only && self.plan.target != SortTarget::Value;
        let record = if heads { record } else { whole(view, record)? };
        let kv = record.into_key_value();
        if self.plan.filter.admits(&kv)? {
            self.kvs.push(kv);
        }
        Ok(self.kvs.len() < self.plan.fetch)
    }
}

/// An encoded `KeyValue` without its value. etcd 3.7 answers keys from its index, which knows no
/// leases, except when it sorts by value.
pub(super) fn without_value(kv: &Bytes, keep_lease: bool) -> Result<Bytes, Fault> {
    let header = RecordHeader::new(kv)?;
    let head = kv.slice(..header.head);
    if !keep_lease || header.lease == 0 {
        return Ok(head);
    }
    let mut with_lease = BytesMut::with_capacity(head.len() + 11);
    with_lease.put(head);
    with_lease.put_u8(super::record::LEASE);
    encode_varint(header.lease.cast_unsigned(), &mut with_lease);
    Ok(with_lease.freeze())
}

/// How a range is read and put in order.
struct Plan {
    /// How many to read before limit and order are applied.
    fetch: usize,
    /// From the last key to the first: the order asked for, so that no sorting follows.
    backward: bool,
    /// What to sort by afterwards; `Key` needs none.
    target: SortTarget,
    descend: bool,
    filter: Filter,
    limit: usize,
    keys_only: bool,
    count_only: bool,
}

impl Plan {
    fn new(request: &RangeRequest) -> Self {
        let order = request.sort_order();
        let target = request.sort_target();
        let descend = order == SortOrder::Descend;
        let filter = Filter::new(request);
        // etcd applies the limit before it sorts if an order was not asked for in so many words.
        let all = target != SortTarget::Key && (order != SortOrder::None || filter.on);
        let limit = usize::try_from(request.limit).unwrap_or(0);
        let fetch = if all || limit == 0 { usize::MAX } else { limit.saturating_add(1) };
        let backward = descend && target == SortTarget::Key;
        let RangeRequest { keys_only, count_only, .. } = *request;
        Self { fetch, backward, target, descend, filter, limit, keys_only, count_only }
    }

    /// The answer made of what was read, without its header.
    fn respond(&self, mut kvs: Vec<Bytes>, count: i64) -> Result<RangeResponse, Fault> {
        self.sort(&mut kvs)?;
        let more = self.limit > 0 && kvs.len() > self.limit;
        if more {
            kvs.truncate(self.limit);
        }
        if self.keys_only {
            let keep_lease = self.target == SortTarget::Value;
            for kv in &mut kvs {
                *kv = without_value(kv, keep_lease)?;
            }
        }
        Ok(RangeResponse { header: None, kvs, more, count })
    }

    /// Ties stay in the order of keys.
    fn sort(&self, kvs: &mut [Bytes]) -> Result<(), Fault> {
        let read: fn(&RecordHeader) -> i64 = match self.target {
            SortTarget::Key => return Ok(()),
            SortTarget::Value => return self.sort_by_value(kvs),
            SortTarget::Version => |header| header.version,
            SortTarget::Create => |header| header.create,
            SortTarget::Mod => |header| header.modified,
        };
        let mut keyed = Vec::with_capacity(kvs.len());
        for kv in kvs.iter() {
            keyed.push((read(&RecordHeader::new(kv)?), kv.clone()));
        }
        order(keyed, self.descend, kvs);
        Ok(())
    }

    fn sort_by_value(&self, kvs: &mut [Bytes]) -> Result<(), Fault> {
        let mut keyed = Vec::with_capacity(kvs.len());
        for kv in kvs.iter() {
            keyed.push((kv.slice(RecordHeader::new(kv)?.value), kv.clone()));
        }
        order(keyed, self.descend, kvs);
        Ok(())
    }
}

fn order<K: Ord>(mut keyed: Vec<(K, Bytes)>, descend: bool, out: &mut [Bytes]) {
    if descend {
        keyed.sort_by(|(one, _), (two, _)| Reverse(one).cmp(&Reverse(two)));
    } else {
        keyed.sort_by(|(one, _), (two, _)| one.cmp(two));
    }
    for (place, (_, kv)) in out.iter_mut().zip(keyed) {
        *place = kv;
    }
}

/// Bounds on revisions, both ends included.
struct Filter {
    on: bool,
    modified: (i64, i64),
    created: (i64, i64),
}

impl Filter {
    fn new(request: &RangeRequest) -> Self {
        let bounds = |min: i64, max: i64| {
            (if min == 0 { i64::MIN } else { min }, if max == 0 { i64::MAX } else { max })
        };
        let modified = bounds(request.min_mod_revision, request.max_mod_revision);
        let created = bounds(request.min_create_revision, request.max_create_revision);
        let on = request.min_mod_revision != 0
            || request.max_mod_revision != 0
            || request.min_create_revision != 0
            || request.max_create_revision != 0;
        Self { on, modified, created }
    }

    fn admits(&self, kv: &[u8]) -> Result<bool, Fault> {
        if !self.on {
            return Ok(true);
        }
        let header = RecordHeader::new(kv)?;
        let within = |value: i64, (min, max): (i64, i64)| min <= value && value <= max;
        Ok(within(header.modified, self.modified) && within(header.create, self.created))
    }
}
