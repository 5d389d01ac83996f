//! Checks of a request alone, without the store, in etcd's order (`server/etcdserver/api/v3rpc/key.go`).

use std::collections::{BTreeMap, BTreeSet};

use basalt_proto::etcdserverpb::range_request::{SortOrder, SortTarget};
use basalt_proto::etcdserverpb::request_op::Request;
use basalt_proto::etcdserverpb::{
    DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest,
};
use bytes::Bytes;

use crate::types::Refusal;
use crate::types::limits::KEY_BYTES_MAX;

/// Checks a range request.
///
/// # Errors
/// `EmptyKey`, `InvalidSortOption`.
pub fn check_range(request: &RangeRequest) -> Result<(), Refusal> {
    let sortable = SortOrder::try_from(request.sort_order).is_ok()
        && SortTarget::try_from(request.sort_target).is_ok();
    if request.key.is_empty() {
        Err(Refusal::EmptyKey)
    } else if !sortable {
        Err(Refusal::InvalidSortOption)
    } else {
        Ok(())
    }
}

/// Checks a range request that is to be streamed.
///
/// # Errors
/// Those of [`check_range`]; `RangeStreamSort`, `RangeStreamFilter`.
pub fn check_range_stream(request: &RangeRequest) -> Result<(), Refusal> {
    check_range(request)?;
    let natural = request.sort_order() == SortOrder::None
        || (request.sort_order() == SortOrder::Ascend && request.sort_target() == SortTarget::Key);
    let filtered = request.min_mod_revision != 0
        || request.max_mod_revision != 0
        || request.min_create_revision != 0
        || request.max_create_revision != 0;
    if !natural {
        Err(Refusal::RangeStreamSort)
    } else if filtered {
        Err(Refusal::RangeStreamFilter)
    } else {
        Ok(())
    }
}

/// Checks a put.
///
/// # Errors
/// `EmptyKey`, `ValueProvided`, `LeaseProvided`; `RequestTooLarge` for a key that no store holds, which etcd does not refuse.
pub fn check_put(request: &PutRequest) -> Result<(), Refusal> {
    if request.key.is_empty() {
        Err(Refusal::EmptyKey)
    } else if request.ignore_value && !request.value.is_empty() {
        Err(Refusal::ValueProvided)
    } else if request.ignore_lease && request.lease != 0 {
        Err(Refusal::LeaseProvided)
    } else if request.key.len() > KEY_BYTES_MAX {
        Err(Refusal::RequestTooLarge)
    } else {
        Ok(())
    }
}

/// Checks a delete.
///
/// # Errors
/// `EmptyKey`.
pub fn check_delete(request: &DeleteRangeRequest) -> Result<(), Refusal> {
    if request.key.is_empty() { Err(Refusal::EmptyKey) } else { Ok(()) }
}

/// Checks a transaction with all its operations. Nested ones may have as many operations as their parents leave of
/// `operations_max`.
///
/// # Errors
/// `TooManyOps`, `EmptyKey`, `KeyNotFound` for an empty operation, those of the operations, `DuplicateKey`.
pub fn check_txn(request: &TxnRequest, operations_max: usize) -> Result<(), Refusal> {
    check_operations(request, operations_max)?;
    Writes::default().collect(&request.success)?;
    Writes::default().collect(&request.failure)
}

fn check_operations(request: &TxnRequest, operations_max: usize) -> Result<(), Refusal> {
    let used = request.compare.len().max(request.success.len()).max(request.failure.len());
    let Some(left) = operations_max.checked_sub(used) else { return Err(Refusal::TooManyOps) };
    if request.compare.iter().any(|compare| compare.key.is_empty()) {
        return Err(Refusal::EmptyKey);
    }
    for operation in request.success.iter().chain(&request.failure) {
        match &operation.request {
            Some(Request::RequestRange(range)) => check_range(range)?,
            Some(Request::RequestPut(put)) => check_put(put)?,
            Some(Request::RequestDeleteRange(delete)) => check_delete(delete)?,
            Some(Request::RequestTxn(nested)) => check_operations(nested, left)?,
            None => return Err(Refusal::KeyNotFound),
        }
    }
    Ok(())
}

