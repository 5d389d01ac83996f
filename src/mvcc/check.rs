//! What the form of a request alone decides, in the order in which etcd decides it. Nothing here looks at
//! the key space.

use std::collections::BTreeSet;

use basalt_proto::etcdserverpb::range_request::{SortOrder, SortTarget};
use basalt_proto::etcdserverpb::request_op::Request;
use basalt_proto::etcdserverpb::{
    DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest,
};
use bytes::Bytes;

use crate::types::Refusal;

/// What a key costs of the quota beside its own bytes; etcd's estimate.
const KEY_OVERHEAD_BYTES: u64 = 256;

/// Checks a range.
///
/// # Errors
/// No key, or an unknown sort option.
pub fn check_range(request: &RangeRequest) -> Result<(), Refusal> {
    if request.key.is_empty() {
        return Err(Refusal::EmptyKey);
    }
    SortOrder::try_from(request.sort_order).map_err(|_| Refusal::InvalidSortOption)?;
    SortTarget::try_from(request.sort_target).map_err(|_| Refusal::InvalidSortOption)?;
    Ok(())
}

/// Checks what cannot be streamed.
///
/// # Errors
/// As [`check_range`]; and custom orders and revision filters, which would need all keys first.
pub fn is_stream_supported(request: &RangeRequest) -> Result<(), Refusal> {
    check_range(request)?;
    let by_key = request.sort_target() == SortTarget::Key;
    let plain = match request.sort_order() {
        SortOrder::None => true,
        SortOrder::Ascend => by_key,
        SortOrder::Descend => false,
    };
    if !plain {
        return Err(Refusal::RangeStreamSort);
    }
    let filters = [
        request.min_mod_revision,
        request.max_mod_revision,
        request.min_create_revision,
        request.max_create_revision,
    ];
    if filters.iter().any(|filter| *filter != 0) {
        return Err(Refusal::RangeStreamFilter);
    }
    Ok(())
}

/// Checks a put.
///
/// # Errors
/// No key, or a value or lease together with the flag that ignores it.
pub fn check_put(request: &PutRequest) -> Result<(), Refusal> {
    if request.key.is_empty() {
        return Err(Refusal::EmptyKey);
    }
    if request.ignore_value && !request.value.is_empty() {
        return Err(Refusal::ValueProvided);
    }
    if request.ignore_lease && request.lease != 0 {
        return Err(Refusal::LeaseProvided);
    }
    Ok(())
}

/// Checks a delete.
///
/// # Errors
/// No key.
pub fn check_delete_range(request: &DeleteRangeRequest) -> Result<(), Refusal> {
    if request.key.is_empty() { Err(Refusal::EmptyKey) } else { Ok(()) }
}

/// Checks a transaction and everything in it; `ops_max` is `--max-txn-ops`.
///
/// # Errors
/// Too many operations, one that is not well-formed, or a key put twice.
pub fn check_txn(request: &TxnRequest, ops_max: usize) -> Result<(), Refusal> {
    check_ops(request, ops_max)?;
    // The two branches exclude each other.
    writes(&request.success)?;
    writes(&request.failure)?;
    Ok(())
}

fn check_ops(request: &TxnRequest, ops_max: usize) -> Result<(), Refusal> {
    let ops = request.compare.len().max(request.success.len()).max(request.failure.len());
    let left = ops_max.checked_sub(ops).ok_or(Refusal::TooManyOps)?;
    if request.compare.iter().any(|compare| compare.key.is_empty()) {
        return Err(Refusal::EmptyKey);
    }
    for op in request.success.iter().chain(&request.failure) {
        match &op.request {
            Some(Request::RequestRange(range)) => check_range(range)?,
            Some(Request::RequestPut(put)) => check_put(put)?,
            Some(Request::RequestDeleteRange(delete)) => check_delete_range(delete)?,
            Some(Request::RequestTxn(txn)) => check_ops(txn, left)?,
            None => return Err(Refusal::KeyNotFound),
        }
    }
    Ok(())
}

/// Keys put and spans deleted by a list of operations and all below it.
#[derive(Default)]
struct Writes {
    puts: BTreeSet<Bytes>,
    deletes: Vec<(Bytes, Bytes)>,
}

impl Writes {
    /// As etcd compares: an open end (a zero byte) is taken literally, and so covers nothing.
    fn deletes(&self, key: &Bytes) -> bool {
        self.deletes.iter().any(|(start, end)| match end.is_empty() {
            true => start == key,
            false => start <= key && key < end,
        })
    }

    fn put(&mut self, key: &Bytes, unless: &BTreeSet<Bytes>) -> Result<(), Refusal> {
        let twice = self.puts.contains(key) && !unless.contains(key);
        if twice || self.deletes(key) {
            return Err(Refusal::DuplicateKey);
        }
        self.puts.insert(key.clone());
        Ok(())
    }
}

fn writes(ops: &[RequestOp]) -> Result<Writes, Refusal> {
    let mut all = Writes::default();
    for op in ops {
        if let Some(Request::RequestDeleteRange(delete)) = &op.request {
            all.deletes.push((delete.key.clone(), delete.range_end.clone()));
        }
    }
    let none = BTreeSet::new();
    for op in ops {
        if let Some(Request::RequestTxn(txn)) = &op.request {
            let then = writes(&txn.success)?;
            let otherwise = writes(&txn.failure)?;
            for key in &then.puts {
                all.put(key, &none)?;
            }
            // Only one of the branches will run.
            for key in &otherwise.puts {
                all.put(key, &then.puts)?;
            }
            all.deletes.extend(then.deletes);
            all.deletes.extend(otherwise.deletes);
        }
    }
    for op in ops {
        if let Some(Request::RequestPut(put)) = &op.request {
            all.put(&put.key, &none)?;
        }
    }
    Ok(all)
}

fn ops(request: &TxnRequest) -> impl Iterator<Item = &Request> {
    let ops = request.success.iter().chain(&request.failure);
    ops.filter_map(|op| op.request.as_ref())
}

/// Whether a transaction holds nothing but ranges, and so need not go through the log. A nested
/// transaction counts as a write.
pub fn is_read_only(request: &TxnRequest) -> bool {
    ops(request).all(|op| matches!(op, Request::RequestRange(_)))
}

/// Whether a transaction may be answered from this member alone: every operation says so.
pub fn is_serializable(request: &TxnRequest) -> bool {
    ops(request).all(|op| matches!(op, Request::RequestRange(range) if range.serializable))
}

/// What a put may add to the store, in bytes, as etcd estimates it.
pub fn put_cost(request: &PutRequest) -> u64 {
    KEY_OVERHEAD_BYTES + (request.key.len() + request.value.len()) as u64
}

/// What a transaction may add: the dearer of its branches, puts alone.
pub fn txn_cost(request: &TxnRequest) -> u64 {
    let branch = |ops: &[RequestOp]| -> u64 {
        let cost = |op: &RequestOp| match &op.request {
            Some(Request::RequestPut(put)) => put_cost(put),
            Some(Request::RequestTxn(txn)) => txn_cost(txn),
            Some(Request::RequestRange(_) | Request::RequestDeleteRange(_)) | None => 0,
        };
        ops.iter().map(cost).sum()
    };
    branch(&request.success).max(branch(&request.failure))
}
