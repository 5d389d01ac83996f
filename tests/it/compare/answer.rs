//! Answers, and the permitted differences between two servers that behave the same.

use basalt_proto::etcdserverpb::{
    AlarmResponse, CompactionResponse, DeleteRangeResponse, HashKvResponse, LeaseGrantResponse,
    LeaseKeepAliveResponse, LeaseLeasesResponse, LeaseRevokeResponse, LeaseTimeToLiveResponse,
    MemberListResponse, PutResponse, RangeRequest, RangeResponse, RangeStreamResponse, RequestOp,
    ResponseHeader, ResponseOp, StatusResponse, TxnRequest, TxnResponse, request_op, response_op,
};
use basalt_proto::mvccpb::KeyValue;
use bytes::Bytes;
use prost::Message;
use tonic::{Code, Status};

use super::request::Call;
use crate::wire;

/// Go's sort orders up to this many elements like a stable sort; beyond it the order of equal
/// elements is an accident of the algorithm.
const STABLE_MAX: i64 = 12;
/// Seconds that the remaining time of a lease may differ.
const TTL_TOLERANCE: i64 = 2;

/// The decoded response.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Answer {
    Refused { code: Code, message: String },
    Undecodable(String),
    Range(RangeResponse),
    Put(PutResponse),
    DeleteRange(DeleteRangeResponse),
    Txn(TxnResponse),
    Compact(CompactionResponse),
    Grant(LeaseGrantResponse),
    Revoke(LeaseRevokeResponse),
    KeepAlive(LeaseKeepAliveResponse),
    TimeToLive(LeaseTimeToLiveResponse),
    Leases(LeaseLeasesResponse),
    Members(MemberListResponse),
    Status(StatusResponse),
    Alarm(AlarmResponse),
    HashKv(HashKvResponse),
    Unknown(Bytes),
}

impl Answer {
    pub(super) fn refused(status: &Status) -> Self {
        // Go puts a non-breaking space into some messages, depending on the build.
        let message = status.message().replace('\u{a0}', " ");
        Self::Refused { code: status.code(), message }
    }

    pub(super) fn decode(call: &Call, outcome: Result<Bytes, Status>) -> Self {
        let bytes = match outcome {
            Ok(bytes) => bytes,
            Err(status) => return Self::refused(&status),
        };
        let path = call.path();
        let decoded = match path {
            wire::RANGE => RangeResponse::decode(bytes).map(Self::Range),
            wire::PUT => PutResponse::decode(bytes).map(Self::Put),
            wire::DELETE_RANGE => DeleteRangeResponse::decode(bytes).map(Self::DeleteRange),
            wire::TXN => TxnResponse::decode(bytes).map(Self::Txn),
            wire::COMPACT => CompactionResponse::decode(bytes).map(Self::Compact),
            wire::LEASE_GRANT => LeaseGrantResponse::decode(bytes).map(Self::Grant),
            wire::LEASE_REVOKE => LeaseRevokeResponse::decode(bytes).map(Self::Revoke),
            wire::LEASE_KEEP_ALIVE => LeaseKeepAliveResponse::decode(bytes).map(Self::KeepAlive),
            wire::LEASE_TIME_TO_LIVE => {
                LeaseTimeToLiveResponse::decode(bytes).map(Self::TimeToLive)
            }
            wire::LEASE_LEASES => LeaseLeasesResponse::decode(bytes).map(Self::Leases),
            wire::MEMBER_LIST => MemberListResponse::decode(bytes).map(Self::Members),
            wire::STATUS => StatusResponse::decode(bytes).map(Self::Status),
            wire::ALARM => AlarmResponse::decode(bytes).map(Self::Alarm),
            wire::HASH_KV => HashKvResponse::decode(bytes).map(Self::HashKv),
            _ => Ok(Self::Unknown(bytes)),
        };
        decoded.unwrap_or_else(|error| Self::Undecodable(error.to_string()))
    }

    /// The chunks of a stream joined; their boundaries are the server's choice, but only the
    /// last one may carry the header.
    pub(super) fn joined(outcome: Result<Vec<Bytes>, Status>) -> Self {
        let chunks = match outcome {
            Ok(chunks) => chunks,
            Err(status) => return Self::refused(&status),
        };
        let mut whole = RangeResponse::default();
        for chunk in chunks {
            let Ok(RangeStreamResponse { range_response: Some(part) }) =
                RangeStreamResponse::decode(chunk)
            else {
                return Self::Undecodable("a chunk without a range response".to_owned());
            };
            if whole.header.is_some() {
                return Self::Undecodable("a chunk behind the one with the header".to_owned());
            }
            whole.kvs.extend(part.kvs);
            whole.header = part.header;
            whole.more = part.more;
            whole.count = part.count;
        }
        Self::Range(whole)
    }

    pub(super) fn header(&self) -> Option<&ResponseHeader> {
        match self {
            Self::Refused { .. } | Self::Undecodable(_) | Self::Unknown(_) => None,
            Self::Range(it) => it.header.as_ref(),
            Self::Put(it) => it.header.as_ref(),
            Self::DeleteRange(it) => it.header.as_ref(),
            Self::Txn(it) => it.header.as_ref(),
            Self::Compact(it) => it.header.as_ref(),
            Self::Grant(it) => it.header.as_ref(),
            Self::Revoke(it) => it.header.as_ref(),
            Self::KeepAlive(it) => it.header.as_ref(),
            Self::TimeToLive(it) => it.header.as_ref(),
            Self::Leases(it) => it.header.as_ref(),
            Self::Members(it) => it.header.as_ref(),
            Self::Status(it) => it.header.as_ref(),
            Self::Alarm(it) => it.header.as_ref(),
            Self::HashKv(it) => it.header.as_ref(),
        }
    }

