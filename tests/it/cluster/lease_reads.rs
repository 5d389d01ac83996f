//! Leaders that may read alone (`--lease-based-reads`): they do, and never a value that another one has replaced.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::load::{Load, PATIENCE};
use super::members::Members;
use super::network::{CUT, another_leads, from, to};
use super::{runtime, setup_with};
use crate::compare::from_environment;
use crate::process::Setup;
use crate::wire::Wire;

fn alone_with(election: u64) -> Setup {
    setup_with(election).flag("lease-based-reads", "true")
}

/// Reads until a leader is sure to have been promised something.
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
fn a_leader_that_is_cut_off_reads_alone_until_others_may_vote() {
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
fn a_leader_that_stood_still_does_not_read_alone_what_was_replaced() {
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
            // It is asked before it goes on, so that this is the first that it finds to do.
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
fn nothing_is_read_that_was_replaced_while_members_die_and_stand_still() {
    let kills = from_environment("CLUSTER_KILLS", 5);
    runtime().block_on(async {
        let mut members = Members::found(&alone_with(500), 3);
        let mut load = Load::begin(&members, from_environment("CLUSTER_SEED", 21));
        for kill in 0..kills {
            tokio::time::sleep(load.moment(100..900)).await;
            let leader = members.leader().await;
            // Sometimes one that promised something, which comes back at once.
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
fn what_was_promised_is_known_after_the_flag_is_taken_away() {
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
