//! Every accepted request can be read again: seeded requests, many of them with changed bytes, are processed like real ones.
//! Each step is the server's own code.
//!
//! ```text
//!  bytes ─► door ─► proposal ─► frame to the leader ─► log ─► apply (store on disk) ─► answer, events ─► watch, JSON
//!                                                       └─► replay after a snapshot (export, install) ─► the same state
//! ```
//!
//! `READABLE_REQUESTS` and `READABLE_SEED` choose number and seed of the requests; `README.md` names the long run.

mod generate;

use std::sync::Arc;

use basalt::command::Command;
use basalt::consensus::wire::{self as raft_wire, Encoder};
use basalt::consensus::{Message, MessageType};
use basalt::io::LsmEngine;
use basalt::json::{Schema, Spelling, Values};
use basalt::machine::{Applied, Config, Effect, Machine, Reply, check_payload};
use basalt::mvcc::{Event, ReadView};
use basalt::peer;
use basalt::rpc::door;
use basalt::snapshot::bolt::{Reader, Source};
use basalt::snapshot::{Export, ExportStep, Scope, install};
use basalt::store::{Engine, Memory, View};
use basalt::types::limits::WAL_BLOCK_BYTES;
use basalt::types::{CacheBytes, Entry, EntryKind, Fault, FeatureLevel, LogIndex};
use basalt::wal::{FrameHead, Record, encode_frame, replay_segment};
use basalt_proto::encoded::{WatchResponse, push_event};
use basalt_proto::etcdserverpb::{TxnRequest, TxnResponse};
use basalt_proto::{DESCRIPTORS, etcdserverpb, mvccpb};
use bytes::Bytes;
use prost::Message as _;

use self::generate::{Generator, Raw};
use crate::compare::from_environment;
use crate::process::Scratch;

/// Requests between two snapshots.
const EPOCH: u64 = 1000;
/// Maximum number of requests that are proposed together.
const BATCH_MAX: u64 = 12;
const TERM: u64 = 3;
const MEMBER: u64 = 10;
const MAX_REQUEST_BYTES: usize = 1 << 20;
const CONFIG: Config = Config {
    caches: CacheBytes { records: 1 << 20, lists: 1 << 20 },
    lease_ttl_min: 2,
    learners_max: 1,
    feature_level: FeatureLevel::NEWEST,
    steps: basalt::machine::StepLimits::DEFAULT,
};

struct File(Vec<u8>);

impl Source for File {
    fn length(&self) -> u64 {
        self.0.len() as u64
    }

    fn read(&self, at: u64, into: &mut [u8]) -> Result<(), Fault> {
        let at = usize::try_from(at).expect("it is in memory");
        let bytes = self.0.get(at..at + into.len());
        into.copy_from_slice(bytes.ok_or_else(|| Fault::new("beyond the end"))?);
        Ok(())
    }
}

/// A member that consists of its state, its log and its responses.
struct Member {
    machine: Machine<LsmEngine>,
    /// A state machine that continues from a snapshot of the other and its log.
    follower: Machine<Memory>,
    last: LogIndex,
    segment: Vec<u8>,
    head: FrameHead,
    schema: Schema,
    accepted: u64,
    refused: u64,
    denied: u64,
}

#[test]
fn accepted_requests_are_readable_everywhere() {
    let requests = from_environment("READABLE_REQUESTS", 3_000);
    let seed = from_environment("READABLE_SEED", 1);
    let scratch = Scratch::new();
    let mut member = Member::new(&scratch);
    let mut generator = Generator::new(seed);
    let mut number = 0;
    while number < requests {
        let count = generator.number(1, BATCH_MAX).min(requests - number);
        number += count;
        let proposals: Vec<_> = (0..count).filter_map(|_| member.propose(&mut generator)).collect();
        member.commit(proposals, &mut generator);
        if number % EPOCH < count {
            member.compact();
            member.replay();
        }
    }
    member.replay();
    let Member { accepted, refused, denied, .. } = member;
    println!(
        "{requests} requests: {accepted} applied, {refused} of them refused, {denied} turned away"
    );
    assert!(accepted > requests / 4 && refused < accepted / 2 && denied > requests / 20);
}

impl Member {
    fn new(scratch: &Scratch) -> Self {
        let store = LsmEngine::open(&scratch.path().join("store")).unwrap();
        let mut machine = Machine::open(store, &CONFIG).unwrap();
        let peer_urls = vec!["http://localhost:2380".to_owned()];
        let own = basalt::cluster::Member { id: MEMBER, peer_urls, ..Default::default() };
        machine.bootstrap(vec![own]).unwrap();
        let follower = installed(&machine);
        Self {
            last: machine.applied(),
            machine,
            follower,
            segment: Vec::new(),
            head: FrameHead { segment: 1, offset: 0, previous: 0 },
            schema: Schema::new(&prost::Message::decode(DESCRIPTORS).expect("our own")),
            accepted: 0,
            refused: 0,
            denied: 0,
        }
    }

