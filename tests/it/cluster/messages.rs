//! Messages to operators about clusters, the same as etcd's to the byte.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use super::HEALTHY;
use super::members::Members;
use crate::compare::runtime;
use crate::ports;
use crate::process::{self, PATIENCE, Scratch, Setup, run};

/// Sent to the first member. `{m1}` is a member's id, `{peer1}` its peer URL, `{new}` and the like unused
/// URLs (a member added again within a second has the same id), `{learner}` the id of the member that is not started.
const TALK: &[&str] = &[
    "member list",
    "member add x --peer-urls={peer1}",
    "member add x --peer-urls=http://foo",
    "member add x --peer-urls=foo",
    "member add x --peer-urls={new} --learner",
    "member list",
    "member add y --peer-urls={other} --learner",
    "member promote {learner}",
    "move-leader {learner}",
    "member update {learner} --peer-urls={peer2}",
    "member update {learner} --peer-urls={other}",
    "member list",
    "member remove {learner}",
    "member remove {learner}",
    "member promote {m1}",
    "member promote 1234",
    "member remove 1234",
    "member update 1234 --peer-urls={new}",
    "member update {m1} --peer-urls={peer2}",
    "move-leader 1234",
    "member add x --peer-urls={third}",
    "member add y --peer-urls={fourth}",
    "member add z --peer-urls=http://127.0.0.1:1",
    "member remove {m1}",
    "member list",
];

/// The responses of a cluster, with names in place of the parts that differ from cluster to cluster.
fn answers(binary: PathBuf) -> Vec<String> {
    let setup = Setup::new(binary).flag("heartbeat-interval", "50").flag("election-timeout", "500");
    let members = Members::found(&setup, 3);
    std::thread::sleep(HEALTHY);
    let leader = runtime().block_on(members.leader());
    let new = ["{new}", "{other}", "{third}", "{fourth}"];
    let mut names: Vec<_> =
        new.map(|name| (name.to_owned(), format!("http://127.0.0.1:{}", ports::free()))).into();
    for (at, server) in members.0.iter().enumerate() {
        names.push((format!("{{peer{}}}", at + 1), server.peer_url()));
        names.push((format!("{{client{}}}", at + 1), server.endpoint()));
    }
    for (name, id) in members.ids(leader) {
        names.push((format!("{{{name}}}"), id));
    }
    // The ids differ too, and with them the order of the members.
    TALK.iter().map(|line| ask(&members, leader, line, &mut names)).collect()
}

fn ask(members: &Members, at: usize, line: &str, names: &mut Vec<(String, String)>) -> String {
    let known =
        |text: String| names.iter().fold(text, |text, (name, value)| text.replace(name, value));
    let words: Vec<_> = line.split(' ').map(|word| known(word.to_owned())).collect();
    let told = members.ctl(at, &words.iter().map(String::as_str).collect::<Vec<_>>());
    // Each added member gets a new id.
    if let Some(id) = told.stdout.split_whitespace().nth(1)
        && told.stdout.contains(" added ")
    {
        names.iter_mut().filter(|it| it.0 == "{learner}").for_each(|it| it.0 = "{gone}".to_owned());
        names.push(("{learner}".to_owned(), id.to_owned()));
    }
    let mut text = format!("{line}\n{}\n{}\ncode {:?}", told.stdout, told.stderr, told.code);
    for (name, value) in names.iter() {
        text = text.replace(value, name);
    }
    let cluster = text.split_whitespace().skip_while(|word| *word != "cluster").nth(1);
    let is_id = |word: &String| word.len() > 9 && word.bytes().all(|it| it.is_ascii_hexdigit());
    if let Some(cluster) = cluster.map(str::to_owned).filter(is_id) {
        text = text.replace(&cluster, "{cluster}");
    }
    // etcdctl pads short ids.
    for name in names.iter().map(|(name, _)| name.as_str()).chain(["{cluster}"]) {
        while text.contains(&format!("  {name}")) {
            text = text.replace(&format!("  {name}"), &format!(" {name}"));
        }
    }
    let mut lines: Vec<_> = text.lines().filter(|line| !line.contains("\"logger\"")).collect();
    lines[1..].sort_unstable();
    let list = |line: &str| {
        let (before, list) = line.split_once("ETCD_INITIAL_CLUSTER=\"").unwrap_or((line, ""));
        let mut list: Vec<_> = list.trim_end_matches('"').split(',').collect();
        list.sort_unstable();
        format!("{before}{}", list.join(","))
    };
    lines.into_iter().map(list).collect::<Vec<_>>().join("\n")
}

