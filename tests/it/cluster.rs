//! Clusters of real processes: they are founded, lose members and get them back, change their membership,
//! and never lose an acknowledged write.

mod alarms;
mod connections;
mod contended;
mod corrupt;
mod disk;
mod leaderless;
mod lease_reads;
mod levels;
mod load;
pub(crate) mod members;
mod messages;
mod network;
mod partition;
mod proxy;
mod rotation;
mod slow_store;
mod versions;

use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use self::load::Load;
use self::members::Members;
use self::partition::Absence;
use self::rotation::Rotation;
use crate::compare::from_environment;
use crate::process::{self, PATIENCE, Server, Setup};

/// The age from which etcd counts a connection as healthy.
const HEALTHY: Duration = Duration::from_millis(5500);
/// A median of fewer measurements has little meaning.
const ABSENCES_MIN: usize = 20;

fn setup() -> Setup {
    setup_with(500)
}

/// Members with this election timeout in milliseconds.
fn setup_with(election: u64) -> Setup {
    Setup::new(process::basalt())
        .flag("heartbeat-interval", &(election / 10).to_string())
        .flag("election-timeout", &election.to_string())
}

/// With threads of its own for clients and proxies, which go on while a test waits for a process.
fn runtime() -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(2).enable_all().build().expect("a runtime")
}

/// The body of a member's response to a GET.
fn page(endpoint: &str, path: &str) -> String {
    let mut command = std::process::Command::new("curl");
    command.args(["-s", &format!("{endpoint}{path}")]);
    process::run(command, PATIENCE).stdout
}

#[test]
fn three_members_serve_as_one() {
    runtime().block_on(async {
        let mut members = Members::found(&setup(), 3);
        for at in 0..3 {
            members.told(at, &["put", &format!("key-{at}"), &format!("value-{at}")]);
        }
        for at in 0..3 {
            let all = members.told(at, &["get", "key-", "--prefix", "--print-value-only"]);
            let values: Vec<_> = all.lines().filter(|line| !line.is_empty()).collect();
            assert_eq!(values, ["value-0", "value-1", "value-2"], "m{}", at + 1);
        }
        let granted = members.told(0, &["lease", "grant", "600"]);
        let lease = granted.split(' ').nth(1).expect("an id").to_owned();
        members.told(1, &["put", "leased", "x", "--lease", &lease]);
        for at in 0..3 {
            let kept = members.told(at, &["lease", "keep-alive", &lease, "--once"]);
            assert!(kept.contains("keepalived with TTL(600)"), "m{}: {kept}", at + 1);
            let left = members.told(at, &["lease", "timetolive", &lease, "--keys"]);
            assert!(left.contains("attached keys([leased])"), "m{}: {left}", at + 1);
        }
        let status = members.told(2, &["endpoint", "status", "--cluster"]);
        assert_eq!(status.lines().count(), 3, "{status}");
        assert_eq!(status.matches(", true, false, ").count(), 1, "one leads: {status}");
        let list = members.told(1, &["member", "list", "-w", "table"]);
        assert_eq!(list.matches("started").count(), 3, "{list}");
        let metrics = page(&members.0[0].endpoint(), "/metrics");
        for family in ["etcd_network_peer_sent_bytes_total{To=", "etcd_network_active_peers{Local="]
        {
            assert_eq!(metrics.matches(family).count(), 2, "{family}");
        }
        // All at once, as after a loss of power of the whole site.
        members.0.iter_mut().for_each(process::Server::kill);
        members.0.iter_mut().for_each(process::Server::launch);
        (0..3).for_each(|at| members.wait_ready(at));
        let value = members.told(2, &["get", "key-1", "--print-value-only"]);
        assert_eq!(value, "value-1");
        members.agree().await;
    });
}

#[test]
fn nothing_acknowledged_is_lost_when_leaders_die() {
    let kills = from_environment("CLUSTER_KILLS", 5);
    runtime().block_on(leaders_die(setup_with(election_ms()), kills));
}

/// The election timeout of members that are killed.
fn election_ms() -> u64 {
    from_environment("CLUSTER_ELECTION_MS", 500)
}

