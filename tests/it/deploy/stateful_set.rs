//! `basalt pod`: members that join and leave by themselves, with nothing but the size of their set changed.

use std::time::Duration;

use serde_json::Value;

use super::fake_set::{FakeSet, Listed};
use crate::process::{PATIENCE, Scratch};
use crate::tls::certificates::{Authority, Wanted};

macro_rules! scenarios {
    ($($name:ident),* $(,)?) => { [$((stringify!($name), $name as fn())),*] };
}

/// Most of a scenario's time is the five seconds for which members must be connected before etcd's check lets one be added or
/// removed. So they run side by side.
#[test]
fn pods_join_stay_and_leave_by_the_size_of_their_set_alone() {
    let scenarios = scenarios![
        a_set_grows_to_five_and_shrinks_to_three_by_its_size_alone,
        pods_with_their_data_stay_members_and_others_are_replaced,
        a_pod_that_ended_between_two_steps_of_joining_goes_on,
        a_member_that_was_removed_elsewhere_leaves_its_old_data,
        the_leader_removes_a_pod_that_was_scaled_away_and_could_not_leave,
        no_second_cluster_is_founded_beside_data,
        pods_join_and_leave_over_tls_with_a_user,
        a_pod_that_cannot_ask_for_the_size_of_its_set_stays_a_member,
    ];
    std::thread::scope(|scope| {
        let running = scenarios.map(|(name, scenario)| {
            let thread = std::thread::Builder::new().name(name.to_owned());
            (name, thread.spawn_scoped(scope, scenario).unwrap())
        });
        let failed = running.into_iter().filter_map(|(name, it)| it.join().err().map(|_| name));
        assert_eq!(failed.collect::<Vec<_>>(), [""; 0]);
    });
}

fn id_of(members: &[Listed], name: &str) -> u64 {
    members.iter().find(|it| it.name == name).unwrap_or_else(|| panic!("{members:?}")).id
}

/// The pod whose member leads.
fn lead(set: &FakeSet) -> u32 {
    let told = set.told(None, &["endpoint", "status", "-w", "json"]);
    let told: Value = serde_json::from_str(&told).unwrap();
    let leader = told[0]["Status"]["leader"].as_u64().unwrap();
    let members = set.members();
    let leader = members.iter().find(|it| it.id == leader).unwrap();
    leader.name.strip_prefix("basalt-").unwrap().parse().unwrap()
}

/// Three pods that have founded a cluster.
fn three() -> FakeSet {
    let mut set = FakeSet::new();
    set.scale(3);
    set.settles(3);
    set
}

/// Keys that were acknowledged must be there in the end, on every pod.
fn put(set: &FakeSet, acknowledged: &mut Vec<String>) {
    for _ in 0..5 {
        let key = format!("key-{}", acknowledged.len());
        set.told(None, &["put", &key, "x"]);
        acknowledged.push(key);
    }
}

fn has_all(set: &FakeSet, acknowledged: &[String], pods: u32) {
    for ordinal in 0..pods {
        let told = set.told(Some(ordinal), &["get", "key-", "--prefix", "--keys-only"]);
        let found = told.lines().filter(|line| !line.is_empty()).count();
        assert_eq!(found, acknowledged.len(), "basalt-{ordinal}");
    }
}

fn a_set_grows_to_five_and_shrinks_to_three_by_its_size_alone() {
    let mut set = three();
    let mut acknowledged = Vec::new();
    let founders = set.members();
    put(&set, &mut acknowledged);
    set.scale(5);
    put(&set, &mut acknowledged);
    let five = set.settles(5);
    assert_eq!(five[..3], founders[..], "those who were there stay as they are");
    has_all(&set, &acknowledged, 5);
    // Two pods end at the same time, and one of them leads.
    set.told(Some(lead(&set)), &["move-leader", &format!("{:x}", id_of(&five, "basalt-4"))]);
    set.scale(3);
    assert_eq!(set.settles(3), founders);
    put(&set, &mut acknowledged);
    set.scale(4);
    let four = set.settles(4);
    assert_ne!(id_of(&four, "basalt-3"), id_of(&five, "basalt-3"), "it is not the one that left");
    has_all(&set, &acknowledged, 4);
}

fn pods_with_their_data_stay_members_and_others_are_replaced() {
    let mut set = three();
    let mut acknowledged = Vec::new();
    let before = set.members();
    put(&set, &mut acknowledged);
    // A drain, a crash.
    set.restart(1);
    set.crash(2);
    put(&set, &mut acknowledged);
    set.start(2);
    assert_eq!(set.settles(3), before);
    // To none is a pause.
    set.scale(0);
    set.scale(3);
    assert_eq!(set.settles(3), before);
    // A lost volume, of a founder.
    set.crash(0);
    set.lose_volume(0);
    set.start(0);
    put(&set, &mut acknowledged);
    let mended = set.settles(3);
    assert_ne!(id_of(&mended, "basalt-0"), id_of(&before, "basalt-0"));
    assert_eq!(mended[1..], before[1..]);
    has_all(&set, &acknowledged, 3);
}

