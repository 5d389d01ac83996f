//! Metrics beside etcd's: after the same small workload every family that etcd shows must be there, of the same
//! type and with the same labels, and etcd's non-zero counters must not be zero.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use basalt_proto::encoded::WatchResponse;
use basalt_proto::etcdserverpb::compare::TargetUnion;
use basalt_proto::etcdserverpb::request_op::Request;
use basalt_proto::etcdserverpb::watch_request::RequestUnion;
use basalt_proto::etcdserverpb::{
    AlarmRequest, CompactionRequest, Compare, DefragmentRequest, DefragmentResponse,
    DeleteRangeRequest, HashKvRequest, LeaseGrantRequest, LeaseKeepAliveRequest,
    LeaseRevokeRequest, PutRequest, RangeRequest, RequestOp, StatusRequest, StatusResponse,
    TxnRequest, WatchCreateRequest, WatchRequest,
};
use bytes::Bytes;
use prost::Message;

use crate::compare::runtime;
use crate::process::{self, Setup};
use crate::wire::{self, Wire};

/// Families that Basalt does not show, by prefix; `README.md` has the reasons.
const MISSING: &[&str] = &[
    "go_",
    "promhttp_",
    "etcd_server_go_version",
    "etcd_debugging_disk_backend_commit_",
    "etcd_debugging_mvcc_index_compaction_pause_duration_milliseconds",
    "etcd_debugging_server_watch_send_loop_",
    "etcd_debugging_snap_save_",
    "etcd_mvcc_db_open_read_transactions",
    "etcd_snap_",
];

/// Counters that are not zero in etcd after that workload and must not be in Basalt.
const COUNTED: &[&str] = &[
    "etcd_debugging_lease_granted_total",
    "etcd_debugging_lease_renewed_total",
    "etcd_debugging_lease_revoked_total",
    "etcd_debugging_lease_ttl_total_count",
    "etcd_debugging_mvcc_db_compaction_last",
    "etcd_debugging_mvcc_db_compaction_pause_duration_milliseconds_count",
    "etcd_debugging_mvcc_db_compaction_total_duration_milliseconds_count",
    "etcd_debugging_mvcc_events_total",
    "etcd_debugging_mvcc_watch_stream_total",
    "etcd_debugging_mvcc_watcher_total",
    "etcd_disk_backend_commit_duration_seconds_count",
    "etcd_disk_wal_fsync_duration_seconds_count",
    "etcd_disk_wal_write_bytes_total",
    "etcd_disk_wal_write_duration_seconds_count",
    "etcd_mvcc_db_total_size_in_bytes",
    "etcd_mvcc_db_total_size_in_use_in_bytes",
    "etcd_mvcc_hash_rev_duration_seconds_count",
    "etcd_mvcc_range_total",
    "etcd_mvcc_txn_total",
    "etcd_network_client_grpc_received_bytes_total",
    "etcd_network_client_grpc_sent_bytes_total",
    "etcd_server_has_leader",
    "etcd_server_is_leader",
    "etcd_server_leader_changes_seen_total",
    "etcd_server_proposals_applied_total",
    "etcd_server_proposals_committed_total",
    "etcd_server_quota_backend_bytes",
    "etcd_server_range_duration_seconds_count{success=\"true\"}",
    "process_network_receive_bytes_total",
    "process_resident_memory_bytes",
    "process_virtual_memory_max_bytes",
];

/// Counters that must have the same value in both.
const ALIKE: &[&str] = &[
    "etcd_debugging_mvcc_compact_revision",
    "etcd_debugging_mvcc_current_revision",
    "etcd_debugging_mvcc_keys_total",
    "etcd_debugging_mvcc_total_put_size_in_bytes",
    "etcd_mvcc_delete_total",
    "etcd_mvcc_put_total",
    "etcd_server_apply_duration_seconds_count{op=\"Compaction\",success=\"true\",version=\"v3\"}",
    "etcd_server_apply_duration_seconds_count{op=\"DeleteRange\",success=\"true\",version=\"v3\"}",
    "etcd_server_apply_duration_seconds_count{op=\"LeaseGrant\",success=\"true\",version=\"v3\"}",
    "etcd_server_apply_duration_seconds_count{op=\"LeaseRevoke\",success=\"true\",version=\"v3\"}",
    "etcd_server_apply_duration_seconds_count{op=\"Put\",success=\"false\",version=\"v3\"}",
    "etcd_server_apply_duration_seconds_count{op=\"Put\",success=\"true\",version=\"v3\"}",
    "etcd_server_apply_duration_seconds_count{op=\"Txn\",success=\"true\",version=\"v3\"}",
];

