//! Snapshots in both directions: a snapshot of one server is restored by the other's tool and served by the other server,
//! key for key, lease for lease, hash for hash.
//!
//! ```text
//!  Basalt ─etcdctl snapshot save─► file ─etcdutl snapshot restore──► etcd
//!  etcd   ─etcdctl snapshot save─► file ─basaltutl snapshot restore─► Basalt
//! ```

use std::path::Path;
use std::process::Command;

use basalt_proto::etcdserverpb::{
    CompactionRequest, CompactionResponse, DeleteRangeRequest, DeleteRangeResponse,
    LeaseGrantRequest, LeaseGrantResponse, LeaseLeasesRequest, LeaseLeasesResponse,
    LeaseTimeToLiveRequest, LeaseTimeToLiveResponse, PutRequest, PutResponse, RequestOp,
    SnapshotRequest, SnapshotResponse, TxnRequest, TxnResponse, request_op,
};
use bytes::Bytes;
use prost::Message as _;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use crate::compare::{from_environment, runtime};
use crate::process::{self, Finished, PATIENCE, Scratch, Server, Setup, reference, run};
use crate::wire::{self, Wire};

const SNAPSHOT: &str = "/etcdserverpb.Maintenance/Snapshot";
const CHUNK_BYTES: usize = 32 << 10;
/// The restored member; [`Setup::new`] starts it under this name.
const IDENTITY: &[&str] = &[
    "--name=pillar",
    "--initial-cluster=pillar=http://127.0.0.1:12380",
    "--initial-advertise-peer-urls=http://127.0.0.1:12380",
];

/// Writes a history with records of every kind; returns the revision it was compacted at.
async fn live(wire: &Wire, seed: u64) -> i64 {
    let mut rng = StdRng::seed_from_u64(seed);
    let leases = [1000 * seed as i64 + 7, (1 << 40) + seed as i64];
    for id in leases {
        let grant = LeaseGrantRequest { id, ttl: 5000 + id % 100 };
        let _: LeaseGrantResponse = wire.ask(wire::LEASE_GRANT, &grant).await.unwrap();
    }
    let mut compacted = 0;
    for step in 0..900 {
        let key = Bytes::from(format!("key/{}", rng.random_range(0..120)));
        match rng.random_range(0..20) {
            0..4 => {
                let range_end = if rng.random() { Bytes::new() } else { Bytes::from("key/3") };
                let delete = DeleteRangeRequest { key, range_end, ..Default::default() };
                let _: DeleteRangeResponse = wire.ask(wire::DELETE_RANGE, &delete).await.unwrap();
            }
            4..7 => {
                let success = (0..5).map(|at| {
                    let key = Bytes::from(format!("key/{}", rng.random_range(0..20) * 5 + at));
                    let put =
                        PutRequest { key, value: vec![b't'; 40].into(), ..Default::default() };
                    RequestOp { request: Some(request_op::Request::RequestPut(put)) }
                });
                let txn = TxnRequest { success: success.collect(), ..Default::default() };
                let _: TxnResponse = wire.ask(wire::TXN, &txn).await.unwrap();
            }
            _ => {
                let length = [0, 10, 300, 5000, 200_000][rng.random_range(0..41) / 10];
                let value = vec![rng.random_range(b'a'..=b'z'); length].into();
                let lease = [0, 0, 0, leases[0], leases[1]][rng.random_range(0..5)];
                let put = PutRequest { key, value, lease, ..Default::default() };
                let _: PutResponse = wire.ask(wire::PUT, &put).await.unwrap();
            }
        }
        if step == 300 || step == 600 {
            let newest = wire.hash_kv(0).await.unwrap().header.unwrap().revision;
            compacted = newest - 40;
            let request = CompactionRequest { revision: compacted, physical: true };
            let _: CompactionResponse = wire.ask(wire::COMPACT, &request).await.unwrap();
        }
    }
    compacted
}

