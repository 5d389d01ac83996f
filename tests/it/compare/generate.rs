//! Draws requests from a seed: a small key space, so that requests collide, and every option, also
//! invalid ones. Uses from the answers only values that make later requests interesting.

use basalt_proto::etcdserverpb::{
    AlarmRequest, CompactionRequest, DeleteRangeRequest, HashKvRequest, LeaseGrantRequest,
    LeaseKeepAliveRequest, LeaseLeasesRequest, LeaseRevokeRequest, LeaseTimeToLiveRequest,
    MemberListRequest, PutRequest, RangeRequest, StatusRequest, WatchCreateRequest,
};
use bytes::Bytes;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use super::request::{Call, Step};
use super::{MAX_REQUEST_BYTES, STREAMS};

/// Watchers of one stream, besides the one that keeps it answering.
const WATCHERS_MAX: usize = 8;

/// The generator, and its record of the earlier requests.
pub(super) struct Generator {
    pub(super) rng: StdRng,
    keys: Vec<Bytes>,
    /// The newest revision.
    pub(super) revision: i64,
    pub(super) compacted: i64,
    /// Targets of compactions whose hash the server may or may not have kept.
    unsure_hashes: Vec<i64>,
    /// In every second seed compactions are waited for, and their kept hashes are requested too.
    physical: bool,
    leases: Vec<i64>,
    /// Active watchers by stream.
    pub(super) watchers: Vec<Vec<i64>>,
}

impl Generator {
    pub(super) fn new(seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let keys = key_space(&mut rng);
        Self {
            keys,
            revision: 1,
            compacted: -1,
            unsure_hashes: Vec::new(),
            physical: seed.is_multiple_of(2),
            leases: Vec::new(),
            watchers: vec![Vec::new(); STREAMS],
            rng,
        }
    }

    pub(super) fn chance(&mut self, percent: u32) -> bool {
        self.rng.random_range(0..100) < percent
    }

    /// The next steps. Compactions come only after all streams have settled.
    pub(super) fn next(&mut self) -> Vec<Step> {
        let call = |call| vec![Step::Call(call)];
        match self.rng.random_range(0..1000) {
            0..260 => call(Call::Put(self.put())),
            260..480 => call(Call::Range(self.range())),
            480..510 => call(Call::RangeStream(self.stream())),
            510..580 => call(Call::DeleteRange(self.delete())),
            580..800 => call(Call::Txn(self.txn_root())),
            800..812 => self.compact(),
            812..842 => call(Call::Grant(self.grant())),
            842..845 => vec![Step::GrantAnyId { ttl: self.ttl() }],
            845..860 => call(Call::Revoke(LeaseRevokeRequest { id: self.lease() })),
            860..880 => {
                let (id, keys) = (self.lease(), self.chance(70));
                call(Call::TimeToLive(LeaseTimeToLiveRequest { id, keys }))
            }
            880..890 => call(Call::KeepAlive(LeaseKeepAliveRequest { id: self.lease() })),
            890..895 => call(Call::Leases(LeaseLeasesRequest {})),
            895..910 => call(Call::HashKv(HashKvRequest { revision: self.hash_revision() })),
            910..914 => call(Call::Members(MemberListRequest { linearizable: self.chance(50) })),
            914..918 => call(Call::Status(StatusRequest {})),
            918..920 => call(Call::Alarm(AlarmRequest::default())),
            920..945 => self.watch(),
            945..952 => self.cancel(),
            952..960 => vec![Step::Settle { stream: self.rng.random_range(0..STREAMS) }],
            _ => call(self.garbage()),
        }
    }

    /// A granted lease is used by later requests; a compaction changes the range of revisions.
    pub(super) fn learn(&mut self, call: &Call, done: bool) {
        match call {
            Call::Grant(request) if done && request.id != 0 => self.leases.push(request.id),
            Call::Revoke(request) if done && self.rng.random_bool(0.7) => {
                self.leases.retain(|id| *id != request.id);
            }
            Call::Compact(request) if done => {
                self.compacted = request.revision;
                if !self.physical {
                    self.unsure_hashes.push(request.revision);
                }
            }
            _ => (),
        }
    }

    pub(super) fn key(&mut self) -> Bytes {
        match self.rng.random_range(0..200) {
            0 => Bytes::new(),
            1 => Bytes::from_static(b"\0"),
            2 => Bytes::from_static(b"\xff"),
            _ => self.keys.choose(&mut self.rng).expect("there are keys").clone(),
        }
    }

    pub(super) fn range_end(&mut self, key: &Bytes) -> Bytes {
        match self.rng.random_range(0..10) {
            0..4 => Bytes::new(),
            4..6 => prefix_end(key),
            6 => Bytes::from_static(b"\0"),
            7 => [key.as_ref(), b"\0"].concat().into(),
            _ => self.key(),
        }
    }