/// Number of events that a watch of all keys receives.
const EVENTS: usize = 8;

/// A page of metrics.
#[derive(Default)]
struct Page {
    kinds: BTreeMap<String, String>,
    /// The sets of label names of each family.
    labels: BTreeMap<String, BTreeSet<Vec<String>>>,
    values: BTreeMap<String, f64>,
}

impl Page {
    fn read(text: &str) -> Self {
        let mut page = Self::default();
        for line in text.lines() {
            if let Some(family) = line.strip_prefix("# TYPE ") {
                let (name, kind) = family.split_once(' ').expect("a name and a type");
                page.kinds.insert(name.to_owned(), kind.to_owned());
            } else if !line.starts_with('#') {
                let (series, value) = line.rsplit_once(' ').expect("a series and its value");
                page.series(series, value.parse().expect("a number"));
            }
        }
        page
    }

    fn series(&mut self, series: &str, value: f64) {
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        let parts = ["_bucket", "_sum", "_count"];
        let whole = parts.iter().find_map(|part| name.strip_suffix(part));
        let family = whole.filter(|whole| self.kinds.contains_key(*whole)).unwrap_or(name);
        // No label value of ours contains these characters.
        let names = labels.split(',').filter_map(|label| Some(label.split_once("=\"")?.0));
        let names: Vec<_> = names.filter(|name| *name != "le").map(str::to_owned).collect();
        self.labels.entry(family.to_owned()).or_default().insert(names);
        self.values.insert(series.to_owned(), value);
    }

    fn value(&self, series: &str) -> f64 {
        self.values.get(series).copied().unwrap_or(0.0)
    }
}

fn put(key: &'static str, value: &'static str, lease: i64) -> PutRequest {
    let (key, value) = (Bytes::from_static(key.as_bytes()), Bytes::from_static(value.as_bytes()));
    PutRequest { key, value, lease, ..PutRequest::default() }
}

fn txn(operations: Vec<Request>) -> TxnRequest {
    let compare = Compare {
        result: 1,
        target: 2,
        key: "k1".into(),
        target_union: Some(TargetUnion::ModRevision(0)),
        ..Compare::default()
    };
    let success = operations.into_iter().map(|request| RequestOp { request: Some(request) });
    TxnRequest { compare: vec![compare], success: success.collect(), failure: Vec::new() }
}

/// A few requests of every kind to one member; the watch stays open.
async fn work(wire: &Wire) -> Result<wire::Talk, tonic::Status> {
    let create =
        WatchCreateRequest { key: "k".into(), range_end: "l".into(), ..Default::default() };
    let create = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
    let mut watch = wire.talk(wire::WATCH, create.encode_to_vec().into()).await?;
    watch.answers.message().await?;
    let call = async |path, request: Vec<u8>| wire.call(path, request.into()).await.map(drop);
    for key in ["k1", "k2", "k3"] {
        call(wire::PUT, put(key, "value", 0).encode_to_vec()).await?;
    }
    let all = RangeRequest { key: "k".into(), range_end: "l".into(), ..Default::default() };
    call(wire::RANGE, all.encode_to_vec()).await?;
    let delete = DeleteRangeRequest { key: "k3".into(), ..Default::default() };
    call(wire::DELETE_RANGE, delete.encode_to_vec()).await?;
    let puts = ["k1", "k2"].map(|key| Request::RequestPut(put(key, "x", 0)));
    call(wire::TXN, txn(puts.into()).encode_to_vec()).await?;
    let read = txn(vec![Request::RequestRange(all.clone()), Request::RequestRange(all)]);
    call(wire::TXN, read.encode_to_vec()).await?;
    call(wire::LEASE_GRANT, LeaseGrantRequest { id: 7, ttl: 60 }.encode_to_vec()).await?;
    call(wire::PUT, put("kl", "v", 7).encode_to_vec()).await?;
    let refused = call(wire::PUT, put("kl", "v", 8).encode_to_vec()).await;
    assert!(refused.is_err(), "there is no such lease");
    let keep = LeaseKeepAliveRequest { id: 7 }.encode_to_vec();
    wire.talk(wire::LEASE_KEEP_ALIVE, keep.into()).await?.answers.message().await?;
    call(wire::LEASE_REVOKE, LeaseRevokeRequest { id: 7 }.encode_to_vec()).await?;
    let compact = CompactionRequest { revision: 3, physical: true };
    call(wire::COMPACT, compact.encode_to_vec()).await?;
    call(wire::HASH_KV, HashKvRequest { revision: 0 }.encode_to_vec()).await?;
    call(wire::ALARM, AlarmRequest::default().encode_to_vec()).await?;
    call(wire::STATUS, StatusRequest::default().encode_to_vec()).await?;
    let mut events = 0;
    while events < EVENTS {
        let ended = || tonic::Status::unknown("the watch ended");
        let answer = watch.answers.message().await?.ok_or_else(ended)?;
        let answer = WatchResponse::decode(answer).expect("it is a watch's answer");
        events += answer.events_count();
    }
    Ok(watch)
}

