//! The mutex of etcd's client library, as requests and responses: a key under a prefix with the session's
//! lease, held by the contender with the lowest create revision; the others wait until the one before them is deleted.
//!
//! ```text
//!  Acquire ─► held                                    ┌── it is deleted ──┐
//!     └─► Before ─► nobody is before me ─► Check ─► held                  │
//!            └──► somebody is ─► Wait ───────────────────► Before ◄───────┘
//! ```

use basalt_proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use basalt_proto::etcdserverpb::range_request::{SortOrder, SortTarget};
use basalt_proto::etcdserverpb::request_op::Request;
use basalt_proto::etcdserverpb::response_op::Response;
use basalt_proto::etcdserverpb::watch_request::RequestUnion;
use basalt_proto::etcdserverpb::{
    Compare, DeleteRangeRequest, PutRequest, RangeRequest, RangeResponse, RequestOp, TxnRequest,
    TxnResponse, WatchCreateRequest, WatchRequest, WatchResponse,
};
use basalt_proto::mvccpb::event::EventType;
use bytes::Bytes;
use prost::Message;

use crate::keys::prefix_end;
use crate::paths;

/// One contender.
#[derive(Clone, Debug)]
pub(super) struct Mutex {
    prefix: Vec<u8>,
    key: Bytes,
    lease: i64,
    /// The create revision of our key.
    revision: i64,
    freed: bool,
    state: State,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    Acquire,
    Before,
    Wait { key: Bytes, revision: i64 },
    Check,
    Held,
}

impl Mutex {
    /// A contender for the mutex of this name, with the lease of its session.
    pub(super) fn new(name: &str, lease: i64) -> Self {
        let prefix = format!("{name}/").into_bytes();
        let key = format!("{name}/{lease:x}").into();
        Self { prefix, key, lease, revision: 0, freed: false, state: State::Acquire }
    }

    /// Starts over.
    pub(super) fn begin(&mut self) {
        self.state = State::Acquire;
    }

    pub(super) fn is_held(&self) -> bool {
        self.state == State::Held
    }

    /// True if a watch has just reported the deletion of the key before ours, so that its stream may end.
    pub(super) fn was_freed(&self) -> bool {
        self.freed
    }