    fn value(&mut self) -> Bytes {
        let length = match self.rng.random_range(0..100) {
            0..15 => 0,
            15..90 => self.rng.random_range(1..12),
            90..98 => self.rng.random_range(12..600),
            _ => self.rng.random_range(600..20_000),
        };
        let few = self.chance(50);
        let letters = if few { b'a'..=b'b' } else { 0..=255 };
        (0..length).map(|_| self.rng.random_range(letters.clone())).collect()
    }

    /// Revisions around those that exist; `wild` ones may be lower or higher.
    pub(super) fn revision_near(&mut self) -> i64 {
        match self.rng.random_range(0..20) {
            0 => self.revision + self.rng.random_range(1..4),
            1 => self.compacted,
            2 => self.compacted - 1,
            3 => *[-1, i64::MIN, i64::MAX, 1, 0].choose(&mut self.rng).expect("not empty"),
            4..8 => self.revision,
            _ => self.rng.random_range(self.compacted.max(0)..=self.revision),
        }
    }

    fn sometimes_revision(&mut self, percent: u32) -> i64 {
        if self.chance(percent) { self.revision_near() } else { 0 }
    }

    pub(super) fn put(&mut self) -> PutRequest {
        let (ignore_value, ignore_lease) = (self.chance(6), self.chance(6));
        let plain = !ignore_value || self.chance(15);
        let leased = if ignore_lease { self.chance(15) } else { self.chance(25) };
        PutRequest {
            key: self.key(),
            value: if plain { self.value() } else { Bytes::new() },
            lease: if leased { self.lease() } else { 0 },
            prev_kv: self.chance(40),
            ignore_value,
            ignore_lease,
        }
    }

    pub(super) fn delete(&mut self) -> DeleteRangeRequest {
        let key = self.key();
        // Seldom everything at once: a store that is always empty finds no faults.
        let range_end = match self.chance(70) {
            true => Bytes::new(),
            false => self.range_end(&key),
        };
        DeleteRangeRequest { key, range_end, prev_kv: self.chance(50) }
    }

    pub(super) fn range(&mut self) -> RangeRequest {
        let key = self.key();
        let sorted = self.chance(35);
        let filter = |it: &mut Self| if it.chance(6) { it.revision_near() } else { 0 };
        RangeRequest {
            range_end: if self.chance(65) {
                prefix_or_all(self, &key)
            } else {
                self.range_end(&key)
            },
            key,
            limit: match self.rng.random_range(0..10) {
                0..3 => self.rng.random_range(1..8),
                3 => *[-1, 1000, i64::MAX].choose(&mut self.rng).expect("not empty"),
                _ => 0,
            },
            revision: self.sometimes_revision(35),
            sort_order: if sorted { self.enumeration(3) } else { 0 },
            sort_target: if sorted { self.enumeration(5) } else { 0 },
            serializable: self.chance(30),
            keys_only: self.chance(15),
            count_only: self.chance(10),
            min_mod_revision: filter(self),
            max_mod_revision: filter(self),
            min_create_revision: filter(self),
            max_create_revision: filter(self),
        }
    }

    /// One of `count` enum values, now and then one that does not exist.
    pub(super) fn enumeration(&mut self, count: i32) -> i32 {
        match self.chance(3) {
            true => *[count, 77, -1].choose(&mut self.rng).expect("not empty"),
            false => self.rng.random_range(0..count),
        }
    }

    fn compact(&mut self) -> Vec<Step> {
        let revision = match self.rng.random_range(0..10) {
            0 => self.revision_near(),
            1 => 0,
            _ => self.rng.random_range(self.compacted.max(0)..=self.revision),
        };
        let request = CompactionRequest { revision, physical: self.physical };
        // A watcher that is still catching up would be cancelled or not, by chance.
        let mut steps: Vec<_> = (0..STREAMS).map(|stream| Step::Settle { stream }).collect();
        steps.push(Step::Call(Call::Compact(request)));
        let revision = if self.physical { self.hash_revision() } else { 0 };
        steps.push(Step::Call(Call::HashKv(HashKvRequest { revision })));
        steps
    }

    /// Without an order etcd still sorts each chunk of a stream by the target, and goes on after the last
    /// key of the sorted chunk: it skips keys and sends others twice. Such requests are left out.
    fn stream(&mut self) -> RangeRequest {
        let range = self.range();
        let sort_target = if range.sort_order == 0 { 0 } else { range.sort_target };
        RangeRequest { sort_target, ..range }
    }

