//! The contents of the store: every space and every key of `meta`, after a history that uses all of them.

use std::ops::Bound;

use basalt::cluster::{self, Member};
use basalt::command::Command;
use basalt::machine::{Config, Machine, StepLimits};
use basalt::store::{Batch, Engine as _, Memory, MemoryView, Space, View as _};
use basalt::types::{CacheBytes, ConfChange, Entry, EntryKind, Error, FeatureLevel, LogIndex};
use basalt_proto::etcdserverpb::{
    AlarmRequest, CompactionRequest, DeleteRangeRequest, FeatureLevelSetRequest, LeaseGrantRequest,
    PutRequest, RangeRequest, RequestOp, TxnRequest, request_op::Request,
};
use basalt_proto::membershippb::{
    Attributes, ClusterMemberAttrSetRequest, ClusterVersionSetRequest,
};
use bytes::Bytes;
use prost::Message as _;

use super::{Golden, hex, unhex};

pub(super) const CONFIG: Config = Config {
    caches: CacheBytes { records: 1 << 16, lists: 1 << 16 },
    lease_ttl_min: 2,
    learners_max: 1,
    feature_level: FeatureLevel::NEWEST,
    steps: StepLimits::DEFAULT,
};
const TERM: u64 = 300;

struct History {
    machine: Machine<Memory>,
    index: LogIndex,
}

impl History {
    fn apply(&mut self, kind: EntryKind, data: Bytes) {
        self.index += 1;
        let entry = Entry { index: self.index, term: TERM, kind, data };
        let applied = self.machine.apply(&entry).expect("it can be applied");
        applied.reply.expect("nothing is refused");
        self.machine.commit().expect("it can be committed");
    }

    fn command(&mut self, command: &Command) {
        self.apply(EntryKind::Normal, command.to_payload(0));
    }

    fn change(&mut self, change: &ConfChange) {
        self.apply(EntryKind::ConfChange, change.encode_to_vec().into());
    }

    fn put(&mut self, key: &'static str, value: impl Into<Bytes>, lease: i64) {
        let (key, value) = (key.into(), value.into());
        self.command(&Command::Put(PutRequest { key, value, lease, ..Default::default() }));
    }

    fn delete(&mut self, key: &'static str) {
        let delete = DeleteRangeRequest { key: key.into(), ..Default::default() };
        self.command(&Command::DeleteRange(delete));
    }
}

pub(super) fn member(id: u64, is_learner: bool) -> Member {
    Member { id, peer_urls: vec![format!("http://{id}:2380")], is_learner, ..Member::default() }
}

/// The state after a few commands of every kind.
fn state() -> Machine<Memory> {
    let mut machine = Machine::open(Memory::default(), &CONFIG).unwrap();
    machine.bootstrap(vec![member(0x1f, false)]).unwrap();
    let mut history = History { machine, index: 1 };
    let attributes = Attributes { name: "one".into(), client_urls: vec!["http://one:2379".into()] };
    history.command(&Command::ClusterMemberAttrSet(ClusterMemberAttrSetRequest {
        member_id: 0x1f,
        member_attributes: Some(attributes),
    }));
    history.command(&Command::ClusterVersionSet(ClusterVersionSetRequest { ver: "3.7.0".into() }));
    history.command(&Command::FeatureLevelSet(FeatureLevelSetRequest { level: 2 }));
    history.change(&cluster::add(0, &member(0x20, true), 1));
    history.change(&cluster::remove(0, 0x20));
    history.change(&cluster::add(0, &member(0x21, true), 1));
    history.command(&Command::LeaseGrant(LeaseGrantRequest { ttl: 60, id: 5 }));
    history.put("compacted", "1", 0);
    history.put("a", "first", 0);
    history.delete("compacted");
    history.put("a", "second", 5);
    history.put("large", vec![b'x'; 600], 0);
    let revision = 5;
    history.command(&Command::Compaction(CompactionRequest { revision, physical: false }));
    while !history.machine.compact_step(100).unwrap() {}
    history.put("a", "third", 0);
    history.put("large", vec![b'y'; 700], 0);
    history.put("gone", "x", 0);
    history.delete("gone");
    let put = |key: &'static str| {
        let put = PutRequest { key: key.into(), value: "t".into(), ..Default::default() };
        RequestOp { request: Some(Request::RequestPut(put)) }
    };
    let txn = TxnRequest { success: vec![put("t/1"), put("t/2")], ..Default::default() };
    history.command(&Command::Txn(txn));
    history.command(&Command::Alarm(AlarmRequest { action: 1, member_id: 0x1f, alarm: 1 }));
    history.machine
}

/// Its whole content: number and name of the space, and the key, before the value.
fn contents(view: &MemoryView) -> Golden {
    let mut golden = Golden::default();
    for space in Space::ALL {
        for pair in view.scan(space, Bound::Unbounded, Bound::Unbounded) {
            let (key, value) = pair.expect("it is in memory");
            golden.add(format!("{} {} {}", space as u8, space.name(), hex(&key)), value);
        }
    }
    golden
}

pub(super) fn space(name: &str) -> Space {
    Space::ALL.into_iter().find(|space| space.name() == name).expect("a space")
}

#[test]
fn the_store_keeps_its_bytes() {
    let machine = state();
    let kept = contents(&machine.engine().view()).check("store.hex");
    let mut engine = Memory::default();
    let mut batch = Batch::default();
    for (name, value) in kept {
        let [_, name, key] = name.split(' ').collect::<Vec<_>>()[..] else { panic!("{name}") };
        batch.writes.push((space(name), unhex(key).into(), Some(value.into())));
    }
    let used = |space| batch.writes.iter().any(|(used, ..)| *used == space);
    let unused: Vec<_> = Space::ALL.into_iter().filter(|space| !used(*space)).collect();
    let of_auth = [Space::Auth, Space::AuthUsers, Space::AuthRoles, Space::Tokens];
    assert_eq!(unused, of_auth, "these have a file of their own");
    engine.commit(batch).unwrap();
    let mut read = Machine::open(engine, &CONFIG).expect("it reads");
    assert_eq!(read.position(), machine.position());
    assert_eq!(read.conf_state(), machine.conf_state());
    assert_eq!(read.alarms(), machine.alarms());
    assert!(read.leases().eq(machine.leases()));
    assert!(read.cluster().members().eq(machine.cluster().members()));
    assert!(read.cluster().is_removed(0x20));
    assert_eq!(read.cluster().version(), machine.cluster().version());
    assert_eq!(read.cluster().feature_level(), FeatureLevel::new(2));
    let read = read.commit().unwrap().read;
    let all = RangeRequest { key: "\0".into(), range_end: "\0".into(), ..Default::default() };
    let keys = |revision| {
        let range = RangeRequest { revision, ..all.clone() };
        let response = Error::refusal(read.range(&range)).unwrap().unwrap();
        let kv = |kv: Bytes| basalt_proto::mvccpb::KeyValue::decode(kv).unwrap();
        let kvs: Vec<_> = response.kvs.iter().map(kv).collect();
        let text =
            |bytes: &Bytes| String::from_utf8_lossy(&bytes[..bytes.len().min(6)]).into_owned();
        kvs.iter().map(|kv| format!("{}={}", text(&kv.key), text(&kv.value))).collect::<Vec<_>>()
    };
    assert_eq!(keys(0), ["a=third", "large=yyyyyy", "t/1=t", "t/2=t"]);
    assert_eq!(keys(6), ["a=second", "large=xxxxxx"]);
}