/// Kills and pauses leaders under the load, and replaces certificates meanwhile if there are some.
async fn leaders_die(setup: Setup, kills: u64) {
    let seed = from_environment("CLUSTER_SEED", 1);
    let least = Duration::from_secs(from_environment("CLUSTER_SECONDS", 0));
    // Snapshots too: a member that was down may be too far behind for the log.
    let setup = setup.flag("snapshot-count", "300").flag("snapshot-catchup-entries", "100");
    let mut members = Members::found(&setup, 3);
    let rotation = Rotation::begin(&members);
    let mut load = Load::begin(&members, seed);
    let (began, mut kill, mut absences) = (Instant::now(), 0, Vec::new());
    while kill < kills || began.elapsed() < least {
        kill += 1;
        let before = load.acknowledged();
        tokio::time::sleep(load.moment(100..900)).await;
        let leader = members.leader().await;
        let began = Instant::now();
        if kill % 3 == 0 {
            // It continues as it was stopped, and still believes itself the leader.
            members.0[leader].signal(Signal::STOP);
            load.wait_for(load.acknowledged() + 20).await;
            members.0[leader].signal(Signal::CONT);
        } else {
            members.0[leader].kill();
            absences.push(Absence::measure(&members, leader).await);
            load.wait_for(load.acknowledged() + 20).await;
            members.restart(leader);
        }
        let took = began.elapsed();
        let written = load.acknowledged() - before;
        println!("kill {kill} (seed {seed}): m{} led, {took:?}, {written}", leader + 1);
    }
    tell_absences(&absences, election_ms());
    rotation.finish(&members).await;
    load.finish(&members).await;
    members.agree().await;
}

/// Prints the times without a leader, beside the election timeout.
fn tell_absences(absences: &[Absence], election: u64) {
    let bound = Duration::from_millis(election * 3 / 2);
    let led = partition::median(absences.iter().map(|it| it.led).collect());
    let wrote = partition::median(absences.iter().map(|it| it.wrote).collect());
    let worst = absences.iter().map(|it| it.wrote).max().unwrap_or_default();
    println!(
        "election timeout {election} ms, {} leaders killed: another one led after {led:?}, \
         a write was acknowledged after {wrote:?} (medians; the longest {worst:?})",
        absences.len()
    );
    assert!(absences.len() < ABSENCES_MIN || wrote <= bound, "more than {bound:?}");
}

#[test]
fn members_that_hold_the_same_find_no_corruption() {
    runtime().block_on(async {
        let setup = setup()
            .flag("corrupt-check-time", "300ms")
            .flag("feature-gates", "InitialCorruptCheck=true,CompactHashCheck=true")
            .flag("compact-hash-check-time", "300ms");
        let mut members = Members::found(&setup, 3);
        let load = Load::begin(&members, 3);
        load.wait_for(100).await;
        members.told(1, &["compaction", "50"]);
        let leader = members.leader().await;
        let logs = members.0[leader].logs.clone();
        assert!(logs.wait_for("finished peer corruption check", PATIENCE));
        assert!(logs.wait_for("\"revision\":50,\"done\":true", PATIENCE), "{}", logs.tail());
        let other = (leader + 1) % 3;
        members.0[other].kill();
        members.restart(other);
        assert!(members.0[other].logs.wait_for("initial corruption checking passed", PATIENCE));
        load.finish(&members).await;
        assert_eq!(members.told(leader, &["alarm", "list"]), "");
    });
}

#[test]
fn a_stopping_leader_transfers_its_leadership_first() {
    runtime().block_on(async {
        let mut members = Members::found(&setup(), 3);
        let leader = members.leader().await;
        members.0[leader].signal(Signal::TERM);
        let status = members.0[leader].wait_exit(Duration::from_secs(10));
        let is_told = |status: ExitStatus| status.signal() == Some(Signal::TERM.as_raw());
        assert!(status.is_some_and(is_told), "{status:?}");
        assert!(
            members.0[leader].logs.wait_for("\"moved\":true", PATIENCE),
            "it did not hand over"
        );
        members.0[leader].kill();
        let other = (leader + 1) % 3;
        members.told(other, &["put", "a", "b"]);
        // No election was needed: the term is that of the transfer.
        let status = members.status(other).await.expect("it answers");
        assert_ne!(status.leader, 0);
    });
}

