//! The whole replicated state over the store in memory: facts, and a model with seeds.

mod facts;
mod levels;
mod model;
mod steps;
mod tokens;

use basalt_proto::etcdserverpb::alarm_request::AlarmAction;
use basalt_proto::etcdserverpb::{
    AlarmRequest, AlarmType, CompactionRequest, DeleteRangeRequest, FeatureLevelSetRequest,
    LeaseGrantRequest, LeaseRevokeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest,
    request_op,
};
use basalt_proto::membershippb::{
    Attributes, ClusterMemberAttrSetRequest, ClusterVersionSetRequest,
};
use basalt_proto::mvccpb::KeyValue;
use bytes::Bytes;
use prost::Message as _;

use super::*;
use crate::command::Command;
use crate::store::{Memory, MemoryView};
use crate::types::{Entry, EntryKind, Error};

const CONFIG: Config = Config {
    caches: CacheBytes { records: 1 << 16, lists: 1 << 16 },
    lease_ttl_min: 2,
    learners_max: 1,
    feature_level: FeatureLevel::NEWEST,
    steps: crate::machine::StepLimits::DEFAULT,
};
const HERE: MemberId = 10;
const TERM: Term = 3;
/// The first entry after those that stand for the first members.
const FIRST: LogIndex = 2;

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

/// A machine with one member, as after its first start.
fn bootstrapped() -> Machine<Memory> {
    bootstrapped_with(&CONFIG)
}

fn bootstrapped_with(config: &Config) -> Machine<Memory> {
    let mut machine = Machine::open(Memory::default(), config).unwrap();
    let peer_urls = vec!["http://localhost:2380".to_owned()];
    machine.bootstrap(vec![Member { id: HERE, peer_urls, ..Member::default() }]).unwrap();
    machine
}

/// A machine with the committed state, without uncommitted state in memory.
fn restarted(machine: &Machine<Memory>) -> Machine<Memory> {
    Machine::open(machine.engine().crashed(), &machine.config).unwrap()
}

/// The entry of a request; its index is also the request's id.
fn entry(index: LogIndex, command: Command) -> Entry {
    Entry { index, term: TERM, kind: EntryKind::Normal, data: command.to_payload(index) }
}

fn put(put: PutRequest) -> Command {
    Command::Put(put)
}

fn delete(delete_range: DeleteRangeRequest) -> Command {
    Command::DeleteRange(delete_range)
}

fn txn(txn: TxnRequest) -> Command {
    Command::Txn(txn)
}

fn grant(id: LeaseId, ttl: i64) -> Command {
    Command::LeaseGrant(LeaseGrantRequest { id, ttl })
}

fn revoke(id: LeaseId) -> Command {
    Command::LeaseRevoke(LeaseRevokeRequest { id })
}

fn compact(revision: i64) -> Command {
    Command::Compaction(CompactionRequest { revision, physical: false })
}

fn alarm(action: AlarmAction, member_id: MemberId, alarm: AlarmType) -> Command {
    let (action, alarm) = (action as i32, alarm as i32);
    Command::Alarm(AlarmRequest { action, member_id, alarm })
}

fn attributes(member_id: MemberId, name: &str) -> Command {
    let client_urls = vec![format!("http://{name}:2379")];
    let member_attributes = Some(Attributes { name: name.to_owned(), client_urls });
    let set = ClusterMemberAttrSetRequest { member_id, member_attributes };
    Command::ClusterMemberAttrSet(set)
}

fn version(ver: &str) -> Command {
    let set = ClusterVersionSetRequest { ver: ver.to_owned() };
    Command::ClusterVersionSet(set)
}

fn feature_level(level: u32) -> Command {
    Command::FeatureLevelSet(FeatureLevelSetRequest { level })
}

/// All keys, read from the published state.
fn all_keys(read: &ReadView<MemoryView>) -> Vec<KeyValue> {
    let all = RangeRequest { key: bytes("\0"), range_end: bytes("\0"), ..RangeRequest::default() };
    let response = Error::refusal(read.range(&all)).unwrap().unwrap();
    response.kvs.iter().map(|kv| KeyValue::decode(kv).unwrap()).collect()
}
