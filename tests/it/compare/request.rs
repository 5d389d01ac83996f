//! One step of the comparison: a request to both servers.

use basalt_proto::etcdserverpb::{
    AlarmRequest, CompactionRequest, DeleteRangeRequest, HashKvRequest, LeaseGrantRequest,
    LeaseKeepAliveRequest, LeaseLeasesRequest, LeaseRevokeRequest, LeaseTimeToLiveRequest,
    MemberListRequest, PutRequest, RangeRequest, StatusRequest, TxnRequest, WatchCreateRequest,
};
use bytes::Bytes;
use prost::Message;

use crate::wire;

/// A request with one answer.
#[derive(Clone, Debug)]
pub(super) enum Call {
    Range(RangeRequest),
    RangeStream(RangeRequest),
    Put(PutRequest),
    DeleteRange(DeleteRangeRequest),
    Txn(TxnRequest),
    Compact(CompactionRequest),
    Grant(LeaseGrantRequest),
    Revoke(LeaseRevokeRequest),
    KeepAlive(LeaseKeepAliveRequest),
    TimeToLive(LeaseTimeToLiveRequest),
    Leases(LeaseLeasesRequest),
    Members(MemberListRequest),
    Status(StatusRequest),
    Alarm(AlarmRequest),
    HashKv(HashKvRequest),
    /// Bytes that may be no message at all.
    Garbage(&'static str, Bytes),
}

impl Call {
    pub(super) fn path(&self) -> &'static str {
        match self {
            Self::Range(_) => wire::RANGE,
            Self::RangeStream(_) => wire::RANGE_STREAM,
            Self::Put(_) => wire::PUT,
            Self::DeleteRange(_) => wire::DELETE_RANGE,
            Self::Txn(_) => wire::TXN,
            Self::Compact(_) => wire::COMPACT,
            Self::Grant(_) => wire::LEASE_GRANT,
            Self::Revoke(_) => wire::LEASE_REVOKE,
            Self::KeepAlive(_) => wire::LEASE_KEEP_ALIVE,
            Self::TimeToLive(_) => wire::LEASE_TIME_TO_LIVE,
            Self::Leases(_) => wire::LEASE_LEASES,
            Self::Members(_) => wire::MEMBER_LIST,
            Self::Status(_) => wire::STATUS,
            Self::Alarm(_) => wire::ALARM,
            Self::HashKv(_) => wire::HASH_KV,
            Self::Garbage(path, _) => path,
        }
    }

    pub(super) fn encoded(&self) -> Bytes {
        match self {
            Self::Range(it) | Self::RangeStream(it) => it.encode_to_vec().into(),
            Self::Put(it) => it.encode_to_vec().into(),
            Self::DeleteRange(it) => it.encode_to_vec().into(),
            Self::Txn(it) => it.encode_to_vec().into(),
            Self::Compact(it) => it.encode_to_vec().into(),
            Self::Grant(it) => it.encode_to_vec().into(),
            Self::Revoke(it) => it.encode_to_vec().into(),
            Self::KeepAlive(it) => it.encode_to_vec().into(),
            Self::TimeToLive(it) => it.encode_to_vec().into(),
            Self::Leases(it) => it.encode_to_vec().into(),
            Self::Members(it) => it.encode_to_vec().into(),
            Self::Status(it) => it.encode_to_vec().into(),
            Self::Alarm(it) => it.encode_to_vec().into(),
            Self::HashKv(it) => it.encode_to_vec().into(),
            Self::Garbage(_, bytes) => bytes.clone(),
        }
    }

    /// The range that garbage happens to decode to, so that its answer is judged like others.
    pub(super) fn understood(&self) -> Self {
        let Self::Garbage(path, bytes) = self else { return self.clone() };
        match *path {
            wire::RANGE => RangeRequest::decode(bytes.clone()).ok().map(Self::Range),
            wire::TXN => TxnRequest::decode(bytes.clone()).ok().map(Self::Txn),
            _ => None,
        }
        .unwrap_or_else(|| self.clone())
    }
}

/// The kinds of steps.
#[derive(Clone, Debug)]
pub(super) enum Step {
    Call(Call),
    /// A lease whose id the server chooses, revoked at once because the ids differ.
    GrantAnyId {
        ttl: i64,
    },
    Watch {
        stream: usize,
        request: WatchCreateRequest,
    },
    /// A watcher whose start is compacted, on a stream of its own: etcd never answers
    /// progress requests on a stream again that had one.
    WatchLost {
        request: WatchCreateRequest,
    },
    CancelWatch {
        stream: usize,
        id: i64,
    },
    /// Waits until every watcher of the stream has received everything, then compares the events.
    Settle {
        stream: usize,
    },
}
