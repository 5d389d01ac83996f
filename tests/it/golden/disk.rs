//! The write-ahead log, the commands in it, and small files.

use std::fs;

use basalt::cluster::{self, Member};
use basalt::command::Command;
use basalt::io::{IncomingSnapshot, current_store, note_vote_lease, vote_lease_ms};
use basalt::types::limits::WAL_BLOCK_BYTES;
use basalt::types::{ConfChange, ConfState, Entry, EntryKind, HardState};
use basalt::wal::{FrameHead, Record, encode_frame, replay_segment};
use basalt_proto::etcdserverpb::{
    AlarmRequest, CompactionRequest, DeleteRangeRequest, FeatureLevelSetRequest,
    LeaseExpireRequest, LeaseGrantRequest, LeaseRevokeRequest, PutRequest, RequestOp, TxnRequest,
    request_op::Request,
};
use basalt_proto::membershippb::{
    Attributes, ClusterMemberAttrSetRequest, ClusterVersionSetRequest,
};
use bytes::Bytes;
use prost::Message;

use super::Golden;
use crate::process::Scratch;

/// The number of the segment.
const SEGMENT: u64 = 3;

fn frames() -> [(&'static str, Vec<Record>); 3] {
    let conf_state = ConfState {
        voters: vec![1, 0x1234_5678_9abc_def0],
        learners: vec![3],
        voters_outgoing: vec![4],
        learners_next: vec![5, 6],
        auto_leave: true,
    };
    let entry = |index, kind, data: &'static [u8]| {
        Record::Entry(Entry { index, term: 300, kind, data: Bytes::from_static(data) })
    };
    [
        (
            "first frame of a segment",
            vec![
                Record::Metadata { cluster_id: 0xcdf8_1819_4e3a_8c32, member_id: 1 },
                Record::LogStart { index: 70_000, term: 299, conf_state },
                Record::HardState(HardState { term: 300, vote: u64::MAX, commit: 70_000 }),
            ],
        ),
        (
            "frame of entries",
            vec![
                entry(70_001, EntryKind::Normal, b""),
                entry(70_002, EntryKind::Normal, b"payload"),
                entry(70_003, EntryKind::ConfChange, b"change"),
                entry(70_004, EntryKind::ConfChangeV2, b"change"),
                Record::HardState(HardState { term: 300, vote: 0, commit: 70_001 }),
            ],
        ),
        ("frame of one entry", vec![entry(70_005, EntryKind::Normal, &[7; 200])]),
    ]
}

#[test]
fn the_write_ahead_log_keeps_its_bytes() {
    let (mut golden, mut segment) = (Golden::default(), Vec::new());
    let mut previous = 0xfeed_beef;
    let mut names = Vec::new();
    for (name, records) in frames() {
        let (mut bytes, offset) = (Vec::new(), segment.len() as u64);
        let head = FrameHead { segment: SEGMENT, offset, previous };
        previous = encode_frame(head, &records, &mut bytes);
        segment.extend_from_slice(&bytes);
        let length = bytes.iter().rposition(|byte| *byte != 0).expect("it holds something") + 1;
        assert_eq!(bytes.len(), length.next_multiple_of(WAL_BLOCK_BYTES), "zeros up to a block");
        golden.add(name, &bytes[..length]);
        names.push(name);
    }
    let kept = golden.check("wal.hex");
    let mut segment = Vec::new();
    for name in names {
        segment.extend_from_slice(&kept[name]);
        segment.resize(segment.len().next_multiple_of(WAL_BLOCK_BYTES), 0);
    }
    let read = replay_segment(&segment.into(), SEGMENT, Some(0xfeed_beef)).expect("it reads");
    let records: Vec<_> = frames().into_iter().flat_map(|(_, records)| records).collect();
    assert_eq!((read.records, read.torn), (records, false));
}

