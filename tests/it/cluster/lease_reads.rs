//! `--lease-based-reads`: leaders answer reads without a round trip, and never with a value that another leader replaced.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::load::Load;
use super::members::Members;
use super::network::{CUT, another_leads, from, to};
use super::{runtime, setup_with};
use crate::compare::from_environment;
use crate::process::{PATIENCE, Setup};
use crate::wire::Wire;

fn alone_with(election: u64) -> Setup {
    setup_with(election).flag("lease-based-reads", "true")
}

/// Reads until the leader certainly holds the lease.
async fn warm(wire: &Wire) {
    for _ in 0..10 {
        wire.get("key").await.expect("it leads");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn value(wire: &Wire) -> Option<String> {
    let answer = tokio::time::timeout(PATIENCE, wire.get("key")).await.ok()?.ok()?;
    Some(String::from_utf8_lossy(&answer.kvs.first()?.value).into_owned())
}

#[test]
fn a_leader_that_is_cut_off_serves_lease_reads_until_others_may_vote() {
    runtime().block_on(async {
        let (members, links) = Members::found_apart(&alone_with(3000), 3);
        let leader = members.leader().await;
        let wire = members.wire(leader);
        wire.put("key", "old").await.expect("it leads");
        warm(&wire).await;
        links.set(from(leader).chain(to(leader)), CUT);
        let cut = Instant::now();
        assert_eq!(value(&wire).await.as_deref(), Some("old"), "nobody else is needed");
        let took = cut.elapsed();
        assert!(took < Duration::from_secs(1), "{took:?}: somebody was waited for");
        let other = another_leads(&members, leader).await;
        members.wire(other).put("key", "new").await.expect("it leads");
        let late = value(&wire);
        let heal = async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            links.heal();
        };
        let (late, ()) = tokio::join!(late, heal);
        assert!(late.as_deref().is_none_or(|it| it == "new"), "{late:?} was replaced");
        members.agree().await;
    });
}

#[test]
fn a_paused_leader_serves_no_stale_lease_read() {
    let turns = from_environment("CLUSTER_KILLS", 5);
    runtime().block_on(async {
        let members = Members::found(&alone_with(500), 3);
        for turn in 0..turns {
            let leader = members.leader().await;
            let wire = members.wire(leader);
            wire.put("key", "old").await.expect("it leads");
            warm(&wire).await;
            members.0[leader].signal(Signal::STOP);
            let other = another_leads(&members, leader).await;
            members.wire(other).put("key", "new").await.expect("it leads");
            // The requests are sent before it continues, so that they are the first that it processes.
            let asked: Vec<_> = (0..20).map(|_| wire.clone()).collect();
            let asked: Vec<_> =
                asked.into_iter().map(|it| tokio::spawn(async move { value(&it).await })).collect();
            tokio::time::sleep(Duration::from_millis(50)).await;
            members.0[leader].signal(Signal::CONT);
            for asked in asked {
                let read = asked.await.expect("no panic");
                assert!(read.as_deref().is_none_or(|it| it == "new"), "{read:?} in turn {turn}");
            }
            for at in 0..3 {
                assert_eq!(value(&members.wire(at)).await.as_deref(), Some("new"), "m{}", at + 1);
            }
        }
    });
}

#[test]
fn lease_reads_are_never_stale_while_members_are_killed_and_paused() {
    let kills = from_environment("CLUSTER_KILLS", 5);
    runtime().block_on(async {
        let mut members = Members::found(&alone_with(500), 3);
        let mut load = Load::begin(&members, from_environment("CLUSTER_SEED", 21));
        for kill in 0..kills {
            tokio::time::sleep(load.moment(100..900)).await;
            let leader = members.leader().await;
            // At times one that granted a vote lease, which restarts at once.
            let (other, stops) = ((leader + 1) % 3, kill % 2 == 0);
            if stops {
                members.0[leader].signal(Signal::STOP);
            } else {
                members.0[other].kill();
                members.0[other].launch();
                members.0[leader].kill();
            }
            load.wait_for(load.acknowledged() + 20).await;
            if stops {
                members.0[leader].signal(Signal::CONT);
            } else {
                members.wait_ready(other);
                members.restart(leader);
            }
        }
        load.finish(&members).await;
        members.agree().await;
    });
}

#[test]
fn vote_leases_hold_after_the_flag_is_removed() {
    runtime().block_on(async {
        let mut members = Members::found(&alone_with(500), 3);
        let note = members.0[0].data_dir().join("member/promise");
        let noted = || std::fs::read_to_string(&note).expect("it is noted").trim().to_owned();
        assert_eq!(noted(), "450");
        members.0[0].kill();
        members.0[0].set("lease-based-reads", "false");
        members.restart(0);
        let until = Instant::now() + PATIENCE;
        while noted() != "0" {
            assert!(Instant::now() < until, "it is never over");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        members.told(0, &["put", "key", "value"]);
    });
}
