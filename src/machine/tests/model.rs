//! Random requests in random batches, with losses and restarts at any point, also between the steps of a large entry,
//! compared with a machine that applies one entry at a time and never restarts.

use std::ops::Bound;

use basalt_proto::etcdserverpb::{Compare, compare};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::mvcc::{Event, KvHash, check_txn};
use crate::store::{Pair, Space, View as _};

/// The observable state of a machine after an entry.
#[derive(Debug, PartialEq)]
struct Seen {
    position: (LogIndex, Term),
    revision: i64,
    compacted: i64,
    kvs: Vec<KeyValue>,
    hash: KvHash,
    leases: Vec<(Grant, Vec<Bytes>)>,
    alarms: Vec<AlarmMember>,
    members: Vec<Member>,
    version: Option<String>,
    feature_level: FeatureLevel,
    conf_state: ConfState,
}

impl Seen {
    fn of(machine: &Machine<Memory>, read: &ReadView<MemoryView>) -> Self {
        // At its own revision a compaction's stored hash is used, which a restart drops; 0 is none except once.
        let newest = if read.compacted == 0 { read.revision } else { 0 };
        let mut cursor = Error::refusal(read.hash_kv(newest)).unwrap().unwrap();
        let hash = loop {
            if let Some(hash) = cursor.step(&read.view, 50).unwrap() {
                break hash;
            }
        };
        let leases = machine.leases().map(|grant| (grant, machine.lease_keys(grant.id)));
        let kvs = all_keys(read);
        assert_eq!(read.keys(), kvs.len() as i64);
        Self {
            position: machine.position(),
            revision: read.revision,
            compacted: read.compacted,
            kvs,
            hash,
            leases: leases.collect(),
            alarms: machine.alarms(),
            members: machine.cluster().members().cloned().collect(),
            version: machine.cluster().version().map(|version| version.to_string()),
            feature_level: machine.cluster().feature_level(),
            conf_state: machine.conf_state().clone(),
        }
    }
}

/// All pairs in the store.
fn contents(machine: &Machine<Memory>) -> Vec<(Space, Vec<Pair>)> {
    let view = machine.engine().view();
    let pairs = |space| view.scan(space, Bound::Unbounded, Bound::Unbounded);
    let all = Space::ALL.into_iter();
    all.map(|space| (space, pairs(space).collect::<Result<_, _>>().unwrap())).collect()
}

fn compact_all(machine: &mut Machine<Memory>) -> Published<MemoryView> {
    while !machine.compact_step(1000).unwrap() {}
    machine.commit().unwrap()
}

/// The undisturbed machine's result of an entry.
struct Step {
    entry: Entry,
    applied: Applied,
    events: Vec<Event>,
    after: Seen,
}

struct Pairing {
    random: StdRng,
    twin: Machine<Memory>,
    revision: i64,
    log: Vec<Step>,
    machine: Machine<Memory>,
    /// The state that it published last.
    read: Option<ReadView<MemoryView>>,
    /// Number of entries that the machine has committed.
    committed: usize,
    losses_between_steps: usize,
}

impl Pairing {
    fn new(seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let steps = StepLimits {
            at_once_records: random.random_range(1..4),
            stage_writes: random.random_range(1..6),
        };
        Self {
            random,
            twin: bootstrapped(),
            revision: 1,
            log: Vec::new(),
            machine: bootstrapped_with(&Config { steps, ..CONFIG }),
            read: None,
            committed: 0,
            losses_between_steps: 0,
        }
    }

    /// One more entry, applied by the twin at once.
    fn append(&mut self) {
        let index = FIRST + self.log.len() as u64;
        let entry = match self.request() {
            Some(request) => entry(index, request),
            None => Entry { index, term: TERM, kind: EntryKind::Normal, data: Bytes::new() },
        };
        let applied = self.twin.apply(&entry).unwrap();
        let published = self.twin.commit().unwrap();
        let read = compact_all(&mut self.twin).read;
        self.revision = read.revision;
        let (events, after) = (published.events.to_vec(), Seen::of(&self.twin, &read));
        self.log.push(Step { entry, applied, events, after });
    }

    fn step(&mut self) {
        match self.random.random_range(0..20) {
            0..8 => self.append(),
            8..15 => self.apply(),
            15..17 => self.commit(),
            17 => {
                self.commit();
                let budget = self.random.random_range(1..6);
                self.machine.compact_step(budget).unwrap();
                self.commit();
            }
            18 => self.restart(),
            _ => (0..10).for_each(|_| self.append()),
        }
    }

