//! Flags whose effect is visible in a running member, beside a real etcd.

use std::time::{Duration, Instant};

use basalt_proto::etcdserverpb::{
    CompactionRequest, CompactionResponse, HashRequest, HashResponse,
};

use crate::compare::runtime;
use crate::metrics::get;
use crate::process::{self, PATIENCE, Setup};
use crate::wire::Wire;

const PUTS: i64 = 40;
const PAUSE: Duration = Duration::from_millis(200);

/// Compacts all versions of a key, and waits until they are deleted.
fn compact(setup: &Setup) -> (process::Server, Duration) {
    let server = setup.start();
    let took = runtime().block_on(async {
        let wire = Wire::new(&server.endpoint());
        let mut revision = 0;
        for _ in 0..PUTS {
            revision = wire.put("key", "value").await.unwrap().header.unwrap().revision;
        }
        let began = Instant::now();
        let request = CompactionRequest { revision, physical: true };
        let compacted = wire.ask("/etcdserverpb.KV/Compact", &request).await;
        compacted.map(|_: CompactionResponse| ()).unwrap();
        let took = began.elapsed();
        let hashed = wire.ask("/etcdserverpb.Maintenance/Hash", &HashRequest::default()).await;
        hashed.map(|_: HashResponse| ()).unwrap();
        took
    });
    (server, took)
}

/// The fields of the log line with this text, without level, time and caller.
fn logged(server: &process::Server, text: &str) -> serde_json::Map<String, serde_json::Value> {
    let line = server
        .logs
        .line(text, PATIENCE)
        .unwrap_or_else(|| panic!("no {text}: {}", server.logs.tail()));
    let mut fields = serde_json::from_str::<serde_json::Map<_, _>>(&line).expect("one JSON object");
    for own in ["ts", "caller"] {
        fields.remove(own);
    }
    fields
}

#[test]
fn the_start_is_logged_with_etcds_fields() {
    let [basalt, etcd] = [process::basalt(), process::etcd()].map(|binary| {
        let setup = Setup::new(binary)
            .flag("snapshot-catchup-entries", "777")
            .flag("auto-compaction-mode", "revision")
            .flag("auto-compaction-retention", "1000")
            .flag("cors", "http://a:1,http://b:2")
            .flag("max-concurrent-streams", "50")
            .flag("raft-read-timeout", "1s")
            .flag("raft-write-timeout", "4999ms")
            .flag("bootstrap-defrag-threshold-megabytes", "7");
        let server = setup.start();
        let (first, raised) =
            (server.data_dir().display().to_string(), "increased to minimum value");
        let about = [
            logged(&server, "starting an etcd server"),
            logged(&server, "Skipping defragmentation"),
            logged(&server, &format!("raft-read-timeout {raised}")),
            logged(&server, &format!("raft-write-timeout {raised}")),
        ];
        (first, server.port.to_string(), about)
    });
    let own = ["go-version", "git-sha", "current-db-size", "basalt-", "cores", "layout", "memory-"];
    let names = |fields: &serde_json::Map<_, _>| fields.keys().cloned().collect::<Vec<_>>();
    for (left, right) in etcd.2.iter().zip(&basalt.2) {
        let missing: Vec<_> =
            names(left).into_iter().filter(|it| !right.contains_key(it)).collect();
        assert!(missing.is_empty(), "missing: {missing:?} in {right:?}");
        for (name, value) in left.iter().filter(|it| !own.iter().any(|own| it.0.starts_with(own))) {
            // Directories and ports are each server's own.
            let even = |value: &serde_json::Value, (dir, ..): &(String, String, _)| {
                let text = value.to_string().replace(dir.as_str(), "DIR");
                text.split(':')
                    .map(|it| it.trim_start_matches(char::is_numeric))
                    .collect::<String>()
            };
            let (left, right) = (even(value, &etcd), even(&right[name], &basalt));
            assert_eq!(left, right, "{name}");
        }
    }
    assert_eq!(basalt.2[0]["snapshot-catchup-entries"], 777);
}

#[test]
fn slow_applies_are_logged_and_compaction_pauses_as_the_flags_say() {
    for binary in [process::basalt(), process::etcd()] {
        let plain = Setup::new(binary.clone()).flag("warning-apply-duration", "1m");
        let (server, took) = compact(&plain);
        assert!(took < PAUSE, "{took:?} without a pause");
        let slow = "apply request took too long";
        assert!(!server.logs.mentions(slow), "nothing took a minute");
        let setup = Setup::new(binary)
            .flag("warning-apply-duration", "1ns")
            .flag("compaction-batch-limit", &(PUTS / 4).to_string())
            .flag("compaction-sleep-interval", &format!("{}ms", PAUSE.as_millis()));
        let (server, took) = compact(&setup);
        assert!(took > 3 * PAUSE, "{took:?}: there are pauses between four batches");
        assert!(server.logs.wait_for(slow, PATIENCE), "everything takes a nanosecond");
        let page = get(&server.endpoint(), "/metrics");
        for counted in ["etcd_server_slow_apply_total ", "etcd_mvcc_hash_duration_seconds_count "] {
            let value = page.lines().find_map(|line| line.strip_prefix(counted));
            let value: f64 = value.expect(counted).parse().expect("a number");
            assert!(value > 0.0, "{counted} is zero");
        }
    }
}
