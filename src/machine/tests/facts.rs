//! Facts of the machine, one each.

use std::ops::Bound::Unbounded;

use super::*;
use crate::cluster::Version;
use crate::store::{Batch, Engine as _, Space, View as _};
use crate::types::limits::KEY_BYTES_MAX;

/// A machine that takes one request at a time.
pub(super) struct Member1 {
    pub(super) machine: Machine<Memory>,
    read: ReadView<MemoryView>,
    events: Vec<Event>,
}

impl Member1 {
    pub(super) fn new() -> Self {
        Self::of(bootstrapped())
    }

    fn of(mut machine: Machine<Memory>) -> Self {
        let read = machine.commit().unwrap().read;
        Self { machine, read, events: Vec::new() }
    }

    fn applied(&mut self, request: Command) -> Applied {
        let entry = entry(self.machine.applied() + 1, request);
        let applied = self.machine.apply(&entry).unwrap();
        let published = self.machine.commit().unwrap();
        self.read = published.read;
        self.events = published.events.to_vec();
        applied
    }

    pub(super) fn ask(&mut self, request: Command) -> Result<Reply, Refusal> {
        self.applied(request).reply
    }

    fn put(&mut self, key: &str, lease: LeaseId) {
        self.ask(put_of(key, lease)).unwrap();
    }

    fn lease_keys(&self, id: LeaseId) -> Vec<Bytes> {
        self.machine.lease_keys(id)
    }

    fn keys(&self) -> Vec<Bytes> {
        all_keys(&self.read).into_iter().map(|kv| kv.key).collect()
    }

    /// (main, sub, key, deleted) of the last request's events.
    fn happened(&self) -> Vec<(i64, i64, &[u8], bool)> {
        let of = |event: &Event| (event.revision.main, event.revision.sub);
        let all = self.events.iter();
        all.map(|event| (of(event).0, of(event).1, &event.key[..], event.delete)).collect()
    }
}

pub(super) fn put_of(key: &str, lease: LeaseId) -> Command {
    put(PutRequest { key: bytes(key), value: bytes("v"), lease, ..PutRequest::default() })
}

fn delete_of(key: &str, range_end: &str) -> Command {
    let (key, range_end) = (bytes(key), bytes(range_end));
    delete(DeleteRangeRequest { key, range_end, ..DeleteRangeRequest::default() })
}

fn txn_of(operations: Vec<request_op::Request>) -> Command {
    let success = operations.into_iter().map(|request| RequestOp { request: Some(request) });
    txn(TxnRequest { success: success.collect(), ..TxnRequest::default() })
}

fn put_in_txn(key: &str) -> request_op::Request {
    let (key, value) = (bytes(key), bytes("v"));
    request_op::Request::RequestPut(PutRequest { key, value, ..PutRequest::default() })
}

fn delete_in_txn(key: &str) -> request_op::Request {
    let request = DeleteRangeRequest { key: bytes(key), ..DeleteRangeRequest::default() };
    request_op::Request::RequestDeleteRange(request)
}

#[test]
fn effects_and_events_come_in_the_order_of_the_log() {
    let mut machine = bootstrapped();
    let requests =
        [grant(5, 60), put_of("b", 5), put_of("a", 5), compact(2), revoke(5), grant(5, 1)];
    let mut effects = Vec::new();
    for (index, request) in (FIRST..).zip(requests) {
        let applied = machine.apply(&entry(index, request)).unwrap();
        assert_eq!(applied.request, index, "whom to answer");
        assert!(applied.reply.is_ok());
        effects.extend(applied.effects);
    }
    let expected = [
        Effect::LeaseGranted(Grant { id: 5, at: FIRST, ttl: 60 }),
        Effect::Compacted,
        Effect::LeaseRevoked(5),
        Effect::LeaseGranted(Grant { id: 5, at: FIRST + 5, ttl: 2 }),
    ];
    assert_eq!(effects, expected);
    let mut member = Member1::new();
    let published = machine.commit().unwrap();
    (member.read, member.events) = (published.read, published.events.to_vec());
    let expected =
        [(2, 0, &b"b"[..], false), (3, 0, b"a", false), (4, 0, b"a", true), (4, 1, b"b", true)];
    assert_eq!(member.happened(), expected, "the keys of a lease go in order, in one revision");
}

