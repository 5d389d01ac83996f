//! Clients that contend for few keys, and the history of their requests, for the same check of linearizability
//! that the simulator's clients pass.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use basalt::sim::linear::{self, Call, Effect, Kv, Micros, Seen};
use basalt_proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use basalt_proto::etcdserverpb::{
    Compare, DeleteRangeRequest, DeleteRangeResponse, PutRequest, PutResponse, RangeRequest,
    RangeResponse, RequestOp, ResponseHeader, TxnRequest, TxnResponse, request_op, response_op,
};
use basalt_proto::mvccpb::KeyValue;
use bytes::Bytes;
use rand::Rng;
use rand::rngs::StdRng;
use tonic::Status;

use super::connections::{Connections, permitted};
use super::load::{CALL_TIME, Promises};
use crate::wire::{self, Wire};

pub(super) const PREFIX: &str = "contended/";
/// Number of keys at any time.
const KEYS: u64 = 3;
/// After so many requests new keys are used: short histories are checked quickly.
const REQUESTS_OF_KEYS: u64 = 3000;

/// The clients' requests and responses, by one clock, and the watcher's events.
pub(super) struct History {
    began: Instant,
    /// Number of requests so far; the number of a request is the value that it writes.
    asked: AtomicU64,
    calls: Mutex<BTreeMap<String, Vec<Call>>>,
    /// The key-value pair of each value that was written.
    log: Mutex<BTreeMap<u64, Kv>>,
}

impl Default for History {
    fn default() -> Self {
        let (calls, log) = (Mutex::default(), Mutex::default());
        Self { began: Instant::now(), asked: AtomicU64::new(0), calls, log }
    }
}

impl History {
    pub(super) fn now(&self) -> Micros {
        self.began.elapsed().as_micros().try_into().expect("a test ends")
    }

    /// Records a watched write.
    pub(super) fn watched(&self, event: &KeyValue) {
        let kv = seen_kv(event);
        let before = self.log.lock().unwrap().insert(kv.value, kv);
        assert_eq!(before, None, "one value was written twice: {kv:?}");
    }

    /// Records a range over everything as a read of each key.
    pub(super) fn found(&self, asked: Micros, all: &RangeResponse) {
        let (answered, revision) = (self.now(), revision(all.header.as_ref()));
        for (key, calls) in self.calls.lock().unwrap().iter_mut() {
            let kv = all.kvs.iter().find(|kv| kv.key == key.as_bytes()).map(seen_kv);
            let seen = Seen { revision, kv, done: true };
            calls.push(Call { asked, answer: Some((answered, seen)), deed: Effect::Get });
        }
    }

    /// Checks that the history is linearizable; and that the search finds the fault in one that
    /// is not.
    pub(super) fn check(&self) {
        let (calls, log) = (self.calls.lock().unwrap(), self.log.lock().unwrap());
        let mut planted = 0;
        for (key, calls) in calls.iter() {
            if let Err(why) = linear::check(calls, &log) {
                panic!("{key} is not linearizable: {why}");
            }
            if let Some(wrong) = with_a_stale_read(calls, &log) {
                assert!(linear::check(&wrong, &log).is_err(), "{key}: a stale read is not found");
                planted += 1;
            }
        }
        let heard = calls.values().flatten().filter(|call| call.answer.is_some()).count();
        let all = calls.values().map(Vec::len).sum::<usize>();
        println!(
            "{all} requests of {} contended keys, {heard} answered, are linearizable",
            calls.len()
        );
        assert!(planted > 0, "no history was rich enough to plant a stale read in it");
    }

    fn record(&self, key: String, call: Call) {
        self.calls.lock().unwrap().entry(key).or_default().push(call);
    }
}

/// The same history, but the last read returns a value that was replaced before the read began.
fn with_a_stale_read(calls: &[Call], log: &BTreeMap<u64, Kv>) -> Option<Vec<Call>> {
    let is_read = |call: &Call| call.deed == Effect::Get && call.answer.is_some();
    let at = calls.iter().rposition(is_read)?;
    let asked = calls[at].asked;
    let written = |call: &Call| match (call.deed, call.answer?) {
        (Effect::Put { value } | Effect::Swap { value, .. }, (answered, seen))
            if seen.done && answered < asked =>
        {
            log.get(&value).copied()
        }
        _ => None,
    };
    let mut written: Vec<_> = calls.iter().filter_map(written).collect();
    written.sort_by_key(|kv| kv.modified);
    let stale = written.iter().rev().nth(1)?;
    let mut wrong = calls.to_vec();
    let (_, seen) = wrong[at].answer.as_mut()?;
    seen.kv = Some(*stale);
    Some(wrong)
}

