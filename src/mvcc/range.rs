//! Ranges, at once or in steps of bounded work: reading, sorting and counting can all be interrupted.
//!
//! ```text
//!  Read ─► all versions for the answer are read ─► Count ─► Answer, in the requested order
//!   └─────► the range ended: the count is known ─────────────┘
//! ```

use std::collections::BTreeMap;

use basalt_proto::encoded::RangeResponse;
use basalt_proto::etcdserverpb::range_request::SortTarget;
use basalt_proto::etcdserverpb::{RangeRequest, ResponseHeader};
use bytes::Bytes;

use super::range_plan::{Plan, SortKey};
use super::read::{Reader, rest_after};
use super::record::Record;
use super::versions::whole;
use crate::store::{Space, View};
use crate::types::{Error, Fault, KeyRange, Refusal};

/// A range in progress.
pub(super) struct RangeRead {
    at: i64,
    range: KeyRange,
    /// The rest of the range, after the first step.
    rest: Option<KeyRange>,
    plan: Plan,
    stage: Stage,
    /// Key-values in the order in which they are read.
    kvs: Vec<Bytes>,
    /// The key-values of a range that is sorted in steps, by their sort key and the order in which they were read.
    sorted: Option<BTreeMap<(SortKey, i64), Bytes>>,
    seen: i64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Read,
    Count,
    /// The rest of the range is read to count it.
    CountRest,
    /// Everything is read, and this is the number of keys.
    Answer(i64),
}

impl RangeRead {
    /// Adds a version. True if more are wanted.
    fn take(&mut self, view: &impl View, record: Record) -> Result<bool, Fault> {
        self.seen += 1;
        if self.stage != Stage::Read {
            return Ok(true);
        }
        let heads = self.plan.keys_only && self.plan.target != SortTarget::Value;
        let record = if heads { record } else { whole(view, record)? };
        let kv = record.into_key_value();
        if !self.plan.filter.admits(&kv)? {
            return Ok(true);
        }
        if let Some(sorted) = &mut self.sorted {
            let key = (self.plan.sort_key(&kv)?, self.seen);
            sorted.insert(key, self.plan.shape(kv)?);
            return Ok(sorted.len() < self.plan.fetch);
        }
        self.kvs.push(if self.plan.target == SortTarget::Key { self.plan.shape(kv)? } else { kv });
        Ok(self.kvs.len() < self.plan.fetch)
    }

    /// Sorts the key-values. True at the end.
    fn sort(&mut self, budget: &mut usize) -> Result<bool, Fault> {
        let Some(sorted) = &mut self.sorted else {
            if self.plan.target != SortTarget::Key {
                let kvs = self.plan.sort(std::mem::take(&mut self.kvs))?;
                self.kvs =
                    kvs.into_iter().map(|kv| self.plan.shape(kv)).collect::<Result<_, _>>()?;
            }
            return Ok(true);
        };
        while *budget > 0 && !self.plan.is_enough(self.kvs.len()) {
            let Some((_, kv)) = sorted.pop_first() else { return Ok(true) };
            self.kvs.push(kv);
            *budget -= 1;
        }
        Ok(self.plan.is_enough(self.kvs.len()) || sorted.is_empty())
    }
}

impl<V: View> Reader<'_, V> {
    /// Answers a range request; the header contains the revision alone.
    pub(super) fn range(&self, request: &RangeRequest) -> Result<RangeResponse, Error> {
        let mut read = RangeRead { sorted: None, ..self.begin_range(request)? };
        let answer = self.range_step(&mut read, &mut usize::MAX.clone())?;
        answer.ok_or_else(|| Fault::new("a range did not end").into())
    }

    /// [`Reader::range`] in steps.
    pub(super) fn begin_range(&self, request: &RangeRequest) -> Result<RangeRead, Refusal> {
        let plan = Plan::new(request);
        Ok(RangeRead {
            at: self.resolve(request.revision)?,
            range: KeyRange::new(request.key.clone(), request.range_end.clone()),
            rest: None,
            stage: if plan.count_only { Stage::Count } else { Stage::Read },
            kvs: Vec::new(),
            sorted: (plan.target != SortTarget::Key).then(BTreeMap::new),
            plan,
            seen: 0,
        })
    }

    /// Continues until `budget` records were read, which are subtracted from it. Returns the answer at the end.
    pub(super) fn range_step(
        &self,
        read: &mut RangeRead,
        budget: &mut usize,
    ) -> Result<Option<RangeResponse>, Error> {
        while *budget > 0 {
            read.stage = match read.stage {
                Stage::Read => match self.read_on(read, budget)? {
                    None => return Ok(None),
                    Some(true) => Stage::Answer(read.seen),
                    Some(false) => Stage::Count,
                },
                Stage::Count => {
                    self.quick_count(read, budget)?.map_or(Stage::CountRest, Stage::Answer)
                }
                Stage::CountRest => match self.read_on(read, budget)? {
                    None => return Ok(None),
                    Some(_) => Stage::Answer(read.seen),
                },
                Stage::Answer(count) => {
                    if !read.sort(budget)? {
                        return Ok(None);
                    }
                    let response = read.plan.respond(std::mem::take(&mut read.kvs), count);
                    let header = ResponseHeader { revision: self.revision, ..Default::default() };
                    return Ok(Some(RangeResponse { header: Some(header), ..response }));
                }
            };
        }
        Ok(None)
    }

    /// The number of keys, if it can be computed without reading all of them, or more events than the budget.
    fn quick_count(&self, read: &RangeRead, budget: &mut usize) -> Result<Option<i64>, Fault> {
        if matches!(read.range, KeyRange::One(_)) || read.at >= self.revision {
            return self.count(&read.range, read.at).map(Some);
        }
        let events = i64::try_from(*budget).unwrap_or(i64::MAX);
        let events = self.count_index.records_max(&read.range).min(events);
        let Some(change) = self.change_since(&read.range, read.at, events)? else {
            return Ok(None);
        };
        *budget -= events.unsigned_abs() as usize;
        Ok(Some(self.count_index.count(self.view, &read.range)? - change))
    }

    /// True if the end of the range was reached, false if enough was read; `None` if the budget was used up before.
    fn read_on(&self, read: &mut RangeRead, budget: &mut usize) -> Result<Option<bool>, Fault> {
        if let KeyRange::One(key) = &read.range {
            let found = self.find(key, read.at)?;
            return Ok(Some(found.map_or(Ok(true), |record| read.take(self.view, record))?));
        }
        let rest = read.rest.take();
        let (from, to) = rest.as_ref().unwrap_or(&read.range).bounds();
        let mut pairs = self.view.scan(Space::Kv, from, to);
        let mut stopped = None;
        while let Some(pair) = if read.plan.backward { pairs.next_back() } else { pairs.next() } {
            let (key, record) = pair?;
            *budget -= 1;
            let wants_more = match self.live_at(Record::new(record)?, read.at)? {
                Some(record) => read.take(self.view, record)?,
                None => true,
            };
            if !wants_more || *budget == 0 {
                stopped = Some((key, wants_more));
                break;
            }
        }
        drop(pairs);
        let Some((last, wants_more)) = stopped else { return Ok(Some(true)) };
        let range = rest.unwrap_or_else(|| read.range.clone());
        read.rest = Some(rest_after(range, &last, read.plan.backward));
        Ok((!wants_more).then_some(false))
    }
}
