//! A member: the pure rooms, with queues in place of mailboxes, and its durable state.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::bugs::Bug;
use super::checks::Digest;
use super::disk::{Disk, Log};
use super::plan::{CrashPoint, ELECTION_TICKS, MS, Micros, Parameters};
use super::random::Random;
use super::store::Store;
use crate::cluster;
use crate::consensus::wire::{Priority, priority};
use crate::consensus::{self, Driver, Message, ReadyNumber, Restored};
use crate::lease::ttl_min;
use crate::machine::{self, Machine};
use crate::mvcc::{Event, ReadView};
use crate::replica::{
    AppliedLog, Applier, Input, Inputs, Lane, LeaseKeeper, LogStart, PendingRequests, Replica,
    Settings,
};
use crate::store::{MemoryView, Space, View as _};
use crate::types::limits::{
    APPENDS_MAILBOX, CATCH_UP_ENTRIES_BYTES_MAX, DEFERRED_BYTES_MAX, UNCOMMITTED_BYTES_MAX,
};
use crate::types::{
    CacheBytes, ConfState, DiskSpace, Entry, Fault, FeatureLevel, LogIndex, MemberId, Term,
};
use crate::wal::{Record, Replay};
use crate::watch::{self, Hub, StreamOptions, Streams};

/// Log records read in a slice of compaction.
const COMPACT_SLICE: usize = 7;

/// The durable state of a member, and its volatile state while it runs.
pub(super) struct Member {
    pub(super) id: MemberId,
    pub(super) boots: u64,
    pub(super) random: Random,
    pub(super) disk: Disk,
    pub(super) store: Store,
    pub(super) live: Option<Live>,
    /// Added later: it waits for a snapshot instead of starting with the first members.
    joins: bool,
    /// It was removed and does not return.
    pub(super) gone: bool,
    /// The position of the snapshot with which its store began, if any.
    pub(super) snapshot: Option<(LogIndex, Term)>,
    pub(super) paused_until: Micros,
    /// End of the time in which the disk is slow, and the factor.
    pub(super) slow: (Micros, u64),
    /// End of the time in which the disk is full, and its level.
    pub(super) full_disk: (Micros, DiskSpace),
    pub(super) armed: Option<(CrashPoint, Micros)>,
    /// The durable log: the terms of the log start and of each entry after it.
    pub(super) durable: BTreeMap<LogIndex, Term>,
    /// True if its vote lease is stored on disk.
    promised: bool,
}

/// A write that waits for the disk.
pub(super) struct Write {
    pub(super) number: Option<ReadyNumber>,
    pub(super) records: Vec<Record>,
}

/// Tasks of apply.
pub(super) enum Task {
    Commit(Vec<Entry>),
    ReadAt {
        executor: usize,
        batch: u64,
        index: LogIndex,
    },
    /// The next step of a large entry.
    Step(Entry),
}

/// The mailbox of consensus. A snapshot is a file here.
#[derive(Default)]
pub(super) struct Mailbox {
    acks: VecDeque<Input<Bytes>>,
    control: VecDeque<Input<Bytes>>,
    appends: VecDeque<Input<Bytes>>,
    requests: VecDeque<Input<Bytes>>,
}

impl Mailbox {
    /// Adds an input to a lane.
    pub(super) fn push(&mut self, lane: Lane, input: Input<Bytes>) {
        self.lane(lane).push_back(input);
    }

    /// Adds a message of another member. Appends are lost if their lane is full: raft sends them again.
    pub(super) fn deliver(&mut self, message: Box<Message>) {
        match priority(&message) {
            Priority::Bulk if self.appends.len() >= APPENDS_MAILBOX => (),
            Priority::Bulk => self.push(Lane::Appends, Input::Peer(message)),
            Priority::Urgent | Priority::Snapshot => self.push(Lane::Control, Input::Peer(message)),
        }
    }

    fn lane(&mut self, lane: Lane) -> &mut VecDeque<Input<Bytes>> {
        match lane {
            Lane::Acks => &mut self.acks,
            Lane::Control => &mut self.control,
            Lane::Appends => &mut self.appends,
            Lane::Requests => &mut self.requests,
        }
    }
}

impl Inputs<Bytes> for Mailbox {
    fn pop(&mut self, lane: Lane) -> Option<Input<Bytes>> {
        self.lane(lane).pop_front()
    }
}

/// Streams of clients that do not require a leader.
const STREAM_OPTIONS: StreamOptions =
    StreamOptions { progress_interval_ms: 700, no_leader_ms_max: 3000, seed: 1 };

/// Number of executors with requests.
pub(super) const EXECUTORS: usize = 2;

