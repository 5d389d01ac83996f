//! The common part of locks and elections: keys under a prefix, each bound to a lease, form a queue in the order of
//! their creation. The owner of the oldest key holds the lock, or is elected; each of the others waits until the older
//! keys are deleted.
//!
//! All operations use the services that clients use, in the name of the caller, and any error is returned with etcd's
//! text and the code `Unknown`: as by etcd, whose services use its own client library.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};

use basalt_proto::encoded;
use basalt_proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use basalt_proto::etcdserverpb::range_request::{SortOrder, SortTarget};
use basalt_proto::etcdserverpb::request_op;
use basalt_proto::etcdserverpb::watch_request::RequestUnion;
use basalt_proto::etcdserverpb::{
    Compare, DeleteRangeRequest, LeaseGrantRequest, PutRequest, RangeRequest, RequestOp,
    ResponseHeader, TxnRequest, WatchCreateRequest, WatchRequest, WatchResponse,
};
use basalt_proto::mvccpb::{Event, KeyValue};
use basalt_proto::server::etcdserverpb::{kv_server::Kv as _, lease_server::Lease as _};
use bytes::Bytes;
use futures_lite::future::or;
use futures_util::FutureExt as _;
use prost::Message as _;
use tonic::metadata::MetadataMap;
use tonic::{Extensions, Request, Status};

use super::credentials::Credentials;
use super::kv::Kv;
use super::lease::Lease;
use super::watch::may_watch;
use super::{mismatch, status};
use crate::actors::ReplicaClient;
use crate::actors::watch::Session;
use crate::io::spawn;
use crate::types::Refusal;

/// Seconds of a lease that is granted to a caller without one.
const LEASE_SECONDS: i64 = 60;

/// The caller, and the metadata of its request: a token, for one.
#[derive(Clone)]
pub(super) struct Caller {
    replica: ReplicaClient,
    metadata: MetadataMap,
    extensions: Extensions,
}

/// The first key of a range, and the revision at which it was read.
pub(super) struct Found {
    pub(super) header: Option<ResponseHeader>,
    pub(super) first: Option<KeyValue>,
}

/// The result of a transaction.
pub(super) struct Outcome {
    pub(super) header: Option<ResponseHeader>,
    pub(super) succeeded: bool,
    /// The first key of each range; `None` for other operations.
    pub(super) found: Vec<Option<KeyValue>>,
}

/// Error texts of etcd with the code that its services give all of them.
fn unknown(status: &Status) -> Status {
    Status::unknown(status.message())
}

impl Caller {
    /// The caller of `request`, and its message.
    pub(super) fn of<T>(replica: &ReplicaClient, request: Request<T>) -> (Self, T) {
        let (metadata, extensions, message) = request.into_parts();
        (Self { replica: replica.clone(), metadata, extensions }, message)
    }

    fn request<T>(&self, message: T) -> Request<T> {
        Request::from_parts(self.metadata.clone(), self.extensions.clone(), message)
    }

    /// The lease to bind a key to: a new one, without keep-alives, for a caller without one.
    pub(super) async fn session(&self, lease: i64) -> Result<i64, Status> {
        if lease != 0 {
            return Ok(lease);
        }
        let request = self.request(LeaseGrantRequest { ttl: LEASE_SECONDS, id: 0 });
        let granted = Lease(self.replica.clone()).lease_grant(request).await;
        granted.map(|granted| granted.into_inner().id).map_err(|status| unknown(&status))
    }

    /// Runs `then` if `key` was created at this revision (0: does not exist), and `otherwise` if not.
    pub(super) async fn if_created(
        &self,
        key: &Bytes,
        revision: i64,
        then: Vec<RequestOp>,
        otherwise: Vec<RequestOp>,
    ) -> Result<Outcome, Status> {
        let compare = Compare {
            result: CompareResult::Equal as i32,
            target: CompareTarget::Create as i32,
            key: key.clone(),
            range_end: Bytes::new(),
            target_union: Some(TargetUnion::CreateRevision(revision)),
        };
        let request = TxnRequest { compare: vec![compare], success: then, failure: otherwise };
        let done = Kv(self.replica.clone()).txn(self.request(request)).await;
        let done = done.map_err(|status| unknown(&status))?.into_inner();
        let found = done.responses.iter().map(found_by).collect::<Result<_, _>>()?;
        Ok(Outcome { header: done.header, succeeded: done.succeeded, found })
    }

