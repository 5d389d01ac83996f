//! Reads of many keys without blocking the core: in slices, or in the pool for reads if a read cannot be sliced; and
//! within the budget of responses in flight.

use std::sync::Arc;

use basalt_proto::encoded::{KeyValues, RangeResponse, RangeStreamResponse, TxnResponse};
use basalt_proto::etcdserverpb::range_request::SortTarget;
use basalt_proto::etcdserverpb::request_op;
use basalt_proto::etcdserverpb::{RangeRequest, TxnRequest};
use futures_lite::future::yield_now;
use prost::Message as _;
use tonic::Status;

use super::budget::Reservation;
use super::{complete, refused, status};
use crate::actors::{ReplicaClient, State};
use crate::io::clock::Instant;
use crate::io::{Pool, note_work};
use crate::mvcc::{self, Chunk, RangeCursor};
use crate::types::limits::RANGE_STREAM_MS_MAX;
use crate::types::{Error, Refusal};

/// Keys read before the task yields.
const SLICE_KEYS: usize = 256;
/// Bytes read before the task yields.
const SLICE_BYTES: usize = 1 << 20;
/// Keys in the first chunk of a streamed range.
const STREAM_KEYS_FIRST: usize = 10;
/// Largest distance in revisions of a count that is computed on this core, from the newest count back.
const COUNT_BACK_MAX: i64 = 1000;

/// Runs a read that may take long in the pool for reads, unless the caller is dropped first.
async fn read_in_pool<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Status> {
    Pool::Reads.run_if_wanted(work).await.map_err(refused)
}

/// Answers a range, once the response fits into the budget; the header contains the revision alone. The response's part
/// of the budget is added to `taken`.
pub(super) async fn range(
    state: &Arc<State>,
    request: &RangeRequest,
    taken: &mut Reservation,
) -> Result<RangeResponse, Status> {
    loop {
        match attempt(state, request, taken).await? {
            Some(answer) => return Ok(answer),
            None => taken.wait().await.map_err(status)?,
        }
    }
}

/// Answers it, if the response fits.
async fn attempt(
    state: &Arc<State>,
    request: &RangeRequest,
    taken: &mut Reservation,
) -> Result<Option<RangeResponse>, Status> {
    if is_plain(request) {
        return in_slices(state, request, taken).await;
    }
    let mut answer = match is_quick(state, request)? {
        true => state.read.range(request).map_err(refused)?,
        false => {
            let (state, request) = (Arc::clone(state), request.clone());
            read_in_pool(move || state.read.range(&request)).await?
        }
    };
    // The revision of the read, not of a state published since: a watch that starts from it must miss nothing.
    answer.header.get_or_insert_default().revision = state.read.revision;
    let bytes = answer.kvs.bytes();
    Ok(taken.grow(bytes).then_some(answer))
}

/// True if many keys are requested and can be read one after the other, without reading all of them first.
fn is_plain(request: &RangeRequest) -> bool {
    !request.count_only
        && !request.range_end.is_empty()
        && mvcc::check_range_stream(request).is_ok()
        && request.sort_target == 0
}

/// True if a range that is not sliced is short.
fn is_quick(state: &State, request: &RangeRequest) -> Result<bool, Status> {
    if request.range_end.is_empty() {
        return Ok(true);
    }
    let few = |keys| keys <= SLICE_KEYS as i64;
    Ok(is_recent(state, request.revision)
        && (request.count_only || few(state.read.count(request).map_err(refused)?)))
}

/// True if counting at this revision is short.
fn is_recent(state: &State, revision: i64) -> bool {
    revision <= 0 || state.read.revision - revision <= COUNT_BACK_MAX
}

async fn in_slices(
    state: &Arc<State>,
    request: &RangeRequest,
    taken: &mut Reservation,
) -> Result<Option<RangeResponse>, Status> {
    let mut cursor = state.read.range_cursor(request).map_err(refused)?;
    let mut response = RangeResponse::default();
    loop {
        let chunk = next(&mut cursor, state, SLICE_KEYS, SLICE_BYTES, &mut response.kvs)?;
        if !taken.grow(chunk.bytes) {
            return Ok(None);
        }
        if chunk.done {
            (response.more, response.count) = (chunk.more, chunk.count);
            break;
        }
        yield_now().await;
    }
    response.header.get_or_insert_default().revision = state.read.revision;
    Ok(Some(response))
}

