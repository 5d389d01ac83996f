//! Reading: one key, many keys, now or in the past.

use std::cmp::Reverse;

use basalt_proto::encoded::RangeResponse;
use basalt_proto::etcdserverpb::RangeRequest;
use basalt_proto::etcdserverpb::ResponseHeader;
use basalt_proto::etcdserverpb::range_request::{SortOrder, SortTarget};
use bytes::Bytes;

use super::ReadView;
use super::cache::RecordCache;
use super::fences::Fences;
use super::record::Record;
use crate::store::{Space, View};
use crate::types::{Error, Fault, KeyRange, Refusal, Revision};

/// What a read looks at: a published view, or the batch that is being applied.
pub(super) struct Source<'a, V> {
    pub(super) view: &'a V,
    /// The newest revision in `view`.
    pub(super) revision: i64,
    pub(super) compacted: i64,
    pub(super) fences: &'a Fences,
    pub(super) cache: &'a RecordCache,
    /// Cached records up to here are in `view`.
    pub(super) cached: i64,
}

impl<V: View> ReadView<V> {
    pub(super) fn source(&self) -> Source<'_, V> {
        Source {
            view: &self.view,
            revision: self.revision,
            compacted: self.compacted,
            fences: &self.fences,
            cache: &self.cache,
            cached: self.revision,
        }
    }

    /// Answers a range; the header holds the revision alone.
    ///
    /// # Errors
    /// The revision asked for is compacted or in the future.
    pub fn range(&self, request: &RangeRequest) -> Result<RangeResponse, Error> {
        self.source().range(request)
    }

    /// Opens a range that is read in chunks. What [`super::is_stream_supported`] refuses must not get
    /// here: sorting and filters need all keys at once.
    ///
    /// # Errors
    /// The revision asked for is compacted or in the future.
    pub fn range_cursor(&self, request: &RangeRequest) -> Result<RangeCursor, Error> {
        let at = self.source().resolve(request.revision)?;
        Ok(RangeCursor {
            range: KeyRange::new(request.key.clone(), request.range_end.clone()),
            at,
            left: if request.limit > 0 { request.limit as u64 } else { u64::MAX },
            keys_only: request.keys_only,
        })
    }

    /// Live keys in the range of `request` at its revision.
    ///
    /// # Errors
    /// The revision asked for is compacted or in the future.
    pub fn count(&self, request: &RangeRequest) -> Result<u64, Error> {
        let source = self.source();
        let at = source.resolve(request.revision)?;
        let range = KeyRange::new(request.key.clone(), request.range_end.clone());
        Ok(source.count(&range, at)?)
    }
}

/// A range on its way, bound to no view: the caller brings the one it pinned.
#[derive(Clone, Debug)]
pub struct RangeCursor {
    range: KeyRange,
    at: i64,
    left: u64,
    keys_only: bool,
}

/// Some consecutive keys of a range.
#[derive(Clone, Debug, Default)]
pub struct Chunk {
    /// Encoded `mvccpb.KeyValue`s.
    pub kvs: Vec<Bytes>,
    /// Their bytes.
    pub bytes: usize,
    /// Whether these are the last.
    pub done: bool,
    /// Whether the limit of the request left keys out. Only set with `done`.
    pub more: bool,
}

impl RangeCursor {
    /// The next keys: at least one if there is one, then as many as fit both bounds.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn next<V: View>(
        &mut self,
        view: &ReadView<V>,
        keys_max: usize,
        bytes_max: usize,
    ) -> Result<Chunk, Fault> {
        let mut chunk = Chunk::default();
        let source = view.source();
        let mut last = None;
        for record in source.records(&self.range, self.at) {
            let record = record?;
            if self.left == 0 {
                (chunk.done, chunk.more) = (true, true);
                return Ok(chunk);
            }
            let full = chunk.kvs.len() >= keys_max || chunk.bytes >= bytes_max;
            if full && let Some(last) = last {
                self.range = after(&self.range, last);
                return Ok(chunk);
            }
            let kv = if self.keys_only { record.kv_without_value() } else { record.kv() };
            chunk.bytes += kv.len();
            chunk.kvs.push(kv);
            self.left -= 1;
            last = Some(record.key());
        }
        chunk.done = true;
        Ok(chunk)
    }
}

/// What is left of `range` after `key`.
fn after(range: &KeyRange, key: Bytes) -> KeyRange {
    let mut next = Vec::with_capacity(key.len() + 1);
    next.extend_from_slice(&key);
    next.push(0);
    match range {
        KeyRange::One(_) => KeyRange::Span(next.clone().into(), next.into()),
        KeyRange::Span(_, end) => KeyRange::Span(next.into(), end.clone()),
        KeyRange::From(_) => KeyRange::From(next.into()),
    }
}