/// Everything that must survive.
async fn facts(wire: &Wire, compacted: i64) -> Vec<(String, String)> {
    let mut facts = Vec::new();
    let newest = wire.hash_kv(0).await.unwrap().header.unwrap().revision;
    let middle = (compacted + newest) / 2;
    for revision in [0, compacted + 1, newest.min(compacted + 17), middle, newest] {
        let hash = wire.hash_kv(revision).await.unwrap();
        let told = (hash.hash, hash.hash_revision, hash.compact_revision);
        facts.push((format!("hash at {revision}"), format!("{told:?}")));
        let all = wire.everything(revision).await.unwrap();
        facts.push((format!("keys at {revision}"), format!("{:?} {}", all.kvs, all.count)));
    }
    let leases: LeaseLeasesResponse =
        wire.ask(wire::LEASE_LEASES, &LeaseLeasesRequest {}).await.unwrap();
    let mut ids: Vec<_> = leases.leases.iter().map(|lease| lease.id).collect();
    ids.sort_unstable();
    facts.push(("leases".to_owned(), format!("{ids:?}")));
    for id in ids {
        let request = LeaseTimeToLiveRequest { id, keys: true };
        let mut lease: LeaseTimeToLiveResponse =
            wire.ask(wire::LEASE_TIME_TO_LIVE, &request).await.unwrap();
        lease.keys.sort();
        facts.push((format!("lease {id}"), format!("{} {:?}", lease.granted_ttl, lease.keys)));
    }
    facts
}

fn assert_same(before: &[(String, String)], after: &[(String, String)]) {
    assert_eq!(before.len(), after.len());
    for ((name, before), (_, after)) in before.iter().zip(after) {
        // Values are long.
        let short = |text: &str| text.chars().take(300).collect::<String>();
        assert!(before == after, "{name}\nbefore: {}\nafter:  {}", short(before), short(after));
    }
}

fn tool(program: &Path, arguments: &[&str]) -> Finished {
    let mut command = Command::new(program);
    command.args(arguments);
    run(command, PATIENCE)
}

fn works(program: &Path, arguments: &[&str]) -> String {
    let told = tool(program, arguments);
    assert_eq!(told.code, Some(0), "{arguments:?}\n{}\n{}", told.stdout, told.stderr);
    told.stdout
}

fn save(server: &Server, file: &str) {
    let told = ctl(server, &["snapshot", "save", file]);
    // etcd itself reports its version only some seconds after its start.
    let tells = told.contains("Server version 3.7.0");
    assert!(tells || !told.contains("Server version") && server.is_etcd(), "{told}");
}

/// Makes a data directory from a file with one of the tools, and starts its server on it.
pub(crate) fn restored(
    utl: &Path,
    file: &str,
    binary: std::path::PathBuf,
    more: &[&str],
) -> Server {
    let mut server = Server::new(Setup::new(binary));
    let data_dir = server.data_dir();
    let data_dir = data_dir.to_str().expect("a path is text");
    let mut arguments = vec!["snapshot", "restore", file, "--data-dir", data_dir];
    arguments.extend(IDENTITY);
    arguments.extend(more);
    works(utl, &arguments);
    server.start();
    server
}

/// Both tools print the same about a file, in every format.
fn both_tools_agree(file: &str) {
    let (etcds, ours) = (reference("etcdutl"), process::basaltutl());
    for format in ["simple", "fields", "json", "table"] {
        let arguments = ["snapshot", "status", file, "-w", format];
        assert_eq!(works(&etcds, &arguments), works(&ours, &arguments));
    }
    // etcdutl writes to the file that it hashes.
    let copy = format!("{file}.copy");
    std::fs::copy(file, &copy).unwrap();
    for format in ["simple", "fields", "json", "table"] {
        let ours = works(&ours, &["hashkv", file, "-w", format]);
        assert_eq!(works(&etcds, &["hashkv", &copy, "-w", format]), ours);
    }
}

