//! Data directories of earlier versions, and such as no member makes: each opens with all its content, or is
//! refused with one sentence.

use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::Command;

use basalt::io::{begin_log, read_log};
use basalt::types::HardState;
use basalt::wal::Record;
use basalt_proto::etcdserverpb::{
    AlarmMember, AlarmRequest, AlarmResponse, AlarmType, LeaseLeasesRequest, LeaseLeasesResponse,
    LeaseTimeToLiveRequest, LeaseTimeToLiveResponse, Member, MemberListRequest, MemberListResponse,
};
use rustix::process::Signal;

use crate::compare::runtime;
use crate::process::{self, PATIENCE, Server, Setup, run};
use crate::wire::{self, Wire};

/// Made by `tests/golden/make-data-dir.sh` with the version whose members supported feature level 1: a member that was
/// killed. Its store holds the writes before an earlier stop, its log those after it too.
const LEVEL_1: &str = "tests/golden/data-dir-level-1.tar.gz";
const MEMBER: u64 = 0xddd6_7b31_2462_fd7b;
/// The answer of that version to `HashKV` before it was killed.
const HASH: (u32, i64, i64) = (4_169_483_515, 44, 61);

/// A server whose data directory is a copy of the archived one.
fn unpacked(archive: &str) -> Server {
    let server = Server::new(Setup::new(process::basalt()));
    let mut tar = Command::new("tar");
    let archive = Path::new(env!("CARGO_MANIFEST_DIR")).join(archive);
    tar.arg("xzf").arg(archive).arg("-C").arg(server.data_dir().parent().unwrap());
    let told = run(tar, PATIENCE);
    assert_eq!(told.code, Some(0), "{}", told.stderr);
    server
}

/// Keys and values as the script wrote them.
fn expected_keys() -> Vec<(String, String)> {
    let value = |at: u32| match at {
        1..=10 => format!("second {at}"),
        _ => format!("first {at}"),
    };
    let kept = (1..=40).filter(|at| ![2, 9].contains(at));
    let mut keys: Vec<_> = kept.map(|at| (format!("key/{at:02}"), value(at))).collect();
    keys.push(("large".into(), "c".repeat(2000)));
    keys.push(("last".into(), "of all".into()));
    keys.push(("leased/a".into(), "by 4242".into()));
    keys.push(("leased/b".into(), "by 4242".into()));
    keys.push(("leased/c".into(), "by 4244".into()));
    keys.push(("txn/then".into(), "yes".into()));
    keys
}

async fn keys_at(wire: &Wire, revision: i64) -> Vec<(String, String)> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let all = wire.everything(revision).await.unwrap();
    all.kvs.iter().map(|kv| (text(&kv.key), text(&kv.value))).collect()
}