#[test]
fn a_member_that_waits_for_the_others_can_be_stopped() {
    runtime().block_on(async {
        let mut members = Members::found(&setup(), 2);
        members.0.iter_mut().for_each(Server::kill);
        let alone = &mut members.0[0];
        alone.launch();
        while !page(&alone.peer_url(), "/version").contains("etcdserver") {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        alone.signal(Signal::TERM);
        let ended = alone.wait_exit(PATIENCE).is_some();
        assert!(ended, "still waits\n{}", alone.logs.tail());
        assert!(alone.logs.wait_for("received signal", PATIENCE), "it was killed");
    });
}

#[test]
fn a_member_that_lost_its_disk_comes_back_as_a_learner() {
    runtime().block_on(async {
        let setup = setup().flag("snapshot-count", "50").flag("snapshot-catchup-entries", "10");
        let mut members = Members::found(&setup, 3);
        let load = Load::begin(&members, 7);
        load.wait_for(200).await;
        tokio::time::sleep(HEALTHY).await;
        members.0[2].kill();
        std::fs::remove_dir_all(members.0[2].data_dir()).expect("it is there");
        let lost = members.id(0, "m3");
        members.told(0, &["member", "remove", &lost]);
        let peer_url = format!("--peer-urls={}", members.0[2].peer_url());
        members.told(0, &["member", "add", "m3", "--learner", &peer_url]);
        let cluster = members.cluster();
        members.name(2, &cluster, "existing");
        members.restart(2);
        assert!(members.0[2].logs.wait_for("applied snapshot", PATIENCE), "it came by the log");
        let refused = members.ctl(2, &["get", "a"]);
        assert!(refused.stderr.contains("rpc not supported for learner"), "{}", refused.stderr);
        members.told(2, &["get", "a", "--consistency=s"]);
        let id = members.id(0, "m3");
        assert_ne!(id, lost, "a member that was removed never comes back");
        let until = Instant::now() + PATIENCE;
        while members.ctl(1, &["member", "promote", &id]).code != Some(0) {
            assert!(Instant::now() < until, "it never is in sync:\n{}", members.0[2].logs.tail());
        }
        members.told(2, &["put", "from-m3", "x"]);
        load.wait_for(load.acknowledged() + 50).await;
        load.finish(&members).await;
        members.agree().await;
        members.0[2].kill();
        members.restart(2);
        assert_eq!(members.told(2, &["get", "from-m3", "--print-value-only"]), "x");
        members.agree().await;
    });
}

#[test]
fn a_member_that_is_removed_stops_itself_and_stays_out() {
    runtime().block_on(async {
        let mut members = Members::found(&setup(), 3);
        tokio::time::sleep(HEALTHY).await;
        let leader = members.leader().await;
        let (asked, name) = ((leader + 1) % 3, format!("m{}", leader + 1));
        let id = members.id(asked, &name);
        members.told(asked, &["member", "remove", &id]);
        let status = members.0[leader].wait_exit(Duration::from_secs(20));
        assert!(status.is_some_and(|status| status.success()), "{status:?}");
        let removed = "the member has been permanently removed from the cluster";
        assert!(members.0[leader].logs.wait_for(removed, PATIENCE));
        members.0[leader].kill();
        members.told(asked, &["put", "after", "it"]);
        members.0[leader].launch();
        assert!(members.0[leader].wait_exit(Duration::from_secs(20)).is_some(), "it came back");
        members.0[leader].kill();
        assert_eq!(members.ids(asked).len(), 2);
    });
}

#[test]
fn a_lone_survivor_makes_a_cluster_of_its_own() {
    runtime().block_on(async {
        let mut members = Members::found(&setup(), 3);
        members.told(0, &["put", "kept", "x"]);
        members.agree().await;
        members.0.iter_mut().for_each(process::Server::kill);
        members.0[1].set("force-new-cluster", "true");
        members.restart(1);
        assert_eq!(members.told(1, &["get", "kept", "--print-value-only"]), "x");
        assert_eq!(members.ids(1).len(), 1);
        members.told(1, &["put", "more", "y"]);
        members.0[1].kill();
        members.0[1].set("force-new-cluster", "false");
        members.restart(1);
        assert_eq!(members.told(1, &["get", "more", "--print-value-only"]), "y");
    });
}

#[test]
fn a_leader_counts_heartbeats_that_leave_late() {
    runtime().block_on(async {
        // An election takes longer than the leader is paused.
        let setup = Setup::new(process::basalt())
            .flag("heartbeat-interval", "100")
            .flag("election-timeout", "5000");
        let members = Members::found(&setup, 3);
        let leader = members.leader().await;
        let counted = || {
            let metrics = page(&members.0[leader].endpoint(), "/metrics");
            let name = "etcd_server_heartbeat_send_failures_total ";
            let value = metrics.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned);
            value.expect(name).parse::<f64>().expect("a number")
        };
        let before = counted();
        members.0[leader].signal(Signal::STOP);
        tokio::time::sleep(Duration::from_millis(600)).await;
        members.0[leader].signal(Signal::CONT);
        let until = Instant::now() + PATIENCE;
        while counted() < before + 2.0 {
            assert!(Instant::now() < until, "no late heartbeat to either member was counted");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert!(
            members.0[leader]
                .logs
                .wait_for("leader failed to send out heartbeat on time", PATIENCE)
        );
    });
}
