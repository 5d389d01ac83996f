//! Writers, readers and a watcher that go on during all faults, and record the acknowledgements.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use basalt_proto::etcdserverpb::watch_request::RequestUnion;
use basalt_proto::etcdserverpb::{WatchCreateRequest, WatchRequest, WatchResponse};
use basalt_proto::mvccpb::Event;
use basalt_proto::mvccpb::event::EventType;
use bytes::Bytes;
use prost::Message as _;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::task::JoinHandle;

use super::connections::{Connections, permitted};
use super::contended::{self, History};
use super::members::Members;
use crate::process::PATIENCE;
use crate::wire::{self, Wire};

const WRITERS: u64 = 8;
const READERS: u64 = 2;
const CONTENDERS: u64 = 6;
/// A client waits this long before it asks another member.
pub(super) const CALL_TIME: Duration = Duration::from_secs(2);
/// Pause between the writes of a writer: fast members should not fill the memory of the test.
const WRITE_PAUSE: Duration = Duration::from_millis(8);

/// The acknowledged writes and observed events.
#[derive(Default)]
pub(super) struct Promises {
    /// The history of the contending clients.
    pub(super) history: History,
    /// Revisions of keys, each of which is written once.
    writes: Mutex<BTreeMap<String, i64>>,
    /// The newest revision in any response.
    revision: AtomicI64,
    acknowledged: AtomicU64,
    reads: AtomicU64,
    /// Revisions of keys, as watched.
    events: Mutex<BTreeMap<String, i64>>,
    /// Stops the clients.
    stop: AtomicBool,
    /// Stops the watcher, once it has seen the newest revision.
    is_known: AtomicBool,
}

impl Promises {
    pub(super) fn is_over(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// No response to a later request is from before this revision.
    pub(super) fn newest(&self) -> i64 {
        self.revision.load(Ordering::Acquire)
    }

    pub(super) fn saw(&self, revision: i64) {
        self.revision.fetch_max(revision, Ordering::AcqRel);
    }
}

/// Running clients.
pub(super) struct Load {
    promises: Arc<Promises>,
    clients: Vec<JoinHandle<()>>,
    watcher: JoinHandle<()>,
    random: StdRng,
}

impl Load {
    pub(super) fn begin(members: &Members, seed: u64) -> Self {
        let promises = Arc::new(Promises::default());
        let connections = Connections::all(members);
        let client = |number: u64| {
            let random = StdRng::seed_from_u64(seed << 8 | number);
            let own = connections[number as usize % connections.len()].clone();
            (own, Arc::clone(&promises), random)
        };
        let writers = (0..WRITERS).map(|number| {
            let (wires, promises, random) = client(number);
            tokio::spawn(write(number, wires, promises, random))
        });
        let readers = (0..READERS).map(|number| {
            let (wires, promises, random) = client(WRITERS + number);
            tokio::spawn(read(wires, promises, random))
        });
        let contenders = (0..CONTENDERS).map(|number| {
            let (wires, promises, random) = client(WRITERS + READERS + number);
            tokio::spawn(async move { contended::contend(wires, &promises, random).await })
        });
        let clients = writers.chain(readers).chain(contenders).collect();
        let (wires, promises, random) = client(WRITERS + READERS + CONTENDERS);
        let watcher = tokio::spawn(watch(wires, Arc::clone(&promises), random));
        Self { promises, clients, watcher, random: StdRng::seed_from_u64(seed) }
    }

    pub(super) fn acknowledged(&self) -> u64 {
        self.promises.acknowledged.load(Ordering::Relaxed)
    }

    pub(super) fn moment(&mut self, milliseconds: Range<u64>) -> Duration {
        Duration::from_millis(self.random.random_range(milliseconds))
    }