#[test]
fn a_refused_request_has_no_effect() {
    let mut member = Member1::new();
    member.ask(grant(5, 60)).unwrap();
    for (request, refusal) in [
        (grant(5, 60), Refusal::LeaseExist),
        (grant(0, 60), Refusal::LeaseNotFound),
        (grant(6, 9_000_000_001), Refusal::LeaseTTLTooLarge),
        (revoke(6), Refusal::LeaseNotFound),
        (compact(2), Refusal::FutureRev),
        (compact(-1), Refusal::Compacted),
        (put_of("a", 6), Refusal::LeaseNotFound),
    ] {
        let applied = member.applied(request);
        assert_eq!((applied.reply, applied.effects), (Err(refusal), vec![]));
        assert_eq!((member.read.revision, &member.events[..]), (1, &[][..]));
    }
    assert_eq!(member.machine.position(), (FIRST + 7, TERM), "it counts as applied all the same");
}

#[test]
fn nothing_is_seen_before_it_is_committed_and_all_of_it_then() {
    let mut machine = bootstrapped();
    for (index, key) in [(FIRST, "a"), (FIRST + 1, "b")] {
        machine.apply(&entry(index, put_of(key, 0))).unwrap();
        assert_eq!(restarted(&machine).applied(), FIRST - 1);
    }
    let published = machine.commit().unwrap();
    assert_eq!((published.read.revision, published.events.len()), (3, 2));
    assert_eq!(restarted(&machine).position(), (FIRST + 1, TERM));
    assert!(machine.commit().unwrap().events.is_empty(), "events are handed out once");
}

#[test]
#[should_panic(expected = "entries are applied in order")]
fn an_entry_that_leaves_a_gap_is_a_mistake() {
    let mut machine = bootstrapped();
    drop(machine.apply(&entry(FIRST + 1, put_of("a", 0))));
}

#[test]
fn malformed_entry_is_a_fault() {
    let mut machine = bootstrapped();
    let data = Bytes::from_static(b"\xff\xff");
    let damaged = Entry { index: FIRST, term: TERM, kind: EntryKind::Normal, data };
    let fault = machine.apply(&damaged).unwrap_err();
    assert!(fault.to_string().contains(&format!("entry {FIRST} ")), "{fault}");
    let unknown = Entry { data: Bytes::from_static(b"\xf8\x7f\x01"), ..damaged };
    let fault = bootstrapped().apply(&unknown).unwrap_err();
    let why = "entry 2 of the log cannot be applied: it holds a command that this version does not \
               know (field 2047)";
    assert!(fault.to_string().starts_with(why), "{fault}");
}

#[test]
fn a_put_moves_a_key_between_leases() {
    let mut member = Member1::new();
    member.ask(grant(1, 60)).unwrap();
    member.ask(grant(2, 60)).unwrap();
    member.put("a", 1);
    member.put("b", 1);
    assert_eq!(member.lease_keys(1), ["a", "b"]);
    member.put("a", 2);
    assert_eq!((member.lease_keys(1), member.lease_keys(2)), (vec![bytes("b")], vec![bytes("a")]));
    let keep = PutRequest { key: bytes("a"), ignore_lease: true, ..PutRequest::default() };
    member.ask(put(keep)).unwrap();
    assert_eq!(member.lease_keys(2), ["a"], "ignore_lease keeps it");
    member.put("a", 0);
    assert_eq!(member.lease_keys(2), Vec::<Bytes>::new(), "no lease takes it off");
    member.ask(revoke(2)).unwrap();
    assert_eq!((member.keys(), member.events.len()), (vec![bytes("a"), bytes("b")], 0));
}