/// A member that runs.
pub(super) struct Live {
    pub(super) boot: u64,
    pub(super) started: Micros,
    pub(super) replica: Replica<Bytes>,
    pub(super) applier: Applier<Store>,
    pub(super) keeper: LeaseKeeper,
    pub(super) pending: [PendingRequests; EXECUTORS],
    pub(super) log: Log,
    pub(super) streams: Streams,
    /// The published state.
    pub(super) read: ReadView<MemoryView>,
    pub(super) mailbox: Mailbox,
    pub(super) round_due: bool,
    /// The clock's time at the end of the last round.
    pub(super) round_ended: Duration,
    /// Members to which a snapshot is being sent.
    pub(super) transferring: BTreeSet<MemberId>,
    pub(super) to_write: VecDeque<Write>,
    pub(super) writing: Option<Write>,
    pub(super) tasks: VecDeque<Task>,
    pub(super) apply_due: bool,
    /// The newest log start that was handed to the disk.
    pub(super) log_start_index: LogIndex,
    /// A log start that waits for the store to be synced.
    pub(super) truncating: Option<LogStart>,
    /// The term in which this member leads, for its lease keeper.
    pub(super) leads: Option<Term>,
    /// Clients that wait for an answer, by the ids of their requests.
    pub(super) waiting: BTreeMap<u64, usize>,
    /// Clients that wait for a read index, by executor and batch.
    pub(super) reading: BTreeMap<(usize, u64), Vec<usize>>,
    pub(super) batches: VecDeque<(Arc<[Event]>, i64)>,
    pub(super) missed: bool,
    pub(super) hub_due: bool,
    /// The clients of the streams.
    pub(super) watching: BTreeMap<u32, usize>,
}

