//! Feature levels, and unreadable state and entries.

use super::facts::{Member1, put_of};
use super::*;
use crate::cluster::level_to_set;
use crate::store::{Batch, Space};

fn older() -> Config {
    Config { feature_level: FeatureLevel::INITIAL, ..CONFIG }
}

#[test]
fn the_feature_level_rises_and_survives_a_restart() {
    let mut member = Member1::new();
    assert_eq!(member.machine.cluster().feature_level(), FeatureLevel::INITIAL);
    assert_eq!(member.ask(feature_level(2)), Ok(Reply::Done));
    assert_eq!(member.ask(feature_level(1)), Ok(Reply::Done));
    assert_eq!(member.machine.cluster().feature_level(), FeatureLevel::new(2), "it never falls");
    assert_eq!(restarted(&member.machine).cluster().feature_level(), FeatureLevel::new(2));
}

#[test]
fn a_member_below_the_feature_level_does_not_start() {
    let mut member = Member1::new();
    let engine = member.machine.engine().clone();
    assert!(Machine::open(engine, &older()).is_ok(), "nothing is agreed on");
    member.ask(feature_level(2)).unwrap();
    let refused = Machine::open(member.machine.engine().clone(), &older()).map(drop).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "the cluster has agreed on feature level 2, and this version supports 1: \
         start the member with a version that supports level 2"
    );
    let mut engine = member.machine.engine().clone();
    let mut batch = Batch::default();
    batch.writes.push((Space::Cluster, bytes("featureLevel"), Some(bytes("x"))));
    engine.commit(batch).unwrap();
    let told = Machine::open(engine, &CONFIG).map(drop).unwrap_err().to_string();
    assert_eq!(told, "the feature level in the store does not read back");
}

#[test]
fn a_member_stops_at_a_command_above_its_level_and_does_not_skip_it() {
    let mut machine = Machine::open(bootstrapped().engine().clone(), &older()).unwrap();
    let told = machine.apply(&entry(FIRST, feature_level(2))).unwrap_err().to_string();
    assert_eq!(
        told,
        "entry 2 of the log cannot be applied: it needs feature level 2, and this version \
         supports 1 (basaltutl verify --data-dir DIR tells what to do)"
    );
    let payload = feature_level(2).to_payload(0);
    assert!(check_payload(EntryKind::Normal, &payload, FeatureLevel::INITIAL).is_err());
    let mut machine = bootstrapped();
    let unsupported = feature_level(FeatureLevel::NEWEST.number() + 1);
    assert!(machine.apply(&entry(FIRST, unsupported)).is_err(), "from a newer version");
}

/// Members whose flags differ, at a level and from the next one on.
#[test]
fn from_level_2_on_flags_of_one_member_decide_nothing_for_all() {
    let other = Config { lease_ttl_min: 5, learners_max: 3, ..CONFIG };
    let learner = |id: MemberId, proposed| {
        let peer_urls = vec![format!("http://{id}:2380")];
        let member = Member { id, peer_urls, is_learner: true, ..Member::default() };
        crate::cluster::add(0, &member, proposed).encode_to_vec().into()
    };
    let outcome = |config: &Config, level| {
        let mut machine = Machine::open(bootstrapped().engine().clone(), config).unwrap();
        machine.apply(&entry(FIRST, feature_level(level))).unwrap();
        machine.apply(&entry(FIRST + 1, grant(1, 3))).unwrap();
        for (at, id) in (FIRST + 2..).zip(20..24) {
            let kind = EntryKind::ConfChange;
            machine.apply(&Entry { index: at, term: TERM, kind, data: learner(id, 2) }).unwrap();
        }
        machine.commit().unwrap();
        let ttl = machine.leases().map(|grant| grant.ttl).next().unwrap();
        (ttl, machine.conf_state().learners.len())
    };
    assert_eq!(outcome(&CONFIG, 1), (3, 1), "before, each member took its own");
    assert_eq!(outcome(&other, 1), (5, 3));
    assert_eq!(outcome(&CONFIG, 2), (3, 2), "now all take the proposer's");
    assert_eq!(outcome(&other, 2), (3, 2));
}