    /// Number of entries that the machine has applied.
    fn applied(&self) -> usize {
        (self.machine.applied() + 1 - FIRST) as usize
    }

    fn apply(&mut self) {
        let waiting = self.log.len() - self.applied();
        for _ in 0..self.random.random_range(0..=waiting) {
            let entry = self.log[self.applied()].entry.clone();
            let mut applied = self.machine.begin(&entry).unwrap();
            if applied.is_none() && self.random.random_bool(0.3) {
                self.commit();
            }
            while applied.is_none() {
                applied = self.machine.step(self.random.random_range(1..5)).unwrap();
                self.look_between_steps();
                if applied.is_none() && self.random.random_bool(0.05) {
                    self.losses_between_steps += 1;
                    return self.restart();
                }
            }
            let step = &self.log[self.applied() - 1];
            assert_eq!(applied.as_ref(), Some(&step.applied), "entry {}", step.entry.index);
        }
    }

    /// Readers of the published state see no changes of an entry in progress.
    fn look_between_steps(&self) {
        let (Some(read), Some(last)) = (&self.read, self.committed.checked_sub(1)) else { return };
        for kv in &self.log[last].after.kvs {
            let request = RangeRequest { key: kv.key.clone(), ..RangeRequest::default() };
            let found = Error::refusal(read.range(&request)).unwrap().unwrap().kvs;
            let found = found.iter().next().map(KeyValue::decode);
            assert_eq!(found, Some(Ok(kv.clone())));
        }
    }

    fn commit(&mut self) {
        let published = self.machine.commit().unwrap();
        let applied = self.applied();
        let batch = &self.log[self.committed..applied];
        let expected: Vec<_> = batch.iter().flat_map(|step| step.events.clone()).collect();
        assert_eq!(published.events.to_vec(), expected, "up to entry {applied}");
        self.committed = applied;
        self.look(&published.read);
        self.read = Some(published.read);
    }

    fn look(&self, read: &ReadView<MemoryView>) {
        if let Some(last) = self.committed.checked_sub(1) {
            assert_eq!(Seen::of(&self.machine, read), self.log[last].after);
        }
    }

    /// Uncommitted state is lost. The log is applied again from some entry before that on.
    fn restart(&mut self) {
        self.machine = restarted(&self.machine);
        let read = self.machine.commit().unwrap().read;
        self.look(&read);
        assert_eq!(self.applied(), self.committed);
        for again in self.random.random_range(0..=self.committed)..self.committed {
            let applied = self.machine.apply(&self.log[again].entry).unwrap();
            let nothing = Applied {
                request: 0,
                operation: None,
                reply: Ok(Reply::Done),
                effects: Vec::new(),
            };
            assert_eq!(applied, nothing, "entry {again} was applied before");
        }
        self.commit();
    }

    /// Finally both contain the same, byte for byte.
    fn finish(mut self) {
        while self.applied() < self.log.len() {
            self.apply();
        }
        self.commit();
        compact_all(&mut self.machine);
        let expected = contents(&self.twin);
        assert_eq!(contents(&self.machine), expected);
        assert_eq!(contents(&restarted(&self.twin)), expected);
    }
}

/// Random requests.
impl Pairing {
    fn key(&mut self) -> Bytes {
        const KEYS: [&str; 8] = ["a", "aa", "ab", "b", "ba", "c", "d", "e"];
        bytes(KEYS[self.random.random_range(0..KEYS.len())])
    }

    fn range_end(&mut self) -> Bytes {
        match self.random.random_range(0..8) {
            0..5 => Bytes::new(),
            5 if self.random.random_bool(0.3) => bytes("\0"),
            _ => self.key(),
        }
    }

    fn lease(&mut self) -> LeaseId {
        self.random.random_range(0..6)
    }

    fn put(&mut self) -> PutRequest {
        let ignore_value = self.random.random_bool(0.1);
        let ignore_lease = self.random.random_bool(0.2);
        let lease = self.lease();
        PutRequest {
            key: self.key(),
            value: if ignore_value { Bytes::new() } else { self.value() },
            lease: if ignore_lease || self.random.random() { 0 } else { lease },
            prev_kv: self.random.random(),
            ignore_value,
            ignore_lease,
        }
    }

