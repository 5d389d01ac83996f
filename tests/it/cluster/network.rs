//! Members whose connections are cut, one way too, slow, or lossy.

use std::time::{Duration, Instant};

use basalt_proto::etcdserverpb::{PutRequest, PutResponse, RangeRequest, RangeResponse};
use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tonic::Status;

use super::load::Load;
use super::members::Members;
use super::proxy::{Links, Wire};
use super::rotation::Rotation;
use super::{runtime, setup};
use crate::compare::from_environment;
use crate::process::{PATIENCE, Setup};
use crate::wire;

/// More than a member waits for consensus: 5 s and two election timeouts.
const ANSWER_TIME: Duration = Duration::from_secs(15);
/// etcd's responses on a member that cannot reach the others.
const TOO_LATE: [&str; 4] = [
    "etcdserver: request timed out",
    "etcdserver: request timed out, possibly due to previous leader failure",
    "etcdserver: request timed out, possibly due to connection lost",
    "etcdserver: leader changed",
];
const NO_LEADER: &str = "etcdserver: no leader";

pub(super) const CUT: Wire =
    Wire { is_cut: true, delay: Duration::ZERO, loss: 0.0, bytes_per_second: 0 };

/// All directions from one member to the others.
pub(super) fn from(at: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..3).filter(move |other| *other != at).map(move |other| (at, other))
}

/// All directions to one member.
pub(super) fn to(at: usize) -> impl Iterator<Item = (usize, usize)> {
    from(at).map(|(at, other)| (other, at))
}

