//! Three members on a network that loses, repeats and reorders messages, with slow disks and stores, and crashes that
//! lose all writes that were not durable. Everything follows from one seed.

use std::collections::{BTreeMap, VecDeque};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;

const VOTERS: [MemberId; 3] = [1, 2, 3];
/// Messages in flight; more are lost, as from a full mailbox.
const WIRE: usize = 150;

type Batch = (ReadyNumber, Option<HardState>, Vec<Entry>);

struct Member {
    driver: Driver,
    starts: u64,
    /// The durable state: log, hard state, and applied index of the store.
    disk: Restored,
    /// Batches handed to the disk and not durable yet.
    pending: VecDeque<Batch>,
    /// The last index handed out to be applied, and the last one applied.
    committed: LogIndex,
    applied: LogIndex,
    role: Role,
    /// Pending reads, and the least index that each must see.
    reads: BTreeMap<u64, LogIndex>,
}

fn last(disk: &Restored) -> LogIndex {
    disk.log_start_index + disk.entries.len() as u64
}

fn stored(disk: &Restored, index: LogIndex) -> Option<&Entry> {
    disk.entries.get(index.checked_sub(disk.log_start_index + 1)? as usize)
}

impl Member {
    fn start(id: MemberId, starts: u64, disk: Restored, seed: u64) -> Self {
        let mut config = config(id, starts);
        config.seed ^= seed << 20;
        // No member falls so far behind that it needs a snapshot.
        config.catch_up_entries = 1 << 20;
        let driver = Driver::new(config, &disk).expect("the log makes sense");
        let (committed, applied) = (disk.applied, disk.applied);
        let (pending, reads, role) = (VecDeque::new(), BTreeMap::new(), Role::default());
        Self { driver, starts, disk, pending, committed, applied, role, reads }
    }

    /// Completes the oldest write.
    fn write(&mut self) -> Option<ReadyNumber> {
        let (number, hard_state, entries) = self.pending.pop_front()?;
        self.disk.hard_state = hard_state.unwrap_or(self.disk.hard_state);
        for entry in entries {
            let at = entry.index.checked_sub(self.disk.log_start_index + 1);
            let at = at.expect("what is cut off is never replaced") as usize;
            assert!(at <= self.disk.entries.len(), "a gap in the log");
            self.disk.entries.truncate(at);
            self.disk.entries.push(entry);
        }
        Some(number)
    }
}

struct Network {
    random: StdRng,
    seed: u64,
    members: Vec<Member>,
    wire: Vec<Message>,
    /// Entries that any member learned to be committed: the same for all.
    log: Vec<Entry>,
    leaders: BTreeMap<Term, MemberId>,
    reads: u64,
    answered: usize,
    payloads: u64,
}

impl Network {
    fn new(seed: u64) -> Self {
        let conf_state = ConfState { voters: VOTERS.to_vec(), ..ConfState::default() };
        let disk = Restored { conf_state, ..Restored::default() };
        let member = |id| Member::start(id, 1, disk.clone(), seed);
        Self {
            random: StdRng::seed_from_u64(seed),
            seed,
            members: VOTERS.map(member).into(),
            wire: Vec::new(),
            log: Vec::new(),
            leaders: BTreeMap::new(),
            reads: 0,
            answered: 0,
            payloads: 0,
        }
    }

    fn on(&mut self, at: usize, input: Input) {
        self.members[at].driver.on(Duration::ZERO, input);
        // Waiting batches are joined, as by the actor.
        if self.random.random_bool(0.8) {
            self.drain(at);
        }
    }

    fn drain(&mut self, at: usize) {
        let mut out = Vec::new();
        self.members[at].driver.drain(&mut out);
        for output in out {
            match output {
                Output::Send(messages) => self.wire.extend(wire::carried(messages)),
                Output::Persist { number, hard_state, entries } => {
                    self.members[at].pending.push_back((number, hard_state, entries));
                }
                Output::Commit(entries) => entries.into_iter().for_each(|it| self.commit(at, it)),
                Output::ReadAt { read, index } => {
                    let least = self.members[at].reads.remove(&read).expect("asked, once");
                    assert!(index >= least, "a read at {index} misses {least}");
                    self.answered += 1;
                }
                Output::ProposalsDropped(_) | Output::ConfChangeDropped(_) | Output::Full(_) => (),
                Output::Install { index, .. } => panic!("a snapshot of {index} out of nowhere"),
                Output::Role(role) => {
                    self.members[at].role = role;
                    let id = self.members[at].driver.config_id();
                    let leader = if role.leads { Some(id) } else { role.leader };
                    if let Some(leader) = leader {
                        let one = *self.leaders.entry(role.term).or_insert(leader);
                        assert_eq!(one, leader, "two leaders in term {}", role.term);
                    }
                }
            }
        }
    }

    fn commit(&mut self, at: usize, entry: Entry) {
        let member = &mut self.members[at];
        assert_eq!(entry.index, member.committed + 1, "entries come in order, each once");
        member.committed = entry.index;
        assert_eq!(stored(&member.disk, entry.index), Some(&entry), "not on this disk yet");
        match self.log.get(entry.index as usize - 1) {
            Some(known) => assert_eq!(&entry, known, "members disagree"),
            None => {
                let on_disk = |member: &&Member| stored(&member.disk, entry.index) == Some(&entry);
                assert!(self.members.iter().filter(on_disk).count() >= 2, "on no quorum's disks");
                self.log.push(entry);
            }
        }
    }

