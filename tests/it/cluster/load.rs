//! Writers and readers that go on whatever happens to the members, and know what they were promised.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use basalt_proto::etcdserverpb::watch_request::RequestUnion;
use basalt_proto::etcdserverpb::{WatchCreateRequest, WatchRequest, WatchResponse};
use bytes::Bytes;
use prost::Message as _;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::task::JoinHandle;

use super::members::Members;
use crate::wire::{self, Wire};

const WRITERS: u64 = 8;
const READERS: u64 = 2;
/// How long a client waits before it asks another member.
const CALL_TIME: Duration = Duration::from_secs(2);
const PATIENCE: Duration = Duration::from_secs(60);

/// What clients were told.
#[derive(Default)]
struct Promises {
    /// Revisions of keys, each of which is written once.
    writes: Mutex<BTreeMap<String, i64>>,
    /// The newest revision in any answer.
    revision: AtomicI64,
    acknowledged: AtomicU64,
    reads: AtomicU64,
    /// Revisions of keys, as watched.
    events: Mutex<BTreeMap<String, i64>>,
    stop: AtomicBool,
}

/// Clients at work.
pub(super) struct Load {
    promises: Arc<Promises>,
    clients: Vec<JoinHandle<()>>,
    random: StdRng,
}

impl Load {
    pub(super) fn begin(members: &Members, seed: u64) -> Self {
        let promises = Arc::new(Promises::default());
        let wires: Vec<_> = (0..members.0.len()).map(|at| members.wire(at)).collect();
        let client = |number: u64| {
            let random = StdRng::seed_from_u64(seed << 8 | number);
            (wires.clone(), Arc::clone(&promises), random)
        };
        let writers = (0..WRITERS).map(|number| {
            let (wires, promises, random) = client(number);
            tokio::spawn(write(number, wires, promises, random))
        });
        let readers = (0..READERS).map(|number| {
            let (wires, promises, random) = client(WRITERS + number);
            tokio::spawn(read(wires, promises, random))
        });
        let (wires_too, promises_too, random) = client(WRITERS + READERS);
        let watcher = tokio::spawn(watch(wires_too, promises_too, random));
        let clients = writers.chain(readers).chain(std::iter::once(watcher)).collect();
        Self { promises, clients, random: StdRng::seed_from_u64(seed) }
    }

    pub(super) fn acknowledged(&self) -> u64 {
        self.promises.acknowledged.load(Ordering::Relaxed)
    }

    pub(super) fn moment(&mut self, milliseconds: Range<u64>) -> Duration {
        Duration::from_millis(self.random.random_range(milliseconds))
    }

    /// Waits until so many writes were acknowledged.
    pub(super) async fn wait_for(&self, acknowledged: u64) {
        let until = Instant::now() + PATIENCE;
        while self.acknowledged() < acknowledged {
            assert!(Instant::now() < until, "stuck at {} writes", self.acknowledged());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Ends the clients. What was acknowledged is there, at its revision, whoever is asked.
    pub(super) async fn finish(&mut self, members: &Members) {
        self.promises.stop.store(true, Ordering::Relaxed);
        for client in self.clients.drain(..) {
            client.await.expect("a client saw nothing wrong");
        }
        let writes = self.promises.writes.lock().unwrap().clone();
        let events = self.promises.events.lock().unwrap().clone();
        for (key, revision) in &writes {
            assert_eq!(events.get(key), Some(revision), "{key} as watched");
        }
        let newest = self.promises.revision.load(Ordering::Relaxed);
        for at in (0..members.0.len()).filter(|at| members.0[*at].is_running()) {
            let all = members.wire(at).everything(0).await.expect("a member answers");
            let revision = all.header.as_ref().map_or(0, |header| header.revision);
            assert!(revision >= newest, "m{} is at {revision}, {newest} was seen", at + 1);
            let found: BTreeMap<_, _> = all
                .kvs
                .iter()
                .map(|kv| (String::from_utf8_lossy(&kv.key).into_owned(), kv.mod_revision))
                .collect();
            for (key, revision) in &writes {
                assert_eq!(found.get(key), Some(revision), "{key} of m{}", at + 1);
            }
        }
        let reads = self.promises.reads.load(Ordering::Relaxed);
        println!("{} writes and {reads} reads were acknowledged", writes.len());
        assert!(reads > 0, "nobody could read");
    }
}

/// Asks any member, for a while.
fn any<'a>(wires: &'a [Wire], random: &mut StdRng) -> &'a Wire {
    &wires[random.random_range(0..wires.len())]
}