fn a_pod_that_ended_between_two_steps_of_joining_goes_on() {
    let mut set = three();
    // Added, and not started.
    let url = set.peer_url(3);
    set.told(None, &["member", "add", "basalt-3", "--learner", &format!("--peer-urls={url}")]);
    let added = id_of(&set.members(), "");
    set.scale(4);
    assert_eq!(id_of(&set.settles(4), "basalt-3"), added);
    // Its volume lost and its member removed, and nothing added.
    set.crash(2);
    set.lose_volume(2);
    let lost = format!("{:x}", id_of(&set.members(), "basalt-2"));
    set.told(None, &["member", "remove", &lost]);
    set.start(2);
    set.settles(4);
}

fn a_member_that_was_removed_elsewhere_leaves_its_old_data() {
    let mut set = three();
    set.crash(2);
    let removed = id_of(&set.members(), "basalt-2");
    set.told(None, &["member", "remove", &format!("{removed:x}")]);
    set.start(2);
    let said = "the cluster has removed this member; it joins anew";
    assert!(set.logs(2).wait_for(said, PATIENCE), "{}", set.tails());
    assert_ne!(id_of(&set.settles(3), "basalt-2"), removed);
}

fn the_leader_removes_a_pod_that_was_scaled_away_and_could_not_leave() {
    let mut set = three();
    set.set_replicas(2);
    set.crash(2);
    set.settles(2);
}

fn no_second_cluster_is_founded_beside_data() {
    let mut set = three();
    set.told(None, &["put", "a", "b"]);
    (0..3).for_each(|ordinal| set.crash(ordinal));
    // Two of three volumes are gone. The third one's machine is down at first.
    set.lose_volume(0);
    set.lose_volume(1);
    set.start(0);
    set.start(1);
    let waits = |set: &FakeSet, why: &str| {
        for ordinal in 0..2 {
            assert!(set.logs(ordinal).wait_for(why, PATIENCE), "{}", set.tails());
        }
    };
    waits(&set, "a cluster is founded when all pods are there: basalt-2");
    set.start(2);
    waits(&set, "basalt-2 have data, but no quorum");
    std::thread::sleep(Duration::from_secs(2));
    for ordinal in 0..2 {
        assert!(!set.logs(ordinal).mentions("founding a cluster"), "{}", set.tails());
    }
    assert!(!set.logs(2).mentions("panicked"), "{}", set.tails());
}

fn pods_join_and_leave_over_tls_with_a_user() {
    let place = Scratch::new();
    let set = FakeSet::new();
    let authority = Authority::new(place.path(), "ca");
    let mut hosts: Vec<_> = (0..4).map(|ordinal| set.address(ordinal)).collect();
    // Members dial from there.
    hosts.push("127.0.0.1".to_owned());
    let hosts: Vec<_> = hosts.iter().map(String::as_str).collect();
    let wanted = Wanted { common_name: "pod", hosts: &hosts, ..Wanted::default() };
    let pair = authority.issue("pod", &wanted);
    let password = place.path().join("password");
    std::fs::write(&password, "a password\n").unwrap();
    let mut flags = vec![
        "--client-cert-auth".to_owned(),
        "--peer-client-cert-auth".to_owned(),
        "--bcrypt-cost=4".to_owned(),
        "--pod-user=root".to_owned(),
        format!("--pod-password-file={}", password.display()),
    ];
    for side in ["", "peer-"] {
        flags.push(format!("--{side}cert-file={}", pair.certificate));
        flags.push(format!("--{side}key-file={}", pair.key));
        flags.push(format!("--{side}trusted-ca-file={}", authority.file));
    }
    let credentials = [
        format!("--cacert={}", authority.file),
        format!("--cert={}", pair.certificate),
        format!("--key={}", pair.key),
    ];
    let user = "--user=root:a password".to_owned();
    let mut set = set.secured(flags, credentials.to_vec());
    set.scale(3);
    set.settles(3);
    for arguments in [
        &["user", "add", "root:a password"][..],
        &["user", "grant-role", "root", "root"],
        &["auth", "enable"],
    ] {
        set.told(Some(0), arguments);
    }
    set.credentials_are([&credentials[..], &[user]].concat());
    set.scale(4);
    let four = set.settles(4);
    set.restart(3);
    assert_eq!(set.settles(4), four);
    set.scale(3);
    set.settles(3);
}

/// Without the API's word, nobody leaves.
fn a_pod_that_cannot_ask_for_the_size_of_its_set_stays_a_member() {
    let mut set = three();
    let before = set.members();
    set.forget_account();
    set.set_replicas(2);
    set.restart(2);
    assert_eq!(set.settles(3), before);
}
