//! Heavy load, rather than a long one: a process that is stopped again and again, and very
//! many watchers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use basalt_proto::etcdserverpb::range_request::{SortOrder, SortTarget};
use basalt_proto::etcdserverpb::{
    RangeRequest, RangeResponse, WatchCreateRequest, WatchRequest, WatchResponse,
    watch_request::RequestUnion,
};
use bytes::Bytes;
use prost::Message;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rustix::process::Signal;

use crate::compare::{from_environment, runtime};
use crate::process::{self, Server, Setup};
use crate::sandbox;
use crate::wire::{self, Talk, Wire};

/// A stopped server must answer within this time after it continues.
const AWAKE_MAX: Duration = Duration::from_secs(8);
const CONNECTIONS: usize = 1_000;
const WATCHES: usize = 10;
/// Keys that are written; each watcher of a connection watches another one of them.
const EVENTS_OF_A_KEY: usize = 3;

/// An executor that sleeps in the kernel must not miss wake-ups while it was stopped.
#[test]
fn a_server_stopped_again_and_again_goes_on() {
    for reactor in sandbox::reactors() {
        stopped_again_and_again(reactor);
    }
}

fn stopped_again_and_again(reactor: &str) {
    let cycles = from_environment("STRESS_CYCLES", 12);
    let mut rng = StdRng::seed_from_u64(from_environment("STRESS_SEED", 1));
    runtime().block_on(async {
        let server = Setup::new(process::basalt()).flag("reactor", reactor).start();
        let answered = Arc::new(AtomicU64::new(0));
        let stop = Arc::new(AtomicBool::new(false));
        let load: Vec<_> = (0..24)
            .map(|number| {
                let wire = Wire::new(&server.endpoint());
                tokio::spawn(puts_and_gets(number, wire, answered.clone(), stop.clone()))
            })
            .collect();
        for cycle in 1..=cycles {
            let before = answered.load(Ordering::Relaxed);
            // Sometimes under full load, sometimes just before it would sleep.
            tokio::time::sleep(Duration::from_millis(rng.random_range(5..60))).await;
            server.signal(Signal::STOP);
            tokio::time::sleep(Duration::from_millis(rng.random_range(1..120))).await;
            server.signal(Signal::CONT);
            goes_on(&server, &answered, before.max(answered.load(Ordering::Relaxed)), cycle).await;
        }
        stop.store(true, Ordering::Relaxed);
        for task in load {
            let ended = tokio::time::timeout(AWAKE_MAX, task).await;
            ended.expect("every request is answered").unwrap().unwrap();
        }
        // Idle now: a lost wake-up would not be repaired by other traffic.
        for _ in 0..5 {
            tokio::time::sleep(Duration::from_millis(rng.random_range(50..300))).await;
            server.signal(Signal::STOP);
            tokio::time::sleep(Duration::from_millis(50)).await;
            server.signal(Signal::CONT);
            let wire = Wire::new(&server.endpoint());
            let put = tokio::time::timeout(AWAKE_MAX, wire.put("idle", "x")).await;
            put.expect("an idle server wakes up").unwrap();
        }
    });
}

/// Waits until more requests than before have been answered, and a new connection is served.
async fn goes_on(server: &Server, answered: &AtomicU64, before: u64, cycle: u64) {
    let until = Instant::now() + AWAKE_MAX;
    while answered.load(Ordering::Relaxed) < before + 48 {
        assert!(
            Instant::now() < until,
            "cycle {cycle}: nothing answered for {AWAKE_MAX:?}\n{}",
            server.logs.tail()
        );
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let wire = Wire::new(&server.endpoint());
    let answer = tokio::time::timeout(AWAKE_MAX, wire.get("any")).await;
    answer.unwrap_or_else(|_| panic!("cycle {cycle}: a new connection hangs")).unwrap();
}

async fn puts_and_gets(
    number: u64,
    wire: Wire,
    answered: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
) -> Result<(), tonic::Status> {
    let key = format!("load-{number}");
    let mut count = 0_u64;
    while !stop.load(Ordering::Relaxed) {
        count += 1;
        let value = count.to_string();
        // A pause may cost a leader its term; that error is an answer too.
        let put = wire.put(&key, &value).await;
        answered.fetch_add(1, Ordering::Relaxed);
        if put.is_err() {
            continue;
        }
        let got = wire.get(&key).await?;
        assert_eq!(got.kvs[0].value, value.as_bytes(), "a read after the write does not see it");
        answered.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

/// 1,000 connections, ten watchers on each, every event to each of them once and in order.
#[test]
fn ten_thousand_watchers_see_each_event_once_and_in_order() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let server = Setup::new(process::basalt()).start();
        let writer = Wire::new(&server.endpoint());
        // A part of the writes is history when the watchers are created.
        let first = writer.put(&key(0), "0").await.unwrap().header.unwrap().revision;
        for number in 1..WATCHES {
            writer.put(&key(number), "0").await.unwrap();
        }
        let mut watchers = Vec::new();
        for connection in 0..CONNECTIONS {
            let talk = open_watches(&server, first, connection).await;
            watchers.push(tokio::spawn(watch_all(talk)));
        }
        for round in 1..EVENTS_OF_A_KEY {
            for number in 0..WATCHES {
                writer.put(&key(number), &round.to_string()).await.unwrap();
            }
        }
        let patience = Duration::from_secs(90);
        for (connection, watcher) in watchers.into_iter().enumerate() {
            let seen = tokio::time::timeout(patience, watcher).await;
            let seen =
                seen.unwrap_or_else(|_| panic!("connection {connection}: events are missing"));
            seen.unwrap().unwrap_or_else(|problem| panic!("connection {connection}: {problem}"));
        }
    });
}

