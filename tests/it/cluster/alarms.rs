//! Requests that are refused while NOSPACE, CORRUPT or both are active, of three members beside three of a real etcd.

use std::time::Duration;

use basalt_proto::etcdserverpb::alarm_request::AlarmAction;
use basalt_proto::etcdserverpb::{
    AlarmRequest, AlarmType, CompactionRequest, DeleteRangeRequest, LeaseGrantRequest,
    LeaseRevokeRequest, LeaseTimeToLiveRequest, PutRequest, RangeRequest, RequestOp, TxnRequest,
    request_op::Request,
};
use bytes::Bytes;
use prost::Message as _;

use super::members::Members;
use super::runtime;
use crate::process::{self, PATIENCE, Setup};
use crate::wire::{self, Wire};

/// Health pages that alarms change, with and without exclusions.
const PAGES: [&str; 9] = [
    "/health",
    "/health?exclude=NOSPACE",
    "/health?exclude=CORRUPT",
    "/health?exclude=NOSPACE&exclude=CORRUPT",
    "/health?serializable=true",
    "/livez",
    "/readyz/data_corruption",
    "/readyz?exclude=data_corruption",
    "/readyz/linearizable_read",
];

fn alarm(action: AlarmAction, member_id: u64, alarm: AlarmType) -> Vec<u8> {
    AlarmRequest { action: action.into(), member_id, alarm: alarm.into() }.encode_to_vec()
}

/// One of each kind, in an order in which none spoils another; `turn` makes keys and leases new.
fn requests(turn: i64) -> Vec<(&'static str, Vec<u8>)> {
    let key = Bytes::from_static(b"a");
    let put = PutRequest { key: key.clone(), ..Default::default() };
    let read = RangeRequest { key: key.clone(), ..Default::default() };
    let delete = DeleteRangeRequest { key: Bytes::from(format!("d{turn}")), ..Default::default() };
    let op = |request| RequestOp { request: Some(request) };
    let txn = |success: Vec<Request>, failure: Vec<Request>| {
        let [success, failure] = [success, failure].map(|it| it.into_iter().map(op).collect());
        TxnRequest { success, failure, ..Default::default() }.encode_to_vec()
    };
    let puts = || vec![Request::RequestPut(put.clone())];
    let reads = || vec![Request::RequestRange(read.clone())];
    let deletes = vec![Request::RequestDeleteRange(delete.clone())];
    let revision = turn + 1;
    vec![
        (wire::PUT, put.encode_to_vec()),
        (wire::TXN, txn(puts(), vec![])),
        (wire::TXN, txn(reads(), puts())),
        (wire::TXN, txn(reads(), reads())),
        (wire::TXN, txn(deletes, vec![])),
        (wire::RANGE, read.encode_to_vec()),
        (wire::RANGE, RangeRequest { serializable: true, ..read.clone() }.encode_to_vec()),
        (wire::DELETE_RANGE, delete.encode_to_vec()),
        (wire::COMPACT, CompactionRequest { revision, physical: true }.encode_to_vec()),
        (wire::LEASE_GRANT, LeaseGrantRequest { ttl: 600, id: 100 + turn }.encode_to_vec()),
        (wire::LEASE_REVOKE, LeaseRevokeRequest { id: turn }.encode_to_vec()),
        (wire::LEASE_LEASES, vec![]),
        (wire::LEASE_TIME_TO_LIVE, LeaseTimeToLiveRequest { id: 99, keys: true }.encode_to_vec()),
        (wire::ALARM, alarm(AlarmAction::Get, 0, AlarmType::Nospace)),
        (wire::ALARM, alarm(AlarmAction::Get, 0, AlarmType::None)),
        (wire::ALARM, alarm(AlarmAction::Deactivate, 77, AlarmType::Corrupt)),
        (wire::MEMBER_LIST, vec![]),
    ]
}

/// The status alone: responses contain ids of the process.
async fn ask(wire: &Wire, path: &'static str, request: Vec<u8>) -> String {
    let answer = tokio::time::timeout(Duration::from_secs(10), wire.call(path, request.into()));
    let answer = answer.await.expect("it answers in time");
    format!("{path}: {:?}", answer.map(drop).map_err(|it| (it.code(), it.message().to_owned())))
}

/// The responses of all members, for each state of the alarms.
async fn told(mut members: Members) -> Vec<String> {
    let wires = |members: &Members| (0..3).map(|at| members.wire(at)).collect::<Vec<_>>();
    let first = members.wire(0);
    for number in 0..30 {
        first.put("fill", &number.to_string()).await.expect("nothing is wrong yet");
    }
    for id in (1..20).chain([99]) {
        let grant = LeaseGrantRequest { ttl: 600, id };
        first.call(wire::LEASE_GRANT, grant.encode_to_vec().into()).await.expect("granted");
    }
    let states: [&[(AlarmAction, u64, AlarmType)]; 5] = [
        &[],
        &[(AlarmAction::Activate, 5, AlarmType::Nospace)],
        &[(AlarmAction::Activate, 6, AlarmType::Corrupt)],
        &[(AlarmAction::Deactivate, 5, AlarmType::Nospace)],
        &[(AlarmAction::Deactivate, 6, AlarmType::Corrupt)],
    ];
    let (mut told, mut turn) = (Vec::new(), 0);
    for (state, changes) in states.iter().enumerate() {
        for (action, member, kind) in *changes {
            told.push(ask(&members.wire(2), wire::ALARM, alarm(*action, *member, *kind)).await);
        }
        if state == 2 {
            // Both are active, and stay so.
            members.0.iter_mut().for_each(process::Server::kill);
            members.0.iter_mut().for_each(process::Server::launch);
            (0..3).for_each(|at| members.wait_ready(at));
            members.leader().await;
        }
        for (at, wire) in wires(&members).iter().enumerate().take(2) {
            // An acknowledged write on another member has been applied here, too.
            wire.call(
                wire::RANGE,
                RangeRequest { key: "a".into(), ..Default::default() }.encode_to_vec().into(),
            )
            .await
            .expect("reads are not refused");
            turn += 1;
            for (path, request) in requests(turn) {
                told.push(format!("{state} m{} {}", at + 1, ask(wire, path, request).await));
            }
            for path in PAGES {
                let mut page = super::page(&members.0[at].endpoint(), path);
                if state == 2 && !path.contains("exclude") {
                    // etcd names any of the two.
                    page = page.replace("CORRUPT", "NOSPACE");
                }
                told.push(format!("{state} m{} {path}: {page}", at + 1));
            }
        }
    }
    told
}

#[test]
fn three_members_refuse_under_alarms_what_etcds_refuse() {
    runtime().block_on(async {
        let found = |binary| {
            let setup =
                Setup::new(binary).flag("heartbeat-interval", "50").flag("election-timeout", "500");
            told(Members::found(&setup, 3))
        };
        let (etcd, basalt) = (found(process::etcd()), found(process::basalt()));
        let etcd = tokio::time::timeout(2 * PATIENCE, etcd).await.expect("in time");
        let basalt = tokio::time::timeout(2 * PATIENCE, basalt).await.expect("in time");
        for text in ["database space exceeded", "corrupt cluster", "ALARM NOSPACE", "ALARM CORRUPT"]
        {
            assert!(etcd.iter().any(|it| it.contains(text)), "etcd never says {text}: {etcd:#?}");
        }
        for (etcd, basalt) in etcd.iter().zip(&basalt) {
            assert_eq!(etcd, basalt);
        }
        assert_eq!(etcd.len(), basalt.len());
    });
}