fn next(
    cursor: &mut RangeCursor,
    state: &State,
    keys: usize,
    bytes: usize,
    kvs: &mut KeyValues,
) -> Result<Chunk, Status> {
    let chunk = cursor.next(&state.read, keys, bytes, kvs).map_err(refused)?;
    note_work(chunk.bytes);
    Ok(chunk)
}

/// Answers a read-only transaction, once the response fits into the budget.
pub(super) async fn read_txn(
    state: Arc<State>,
    request: TxnRequest,
    taken: &mut Reservation,
) -> Result<TxnResponse, Status> {
    let is_quick = is_of_single_keys(&request);
    let request = Arc::new(request);
    loop {
        let answer = if is_quick {
            state.read.read_txn(&request).map_err(refused)?
        } else {
            let (state, request) = (Arc::clone(&state), Arc::clone(&request));
            read_in_pool(move || state.read.read_txn(&request)).await?
        };
        if taken.grow(answer.encoded_len()) {
            return Ok(answer);
        }
        drop(answer);
        taken.wait().await.map_err(status)?;
    }
}

fn is_of_single_keys(request: &TxnRequest) -> bool {
    let operations = request.success.iter().chain(&request.failure);
    request.compare.iter().all(|compare| compare.range_end.is_empty())
        && operations.filter_map(|operation| operation.request.as_ref()).all(|it| match it {
            request_op::Request::RequestRange(range) => range.range_end.is_empty(),
            request_op::Request::RequestTxn(txn) => is_of_single_keys(txn),
            request_op::Request::RequestPut(_) | request_op::Request::RequestDeleteRange(_) => true,
        })
}

/// The answer to a streamed range that is one message: a count, a key, or with a sort target the content of the first
/// chunk. etcd sorts each chunk by itself; several chunks are sent in the order of keys here, so that no key is left out.
pub(super) async fn single_chunk(
    state: &Arc<State>,
    request: &RangeRequest,
    taken: &mut Reservation,
) -> Result<Option<RangeResponse>, Status> {
    if request.count_only || request.range_end.is_empty() {
        return range(state, request, taken).await.map(Some);
    }
    if request.sort_target() == SortTarget::Key {
        return Ok(None);
    }
    let first = STREAM_KEYS_FIRST as i64;
    let fits = (1..=first).contains(&request.limit);
    let limit = if fits { request.limit } else { first };
    let response = range(state, &RangeRequest { limit, ..request.clone() }, taken).await?;
    Ok((fits || !response.more).then_some(response))
}

/// A range that is sent in chunks, all from one state.
pub(super) struct Chunks {
    replica: ReplicaClient,
    state: Arc<State>,
    cursor: RangeCursor,
    /// Upper bound of the next chunk's keys.
    keys: usize,
    sent: usize,
    began: Instant,
    taken: Reservation,
}

impl Chunks {
    pub(super) fn open(
        replica: ReplicaClient,
        state: Arc<State>,
        request: &RangeRequest,
    ) -> Result<Self, Status> {
        let cursor = state.read.range_cursor(request).map_err(refused)?;
        let (began, taken) = (Instant::now(), Reservation::new());
        Ok(Self { replica, state, cursor, keys: STREAM_KEYS_FIRST, sent: 0, began, taken })
    }

    /// The next message, and true if it is the last. Only the last one contains header, more and count.
    pub(super) async fn next(&mut self) -> Result<(RangeStreamResponse, bool), Status> {
        yield_now().await;
        if self.began.elapsed().as_millis() > u128::from(RANGE_STREAM_MS_MAX) {
            return Err(status(Refusal::Timeout));
        }
        let bytes = self.replica.node().max_request_bytes;
        // One chunk at a time is in flight: the next is read when HTTP/2 and the budget have capacity for it.
        self.taken.hold(bytes).await.map_err(status)?;
        let mut response = RangeResponse::default();
        let chunk = next(&mut self.cursor, &self.state, self.keys, bytes, &mut response.kvs)?;
        self.taken.hold(chunk.bytes).await.map_err(status)?;
        self.sent += chunk.keys;
        if chunk.bytes < bytes / 2 {
            self.keys = self.keys.saturating_mul(2);
        }
        if chunk.done {
            response.more = chunk.more;
            response.count = chunk.count;
            response.header.get_or_insert_default().revision = self.state.read.revision;
            complete(&self.replica, &mut response.header);
        }
        Ok((RangeStreamResponse { range_response: Some(response) }, chunk.done))
    }
}
