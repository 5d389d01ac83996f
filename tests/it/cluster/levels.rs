//! Members of two versions in one cluster: no feature level is agreed on that one of them does not support, and a member
//! below the agreed level is refused with one sentence.

use std::path::PathBuf;
use std::time::Instant;

use rustix::process::Signal;

use super::members::Members;
use super::{page, runtime};
use crate::process::{self, PATIENCE, Server, Setup};

/// Makes a member support a lower feature level than its version does.
const LOWERED: &str = "BASALT_FEATURE_LEVEL";
/// The level from which clusters rise, and the one that this version supports.
const FIRST: u32 = 1;
const NEWEST: u32 = 3;
/// The sentence for an older member.
const TOO_OLD: &str = "the cluster has agreed on feature level 3, and this version supports 1: start the member with a \
                       version that supports level 3";

/// The sentence for a log with an unknown entry.
const UNKNOWN: &str =
    " of the log cannot be applied: it needs feature level 3, and this version supports 1";

/// Members may be added without waiting until all connections are old enough.
fn setup() -> Setup {
    super::setup().flag("strict-reconfig-check", "false")
}

/// A member of the version before: a real one if `BASALT_OLD_BIN` names its program.
fn older() -> Setup {
    match std::env::var_os("BASALT_OLD_BIN") {
        Some(binary) => setup().program(PathBuf::from(binary)),
        None => setup().variable(LOWERED, "1"),
    }
}

fn upgrade(server: &mut Server) {
    server.set_program(process::basalt());
    server.set_variable(LOWERED, None);
}

/// The agreed feature level that a member reports; 1 if it reports none.
fn agreed(server: &Server) -> u32 {
    let metrics = page(&server.endpoint(), "/metrics");
    let line = metrics.lines().find_map(|line| line.strip_prefix("basalt_cluster_feature_level "));
    line.map_or(FIRST, |level| level.parse().expect("a number"))
}

async fn agree_on(members: &Members, level: u32) {
    let until = Instant::now() + PATIENCE;
    for (at, server) in members.0.iter().enumerate() {
        while agreed(server) != level {
            assert!(Instant::now() < until, "m{} knows level {}", at + 1, agreed(server));
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    }
}

/// A member that must end by itself, with one of these sentences.
fn ends(server: &mut Server, sentences: &[&str]) {
    let status = server.wait_exit(PATIENCE).unwrap_or_else(|| panic!("{}", server.logs.tail()));
    let logs = server.logs.all();
    let is_told = sentences.iter().any(|sentence| logs.contains(sentence));
    assert!(!status.success() && is_told, "{status}:\n{logs}");
    assert!(!logs.contains("panicked"), "{logs}");
    server.kill();
}

#[test]
fn a_cluster_rises_to_a_level_when_its_last_member_supports_it() {
    runtime().block_on(async {
        let mut members = Members::found_with([setup(), setup(), older()].into_iter());
        members.leader().await;
        members.told(2, &["put", "before", "x"]);
        members.told(0, &["lease", "grant", "600"]);
        // A leader asks the others within this time.
        tokio::time::sleep(super::versions::ROUND).await;
        members.0.iter().for_each(|server| assert_eq!(agreed(server), FIRST));
        // Two of three raise no level while the third is down.
        members.0[2].kill();
        tokio::time::sleep(super::versions::ROUND).await;
        members.0[..2].iter().for_each(|server| assert_eq!(agreed(server), FIRST));
        upgrade(&mut members.0[2]);
        members.restart(2);
        agree_on(&members, NEWEST).await;
        members.told(2, &["put", "after", "x"]);
        members.agree().await;
        // The entry in its log stops an older version, unless another member refused it first, or its store already
        // contains the level.
        let killed: &[_] = &[UNKNOWN, TOO_OLD];
        for (signal, sentences) in [(Signal::KILL, killed), (Signal::TERM, &[TOO_OLD])] {
            members.0[0].signal(signal);
            assert!(members.0[0].wait_exit(PATIENCE).is_some());
            members.0[0].kill();
            members.0[0].set_variable(LOWERED, Some("1"));
            members.0[0].launch();
            ends(&mut members.0[0], sentences);
            upgrade(&mut members.0[0]);
            members.restart(0);
        }
        // It is added, and has no data: the others refuse its connections.
        let joining = Server::new(setup().variable(LOWERED, "1"));
        let peer_url = format!("--peer-urls={}", joining.peer_url());
        members.told(1, &["member", "add", "m4", "--learner", &peer_url]);
        members.0.push(joining);
        let cluster = members.cluster();
        members.name(3, &cluster, "existing");
        members.0[3].launch();
        ends(&mut members.0[3], &[TOO_OLD]);
        upgrade(&mut members.0[3]);
        members.restart(3);
        agree_on(&members, NEWEST).await;
    });
}
