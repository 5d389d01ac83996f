//! Bytes that commands count against the quota, by etcd's estimates.

use basalt_proto::etcdserverpb::request_op::Request;
use basalt_proto::etcdserverpb::{PutRequest, RequestOp, TxnRequest};

/// etcd's estimate of the overhead of a key beside its bytes and its value.
const KEY_COST: u64 = 256;

/// Cost of a lease.
pub const LEASE_COST: u64 = 64;

/// Cost of a put.
pub fn put_cost(request: &PutRequest) -> u64 {
    KEY_COST + (request.key.len() + request.value.len()) as u64
}

/// Cost of a transaction: that of the more expensive branch.
pub fn txn_cost(request: &TxnRequest) -> u64 {
    let branch = |operations: &[RequestOp]| operations.iter().map(operation_cost).sum::<u64>();
    branch(&request.success).max(branch(&request.failure))
}

fn operation_cost(operation: &RequestOp) -> u64 {
    match &operation.request {
        Some(Request::RequestPut(put)) => put_cost(put),
        Some(Request::RequestTxn(nested)) => txn_cost(nested),
        Some(Request::RequestRange(_) | Request::RequestDeleteRange(_)) | None => 0,
    }
}
