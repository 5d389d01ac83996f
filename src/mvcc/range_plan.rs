//! Order, limits and form of the answer to a range.

use std::cmp::Reverse;

use basalt_proto::encoded::RangeResponse;
use basalt_proto::etcdserverpb::RangeRequest;
use basalt_proto::etcdserverpb::range_request::{SortOrder, SortTarget};
use bytes::{BufMut, Bytes, BytesMut};
use prost::encoding::encode_varint;

use super::record::{LEASE, RecordHeader};
use crate::types::Fault;

/// An encoded `KeyValue` without its value. etcd 3.7 answers keys-only requests from its index, which has no leases,
/// except when it sorts by value.
pub(super) fn without_value(kv: &Bytes, keep_lease: bool) -> Result<Bytes, Fault> {
    let header = RecordHeader::new(kv)?;
    let head = kv.slice(..header.head);
    if !keep_lease || header.lease == 0 {
        return Ok(head);
    }
    let mut with_lease = BytesMut::with_capacity(head.len() + 11);
    with_lease.put(head);
    with_lease.put_u8(LEASE);
    encode_varint(header.lease.cast_unsigned(), &mut with_lease);
    Ok(with_lease.freeze())
}

/// Order and limits of reading and sorting.
pub(super) struct Plan {
    /// Number of versions to read before limit and order are applied.
    pub(super) fetch: usize,
    /// Reads from the last key to the first: the requested order, so that no sorting follows.
    pub(super) backward: bool,
    /// The field to sort by afterwards; `Key` needs no sorting.
    pub(super) target: SortTarget,
    descend: bool,
    pub(super) filter: Filter,
    pub(super) limit: usize,
    pub(super) keys_only: bool,
    pub(super) count_only: bool,
}

impl Plan {
    pub(super) fn new(request: &RangeRequest) -> Self {
        let order = request.sort_order();
        let target = request.sort_target();
        let descend = order == SortOrder::Descend;
        let filter = Filter::new(request);
        // etcd applies the limit before it sorts unless the request names an order.
        let all = target != SortTarget::Key && (order != SortOrder::None || filter.on);
        let limit = usize::try_from(request.limit).unwrap_or(0);
        let fetch = if all || limit == 0 { usize::MAX } else { limit.saturating_add(1) };
        let backward = descend && target == SortTarget::Key;
        let RangeRequest { keys_only, count_only, .. } = *request;
        Self { fetch, backward, target, descend, filter, limit, keys_only, count_only }
    }

    /// The answer with the sorted key-values, without its header.
    pub(super) fn respond(&self, mut kvs: Vec<Bytes>, count: i64) -> RangeResponse {
        let more = self.limit > 0 && kvs.len() > self.limit;
        kvs.truncate(if more { self.limit } else { kvs.len() });
        RangeResponse { header: None, kvs: kvs.into(), more, count }
    }

    /// True if so many sorted key-values are enough for the answer: one more than the limit shows that there are more.
    pub(super) fn is_enough(&self, kvs: usize) -> bool {
        self.limit > 0 && kvs > self.limit
    }

    /// A key-value in the form of the answer.
    pub(super) fn shape(&self, kv: Bytes) -> Result<Bytes, Fault> {
        match self.keys_only {
            true => without_value(&kv, self.target == SortTarget::Value),
            false => Ok(kv),
        }
    }

    /// The sort key of a key-value; ties stay in the order of keys.
    pub(super) fn sort_key(&self, kv: &Bytes) -> Result<SortKey, Fault> {
        let header = RecordHeader::new(kv)?;
        let number = match self.target {
            SortTarget::Key => return Ok(SortKey::Number(0)),
            SortTarget::Value if self.descend => {
                return Ok(SortKey::ValueDown(Reverse(kv.slice(header.value))));
            }
            SortTarget::Value => return Ok(SortKey::Value(kv.slice(header.value))),
            SortTarget::Version => header.version,
            SortTarget::Create => header.create,
            SortTarget::Mod => header.modified,
        };
        // Complementing all bits reverses the order.
        Ok(SortKey::Number(if self.descend { !number } else { number }))
    }

    /// Sorts at once.
    pub(super) fn sort(&self, kvs: Vec<Bytes>) -> Result<Vec<Bytes>, Fault> {
        if self.target == SortTarget::Key {
            return Ok(kvs);
        }
        let keyed = kvs.into_iter().map(|kv| Ok((self.sort_key(&kv)?, kv)));
        let mut keyed = keyed.collect::<Result<Vec<_>, Fault>>()?;
        keyed.sort_by(|(one, _), (two, _)| one.cmp(two));
        Ok(keyed.into_iter().map(|(_, kv)| kv).collect())
    }
}

/// Sort keys of key-values; those of one range are of one kind.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum SortKey {
    Number(i64),
    Value(Bytes),
    ValueDown(Reverse<Bytes>),
}

/// Bounds on revisions, both ends included.
pub(super) struct Filter {
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

    pub(super) fn admits(&self, kv: &[u8]) -> Result<bool, Fault> {
        if !self.on {
            return Ok(true);
        }
        let header = RecordHeader::new(kv)?;
        let within = |value: i64, (min, max): (i64, i64)| min <= value && value <= max;
        Ok(within(header.modified, self.modified) && within(header.create, self.created))
    }
}