#[test]
fn a_deleted_key_leaves_its_lease() {
    let mut member = Member1::new();
    member.ask(grant(1, 60)).unwrap();
    member.put("a", 1);
    member.put("b", 1);
    member.ask(delete_of("a", "")).unwrap();
    assert_eq!(member.lease_keys(1), ["b"]);
    member.put("a", 0);
    member.ask(revoke(1)).unwrap();
    assert_eq!(member.happened(), [(6, 0, &b"b"[..], true)]);
    assert_eq!(member.keys(), ["a"], "what was put again without a lease stays");
}

#[test]
fn the_end_of_a_lease_without_keys_makes_no_revision() {
    let mut member = Member1::new();
    member.ask(grant(1, 60)).unwrap();
    assert_eq!(member.ask(revoke(1)), Ok(Reply::LeaseRevoke { revision: 1 }));
    assert_eq!(member.ask(revoke(1)), Err(Refusal::LeaseNotFound));
}

#[test]
fn expiry_of_a_lease_spares_the_next_one_of_its_id() {
    let mut member = Member1::new();
    let mut leases = Vec::new();
    for _ in 0..2 {
        member.ask(grant(1, 60)).unwrap();
        member.put("a", 1);
        leases.extend(member.machine.leases());
        if leases.len() == 1 {
            member.ask(revoke(1)).unwrap();
        }
    }
    assert_eq!(member.ask(leases[0].expire()), Err(Refusal::LeaseNotFound));
    assert_eq!(member.lease_keys(1), ["a"]);
    assert_eq!(member.ask(leases[1].expire()), Ok(Reply::LeaseRevoke { revision: 5 }));
    assert_eq!(member.machine.leases().count(), 0);
}

#[test]
fn leases_and_their_keys_survive_a_restart() {
    let mut member = Member1::new();
    member.ask(grant(1, 60)).unwrap();
    member.ask(grant(2, 0)).unwrap();
    member.put("b", 1);
    member.put("a", 1);
    member.put("c", 2);
    member.put("c", 0);
    let member = Member1::of(restarted(&member.machine));
    let leases: Vec<_> =
        member.machine.leases().map(|grant| (grant.id, grant.at, grant.ttl)).collect();
    assert_eq!(leases, [(1, FIRST, 60), (2, FIRST + 1, 2)]);
    assert_eq!(
        (member.lease_keys(1), member.lease_keys(2).len()),
        (vec!["a".into(), "b".into()], 0)
    );
}

/// Every kind of request about keys and leases, in an order in which all succeed.
fn everything() -> Vec<Command> {
    vec![
        put_of("a", 0),
        txn_of(vec![put_in_txn("a")]),
        grant(1, 60),
        txn_of(vec![delete_in_txn("a")]),
        delete_of("\0", "\0"),
        compact(1),
        revoke(7),
    ]
}

/// The results of [`everything`] while an alarm is active.
fn answers_under(kind: AlarmType, alarmed: MemberId) -> Vec<Option<Refusal>> {
    let mut member = Member1::new();
    member.ask(grant(7, 60)).unwrap();
    member.put("a", 7);
    member.ask(alarm(AlarmAction::Activate, alarmed, kind)).unwrap();
    everything().into_iter().map(|request| member.ask(request).err()).collect()
}

#[test]
fn without_space_what_takes_space_is_refused_and_what_gives_it_back_is_not() {
    let no = Some(Refusal::NoSpace);
    for member in [HERE, HERE + 1] {
        let answers = answers_under(AlarmType::Nospace, member);
        assert_eq!(answers, [no, no, no, None, None, None, None], "whoever has no space");
    }
}

#[test]
fn with_a_corrupt_member_nothing_that_reads_or_writes_keys_is_done() {
    assert_eq!(answers_under(AlarmType::Corrupt, HERE), [Some(Refusal::Corrupt); 7]);
}

