//! `etcdserverpb.KV`.

use std::sync::Arc;
use std::time::Duration;

use basalt_proto::encoded::{
    DeleteRangeResponse, PutResponse, RangeResponse, RangeStreamResponse, TxnResponse,
};
use basalt_proto::etcdserverpb::{
    CompactionRequest, CompactionResponse, DeleteRangeRequest, PutRequest, RangeRequest, TxnRequest,
};
use basalt_proto::server::etcdserverpb::kv_server;
use futures_lite::Stream;
use tonic::{Request, Response, Status, async_trait};

use super::budget::Reservation;
use super::call::ReadOnly;
use super::credentials::Credentials;
use super::door::{self, Txn};
use super::range::{Chunks, range, read_txn, single_chunk};
use super::{check_quota, complete, mismatch, refuse_learner, status};
use crate::actors::slow_apply::warn_if_slow;
use crate::actors::{ReplicaClient, State};
use crate::auth::{Action, AuthInfo, Capability, NoAttachedKeys};
use crate::command::{Command, put_cost, txn_cost};
use crate::io::clock::Instant;
use crate::machine::Reply;
use crate::metrics;
use crate::mvcc;

/// Time after which a read index counts as slow; etcd retries after the same time.
const READ_INDEX_SLOW: Duration = Duration::from_millis(500);

#[derive(Clone)]
pub(super) struct Kv(pub(super) ReplicaClient);

impl Kv {
    /// The state that a read may use, and who reads.
    async fn state(
        &self,
        credentials: &Credentials,
        serializable: bool,
    ) -> Result<(Arc<State>, Option<AuthInfo>), Status> {
        if !serializable {
            let began = Instant::now();
            self.0.read_index().await.map_err(status)?;
            if began.elapsed() > READ_INDEX_SLOW {
                metrics::READ_INDEXES_SLOW.add(1);
            }
        }
        let who = credentials.identify(&self.0).await.map_err(status)?;
        Ok((self.0.state(), who))
    }

    /// The state that this range may use.
    async fn state_for(
        &self,
        credentials: &Credentials,
        request: &RangeRequest,
    ) -> Result<Arc<State>, Status> {
        let (state, who) = self.state(credentials, request.serializable).await?;
        Credentials::check_read(&state, who.as_ref(), |permissions, who| {
            permissions.check_range(who, Action::Read, &request.key, &request.range_end)
        })?;
        Ok(state)
    }
}

/// A response, with its part of the budget.
fn with_permit<T>(answer: T, taken: Reservation) -> Response<T> {
    let mut response = Response::new(answer);
    if let Some(permit) = taken.permit() {
        response.extensions_mut().insert(permit);
    }
    response
}

#[async_trait]
impl kv_server::Kv for Kv {
    async fn range(
        &self,
        request: Request<RangeRequest>,
    ) -> Result<Response<RangeResponse>, Status> {
        let credentials = Credentials::of(&request);
        let request = request.into_inner();
        if !request.serializable {
            refuse_learner(&self.0).map_err(status)?;
        }
        mvcc::check_range(&request).map_err(status)?;
        let state = self.state_for(&credentials, &request).await?;
        let mut taken = Reservation::new();
        let began = Instant::now();
        let read = range(&state, &request, &mut taken).await;
        let took = began.elapsed();
        metrics::ranged(read.is_ok(), took.as_secs_f64());
        warn_if_slow(took, self.0.node().slow_apply, "read-only range ", "Range");
        let mut response = read?;
        metrics::RANGES.add(1);
        complete(&self.0, &mut response.header);
        Ok(with_permit(response, taken))
    }

    type RangeStreamStream =
        std::pin::Pin<Box<dyn Stream<Item = Result<RangeStreamResponse, Status>> + Send>>;