    /// The first key of the requested range.
    pub(super) async fn find(&self, request: RangeRequest) -> Result<Found, Status> {
        let answer = Kv(self.replica.clone()).range(self.request(request)).await;
        let answer = answer.map_err(|status| unknown(&status))?.into_inner();
        Ok(Found { first: first_of(&answer)?, header: answer.header })
    }

    /// Deletes a key, if it exists.
    pub(super) async fn delete(&self, key: Bytes) -> Result<Option<ResponseHeader>, Status> {
        let request = DeleteRangeRequest { key, ..DeleteRangeRequest::default() };
        let answer = Kv(self.replica.clone()).delete_range(self.request(request)).await;
        answer.map(|answer| answer.into_inner().header).map_err(|status| unknown(&status))
    }

    /// Events of keys from a revision on.
    pub(super) async fn watch(
        &self,
        key: Bytes,
        range_end: Bytes,
        from: i64,
    ) -> Result<Events, Status> {
        let credentials = Credentials::new(self.metadata.as_ref(), &self.extensions);
        let may = may_watch(&credentials, &self.replica, &key, &range_end).await;
        may.map_err(|refusal| unknown(&status(refusal)))?;
        let session =
            self.replica.watches().open(false).map_err(|refusal| unknown(&status(refusal)))?;
        let start_revision = from;
        let create =
            WatchCreateRequest { key, range_end, start_revision, ..WatchCreateRequest::default() };
        session.request(WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) });
        Ok(Events { session, header: None, waiting: VecDeque::new() })
    }

    /// Waits until no key under the prefix exists that was created at or before this revision.
    pub(super) async fn wait_for_older(&self, prefix: &Bytes, newest: i64) -> Result<(), Status> {
        loop {
            let request = RangeRequest {
                sort_order: SortOrder::Descend as i32,
                max_create_revision: newest,
                ..oldest(prefix)
            };
            let found = self.find(request).await?;
            let Some(ahead) = found.first else { return Ok(()) };
            let revision = found.header.map_or(0, |header| header.revision);
            let mut events = self.watch(ahead.key, Bytes::new(), revision).await?;
            while !is_deletion(&events.next().await?) {}
        }
    }
}

/// The request for the oldest key under a prefix.
pub(super) fn oldest(prefix: &Bytes) -> RangeRequest {
    RangeRequest {
        key: prefix.clone(),
        range_end: end_of(prefix),
        limit: 1,
        sort_order: SortOrder::Ascend as i32,
        sort_target: SortTarget::Create as i32,
        ..RangeRequest::default()
    }
}

/// `name/`, the prefix of the keys of a lock or an election.
pub(super) fn prefix(name: &[u8]) -> Bytes {
    [name, b"/"].concat().into()
}

/// The key of a lease under a prefix: its number in hexadecimal, as Go writes it.
pub(super) fn key_of(prefix: &[u8], lease: i64) -> Bytes {
    let sign = if lease < 0 { "-" } else { "" };
    [prefix, format!("{sign}{:x}", lease.unsigned_abs()).as_bytes()].concat().into()
}

/// The end of the range of keys with a prefix, which ends in `/` and so has a successor.
pub(super) fn end_of(prefix: &[u8]) -> Bytes {
    let mut end = prefix.to_vec();
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    end.into()
}

/// Puts a value at a key bound to a lease.
pub(super) fn put(key: &Bytes, value: Bytes, lease: i64) -> RequestOp {
    let key = key.clone();
    let put = PutRequest { key, value, lease, ..PutRequest::default() };
    RequestOp { request: Some(request_op::Request::RequestPut(put)) }
}

/// Reads one key.
pub(super) fn get(key: &Bytes) -> RequestOp {
    range(RangeRequest { key: key.clone(), ..RangeRequest::default() })
}