#[test]
fn corruption_outweighs_the_lack_of_space() {
    let mut member = Member1::new();
    for kind in [AlarmType::Nospace, AlarmType::Corrupt] {
        member.ask(alarm(AlarmAction::Activate, HERE, kind)).unwrap();
    }
    assert_eq!(member.ask(put_of("a", 0)), Err(Refusal::Corrupt));
    member.ask(attributes(HERE, "one")).unwrap();
    member.ask(version("3.7.0")).unwrap();
}

#[test]
fn alarms_are_raised_listed_and_put_out_by_member_and_kind() {
    let mut member = Member1::new();
    let one = |member_id, kind: AlarmType| AlarmMember { member_id, alarm: kind as i32 };
    let (here, there) = (one(HERE, AlarmType::Nospace), one(HERE + 1, AlarmType::Nospace));
    let activate = |member, kind| alarm(AlarmAction::Activate, member, kind);
    let put_out = |member, kind| alarm(AlarmAction::Deactivate, member, kind);
    let get = |member, kind| alarm(AlarmAction::Get, member, kind);
    let none = AlarmType::None;
    for (request, expected) in [
        (activate(HERE, none), vec![]),
        (activate(HERE, AlarmType::Nospace), vec![here]),
        (activate(HERE, AlarmType::Nospace), vec![here]),
        (activate(HERE + 1, AlarmType::Nospace), vec![there]),
        (get(0, none), vec![here, there]),
        (get(0, AlarmType::Corrupt), vec![]),
        (put_out(HERE, AlarmType::Corrupt), vec![]),
        (put_out(HERE, AlarmType::Nospace), vec![here]),
        (put_out(HERE, AlarmType::Nospace), vec![]),
        (get(0, AlarmType::Nospace), vec![there]),
    ] {
        assert_eq!(member.ask(request), Ok(Reply::Alarm(expected)));
    }
    assert_eq!(member.ask(put_of("a", 0)), Err(Refusal::NoSpace), "the other one is left");
    assert_eq!(restarted(&member.machine).alarms(), [there]);
}

/// Its log and its store may be those of a newer version, whose meaning is unknown.
#[test]
fn a_member_stops_where_its_cluster_speaks_a_version_that_it_is_too_old_for() {
    for ver in ["3.8.0", "4.0.0", "", "3.7"] {
        let mut machine = bootstrapped();
        let told = machine.apply(&entry(FIRST, version(ver)));
        assert!(told.is_err(), "{ver}");
        assert_eq!(machine.cluster().version(), None, "{ver}");
    }
    let mut member = Member1::new();
    member.ask(version("3.6.0")).unwrap();
    let mut engine = member.machine.engine().clone();
    let mut batch = Batch::default();
    batch.writes.push((Space::Cluster, bytes("clusterVersion"), Some(bytes("3.8.0"))));
    assert!(Machine::open(engine.clone(), &CONFIG).is_ok());
    engine.commit(batch).unwrap();
    let refused = Machine::open(engine, &CONFIG).map(drop).unwrap_err().to_string();
    let text = "invalid downgrade; server version is lower than determined cluster version";
    assert!(refused.starts_with(text), "{refused}");
}

#[test]
fn a_member_tells_its_name_and_where_clients_reach_it() {
    let mut member = Member1::new();
    assert_eq!(member.machine.member(HERE).unwrap().name, "", "not started yet");
    member.ask(attributes(HERE, "one")).unwrap();
    member.ask(attributes(HERE + 1, "stranger")).unwrap();
    member.ask(version("3.7.0")).unwrap();
    let member = restarted(&member.machine);
    let known = member.member(HERE).unwrap();
    assert_eq!((&known.name[..], &known.client_urls[..]), ("one", &["http://one:2379".into()][..]));
    assert_eq!(known.peer_urls, ["http://localhost:2380"], "what it was added with stays");
    assert_eq!(member.cluster().members().count(), 1, "who is no member does not become one");
    assert_eq!(member.cluster().version(), Some(Version::SERVER.minor()));
    assert_eq!(member.conf_state().voters, [HERE]);
}