    /// Leaves out revisions at which etcd may or may not have kept the hash of a compaction.
    fn hash_revision(&mut self) -> i64 {
        let revision = self.sometimes_revision(60);
        let unsure = self.unsure_hashes.contains(&revision);
        // The compaction just being made counts among the unsure ones.
        if unsure || (!self.physical && revision <= self.compacted) { 0 } else { revision }
    }

    fn grant(&mut self) -> LeaseGrantRequest {
        let taken = self.chance(10);
        let id = match (taken, self.chance(5)) {
            (true, _) => self.lease(),
            (false, true) => -self.rng.random_range(1..100),
            (false, false) => self.rng.random_range(1..1_000_000),
        };
        // Id 0 lets the server choose an id, which would differ.
        LeaseGrantRequest { id: if id == 0 { 1 } else { id }, ttl: self.ttl() }
    }

    /// Seconds; no lease expires while the comparison runs.
    fn ttl(&mut self) -> i64 {
        match self.rng.random_range(0..20) {
            0 => 9_000_000_001,
            1 => 9_000_000_000,
            2 => i64::MAX,
            _ => 1000 << self.rng.random_range(0..5),
        }
    }

    pub(super) fn lease(&mut self) -> i64 {
        match self.rng.random_range(0..20) {
            0 => 0,
            1 => 424_242_424_242,
            2 => -7,
            _ => self.leases.choose(&mut self.rng).copied().unwrap_or(1),
        }
    }

    fn watch(&mut self) -> Vec<Step> {
        let stream = self.rng.random_range(0..STREAMS);
        if self.watchers[stream].len() >= WATCHERS_MAX {
            return self.cancel_on(stream);
        }
        let key = self.key();
        let start_revision = match self.revision_near() {
            _ if self.chance(35) => 0,
            // A start revision that is never reached would keep its stream from settling.
            i64::MAX => -1,
            revision => revision,
        };
        let request = WatchCreateRequest {
            range_end: if self.chance(60) {
                prefix_or_all(self, &key)
            } else {
                self.range_end(&key)
            },
            key,
            start_revision,
            progress_notify: self.chance(20),
            filters: (0..[0, 0, 0, 1, 2][self.rng.random_range(0..5)])
                .map(|_| self.enumeration(2))
                .collect(),
            prev_kv: self.chance(50),
            watch_id: match self.rng.random_range(0..10) {
                0 => self.rng.random_range(1..12),
                1 => self.watchers[stream].choose(&mut self.rng).copied().unwrap_or(0),
                _ => 0,
            },
            fragment: self.chance(30),
        };
        let lost = start_revision > 0 && start_revision < self.compacted;
        match lost {
            true => vec![Step::WatchLost { request }],
            false => vec![Step::Watch { stream, request }],
        }
    }

    fn cancel(&mut self) -> Vec<Step> {
        let stream = self.rng.random_range(0..STREAMS);
        self.cancel_on(stream)
    }

    fn cancel_on(&mut self, stream: usize) -> Vec<Step> {
        let known = self.watchers[stream].choose(&mut self.rng).copied();
        let id = known.filter(|_| !self.chance(10)).unwrap_or(99);
        // Settled before, so that no event is in flight when the watcher is cancelled.
        vec![Step::Settle { stream }, Step::CancelWatch { stream, id }, Step::Settle { stream }]
    }

    pub(super) fn huge(&mut self) -> PutRequest {
        let over = self.rng.random_range(0..4000);
        // Beyond the limit of a request, or beyond the transport's limit.
        let base =
            if self.chance(50) { MAX_REQUEST_BYTES - 2000 } else { MAX_REQUEST_BYTES + 524_288 };
        PutRequest { key: self.key(), value: vec![b'x'; base + over].into(), ..Default::default() }
    }
}

fn key_space(rng: &mut StdRng) -> Vec<Bytes> {
    let count = *[3, 8, 12, 12, 40].choose(rng).expect("not empty");
    let letters = [b'a', b'b', b'/', b'c', 0, 0xff];
    (0..count)
        .map(|_| {
            let length = rng.random_range(1..4);
            (0..length).map(|_| letters[rng.random_range(0..letters.len())]).collect::<Vec<_>>()
        })
        .map(Bytes::from)
        .collect()
}

/// The end of the range of all keys with this prefix.
pub(super) fn prefix_end(key: &Bytes) -> Bytes {
    let mut end = key.to_vec();
    while let Some(last) = end.pop() {
        if last < 0xff {
            end.push(last + 1);
            return end.into();
        }
    }
    Bytes::from_static(b"\0")
}

fn prefix_or_all(generator: &mut Generator, key: &Bytes) -> Bytes {
    if generator.chance(50) {
        Bytes::from_static(b"\0")
    } else {
        prefix_end(&key.slice(..key.len().min(1)))
    }
}