    /// Checks and encodes a request as the server does; `None` if it is refused.
    fn propose(&mut self, generator: &mut Generator) -> Option<Bytes> {
        let raw = generator.request();
        let Some(command) = admitted(&raw, generator.operations_max()) else {
            self.denied += 1;
            return None;
        };
        if let Command::Txn(txn) = &command
            && generator.chance(5)
        {
            self.read_as_json(txn);
        }
        let data = command.to_payload(self.accepted + 1);
        if data.len() > MAX_REQUEST_BYTES {
            self.denied += 1;
            return None;
        }
        self.accepted += 1;
        Some(data)
    }

    /// The gateway prints transactions and parses them.
    fn read_as_json(&self, txn: &TxnRequest) {
        let id = self.schema.find("etcdserverpb.TxnRequest").expect("there is");
        let mut text = String::new();
        self.schema.print(id, &txn.encode_to_vec(), Spelling::Html, &mut text).expect("printed");
        let mut values = Values::default();
        values.push(text.as_bytes());
        let value = values.last().expect("JSON").expect("a value");
        let back = self.schema.encode(id, &value).expect("read");
        let back = door::read::<TxnRequest>(back.into()).expect("a transaction");
        assert_eq!(back.encode_to_vec(), txn.encode_to_vec());
    }

    /// From the proposals to the responses and events.
    fn commit(&mut self, proposals: Vec<Bytes>, generator: &mut Generator) {
        let mut forwarded = message(MessageType::MsgPropose, &entries(0, 0, proposals));
        forwarded = sent(&forwarded);
        let dropped = raft_wire::retain_proposals(&mut forwarded, |kind, data| {
            check_payload(kind, data, FeatureLevel::NEWEST).is_ok()
        });
        assert_eq!(dropped, 0, "the door let something in that the leader does not");
        let mut payloads = raft_wire::proposals_of(forwarded).normal;
        // A proposal of another member may be anything; if the leader accepts it, it must be applicable.
        let wild = generator.wild(&payloads);
        let readable =
            |data: &Bytes| check_payload(EntryKind::Normal, data, FeatureLevel::NEWEST).is_ok();
        payloads.extend(wild.filter(readable));
        // Commands that an alarm forbids are skipped.
        let alarms = self.machine.alarms();
        payloads.extend(alarms.first().map(|alarm| generate::put_out(alarm).to_payload(0)));
        if payloads.is_empty() {
            return;
        }
        let appended = entries(self.last + 1, TERM, payloads);
        let appended = read_entries(&sent(&message(MessageType::MsgAppend, &appended)));
        self.last += appended.len() as LogIndex;
        let records: Vec<_> = appended.iter().cloned().map(Record::Entry).collect();
        let crc = encode_frame(self.head, &records, &mut self.segment);
        self.head = FrameHead { offset: self.segment.len() as u64, previous: crc, ..self.head };
        for entry in &appended {
            let applied =
                self.machine.apply(entry).unwrap_or_else(|fault| panic!("{fault}: {entry:?}"));
            self.refused += u64::from(applied.reply.is_err());
            self.told(&applied, generator);
        }
        let published = self.machine.commit().unwrap();
        watched(&published.events);
        generator.revision = published.read.revision;
    }

    /// The response, as a client decodes it.
    fn told(&self, applied: &Applied, generator: &mut Generator) {
        for effect in &applied.effects {
            if let Effect::LeaseGranted(grant) = effect {
                generator.leases.push(grant.id);
            }
        }
        let Ok(Reply::Txn(answer)) = &applied.reply else { return };
        let bytes = answer.encode_to_vec();
        let typed = TxnResponse::decode(&bytes[..]).expect("the answer is read");
        assert_eq!(typed.encode_to_vec(), bytes);
        if generator.chance(5) {
            let id = self.schema.find("etcdserverpb.TxnResponse").expect("there is");
            let mut text = String::new();
            self.schema.print(id, &bytes, Spelling::Html, &mut text).expect("printed");
        }
    }

    fn compact(&mut self) {
        while !self.machine.compact_step(1000).unwrap() {
            self.machine.commit().unwrap();
        }
        self.machine.commit().unwrap();
    }

