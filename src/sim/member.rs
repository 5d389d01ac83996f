//! A member: the pure rooms, with queues in place of mailboxes, and what survives it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use basalt_proto::encoded::WatchResponse;
use bytes::Bytes;

use super::bugs::Bug;
use super::checks::Digest;
use super::disk::{Disk, Log};
use super::plan::{Knobs, MS, Micros, Point};
use super::random::Random;
use super::store::Store;
use crate::cluster;
use crate::consensus::{self, Driver, Input, Message, ReadyNumber, Restored, Role};
use crate::lease::{Expiry, ttl_min};
use crate::machine::{self, Machine};
use crate::mvcc::{Event, ReadView};
use crate::store::{MemoryView, Space, View as _};
use crate::types::{ConfState, DiskSpace, Entry, Fault, LogIndex, MemberId, Term};
use crate::wal::{Record, Replay};
use crate::watch::{self, Hub};

pub(super) const ELECTION_TICKS: usize = 10;

/// What survives a crash, and the member if it runs.
pub(super) struct Member {
    pub(super) id: MemberId,
    pub(super) boots: u64,
    pub(super) random: Random,
    pub(super) disk: Disk,
    pub(super) store: Store,
    pub(super) live: Option<Live>,
    /// Came later: it waits for the state instead of knowing how everything began.
    joins: bool,
    /// It was removed and does not come back.
    pub(super) gone: bool,
    /// What its store began with, if another member sent that.
    pub(super) snapshot: Option<(LogIndex, Term)>,
    pub(super) paused_until: Micros,
    /// Until when the disk is slow, and how many times as slow.
    pub(super) slow: (Micros, u64),
    /// Until when the disk is full, and how full.
    pub(super) full_disk: (Micros, DiskSpace),
    pub(super) armed: Option<(Point, Micros)>,
    /// What is on disk for sure: the term of the mark and of each entry behind it.
    pub(super) durable: BTreeMap<LogIndex, Term>,
    /// Whether it is on disk that it promises not to vote.
    promised: bool,
}

/// A write that waits for the disk.
pub(super) struct Write {
    pub(super) number: Option<ReadyNumber>,
    pub(super) records: Vec<Record>,
}

/// What waits to be applied.
pub(super) enum Task {
    Commit(Vec<Entry>),
    ReadAt(u64, LogIndex),
}

/// What one watching client is sent.
#[derive(Default)]
pub(super) struct Stream {
    pub(super) client: usize,
    pub(super) responses: VecDeque<(WatchResponse, usize)>,
}

/// A member that runs.
pub(super) struct Live {
    pub(super) boot: u64,
    pub(super) started: Micros,
    pub(super) driver: Driver,
    pub(super) machine: Machine<Store>,
    pub(super) log: Log,
    pub(super) expiry: Expiry,
    pub(super) hub: Hub,
    /// What readers see.
    pub(super) read: ReadView<MemoryView>,
    /// Mailbox of consensus, in three lanes as the actor's.
    pub(super) lanes: [VecDeque<Input>; 3],
    pub(super) round_due: bool,
    /// What consensus was told of the disk.
    pub(super) disk: DiskSpace,
    /// Members without room while no quorum has some.
    pub(super) full: Vec<MemberId>,
    /// Appends that wait until there is room.
    pub(super) held: VecDeque<Input>,
    /// What the clock said at the end of the last round.
    pub(super) round_ended: Duration,
    pub(super) homeless: Vec<Bytes>,
    /// Members that it sends its state to.
    pub(super) transferring: BTreeSet<MemberId>,
    /// A message that announces another member's state, and that state.
    pub(super) arrived: Option<(Box<Message>, Bytes)>,
    /// The state that came with the message that raft looks at.
    pub(super) prepared: Option<Bytes>,
    pub(super) role: Role,
    pub(super) to_write: VecDeque<Write>,
    pub(super) writing: Option<Write>,
    pub(super) tasks: VecDeque<Task>,
    pub(super) apply_due: bool,
    pub(super) compacting: bool,
    /// Reads whose index is not applied yet.
    pub(super) reads: Vec<(LogIndex, u64)>,
    /// Where the log was last asked to be cut.
    pub(super) mark: LogIndex,
    /// The newest mark that was handed to the disk.
    pub(super) marked: LogIndex,
    /// A mark that waits for the store to be synced.
    pub(super) cutting: Option<Record>,
    /// The term in which its lease service leads, 0 for none.
    pub(super) leads: Term,
    /// Clients that wait, by the ids of their requests.
    pub(super) waiting: BTreeMap<u64, usize>,
    pub(super) asked: u64,
    pub(super) batches: VecDeque<(Arc<[Event]>, i64)>,
    pub(super) missed: bool,
    pub(super) history: Option<(i64, usize, usize)>,
    pub(super) hub_due: bool,
    pub(super) streams: BTreeMap<u32, Stream>,
}

/// The lanes of consensus.
pub(super) const ACKS: usize = 0;
pub(super) const CONTROL: usize = 1;
pub(super) const WORK: usize = 2;