/// Such a key is refused before it is proposed, but logs of earlier versions may contain it; no engine would accept it.
#[test]
fn an_entry_with_a_key_beyond_the_limit_is_refused_and_writes_nothing() {
    let mut member = Member1::new();
    member.put("kept", 0);
    let long = put_in_txn(&"k".repeat(KEY_BYTES_MAX + 1));
    let request_op::Request::RequestPut(alone) = &long else { panic!("no put: {long:?}") };
    let operation = |request| RequestOp { request: Some(request) };
    let mut nested = TxnRequest { success: vec![operation(long.clone())], ..Default::default() };
    let before = member.machine.engine().clone();
    for request in [put(alone.clone()), txn(nested.clone())] {
        assert_eq!(member.ask(request), Err(Refusal::RequestTooLarge));
    }
    for depth in 0..30 {
        let first = operation(put_in_txn(&format!("first{depth}")));
        let inner = operation(request_op::Request::RequestTxn(nested));
        nested = TxnRequest { success: vec![first, inner], ..Default::default() };
        assert_eq!(member.ask(txn(nested.clone())), Err(Refusal::RequestTooLarge));
    }
    assert_eq!(member.machine.applied(), FIRST + 32);
    let (before, after) = (before.view(), member.machine.engine().view());
    for space in Space::ALL.into_iter().filter(|space| *space != Space::Meta) {
        let all = |view: &MemoryView| -> Vec<_> {
            view.scan(space, Unbounded, Unbounded).map(Result::unwrap).collect()
        };
        assert_eq!(all(&before), all(&after), "{space:?}");
    }
    member.put(&"k".repeat(KEY_BYTES_MAX), 0);
}

#[test]
fn a_put_that_no_store_holds_is_refused_wherever_it_stands() {
    let mut member = Member1::new();
    let of = |length: usize| PutRequest { key: vec![b'k'; length].into(), ..Default::default() };
    let inside = |request| {
        let operation = RequestOp { request: Some(request_op::Request::RequestPut(request)) };
        txn(TxnRequest { success: vec![operation], ..Default::default() })
    };
    for (length, refusal) in [(0, Refusal::EmptyKey), (KEY_BYTES_MAX + 1, Refusal::RequestTooLarge)]
    {
        assert_eq!(member.ask(put(of(length))), Err(refusal));
        assert_eq!(member.ask(inside(of(length))), Err(refusal));
    }
    assert_eq!(member.read.revision, 1);
    assert!(member.ask(put(of(KEY_BYTES_MAX))).is_ok());
    assert!(member.ask(inside(of(KEY_BYTES_MAX))).is_ok());
}

#[test]
fn accepted_payloads_can_be_applied() {
    let check = |kind, data: &Bytes| check_payload(kind, data, FeatureLevel::NEWEST);
    let normal = |data: &Bytes| check(EntryKind::Normal, data);
    let known = put_of("a", 0).to_payload(0);
    assert_eq!(normal(&Bytes::new()), Ok(()));
    assert_eq!(normal(&known), Ok(()));
    assert_eq!(normal(&version("3.7.0").to_payload(0)), Ok(()));
    for unknown in [&known[..known.len() - 1], b"\xff", b"\xf8\x7f\x01"] {
        let data = Bytes::copy_from_slice(unknown);
        assert!(normal(&data).is_err(), "{unknown:?}");
        let mut machine = bootstrapped();
        let entry = Entry { index: FIRST, term: TERM, kind: EntryKind::Normal, data };
        let told = machine.apply(&entry).unwrap_err().to_string();
        assert!(told.starts_with("entry 2 of the log cannot be applied: it "), "{told}");
        assert!(told.contains("basaltutl verify"), "{told}");
    }
    assert!(normal(&version("4.0.0").to_payload(0)).is_err());
    let change = crate::cluster::remove(0, 7).encode_to_vec();
    assert_eq!(check(EntryKind::ConfChange, &change.into()), Ok(()));
    assert!(check(EntryKind::ConfChange, &Bytes::from_static(b"\xff")).is_err());
    assert!(check(EntryKind::ConfChangeV2, &Bytes::new()).is_err());
}
