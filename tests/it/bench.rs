//! `basalt-bench` against the real server: every load runs shortly, and its reports must match the
//! server's state: revisions, keys, events.

use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::metrics;
use crate::process::{self, Finished, Server, Setup, basalt, basalt_bench};

const WAIT: Duration = Duration::from_secs(120);

/// A load against a server, and its reports as JSON.
fn bench(server: &Server, arguments: &[&str]) -> (Finished, Vec<Value>) {
    let json = server.data_dir().with_file_name("bench.json");
    let mut command = Command::new(basalt_bench());
    command.args(["--conns=2", "--clients=8", "--endpoints", &server.endpoint(), "--json"]);
    command.arg(&json).args(arguments).current_dir(server.data_dir());
    let told = process::run(command, WAIT);
    assert_eq!(told.code, Some(0), "{arguments:?}:\n{}\n{}", told.stdout, told.stderr);
    let text = std::fs::read_to_string(&json).unwrap();
    let reports = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    (told, reports)
}

/// The newest revision, as the load without writes reads it.
fn revision(server: &Server) -> i64 {
    let (_, reports) = bench(server, &["put", "--total=0"]);
    reports[0]["verified"]["revision_after"].as_i64().unwrap()
}

fn report<'a>(reports: &'a [Value], name: &str) -> &'a Value {
    let found = reports.iter().find(|report| report["name"] == name);
    found.unwrap_or_else(|| panic!("no report {name} in {reports:?}"))
}

/// Every load that writes: its name, its flags, the operations it reports, the revisions it makes.
const WRITES: &[(&str, &[&str], u64, i64)] = &[
    ("put", &["put", "--total=200", "--key-space-size=50", "--key-distribution=zipf"], 200, 200),
    ("txn-put", &["txn-put", "--total=100", "--txn-ops=3", "--key-space-size=9"], 100, 100),
    ("stm", &["stm", "--total=60", "--keys=5", "--keys-per-txn=2", "--isolation=ss"], 60, 60),
    ("stm", &["stm", "--total=40", "--isolation=c", "--txn-wr-percent=100"], 40, 40),
    ("stm", &["stm", "--total=30", "--txn-wr-percent=100", "--stm-locker=lock-client"], 30, 90),
    ("watch-latency-put", &["watch-latency", "--put-total=40", "--put-rate=400"], 40, 40),
    (
        "watch-put-request",
        &["watch", "--streams=3", "--watch-per-stream=5", "--put-total=50"],
        50,
        50,
    ),
];

#[test]
fn every_writing_load_makes_the_revisions_it_reports() {
    let server = Setup::new(basalt()).start();
    for (name, flags, operations, revisions) in WRITES {
        let before = revision(&server);
        let (_, reports) = bench(&server, flags);
        let found = report(&reports, name);
        assert_eq!(found["ok"], *operations, "{flags:?}: {found}");
        assert_eq!(found["errors"], 0, "{flags:?}: {found}");
        assert_eq!(found["verified"]["holds"], true, "{flags:?}: {found}");
        assert_eq!(revision(&server) - before, *revisions, "{flags:?}");
    }
}

#[test]
fn every_reading_load_gets_all_keys() {
    let server = Setup::new(basalt()).start();
    let put = ["put", "--prefix=r/", "--sequential-keys", "--key-space-size=30", "--total=30"];
    bench(&server, &put);
    for how in [&["--prefix"][..], &["--prefix", "--stream"], &["--prefix", "--paginate"]] {
        let flags = [&["range", "r/", "--total=20", "--expect-keys=30"][..], how].concat();
        let (_, reports) = bench(&server, &flags);
        assert_eq!((&reports[0]["ok"], &reports[0]["keys_received"]), (&20.into(), &600.into()));
    }
    let (_, reports) = bench(&server, &["lease-keepalive", "--total=100"]);
    assert_eq!((&reports[0]["ok"], &reports[0]["errors"]), (&100.into(), &0.into()));
    let (told, reports) = bench(&server, &["txn-mixed", "r/", "--total=100", "--rw-ratio=1"]);
    let done: u64 = reports.iter().map(|report| report["ok"].as_u64().unwrap()).sum();
    assert_eq!(done, 100);
    assert!(told.stdout.starts_with("bench with linearizable range\nTotal Read Ops: "));
    let (_, reports) = bench(&server, &["watch-get", "--watchers=40", "--streams=2", "--events=5"]);
    assert_eq!((&reports[0]["events"], &reports[0]["errors"]), (&200.into(), &0.into()));
    let mix = ["mix", "--total=200", "--load=3 put", "--load=1 range r/ --prefix"];
    let (_, reports) = bench(&server, &mix);
    let done: u64 = reports.iter().map(|report| report["ok"].as_u64().unwrap()).sum();
    assert_eq!((done, &reports[0]["verified"]["holds"]), (200, &true.into()));
    let (_, reports) = bench(&server, &["mvcc", "put", "--total=50", "--txn", "--txn-ops=2"]);
    assert_eq!((&reports[0]["ok"], &reports[0]["verified"]["grown"]), (&50.into(), &50.into()));
}

