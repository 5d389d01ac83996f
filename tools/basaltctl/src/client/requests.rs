//! The requests that etcdctl makes for itself.

use basalt_proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use basalt_proto::etcdserverpb::request_op::Request;
use basalt_proto::etcdserverpb::{
    Compare, DeleteRangeRequest, DeleteRangeResponse, PutRequest, PutResponse, RangeRequest,
    RangeResponse, RequestOp, TxnRequest, TxnResponse,
};
use bytes::Bytes;
use tokio::time::Instant;

use crate::client::Client;
use crate::client::error::Refusal;

/// The end of the range of all keys with this prefix; `\0`, no end, if there is none.
pub(crate) fn prefix_end(prefix: &[u8]) -> Bytes {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < 0xff {
            end.push(last + 1);
            return end.into();
        }
    }
    Bytes::from_static(b"\0")
}

pub(crate) fn get(key: impl Into<Bytes>) -> RangeRequest {
    RangeRequest { key: key.into(), ..RangeRequest::default() }
}

pub(crate) fn put(key: impl Into<Bytes>, value: impl Into<Bytes>, lease: i64) -> PutRequest {
    PutRequest { key: key.into(), value: value.into(), lease, ..PutRequest::default() }
}

pub(crate) fn delete(key: impl Into<Bytes>) -> DeleteRangeRequest {
    DeleteRangeRequest { key: key.into(), ..DeleteRangeRequest::default() }
}

pub(crate) fn op(request: Request) -> RequestOp {
    RequestOp { request: Some(request) }
}

/// The key was created at this revision; 0: it is not there.
pub(crate) fn created_at(key: impl Into<Bytes>, revision: i64) -> Compare {
    Compare {
        result: CompareResult::Equal.into(),
        target: CompareTarget::Create.into(),
        key: key.into(),
        range_end: Bytes::new(),
        target_union: Some(TargetUnion::CreateRevision(revision)),
    }
}

impl Client {
    /// # Errors
    /// See [`Client::call`].
    pub(crate) async fn get(
        &self,
        request: &RangeRequest,
        deadline: Option<Instant>,
    ) -> Result<RangeResponse, Refusal> {
        self.call("/etcdserverpb.KV/Range", request, deadline).await
    }

    /// # Errors
    /// See [`Client::call`].
    pub(crate) async fn put(
        &self,
        request: &PutRequest,
        deadline: Option<Instant>,
    ) -> Result<PutResponse, Refusal> {
        self.call("/etcdserverpb.KV/Put", request, deadline).await
    }

    /// # Errors
    /// See [`Client::call`].
    pub(crate) async fn delete(
        &self,
        request: &DeleteRangeRequest,
        deadline: Option<Instant>,
    ) -> Result<DeleteRangeResponse, Refusal> {
        self.call("/etcdserverpb.KV/DeleteRange", request, deadline).await
    }

    /// # Errors
    /// See [`Client::call`].
    pub(crate) async fn txn(&self, request: &TxnRequest) -> Result<TxnResponse, Refusal> {
        self.call("/etcdserverpb.KV/Txn", request, None).await
    }
}