    fn header_mut(&mut self) -> Option<&mut ResponseHeader> {
        match self {
            Self::Refused { .. } | Self::Undecodable(_) | Self::Unknown(_) => None,
            Self::Range(it) => it.header.as_mut(),
            Self::Put(it) => it.header.as_mut(),
            Self::DeleteRange(it) => it.header.as_mut(),
            Self::Txn(it) => it.header.as_mut(),
            Self::Compact(it) => it.header.as_mut(),
            Self::Grant(it) => it.header.as_mut(),
            Self::Revoke(it) => it.header.as_mut(),
            Self::KeepAlive(it) => it.header.as_mut(),
            Self::TimeToLive(it) => it.header.as_mut(),
            Self::Leases(it) => it.header.as_mut(),
            Self::Members(it) => it.header.as_mut(),
            Self::Status(it) => it.header.as_mut(),
            Self::Alarm(it) => it.header.as_mut(),
            Self::HashKv(it) => it.header.as_mut(),
        }
    }

    /// Removes the fields that differ between two runs of the same server.
    fn without_accidents(&mut self) {
        if let Some(header) = self.header_mut() {
            header.raft_term = u64::from(header.raft_term > 0);
        }
        if let Self::Status(it) = self {
            it.raft_term = u64::from(it.raft_term > 0);
            // Decided some seconds after the start; a scripted test waits for it.
            it.storage_version.clear();
            let sane = it.raft_applied_index > 0 && it.raft_applied_index <= it.raft_index;
            (it.raft_index, it.raft_applied_index) = (u64::from(sane), u64::from(sane));
            let sane = it.db_size_in_use > 0 && it.db_size_in_use <= it.db_size;
            (it.db_size, it.db_size_in_use) = (i64::from(sane), i64::from(sane));
        }
        // etcd lists the keys of a lease in the order of a Go map, and leases that were granted in
        // the same moment in any order.
        if let Self::TimeToLive(it) = self {
            it.keys.sort();
        }
        if let Self::Leases(it) = self {
            it.leases.sort_by_key(|lease| lease.id);
        }
    }
}

/// Removes the permitted differences from both answers; the rest must be equal.
pub(super) fn reconcile(call: &Call, left: &mut Answer, right: &mut Answer) {
    left.without_accidents();
    right.without_accidents();
    match (call.understood(), left, right) {
        (Call::Range(request), Answer::Range(left), Answer::Range(right)) => {
            reconcile_range(&request, left, right);
        }
        (Call::Txn(request), Answer::Txn(left), Answer::Txn(right)) => {
            reconcile_txn(&request, left, right);
        }
        (_, Answer::TimeToLive(left), Answer::TimeToLive(right)) => {
            let near = (left.ttl - right.ttl).abs() <= TTL_TOLERANCE;
            let both_alive = left.ttl > 0 && right.ttl > 0;
            if near && both_alive {
                right.ttl = left.ttl;
            }
        }
        _ => (),
    }
}

/// True if a transaction deleted keys and put some, perhaps the same.
pub(super) fn deletes_and_puts(answer: &TxnResponse) -> bool {
    use response_op::Response::{ResponseDeleteRange, ResponsePut, ResponseTxn};
    fn kinds(answer: &TxnResponse) -> (bool, bool) {
        let each = answer.responses.iter().map(|op| match &op.response {
            Some(ResponseDeleteRange(it)) => (it.deleted > 0, false),
            Some(ResponsePut(_)) => (false, true),
            Some(ResponseTxn(it)) => kinds(it),
            _ => (false, false),
        });
        each.fold((false, false), |all, it| (all.0 || it.0, all.1 || it.1))
    }
    kinds(answer) == (true, true)
}

fn reconcile_txn(request: &TxnRequest, left: &mut TxnResponse, right: &mut TxnResponse) {
    if left.succeeded != right.succeeded {
        return;
    }
    let branch = if left.succeeded { &request.success } else { &request.failure };
    for ((op, left), right) in branch.iter().zip(&mut left.responses).zip(&mut right.responses) {
        reconcile_op(op, left, right);
    }
}

fn reconcile_op(op: &RequestOp, left: &mut ResponseOp, right: &mut ResponseOp) {
    use request_op::Request::{RequestRange, RequestTxn};
    use response_op::Response::{ResponseRange, ResponseTxn};
    match (&op.request, &mut left.response, &mut right.response) {
        (Some(RequestRange(op)), Some(ResponseRange(left)), Some(ResponseRange(right))) => {
            reconcile_range(op, left, right);
        }
        (Some(RequestTxn(op)), Some(ResponseTxn(left)), Some(ResponseTxn(right))) => {
            reconcile_txn(op, left, right);
        }
        _ => (),
    }
}

/// Keeps of each record only the sort key, if equal records may be in any order.
fn reconcile_range(request: &RangeRequest, left: &mut RangeResponse, right: &mut RangeResponse) {
    let by_key = request.sort_target == 0;
    if by_key || left.count <= STABLE_MAX || right.count <= STABLE_MAX {
        return;
    }
    for kv in left.kvs.iter_mut().chain(&mut right.kvs) {
        *kv = match request.sort_target {
            1 => KeyValue { version: kv.version, ..Default::default() },
            2 => KeyValue { create_revision: kv.create_revision, ..Default::default() },
            3 => KeyValue { mod_revision: kv.mod_revision, ..Default::default() },
            _ => KeyValue { value: kv.value.clone(), ..Default::default() },
        };
    }
}
