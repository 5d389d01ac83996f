//! What is asked of a request before it is proposed: whether its bytes are a message, and whether its form is right. What
//! passes here is in the log for good, so whoever applies it must be able to read it: `tests/it/readable.rs` holds that.

use basalt_proto::etcdserverpb::{
    CompactionRequest, DeleteRangeRequest, InternalRaftRequest, LeaseGrantRequest, PutRequest,
    TxnRequest,
};
use basalt_proto::nested::is_too_deep;
use bytes::Bytes;
use prost::Message;
use tonic::Status;

use super::go_errors::decode_error;
use super::status;
use crate::mvcc::{check_delete, check_put, check_txn, is_read_only};
use crate::types::Refusal;
use crate::types::limits::LEASE_TTL_MAX;

/// Reads a request.
///
/// # Errors
/// It is no such message, in grpc-go's words. For transactions that are nested too deep to be read it is what etcd answers:
/// each of them is an operation of the one around it, and there are more than `--max-txn-ops`.
pub fn read<Q: Message + Default>(message: Bytes) -> Result<Q, Status> {
    Q::decode(message).map_err(|error| {
        if is_too_deep(&error) {
            return status(Refusal::TooManyOps);
        }
        let why = decode_error(&error.to_string());
        Status::internal(format!("grpc: error unmarshalling request: {why}"))
    })
}

/// # Errors
/// Those of [`check_put`].
pub fn put(request: PutRequest) -> Result<InternalRaftRequest, Refusal> {
    check_put(&request)?;
    Ok(InternalRaftRequest { put: Some(request), ..InternalRaftRequest::default() })
}

/// # Errors
/// Those of [`check_delete`].
pub fn delete_range(request: DeleteRangeRequest) -> Result<InternalRaftRequest, Refusal> {
    check_delete(&request)?;
    Ok(InternalRaftRequest { delete_range: Some(request), ..InternalRaftRequest::default() })
}

/// Where a transaction is answered.
pub enum Txn {
    /// It only reads: from the state that is there.
    Read(TxnRequest),
    /// By those who apply it.
    Write(TxnRequest),
}

/// # Errors
/// Those of [`check_txn`].
pub fn txn(request: TxnRequest, operations_max: usize) -> Result<Txn, Refusal> {
    check_txn(&request, operations_max)?;
    Ok(if is_read_only(&request) { Txn::Read(request) } else { Txn::Write(request) })
}

/// A compaction has no form that is wrong.
pub fn compaction(request: CompactionRequest) -> InternalRaftRequest {
    InternalRaftRequest { compaction: Some(request), ..InternalRaftRequest::default() }
}

/// A grant of a lease whose id was chosen.
///
/// # Errors
/// `LeaseTTLTooLarge`.
pub fn lease_grant(request: LeaseGrantRequest) -> Result<InternalRaftRequest, Refusal> {
    if request.ttl > LEASE_TTL_MAX {
        return Err(Refusal::LeaseTTLTooLarge);
    }
    Ok(InternalRaftRequest { lease_grant: Some(request), ..InternalRaftRequest::default() })
}