#[test]
fn changes_of_members_are_answered_as_by_etcd() {
    let etcd = std::thread::spawn(|| answers(process::etcd()));
    let basalt = answers(process::basalt());
    let etcd = etcd.join().expect("etcd answers");
    let differences: Vec<_> = etcd
        .iter()
        .zip(&basalt)
        .filter(|(etcd, basalt)| etcd != basalt)
        .map(|(etcd, basalt)| format!("--- etcd\n{etcd}\n--- basalt\n{basalt}"))
        .collect();
    assert!(differences.is_empty(), "{}", differences.join("\n\n"));
}

/// Flags that contradict each other; no server listens at these addresses.
const MISTAKES: &[&[&str]] = &[
    &["--name=m1", "--initial-cluster=m2=http://127.0.0.1:12380"],
    &["--name=m1", "--initial-cluster=m1=http://127.0.0.1:12381"],
    &["--name=m1", "--initial-cluster=m1=http://127.0.0.1:12380,m1=http://127.0.0.1:12381"],
    &["--name=m1", "--initial-cluster=m1=http://127.0.0.1:12380,m2=http://127.0.0.1:12380"],
    &[
        "--name=m1",
        "--initial-cluster=m1=http://127.0.0.1:12380,m2=http://127.0.0.1:9",
        "--initial-cluster-state=existing",
    ],
];

/// The reason why a member does not start.
pub(super) fn reason(binary: PathBuf, flags: &[&str]) -> String {
    let scratch = Scratch::new();
    let mut command = Command::new(binary);
    command
        .arg(format!("--data-dir={}", scratch.path().join("data").display()))
        .arg(format!("--listen-peer-urls=http://127.0.0.1:{}", ports::free()))
        .arg(format!("--listen-client-urls=http://127.0.0.1:{}", ports::free()))
        .arg("--advertise-client-urls=http://127.0.0.1:12379")
        .arg("--initial-advertise-peer-urls=http://127.0.0.1:12380")
        .args(flags);
    let told = run(command, PATIENCE);
    assert_ne!(told.code, Some(0), "{flags:?}");
    let fatal = told.stderr.lines().find(|line| line.contains("\"level\":\"fatal\""));
    let fatal = fatal.unwrap_or_else(|| panic!("{flags:?} says nothing:\n{}", told.stderr));
    let fatal: serde_json::Value = serde_json::from_str(fatal).expect("a line is JSON");
    fatal["error"].as_str().expect("it has a reason").to_owned()
}

#[test]
fn contradictory_cluster_flags_are_refused_with_etcds_texts() {
    for flags in MISTAKES {
        let (etcd, basalt) = (reason(process::etcd(), flags), reason(process::basalt(), flags));
        assert_eq!(basalt, etcd, "{flags:?}");
    }
}

/// Clients that require a leader are refused; others wait for one.
#[test]
fn without_a_quorum_a_member_returns_etcds_errors() {
    for binary in [process::etcd(), process::basalt()] {
        let setup =
            Setup::new(binary).flag("heartbeat-interval", "50").flag("election-timeout", "500");
        let mut members = Members::found(&setup, 3);
        members.told(0, &["put", "a", "b"]);
        members.0[1].kill();
        members.0[2].kill();
        std::thread::sleep(Duration::from_secs(3));
        assert_eq!(members.told(0, &["get", "a", "--consistency=s", "--print-value-only"]), "b");
        let status = members.told(0, &["endpoint", "status"]);
        assert!(status.contains("etcdserver: no leader"), "{status}");
        let late = members.ctl(0, &["put", "a", "c", "--command-timeout=8s"]);
        let told = "code = DeadlineExceeded desc = context deadline exceeded";
        assert!(late.stderr.contains(told), "{}", late.stderr);
        let late = members.ctl(0, &["get", "a", "--command-timeout=8s"]);
        let told = "code = Unavailable desc = etcdserver: request timed out";
        assert!(late.stderr.contains(told), "{}", late.stderr);
    }
}
