//! State after the process was killed, the power failed, or another program wrote into its
//! files: every acknowledged write, or a refusal to start that names the place.
//!
//! * kill -9 keeps the page cache, so it proves the order of the writes.
//! * An older copy of the store beside the newest WAL is the state after a power loss, because only the
//!   WAL is synced before a write is acknowledged.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Seek, SeekFrom, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use basalt_proto::etcdserverpb::{
    CompactionRequest, CompactionResponse, DeleteRangeRequest, DeleteRangeResponse, HashKvResponse,
    LeaseGrantRequest, LeaseGrantResponse, PutRequest, PutResponse, RangeResponse, ResponseHeader,
    TxnRequest, TxnResponse, WatchCreateRequest, WatchRequest, watch_request::RequestUnion,
};
use bytes::Bytes;
use prost::Message;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rustix::process::Signal;

use crate::compare::{difference, from_environment, runtime};
use crate::process::{self, PATIENCE, Server, Setup};
use crate::wire::{self, Wire};

/// Writers that keep the server busy while it is killed.
const WRITERS: u64 = 16;
/// Keys of each writer: few, so that overwrites and their order are seen.
const KEYS: u64 = 20;
/// No segment of the WAL may be deleted under an older copy of the store.
const SNAPSHOT_COUNT: &str = "1000000";

fn setup() -> Setup {
    Setup::new(process::basalt()).flag("snapshot-count", SNAPSHOT_COUNT)
}

/// A writer's record of one of its keys.
#[derive(Clone, Default)]
struct Known {
    /// The newest acknowledged value and its revision.
    value: u64,
    revision: i64,
    /// The value that was sent and not answered: it may be there or not.
    open: Option<u64>,
}

/// All writers' records of acknowledged writes.
#[derive(Default)]
struct Ledger {
    keys: Mutex<BTreeMap<String, Known>>,
    /// The newest revision in any response.
    revision: AtomicU64,
    acknowledged: AtomicU64,
}

impl Ledger {
    fn saw(&self, header: Option<&ResponseHeader>) {
        let revision = header.map_or(0, |it| it.revision);
        self.revision.fetch_max(u64::try_from(revision).unwrap(), Ordering::Relaxed);
    }
}

/// Writes increasing numbers into keys of its own, until the server ends.
async fn writer(number: u64, wire: Wire, ledger: Arc<Ledger>, stop: Arc<AtomicBool>) {
    let mut value = ledger.acknowledged.load(Ordering::Relaxed) * WRITERS + 1;
    while !stop.load(Ordering::Relaxed) {
        let key = format!("writer-{number}/{}", value % KEYS);
        ledger.keys.lock().unwrap().entry(key.clone()).or_default().open = Some(value);
        // Values of some size, so that one write spans blocks of the log.
        let text = format!("{value} {}", "x".repeat(usize::try_from(value % 700).unwrap()));
        let Ok(answer) = wire.put(&key, &text).await else { return };
        ledger.saw(answer.header.as_ref());
        ledger.acknowledged.fetch_add(1, Ordering::Relaxed);
        let revision = answer.header.map_or(0, |it| it.revision);
        let known = Known { value, revision, open: None };
        ledger.keys.lock().unwrap().insert(key, known);
        value += 1;
    }
}

