//! `etcdserverpb.KV`.

use std::sync::Arc;

use basalt_proto::encoded::{
    DeleteRangeResponse, PutResponse, RangeResponse, RangeStreamResponse, TxnResponse,
};
use basalt_proto::etcdserverpb::alarm_request::AlarmAction;
use basalt_proto::etcdserverpb::{
    AlarmRequest, AlarmType, CompactionRequest, CompactionResponse, DeleteRangeRequest,
    InternalRaftRequest, PutRequest, RangeRequest, TxnRequest,
};
use basalt_proto::server::etcdserverpb::kv_server;
use futures_lite::Stream;
use futures_lite::future::yield_now;
use tonic::{Request, Response, Status, async_trait};

use super::{complete, refused, status};
use crate::actors::{Desk, State};
use crate::machine::Reply;
use crate::mvcc::{self, Chunk};
use crate::types::{Error, Refusal};

/// Keys read before others get their turn.
const TURN_KEYS: usize = 256;
/// Bytes read before others get their turn.
const TURN_BYTES: usize = 1 << 20;
/// Keys in the first chunk of a streamed range.
const STREAM_KEYS_FIRST: usize = 10;

#[derive(Clone)]
pub(super) struct Kv(pub(super) Desk);

/// An answer of another kind than was asked for: the log was applied by other rules.
fn mismatch() -> Status {
    Status::internal("the reply is of another kind than the request")
}

impl Kv {
    /// The state that a read may use.
    async fn state(&self, serializable: bool) -> Result<Arc<State>, Status> {
        if !serializable {
            self.0.read_index().await.map_err(status)?;
        }
        let state = self.0.state();
        if state.alarms.iter().any(|alarm| alarm.alarm() == AlarmType::Corrupt) {
            return Err(status(Refusal::Corrupt));
        }
        Ok(state)
    }

    /// Refuses what would take the store over its quota, and raises the alarm.
    async fn check_quota(&self, cost: u64) -> Result<(), Status> {
        let quota = self.0.node().quota_bytes;
        if cost == 0 || quota == 0 || self.0.state().disk_bytes + cost < quota {
            return Ok(());
        }
        let alarm = AlarmRequest {
            action: AlarmAction::Activate as i32,
            member_id: self.0.node().member_id,
            alarm: AlarmType::Nospace as i32,
        };
        let request = InternalRaftRequest { alarm: Some(alarm), ..InternalRaftRequest::default() };
        drop(self.0.propose(request).await);
        Err(status(Refusal::NoSpace))
    }

    async fn propose(&self, request: InternalRaftRequest) -> Result<Reply, Status> {
        self.0.propose(request).await.map_err(status)
    }
}

/// Whether a range can be read key by key, without looking at all of it first.
fn is_plain(request: &RangeRequest) -> bool {
    !request.count_only
        && !request.range_end.is_empty()
        && mvcc::is_stream_supported(request).is_ok()
        && request.sort_target == 0
}

/// Reads a range, giving others their turn.
async fn range(state: &State, request: &RangeRequest) -> Result<RangeResponse, Status> {
    if !is_plain(request) {
        return state.read.range(request).map_err(refused);
    }
    let mut cursor = state.read.range_cursor(request).map_err(refused)?;
    let mut response = RangeResponse::default();
    loop {
        let chunk = next(&mut cursor, state, TURN_KEYS, TURN_BYTES)?;
        response.kvs.extend(chunk.kvs);
        if chunk.done {
            response.more = chunk.more;
            break;
        }
        yield_now().await;
    }
    response.count = match response.more {
        false => response.kvs.len() as i64,
        true => state.read.count(request).map_err(refused)? as i64,
    };
    response.header.get_or_insert_default().revision = state.read.revision;
    Ok(response)
}

fn next(
    cursor: &mut mvcc::RangeCursor,
    state: &State,
    keys: usize,
    bytes: usize,
) -> Result<Chunk, Status> {
    cursor.next(&state.read, keys, bytes).map_err(|fault| refused(Error::Faulty(fault)))
}

#[async_trait]
impl kv_server::Kv for Kv {
    async fn range(
        &self,
        request: Request<RangeRequest>,
    ) -> Result<Response<RangeResponse>, Status> {
        let request = request.into_inner();
        mvcc::check_range(&request).map_err(status)?;
        let state = self.state(request.serializable).await?;
        let mut response = range(&state, &request).await?;
        complete(&self.0, &mut response.header);
        Ok(Response::new(response))
    }

    type RangeStreamStream =
        std::pin::Pin<Box<dyn Stream<Item = Result<RangeStreamResponse, Status>> + Send>>;

