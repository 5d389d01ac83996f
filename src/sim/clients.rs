//! Requests of clients, and the checks of their answers.

use std::collections::BTreeMap;

use basalt_proto::etcdserverpb::alarm_request::AlarmAction;
use basalt_proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use basalt_proto::etcdserverpb::request_op::Request;
use basalt_proto::etcdserverpb::{
    AlarmRequest, AlarmType, CompactionRequest, Compare, DeleteRangeRequest, LeaseGrantRequest,
    PutRequest, RangeRequest, RequestOp, TxnRequest,
};
use basalt_proto::{encoded, mvccpb};
use bytes::Bytes;
use prost::Message as _;

use super::checks::{Checks, kv_of};
use super::linear::{self, Call, Effect, Kv, Seen};
use super::plan::{ClientOp, Micros, Operation, Plan};
use crate::command::Command;
use crate::machine::Reply;
use crate::types::{LeaseId, MemberId, Refusal};

/// An answer to a client.
#[derive(Clone, Debug)]
pub(super) enum Answer {
    /// A reply through the log.
    Applied(Result<Reply, Refusal>),
    /// A read of the published state.
    Read(encoded::RangeResponse, i64),
    /// A lease lives for so many seconds.
    Renewed(i64),
    /// The request failed and will not be applied.
    Failed,
}

/// State of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    Planned,
    Asked,
    /// Without an answer: it may have been applied, or may be later.
    Unheard,
    Answered,
    Failed,
}

struct Asked {
    number: u64,
    operation: Operation,
    stage: Stage,
    asked: Micros,
    /// The newest revision acknowledged to any client when the request was made.
    floor: i64,
    /// For a swap: the revision that the client expects.
    expected: i64,
    answer: Option<(Micros, Seen)>,
}

/// All clients.
#[derive(Default)]
pub(super) struct Clients {
    requests: Vec<Asked>,
    newest: i64,
    /// The last known version of each key.
    known: BTreeMap<u64, Option<Kv>>,
    asked: u64,
    answered: u64,
}

/// The name of a key that is checked on its own.
pub(super) fn key_name(key: u64) -> Bytes {
    format!("k{key}").into()
}

const PAIR: [&str; 2] = ["pa", "pb"];

impl Clients {
    pub(super) fn new(plan: &Plan) -> Self {
        let mut clients = Self::default();
        for operation in &plan.operations {
            clients.add(*operation);
        }
        clients
    }

    /// Adds a request, and returns its number.
    pub(super) fn add(&mut self, operation: Operation) -> usize {
        let stage = Stage::Planned;
        let (asked, floor, expected, answer) = (0, 0, 0, None);
        let number = self.requests.len() as u64;
        self.requests.push(Asked { number, operation, stage, asked, floor, expected, answer });
        self.requests.len() - 1
    }

    pub(super) fn operation(&self, number: usize) -> Operation {
        self.requests[number].operation
    }

    /// Sends the request to another member.
    pub(super) fn move_to(&mut self, number: usize, member: MemberId) {
        self.requests[number].operation.member = member;
    }

    /// The client sends the request. `false` if it did before.
    pub(super) fn ask(&mut self, number: usize, now: Micros) -> bool {
        let request = &mut self.requests[number];
        if request.stage != Stage::Planned {
            return false;
        }
        (request.stage, request.asked, request.floor) = (Stage::Asked, now, self.newest);
        self.asked += 1;
        if let ClientOp::Swap { key } = request.operation.ask {
            let known = self.known.get(&key).copied().flatten();
            request.expected = known.map_or(0, |kv| kv.modified);
        }
        if let ClientOp::PutAndLookBack { back, .. } = request.operation.ask {
            request.expected = (self.newest - back).max(1);
        }
        true
    }