#[test]
fn a_directory_of_the_first_feature_level_opens_with_all_that_was_in_it() {
    let mut server = unpacked(LEVEL_1);
    server.start();
    runtime().block_on(async {
        let wire = Wire::new(&server.endpoint());
        // The alarm first: everything else has to be there under it.
        let list = AlarmRequest::default();
        let alarms: AlarmResponse = wire.ask(wire::ALARM, &list).await.unwrap();
        let no_space = AlarmMember { member_id: MEMBER, alarm: AlarmType::Nospace as i32 };
        assert_eq!(alarms.alarms, [no_space]);
        let refused = wire.put("more", "").await.unwrap_err();
        assert_eq!(refused.message(), "etcdserver: mvcc: database space exceeded");

        let mut expected = expected_keys();
        assert_eq!(keys_at(&wire, 0).await, expected);
        // Before the last put, and right after the compaction.
        expected.retain(|(key, _)| key != "last");
        assert_eq!(keys_at(&wire, 60).await, expected);
        let at_compaction = keys_at(&wire, 45).await;
        assert_eq!(
            at_compaction.iter().find(|(key, _)| key == "large").unwrap().1,
            "b".repeat(2000)
        );
        assert_eq!(at_compaction.iter().find(|(key, _)| key == "key/01").unwrap().1, "first 1");
        let compacted = wire.everything(43).await.unwrap_err();
        assert_eq!(compacted.message(), "etcdserver: mvcc: required revision has been compacted");
        let hash = wire.hash_kv(0).await.unwrap();
        assert_eq!((hash.hash, hash.compact_revision, hash.hash_revision), HASH);

        let leases: LeaseLeasesResponse =
            wire.ask(wire::LEASE_LEASES, &LeaseLeasesRequest {}).await.unwrap();
        let mut ids: Vec<_> = leases.leases.iter().map(|lease| lease.id).collect();
        ids.sort_unstable();
        assert_eq!(ids, [4242, 4244], "4243 was revoked");
        for (id, ttl, keys) in
            [(4242, 86_400_000, &["leased/a", "leased/b"][..]), (4244, 86_400_002, &["leased/c"])]
        {
            let ask = LeaseTimeToLiveRequest { id, keys: true };
            let told: LeaseTimeToLiveResponse =
                wire.ask(wire::LEASE_TIME_TO_LIVE, &ask).await.unwrap();
            assert_eq!(told.granted_ttl, ttl);
            assert_eq!(told.keys, keys);
        }

        let list = MemberListRequest { linearizable: true };
        let members: MemberListResponse = wire.ask(wire::MEMBER_LIST, &list).await.unwrap();
        let header = members.header.unwrap();
        assert_eq!((header.member_id, header.cluster_id), (MEMBER, 12_101_053_776_118_486_841));
        let told =
            |member: &Member| (member.name.clone(), member.peer_ur_ls.clone(), member.is_learner);
        let mut told: Vec<_> = members.members.iter().map(told).collect();
        told.sort();
        let url = |port: u16| vec![format!("http://127.0.0.1:{port}")];
        let expected = [(String::new(), url(12382), true), ("pillar".into(), url(12380), false)];
        assert_eq!(told, expected, "the learner on 12381 was removed");
    });
}

/// A copy of the store that was put back beside a newer log, as a half-restored backup has it.
#[test]
fn a_store_older_than_its_log_is_refused_in_a_sentence() {
    let mut server = Setup::new(process::basalt()).start();
    runtime().block_on(async {
        let wire = Wire::new(&server.endpoint());
        wire.put("a", "1").await.unwrap();
    });
    server.signal(Signal::TERM);
    assert_eq!(server.wait_exit(PATIENCE).expect("it ends").signal(), Some(Signal::TERM.as_raw()));
    server.kill();
    let wal = server.data_dir().join("member/wal");
    let log = read_log(&wal).unwrap();
    let (cluster_id, member_id) = log.owner.unwrap();
    let last = log.entries.last().unwrap().clone();
    let index = last.index + 5;
    let entry = basalt::types::Entry { index: index + 1, ..last };
    let term = entry.term;
    fs::remove_dir_all(&wal).unwrap();
    fs::create_dir(&wal).unwrap();
    let records = [
        Record::Metadata { cluster_id, member_id },
        Record::LogStart { index, term, conf_state: log.conf_state },
        Record::Entry(entry),
        Record::HardState(HardState { commit: index + 1, ..log.hard_state }),
    ];
    begin_log(&wal, &records).unwrap();
    server.launch();
    let status = server.wait_exit(PATIENCE).expect("it cannot go on");
    let logs = server.logs.all();
    assert_eq!(status.code(), Some(1), "{logs}");
    let why = format!(
        "the store holds everything up to entry {}, and the write-ahead log begins after entry {index}: put back the \
         store that belongs to the log",
        index - 5
    );
    assert!(logs.contains(&why), "{logs}");
    assert!(!logs.contains("panicked"), "{logs}");
    server.kill();
    let mut verify = Command::new(process::basaltutl());
    verify.args(["verify", "--data-dir"]).arg(server.data_dir());
    let told = run(verify, PATIENCE);
    assert!(told.stderr.contains(&why), "{}{}", told.stdout, told.stderr);
}