impl<V: View> Source<'_, V> {
    /// The revision that a request means, if it can be read.
    pub(super) fn resolve(&self, asked: i64) -> Result<i64, Refusal> {
        if asked > self.revision {
            return Err(Refusal::FutureRev);
        }
        let at = if asked <= 0 { self.revision } else { asked };
        if at < self.compacted { Err(Refusal::Compacted) } else { Ok(at) }
    }

    pub(super) fn range(&self, request: &RangeRequest) -> Result<RangeResponse, Error> {
        let at = self.resolve(request.revision)?;
        let range = KeyRange::new(request.key.clone(), request.range_end.clone());
        let header = ResponseHeader { revision: self.revision, ..ResponseHeader::default() };
        let mut answer = RangeResponse { header: Some(header), ..RangeResponse::default() };
        if request.count_only {
            answer.count = self.count(&range, at)? as i64;
            return Ok(answer);
        }
        let plan = Plan::new(request);
        let mut records = self.take(&range, at, plan.fetch)?;
        let all_seen = plan.fetch.is_none_or(|fetch| records.len() < fetch);
        answer.count = if all_seen { records.len() as i64 } else { self.count(&range, at)? as i64 };
        plan.filter(request, &mut records);
        plan.sort(&mut records);
        if request.limit > 0 && records.len() as i64 > request.limit {
            records.truncate(request.limit as usize);
            answer.more = true;
        }
        answer.kvs = records.iter().map(|record| plan.encode(record)).collect();
        Ok(answer)
    }

    fn take(&self, range: &KeyRange, at: i64, fetch: Option<usize>) -> Result<Vec<Record>, Fault> {
        if let KeyRange::One(key) = range {
            return Ok(self.get(key, at)?.into_iter().collect());
        }
        self.records(range, at).take(fetch.unwrap_or(usize::MAX)).collect()
    }

    /// The version of a key that lives at a revision.
    pub(super) fn get(&self, key: &[u8], at: i64) -> Result<Option<Record>, Fault> {
        match self.newest(key)? {
            Some(record) => self.as_of(record, at),
            None => Ok(None),
        }
    }

    /// The newest version of a key, tombstones too.
    pub(super) fn newest(&self, key: &[u8]) -> Result<Option<Record>, Fault> {
        if let Some(written) = self.view.written(Space::Kv, key) {
            return written.clone().map(Record::parse).transpose();
        }
        if let Some(record) = self.cache.get(key, self.cached) {
            return Ok(Some(record));
        }
        self.view.get(Space::Kv, key)?.map(Record::parse).transpose()
    }

    /// From the newest version back to the one at a revision; `None` if the key did not live then.
    fn as_of(&self, mut record: Record, at: i64) -> Result<Option<Record>, Fault> {
        while record.modified > at {
            let Some(link) = record.toward(at) else { return Ok(None) };
            // What compaction took away did not live at any revision that can be read.
            let Some(older) = self.logged(link)? else { return Ok(None) };
            record = older;
        }
        Ok((!record.tombstone).then_some(record))
    }

    /// A version by its place in history; `None` if compaction took it.
    pub(super) fn logged(&self, at: Revision) -> Result<Option<Record>, Fault> {
        self.view.get(Space::Log, &at.to_key())?.map(Record::parse).transpose()
    }

    /// The live versions in a range at a revision, in key order.
    pub(super) fn records<'a>(
        &'a self,
        range: &KeyRange,
        at: i64,
    ) -> impl Iterator<Item = Result<Record, Fault>> + 'a {
        let (from, to) = range.bounds();
        self.view.scan(Space::Kv, from, to).filter_map(move |pair| {
            let record = pair.and_then(|(_, bytes)| Record::parse(bytes));
            match record {
                Ok(record) if record.modified <= at => (!record.tombstone).then_some(Ok(record)),
                Ok(record) => self.as_of(record, at).transpose(),
                Err(fault) => Some(Err(fault)),
            }
        })
    }
}

/// How a request's options are carried out: etcd sorts and filters after fetching, and lifts the limit for
/// that, but not for a sort target without an order.
struct Plan {
    fetch: Option<usize>,
    sort: Option<(SortTarget, bool)>,
    keys_only: bool,
    with_lease: bool,
}

impl Plan {
    fn new(request: &RangeRequest) -> Self {
        let order = request.sort_order();
        let target = request.sort_target();
        let plain =
            order == SortOrder::None || (target == SortTarget::Key && order == SortOrder::Ascend);
        let filtered = request.min_mod_revision != 0
            || request.max_mod_revision != 0
            || request.min_create_revision != 0
            || request.max_create_revision != 0;
        let limited = request.limit > 0 && plain && !filtered;
        let sort = match (target, order) {
            (SortTarget::Key, SortOrder::None | SortOrder::Ascend) => None,
            (target, order) => Some((target, order == SortOrder::Descend)),
        };
        Self {
            fetch: limited.then(|| request.limit.saturating_add(1) as usize),
            sort,
            keys_only: request.keys_only,
            with_lease: target == SortTarget::Value,
        }
    }

    fn filter(&self, request: &RangeRequest, records: &mut Vec<Record>) {
        let outside =
            |value: i64, min: i64, max: i64| (max != 0 && value > max) || (min != 0 && value < min);
        records.retain(|record| {
            !outside(record.modified, request.min_mod_revision, request.max_mod_revision)
                && !outside(record.create, request.min_create_revision, request.max_create_revision)
        });
    }

    fn sort(&self, records: &mut [Record]) {
        let Some((target, descending)) = self.sort else { return };
        let number = |record: &Record| match target {
            SortTarget::Version => record.version,
            SortTarget::Create => record.create,
            SortTarget::Mod => record.modified,
            SortTarget::Key | SortTarget::Value => 0,
        };
        match (target, descending) {
            (SortTarget::Key, _) => records.reverse(),
            (SortTarget::Value, false) => records.sort_by(|a, b| a.value().cmp(b.value())),
            (SortTarget::Value, true) => records.sort_by(|a, b| b.value().cmp(a.value())),
            (SortTarget::Version | SortTarget::Create | SortTarget::Mod, false) => {
                records.sort_by_key(number);
            }
            (SortTarget::Version | SortTarget::Create | SortTarget::Mod, true) => {
                records.sort_by_key(|record| Reverse(number(record)));
            }
        }
    }

    fn encode(&self, record: &Record) -> Bytes {
        match (self.keys_only, self.with_lease) {
            (false, _) => record.kv(),
            (true, false) => record.kv_without_value(),
            (true, true) => record.kv_without_value_but_lease(),
        }
    }
}
