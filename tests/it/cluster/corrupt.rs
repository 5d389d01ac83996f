//! Members whose store was modified from outside are detected, and no further writes are accepted.

use std::ops::Bound;
use std::time::{Duration, Instant};

use basalt::io::LsmEngine;
use basalt::store::{Batch, Engine as _, Space, View as _};
use basalt_proto::etcdserverpb::alarm_request::AlarmAction;
use basalt_proto::etcdserverpb::{
    AlarmRequest, AlarmResponse, AlarmType, CompactionRequest, DeleteRangeRequest,
    LeaseGrantRequest, LeaseRevokeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest,
    request_op,
};
use bytes::Bytes;
use prost::Message as _;

use super::members::Members;
use super::{runtime, setup};
use crate::process::{self, PATIENCE, Server, Setup};
use crate::wire::{self, Wire};

/// A value, and another one of the same length.
const GENUINE: &[u8] = b"genuine!";
const TAMPERED: &[u8] = b"tampered";

/// Entries after which a member syncs its store, and more than that.
const SNAPSHOT_COUNT: &str = "10";
const MORE: u32 = 60;

/// Changes a value in the store of a member that does not run, in every place, as a bad disk that its
/// checksums do not detect or a fault in applying would.
fn tamper(server: &Server) {
    let mut engine = LsmEngine::open(&server.store_dir()).expect("the store opens");
    let mut batch = Batch::default();
    for space in [Space::Kv, Space::Log] {
        for pair in engine.view().scan(space, Bound::Unbounded, Bound::Unbounded) {
            let (key, record) = pair.expect("the store reads");
            let Some(at) = record.windows(GENUINE.len()).position(|it| it == GENUINE) else {
                continue;
            };
            let mut changed = record.to_vec();
            changed[at..at + TAMPERED.len()].copy_from_slice(TAMPERED);
            batch.writes.push((space, key, Some(changed.into())));
        }
    }
    assert_eq!(batch.writes.len(), 2, "the value is the newest of its key and in its history");
    engine.commit(batch).expect("the store writes");
    engine.persist().expect("the store syncs");
}

/// Three members, and the number of one that is not the leader and holds another value than the others.
async fn with_one_tampered(setup: &Setup) -> (Members, usize) {
    let setup = setup.clone().flag("snapshot-count", SNAPSHOT_COUNT);
    let mut members = Members::found(&setup, 3);
    members.told(0, &["put", "kept", std::str::from_utf8(GENUINE).unwrap()]);
    // So many entries that the store is synced with the value in it, and the log no longer restores it.
    for number in 0..MORE {
        members.wire(0).put("more", &number.to_string()).await.expect("it writes");
    }
    members.agree().await;
    let other = (members.leader().await + 1) % 3;
    members.0[other].kill();
    tamper(&members.0[other]);
    (members, other)
}