fn journey(from: std::path::PathBuf, utl: &Path, to: std::path::PathBuf, seed: u64) {
    let scratch = Scratch::new();
    let file = scratch.path().join("snapshot.db");
    let file = file.to_str().expect("a path is text");
    runtime().block_on(async {
        let server = Setup::new(from).start();
        let wire = Wire::new(&server.endpoint());
        let compacted = live(&wire, seed).await;
        let before = facts(&wire, compacted).await;
        save(&server, file);
        drop(server);
        both_tools_agree(file);
        let mut server = restored(utl, file, to, &[]);
        assert_same(&before, &facts(&Wire::new(&server.endpoint()), compacted).await);
        server.kill();
        server.start();
        let wire = Wire::new(&server.endpoint());
        assert_same(&before, &facts(&wire, compacted).await);
        // It must accept further writes: etcd splits and merges pages that Basalt filled.
        live(&wire, seed + 100).await;
        save(&server, file);
        both_tools_agree(file);
    });
}

#[test]
fn etcd_serves_what_basalt_saved() {
    let seed = from_environment("SNAPSHOT_SEED", 1);
    journey(process::basalt(), &reference("etcdutl"), process::etcd(), seed);
}

#[test]
fn basalt_serves_what_etcd_saved() {
    let seed = from_environment("SNAPSHOT_SEED", 2);
    journey(process::etcd(), &process::basaltutl(), process::basalt(), seed);
}

#[test]
fn a_revision_is_raised_as_etcdutl_raises_it() {
    let scratch = Scratch::new();
    let path = |name: &str| scratch.path().join(name).to_str().expect("a path is text").to_owned();
    let (first, second) = (path("first.db"), path("second.db"));
    let bump = ["--bump-revision=1000", "--mark-compacted"];
    runtime().block_on(async {
        let server = Setup::new(process::etcd()).start();
        live(&Wire::new(&server.endpoint()), 3).await;
        for arguments in AUTH {
            ctl(&server, arguments);
        }
        let auth = users(&server);
        save(&server, &first);
        drop(server);
        let etcd = restored(&reference("etcdutl"), &first, process::etcd(), &bump);
        let basalt = restored(&process::basaltutl(), &first, process::basalt(), &bump);
        let wires = [Wire::new(&etcd.endpoint()), Wire::new(&basalt.endpoint())];
        let raised = wires[0].hash_kv(0).await.unwrap().hash_revision;
        for wire in &wires {
            wire.put("key/1", "again").await.unwrap();
            wire.put("key/2", "again").await.unwrap();
        }
        let told = [facts(&wires[0], raised).await, facts(&wires[1], raised).await];
        assert_same(&told[0], &told[1]);
        // Data that etcd's tool left in its file survives both directions.
        save(&etcd, &second);
        let basalt = restored(&process::basaltutl(), &second, process::basalt(), &[]);
        assert_same(&told[0], &facts(&Wire::new(&basalt.endpoint()), raised).await);
        save(&basalt, &second);
        let etcd = restored(&reference("etcdutl"), &second, process::etcd(), &[]);
        assert_same(&told[0], &facts(&Wire::new(&etcd.endpoint()), raised).await);
        assert_eq!(users(&etcd), auth);
    });
}

const AUTH: &[&[&str]] = &[
    &["user", "add", "somebody", "--new-user-password", "secret"],
    &["role", "add", "reader"],
    &["role", "grant-permission", "reader", "read", "key/", "key0"],
    &["user", "grant-role", "somebody", "reader"],
];

fn ctl(server: &Server, arguments: &[&str]) -> String {
    let endpoint = server.endpoint();
    works(&reference("etcdctl"), &[arguments, &["--endpoints", &endpoint]].concat())
}

fn users(server: &Server) -> String {
    let user = ctl(server, &["user", "get", "somebody", "--detail"]);
    user + &ctl(server, &["role", "get", "reader"])
}