    /// Waits until this many writes were acknowledged.
    pub(super) async fn wait_for(&self, acknowledged: u64) {
        let until = Instant::now() + PATIENCE;
        while self.acknowledged() < acknowledged {
            assert!(Instant::now() < until, "stuck at {} writes", self.acknowledged());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Ends the clients. Every acknowledged write is there, at its revision, on every member; the watcher saw all of
    /// them; and the history of the contending clients is linearizable.
    pub(super) async fn finish(self, members: &Members) {
        let promises = self.promises;
        promises.stop.store(true, Ordering::Relaxed);
        for client in self.clients {
            client.await.expect("a client saw nothing wrong");
        }
        let writes = promises.writes.lock().unwrap().clone();
        for at in (0..members.0.len()).filter(|at| members.0[*at].is_running()) {
            holds_all(members, at, &writes, &promises).await;
        }
        promises.is_known.store(true, Ordering::Relaxed);
        self.watcher.await.expect("the watcher saw nothing wrong");
        let events = promises.events.lock().unwrap().clone();
        for (key, revision) in &writes {
            assert_eq!(events.get(key), Some(revision), "{key} as watched");
        }
        let reads = promises.reads.load(Ordering::Relaxed);
        println!("{} writes and {reads} reads were acknowledged", writes.len());
        assert!(reads > 0, "nobody could read");
        promises.history.check();
    }
}

/// True if a member has all acknowledged writes.
async fn holds_all(
    members: &Members,
    at: usize,
    writes: &BTreeMap<String, i64>,
    promises: &Promises,
) {
    let (asked, newest) = (promises.history.now(), promises.newest());
    let all = members.wire(at).everything(0).await.expect("a member answers");
    promises.history.found(asked, &all);
    let revision = all.header.as_ref().map_or(0, |header| header.revision);
    assert!(revision >= newest, "m{} is at {revision}, {newest} was seen", at + 1);
    promises.saw(revision);
    let found: BTreeMap<_, _> = all
        .kvs
        .iter()
        .map(|kv| (String::from_utf8_lossy(&kv.key).into_owned(), kv.mod_revision))
        .collect();
    for (key, revision) in writes {
        assert_eq!(found.get(key), Some(revision), "{key} of m{}", at + 1);
    }
}

async fn write(
    number: u64,
    mut connections: Connections,
    promises: Arc<Promises>,
    mut random: StdRng,
) {
    let (mut last, mut count) = (0, 0_u64);
    while !promises.is_over() {
        count += 1;
        let key = format!("writer-{number}/{count:08}");
        let value = "x".repeat(random.random_range(0..300));
        let put = connections.any(&mut random).put(&key, &value);
        let Ok(Ok(answer)) = tokio::time::timeout(CALL_TIME, put).await.map(permitted) else {
            // It may be written or not, and still be written later.
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        let revision = answer.header.map_or(0, |header| header.revision);
        assert!(revision > last, "{key} at {revision}, the one before was at {last}");
        last = revision;
        promises.saw(revision);
        promises.writes.lock().unwrap().insert(key, revision);
        promises.acknowledged.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(WRITE_PAUSE).await;
    }
}

/// A read that begins after a response is not older than that response.
async fn read(mut connections: Connections, promises: Arc<Promises>, mut random: StdRng) {
    while !promises.is_over() {
        let least = promises.newest();
        let get = connections.any(&mut random).get("writer-0/00000001");
        if let Ok(Ok(answer)) = tokio::time::timeout(CALL_TIME, get).await.map(permitted) {
            let revision = answer.header.map_or(0, |header| header.revision);
            assert!(revision >= least, "a stale read: {revision}, {least} was acknowledged before");
            promises.saw(revision);
            promises.reads.fetch_add(1, Ordering::Relaxed);
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Sees every change once, in the order of revisions without a gap, on whichever member.
async fn watch(mut connections: Connections, promises: Arc<Promises>, mut random: StdRng) {
    // The first revision is that of an empty store.
    let mut next = 2;
    while !promises.is_known.load(Ordering::Relaxed) || next <= promises.newest() {
        let wire = connections.any(&mut random).clone();
        // Switches to another member when this one ends the stream or sends nothing for a while.
        let _ = watch_one(&wire, &mut next, &promises).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn watch_one(wire: &Wire, next: &mut i64, promises: &Promises) -> Option<()> {
    let everything = Bytes::from_static(b"\0");
    let create = WatchCreateRequest {
        key: everything.clone(),
        range_end: everything,
        start_revision: *next,
        ..Default::default()
    };
    let request_union = Some(RequestUnion::CreateRequest(create));
    let first = WatchRequest { request_union }.encode_to_vec().into();
    let talk = tokio::time::timeout(CALL_TIME, wire.talk(wire::WATCH, first)).await;
    let mut talk = talk.ok()?.ok()?;
    loop {
        let answer = tokio::time::timeout(CALL_TIME, talk.answers.message()).await.ok()?;
        let answer = permitted(answer).ok()??;
        let answer = WatchResponse::decode(answer).expect("a response reads");
        let reason = &answer.cancel_reason;
        assert!(!reason.contains("denied") && !reason.contains("auth"), "{reason}");
        for event in answer.events {
            watched(&event, *next, promises);
            *next += 1;
        }
    }
}

/// All the clients change one key at a time: there is one event for each revision.
fn watched(event: &Event, expected: i64, promises: &Promises) {
    let kv = event.kv.as_ref().expect("an event has a key");
    let key = String::from_utf8_lossy(&kv.key).into_owned();
    assert_eq!(kv.mod_revision, expected, "{key} is not what comes next");
    if event.r#type() == EventType::Put && key.starts_with(contended::PREFIX) {
        promises.history.watched(kv);
    }
    promises.events.lock().unwrap().insert(key, kv.mod_revision);
}