#[test]
fn a_change_of_the_members_that_does_not_read_stops_the_member() {
    let member = Member { id: 20, peer_urls: vec!["http://20:2380".into()], ..Member::default() };
    let good = crate::cluster::add(7, &member, 1);
    let about_another = ConfChange { member: 21, ..good.clone() };
    let without = ConfChange { context: Bytes::new(), ..good.clone() };
    let nonsense = ConfChange { context: bytes("{\"ID\":"), ..good.clone() };
    let unknown = ConfChange { kind: 9, ..good.clone() };
    for (change, why) in [
        (about_another, "it is about member 15, and its context about 14"),
        (without, "the member in it does not read: EOF"),
        (nonsense, "the member in it does not read: EOF"),
        (unknown, "it changes the members in a way that this version does not know"),
    ] {
        let data: Bytes = change.encode_to_vec().into();
        let kind = EntryKind::ConfChange;
        let told = check_payload(kind, &data, FeatureLevel::NEWEST).unwrap_err().to_string();
        assert!(told.starts_with(why), "{told}");
        let mut machine = bootstrapped();
        let told = machine.apply(&Entry { index: FIRST, term: TERM, kind, data }).unwrap_err();
        let begin = format!("entry 2 of the log cannot be applied: {why}");
        assert!(told.to_string().starts_with(&begin), "{told}");
    }
}

#[test]
fn replicated_state_that_does_not_read_is_a_fault() {
    let opened = |space, key: &str, value: &str| {
        let mut engine = bootstrapped().engine().clone();
        let mut batch = Batch::default();
        batch.writes.push((space, bytes(key), Some(bytes(value))));
        engine.commit(batch).unwrap();
        Machine::open(engine, &CONFIG).map(drop)
    };
    let text = r#"{"voters":[10],"auto_leave":false}"#;
    assert_eq!(opened(Space::Meta, "confState", text), Ok(()), "as etcd leaves empty lists out");
    assert_eq!(opened(Space::MembersRemoved, "00000000000000ff", "removed"), Ok(()));
    for (space, key, value) in [
        (Space::MembersRemoved, "no id", "removed"),
        (Space::MembersRemoved, "", "removed"),
        (Space::Meta, "confState", "{}"),
        (Space::Meta, "confState", r#"{"voters":null}"#),
        (Space::Meta, "confState", r#"{"voters":["10"]}"#),
        (Space::Meta, "confState", r#"{"voters":[10],"learners":[-1]}"#),
        (Space::Meta, "consistent_index", "123"),
        (Space::Meta, "term", ""),
        (Space::Members, "000000000000000b", "{}"),
    ] {
        assert!(opened(space, key, value).is_err(), "{space:?} {key:?} {value:?}");
    }
}

#[test]
fn members_that_are_upgraded_one_by_one_raise_the_level_with_the_last_one() {
    let mut machines: Vec<_> =
        (0..3).map(|_| Machine::open(bootstrapped().engine().clone(), &older()).unwrap()).collect();
    let mut supported = [FeatureLevel::INITIAL; 3];
    let mut index = FIRST;
    let mut log = |machines: &mut [Machine<Memory>], command: Command| {
        for machine in machines {
            machine.apply(&entry(index, command.clone())).unwrap().reply.unwrap();
            machine.commit().unwrap();
        }
        index += 1;
    };
    for upgraded in 0..3 {
        let agreed = machines[0].cluster().feature_level();
        assert_eq!(level_to_set(agreed, supported.map(Some)), None, "{upgraded} are upgraded");
        log(&mut machines, put_of("a", 0));
        let engine = machines[upgraded].engine().crashed();
        machines[upgraded] = Machine::open(engine, &CONFIG).unwrap();
        supported[upgraded] = FeatureLevel::NEWEST;
    }
    let level = level_to_set(FeatureLevel::INITIAL, supported.map(Some)).unwrap();
    assert_eq!(level, FeatureLevel::NEWEST);
    log(&mut machines, feature_level(level.number()));
    log(&mut machines, put_of("b", 0));
    for machine in &machines {
        assert_eq!(machine.cluster().feature_level(), level);
        assert_eq!(machine.position(), machines[0].position());
    }
}