pub(super) fn range(request: RangeRequest) -> RequestOp {
    RequestOp { request: Some(request_op::Request::RequestRange(request)) }
}

/// Deletes one key.
pub(super) fn delete(key: &Bytes) -> RequestOp {
    let delete = DeleteRangeRequest { key: key.clone(), ..DeleteRangeRequest::default() };
    RequestOp { request: Some(request_op::Request::RequestDeleteRange(delete)) }
}

fn first_of(answer: &encoded::RangeResponse) -> Result<Option<KeyValue>, Status> {
    let first = answer.kvs.iter().next().map(KeyValue::decode);
    first.transpose().map_err(|_| mismatch())
}

fn found_by(answer: &encoded::ResponseOp) -> Result<Option<KeyValue>, Status> {
    match &answer.response {
        Some(encoded::Response::ResponseRange(range)) => first_of(range),
        Some(
            encoded::Response::ResponsePut(_)
            | encoded::Response::ResponseDeleteRange(_)
            | encoded::Response::ResponseTxn(_),
        )
        | None => Ok(None),
    }
}

/// The events of a watch, one after the other.
pub(super) struct Events {
    session: Session,
    /// The header of the response that contained the last event.
    pub(super) header: Option<ResponseHeader>,
    waiting: VecDeque<Event>,
}

impl Events {
    /// The next event.
    pub(super) async fn next(&mut self) -> Result<Event, Status> {
        loop {
            if let Some(event) = self.waiting.pop_front() {
                return Ok(event);
            }
            let response = poll_fn(|context| self.session.poll_next(context)).await;
            let response = response.map_err(|refusal| unknown(&status(refusal)))?;
            let response = WatchResponse::decode(&response.encode_to_vec()[..]);
            let response = response.map_err(|_| mismatch())?;
            if response.compact_revision != 0 {
                return Err(unknown(&status(Refusal::Compacted)));
            }
            if response.canceled {
                return Err(Status::unknown(response.cancel_reason));
            }
            self.header = response.header;
            self.waiting = response.events.into();
        }
    }
}

pub(super) fn is_deletion(event: &Event) -> bool {
    event.r#type() == basalt_proto::mvccpb::event::EventType::Delete
}

/// The caller of a request, as seen by the task that answers it.
pub(super) struct Waiter<T> {
    answer_to: flume::Sender<Result<T, Status>>,
    /// Receives one message when the caller has taken the answer; closed when the call has ended before.
    taken: flume::Receiver<()>,
}

impl<T> Waiter<T> {
    /// The result of some work, or `None` as soon as the call has ended.
    pub(super) fn or_gone<W>(
        &self,
        work: impl Future<Output = W>,
    ) -> impl Future<Output = Option<W>> {
        or(work.map(Some), self.taken.recv_async().map(|_| None))
    }

    /// Answers; true if the caller took the answer.
    pub(super) async fn answer(self, answer: Result<T, Status>) -> bool {
        self.answer_to.send(answer).is_ok() && self.taken.recv_async().await.is_ok()
    }
}

/// Handles a call in a task of its own, which outlives the call to delete the key that it queued. Without that, a call
/// that ends while its key is being written would leave the key there until its lease expires.
pub(super) async fn outliving<T, W>(serve: impl FnOnce(Waiter<T>) -> W) -> Result<T, Status>
where
    W: Future<Output = ()> + 'static,
{
    let (answer_to, answer) = flume::bounded(1);
    let (takes, taken) = flume::bounded(1);
    spawn(serve(Waiter { answer_to, taken }));
    let answered = answer.recv_async().await;
    // Never fails by a full channel: it is the only message.
    let _ = takes.send(());
    answered.unwrap_or_else(|_| Err(status(Refusal::Stopped)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_named_as_go_names_them() {
        assert_eq!(key_of(&prefix(b"a"), 0x6994_da1f_d4c6_d907), "a/6994da1fd4c6d907");
        assert_eq!(key_of(&prefix(b""), -1), "/-1");
        assert_eq!(end_of(&prefix(b"a")), "a0");
        assert_eq!(oldest(&prefix(b"a")).range_end, "a0");
    }
}