/// The writes of a branch, to detect keys that are written twice. Operations are visited in etcd's order, since the
/// result depends on it: a nested delete does not see the puts of an earlier sibling.
#[derive(Default)]
struct Writes {
    puts: BTreeSet<Bytes>,
    /// Merged intervals, start to end. etcd treats the open end (one zero byte) as an ordinary key, so that such a
    /// delete overlaps no put; the same here.
    deletes: BTreeMap<Bytes, Bytes>,
}

impl Writes {
    fn collect(&mut self, operations: &[RequestOp]) -> Result<(), Refusal> {
        // Most transactions have one operation, which cannot overlap another.
        if let [RequestOp { request: None | Some(Request::RequestRange(_)) }] | [] = operations {
            return Ok(());
        }
        for operation in operations {
            if let Some(Request::RequestDeleteRange(delete)) = &operation.request {
                self.delete(delete);
            }
        }
        for operation in operations {
            if let Some(Request::RequestTxn(nested)) = &operation.request {
                self.collect_nested(nested)?;
            }
        }
        for operation in operations {
            if let Some(Request::RequestPut(put)) = &operation.request {
                self.put(&put.key, None)?;
            }
        }
        Ok(())
    }

    fn collect_nested(&mut self, nested: &TxnRequest) -> Result<(), Refusal> {
        let mut success = Self::default();
        success.collect(&nested.success)?;
        let mut failure = Self::default();
        failure.collect(&nested.failure)?;
        for key in &success.puts {
            self.put(key, None)?;
        }
        for key in &failure.puts {
            // Only one of the two branches runs.
            self.put(key, Some(&success.puts))?;
        }
        for (start, end) in success.deletes.into_iter().chain(failure.deletes) {
            self.delete_span(start, end);
        }
        Ok(())
    }

    fn put(&mut self, key: &Bytes, allowed: Option<&BTreeSet<Bytes>>) -> Result<(), Refusal> {
        let deleted = self.deletes.range::<Bytes, _>(..=key).next_back();
        if deleted.is_some_and(|(_, end)| key < end) {
            return Err(Refusal::DuplicateKey);
        }
        let new = self.puts.insert(key.clone());
        if new || allowed.is_some_and(|allowed| allowed.contains(key)) {
            Ok(())
        } else {
            Err(Refusal::DuplicateKey)
        }
    }

    fn delete(&mut self, delete: &DeleteRangeRequest) {
        let end = if delete.range_end.is_empty() {
            [&delete.key[..], &[0]].concat().into()
        } else {
            delete.range_end.clone()
        };
        self.delete_span(delete.key.clone(), end);
    }

    fn delete_span(&mut self, mut start: Bytes, mut end: Bytes) {
        if start >= end {
            return;
        }
        while let Some((other_start, other_end)) =
            self.deletes.range::<Bytes, _>(..=&end).next_back().filter(|(_, end)| **end >= start)
        {
            let (other_start, other_end) = (other_start.clone(), other_end.clone());
            self.deletes.remove(&other_start);
            start = start.min(other_start);
            end = end.max(other_end);
        }
        self.deletes.insert(start, end);
    }
}

/// True if a transaction consists of ranges. A nested transaction counts as a write whatever it contains.
pub fn is_read_only(request: &TxnRequest) -> bool {
    all_ranges(request, |_| true)
}

/// True if any member may answer the transaction from its own state.
pub fn is_serializable(request: &TxnRequest) -> bool {
    all_ranges(request, |range| range.serializable)
}

fn all_ranges(request: &TxnRequest, fits: impl Fn(&RangeRequest) -> bool) -> bool {
    request.success.iter().chain(&request.failure).all(|operation| match &operation.request {
        Some(Request::RequestRange(range)) => fits(range),
        Some(Request::RequestPut(_) | Request::RequestDeleteRange(_) | Request::RequestTxn(_))
        | None => false,
    })
}
