//! Members with `--auto-compaction-retention`, beside a real etcd.

use std::time::{Duration, Instant};

use basalt_proto::etcdserverpb::{RangeRequest, RangeResponse};
use bytes::Bytes;
use tonic::Status;

use crate::compare::runtime;
use crate::process::{self, Setup};
use crate::wire::Wire;

/// Far longer than the retention of one second.
const PATIENCE: Duration = Duration::from_secs(20);

async fn at(wire: &Wire, revision: i64) -> Result<RangeResponse, Status> {
    let request = RangeRequest { key: Bytes::from("key"), revision, ..RangeRequest::default() };
    wire.ask("/etcdserverpb.KV/Range", &request).await
}

#[test]
fn versions_older_than_the_retention_are_compacted_and_no_others() {
    for binary in [process::basalt(), process::etcd()] {
        let server = Setup::new(binary).flag("auto-compaction-retention", "1s").start();
        runtime().block_on(async {
            let wire = Wire::new(&server.endpoint());
            let first = wire.put("key", "first").await.unwrap().header.unwrap().revision;
            at(&wire, first).await.expect("not before its time");
            let began = Instant::now();
            let (mut newest, refused) = loop {
                let newest = wire.put("key", "again").await.unwrap().header.unwrap().revision;
                match at(&wire, first).await {
                    Err(status) => break (newest, status),
                    Ok(_) => assert!(began.elapsed() < PATIENCE, "nothing was compacted"),
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            };
            let text = "etcdserver: mvcc: required revision has been compacted";
            assert_eq!(refused.message(), text);
            assert!(began.elapsed() > Duration::from_millis(800), "too early");
            // The newest is kept for ever, though there are no more writes.
            tokio::time::sleep(Duration::from_millis(2500)).await;
            at(&wire, newest).await.expect("the newest version stays");
            newest -= 1;
            assert_eq!(at(&wire, newest).await.unwrap_err().message(), text, "idle, it goes on");
        });
    }
}