    /// The payload of a request's entry; `None` for a read.
    pub(super) fn payload(&self, number: usize, id: u64) -> Option<Bytes> {
        let request = &self.requests[number];
        let value = || value(number);
        let command = match request.operation.ask {
            ClientOp::Put { key } => Command::Put(put(key_name(key), value(), 0)),
            ClientOp::Delete { key } => {
                let key = key_name(key);
                let delete = DeleteRangeRequest { key, prev_kv: true, ..Default::default() };
                Command::DeleteRange(delete)
            }
            ClientOp::Swap { key } => Command::Txn(swap(key, request.expected, value())),
            ClientOp::PutPair => {
                let puts = PAIR.map(|key| op(Request::RequestPut(put(key.into(), value(), 0))));
                Command::Txn(TxnRequest { success: puts.into(), ..TxnRequest::default() })
            }
            ClientOp::PutAndLookBack { key, .. } => {
                Command::Txn(put_and_look_back(key, request.expected, value()))
            }
            ClientOp::Alarm { on } => Command::Alarm(alarm(on)),
            ClientOp::Compact { back } => {
                let revision = (self.newest - back).max(1);
                Command::Compaction(CompactionRequest { revision, physical: false })
            }
            ClientOp::Grant { lease, ttl } => {
                Command::LeaseGrant(LeaseGrantRequest { ttl, id: lease })
            }
            ClientOp::PutLeased { lease } => {
                Command::Put(put(format!("l{lease}").into(), value(), lease))
            }
            ClientOp::Get { .. }
            | ClientOp::GetSerializable { .. }
            | ClientOp::GetPair
            | ClientOp::KeepAlive { .. } => return None,
        };
        Some(command.to_payload(id))
    }

    /// The range of a read.
    pub(super) fn range(&self, number: usize) -> RangeRequest {
        let ask = self.requests[number].operation.ask;
        if let ClientOp::Get { key } | ClientOp::GetSerializable { key } = ask {
            return RangeRequest { key: key_name(key), ..RangeRequest::default() };
        }
        assert_eq!(ask, ClientOp::GetPair, "this is no read");
        let (key, range_end) = (PAIR[0].into(), "pc".into());
        RangeRequest { key, range_end, ..RangeRequest::default() }
    }

    /// The client stops waiting.
    pub(super) fn give_up(&mut self, number: usize) {
        let request = &mut self.requests[number];
        if request.stage == Stage::Asked {
            request.stage = Stage::Unheard;
        }
    }

    /// Number of requests made, and of those answered.
    pub(super) fn counts(&self) -> (u64, u64) {
        (self.asked, self.answered)
    }

    /// True if no client waits.
    pub(super) fn are_quiet(&self) -> bool {
        self.requests.iter().all(|request| request.stage != Stage::Asked)
    }

    /// True if it failed, or the client has stopped waiting.
    pub(super) fn was_in_vain(&self, number: usize) -> bool {
        matches!(self.requests[number].stage, Stage::Failed | Stage::Unheard)
    }

    pub(super) fn was_answered(&self, number: usize) -> bool {
        self.requests[number].stage == Stage::Answered
    }

    /// Handles an answer.
    pub(super) fn answer(
        &mut self,
        number: usize,
        answer: Answer,
        now: Micros,
        checks: &mut Checks,
    ) {
        let request = &mut self.requests[number];
        if request.stage != Stage::Asked {
            return;
        }
        let ask = request.operation.ask;
        let Some(seen) = seen(request, answer, checks) else {
            request.stage = Stage::Failed;
            return;
        };
        request.stage = Stage::Answered;
        request.answer = Some((now, seen));
        self.answered += 1;
        if matches!(
            ask,
            ClientOp::GetSerializable { .. } | ClientOp::KeepAlive { .. } | ClientOp::Alarm { .. }
        ) {
            return;
        }
        let (revision, floor) = (seen.revision, request.floor);
        let writes = matches!(
            ask,
            ClientOp::Put { .. }
                | ClientOp::PutPair
                | ClientOp::PutLeased { .. }
                | ClientOp::PutAndLookBack { .. }
        );
        assert!(revision >= floor, "request {number} sees {revision}, {floor} was acknowledged");
        assert!(!writes || revision > floor, "request {number} writes {revision} after {floor}");
        self.newest = self.newest.max(revision);
        let call = call(request);
        if let Some((key, call)) = call {
            let (create, version) = seen.kv.map_or((revision, 0), |kv| (kv.create, kv.version));
            let modified = revision;
            let known = match call.deed {
                Effect::Put { value } | Effect::Swap { value, .. } if seen.done => {
                    Some(Kv { value, create, modified, version: version + 1 })
                }
                Effect::Delete => None,
                Effect::Put { .. } | Effect::Swap { .. } | Effect::Get => seen.kv,
            };
            self.known.insert(key, known);
        }
    }