    fn step(&mut self) {
        let at = self.random.random_range(0..self.members.len());
        match self.random.random_range(0..1000) {
            0..250 => self.on(at, Input::Tick),
            250..600 => self.receive(),
            600..680 => self.propose(at),
            680..710 => self.read(at),
            710..850 => {
                // One acknowledgement for several batches that became durable together.
                let count = self.random.random_range(1..4);
                let written = (0..count).filter_map(|_| self.members[at].write()).last();
                written.into_iter().for_each(|number| self.on(at, Input::Persisted(number)));
            }
            850..960 => self.apply(at),
            960..985 => self.drain(at),
            985..989 => self.cut(at),
            989 => {
                let space = DiskSpace::from_u8(self.random.random_range(0..3));
                self.on(at, Input::Disk(space));
            }
            990..993 => self.on(at, Input::Campaign),
            993..996 => self.on(at, Input::Transfer(VOTERS[(at + 1) % 3])),
            996..997 => self.on(at, Input::Unreachable(VOTERS[(at + 1) % 3])),
            _ => self.crash(at),
        }
    }

    fn receive(&mut self) {
        while self.wire.len() > WIRE {
            let lost = self.random.random_range(0..self.wire.len());
            self.wire.swap_remove(lost);
        }
        if self.wire.is_empty() {
            return;
        }
        let at = self.random.random_range(0..self.wire.len());
        let message = self.wire.swap_remove(at);
        match self.random.random_range(0..10) {
            0 => return,
            1 => self.wire.push(message.clone()),
            _ => (),
        }
        self.deliver(message);
    }

    fn deliver(&mut self, message: Message) {
        let to = message.to as usize - 1;
        self.on(to, Input::Step(Box::new(message)));
    }

    fn propose(&mut self, at: usize) {
        let count = self.random.random_range(1..4);
        let payloads = self.payloads + 1..=self.payloads + count;
        self.payloads += count;
        self.on(at, Input::Propose(payloads.map(|it| it.to_string().into()).collect()));
    }

    /// Every entry that a member learned to be committed may have been acknowledged, and must be seen by the read.
    fn read(&mut self, at: usize) {
        self.reads += 1;
        self.members[at].reads.insert(self.reads, self.log.len() as u64);
        self.on(at, Input::ReadIndex(self.reads));
    }

    fn apply(&mut self, at: usize) {
        let member = &mut self.members[at];
        member.applied = self.random.random_range(member.applied..=member.committed);
        let applied = member.applied;
        self.on(at, Input::Applied(applied));
    }

    /// The store syncs, and the log is truncated as far as every member has it: none needs a snapshot.
    fn cut(&mut self, at: usize) {
        let durable = |member: &Member| member.disk.hard_state.commit.min(last(&member.disk));
        let all = self.members.iter().map(durable).min().unwrap_or(0);
        let member = &mut self.members[at];
        let index = all.min(member.applied);
        if let Some(entry) = stored(&member.disk, index) {
            member.disk.log_start_term = entry.term;
            member.disk.entries.drain(..(index - member.disk.log_start_index) as usize);
            member.disk.log_start_index = index;
            member.disk.applied = member.disk.applied.max(index);
        }
    }

    /// Some of the pending writes become durable without an acknowledgement; the store is at any batch since the last sync.
    fn crash(&mut self, at: usize) {
        let member = &mut self.members[at];
        for _ in 0..self.random.random_range(0..=member.pending.len()) {
            member.write();
        }
        let mut disk = member.disk.clone();
        disk.applied = self.random.random_range(disk.applied..=member.applied);
        self.members[at] = Member::start(VOTERS[at], member.starts + 1, disk, self.seed);
    }

    /// All pending work completes, and no messages are lost any more.
    fn settle(&mut self, ticks: usize) {
        for _ in 0..ticks {
            for at in 0..self.members.len() {
                self.on(at, Input::Tick);
            }
            for _ in 0..20 {
                for message in std::mem::take(&mut self.wire) {
                    self.deliver(message);
                }
                for at in 0..self.members.len() {
                    while let Some(number) = self.members[at].write() {
                        self.on(at, Input::Persisted(number));
                    }
                    let committed = self.members[at].committed;
                    self.members[at].applied = committed;
                    self.on(at, Input::Applied(committed));
                    self.drain(at);
                }
            }
        }
    }

    fn finish(&mut self) {
        self.settle(60);
        let leader = self.members.iter().position(|member| member.role.leads);
        let leader = leader.expect("members that hear each other elect one");
        self.payloads += 1;
        let payload = Bytes::from(self.payloads.to_string());
        self.on(leader, Input::Propose(vec![payload.clone()]));
        self.settle(10);
        assert!(self.log.iter().any(|entry| entry.data == payload), "it makes progress");
        for member in &self.members {
            assert_eq!(member.committed, self.log.len() as u64, "all have all");
            assert_eq!(member.reads, BTreeMap::new(), "every read is answered");
        }
    }
}

#[test]
fn members_agree_whatever_the_wire_and_the_disks_do() {
    let (mut committed, mut answered, mut terms) = (0, 0, 0);
    for seed in 0..100 {
        println!("seed {seed}");
        let mut network = Network::new(seed);
        (0..6000).for_each(|_| network.step());
        committed += network.log.len();
        answered += network.answered;
        terms += network.leaders.len();
        network.finish();
    }
    let told = format!("{committed} entries, {answered} reads, {terms} leaders");
    assert!(committed > 5000 && answered > 1000 && terms > 200, "{told}");
}
