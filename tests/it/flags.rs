//! Flags whose effect is visible in a running member, beside a real etcd.

use std::time::{Duration, Instant};

use basalt_proto::etcdserverpb::{
    CompactionRequest, CompactionResponse, HashRequest, HashResponse,
};

use crate::compare::runtime;
use crate::metrics::get;
use crate::process::{self, Setup};
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
        assert!(server.logs.mentions(slow), "everything takes a nanosecond");
        let page = get(&server.endpoint(), "/metrics");
        for counted in ["etcd_server_slow_apply_total ", "etcd_mvcc_hash_duration_seconds_count "] {
            let value = page.lines().find_map(|line| line.strip_prefix(counted));
            let value: f64 = value.expect(counted).parse().expect("a number");
            assert!(value > 0.0, "{counted} is zero");
        }
    }
}