impl Member {
    pub(super) fn new(id: MemberId, seed: u64, knobs: &Knobs) -> Self {
        Self {
            id,
            boots: 0,
            random: Random::new(seed, "member", id),
            disk: Disk::new(knobs.segment_blocks),
            store: Store::default(),
            live: None,
            joins: id > knobs.members,
            gone: false,
            snapshot: None,
            paused_until: 0,
            slow: (0, 1),
            full_disk: (0, DiskSpace::Enough),
            armed: None,
            durable: BTreeMap::new(),
            promised: false,
        }
    }

    /// Whether an entry is on its disk, or in what its log was cut at.
    pub(super) fn holds(&self, entry: &Entry) -> bool {
        let is_below = |(mark, _): (&LogIndex, _)| *mark > entry.index;
        self.durable.get(&entry.index) == Some(&entry.term)
            || self.durable.first_key_value().is_some_and(is_below)
    }

    /// Records that became durable. Gives the entries among them, each with the term of the one before.
    pub(super) fn note_durable<'a>(&mut self, records: &'a [Record]) -> Vec<(&'a Entry, Term)> {
        let mut entries = Vec::new();
        for record in records {
            match record {
                Record::Entry(entry) => {
                    self.durable.split_off(&entry.index);
                    let before = self.durable.last_key_value().map_or(0, |(_, term)| *term);
                    entries.push((entry, before));
                    self.durable.insert(entry.index, entry.term);
                }
                Record::Mark { index, term, .. } => {
                    if self.durable.get(index).is_some_and(|is| is != term) {
                        self.durable.clear();
                    }
                    self.durable = self.durable.split_off(index);
                    self.durable.insert(*index, *term);
                }
                Record::HardState(_) | Record::Metadata { .. } => (),
            }
        }
        entries
    }

    /// The power comes back. Gives the entries that it found.
    pub(super) fn start(&mut self, now: Micros, knobs: &Knobs, bug: Option<Bug>) -> Vec<Entry> {
        self.boots += 1;
        let (log, mut machine, mut restored) = self.recover(knobs, bug);
        let promised = std::mem::replace(&mut self.promised, knobs.reads_alone);
        if promised && bug != Some(Bug::PromiseForgotten) {
            restored.promised_ticks = ELECTION_TICKS;
        }
        let read = machine.commit().expect("memory takes it").read;
        let config = consensus::Config {
            id: self.id,
            election_ticks: ELECTION_TICKS,
            heartbeat_ticks: 1,
            pre_vote: knobs.pre_vote,
            seed: self.random.next(),
            boot_nonce: self.boots,
            catch_up_entries: knobs.catch_up_entries,
            logger: None,
            promise: knobs.promise(),
        };
        let driver = Driver::new(config, &restored)
            .unwrap_or_else(|fault| panic!("member {} does not start: {fault}", self.id));
        let mut expiry = Expiry::new(ELECTION_TICKS as u64 * knobs.tick / MS);
        machine.leases().for_each(|grant| expiry.granted(grant, 0));
        self.live = Some(Live {
            boot: self.boots,
            started: now,
            driver,
            hub: Hub::new(hub_config(knobs), read.revision),
            mark: machine.applied(),
            marked: restored.mark_index,
            machine,
            log,
            expiry,
            read,
            lanes: Default::default(),
            round_due: false,
            disk: DiskSpace::Enough,
            full: Vec::new(),
            held: VecDeque::new(),
            round_ended: Duration::ZERO,
            homeless: Vec::new(),
            transferring: BTreeSet::new(),
            arrived: None,
            prepared: None,
            role: Role::default(),
            to_write: VecDeque::new(),
            writing: None,
            tasks: VecDeque::new(),
            apply_due: false,
            compacting: true,
            reads: Vec::new(),
            cutting: None,
            leads: 0,
            waiting: BTreeMap::new(),
            asked: 0,
            batches: VecDeque::new(),
            missed: false,
            history: None,
            hub_due: false,
            streams: BTreeMap::new(),
        });
        restored.entries
    }

    /// Reads what is on its disk.
    fn recover(&mut self, knobs: &Knobs, bug: Option<Bug>) -> (Log, Machine<Store>, Restored) {
        let (mut log, mut replay) = self
            .disk
            .open(self.beginning(knobs), bug)
            .unwrap_or_else(|fault| panic!("the log of member {} does not open: {fault}", self.id));
        let mut machine = open_machine(&self.store).unwrap_or_else(|fault| {
            panic!("the store of member {} does not open: {fault}", self.id)
        });
        self.finish_snapshot(&machine, &mut log, &mut replay);
        if machine.is_new() && !self.joins {
            let begins = replay.mark_index == knobs.members;
            assert!(begins, "the store of member {} is gone", self.id);
            machine
                .bootstrap((1..=knobs.members).map(described).collect())
                .expect("memory takes it");
        }
        let restored = Restored {
            hard_state: replay.hard_state,
            conf_state: machine.conf_state().clone(),
            mark_index: replay.mark_index,
            mark_term: replay.mark_term,
            entries: replay.entries,
            applied: machine.applied(),
            promised_ticks: 0,
        };
        self.durable = restored.entries.iter().map(|it| (it.index, it.term)).collect();
        self.durable.insert(restored.mark_index, restored.mark_term);
        (log, machine, restored)
    }

    /// What its log begins with.
    fn beginning(&self, knobs: &Knobs) -> [Record; 2] {
        let owner = Record::Metadata { cluster_id: 7, member_id: self.id };
        let mut conf_state = ConfState::default();
        if self.joins {
            return [owner, Record::Mark { index: 0, term: 0, conf_state }];
        }
        conf_state.voters = (1..=knobs.members).collect();
        [owner, Record::Mark { index: knobs.members, term: 1, conf_state }]
    }

    /// It may have lost power between making a snapshot its store and beginning its log there.
    fn finish_snapshot(&mut self, machine: &Machine<Store>, log: &mut Log, replay: &mut Replay) {
        let Some((index, term)) = self.snapshot else { return };
        if replay.mark_index < index && machine.position() == (index, term) {
            let mark = Record::Mark { index, term, conf_state: machine.conf_state().clone() };
            self.disk.append(log, std::slice::from_ref(&mark));
            self.disk.finish(log);
            replay.take(mark).expect("a mark always fits");
        }
    }

    /// How long the disk takes.
    pub(super) fn disk_time(&mut self, now: Micros, max: Micros) -> Micros {
        let (until, times) = self.slow;
        let time = self.random.skewed(50, max);
        if now < until { time * times } else { time }
    }
}