fn key(number: usize) -> String {
    format!("watched-{number}")
}

/// One connection with its watchers, half of the connections from the past, half from now on.
async fn open_watches(server: &Server, first: i64, connection: usize) -> (Talk, bool) {
    let wire = Wire::new(&server.endpoint());
    let past = connection.is_multiple_of(2);
    let create = |number: usize| {
        let request = WatchCreateRequest {
            key: Bytes::from(key(number)),
            start_revision: if past { first } else { 0 },
            ..Default::default()
        };
        let union = RequestUnion::CreateRequest(request);
        Bytes::from(WatchRequest { request_union: Some(union) }.encode_to_vec())
    };
    let mut talk = wire.talk(wire::WATCH, create(0)).await.unwrap();
    for number in 1..WATCHES {
        talk.send.send(create(number)).await.unwrap();
    }
    if !past {
        // The start is the revision of the response.
        for number in 0..WATCHES {
            let bytes = talk.answers.message().await.unwrap().expect("a response");
            let created = WatchResponse::decode(bytes).unwrap();
            assert!(created.created && created.watch_id == i64::try_from(number).unwrap());
        }
    }
    (talk, past)
}

/// Reads until every watcher has received all its events.
async fn watch_all((mut talk, past): (Talk, bool)) -> Result<(), String> {
    let first_value = usize::from(!past);
    let mut next = [first_value; WATCHES];
    while next.iter().any(|value| *value < EVENTS_OF_A_KEY) {
        let message = talk.answers.message().await.map_err(|status| status.to_string())?;
        let bytes = message.ok_or("the stream ended")?;
        let response = WatchResponse::decode(bytes).map_err(|error| error.to_string())?;
        if response.canceled {
            return Err(format!("canceled: {response:?}"));
        }
        let number = usize::try_from(response.watch_id).map_err(|error| error.to_string())?;
        for event in &response.events {
            let kv = event.kv.as_ref().ok_or("an event without a record")?;
            if kv.key != key(number) || kv.value != next[number].to_string() {
                return Err(format!("watcher {number} wants {}: {event:?}", next[number]));
            }
            next[number] += 1;
        }
    }
    Ok(())
}

/// A client that reads and then watches from the revision of the header must not miss an event: every write
/// is to the one key, so that its revision is the whole store's.
#[test]
fn a_watch_from_the_revision_of_a_response_misses_no_event() {
    let reads = from_environment("STRESS_READS", 4_000);
    runtime().block_on(async {
        let server = Setup::new(process::basalt()).start();
        let stop = Arc::new(AtomicBool::new(false));
        Wire::new(&server.endpoint()).put("only", "0").await.unwrap();
        let writers: Vec<_> = (0..8)
            .map(|_| {
                let (wire, stop) = (Wire::new(&server.endpoint()), Arc::clone(&stop));
                tokio::spawn(async move {
                    while !stop.load(Ordering::Relaxed) {
                        wire.put("only", "x").await.unwrap();
                    }
                })
            })
            .collect();
        let key = Bytes::from_static(b"only");
        let one = RangeRequest { key: key.clone(), ..Default::default() };
        let sorted = RangeRequest {
            range_end: Bytes::from_static(b"onlz"),
            sort_order: SortOrder::Descend as i32,
            sort_target: SortTarget::Create as i32,
            ..one.clone()
        };
        let plain = RangeRequest { sort_order: 0, sort_target: 0, ..sorted.clone() };
        let wires: Vec<_> = (0..4).map(|_| Wire::new(&server.endpoint())).collect();
        for read in 0..reads as usize {
            let request = [&one, &sorted, &plain][read % 3];
            let answer: RangeResponse = wires[read % 4].ask(wire::RANGE, request).await.unwrap();
            let (header, found) = (answer.header.unwrap().revision, answer.kvs[0].mod_revision);
            assert_eq!(header, found, "{request:?}");
        }
        stop.store(true, Ordering::Relaxed);
        for writer in writers {
            writer.await.unwrap();
        }
    });
}
