//! A member: the pure rooms, with queues in place of mailboxes, and what survives it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use basalt_proto::encoded::WatchResponse;
use bytes::Bytes;

use super::bugs::Bug;
use super::checks::Digest;
use super::disk::{Disk, Log};
use super::plan::{Knobs, MS, Micros, Point};
use super::random::Random;
use super::store::Store;
use crate::cluster;
use crate::consensus::{self, Driver, Input, ReadyNumber, Restored, Role};
use crate::lease::{Expiry, ttl_min};
use crate::machine::{self, Machine};
use crate::mvcc::{Event, ReadView};
use crate::store::{MemoryView, Space, View as _};
use crate::types::{ConfState, Entry, LogIndex, MemberId, Term};
use crate::wal::Record;
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
    pub(super) paused_until: Micros,
    /// Until when the disk is slow, and how many times as slow.
    pub(super) slow: (Micros, u64),
    pub(super) armed: Option<(Point, Micros)>,
    /// What is on disk for sure: the terms of its entries, and how far it knew them to be committed.
    pub(super) durable: BTreeMap<LogIndex, Term>,
    pub(super) durable_commit: LogIndex,
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
    pub(super) homeless: Vec<Bytes>,
    pub(super) role: Role,
    pub(super) to_write: VecDeque<Write>,
    pub(super) writing: Option<Write>,
    pub(super) tasks: VecDeque<Task>,
    pub(super) apply_due: bool,
    pub(super) compacting: bool,
    /// Reads whose index is not applied yet.
    pub(super) reads: Vec<(LogIndex, u64)>,
    pub(super) mark: LogIndex,
    pub(super) cutting: Option<(LogIndex, Term)>,
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
            paused_until: 0,
            slow: (0, 1),
            armed: None,
            durable: BTreeMap::new(),
            durable_commit: 0,
        }
    }

    /// How far the log is on disk and known to be committed.
    pub(super) fn is_sure_of(&self) -> LogIndex {
        let last = self.durable.last_key_value().map_or(0, |(index, _)| *index);
        self.durable_commit.min(last)
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
                Record::HardState(state) => self.durable_commit = state.commit,
                Record::Metadata { .. } | Record::Mark { .. } => (),
            }
        }
        entries
    }

    /// The power comes back. Gives the entries that it found.
    pub(super) fn start(&mut self, now: Micros, knobs: &Knobs, bug: Option<Bug>) -> Vec<Entry> {
        self.boots += 1;
        let ids: Vec<_> = (1..=knobs.members).collect();
        let conf_state = ConfState { voters: ids.clone(), ..ConfState::default() };
        let first = [
            Record::Metadata { cluster_id: 7, member_id: self.id },
            Record::Mark { index: 0, term: 0, conf_state },
        ];
        let (log, replay) = self
            .disk
            .open(first, bug)
            .unwrap_or_else(|fault| panic!("the log of member {} does not open: {fault}", self.id));
        let settings = machine::Config { cache_bytes: 20_000, lease_ttl_min: ttl_min(1000) };
        let mut machine = Machine::open(self.store.clone(), &settings).unwrap_or_else(|fault| {
            panic!("the store of member {} does not open: {fault}", self.id)
        });
        if machine.is_new() {
            assert_eq!(replay.mark_index, 0, "the store of member {} is gone", self.id);
            let member = |id| cluster::Member { id, ..cluster::Member::default() };
            machine.bootstrap(ids.into_iter().map(member).collect()).expect("memory takes it");
        }
        let read = machine.commit().expect("memory takes it").read;
        let restored = Restored {
            hard_state: replay.hard_state,
            conf_state: machine.conf_state().clone(),
            mark_index: replay.mark_index,
            mark_term: replay.mark_term,
            entries: replay.entries,
            applied: machine.applied(),
        };
        self.durable = restored.entries.iter().map(|it| (it.index, it.term)).collect();
        self.durable.insert(restored.mark_index, restored.mark_term);
        self.durable_commit = restored.hard_state.commit.max(restored.mark_index);
        let config = consensus::Config {
            id: self.id,
            election_ticks: ELECTION_TICKS,
            heartbeat_ticks: 1,
            pre_vote: knobs.pre_vote,
            seed: self.random.next(),
            boot_nonce: self.boots,
            // Peer snapshots do not exist yet: nobody may fall behind what others remember.
            catch_up_entries: 1 << 30,
        };
        let driver = Driver::new(config, &restored)
            .unwrap_or_else(|fault| panic!("member {} does not start: {fault}", self.id));
        let mut expiry = Expiry::new(ELECTION_TICKS as u64 * knobs.tick / MS);
        machine.leases().for_each(|(id, ttl)| expiry.granted(id, ttl, 0));
        let hub_config = watch::Config {
            stream_bytes_max: knobs.stream_bytes,
            stream_bytes_share: knobs.stream_bytes / 2,
            hub_bytes_max: knobs.stream_bytes * 3,
            response_bytes_max: knobs.stream_bytes,
            read_revisions_max: knobs.read_revisions,
            read_bytes_max: knobs.stream_bytes * 2,
            ..watch::Config::new(2000)
        };
        self.live = Some(Live {
            boot: self.boots,
            started: now,
            driver,
            hub: Hub::new(hub_config, read.revision),
            mark: restored.mark_index,
            machine,
            log,
            expiry,
            read,
            lanes: Default::default(),
            round_due: false,
            homeless: Vec::new(),
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

    /// How long the disk takes.
    pub(super) fn disk_time(&mut self, now: Micros, max: Micros) -> Micros {
        let (until, times) = self.slow;
        let time = self.random.skewed(50, max);
        if now < until { time * times } else { time }
    }
}

impl Live {
    /// What this member's clock says since it started, in milliseconds. `drift` is in thousandths above 950.
    pub(super) fn clock_ms(&self, now: Micros, drift: u64) -> u64 {
        (now - self.started) * (950 + drift) / 1000 / MS
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
            rest = crc32c::crc32c_append(rest, &value.unwrap_or_default());
        }
        for (id, _) in self.machine.leases() {
            for key in self.machine.lease_keys(id) {
                rest = crc32c::crc32c_append(rest, &key);
            }
        }
        Digest { revision: self.read.revision, hash, keys: self.read.keys(), rest }
    }
}