/// The output of `alarm list`. Some builds of etcdctl have two blanks between fields where others have one: Go's
/// library does so deliberately, so that no program relies on it.
fn alarms(members: &Members, at: usize) -> String {
    let told = members.told(at, &["alarm", "list"]);
    told.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn a_member_whose_store_was_changed_raises_the_alarm_and_nothing_is_written_any_more() {
    runtime().block_on(async {
        let setup = setup().flag("corrupt-check-time", "300ms");
        let (mut members, corrupt) = with_one_tampered(&setup).await;
        let quiet = members.told((corrupt + 1) % 3, &["alarm", "list"]);
        assert_eq!(quiet, "", "nobody is found before it is there");
        members.restart(corrupt);
        let id = members.id(corrupt, &format!("m{}", corrupt + 1));
        let id = u64::from_str_radix(&id, 16).expect("an id");
        let alarm = format!("memberID:{id} alarm:CORRUPT");
        let until = Instant::now() + PATIENCE;
        while alarms(&members, corrupt) != alarm {
            let said = |server: &Server| server.logs.tail();
            assert!(
                Instant::now() < until,
                "no {alarm}:\n{:?}",
                members.0.iter().map(said).collect::<Vec<_>>()
            );
        }
        for at in 0..3 {
            let refused = members.ctl(at, &["put", "kept", "on"]);
            let text = "etcdserver: corrupt cluster";
            assert!(refused.stderr.contains(text), "m{}: {}", at + 1, refused.stderr);
        }
        let read = |at| members.told(at, &["get", "kept", "--print-value-only"]);
        assert_eq!(read(corrupt).as_bytes(), TAMPERED, "it is there to be looked at");
        assert_eq!(read((corrupt + 1) % 3).as_bytes(), GENUINE);
        let health = super::page(&members.0[corrupt].endpoint(), "/health");
        assert!(health.contains("\"health\":\"false\""), "{health}");
        // Disarming the alarm without removing the cause raises it again.
        members.told(corrupt, &["alarm", "disarm"]);
        let until = Instant::now() + PATIENCE;
        while alarms(&members, corrupt) != alarm {
            assert!(Instant::now() < until, "it is forgotten");
        }
    });
}

#[test]
fn a_member_that_looks_before_it_serves_does_not_start_with_another_store() {
    runtime().block_on(async {
        let (mut members, corrupt) = with_one_tampered(&setup()).await;
        members.0[corrupt].set("feature-gates", "InitialCorruptCheck=true");
        members.0[corrupt].launch();
        let status = members.0[corrupt].wait_exit(PATIENCE);
        assert_eq!(status.map(|status| status.success()), Some(false));
        let logs = members.0[corrupt].logs.all();
        assert!(logs.contains("found data inconsistency with peers"), "{logs}");
        members.0[corrupt].kill();
        members.told((corrupt + 1) % 3, &["put", "kept", "on"]);
        assert_eq!(members.told((corrupt + 1) % 3, &["alarm", "list"]), "");
    });
}

/// The response to each kind of request while the alarm is active.
async fn told_under_alarm(server: &Server) -> Vec<(&'static str, String)> {
    let wire = Wire::new(&server.endpoint());
    wire.put("a", "b").await.expect("nothing is wrong yet");
    let lease = LeaseGrantRequest { ttl: 600, id: 7 };
    let alarm = AlarmRequest {
        action: AlarmAction::Activate.into(),
        member_id: 5,
        alarm: AlarmType::Corrupt.into(),
    };
    let key = Bytes::from_static(b"a");
    let put = PutRequest { key: key.clone(), ..Default::default() };
    let read = RangeRequest { key: key.clone(), ..Default::default() };
    let txn = |request| TxnRequest {
        success: vec![RequestOp { request: Some(request) }],
        ..Default::default()
    };
    let delete = DeleteRangeRequest { key, ..Default::default() };
    let requests = [
        (wire::LEASE_GRANT, lease.encode_to_vec()),
        (wire::ALARM, alarm.encode_to_vec()),
        (wire::PUT, put.encode_to_vec()),
        (wire::RANGE, read.encode_to_vec()),
        (wire::RANGE, RangeRequest { serializable: true, ..read.clone() }.encode_to_vec()),
        (wire::DELETE_RANGE, delete.encode_to_vec()),
        (wire::TXN, txn(request_op::Request::RequestPut(put)).encode_to_vec()),
        (wire::TXN, txn(request_op::Request::RequestRange(read)).encode_to_vec()),
        (wire::LEASE_GRANT, LeaseGrantRequest { ttl: 600, id: 8 }.encode_to_vec()),
        (wire::LEASE_REVOKE, LeaseRevokeRequest { id: 7 }.encode_to_vec()),
        (wire::COMPACT, CompactionRequest { revision: 2, physical: false }.encode_to_vec()),
    ];
    let mut told = Vec::new();
    for (path, request) in requests {
        let answer = tokio::time::timeout(Duration::from_secs(10), wire.call(path, request.into()));
        let status = answer.await.expect("it answers").map(drop);
        told.push((path, format!("{status:?}")));
    }
    let off = AlarmRequest { action: AlarmAction::Deactivate.into(), ..alarm };
    let answer = wire.ask::<_, AlarmResponse>(wire::ALARM, &off).await;
    told.push((wire::ALARM, format!("{:?}", answer.map(|answer| answer.alarms))));
    let put = wire.put("a", "c").await.map(|answer| answer.header.unwrap_or_default().revision);
    told.push((wire::PUT, format!("{put:?}")));
    told
}

#[test]
fn the_alarm_refuses_what_etcds_refuses() {
    runtime().block_on(async {
        let etcd = told_under_alarm(&Setup::new(process::etcd()).start()).await;
        let basalt = told_under_alarm(&Setup::new(process::basalt()).start()).await;
        assert!(etcd.iter().any(|(_, told)| told.contains("corrupt cluster")), "{etcd:?}");
        for (etcd, basalt) in etcd.iter().zip(&basalt) {
            assert_eq!(etcd, basalt);
        }
    });
}