/// A page as curl receives it.
pub(crate) fn get(endpoint: &str, path: &str) -> String {
    let mut curl = std::process::Command::new("curl");
    curl.arg("-s").arg(format!("{endpoint}{path}"));
    process::run(curl, Duration::from_secs(10)).stdout
}

fn page_of(binary: std::path::PathBuf) -> Page {
    let server = Setup::new(binary).start();
    runtime().block_on(async {
        let _watch = work(&Wire::new(&server.endpoint())).await.expect("it does its work");
        for path in ["/health", "/livez", "/readyz"] {
            assert!(get(&server.endpoint(), path).contains("ok") || path == "/health");
        }
        // Watchers are counted at intervals.
        tokio::time::sleep(Duration::from_millis(500)).await;
        Page::read(&get(&server.endpoint(), "/metrics"))
    })
}

#[test]
fn every_family_that_etcd_shows_is_there() {
    let (etcd, basalt) = (page_of(process::etcd()), page_of(process::basalt()));
    let mut faults = Vec::new();
    for (name, kind) in &etcd.kinds {
        let left_out = MISSING.iter().any(|begin| name.starts_with(begin));
        match basalt.kinds.get(name) {
            None if !left_out => faults.push(format!("{name} is missing")),
            Some(_) if left_out => faults.push(format!("{name} is there: it need not be listed")),
            Some(other) if other != kind => {
                faults.push(format!("{name} is a {other}, not a {kind}"))
            }
            Some(_) if etcd.labels.get(name) != basalt.labels.get(name) => {
                let (labels, other) = (etcd.labels.get(name), basalt.labels.get(name));
                faults.push(format!("{name} has the labels {other:?}, not {labels:?}"));
            }
            None | Some(_) => (),
        }
    }
    for name in COUNTED {
        for (who, page) in [("etcd", &etcd), ("basalt", &basalt)] {
            if page.value(name) == 0.0 {
                faults.push(format!("{name} is zero in {who}"));
            }
        }
    }
    for name in ALIKE {
        let (expected, found) = (etcd.value(name), basalt.value(name));
        if expected != found {
            faults.push(format!("{name} is {found}, not {expected}"));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// The page once a value on it is as expected, or the last one after some time.
async fn page_with(endpoint: &str, is_there: impl Fn(&Page) -> bool) -> Page {
    let began = std::time::Instant::now();
    loop {
        let page = Page::read(&get(endpoint, "/metrics"));
        if is_there(&page) || began.elapsed() > Duration::from_secs(20) {
            return page;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

const COMPACTED_KEYS: &str = "etcd_debugging_mvcc_db_compaction_keys_total";
const EVENTS_PENDING: &str = "etcd_debugging_mvcc_pending_events_total";
const WAL_BYTES: &str = "etcd_disk_wal_write_bytes_total";
/// Values larger in sum than the 16 MiB that a client's windows take in unread.
const LARGE_BYTES: usize = 100_000;
const LARGE_VALUES: usize = 240;
const DB_BYTES: &str = "etcd_mvcc_db_total_size_in_bytes";
const DB_BYTES_IN_USE: &str = "etcd_mvcc_db_total_size_in_use_in_bytes";

/// Versions that a compaction removed; bytes that a large put added to the log; events that waited for a slow client,
/// and the same after it has read them.
async fn moved(binary: std::path::PathBuf) -> [f64; 4] {
    let server = Setup::new(binary).start();
    let (endpoint, wire) = (server.endpoint(), Wire::new(&server.endpoint()));
    for key in ["a", "a", "a", "b", "a", "b", "c"] {
        wire.put(key, "value").await.expect("it is there");
    }
    let delete = DeleteRangeRequest { key: "c".into(), ..Default::default() };
    wire.call(wire::DELETE_RANGE, delete.encode_to_vec().into()).await.expect("deleted");
    let last = wire.put("b", "value").await.expect("it is there").header.expect("a header");
    let compact = CompactionRequest { revision: last.revision, physical: true };
    wire.call(wire::COMPACT, compact.encode_to_vec().into()).await.expect("compacted");
    let page = page_with(&endpoint, |page| page.value(COMPACTED_KEYS) > 0.0).await;
    let (compacted, before) = (page.value(COMPACTED_KEYS), page.value(WAL_BYTES));
    let large = "x".repeat(LARGE_BYTES);
    wire.put("large", &large).await.expect("it is there");
    let written = Page::read(&get(&endpoint, "/metrics")).value(WAL_BYTES) - before;
    let create = WatchCreateRequest { key: "w".into(), ..Default::default() };
    let create = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
    // On a connection of its own, whose window it fills.
    let watcher = Wire::new(&endpoint);
    let mut watch =
        watcher.talk(wire::WATCH, create.encode_to_vec().into()).await.expect("it watches");
    for _ in 0..LARGE_VALUES {
        wire.put("w", &large).await.expect("it is there");
    }
    let page = page_with(&endpoint, |page| page.value(EVENTS_PENDING) > 0.0).await;
    let waiting = page.value(EVENTS_PENDING);
    let mut events = 0;
    while events < LARGE_VALUES {
        let answer = watch.answers.message().await.expect("it goes on").expect("it goes on");
        events += WatchResponse::decode(answer).expect("it is a watch's answer").events_count();
    }
    let page = page_with(&endpoint, |page| page.value(EVENTS_PENDING) == 0.0).await;
    [compacted, written, waiting, page.value(EVENTS_PENDING)]
}

#[test]
fn compaction_the_log_and_watchers_move_what_they_move_in_etcd() {
    runtime().block_on(async {
        let (etcd, basalt) = tokio::join!(moved(process::etcd()), moved(process::basalt()));
        assert_eq!(basalt[0], etcd[0], "versions removed");
        assert_eq!(etcd[0], 7.0, "three of a, two of b, c and its tombstone");
        let bytes = LARGE_BYTES as f64..2.0 * LARGE_BYTES as f64;
        for (who, [_, written, waiting, left]) in [("etcd", etcd), ("basalt", basalt)] {
            assert!(bytes.contains(&written), "{who} wrote {written} bytes");
            assert!(
                waiting > 0.0 && left == 0.0,
                "{who}: {waiting} events waited, {left} are left"
            );
        }
    });
}

/// Values of one letter take little on disk, which etcd's file would not.
#[test]
fn no_more_is_in_use_than_there_is_on_disk() {
    let server = Setup::new(process::basalt()).start();
    runtime().block_on(async {
        let wire = Wire::new(&server.endpoint());
        let value = "v".repeat(LARGE_BYTES);
        for number in 0..LARGE_VALUES {
            wire.put(&format!("key{number}"), &value).await.expect("it is there");
        }
        let defragment = DefragmentRequest::default();
        let _: DefragmentResponse = wire.ask(wire::DEFRAGMENT, &defragment).await.expect("merged");
        let uncompressed = (LARGE_BYTES * LARGE_VALUES) as f64;
        let page = page_with(&server.endpoint(), |page| page.value(DB_BYTES) < uncompressed).await;
        let (size, in_use) = (page.value(DB_BYTES), page.value(DB_BYTES_IN_USE));
        assert!(0.0 < in_use && in_use <= size, "{in_use} of {size} bytes");
        let status: StatusResponse =
            wire.ask(wire::STATUS, &StatusRequest::default()).await.expect("a status");
        let (size, in_use) = (status.db_size, status.db_size_in_use);
        assert!(0 < in_use && in_use <= size, "{in_use} of {size} bytes");
    });
}