/// Loads the server until `moment` has passed, then applies `end` to it, and waits for the writers.
async fn load(
    server: &mut Server,
    ledger: &Arc<Ledger>,
    moment: Duration,
    acknowledged_min: u64,
    end: impl FnOnce(&mut Server),
) {
    let stop = Arc::new(AtomicBool::new(false));
    let mut writers = Vec::new();
    for number in 0..WRITERS {
        let wire = Wire::new(&server.endpoint());
        writers.push(tokio::spawn(writer(number, wire, ledger.clone(), stop.clone())));
    }
    let enough = ledger.acknowledged.load(Ordering::Relaxed) + acknowledged_min;
    tokio::time::sleep(moment).await;
    while ledger.acknowledged.load(Ordering::Relaxed) < enough
        && writers.iter().any(|writer| !writer.is_finished())
    {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    end(server);
    stop.store(true, Ordering::Relaxed);
    for writer in writers {
        writer.await.unwrap();
    }
}

/// Every acknowledged write is there at its revision; unanswered ones are
/// there or not, and settled from now on.
async fn check(server: &Server, ledger: &Ledger) {
    let wire = Wire::new(&server.endpoint());
    let all = wire.everything(0).await.unwrap();
    let revision = all.header.as_ref().map_or(0, |it| it.revision);
    let known = i64::try_from(ledger.revision.load(Ordering::Relaxed)).unwrap();
    assert!(revision >= known, "revision {revision} after {known} was seen");
    ledger.saw(all.header.as_ref());
    let found: BTreeMap<_, _> =
        all.kvs.iter().map(|kv| (String::from_utf8(kv.key.to_vec()).unwrap(), kv)).collect();
    let mut revisions: Vec<_> = all.kvs.iter().map(|kv| kv.mod_revision).collect();
    revisions.sort_unstable();
    revisions.dedup();
    assert_eq!(revisions.len(), all.kvs.len(), "two single puts share a revision");
    for (key, known) in ledger.keys.lock().unwrap().iter_mut() {
        let kv = found.get(key);
        let text = kv.map_or("0", |kv| std::str::from_utf8(&kv.value).unwrap());
        let value: u64 = text.split(' ').next().unwrap_or("0").parse().unwrap();
        let at = kv.map_or(0, |kv| kv.mod_revision);
        let as_known = value == known.value && at == known.revision;
        let as_sent = Some(value) == known.open && at > known.revision;
        assert!(
            as_known || as_sent,
            "{key}: {} at {} was acknowledged ({:?} open), found {value} at {at}\n{}",
            known.value,
            known.revision,
            known.open,
            server.logs.tail()
        );
        *known = Known { value, revision: at, open: None };
    }
    for key in found.keys().filter(|key| key.starts_with("writer-")) {
        assert!(ledger.keys.lock().unwrap().contains_key(key), "{key} was never written");
    }
}

#[test]
fn acknowledged_writes_survive_kill_9() {
    let seed = from_environment("CRASH_SEED", 1);
    let kills = from_environment("CRASH_KILLS", 4);
    let mut rng = StdRng::seed_from_u64(seed);
    runtime().block_on(async {
        let mut server = setup().start();
        let ledger = Arc::new(Ledger::default());
        for kill in 1..=kills {
            let moment = Duration::from_millis(rng.random_range(20..700));
            load(&mut server, &ledger, moment, 0, Server::kill).await;
            server.start();
            check(&server, &ledger).await;
            let acknowledged = ledger.acknowledged.load(Ordering::Relaxed);
            println!("kill {kill} of {kills} (seed {seed}): {acknowledged} writes so far");
        }
        assert!(ledger.acknowledged.load(Ordering::Relaxed) > kills * 10, "hardly any load");
    });
}

#[test]
fn sigterm_and_sigint_end_the_process_cleanly() {
    runtime().block_on(async {
        for signal in [Signal::TERM, Signal::INT] {
            let mut server = setup().start();
            let ledger = Arc::new(Ledger::default());
            let moment = Duration::from_millis(300);
            load(&mut server, &ledger, moment, 0, |server| server.signal(signal)).await;
            let status = server.wait_exit(Duration::from_secs(10));
            let status = status.unwrap_or_else(|| panic!("still runs after {signal:?}"));
            // etcd removes its handlers and sends the signal to itself once it has stopped.
            use std::os::unix::process::ExitStatusExt;
            let clean = status.success() || status.signal() == Some(signal.as_raw());
            assert!(clean, "{signal:?}: {status}\n{}", server.logs.tail());
            server.kill();
            server.start();
            check(&server, &ledger).await;
        }
    });
}

/// While requests are in flight a member that was told to stop runs on for a moment: new connections are
/// refused then, not accepted and dropped.
#[test]
fn a_stopping_member_accepts_no_connections() {
    runtime().block_on(async {
        let mut server = setup().start();
        // This watch never ends, so that the member waits for its maximum time.
        let create = WatchCreateRequest { key: "watched".into(), ..Default::default() };
        let request_union = Some(RequestUnion::CreateRequest(create));
        let first = WatchRequest { request_union }.encode_to_vec().into();
        let wire = Wire::new(&server.endpoint());
        let mut watch = wire.talk(wire::WATCH, first).await.unwrap();
        watch.answers.message().await.unwrap().expect("the watch is made");
        server.signal(Signal::TERM);
        while TcpStream::connect(("127.0.0.1", server.port)).is_ok() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let ended = server.wait_exit(Duration::from_millis(50));
        assert!(ended.is_none(), "listens until it ends\n{}", server.logs.tail());
    });
}

/// The log below the store's durable state is deleted, a segment at a time: every few seconds, or after some
/// hundred MiB. The rest begins with an older log start than the one that let the first segment be deleted.
#[test]
fn a_member_starts_from_a_log_without_its_first_segments() {
    const WRITES_MAX: i64 = 400;
    let often = Setup::new(process::basalt()).flag("snapshot-count", "10");
    let by_size = Setup::new(process::basalt());
    // By number it is truncated every few seconds at most, by size at once.
    for (setup, pause_ms) in [(often, 50), (by_size, 0)] {
        runtime().block_on(async {
            let mut server = setup.start();
            // etcd checks twice a minute for segments that can be deleted.
            if server.is_etcd() {
                return;
            }
            let wire = Wire::new(&server.endpoint());
            let first = server.wal_files().remove(0);
            let value = "x".repeat(1 << 20);
            let mut writes = 0;
            while first.exists() {
                wire.put(&format!("key-{}", writes % 3), &value).await.unwrap();
                writes += 1;
                assert!(writes < WRITES_MAX, "{} stays", first.display());
                tokio::time::sleep(Duration::from_millis(pause_ms)).await;
            }
            server.kill();
            server.start();
            let all = Wire::new(&server.endpoint()).everything(0).await.unwrap();
            let revision = all.header.map_or(0, |it| it.revision);
            assert_eq!((revision, all.count), (1 + writes, 3), "after {writes} writes");
        });
    }
}

/// A member that never lives for long truncates its log, too: at each start it would read a longer one.
#[test]
fn a_log_does_not_grow_over_many_short_lives() {
    const LIVES_MAX: usize = 8;
    const WRITES: usize = 60;
    runtime().block_on(async {
        // More than a life writes, and than the store has in memory and reads again from the log.
        let mut server = Setup::new(process::basalt()).flag("snapshot-count", "200").start();
        if server.is_etcd() {
            return;
        }
        let first = server.wal_files().remove(0);
        let value = "x".repeat(1 << 20);
        let mut lives = 0;
        while first.exists() {
            lives += 1;
            assert!(lives <= LIVES_MAX, "{} stays: {:?}", first.display(), server.wal_files());
            let wire = Wire::new(&server.endpoint());
            for write in 0..WRITES {
                wire.put(&format!("key-{}", write % 3), &value).await.unwrap();
            }
            server.kill();
            server.start();
        }
        let all = Wire::new(&server.endpoint()).everything(0).await.unwrap();
        let revision = all.header.map_or(0, |it| it.revision);
        assert_eq!((revision, all.count), (1 + (lives * WRITES) as i64, 3));
    });
}

/// A member's observable state: all of its keys at some revisions, hashes, leases.
#[derive(Debug, PartialEq)]
struct Portrait {
    ranges: Vec<Result<RangeResponse, String>>,
    hashes: Vec<Result<HashKvResponse, String>>,
    leases: Vec<i64>,
}

async fn portrait(wire: &Wire, revisions: &[i64]) -> Portrait {
    let mut ranges = Vec::new();
    let mut hashes = Vec::new();
    let compacted = wire.hash_kv(0).await.unwrap().compact_revision;
    for revision in revisions {
        let range = wire.everything(*revision).await;
        ranges.push(match range {
            // Only the term is new after a restart.
            Ok(it) => Ok(RangeResponse { header: without_term(it.header), ..it }),
            Err(status) => Err(status.message().to_owned()),
        });
        // Hashes taken by compactions are kept in memory: a restart forgets them.
        if (1..=compacted).contains(revision) {
            continue;
        }
        hashes.push(match wire.hash_kv(*revision).await {
            Ok(it) => Ok(HashKvResponse { header: without_term(it.header), ..it }),
            Err(status) => Err(status.message().to_owned()),
        });
    }
    let request = basalt_proto::etcdserverpb::LeaseLeasesRequest {};
    let listed: basalt_proto::etcdserverpb::LeaseLeasesResponse =
        wire.ask(wire::LEASE_LEASES, &request).await.unwrap();
    let mut leases: Vec<_> = listed.leases.iter().map(|it| it.id).collect();
    leases.sort_unstable();
    Portrait { ranges, hashes, leases }
}

fn without_term(header: Option<ResponseHeader>) -> Option<ResponseHeader> {
    header.map(|header| ResponseHeader { raft_term: 0, ..header })
}

/// A step that changes the state, the same for the member and its twin.
async fn change(wire: &Wire, rng: &mut StdRng, revision: &mut i64) {
    let key = Bytes::from(format!("key-{}", rng.random_range(0..40)));
    let value = Bytes::from("v".repeat(rng.random_range(0..900)));
    let header = match rng.random_range(0..20) {
        0..14 => {
            let lease = [0, 0, 0, 77][rng.random_range(0..4)];
            let request = PutRequest { key, value, lease, ..Default::default() };
            let answer: Result<PutResponse, _> = wire.ask(wire::PUT, &request).await;
            answer.ok().and_then(|it| it.header)
        }
        14..17 => {
            let request = DeleteRangeRequest { key, ..Default::default() };
            let answer: Result<DeleteRangeResponse, _> =
                wire.ask(wire::DELETE_RANGE, &request).await;
            answer.ok().and_then(|it| it.header)
        }
        17 => {
            let put = |key| basalt_proto::etcdserverpb::RequestOp {
                request: Some(basalt_proto::etcdserverpb::request_op::Request::RequestPut(
                    PutRequest { key, value: value.clone(), ..Default::default() },
                )),
            };
            let success = vec![put(key), put(Bytes::from_static(b"both"))];
            let request = TxnRequest { success, ..Default::default() };
            let answer: Result<TxnResponse, _> = wire.ask(wire::TXN, &request).await;
            answer.ok().and_then(|it| it.header)
        }
        18 => {
            let request = LeaseGrantRequest { id: rng.random_range(70..80), ttl: 10_000 };
            let answer: Result<LeaseGrantResponse, _> = wire.ask(wire::LEASE_GRANT, &request).await;
            answer.ok().and_then(|it| it.header)
        }
        _ => {
            let behind = rng.random_range(0..60);
            let request =
                CompactionRequest { revision: (*revision - behind).max(1), physical: true };
            let answer: Result<CompactionResponse, _> = wire.ask(wire::COMPACT, &request).await;
            answer.ok().and_then(|it| it.header)
        }
    };
    *revision = header.map_or(*revision, |it| (*revision).max(it.revision));
}

#[test]
fn a_store_set_back_by_a_power_loss_catches_up_from_the_wal() {
    let seed = from_environment("CRASH_SEED", 1);
    let losses = from_environment("CRASH_POWER_LOSSES", 3);
    for loss in 0..losses {
        runtime().block_on(lose_power(seed + loss));
    }
}

/// One member loses power, its twin does not; afterwards both have the same observable state.
async fn lose_power(seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    let (mut member, twin) = (setup().start(), setup().start());
    let wires = [Wire::new(&member.endpoint()), Wire::new(&twin.endpoint())];
    let steps = rng.random_range(50..400);
    let copied_at = rng.random_range(0..steps);
    let copy = member.data_dir().with_file_name("older-store");
    let (mut revision, mut marks) = (1, vec![0]);
    for step in 0..steps {
        let story = rng.random();
        for wire in &wires {
            change(wire, &mut StdRng::seed_from_u64(story), &mut revision).await;
        }
        if step % 40 == 0 {
            marks.push(revision);
        }
        if step == copied_at {
            copy_while_paused(&mut member, &copy, &mut rng).await;
        }
    }
    member.kill();
    let store = member.store_dir();
    fs::remove_dir_all(&store).unwrap();
    fs::rename(&copy, &store).unwrap();
    member.start();
    let wires = [Wire::new(&member.endpoint()), Wire::new(&twin.endpoint())];
    let portraits = [portrait(&wires[0], &marks).await, portrait(&wires[1], &marks).await];
    same(&portraits, seed);
    // Compacted revisions are missing on both, so later responses have to be alike too.
    for _ in 0..20 {
        let story = rng.random();
        for wire in &wires {
            change(wire, &mut StdRng::seed_from_u64(story), &mut revision).await;
        }
    }
    let portraits = [portrait(&wires[0], &[0]).await, portrait(&wires[1], &[0]).await];
    same(&portraits, seed);
    println!("power loss with seed {seed}: {steps} steps, store of step {copied_at}");
}

fn same([member, twin]: &[Portrait; 2], seed: u64) {
    assert!(member == twin, "seed {seed}: the twin first\n{}", difference(twin, member));
}

/// Stops the process at any point, so that the copy is of one moment.
async fn copy_while_paused(member: &mut Server, copy: &Path, rng: &mut StdRng) {
    tokio::time::sleep(Duration::from_millis(rng.random_range(0..20))).await;
    member.signal(Signal::STOP);
    wait_stopped(member.pid());
    copy_dir(&member.store_dir(), copy);
    member.signal(Signal::CONT);
}

/// Waits until all threads of the process are stopped.
fn wait_stopped(pid: i32) {
    for _ in 0..1000 {
        let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("the process lives");
        let stopped = tasks.flatten().all(|task| {
            let stat = fs::read_to_string(task.path().join("stat")).unwrap_or_default();
            stat.rsplit(") ").next().is_none_or(|rest| rest.starts_with('T'))
        });
        if stopped {
            return;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    panic!("process {pid} does not stop");
}

fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().flatten() {
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy_dir(&entry.path(), &target),
            false => drop(fs::copy(entry.path(), target).unwrap()),
        }
    }
}

/// A copy taken while writers write: the store may be anywhere within a batch.
#[test]
fn a_store_copied_under_load_catches_up_too() {
    let seed = from_environment("CRASH_SEED", 1);
    let mut rng = StdRng::seed_from_u64(seed);
    runtime().block_on(async {
        let mut server = setup().start();
        let ledger = Arc::new(Ledger::default());
        let copy = server.data_dir().with_file_name("older-store");
        for _ in 0..from_environment("CRASH_POWER_LOSSES", 2) {
            let moment = Duration::from_millis(rng.random_range(50..400));
            load(&mut server, &ledger, moment, 0, |server| {
                server.signal(Signal::STOP);
                wait_stopped(server.pid());
                copy_dir(&server.store_dir(), &copy);
                server.signal(Signal::CONT);
            })
            .await;
            let moment = Duration::from_millis(rng.random_range(50..400));
            load(&mut server, &ledger, moment, 0, Server::kill).await;
            let store = server.store_dir();
            fs::remove_dir_all(&store).unwrap();
            fs::rename(&copy, &store).unwrap();
            server.start();
            check(&server, &ledger).await;
        }
    });
}

/// A member with some hundred acknowledged writes, killed.
/// Its log has many frames, however slow the machine is: each holds at most one write of each writer.
async fn killed_member() -> (Server, Arc<Ledger>) {
    let mut server = setup().start();
    let ledger = Arc::new(Ledger::default());
    load(&mut server, &ledger, Duration::from_millis(300), 20 * WRITERS, Server::kill).await;
    (server, ledger)
}

/// Bytes of the file up to the last written one: a segment is preallocated.
fn written_length(path: &Path) -> u64 {
    let bytes = fs::read(path).unwrap();
    let zeros = bytes.iter().rev().take_while(|byte| **byte == 0).count();
    u64::try_from(bytes.len() - zeros).unwrap()
}

#[test]
fn a_damaged_wal_is_refused_by_file_and_offset() {
    runtime().block_on(async {
        for fraction in [3, 10, 50] {
            let (mut server, _) = killed_member().await;
            let path = server.wal_files().pop().expect("a segment");
            let at = value_byte(&path, fraction);
            flip(&path, at);
            server.launch();
            // It reads a whole segment first, in a debug build and while other tests write.
            let status = server.wait_exit(Duration::from_secs(60));
            let said = server.logs.all();
            // etcd has bytes in its records that no checksum covers.
            if !server.is_etcd() {
                let status = status.unwrap_or_else(|| panic!("starts with damage:\n{said}"));
                assert!(!status.success(), "ends as if nothing were wrong:\n{said}");
                let name = path.file_name().unwrap().to_string_lossy().into_owned();
                assert!(said.contains(&name), "does not name {name}:\n{said}");
                assert!(said.contains("offset"), "does not name the offset:\n{said}");
            }
            // The same byte restored: the failed start lost nothing.
            flip(&path, at);
            server.kill();
            server.start();
        }
    });
}

/// A byte of some value, `percent` of the way through the written part: there is padding between
/// records, which may hold anything.
fn value_byte(path: &Path, percent: u64) -> u64 {
    let bytes = fs::read(path).unwrap();
    let from = usize::try_from(written_length(path) * percent / 100).unwrap();
    let inside = bytes[from..].windows(9).position(|it| it == b"xxxxxxxxx");
    u64::try_from(from + inside.expect("a value") + 4).unwrap()
}

fn flip(path: &Path, at: u64) {
    let mut file = fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.seek(SeekFrom::Start(at)).unwrap();
    file.read_exact(&mut byte).unwrap();
    file.seek(SeekFrom::Start(at)).unwrap();
    file.write_all(&[byte[0] ^ 0x55]).unwrap();
    file.sync_all().unwrap();
}

/// A torn last frame: only its beginning is on the disk.
fn tear(path: &Path) {
    let mut file = fs::OpenOptions::new().write(true).open(path).unwrap();
    // The kernel may still be writing for the member that was killed; such a write holds this lock.
    file.lock().unwrap();
    let end = written_length(path).next_multiple_of(4096);
    let bytes = fs::read(path).unwrap();
    let mut torn = bytes[..32].to_vec();
    torn[16..24].copy_from_slice(&end.to_le_bytes());
    torn.resize(300, 0);
    StdRng::seed_from_u64(9).fill(&mut torn[24..]);
    file.seek(SeekFrom::Start(end)).unwrap();
    file.write_all(&torn).unwrap();
    file.sync_all().unwrap();
}

#[test]
fn a_torn_tail_is_truncated_and_logged() {
    runtime().block_on(async {
        let (mut server, ledger) = killed_member().await;
        let path = server.wal_files().pop().expect("a segment");
        if !server.is_etcd() {
            tear(&path);
        }
        server.start();
        if !server.is_etcd() {
            let said = server.logs.tail().to_lowercase();
            assert!(
                server.logs.wait_for("torn", PATIENCE),
                "does not say that it cut the tail:\n{said}"
            );
        }
        check(&server, &ledger).await;
        // The truncation is durable: the next start is a plain one.
        server.kill();
        server.start();
        check(&server, &ledger).await;
    });
}