    /// Checks each key's history.
    pub(super) fn check_linearizable(&self, checks: &Checks) {
        let log = checks.written();
        let mut keys: BTreeMap<u64, Vec<Call>> = BTreeMap::new();
        for (key, call) in self.requests.iter().filter_map(call) {
            keys.entry(key).or_default().push(call);
        }
        for (key, calls) in keys {
            if let Err(why) = linear::check(&calls, &log) {
                panic!("key k{key} is not linearizable: {why}");
            }
        }
    }
}

/// A request of one key as a part of its history, if it counts.
fn call(request: &Asked) -> Option<(u64, Call)> {
    if matches!(request.stage, Stage::Planned | Stage::Failed) {
        return None;
    }
    // The number of a request is its value; see `payload`.
    let (key, deed) = match request.operation.ask {
        ClientOp::Put { key } | ClientOp::PutAndLookBack { key, .. } => {
            (key, Effect::Put { value: request.number })
        }
        ClientOp::Get { key } => (key, Effect::Get),
        ClientOp::Delete { key } => (key, Effect::Delete),
        ClientOp::Swap { key } => {
            (key, Effect::Swap { expected: request.expected, value: request.number })
        }
        ClientOp::GetSerializable { .. }
        | ClientOp::PutPair
        | ClientOp::GetPair
        | ClientOp::Compact { .. }
        | ClientOp::Alarm { .. }
        | ClientOp::Grant { .. }
        | ClientOp::KeepAlive { .. }
        | ClientOp::PutLeased { .. } => return None,
    };
    Some((key, Call { asked: request.asked, answer: request.answer, deed }))
}

/// The observation in an answer; `None` if the request had no effect. Panics at an impossible one.
fn seen(request: &Asked, answer: Answer, checks: &mut Checks) -> Option<Seen> {
    let (ask, asked) = (request.operation.ask, request.asked);
    let reply = match answer {
        Answer::Failed => return None,
        Answer::Renewed(ttl) => {
            if let ClientOp::KeepAlive { lease } = ask {
                checks.lease_promised(lease, asked, ttl);
            }
            return Some(Seen { revision: 0, kv: None, done: true });
        }
        Answer::Read(response, revision) => return Some(read(ask, &response, revision, checks)),
        Answer::Applied(Err(refusal)) => {
            assert!(fits(ask, refusal), "{ask:?} was refused: {refusal}");
            return None;
        }
        Answer::Applied(Ok(reply)) => reply,
    };
    let revision = |header: Option<basalt_proto::etcdserverpb::ResponseHeader>| {
        header.map_or(0, |header| header.revision)
    };
    Some(match reply {
        Reply::Put(put) => {
            let kv = put.prev_kv.as_ref().map(decode);
            Seen { revision: revision(put.header), kv, done: true }
        }
        Reply::DeleteRange(delete) => {
            let kv = delete.prev_kvs.first().map(decode);
            assert_eq!(delete.deleted, i64::from(kv.is_some()), "the count of what was deleted");
            Seen { revision: revision(delete.header), kv, done: true }
        }
        Reply::Txn(txn) => transaction(request, &txn, revision(txn.header), checks),
        Reply::LeaseGrant(grant) => {
            checks.lease_promised(grant.id as LeaseId, asked, grant.ttl);
            Seen { revision: revision(grant.header), kv: None, done: true }
        }
        Reply::Compact { revision } | Reply::LeaseRevoke { revision } => {
            Seen { revision, kv: None, done: true }
        }
        Reply::Alarm(_) => Seen { revision: 0, kv: None, done: true },
        Reply::Token { .. } | Reply::Done => panic!("{ask:?} was answered with {reply:?}"),
    })
}

/// True if the request needs disk space.
pub(super) fn takes_space(ask: ClientOp) -> bool {
    matches!(
        ask,
        ClientOp::PutAndLookBack { .. }
            | ClientOp::Put { .. }
            | ClientOp::PutPair
            | ClientOp::Swap { .. }
            | ClientOp::PutLeased { .. }
            | ClientOp::Grant { .. }
    )
}

/// True if the request may be refused for this reason.
fn fits(ask: ClientOp, refusal: Refusal) -> bool {
    let is_past = matches!(ask, ClientOp::PutAndLookBack { .. });
    (refusal == Refusal::LeaseExist && matches!(ask, ClientOp::Grant { .. }))
        || (refusal == Refusal::LeaseNotFound && matches!(ask, ClientOp::PutLeased { .. }))
        || (refusal == Refusal::Compacted && (is_past || matches!(ask, ClientOp::Compact { .. })))
        || (refusal == Refusal::NoSpace && takes_space(ask))
}