    async fn range_stream(
        &self,
        request: Request<RangeRequest>,
    ) -> Result<Response<Self::RangeStreamStream>, Status> {
        let request = request.into_inner();
        mvcc::is_stream_supported(&request).map_err(status)?;
        let state = self.state(request.serializable).await?;
        let desk = self.0.clone();
        if request.count_only || request.range_end.is_empty() {
            let mut response = range(&state, &request).await?;
            complete(&desk, &mut response.header);
            let one = RangeStreamResponse { range_response: Some(response) };
            return Ok(Response::new(Box::pin(futures_lite::stream::once(Ok(one)))));
        }
        let cursor = state.read.range_cursor(&request).map_err(refused)?;
        let bytes = desk.node().max_request_bytes;
        let begin = Some((cursor, STREAM_KEYS_FIRST));
        let chunks = futures_lite::stream::unfold(begin, move |at| {
            let (state, desk, request) = (Arc::clone(&state), desk.clone(), request.clone());
            async move {
                let (mut cursor, keys) = at?;
                yield_now().await;
                let chunk = match next(&mut cursor, &state, keys, bytes) {
                    Ok(chunk) => chunk,
                    Err(status) => return Some((Err(status), None)),
                };
                // Twice as many next time while they stay small, half as many when they got large.
                let keys = if chunk.bytes * 2 <= bytes { keys * 2 } else { (keys / 2).max(1) };
                let done = chunk.done;
                let response = stream_chunk(&desk, &state, &request, chunk);
                Some((response, (!done).then_some((cursor, keys))))
            }
        });
        Ok(Response::new(Box::pin(chunks)))
    }

    async fn put(&self, request: Request<PutRequest>) -> Result<Response<PutResponse>, Status> {
        let request = request.into_inner();
        mvcc::check_put(&request).map_err(status)?;
        self.check_quota(mvcc::put_cost(&request)).await?;
        let request = InternalRaftRequest { put: Some(request), ..InternalRaftRequest::default() };
        let Reply::Put(mut response) = self.propose(request).await? else { return Err(mismatch()) };
        complete(&self.0, &mut response.header);
        Ok(Response::new(response))
    }

    async fn delete_range(
        &self,
        request: Request<DeleteRangeRequest>,
    ) -> Result<Response<DeleteRangeResponse>, Status> {
        let request = request.into_inner();
        mvcc::check_delete_range(&request).map_err(status)?;
        let delete_range = Some(request);
        let request = InternalRaftRequest { delete_range, ..InternalRaftRequest::default() };
        let Reply::DeleteRange(mut response) = self.propose(request).await? else {
            return Err(mismatch());
        };
        complete(&self.0, &mut response.header);
        Ok(Response::new(response))
    }

    async fn txn(&self, request: Request<TxnRequest>) -> Result<Response<TxnResponse>, Status> {
        let request = request.into_inner();
        mvcc::check_txn(&request, self.0.node().max_txn_ops).map_err(status)?;
        if mvcc::is_read_only(&request) {
            let state = self.state(mvcc::is_serializable(&request)).await?;
            let mut response = state.read.read_txn(&request).map_err(refused)?;
            complete(&self.0, &mut response.header);
            return Ok(Response::new(response));
        }
        self.check_quota(mvcc::txn_cost(&request)).await?;
        let request = InternalRaftRequest { txn: Some(request), ..InternalRaftRequest::default() };
        let Reply::Txn(mut response) = self.propose(request).await? else { return Err(mismatch()) };
        complete(&self.0, &mut response.header);
        Ok(Response::new(response))
    }

    async fn compact(
        &self,
        request: Request<CompactionRequest>,
    ) -> Result<Response<CompactionResponse>, Status> {
        let request = request.into_inner();
        let physical = request.physical;
        let compaction = Some(request);
        let request = InternalRaftRequest { compaction, ..InternalRaftRequest::default() };
        let Reply::Compact { revision } = self.propose(request).await? else {
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

/// One message of a streamed range: only the last carries header, more and count.
fn stream_chunk(
    desk: &Desk,
    state: &State,
    request: &RangeRequest,
    chunk: Chunk,
) -> Result<RangeStreamResponse, Status> {
    let mut response = RangeResponse { kvs: chunk.kvs, ..RangeResponse::default() };
    if chunk.done {
        response.more = chunk.more;
        response.count = state.read.count(request).map_err(refused)? as i64;
        response.header.get_or_insert_default().revision = state.read.revision;
        complete(desk, &mut response.header);
    }
    Ok(RangeStreamResponse { range_response: Some(response) })
}