impl Member {
    pub(super) fn new(id: MemberId, seed: u64, parameters: &Parameters) -> Self {
        Self {
            id,
            boots: 0,
            random: Random::new(seed, "member", id),
            disk: Disk::new(parameters.segment_blocks),
            store: Store::default(),
            live: None,
            joins: id > parameters.members,
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

    /// True if an entry is on its disk, or covered by its log start.
    pub(super) fn holds(&self, entry: &Entry) -> bool {
        let is_below = |(mark, _): (&LogIndex, _)| *mark > entry.index;
        self.durable.get(&entry.index) == Some(&entry.term)
            || self.durable.first_key_value().is_some_and(is_below)
    }

    /// Records became durable. Returns the entries among them, each with the term of the one before.
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
                Record::LogStart { index, term, .. } => {
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

    /// Restarts the member. Returns the entries in its log.
    pub(super) fn start(
        &mut self,
        now: Micros,
        parameters: &Parameters,
        bug: Option<Bug>,
    ) -> Vec<Entry> {
        self.boots += 1;
        let (log, mut machine, mut restored) = self.recover(parameters, bug);
        let promised = std::mem::replace(&mut self.promised, parameters.lease_reads);
        if promised && bug != Some(Bug::PromiseForgotten) {
            restored.vote_lease_ticks = ELECTION_TICKS;
        }
        let read = machine.commit().expect("memory takes it").read;
        let config = consensus::Config {
            id: self.id,
            election_ticks: ELECTION_TICKS,
            heartbeat_ticks: 1,
            pre_vote: parameters.pre_vote,
            seed: self.random.next(),
            boot_nonce: self.boots,
            catch_up_entries: parameters.catch_up_entries,
            catch_up_bytes_max: CATCH_UP_ENTRIES_BYTES_MAX,
            uncommitted_bytes_max: UNCOMMITTED_BYTES_MAX,
            logger: None,
            vote_lease: parameters.vote_lease(),
        };
        let driver = Driver::new(config, &restored)
            .unwrap_or_else(|fault| panic!("member {} does not start: {fault}", self.id));
        let boot_nonce = match bug {
            Some(Bug::RepliesToStrangers) => self.id as u32,
            _ => (self.id as u32) << 16 | self.boots as u32 & 0xffff,
        };
        let settings = Settings {
            executors: EXECUTORS,
            boot_nonce,
            snapshot_count: parameters.snapshot_count,
            slice_records: COMPACT_SLICE,
            compaction_batch: 3 * COMPACT_SLICE,
            compaction_pause: Duration::from_millis(3),
        };
        let extend_ms = ELECTION_TICKS as u64 * parameters.tick / MS;
        self.live = Some(Live {
            boot: self.boots,
            started: now,
            replica: Replica::new(
                driver,
                Duration::from_micros(parameters.tick),
                DEFERRED_BYTES_MAX,
            ),
            streams: Streams::new(Hub::new(hub_config(parameters), read.revision), STREAM_OPTIONS),
            log_start_index: restored.log_start_index,
            keeper: LeaseKeeper::new(extend_ms, machine.leases(), 0),
            applier: Applier::new(machine, &settings, AppliedLog::from(&restored)),
            pending: [0, 1].map(|executor| PendingRequests::new(executor, boot_nonce, 0)),
            log,
            read,
            mailbox: Mailbox::default(),
            round_due: false,
            round_ended: Duration::ZERO,
            transferring: BTreeSet::new(),
            to_write: VecDeque::new(),
            writing: None,
            tasks: VecDeque::new(),
            apply_due: false,
            truncating: None,
            leads: None,
            waiting: BTreeMap::new(),
            reading: BTreeMap::new(),
            batches: VecDeque::new(),
            missed: false,
            hub_due: false,
            watching: BTreeMap::new(),
        });
        restored.entries
    }

    /// Recovers the state on its disk.
    fn recover(
        &mut self,
        parameters: &Parameters,
        bug: Option<Bug>,
    ) -> (Log, Machine<Store>, Restored) {
        let (mut log, mut replay) = self
            .disk
            .open(self.beginning(parameters), bug)
            .unwrap_or_else(|fault| panic!("the log of member {} does not open: {fault}", self.id));
        let mut machine = open_machine(&self.store).unwrap_or_else(|fault| {
            panic!("the store of member {} does not open: {fault}", self.id)
        });
        self.finish_snapshot(&machine, &mut log, &mut replay);
        if machine.is_new() && !self.joins {
            let begins = replay.log_start_index == parameters.members;
            assert!(begins, "the store of member {} is gone", self.id);
            machine
                .bootstrap((1..=parameters.members).map(described).collect())
                .expect("memory takes it");
        }
        let restored = Restored {
            hard_state: replay.hard_state,
            conf_state: machine.conf_state().clone(),
            log_start_index: replay.log_start_index,
            log_start_term: replay.log_start_term,
            entries: replay.entries,
            applied: machine.applied(),
            vote_lease_ticks: 0,
        };
        self.durable = restored.entries.iter().map(|it| (it.index, it.term)).collect();
        self.durable.insert(restored.log_start_index, restored.log_start_term);
        (log, machine, restored)
    }

    /// The first records of its log.
    fn beginning(&self, parameters: &Parameters) -> [Record; 2] {
        let owner = Record::Metadata { cluster_id: 7, member_id: self.id };
        let mut conf_state = ConfState::default();
        if self.joins {
            return [owner, Record::LogStart { index: 0, term: 0, conf_state }];
        }
        conf_state.voters = (1..=parameters.members).collect();
        [owner, Record::LogStart { index: parameters.members, term: 1, conf_state }]
    }

    /// It may have crashed after it installed a snapshot's store and before it began the log for it.
    fn finish_snapshot(&mut self, machine: &Machine<Store>, log: &mut Log, replay: &mut Replay) {
        let Some((index, term)) = self.snapshot else { return };
        if replay.log_start_index < index && machine.position() == (index, term) {
            let mark = Record::LogStart { index, term, conf_state: machine.conf_state().clone() };
            self.disk.append(log, std::slice::from_ref(&mark));
            self.disk.finish(log);
            replay.take(mark).expect("a mark always fits");
        }
    }

    /// Duration of a disk operation.
    pub(super) fn disk_time(&mut self, now: Micros, max: Micros) -> Micros {
        let (until, times) = self.slow;
        let time = self.random.skewed(50, max);
        if now < until { time * times } else { time }
    }
}

/// A member's entry in the membership.
pub(super) fn described(id: MemberId) -> cluster::Member {
    let peer_urls = vec![format!("http://{id}:2380")];
    cluster::Member { id, peer_urls, name: id.to_string(), ..cluster::Member::default() }
}

fn hub_config(parameters: &Parameters) -> watch::Config {
    watch::Config {
        stream_bytes_max: parameters.stream_bytes,
        stream_bytes_share: parameters.stream_bytes / 2,
        hub_bytes_max: parameters.stream_bytes * 3,
        response_bytes_max: parameters.stream_bytes,
        read_revisions_max: parameters.read_revisions,
        read_bytes_max: parameters.stream_bytes * 2,
        ..watch::Config::new(2000)
    }
}

/// Entries of two records and more count as large here, and are staged at once.
const STEPS: machine::StepLimits = machine::StepLimits { at_once_records: 1, stage_writes: 1 };

/// The state machine on a store.
pub(super) fn open_machine(store: &Store) -> Result<Machine<Store>, Fault> {
    let lease_ttl_min = ttl_min(1000);
    let feature_level = FeatureLevel::NEWEST;
    let settings = machine::Config {
        caches: CacheBytes { records: 20_000, lists: 20_000 },
        lease_ttl_min,
        learners_max: 1,
        feature_level,
        steps: STEPS,
    };
    Machine::open(store.clone(), &settings)
}

impl Live {
    /// The time on this member's clock since it started. `drift` is in thousandths above 950.
    pub(super) fn clock(&self, now: Micros, drift: u64) -> Duration {
        Duration::from_micros((now - self.started) * (950 + drift) / 1000)
    }

    pub(super) fn published(&self) -> watch::Published {
        watch::Published { revision: self.read.revision, compacted: self.read.compacted }
    }

    /// Digest of everything that is equal on members that have applied the same entries.
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
            // A store that was never written to has no revision, one from a snapshot has the first.
            let missing = || match key {
                b"revision" => Bytes::copy_from_slice(&1_i64.to_be_bytes()),
                _ => Bytes::new(),
            };
            rest = crc32c::crc32c_append(rest, &value.unwrap_or_else(missing));
        }
        for id in self.applier.machine().leases().map(|grant| grant.id) {
            for key in self.applier.machine().lease_keys(id) {
                rest = crc32c::crc32c_append(rest, &key);
            }
        }
        Digest { revision: self.read.revision, hash, keys: self.read.keys(), rest }
    }
}