    async fn range_stream(
        &self,
        request: Request<RangeRequest>,
    ) -> Result<Response<Self::RangeStreamStream>, Status> {
        let credentials = Credentials::of(&request);
        let request = request.into_inner();
        mvcc::check_range_stream(&request).map_err(status)?;
        let state = self.state_for(&credentials, &request).await?;
        metrics::RANGES.add(1);
        let mut taken = Reservation::new();
        if let Some(mut response) = single_chunk(&state, &request, &mut taken).await? {
            complete(&self.0, &mut response.header);
            let one = RangeStreamResponse { range_response: Some(response) };
            let stream: Self::RangeStreamStream = Box::pin(futures_lite::stream::once(Ok(one)));
            return Ok(with_permit(stream, taken));
        }
        drop(taken);
        let chunks = Chunks::open(self.0.clone(), state, &request)?;
        let stream = futures_lite::stream::unfold(Some(chunks), |chunks| async move {
            let mut chunks = chunks?;
            match chunks.next().await {
                Ok((response, done)) => Some((Ok(response), (!done).then_some(chunks))),
                Err(status) => Some((Err(status), None)),
            }
        });
        Ok(Response::new(Box::pin(stream)))
    }

    async fn put(&self, request: Request<PutRequest>) -> Result<Response<PutResponse>, Status> {
        let credentials = Credentials::of(&request);
        let request = request.into_inner();
        // The quota is checked before the form, as in etcd.
        check_quota(&self.0, put_cost(&request)).await?;
        let request = door::put(request).map_err(status)?;
        let Reply::Put(mut response) = credentials.propose(&self.0, request).await? else {
            return Err(mismatch());
        };
        complete(&self.0, &mut response.header);
        Ok(Response::new(response))
    }

    async fn delete_range(
        &self,
        request: Request<DeleteRangeRequest>,
    ) -> Result<Response<DeleteRangeResponse>, Status> {
        let credentials = Credentials::of(&request);
        let request = door::delete_range(request.into_inner()).map_err(status)?;
        let Reply::DeleteRange(mut response) = credentials.propose(&self.0, request).await? else {
            return Err(mismatch());
        };
        complete(&self.0, &mut response.header);
        Ok(Response::new(response))
    }

    async fn txn(&self, request: Request<TxnRequest>) -> Result<Response<TxnResponse>, Status> {
        let credentials = Credentials::of(&request);
        let request = request.into_inner();
        check_quota(&self.0, txn_cost(&request)).await?;
        let request = match door::txn(request, self.0.node().max_txn_ops).map_err(status)? {
            Txn::Write(txn) => Command::Txn(txn),
            Txn::Read(request) => {
                let is_serializable = mvcc::is_serializable(&request);
                let (state, who) = self.state(&credentials, is_serializable).await?;
                Credentials::check_read(&state, who.as_ref(), |permissions, who| {
                    permissions.check_txn(who, &request, &NoAttachedKeys)
                })?;
                let mut taken = Reservation::new();
                let mut answer = read_txn(state, request, &mut taken).await?;
                complete(&self.0, &mut answer.header);
                let mut response = with_permit(answer, taken);
                response.extensions_mut().insert(ReadOnly);
                return Ok(response);
            }
        };
        let Reply::Txn(mut response) = credentials.propose(&self.0, request).await? else {
            return Err(mismatch());
        };
        complete(&self.0, &mut response.header);
        Ok(Response::new(response))
    }

    async fn compact(
        &self,
        request: Request<CompactionRequest>,
    ) -> Result<Response<CompactionResponse>, Status> {
        let credentials = Credentials::of(&request);
        let request = request.into_inner();
        credentials.require_capability(&self.0, Capability::Compact).await?;
        let physical = request.physical;
        let request = door::compaction(request);
        let Reply::Compact { revision } = credentials.propose(&self.0, request).await? else {
            return Err(mismatch());
        };
        if physical {
            self.0.compaction_done().await;
        }
        let mut response = CompactionResponse::default();
        response.header.get_or_insert_default().revision = revision;
        complete(&self.0, &mut response.header);
        Ok(Response::new(response))
    }
}
