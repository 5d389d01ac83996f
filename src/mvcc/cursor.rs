//! A range read in chunks: for streamed ranges, and for responses that are too large to be built at once.

use basalt_proto::etcdserverpb::RangeRequest;
use bytes::Bytes;

use super::range_plan::without_value;
use super::read::Reader;
use super::record::Record;
use super::versions;
use super::{ReadView, check_range_stream};
use crate::store::{Space, View};
use crate::types::limits::RANGE_STEP_RECORDS_MAX;
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

/// The next part of a range.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chunk {
    /// Encoded `mvccpb.KeyValue`s. May be empty before the end, after a stretch of deleted keys.
    pub kvs: Vec<Bytes>,
    /// True for the last chunk; only in it the following fields are set.
    pub done: bool,
    /// True if the limit left keys out.
    pub more: bool,
    /// Number of keys in the whole range.
    pub count: i64,
}

impl Chunk {
    /// Bytes of the keys in it.
    pub fn bytes(&self) -> usize {
        self.kvs.iter().map(Bytes::len).sum()
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
    /// The next chunk: at most `keys_max` keys (at least one), and no further key once `bytes_max` is reached. `view`
    /// must be the one that made the cursor. Not to be called after the last chunk.
    ///
    /// # Errors
    /// A fault of the store.
    pub fn next<V: View>(
        &mut self,
        view: &ReadView<V>,
        keys_max: usize,
        bytes_max: usize,
    ) -> Result<Chunk, Error> {
        let cached = view.cached();
        let reader = view.reader(&cached);
        if self.count_only {
            let count = reader.count(&self.rest, self.at)?;
            return Ok(Chunk { done: true, count, ..Chunk::default() });
        }
        let mut chunk = Chunk::default();
        let ended = self.fill(&reader, keys_max, bytes_max, &mut chunk.kvs)?;
        self.returned += chunk.kvs.len().cast_signed() as i64;
        let full = self.left == Some(0);
        if ended || full {
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
        keys_max: usize,
        bytes_max: usize,
        kvs: &mut Vec<Bytes>,
    ) -> Result<bool, Fault> {
        if let KeyRange::One(key) = &self.rest {
            if let Some(record) = reader.one(key, self.at)? {
                kvs.push(self.shape(reader, record)?);
            }
            return Ok(true);
        }
        let allowed =
            self.left.map_or(usize::MAX, |left| usize::try_from(left).unwrap_or(usize::MAX));
        let keys_max = keys_max.clamp(1, allowed.max(1));
        let records_max = RANGE_STEP_RECORDS_MAX.saturating_add(keys_max);
        let (mut bytes, mut last, mut ended) = (0, None, true);
        let (from, to) = self.rest.bounds();
        for (scanned, pair) in reader.view.scan(Space::Kv, from, to).enumerate() {
            let full = kvs.len() == keys_max || (bytes >= bytes_max && !kvs.is_empty());
            if full || scanned == records_max {
                ended = false;
                break;
            }
            let (key, record) = pair?;
            last = Some(key);
            let record = versions::version_at(reader.view, Record::new(record)?, self.at)?;
            if let Some(record) = record.filter(|record| !record.is_tombstone()) {
                let kv = self.shape(reader, record)?;
                bytes += kv.len();
                kvs.push(kv);
            }
        }
        if let Some(last) = last {
            self.go_on_behind(&last, kvs.len());
        }
        Ok(ended)
    }

    fn go_on_behind(&mut self, last: &[u8], returned: usize) {
        let next = Bytes::from([last, &[0]].concat());
        if let KeyRange::Span(start, _) | KeyRange::From(start) = &mut self.rest {
            *start = next;
        }
        if let Some(left) = &mut self.left {
            *left -= returned.cast_signed() as i64;
        }
    }

    fn shape<V: View>(&self, reader: &Reader<'_, V>, record: Record) -> Result<Bytes, Fault> {
        if self.keys_only {
            return without_value(&record.into_key_value(), false);
        }
        Ok(versions::whole(reader.view, record)?.into_key_value())
    }
}