/// Chunks have etcd's size, and writes go on while they are sent.
#[test]
fn a_snapshot_comes_in_chunks_of_one_moment() {
    use sha2::{Digest as _, Sha256};

    runtime().block_on(async {
        let server = Setup::new(process::basalt()).start();
        let wire = Wire::new(&server.endpoint());
        live(&wire, 4).await;
        let before = wire.hash_kv(0).await.unwrap();
        let request = Bytes::from(SnapshotRequest {}.encode_to_vec());
        let mut stream = wire.stream(SNAPSHOT, request).await.unwrap();
        let mut file = Vec::new();
        let mut total = None;
        loop {
            let message = stream.message().await.unwrap().expect("a checksum comes last");
            let answer = SnapshotResponse::decode(message).unwrap();
            assert_eq!(answer.version, "3.7.0");
            if total == Some(file.len()) {
                assert_eq!(answer.blob[..], Sha256::digest(&file)[..]);
                assert_eq!(answer.remaining_bytes, 0);
                break;
            }
            // The first chunk contains the whole length.
            let all = file.len() + answer.blob.len() + answer.remaining_bytes as usize;
            assert_eq!(*total.get_or_insert(all), all);
            assert!(answer.blob.len() == CHUNK_BYTES || answer.remaining_bytes == 0);
            file.extend_from_slice(&answer.blob);
            wire.put("while", "sending").await.unwrap();
        }
        assert!(stream.message().await.unwrap().is_none());
        let file = basalt::snapshot::bolt::Reader::open(Bytes::from(file)).unwrap();
        let hash = basalt::snapshot::hash_kv(&file, 0).unwrap();
        assert_eq!((hash.hash, hash.revision), (before.hash, before.hash_revision));
    });
}

#[test]
fn damaged_snapshots_are_refused() {
    let scratch = Scratch::new();
    let path = |name: &str| scratch.path().join(name).to_str().expect("a path is text").to_owned();
    let (file, damaged, data_dir) = (path("snapshot.db"), path("damaged.db"), path("data"));
    let server = Setup::new(process::basalt()).start();
    runtime().block_on(async { live(&Wire::new(&server.endpoint()), 5).await });
    save(&server, &file);
    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&damaged, &bytes).unwrap();
    let restore = ["snapshot", "restore", &damaged, "--data-dir", &data_dir];
    let (ours, etcds) = (process::basaltutl(), reference("etcdutl"));
    let told = tool(&ours, &restore);
    assert_eq!(told.code, Some(1));
    assert!(told.stderr.contains("expected sha256 ["), "{}", told.stderr);
    assert!(!Path::new(&data_dir).exists(), "nothing is left of it");
    let last = |told: &Finished| told.stderr.lines().last().unwrap_or_default().to_owned();
    assert_eq!(last(&told), last(&tool(&etcds, &restore)));
    // The first page of a tree is invalid, and the checksum is not verified.
    let skipping = [&restore[..], &["--skip-hash-check"]].concat();
    bytes[middle] ^= 1;
    let page = 3 * 4096;
    bytes[page..page + 64].fill(0xff);
    std::fs::write(&damaged, &bytes).unwrap();
    std::fs::remove_dir_all(&data_dir).unwrap();
    assert_eq!(tool(&ours, &skipping).code, Some(1));
    assert!(!Path::new(&data_dir).exists(), "nothing is left of it");
    // Without the checksum, as copied from a data directory.
    bytes = std::fs::read(&file).unwrap();
    bytes.truncate(bytes.len() - 32);
    std::fs::write(&damaged, &bytes).unwrap();
    let told = tool(&ours, &restore);
    assert_eq!(last(&told), "Error: snapshot missing hash but --skip-hash-check=false");
    works(&ours, &skipping);
    let again = tool(&ours, &restore);
    assert_eq!(again.code, Some(1));
    assert!(last(&again).contains("not empty or could not be read"), "{}", again.stderr);
}
