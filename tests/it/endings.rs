//! Connections end in every way with all kinds of requests in flight, and leave nothing behind: calls, watches, places in
//! queues, threads, descriptors and memory are as before. `README.md` describes how to end 10,000.
//!
//! ```text
//!  ways × work ─► connections, some hundred at once ─► ended ─► gauges, /proc/<pid> and the queues: as before?
//! ```

mod raw;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};

use basalt_proto::etcdserverpb::watch_request::RequestUnion;
use basalt_proto::etcdserverpb::{
    LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest, PutRequest, RangeRequest,
    SnapshotRequest, WatchCreateRequest, WatchRequest,
};
use basalt_proto::v3electionpb::{CampaignRequest, LeaderRequest};
use basalt_proto::v3lockpb::{LockRequest, LockResponse};
use bytes::Bytes;
use prost::Message;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use self::raw::{Raw, To, has_answer};
use crate::compare::{from_environment, runtime};
use crate::process::{self, PATIENCE, Scratch, Server, Setup, reference};
use crate::wire::{self, Wire};

const LOCK: &str = "/v3lockpb.Lock/Lock";
const CAMPAIGN: &str = "/v3electionpb.Election/Campaign";
const OBSERVE: &str = "/v3electionpb.Election/Observe";
const SNAPSHOT: &str = "/etcdserverpb.Maintenance/Snapshot";

/// Connections at a time.
const ROUND: usize = 240;
/// Size of one value of the lists.
const VALUE_BYTES: usize = 256 << 10;
/// Permitted growth of the process's memory.
const MEMORY_KB: u64 = 20 << 10;
/// Time until a response begins, if there is one, and the wait where there is none.
const BEGINS: Duration = Duration::from_millis(300);
const WAITS: Duration = Duration::from_millis(20);
/// Work without a response.
const UNANSWERED: [&str; 6] = [
    "lock waiter",
    "candidate",
    "half a put",
    "JSON lock waiter",
    "half a JSON put",
    "half a preface",
];

/// The requests that a connection has in flight.
const WORK: [&str; 16] = [
    "watches",
    "list",
    "sorted list",
    "keep-alives",
    "lock waiter",
    "candidate",
    "observer",
    "snapshot",
    "half a put",
    "many of each",
    "JSON watch",
    "JSON list",
    "JSON lock waiter",
    "half a JSON put",
    "websocket watch",
    "half a preface",
];

/// The ways in which a connection ends.
#[derive(Clone, Copy, PartialEq, Debug)]
enum End {
    /// RST.
    Reset,
    /// FIN, or RST if there is unread input, as the kernel does for a killed process.
    Close,
    /// FIN, and the other direction stays open.
    HalfClose,
    /// The streams are reset, the connection goes on.
    ResetStreams,
    /// GOAWAY, then FIN.
    GoAway,
}

const ENDS: [End; 5] = [End::Reset, End::Close, End::HalfClose, End::ResetStreams, End::GoAway];

/// A server with keys to list, a lock that is held, an election that is won, and a lease.
struct Place {
    server: Server,
    sockets: Scratch,
    lease: i64,
}

impl Place {
    fn new(list_bytes: usize) -> Self {
        let sockets = Scratch::new();
        let server = Server::new(Setup::new(process::basalt()));
        let urls = format!("{},unix://{}/s", server.endpoint(), sockets.path().display());
        let mut place = Self { server, sockets, lease: 0 };
        place.server.set("listen-client-urls", &urls);
        place.server.set("grpc-keepalive-timeout", "2s");
        place.server.start();
        runtime().block_on(async {
            let wire = Wire::new(&place.server.endpoint());
            let mut value = vec![0; VALUE_BYTES];
            StdRng::seed_from_u64(1).fill(&mut value[..]);
            for number in 0..list_bytes / VALUE_BYTES {
                let key = format!("list/{number:06}").into();
                let value = Bytes::from(value.clone());
                let put = PutRequest { key, value, ..Default::default() };
                wire.call(wire::PUT, put.encode_to_vec().into()).await.unwrap();
            }
            let grant = LeaseGrantRequest { ttl: 36_000, id: 0 };
            let granted: LeaseGrantResponse = wire.ask(wire::LEASE_GRANT, &grant).await.unwrap();
            place.lease = granted.id;
            let lock = LockRequest { name: "lock".into(), lease: granted.id };
            let _: LockResponse = wire.ask(LOCK, &lock).await.unwrap();
            let campaign = campaign(granted.id);
            wire.call(CAMPAIGN, campaign.encode_to_vec().into()).await.unwrap();
        });
        place
    }