async fn write(number: u64, wires: Vec<Wire>, promises: Arc<Promises>, mut random: StdRng) {
    let (mut last, mut count) = (0, 0_u64);
    while !promises.stop.load(Ordering::Relaxed) {
        count += 1;
        let key = format!("writer-{number}/{count:08}");
        let value = "x".repeat(random.random_range(0..300));
        let put = any(&wires, &mut random).put(&key, &value);
        let Ok(Ok(answer)) = tokio::time::timeout(CALL_TIME, put).await else {
            // It may be written or not, and still be written later.
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        let revision = answer.header.map_or(0, |header| header.revision);
        assert!(revision > last, "{key} at {revision}, the one before was at {last}");
        last = revision;
        promises.revision.fetch_max(revision, Ordering::AcqRel);
        promises.writes.lock().unwrap().insert(key, revision);
        promises.acknowledged.fetch_add(1, Ordering::Relaxed);
    }
}

/// No read that begins after an answer is from before it.
async fn read(wires: Vec<Wire>, promises: Arc<Promises>, mut random: StdRng) {
    while !promises.stop.load(Ordering::Relaxed) {
        let least = promises.revision.load(Ordering::Acquire);
        let get = any(&wires, &mut random).get("writer-0/00000001");
        if let Ok(Ok(answer)) = tokio::time::timeout(CALL_TIME, get).await {
            let revision = answer.header.map_or(0, |header| header.revision);
            assert!(revision >= least, "a stale read: {revision}, {least} was acknowledged before");
            promises.revision.fetch_max(revision, Ordering::AcqRel);
            promises.reads.fetch_add(1, Ordering::Relaxed);
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Sees every change once, in order, whichever member tells it.
async fn watch(wires: Vec<Wire>, promises: Arc<Promises>, mut random: StdRng) {
    let mut next = 1;
    loop {
        let newest = promises.revision.load(Ordering::Acquire);
        if promises.stop.load(Ordering::Relaxed) && next > newest {
            return;
        }
        let wire = any(&wires, &mut random).clone();
        // Goes to another member when this one ends the stream or says nothing for a while.
        let _ = watch_one(&wire, &mut next, &promises).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn watch_one(wire: &Wire, next: &mut i64, promises: &Promises) -> Option<()> {
    let create = WatchCreateRequest {
        key: Bytes::from_static(b"writer-"),
        range_end: Bytes::from_static(b"writer."),
        start_revision: *next,
        ..Default::default()
    };
    let request_union = Some(RequestUnion::CreateRequest(create));
    let first = WatchRequest { request_union }.encode_to_vec().into();
    let talk = tokio::time::timeout(CALL_TIME, wire.talk(wire::WATCH, first)).await;
    let mut talk = talk.ok()?.ok()?;
    loop {
        let answer = tokio::time::timeout(CALL_TIME, talk.answers.message()).await.ok()?;
        let answer = WatchResponse::decode(answer.ok()??).expect("a response reads");
        for event in answer.events {
            let kv = event.kv.expect("an event has a key");
            let key = String::from_utf8_lossy(&kv.key).into_owned();
            assert!(kv.mod_revision >= *next, "{key} at {} after {next}", kv.mod_revision);
            let before = promises.events.lock().unwrap().insert(key.clone(), kv.mod_revision);
            assert_eq!(before, None, "{key} comes twice, at {}", kv.mod_revision);
            *next = kv.mod_revision + 1;
        }
    }
}