fn transaction(
    request: &Asked,
    txn: &encoded::TxnResponse,
    revision: i64,
    checks: &Checks,
) -> Seen {
    let ask = request.operation.ask;
    if let (ClientOp::PutAndLookBack { key, .. }, Some(past)) = (ask, txn.responses.get(1)) {
        let Some(encoded::Response::ResponseRange(range)) = past.response.as_ref() else {
            panic!("{ask:?} was answered with {past:?}")
        };
        let was = checks.value_at(&key_name(key), request.expected);
        let read = range.kvs.iter().next().as_ref().map(decode);
        assert_eq!(read, was, "k{key} looked back to {}", request.expected);
    }
    let kv = match txn.responses.first().and_then(|one| one.response.as_ref()) {
        Some(encoded::Response::ResponsePut(put)) => put.prev_kv.as_ref().map(decode),
        Some(encoded::Response::ResponseRange(range)) => {
            range.kvs.iter().next().as_ref().map(decode)
        }
        other => panic!("{ask:?} was answered with {other:?}"),
    };
    Seen { revision, kv, done: txn.succeeded }
}

/// Checks that the response is the state at the revision that it names.
fn read(ask: ClientOp, response: &encoded::RangeResponse, revision: i64, checks: &Checks) -> Seen {
    let kvs: Vec<_> = response.kvs.iter().map(|kv| decode(&kv)).collect();
    if let ClientOp::Get { key } | ClientOp::GetSerializable { key } = ask {
        let is = checks.value_at(&key_name(key), revision);
        assert_eq!(kvs.first().copied(), is, "k{key} read at {revision}");
    } else {
        let values: Vec<_> = kvs.iter().map(|kv| (kv.value, kv.modified)).collect();
        let whole = values.is_empty() || values.len() == 2 && values[0] == values[1];
        assert!(whole, "half of a transaction is seen: {kvs:?}");
        for (key, kv) in PAIR.iter().zip(&kvs) {
            assert_eq!(checks.value_at(key.as_bytes(), revision), Some(*kv), "at {revision}");
        }
    }
    Seen { revision, kv: kvs.first().copied(), done: true }
}

fn decode(kv: &Bytes) -> Kv {
    kv_of(&mvccpb::KeyValue::decode(kv.clone()).expect("a key and its value read back"))
}

/// The value that a request writes: its number, and sometimes a long suffix.
fn value(number: usize) -> Bytes {
    let length = if number.is_multiple_of(9) { 700 } else { number % 5 };
    format!("{number} {}", "x".repeat(length)).into()
}

fn put(key: Bytes, value: Bytes, lease: LeaseId) -> PutRequest {
    PutRequest { key, value, lease, prev_kv: true, ..PutRequest::default() }
}

fn op(request: Request) -> RequestOp {
    RequestOp { request: Some(request) }
}

fn put_and_look_back(key: u64, revision: i64, value: Bytes) -> TxnRequest {
    let range = RangeRequest { key: key_name(key), revision, ..RangeRequest::default() };
    TxnRequest {
        success: vec![
            op(Request::RequestPut(put(key_name(key), value, 0))),
            op(Request::RequestRange(range)),
        ],
        ..TxnRequest::default()
    }
}

fn alarm(on: bool) -> AlarmRequest {
    let mut alarm = AlarmRequest { member_id: 1, ..AlarmRequest::default() };
    alarm.set_action(if on { AlarmAction::Activate } else { AlarmAction::Deactivate });
    alarm.set_alarm(AlarmType::Nospace);
    alarm
}

fn swap(key: u64, expected: i64, value: Bytes) -> TxnRequest {
    let mut compare = Compare {
        key: key_name(key),
        target_union: Some(TargetUnion::ModRevision(expected)),
        ..Compare::default()
    };
    compare.set_result(CompareResult::Equal);
    compare.set_target(CompareTarget::Mod);
    let range = RangeRequest { key: key_name(key), ..RangeRequest::default() };
    TxnRequest {
        compare: vec![compare],
        success: vec![op(Request::RequestPut(put(key_name(key), value, 0)))],
        failure: vec![op(Request::RequestRange(range))],
    }
}
