//! A member that lags and knows no leader: it serves requests that need no quorum, and returns etcd's errors for others.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use basalt_proto::etcdserverpb::{
    AlarmRequest, CompactionRequest, HashKvRequest, LeaseGrantRequest, LeaseKeepAliveRequest,
    LeaseLeasesRequest, LeaseRevokeRequest, LeaseTimeToLiveRequest, MemberListRequest,
    MoveLeaderRequest, PutRequest, RangeRequest, StatusRequest, StatusResponse,
};
use prost::Message;
use rustix::process::Signal;
use tonic::Status;

use super::members::Members;
use super::runtime;
use crate::process::{self, PATIENCE, Setup};
use crate::wire::{self, Wire};

/// A member waits five seconds and two election timeouts for consensus.
const ANSWER_TIME: Duration = Duration::from_secs(20);
/// More than the sockets to a paused member hold.
const WRITES: usize = 120;
const WRITE_BYTES: usize = 100_000;

/// Paths, requests, and true if the client requires a leader. Changes of members are not among them: to etcd, members that
/// are stopped by a signal are connected, and it waits for them without limit; Basalt answers that the cluster is unhealthy.
fn calls() -> Vec<(&'static str, Vec<u8>, bool)> {
    let key = bytes::Bytes::from_static(b"key");
    let put = PutRequest { key: key.clone(), value: key.clone(), ..Default::default() };
    let get = RangeRequest { key, ..Default::default() };
    let serializable = RangeRequest { serializable: true, ..get.clone() };
    let list = |linearizable| MemberListRequest { linearizable }.encode_to_vec();
    let to_live = LeaseTimeToLiveRequest { id: 7, keys: false };
    vec![
        (wire::PUT, put.encode_to_vec(), false),
        (wire::PUT, put.encode_to_vec(), true),
        (wire::RANGE, get.encode_to_vec(), false),
        (wire::RANGE, get.encode_to_vec(), true),
        (wire::RANGE, serializable.encode_to_vec(), false),
        (wire::COMPACT, CompactionRequest { revision: 2, physical: false }.encode_to_vec(), false),
        (wire::LEASE_GRANT, LeaseGrantRequest { id: 8, ttl: 60 }.encode_to_vec(), false),
        (wire::LEASE_REVOKE, LeaseRevokeRequest { id: 7 }.encode_to_vec(), false),
        (wire::LEASE_TIME_TO_LIVE, to_live.encode_to_vec(), false),
        (wire::LEASE_LEASES, LeaseLeasesRequest {}.encode_to_vec(), false),
        (wire::MEMBER_LIST, list(true), false),
        (wire::MEMBER_LIST, list(false), false),
        (
            "/etcdserverpb.Maintenance/MoveLeader",
            MoveLeaderRequest { target_id: 1 }.encode_to_vec(),
            false,
        ),
        (wire::ALARM, AlarmRequest::default().encode_to_vec(), false),
        (wire::HASH_KV, HashKvRequest { revision: 0 }.encode_to_vec(), false),
    ]
}

fn told<T>(outcome: Result<T, Status>) -> String {
    match outcome {
        Ok(_) => "answered".to_owned(),
        Err(status) => format!("{:?}: {}", status.code(), status.message()),
    }
}

async fn ask(wire: &Wire, (path, request, needs_leader): (&'static str, Vec<u8>, bool)) -> String {
    let wire = if needs_leader { wire.clone().needing_a_leader() } else { wire.clone() };
    let answer = tokio::time::timeout(ANSWER_TIME, wire.call(path, request.into())).await;
    let told = answer.map_or("no answer".to_owned(), told);
    format!("{path} {needs_leader}: {told}")
}

/// A keep-alive is forwarded to the leader; without one its stream ends.
async fn renew(wire: &Wire) -> String {
    let request = LeaseKeepAliveRequest { id: 7 }.encode_to_vec();
    let renewed = async {
        let mut talk = wire.talk(wire::LEASE_KEEP_ALIVE, request.into()).await?;
        talk.answers.message().await
    };
    let answer = tokio::time::timeout(ANSWER_TIME, renewed).await;
    format!("keep-alive: {}", answer.map_or("no answer".to_owned(), told))
}

/// The responses of the member at `at` while it knows no leader.
async fn answers_of(binary: PathBuf) -> Vec<String> {
    let setup = Setup::new(binary).flag("heartbeat-interval", "50").flag("election-timeout", "500");
    let members = Members::found(&setup, 3);
    let leader = members.leader().await;
    let lagging = (leader + 1) % 3;
    let grant = LeaseGrantRequest { id: 7, ttl: 600 }.encode_to_vec();
    members.wire(leader).call(wire::LEASE_GRANT, grant.into()).await.expect("it leads");
    members.wire(lagging).put("key", "first").await.expect("it follows");
    members.0[lagging].signal(Signal::STOP);
    let (wire, value) = (members.wire(leader), "x".repeat(WRITE_BYTES));
    for number in 0..WRITES {
        wire.put(&format!("missed-{number}"), &value).await.expect("two of three are enough");
    }
    let others: Vec<_> = (0..3).filter(|at| *at != lagging).collect();
    others.iter().for_each(|at| members.0[*at].signal(Signal::STOP));
    members.0[lagging].signal(Signal::CONT);
    let began = Instant::now();
    let status = loop {
        let status = members.status(lagging).await.unwrap_or_default();
        if status.leader == 0 && status.header.is_some() {
            break status;
        }
        assert!(began.elapsed() < PATIENCE, "it thinks that somebody leads");
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    // For a time etcd's error names the lost leader.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let wire = members.wire(lagging);
    let mut asked: Vec<_> = Vec::new();
    for call in calls() {
        let wire = wire.clone();
        asked.push(tokio::spawn(async move { ask(&wire, call).await }));
    }
    let renewed = renew(&wire).await;
    let mut answers = vec![renewed, format!("status: {:?}", status.errors)];
    for answer in asked {
        answers.push(answer.await.expect("it asks"));
    }
    others.iter().for_each(|at| members.0[*at].signal(Signal::CONT));
    let until = Instant::now() + PATIENCE;
    while !led(&wire).await {
        assert!(Instant::now() < until, "nobody leads any more");
    }
    members.agree().await;
    let caught_up = wire.get(&format!("missed-{}", WRITES - 1)).await.expect("it has a leader");
    assert_eq!(caught_up.kvs.len(), 1, "it has what it missed");
    answers
}

async fn led(wire: &Wire) -> bool {
    tokio::time::sleep(Duration::from_millis(100)).await;
    let asked = wire.ask::<_, StatusResponse>(wire::STATUS, &StatusRequest {});
    let status = tokio::time::timeout(Duration::from_secs(2), asked).await;
    matches!(status, Ok(Ok(status)) if status.leader != 0)
}

#[test]
fn a_lagging_member_without_a_leader_answers_as_etcds_does() {
    runtime().block_on(async {
        let (etcd, basalt) =
            tokio::join!(answers_of(process::etcd()), answers_of(process::basalt()));
        let pairs = etcd.iter().zip(&basalt).filter(|(etcd, basalt)| etcd != basalt);
        let differences: Vec<_> = pairs.map(|(etcd, basalt)| format!("{etcd}\n{basalt}")).collect();
        assert!(differences.is_empty(), "{}", differences.join("\n\n"));
        let ends = |text: &str| etcd.iter().filter(|it| it.ends_with(text)).count();
        assert!(ends("etcdserver: no leader") >= 2 && ends("answered") >= 3, "{etcd:#?}");
    });
}