    /// Around the length up to which history contains a value inline.
    fn value(&mut self) -> Bytes {
        if self.random.random_bool(0.6) {
            return self.key();
        }
        let byte = self.random.random_range(b'a'..=b'z');
        vec![byte; self.random.random_range(400..1400)].into()
    }

    fn delete(&mut self) -> DeleteRangeRequest {
        let (key, range_end) = (self.key(), self.range_end());
        DeleteRangeRequest { key, range_end, prev_kv: self.random.random() }
    }

    fn operations(&mut self) -> Vec<RequestOp> {
        use request_op::Request;
        let operation = |pairing: &mut Self| match pairing.random.random_range(0..6) {
            0..3 => Request::RequestPut(pairing.put()),
            3 | 4 => Request::RequestDeleteRange(pairing.delete()),
            _ => {
                let (key, range_end) = (pairing.key(), pairing.range_end());
                Request::RequestRange(RangeRequest { key, range_end, ..RangeRequest::default() })
            }
        };
        let count = self.random.random_range(0..4);
        (0..count).map(|_| RequestOp { request: Some(operation(self)) }).collect()
    }

    fn txn(&mut self) -> TxnRequest {
        let version = self.random.random_range(0..3);
        let compare = Compare {
            result: self.random.random_range(0..4),
            target: 0,
            key: self.key(),
            target_union: Some(compare::TargetUnion::Version(version)),
            ..Compare::default()
        };
        let txn = TxnRequest {
            compare: vec![compare],
            success: self.operations(),
            failure: self.operations(),
        };
        // Sessions refuse the others before they are proposed.
        if check_txn(&txn, 128).is_ok() { txn } else { self.txn() }
    }

    /// Alarms are disarmed soon, since they refuse most requests.
    fn alarm(&mut self) -> Command {
        const KINDS: [AlarmType; 3] = [AlarmType::Nospace, AlarmType::Corrupt, AlarmType::None];
        let member = self.random.random_range(HERE..HERE + 2);
        let kind = KINDS[self.random.random_range(0..KINDS.len())];
        match (self.twin.alarms().first(), self.random.random_range(0..5)) {
            (Some(on), 0..3) => alarm(AlarmAction::Deactivate, on.member_id, on.alarm()),
            (_, 3) => alarm(AlarmAction::Activate, member, kind),
            (_, 4) => alarm(AlarmAction::Deactivate, member, kind),
            _ => alarm(AlarmAction::Get, member, kind),
        }
    }

    fn request(&mut self) -> Option<Command> {
        Some(match self.random.random_range(0..100) {
            0..35 => put(self.put()),
            35..47 => delete(self.delete()),
            47..60 => txn(self.txn()),
            60..73 => grant(self.lease(), self.random.random_range(0..9)),
            73..80 => revoke(self.lease()),
            80..86 => {
                // A compaction at 0 determines hashes at 0 until the next one is complete, as in etcd.
                let revision = self.random.random_range(-2..self.revision + 3);
                compact(if revision == 0 { 1 } else { revision })
            }
            86..93 => self.alarm(),
            93..95 => {
                let names = ["one", "two", "three"];
                let member = self.random.random_range(HERE - 1..HERE + 2);
                attributes(member, names[self.random.random_range(0..names.len())])
            }
            95..97 => version(["3.6.0", "3.7.0"][self.random.random_range(0..2)]),
            97 => feature_level(self.random.random_range(1..3)),
            _ => return None,
        })
    }
}

#[test]
fn batches_losses_and_restarts_change_nothing() {
    let (mut refused, mut revoked, mut losses_between_steps) = (0, 0, 0);
    for seed in 0..60 {
        println!("seed {seed}");
        let mut pairing = Pairing::new(seed);
        (0..250).for_each(|_| pairing.step());
        losses_between_steps += pairing.losses_between_steps;
        refused += pairing.log.iter().filter(|step| step.applied.reply.is_err()).count();
        let took_keys = |step: &&Step| {
            matches!(step.applied.effects[..], [Effect::LeaseRevoked(_)]) && !step.events.is_empty()
        };
        revoked += pairing.log.iter().filter(took_keys).count();
        pairing.finish();
    }
    assert!(losses_between_steps > 50, "{losses_between_steps} losses between steps");
    assert!(refused > 500 && revoked > 100, "{refused} refused, {revoked} leases took keys along");
}