/// Puts, gets, deletes and swaps, until it is stopped.
pub(super) async fn contend(mut connections: Connections, promises: &Promises, mut random: StdRng) {
    let history = &promises.history;
    // The last known state of the keys, which makes some of the swaps succeed.
    let mut known = BTreeMap::new();
    while !promises.is_over() {
        let number = history.asked.fetch_add(1, Ordering::Relaxed);
        let (round, lane) = (number / REQUESTS_OF_KEYS, random.random_range(0..KEYS));
        let key = format!("{PREFIX}{round:04}-{lane}");
        let expected = known.get(&key).copied().unwrap_or(0);
        let deed = match random.random_range(0..10) {
            0..=2 => Effect::Get,
            3..=5 => Effect::Put { value: number },
            6 => Effect::Delete,
            _ => Effect::Swap { expected, value: number },
        };
        let least = promises.newest();
        let asked = history.now();
        let asking = ask(connections.any(&mut random), &key, deed);
        let answer = tokio::time::timeout(CALL_TIME, asking).await.ok();
        let answer = answer.and_then(|answer| permitted(answer).ok());
        let answer = answer.inspect(|seen| {
            assert!(seen.revision >= least, "{deed:?} of {key} after {least}: {seen:?}");
            promises.saw(seen.revision);
            known.insert(key.clone(), modified(deed, seen));
        });
        let pause = if answer.is_some() { random.random_range(1..6) } else { 10 };
        let answer = answer.map(|seen| (history.now(), seen));
        history.record(key, Call { asked, answer, deed });
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }
}

/// The mod revision of the key, as far as a response contains it; 0 if the key does not exist.
fn modified(deed: Effect, seen: &Seen) -> i64 {
    match deed {
        Effect::Put { .. } | Effect::Swap { .. } if seen.done => seen.revision,
        Effect::Delete => 0,
        Effect::Put { .. } | Effect::Swap { .. } | Effect::Get => {
            seen.kv.map_or(0, |kv| kv.modified)
        }
    }
}

async fn ask(wire: &Wire, key: &str, deed: Effect) -> Result<Seen, Status> {
    let key = Bytes::from(key.to_owned());
    match deed {
        Effect::Get => {
            let request = RangeRequest { key, ..Default::default() };
            let answer: RangeResponse = wire.ask(wire::RANGE, &request).await?;
            Ok(seen(answer.header.as_ref(), answer.kvs.first(), true))
        }
        Effect::Put { value } => {
            let answer: PutResponse = wire.ask(wire::PUT, &put(key, value)).await?;
            Ok(seen(answer.header.as_ref(), answer.prev_kv.as_ref(), true))
        }
        Effect::Delete => {
            let request = DeleteRangeRequest { key, prev_kv: true, ..Default::default() };
            let answer: DeleteRangeResponse = wire.ask(wire::DELETE_RANGE, &request).await?;
            Ok(seen(answer.header.as_ref(), answer.prev_kvs.first(), true))
        }
        Effect::Swap { expected, value } => swap(wire, key, expected, value).await,
    }
}

fn put(key: Bytes, value: u64) -> PutRequest {
    PutRequest { key, value: value.to_string().into(), prev_kv: true, ..Default::default() }
}

async fn swap(wire: &Wire, key: Bytes, expected: i64, value: u64) -> Result<Seen, Status> {
    let op = |request| vec![RequestOp { request: Some(request) }];
    let compare = Compare {
        result: CompareResult::Equal.into(),
        target: CompareTarget::Mod.into(),
        key: key.clone(),
        target_union: Some(TargetUnion::ModRevision(expected)),
        ..Default::default()
    };
    let get = RangeRequest { key: key.clone(), ..Default::default() };
    let request = TxnRequest {
        compare: vec![compare],
        success: op(request_op::Request::RequestPut(put(key, value))),
        failure: op(request_op::Request::RequestRange(get)),
    };
    let answer: TxnResponse = wire.ask(wire::TXN, &request).await?;
    let kv = answer.responses.first().and_then(|op| match op.response.as_ref()? {
        response_op::Response::ResponseRange(range) => range.kvs.first(),
        response_op::Response::ResponsePut(put) => put.prev_kv.as_ref(),
        _ => panic!("neither a put nor a range: {op:?}"),
    });
    Ok(seen(answer.header.as_ref(), kv, answer.succeeded))
}

fn seen(header: Option<&ResponseHeader>, kv: Option<&KeyValue>, done: bool) -> Seen {
    Seen { revision: revision(header), kv: kv.map(seen_kv), done }
}

fn revision(header: Option<&ResponseHeader>) -> i64 {
    header.expect("an answer has a header").revision
}

fn seen_kv(kv: &KeyValue) -> Kv {
    let value = std::str::from_utf8(&kv.value).ok().and_then(|text| text.parse().ok());
    let value = value.unwrap_or_else(|| panic!("nobody wrote {kv:?}"));
    Kv { value, create: kv.create_revision, modified: kv.mod_revision, version: kv.version }
}
