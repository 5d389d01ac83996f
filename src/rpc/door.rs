//! Validation of a request before it is proposed: its bytes must be a message, and its form valid. A proposal that
//! passes stays in the log, so that every member must be able to decode it: `tests/it/readable.rs` tests that.

use basalt_proto::etcdserverpb::{
    CompactionRequest, DeleteRangeRequest, LeaseGrantRequest, PutRequest, TxnRequest,
};
use basalt_proto::nested::is_too_deep;
use bytes::Bytes;
use prost::Message;
use tonic::Status;

use super::go_errors::decode_error;
use super::status;
use crate::command::Command;
use crate::mvcc::{check_delete, check_put, check_txn, is_read_only};
use crate::types::Refusal;
use crate::types::limits::{LEASE_TTL_MAX, LEASES_MAX};

/// Decodes a request.
///
/// # Errors
/// The bytes are not such a message; the text is grpc-go's. For transactions that are nested too deep it is etcd's
/// error for more than `--max-txn-ops` operations, since each nested one is an operation of the outer one.
pub fn read<Q: Message + Default>(message: Bytes) -> Result<Q, Status> {
    Q::decode(message).map_err(|error| {
        if is_too_deep(&error) {
            return status(Refusal::TooManyOps);
        }
        let why = decode_error(&error.to_string());
        Status::internal(format!("grpc: error unmarshalling request: {why}"))
    })
}

/// Checks that there may be one more lease. Members that are asked at the same time may exceed the bound a little: an entry
/// is not refused for it, so that all members apply it alike, whatever their version.
///
/// # Errors
/// There are too many.
pub fn room_for_lease(leases: usize) -> Result<(), Refusal> {
    if leases < LEASES_MAX { Ok(()) } else { Err(Refusal::TooManyLeases) }
}

/// The command of a put.
///
/// # Errors
/// Those of [`check_put`].
pub fn put(request: PutRequest) -> Result<Command, Refusal> {
    check_put(&request)?;
    Ok(Command::Put(request))
}

/// The command of a delete.
///
/// # Errors
/// Those of [`check_delete`].
pub fn delete_range(request: DeleteRangeRequest) -> Result<Command, Refusal> {
    check_delete(&request)?;
    Ok(Command::DeleteRange(request))
}

/// The way in which a transaction is answered.
pub enum Txn {
    /// From the published state: it only reads.
    Read(TxnRequest),
    /// By its application: it may write.
    Write(TxnRequest),
}

/// Validates a transaction.
///
/// # Errors
/// Those of [`check_txn`].
pub fn txn(request: TxnRequest, operations_max: usize) -> Result<Txn, Refusal> {
    check_txn(&request, operations_max)?;
    Ok(if is_read_only(&request) { Txn::Read(request) } else { Txn::Write(request) })
}

/// The command of a compaction, whose form is always valid.
pub fn compaction(request: CompactionRequest) -> Command {
    Command::Compaction(request)
}

/// The command of a lease grant with an id, of `ttl_min` seconds at least.
///
/// # Errors
/// `LeaseTTLTooLarge`.
pub fn lease_grant(mut request: LeaseGrantRequest, ttl_min: i64) -> Result<Command, Refusal> {
    if request.ttl > LEASE_TTL_MAX {
        return Err(Refusal::LeaseTTLTooLarge);
    }
    request.ttl = request.ttl.max(ttl_min);
    Ok(Command::LeaseGrant(request))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leases_are_refused_when_there_are_too_many() {
        assert_eq!(room_for_lease(LEASES_MAX - 1), Ok(()));
        assert_eq!(room_for_lease(LEASES_MAX), Err(Refusal::TooManyLeases));
    }
}