    /// Opens a connection over TCP or the unix socket and gets `work` under way on it.
    fn begin(&self, work: &str, rng: &mut StdRng) -> Raw {
        let path = self.sockets.path().join("s");
        let to = if rng.random_bool(0.5) { To::Tcp(self.server.port) } else { To::Unix(&path) };
        let connected = Raw::connect(to);
        let mut raw = connected.unwrap_or_else(|error| panic!("{error}\n{}", self.logs()));
        match work {
            "JSON watch" => raw.post("/v3/watch", JSON_WATCH, true),
            "JSON list" => raw.post("/v3/kv/range", JSON_LIST, false),
            "JSON lock waiter" => raw.post("/v3/lock/lock", r#"{"name":"bG9jaw=="}"#, false),
            "half a JSON put" => raw.post("/v3/kv/put", r#"{"key":"aGFsZg=="#, true),
            "websocket watch" => raw.websocket("/v3/watch", JSON_WATCH),
            "half a preface" => raw.send(b"PRI * HT"),
            "many of each" => {
                raw.preface();
                (0..3).for_each(|_| WORK[..9].iter().for_each(|it| self.ask(&mut raw, it)));
            }
            one => {
                raw.preface();
                self.ask(&mut raw, one);
            }
        }
        // Some end while the first of it is processed, others later.
        let is_http2 = raw.streams > 0;
        if rng.random_bool(0.7) {
            let wait = if UNANSWERED.contains(&work) { WAITS } else { BEGINS };
            raw.read(wait, |came| if is_http2 { has_answer(came) } else { !came.is_empty() });
        }
        raw
    }

    fn logs(&self) -> String {
        self.server.logs.tail()
    }

    /// Sends one request on a stream of HTTP/2.
    fn ask(&self, raw: &mut Raw, work: &str) {
        let list =
            RangeRequest { key: "list/".into(), range_end: "list0".into(), ..Default::default() };
        match work {
            "watches" => {
                let stream = raw.open(wire::WATCH);
                (0..10).for_each(|_| raw.message(stream, &watch("watched"), false));
            }
            "list" => raw.call(wire::RANGE, &list),
            // By value, which is no order of any index: read at once, on the helper thread.
            "sorted list" => {
                raw.call(wire::RANGE, &RangeRequest { sort_order: 2, sort_target: 4, ..list });
            }
            "keep-alives" => {
                let stream = raw.open(wire::LEASE_KEEP_ALIVE);
                let renew = LeaseKeepAliveRequest { id: self.lease };
                (0..100).for_each(|_| raw.message(stream, &renew, false));
            }
            "lock waiter" => raw.call(LOCK, &LockRequest { name: "lock".into(), lease: 0 }),
            "candidate" => raw.call(CAMPAIGN, &campaign(0)),
            "observer" => raw.call(OBSERVE, &LeaderRequest { name: "office".into() }),
            "snapshot" => raw.call(SNAPSHOT, &SnapshotRequest {}),
            "half a put" => {
                let stream = raw.open(wire::PUT);
                raw.half(stream);
            }
            other => panic!("{other} is no work"),
        }
    }

    /// Begins connections with one kind of work after the other and ends each in its way; returns those that are still open.
    fn end_connections(&self, count: usize, rng: &mut StdRng) -> Vec<Raw> {
        let mut open = Vec::new();
        for number in 0..count {
            let (work, end) = (WORK[number % WORK.len()], ENDS[number / WORK.len() % ENDS.len()]);
            let mut raw = self.begin(work, rng);
            match end {
                End::Reset => raw.reset(),
                End::Close => drop(raw),
                End::GoAway => {
                    if raw.streams > 0 {
                        raw.go_away();
                    }
                }
                End::HalfClose => {
                    raw.half_close();
                    open.push(raw);
                }
                End::ResetStreams => {
                    raw.reset_streams();
                    if raw.streams > 0 {
                        open.push(raw);
                    }
                }
            }
        }
        open
    }

    /// A page of metrics.
    fn metrics(&self) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", self.server.port)).unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
        let mut page = String::new();
        stream.read_to_string(&mut page).unwrap();
        page
    }

    /// The resources of the clients' calls.
    fn held(&self) -> Held {
        let page = self.metrics();
        let sum = |name: &str| -> f64 {
            let lines = page.lines().filter(|line| line.starts_with(name));
            lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
        };
        let started = sum("grpc_server_started_total") - sum("grpc_server_handled_total");
        let queued = runtime().block_on(async {
            let wire = Wire::new(&self.server.endpoint());
            let mut queued = 0;
            for prefix in ["lock", "office"] {
                let range = RangeRequest {
                    key: format!("{prefix}/").into(),
                    range_end: format!("{prefix}0").into(),
                    count_only: true,
                    ..Default::default()
                };
                let found = wire.call(wire::RANGE, range.encode_to_vec().into()).await.unwrap();
                let found = basalt_proto::etcdserverpb::RangeResponse::decode(found).unwrap();
                queued += found.count;
            }
            queued
        });
        Held {
            calls: started as i64,
            streams: sum("etcd_debugging_mvcc_watch_stream_total") as i64,
            watchers: sum("etcd_debugging_mvcc_watcher_total") as i64,
            behind: sum("etcd_debugging_mvcc_slow_watcher_total") as i64,
            queued,
        }
    }

    fn process(&self) -> Process {
        let proc = format!("/proc/{}", self.server.pid());
        // Not the store's tables and the log's segments, whose number changes with merges.
        let data = self.server.data_dir();
        let descriptors = std::fs::read_dir(format!("{proc}/fd")).unwrap();
        let targets = descriptors.filter_map(|link| std::fs::read_link(link.ok()?.path()).ok());
        let status = std::fs::read_to_string(format!("{proc}/status")).unwrap();
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let memory_kb = resident.and_then(|line| line.trim().strip_suffix(" kB")).unwrap();
        Process {
            threads: std::fs::read_dir(format!("{proc}/task")).unwrap().count(),
            descriptors: targets.filter(|target| !target.starts_with(&data)).count(),
            memory_kb: memory_kb.parse().unwrap(),
        }
    }

    /// Waits until this holds, up to [`PATIENCE`].
    fn wait_until<T: std::fmt::Debug>(
        &self,
        look: impl Fn() -> T,
        holds: impl Fn(&T) -> bool,
    ) -> T {
        let until = Instant::now() + PATIENCE;
        loop {
            let seen = look();
            if holds(&seen) {
                return seen;
            }
            assert!(Instant::now() < until, "still {seen:?}\n{}", self.logs());
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// Resources of the clients' calls.
#[derive(PartialEq, Debug)]
struct Held {
    calls: i64,
    streams: i64,
    watchers: i64,
    behind: i64,
    /// Keys of the lock and the election.
    queued: i64,
}

/// Only the first holder of the lock and the election.
const NOTHING: Held = Held { calls: 0, streams: 0, watchers: 0, behind: 0, queued: 2 };

#[derive(Debug)]
struct Process {
    threads: usize,
    /// Of everything but the data directory's files.
    descriptors: usize,
    memory_kb: u64,
}

impl Process {
    fn is_as(&self, before: &Self) -> bool {
        self.threads <= before.threads
            && self.descriptors <= before.descriptors
            && self.memory_kb <= before.memory_kb + MEMORY_KB
    }
}

const JSON_WATCH: &str = r#"{"create_request":{"key":"d2F0Y2hlZA=="}}"#;
const JSON_LIST: &str = r#"{"key":"bGlzdC8=","range_end":"bGlzdDA="}"#;

fn watch(key: &'static str) -> WatchRequest {
    let create = WatchCreateRequest { key: key.into(), ..Default::default() };
    WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) }
}

fn campaign(lease: i64) -> CampaignRequest {
    CampaignRequest { name: "office".into(), value: "me".into(), lease }
}

#[test]
fn nothing_of_a_connection_outlives_it() {
    let count = from_environment("ENDINGS_CONNECTIONS", 240) as usize;
    let list_bytes = from_environment("ENDINGS_LIST_MIB", 1) as usize * (1 << 20);
    let mut rng = StdRng::seed_from_u64(from_environment("ENDINGS_SEED", 1));
    let place = Place::new(list_bytes);
    // Memory that is allocated once and kept: helper threads, buffers, the caches of the allocator.
    drop(place.end_connections(ROUND, &mut rng));
    place.wait_until(|| place.held(), |held| *held == NOTHING);
    std::thread::sleep(Duration::from_secs(2));
    let before = place.process();
    println!("before: {before:?}");
    let mut left = count;
    while left > 0 {
        let round = left.min(ROUND);
        let open = place.end_connections(round, &mut rng);
        left -= round;
        // Open connections have no request in flight.
        place.wait_until(|| place.held(), |held| *held == NOTHING);
        drop(open);
        println!("{left} are left: {:?}", place.process());
    }
    let after = place.wait_until(|| place.process(), |after| after.is_as(&before));
    println!("after: {after:?}");
    runtime().block_on(async {
        let wire = Wire::new(&place.server.endpoint());
        wire.put("served", "as before").await.unwrap();
        assert_eq!(wire.get("served").await.unwrap().kvs[0].value, "as before");
    });
}

/// A machine that loses its power sends nothing: the server notices that its packets are not acknowledged.
#[test]
fn connections_without_acknowledgements_are_closed() {
    let place = Place::new(0);
    let mut raw = Raw::connect(To::Tcp(place.server.port)).unwrap();
    raw.preface();
    place.ask(&mut raw, "watches");
    place.wait_until(|| place.held(), |held| held.watchers == 10);
    raw.fall_silent();
    runtime().block_on(async {
        Wire::new(&place.server.endpoint()).put("watched", "x").await.unwrap();
    });
    place.wait_until(|| place.held(), |held| *held == NOTHING);
}

/// The same with etcdctl.
#[test]
fn etcdctl_that_is_killed_leaves_no_watch() {
    let place = Place::new(0);
    for _ in 0..3 {
        let mut watch = Command::new(reference("etcdctl"));
        watch.args(["watch", "x", "--endpoints"]).arg(place.server.endpoint());
        let mut watching = process::spawn(watch);
        place.wait_until(|| place.held(), |held| held.streams == 1);
        watching.kill().unwrap();
        watching.wait().unwrap();
        place.wait_until(|| place.held(), |held| *held == NOTHING);
    }
}