/// Waits until a member reports that there is no leader.
async fn steps_down(members: &Members, at: usize) {
    let until = Instant::now() + PATIENCE;
    while members.status(at).await.is_none_or(|status| status.leader != 0) {
        assert!(Instant::now() < until, "m{} thinks that somebody leads", at + 1);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The number of the leader, if it is another one.
pub(super) async fn another_leads(members: &Members, than: usize) -> usize {
    let until = Instant::now() + PATIENCE;
    loop {
        let mut others = (0..3).filter(|at| *at != than);
        let (one, two) = (others.next().expect("one"), others.next().expect("two"));
        for at in [one, two] {
            let status = members.status(at).await.unwrap_or_default();
            if status.header.is_some_and(|header| header.member_id == status.leader) {
                return at;
            }
        }
        assert!(Instant::now() < until, "no other one leads:\n{}", members.0[one].logs.tail());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The response to a client that waits for it.
async fn told<T: std::fmt::Debug>(answer: impl Future<Output = Result<T, Status>>) -> String {
    let answer = tokio::time::timeout(ANSWER_TIME, answer).await.expect("it answers in time");
    answer.expect_err("it cannot know").message().to_owned()
}

#[test]
fn a_leader_that_is_cut_off_steps_down_and_reports_it() {
    runtime().block_on(async {
        let (members, links) = Members::found_apart(&setup(), 3);
        let load = Load::begin(&members, from_environment("CLUSTER_SEED", 11));
        load.wait_for(100).await;
        let leader = members.leader().await;
        let wire = members.wire(leader);
        wire.put("before", "the cut").await.expect("it leads");
        links.set(from(leader).chain(to(leader)), CUT);
        // Sent to a member that still believes itself the leader.
        let key = Bytes::from_static(b"before");
        let put = PutRequest { key: key.clone(), value: key.clone(), ..Default::default() };
        let read = RangeRequest { key: key.clone(), ..Default::default() };
        let early_put = told(wire.ask::<_, PutResponse>(wire::PUT, &put));
        let early_read = told(wire.ask::<_, RangeResponse>(wire::RANGE, &read));
        let down = async {
            steps_down(&members, leader).await;
            let serializable = RangeRequest { serializable: true, ..read.clone() };
            let own = wire.ask::<_, RangeResponse>(wire::RANGE, &serializable).await;
            assert_eq!(own.expect("its own state").kvs[0].value, "the cut");
            let needing = wire.clone().needing_a_leader();
            assert_eq!(told(needing.ask::<_, PutResponse>(wire::PUT, &put)).await, NO_LEADER);
            assert_eq!(told(needing.ask::<_, RangeResponse>(wire::RANGE, &read)).await, NO_LEADER);
        };
        let (put_told, read_told, ()) = tokio::join!(early_put, early_read, down);
        for told in [put_told, read_told] {
            assert!(TOO_LATE.contains(&told.as_str()), "{told}");
        }
        // Meanwhile the others made progress.
        let other = another_leads(&members, leader).await;
        load.wait_for(load.acknowledged() + 50).await;
        assert_eq!(members.told(other, &["get", "before", "--print-value-only"]), "the cut");
        links.heal();
        let until = Instant::now() + PATIENCE;
        while members.status(leader).await.is_none_or(|status| status.leader == 0) {
            assert!(Instant::now() < until, "it does not come back");
        }
        wire.put("after", "the cut").await.expect("it knows who leads");
        load.finish(&members).await;
        members.agree().await;
    });
}

#[test]
fn a_leader_cut_off_in_one_direction_is_replaced() {
    runtime().block_on(async {
        let (members, links) = Members::found_apart(&setup(), 3);
        let load = Load::begin(&members, from_environment("CLUSTER_SEED", 12));
        for is_deaf in [true, false] {
            load.wait_for(load.acknowledged() + 50).await;
            let leader = members.leader().await;
            match is_deaf {
                // Its heartbeats prevent an election until it notices that no member answers.
                true => links.set(to(leader), CUT),
                // It receives the requests of their election.
                false => links.set(from(leader), CUT),
            }
            another_leads(&members, leader).await;
            load.wait_for(load.acknowledged() + 50).await;
            links.heal();
        }
        load.finish(&members).await;
        members.agree().await;
    });
}

/// A random fault of the connections.
fn storm(links: &Links, random: &mut StdRng, leader: usize) -> String {
    let ms = Duration::from_millis;
    let other = (leader + random.random_range(1..3)) % 3;
    let all = || (0..3).flat_map(from);
    let slow = Wire { delay: ms(random.random_range(5..80)), ..Wire::default() };
    match random.random_range(0..9) {
        0 => links.set(from(leader).chain(to(leader)), CUT),
        1 => links.set(to(leader), CUT),
        2 => links.set(from(leader), CUT),
        3 => links.set(from(other).chain(to(other)), CUT),
        // Both still reach the third one.
        4 => links.set([(leader, other), (other, leader)], CUT),
        5 => links.set(all(), slow),
        6 => links.set(from(leader), Wire { loss: 0.1, ..slow }),
        7 => links.set(all(), Wire { loss: 0.03, ..slow }),
        _ => links.set([(leader, other)], Wire { bytes_per_second: 20_000, ..slow }),
    }
    if random.random_bool(0.3) {
        links.reset();
    }
    links.tell()
}

#[test]
fn nothing_acknowledged_is_lost_when_wires_are_bad() {
    let storms = from_environment("CLUSTER_STORMS", 6);
    runtime().block_on(wires_are_bad(setup(), storms));
}

/// Impairs connections under the load, and replaces certificates meanwhile if there are some.
pub(super) async fn wires_are_bad(setup: Setup, storms: u64) {
    let seed = from_environment("CLUSTER_SEED", 1);
    let least = Duration::from_secs(from_environment("CLUSTER_SECONDS", 0));
    let mut random = StdRng::seed_from_u64(seed);
    // Snapshots too: a member that was cut off may be too far behind for the log.
    let setup = setup.flag("snapshot-count", "300").flag("snapshot-catchup-entries", "100");
    let (members, links) = Members::found_apart(&setup, 3);
    let rotation = Rotation::begin(&members);
    let mut load = Load::begin(&members, seed);
    let (began, mut number) = (Instant::now(), 0);
    while number < storms || began.elapsed() < least {
        number += 1;
        let before = load.acknowledged();
        let what = storm(&links, &mut random, members.leader().await);
        assert!(!what.is_empty(), "no connection is impaired");
        tokio::time::sleep(load.moment(300..2500)).await;
        // There is always a majority whose members reach each other.
        load.wait_for(load.acknowledged() + 20).await;
        links.heal();
        load.wait_for(load.acknowledged() + 20).await;
        println!("storm {number} (seed {seed}): {what}: {}", load.acknowledged() - before);
    }
    rotation.finish(&members).await;
    // Connections of before the last certificates are made anew.
    links.reset();
    load.wait_for(load.acknowledged() + 20).await;
    load.finish(&members).await;
    members.agree().await;
}