/// One command of each kind, with all its fields.
fn commands() -> Vec<(&'static str, Command)> {
    let put = || PutRequest {
        key: "key".into(),
        value: "value".into(),
        lease: 5,
        prev_kv: true,
        ignore_value: false,
        ignore_lease: false,
    };
    let delete = || DeleteRangeRequest { key: "a".into(), range_end: "b".into(), prev_kv: true };
    let operation = |request| RequestOp { request: Some(request) };
    let nested = TxnRequest {
        success: vec![operation(Request::RequestDeleteRange(delete()))],
        ..Default::default()
    };
    let txn = TxnRequest {
        success: vec![operation(Request::RequestPut(put()))],
        failure: vec![operation(Request::RequestTxn(nested))],
        ..Default::default()
    };
    let attributes = Attributes { name: "one".into(), client_urls: vec!["http://one:2379".into()] };
    let set = ClusterMemberAttrSetRequest { member_id: 9, member_attributes: Some(attributes) };
    vec![
        ("put", Command::Put(put())),
        ("delete range", Command::DeleteRange(delete())),
        ("txn", Command::Txn(txn)),
        ("compaction", Command::Compaction(CompactionRequest { revision: 7, physical: true })),
        ("lease grant", Command::LeaseGrant(LeaseGrantRequest { ttl: 60, id: 5 })),
        ("lease revoke", Command::LeaseRevoke(LeaseRevokeRequest { id: 5 })),
        ("lease expire", Command::LeaseExpire(LeaseExpireRequest { id: 5, granted_at: 9 })),
        ("alarm", Command::Alarm(AlarmRequest { action: 1, member_id: 3, alarm: 1 })),
        ("version", Command::ClusterVersionSet(ClusterVersionSetRequest { ver: "3.7.0".into() })),
        ("attributes", Command::ClusterMemberAttrSet(set)),
        ("feature level", Command::FeatureLevelSet(FeatureLevelSetRequest { level: 2 })),
    ]
}

/// One change of each kind.
fn changes() -> [(&'static str, ConfChange); 5] {
    let voter = Member {
        id: 0x1f,
        peer_urls: vec!["http://b:2380".into(), "http://a:2380".into()],
        ..Member::default()
    };
    let learner = Member { is_learner: true, ..voter.clone() };
    [
        ("add voter", cluster::add(7, &voter, 1)),
        ("add learner", cluster::add(7, &learner, 2)),
        ("promote", cluster::promote(7, 0x1f)),
        ("update", cluster::update(7, 0x1f, vec!["http://c:2380".into()])),
        ("remove", cluster::remove(7, 0x1f)),
    ]
}

#[test]
fn entries_keep_their_bytes() {
    const ID: u64 = 0x0102_0304_0506_0708;
    let mut golden = Golden::default();
    commands().iter().for_each(|(name, command)| golden.add(*name, command.to_payload(ID)));
    changes().iter().for_each(|(name, change)| golden.add(*name, change.encode_to_vec()));
    let kept = golden.check("entries.hex");
    for (name, command) in commands() {
        let (header, read) = Command::decode(kept[name].clone().into()).expect("it reads");
        assert_eq!((header.id, read), (ID, command), "{name}");
    }
    for (name, change) in changes() {
        let read = ConfChange::decode(&kept[name][..]).expect("it reads");
        assert_eq!(cluster::check_change(&read), Ok(()), "{name}");
        assert_eq!(read, change, "{name}");
    }
}

#[test]
fn small_files_keep_their_bytes() {
    let scratch = Scratch::new();
    note_vote_lease(scratch.path(), 900).expect("it is written");
    let mut golden = Golden::default();
    golden.add("promise", fs::read(scratch.path().join("promise")).expect("it is there"));
    let incoming = IncomingSnapshot::begin(scratch.path(), 70_000).expect("it begins");
    let store = incoming.store();
    fs::create_dir(&store).expect("made");
    incoming.install(70_000, 300).expect("installed");
    let current = fs::read_to_string(scratch.path().join("current")).expect("it is there");
    // The number of the store is random.
    let name = store.file_name().expect("it has a name").to_str().expect("it is text");
    golden.add("current", current.replace(name, "store-50000"));
    let kept = golden.check("files.hex");
    fs::write(scratch.path().join("promise"), &kept["promise"]).expect("written");
    assert_eq!(vote_lease_ms(scratch.path()), Ok(900));
    fs::create_dir(scratch.path().join("store-50000")).expect("made");
    fs::write(scratch.path().join("current"), &kept["current"]).expect("written");
    let store = scratch.path().join("store-50000");
    assert_eq!(current_store(scratch.path()), Ok((store, Some((70_000, 300)))));
}