#[test]
fn a_cluster_of_kubernetes_lives_and_its_watches_see_every_write() {
    let server = Setup::new(basalt()).start();
    let flags =
        ["k8s", "--nodes=5", "--pods-per-node=4", "--rate=200", "--total=300", "--apiservers=2"];
    let (_, reports) = bench(&server, &flags);
    let writes = reports[0]["verified"]["grown"].as_u64().unwrap();
    let done: u64 = reports[..9].iter().map(|report| report["ok"].as_u64().unwrap()).sum();
    assert_eq!((done, &reports[0]["verified"]["holds"]), (300, &true.into()));
    assert_eq!(report(&reports, "k8s-watch-event")["watch_events"], writes * 2);
}

#[test]
fn an_open_loop_counts_from_when_an_operation_was_due() {
    let server = Setup::new(basalt()).start();
    let flags = ["--duration=2s", "--ramp=1s", "--ramp-from=100", "put", "--rate=300"];
    let (_, reports) = bench(&server, &flags);
    // A second from 100/s to 300/s holds 200 puts, the second at 300/s the rest.
    assert_eq!(reports[0]["ok"], 500);
    let series = reports[0]["series"].as_array().unwrap();
    let counted: u64 = series.iter().map(|second| second["count"].as_u64().unwrap()).sum();
    assert_eq!(counted, 500, "every put is in its second");
}

#[test]
fn two_targets_are_compared_and_shown_on_one_page() {
    let (first, second) = (Setup::new(basalt()).start(), Setup::new(basalt()).start());
    let page = first.data_dir().with_file_name("page.html");
    let other = second.endpoint();
    let flags =
        ["--against", &other, "--names=one,two", "--turns=2", "put", "--total=50", "--report"];
    let flags = [&flags[..], &[page.to_str().unwrap()]].concat();
    let (told, reports) = bench(&first, &flags);
    assert!(told.stdout.contains("Side by side: 2 turns each"), "{}", told.stdout);
    assert_eq!(reports.iter().filter(|report| report["ok"] == 100).count(), 2);
    assert_eq!(reports[2]["turn_ratios"].as_array().unwrap().len(), 2);
    let html = std::fs::read_to_string(&page).unwrap();
    assert_eq!(html.matches("<svg class=\"chart\"").count(), 3);
}

/// Successful transactions, as `/metrics` counts them.
fn transactions(server: &Server) -> u64 {
    let mark = "grpc_server_handled_total{grpc_code=\"OK\",grpc_method=\"Txn\",";
    let page = metrics::get(&server.endpoint(), "/metrics");
    let line = page.lines().find(|line| line.starts_with(mark));
    line.and_then(|line| line.rsplit(' ').next()).map_or(0, |count| count.parse().unwrap())
}

/// Everything with a prefix, as etcdctl prints it.
fn told(server: &Server, line: &[&str]) -> Value {
    let mut command = Command::new(process::reference("etcdctl"));
    command.args(line).args(["-w", "json", "--endpoints", &server.endpoint()]);
    serde_json::from_str(&process::run(command, WAIT).stdout).unwrap()
}

#[test]
fn transactions_under_a_lock_run_alone() {
    const TOTAL: u64 = 120;
    for binary in [basalt(), process::etcd()] {
        let server = Setup::new(binary).start();
        // Requests of a transaction behind the lock: read, commit; the client's mutex needs one more.
        for (at, (locker, each)) in [("lock-rpc", 2), ("lock-client", 3)].into_iter().enumerate() {
            let (before, locker) = (transactions(&server), format!("--stm-locker={locker}"));
            let flags = ["stm", "--total=120", "--txn-wr-percent=100", &locker];
            let (_, reports) = bench(&server, &flags);
            assert_eq!((&reports[0]["ok"], &reports[0]["errors"]), (&TOTAL.into(), &0.into()));
            assert_eq!(reports[0]["verified"]["holds"], true, "{}", reports[0]);
            // All write the same key: had two held the lock at a time, one would have had to commit again.
            assert_eq!(transactions(&server) - before, TOTAL * each, "{locker}");
            let keys = told(&server, &["get", "", "--from-key"]);
            assert_eq!(keys["count"], 1, "the lock's own keys are gone: {keys}");
            assert_eq!(keys["kvs"][0]["version"], (at as u64 + 1) * TOTAL, "every write is there");
            let leases = told(&server, &["lease", "list"]);
            assert!(leases["leases"].as_array().is_none_or(Vec::is_empty), "{leases}");
        }
    }
}