    /// The follower applies the log since the last snapshot and must have the same state; then it gets a new snapshot.
    fn replay(&mut self) {
        self.segment.resize(self.segment.len() + WAL_BLOCK_BYTES, 0);
        let bytes = Bytes::from(std::mem::take(&mut self.segment));
        let segment = replay_segment(&bytes, self.head.segment, None).unwrap();
        for record in segment.records {
            let Record::Entry(entry) = record else { continue };
            self.follower.apply(&entry).unwrap();
        }
        while !self.follower.compact_step(1000).unwrap() {}
        let (own, follower) = (self.machine.commit().unwrap(), self.follower.commit().unwrap());
        assert_eq!(self.machine.applied(), self.follower.applied());
        assert_eq!(own.read.revision, follower.read.revision);
        assert_eq!(self.machine.alarms(), self.follower.alarms());
        assert_eq!(hash(&own.read), hash(&follower.read));
        self.follower = installed(&self.machine);
        let follower = self.follower.commit().unwrap();
        assert_eq!(hash(&own.read), hash(&follower.read));
        self.head = FrameHead { segment: self.head.segment + 1, offset: 0, previous: 0 };
    }
}

/// The command of a request that passes the checks.
fn admitted(raw: &Raw, operations_max: usize) -> Option<Command> {
    let command = match raw {
        Raw::Put(bytes) => door::put(door::read(bytes.clone()).ok()?).ok()?,
        Raw::DeleteRange(bytes) => door::delete_range(door::read(bytes.clone()).ok()?).ok()?,
        Raw::Compact(bytes) => door::compaction(door::read(bytes.clone()).ok()?),
        Raw::LeaseGrant(bytes) => {
            door::lease_grant(door::read(bytes.clone()).ok()?, CONFIG.lease_ttl_min).ok()?
        }
        Raw::LeaseRevoke(bytes) => Command::LeaseRevoke(door::read(bytes.clone()).ok()?),
        Raw::Txn(bytes) => match door::txn(door::read(bytes.clone()).ok()?, operations_max).ok()? {
            door::Txn::Write(txn) => Command::Txn(txn),
            door::Txn::Read(_) => return None,
        },
    };
    Some(command)
}

fn entries(first: LogIndex, term: u64, payloads: Vec<Bytes>) -> Vec<Entry> {
    let entry = |(index, data)| {
        let index = if term == 0 { 0 } else { index };
        Entry { index, term, kind: EntryKind::Normal, data }
    };
    (first..).zip(payloads).map(entry).collect()
}

fn message(kind: MessageType, entries: &[Entry]) -> Message {
    // raft sends proposals without a term.
    let term = if kind == MessageType::MsgPropose { 0 } else { TERM };
    let mut message = Message { from: MEMBER, to: 7, term, ..Message::default() };
    message.set_msg_type(kind);
    for entry in entries {
        let raft = message.entries.push_default();
        (raft.index, raft.term, raft.data) = (entry.index, entry.term, entry.data.clone());
    }
    message
}

fn read_entries(message: &Message) -> Vec<Entry> {
    let entries = message.entries.iter();
    let entries = entries.map(|raft| (raft.index, raft.term, raft.data.clone()));
    let kind = EntryKind::Normal;
    entries.map(|(index, term, data)| Entry { index, term, kind, data }).collect()
}

/// The message after it was sent to another member.
fn sent(message: &Message) -> Message {
    let (head, rest) = Encoder::default().encode(message);
    let begin = peer::encode(peer::Kind::Raft, &head, &rest);
    let mut decoder = peer::Decoder::default();
    decoder.take(&begin);
    decoder.take(&rest);
    let frame = decoder.next_frame().expect("a frame").expect("whole");
    raft_wire::decode(frame.payload).expect("a message")
}

/// Events as watchers decode them.
fn watched(events: &Arc<[Event]>) {
    let mut body = Vec::new();
    for event in events.iter() {
        mvccpb::Event::decode(event.encoded.clone()).expect("an event");
        push_event(&mut body, &event.encoded, event.prev.as_deref());
    }
    let response = WatchResponse { events: body.into(), ..WatchResponse::default() };
    let typed = etcdserverpb::WatchResponse::decode(&response.encode_to_vec()[..]);
    assert_eq!(typed.expect("a response").events.len(), events.len());
}

/// A new member, made from a snapshot.
fn installed<E: Engine>(machine: &Machine<E>) -> Machine<Memory> {
    let mut export = Export::new(machine.engine().view(), Scope::Member);
    let mut file = Vec::new();
    loop {
        match export.step(1 << 20).unwrap() {
            ExportStep::Working => (),
            ExportStep::Chunk(bytes) => file.extend_from_slice(&bytes),
            ExportStep::Done => break,
        }
    }
    let mut store = Memory::default();
    install(&Reader::open(File(file)).unwrap(), &mut store).unwrap();
    Machine::open(store, &CONFIG).unwrap()
}

fn hash<V: View>(read: &ReadView<V>) -> u32 {
    let mut cursor = read.hash_kv(0).unwrap();
    loop {
        if let Some(found) = cursor.step(&read.view, usize::MAX).unwrap() {
            return found.hash;
        }
    }
}