/// What a member tells of itself.
pub(super) fn described(id: MemberId) -> cluster::Member {
    let peer_urls = vec![format!("http://{id}:2380")];
    cluster::Member { id, peer_urls, name: id.to_string(), ..cluster::Member::default() }
}

fn hub_config(knobs: &Knobs) -> watch::Config {
    watch::Config {
        stream_bytes_max: knobs.stream_bytes,
        stream_bytes_share: knobs.stream_bytes / 2,
        hub_bytes_max: knobs.stream_bytes * 3,
        response_bytes_max: knobs.stream_bytes,
        read_revisions_max: knobs.read_revisions,
        read_bytes_max: knobs.stream_bytes * 2,
        ..watch::Config::new(2000)
    }
}

/// The state machine on a store.
pub(super) fn open_machine(store: &Store) -> Result<Machine<Store>, Fault> {
    let lease_ttl_min = ttl_min(1000);
    let settings = machine::Config { cache_bytes: 20_000, lease_ttl_min, learners_max: 1 };
    Machine::open(store.clone(), &settings)
}

impl Live {
    /// Whether appends wait for room on the disk, as in the actor.
    pub(super) fn holds_appends(&self) -> bool {
        self.disk == DiskSpace::Exhausted && self.full.is_empty() && !self.role.leads
    }

    /// Whether there is no room for what costs some.
    pub(super) fn lacks_room(&self) -> bool {
        self.disk == DiskSpace::Exhausted || !self.full.is_empty()
    }

    /// What this member's clock says since it started. `drift` is in thousandths above 950.
    pub(super) fn clock(&self, now: Micros, drift: u64) -> Duration {
        Duration::from_micros((now - self.started) * (950 + drift) / 1000)
    }

    pub(super) fn published(&self) -> watch::Published {
        watch::Published { revision: self.read.revision, compacted: self.read.compacted }
    }

    /// All that members have in common when they have applied the same.
    pub(super) fn digest(&self) -> Digest {
        let mut cursor = self.read.hash_kv(0).expect("the newest revision can be hashed");
        let hash = loop {
            if let Some(hash) = cursor.step(&self.read.view, 1000).expect("memory reads") {
                break hash;
            }
        };
        let mut rest = 0;
        for space in [Space::Lease, Space::Members, Space::Alarm, Space::Cluster] {
            let pairs =
                self.read.view.scan(space, std::ops::Bound::Unbounded, std::ops::Bound::Unbounded);
            for (key, value) in pairs.flatten() {
                rest = crc32c::crc32c_append(crc32c::crc32c_append(rest, &key), &value);
            }
        }
        for key in [&b"consistent_index"[..], b"term", b"confState", b"revision"] {
            let value = self.read.view.get(Space::Meta, key).expect("memory reads");
            // A store that was never written to holds no revision, one that came as a snapshot the first.
            let missing = || match key {
                b"revision" => Bytes::copy_from_slice(&1_i64.to_be_bytes()),
                _ => Bytes::new(),
            };
            rest = crc32c::crc32c_append(rest, &value.unwrap_or_else(missing));
        }
        for id in self.machine.leases().map(|grant| grant.id) {
            for key in self.machine.lease_keys(id) {
                rest = crc32c::crc32c_append(rest, &key);
            }
        }
        Digest { revision: self.read.revision, hash, keys: self.read.keys(), rest }
    }
}