    /// The request of the present state.
    pub(super) fn request(&self, body: &mut Vec<u8>) -> &'static str {
        let (path, bytes) = match &self.state {
            State::Acquire => (paths::TXN, self.acquire().encode_to_vec()),
            State::Before => (paths::RANGE, self.before().encode_to_vec()),
            State::Wait { key, revision } => {
                let create = WatchCreateRequest {
                    key: key.clone(),
                    start_revision: *revision,
                    ..WatchCreateRequest::default()
                };
                let union = Some(RequestUnion::CreateRequest(create));
                (paths::WATCH, WatchRequest { request_union: union }.encode_to_vec())
            }
            State::Check => {
                let request = RangeRequest { key: self.key.clone(), ..RangeRequest::default() };
                (paths::RANGE, request.encode_to_vec())
            }
            State::Held => {
                let request =
                    DeleteRangeRequest { key: self.key.clone(), ..DeleteRangeRequest::default() };
                (paths::DELETE_RANGE, request.encode_to_vec())
            }
        };
        body.extend_from_slice(&bytes);
        path
    }

    /// Takes a response on the way to the mutex.
    pub(super) fn message(&mut self, body: &[u8]) -> Result<(), String> {
        let wrong = |error: prost::DecodeError| error.to_string();
        self.freed = false;
        match &self.state {
            State::Acquire => self.acquired(TxnResponse::decode(body).map_err(wrong)?),
            State::Before => {
                let answer = RangeResponse::decode(body).map_err(wrong)?;
                let revision = answer.header.map_or(0, |header| header.revision);
                self.state = match answer.kvs.into_iter().next() {
                    Some(kv) => State::Wait { key: kv.key, revision },
                    None => State::Check,
                };
                Ok(())
            }
            State::Wait { .. } => {
                let answer = WatchResponse::decode(body).map_err(wrong)?;
                if answer.canceled {
                    return Err(format!("the watch was canceled: {}", answer.cancel_reason));
                }
                if answer.events.iter().any(|event| event.r#type() == EventType::Delete) {
                    self.freed = true;
                    self.state = State::Before;
                }
                Ok(())
            }
            State::Check => {
                let answer = RangeResponse::decode(body).map_err(wrong)?;
                if answer.kvs.is_empty() {
                    return Err("mutex: session is expired".to_owned());
                }
                self.state = State::Held;
                Ok(())
            }
            State::Held => Ok(()),
        }
    }

    fn acquired(&mut self, answer: TxnResponse) -> Result<(), String> {
        let mut ranges = answer.responses.into_iter().map(|response| match response.response {
            Some(Response::ResponseRange(range)) => range.kvs.into_iter().next(),
            _ => None,
        });
        let (mine, owner) = (ranges.next().flatten(), ranges.next().flatten());
        self.revision = match (answer.succeeded, mine) {
            (true, _) => answer.header.map_or(0, |header| header.revision),
            (false, Some(mine)) => mine.create_revision,
            (false, None) => return Err("the mutex's key is neither new nor there".to_owned()),
        };
        let held = owner.is_none_or(|owner| owner.create_revision == self.revision);
        self.state = if held { State::Held } else { State::Before };
        Ok(())
    }

    /// Creates our key, or finds it; and reads the oldest key.
    fn acquire(&self) -> TxnRequest {
        let op = |request| RequestOp { request: Some(request) };
        let absent = Compare {
            result: CompareResult::Equal.into(),
            target: CompareTarget::Create.into(),
            key: self.key.clone(),
            target_union: Some(TargetUnion::CreateRevision(0)),
            ..Compare::default()
        };
        let put = PutRequest { key: self.key.clone(), lease: self.lease, ..PutRequest::default() };
        let get = RangeRequest { key: self.key.clone(), ..RangeRequest::default() };
        let owner = op(Request::RequestRange(RangeRequest {
            sort_order: SortOrder::Ascend.into(),
            ..self.oldest_or_newest()
        }));
        TxnRequest {
            compare: vec![absent],
            success: vec![op(Request::RequestPut(put)), owner.clone()],
            failure: vec![op(Request::RequestRange(get)), owner],
        }
    }

    /// The newest key that is older than ours.
    fn before(&self) -> RangeRequest {
        RangeRequest {
            sort_order: SortOrder::Descend.into(),
            max_create_revision: self.revision - 1,
            ..self.oldest_or_newest()
        }
    }

    fn oldest_or_newest(&self) -> RangeRequest {
        RangeRequest {
            key: self.prefix.clone().into(),
            range_end: prefix_end(&self.prefix).into(),
            limit: 1,
            sort_target: SortTarget::Create.into(),
            ..RangeRequest::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use basalt_proto::etcdserverpb::{ResponseHeader, ResponseOp};
    use basalt_proto::mvccpb::{Event, KeyValue};

    use super::*;

    fn header(revision: i64) -> Option<ResponseHeader> {
        Some(ResponseHeader { revision, ..ResponseHeader::default() })
    }

    fn range(create_revision: i64) -> RangeResponse {
        let kv = KeyValue { key: "m/1".into(), create_revision, ..KeyValue::default() };
        RangeResponse { header: header(9), kvs: vec![kv], ..RangeResponse::default() }
    }

    fn acquired(owner: i64) -> Vec<u8> {
        let op = |it| ResponseOp { response: Some(Response::ResponseRange(it)) };
        let put = ResponseOp { response: Some(Response::ResponsePut(Default::default())) };
        let responses = vec![put, op(range(owner))];
        TxnResponse { header: header(7), succeeded: true, responses }.encode_to_vec()
    }

    #[test]
    fn the_first_holds_it_at_once() {
        let mut mutex = Mutex::new("m", 0xab);
        assert_eq!(&mutex.key[..], b"m/ab");
        mutex.message(&acquired(7)).unwrap();
        assert!(mutex.is_held());
        assert_eq!(mutex.request(&mut Vec::new()), paths::DELETE_RANGE);
    }

    #[test]
    fn the_others_wait_for_the_one_before_them() {
        let mut mutex = Mutex::new("m", 2);
        mutex.message(&acquired(3)).unwrap();
        assert_eq!(mutex.request(&mut Vec::new()), paths::RANGE);
        assert_eq!(mutex.before().max_create_revision, 6);
        mutex.message(&range(3).encode_to_vec()).unwrap();
        assert!(!mutex.was_freed());
        mutex
            .message(&WatchResponse { created: true, ..Default::default() }.encode_to_vec())
            .unwrap();
        assert!(!mutex.was_freed(), "that it was created says nothing");
        let gone = Event { r#type: EventType::Delete.into(), ..Event::default() };
        mutex
            .message(&WatchResponse { events: vec![gone], ..Default::default() }.encode_to_vec())
            .unwrap();
        assert!(mutex.was_freed());
        mutex.message(&RangeResponse::default().encode_to_vec()).unwrap();
        assert!(!mutex.is_held(), "the session may have ended meanwhile");
        mutex.message(&range(7).encode_to_vec()).unwrap();
        assert!(mutex.is_held());
    }
}
