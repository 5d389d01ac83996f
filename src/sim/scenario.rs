//! The conditions of past faults of etcd, each as a form of plans. The numbers are those of etcd's issues. Two more
//! scenarios cover conditions that random plans seldom reach.

use super::outcome::Outcome;
use super::plan::{
    ClientOp, CrashPoint, Fault, From, LEADER, MS, Micros, Operation, Plan, SECOND, Watch, Wire,
};
use super::random::Random;
use crate::types::LeaseId;

/// A past fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scenario {
    /// 13766: after a crash under load, entries were applied twice or not at all.
    CrashUnderLoad,
    /// 14370: a single member lost acknowledged writes.
    SingleMemberCrash,
    /// 14571: the state that determines if a request is refused was lost after a restart (there: users; here: alarms).
    RefusalAfterRestart,
    /// 14685: a crash during a rewrite of the store.
    CrashInSync,
    /// 15220: progress was reported before the events up to it were sent.
    ProgressTooEarly,
    /// 15271: after a partition a watch went back to earlier revisions.
    WatchAfterPartition,
    /// 17247: a transaction's event was sent twice.
    TransactionEvents,
    /// 17529: slow streams lost events.
    StarvedStreams,
    /// 17780: the revision decreased after a crash during compaction.
    CrashInCompaction,
    /// 18055: two snapshots at once.
    TwoSnapshots,
    /// 18089: a compaction at a deletion removed its event.
    CompactionAtDeletion,
    /// 18667: a read at an old revision inside a transaction, while members compact.
    CompactedReadInTransaction,
    /// 19179: a watch from the revision of a compaction missed the deletion there.
    WatchFromCompaction,
    /// 20221: a watch from a future revision was sent earlier events.
    WatchFromFuture,
    /// 20271: the store could not be read after a crash.
    TornWrites,
    /// 20418: a leader that had been paused served a stale read.
    ReadAfterPause,
    /// Entries of a partitioned leader are replaced, and then the power fails.
    ReplacedEntries,
    /// A leader with a lease is partitioned, at moments at which other members might lead or vote too early.
    ReadsAlone,
}

impl Scenario {
    /// All scenarios.
    pub const ALL: [Self; 18] = [
        Self::CrashUnderLoad,
        Self::SingleMemberCrash,
        Self::RefusalAfterRestart,
        Self::CrashInSync,
        Self::ProgressTooEarly,
        Self::WatchAfterPartition,
        Self::TransactionEvents,
        Self::StarvedStreams,
        Self::CrashInCompaction,
        Self::TwoSnapshots,
        Self::CompactionAtDeletion,
        Self::CompactedReadInTransaction,
        Self::WatchFromCompaction,
        Self::WatchFromFuture,
        Self::TornWrites,
        Self::ReadAfterPause,
        Self::ReplacedEntries,
        Self::ReadsAlone,
    ];

    /// True if the condition of the scenario occurred in some run at all.
    pub fn came_about(self, runs: &Outcome) -> bool {
        match self {
            Self::CrashUnderLoad
            | Self::SingleMemberCrash
            | Self::RefusalAfterRestart
            | Self::CrashInSync
            | Self::CrashInCompaction
            | Self::ReplacedEntries => runs.crashes > 0 && runs.answered > 0,
            Self::ProgressTooEarly
            | Self::WatchAfterPartition
            | Self::TransactionEvents
            | Self::StarvedStreams
            | Self::CompactionAtDeletion
            | Self::WatchFromCompaction
            | Self::WatchFromFuture => runs.watched > 0,
            Self::TwoSnapshots => runs.snapshots > 1,
            Self::CompactedReadInTransaction => runs.answered > 0,
            Self::TornWrites => runs.torn > 0,
            Self::ReadAfterPause => runs.faults > 0 && runs.answered > 0,
            Self::ReadsAlone => runs.lease_reads > 0 && runs.faults > 0,
        }
    }

    /// The plan of a seed, changed to create the condition of the scenario.
    pub fn plan(self, seed: u64) -> Plan {
        // Seeds that are multiples of eight make short plans.
        let mut plan = Plan { seed, ..Plan::new(seed * 8) };
        plan.faults.retain(|(_, fault)| !matches!(fault, Fault::FullDisk { .. }));
        self.shape(&mut plan);
        plan
    }

    fn shape(self, plan: &mut Plan) {
        let random = &mut Random::new(plan.seed, "scenario", self as u64);
        // Leases take long to expire.
        let is_long = matches!(self, Self::ReadAfterPause | Self::ReadsAlone);
        plan.lasts = if is_long { 40 } else { 15 } * SECOND;
        plan.parameters.members = if self == Self::SingleMemberCrash { 1 } else { 3 };
        plan.parameters.tick = 100 * MS;
        plan.parameters.drift = (0..plan.parameters.members).map(|_| random.below(101)).collect();
        if self == Self::ReadsAlone {
            // Members that might act too early do so soon enough, and short histories of many keys are checked fast.
            (plan.parameters.lease_reads, plan.parameters.keys) = (true, 4);
            plan.parameters.wire = Wire { loss_permille: 0, repeat_permille: 0, delay_max: 5 * MS };
            (plan.parameters.disk_max, plan.parameters.apply_max) = (5 * MS, 2 * MS);
        }
        let pause_max = if self == Self::ReadsAlone { 10 * MS } else { 40 * MS };
        plan.operations = operations(random, plan, pause_max, self.asks());
        plan.watches = match self.watch_from() {
            Some(from) => (0..4).map(|_| self.watch(random, plan, from)).collect(),
            None => Vec::new(),
        };
        plan.faults = (0..20)
            .filter_map(|_| {
                Some((random.between(2, plan.lasts / SECOND - 1) * SECOND, self.fault(random)?))
            })
            .collect();
        if self == Self::ReplacedEntries {
            plan.faults = (0..5).flat_map(|turn| replacement(random, turn)).collect();
        }
        if self == Self::ReadsAlone {
            plan.faults = (0..7).flat_map(|turn| usurpation(random, turn)).collect();
        }
        plan.faults.sort_by_key(|(at, _)| *at);
        if matches!(self, Self::TwoSnapshots | Self::CrashInSync | Self::TornWrites) {
            (plan.parameters.snapshot_count, plan.parameters.catch_up_entries) = (20, 1);
        }
        if self.starves() {
            (plan.parameters.stream_bytes, plan.parameters.read_revisions) = (300, 2);
            plan.parameters.hub_mailbox = 1;
        }
    }

    /// Kinds of requests, by weight.
    fn asks(self) -> &'static [(u64, Kind)] {
        match self {
            Self::RefusalAfterRestart => &[(6, Kind::Put), (1, Kind::Alarm), (1, Kind::Get)],
            Self::TransactionEvents => &[(2, Kind::Pair), (2, Kind::Swap), (1, Kind::Past)],
            Self::CrashInCompaction
            | Self::CompactionAtDeletion
            | Self::WatchFromCompaction
            | Self::CrashInSync => &[(4, Kind::Put), (4, Kind::Delete), (2, Kind::Compact)],
            Self::CompactedReadInTransaction => &[(4, Kind::Past), (1, Kind::Compact)],
            Self::ReadAfterPause => {
                &[(15, Kind::Put), (50, Kind::Get), (3, Kind::Grant), (1, Kind::Renew)]
            }
            Self::ReadsAlone => &[(1, Kind::Put), (2, Kind::Get)],
            Self::CrashUnderLoad
            | Self::SingleMemberCrash
            | Self::ProgressTooEarly
            | Self::WatchAfterPartition
            | Self::StarvedStreams
            | Self::TwoSnapshots
            | Self::WatchFromFuture
            | Self::ReplacedEntries
            | Self::TornWrites => &[(4, Kind::Put), (2, Kind::Get), (1, Kind::Delete)],
        }
    }

    fn watch_from(self) -> Option<From> {
        match self {
            Self::ProgressTooEarly | Self::TransactionEvents | Self::CrashUnderLoad => {
                Some(From::Now)
            }
            Self::WatchAfterPartition | Self::StarvedStreams => Some(From::Start),
            Self::CompactionAtDeletion | Self::WatchFromCompaction => Some(From::Compaction),
            Self::WatchFromFuture => Some(From::Future(5)),
            Self::SingleMemberCrash
            | Self::RefusalAfterRestart
            | Self::CrashInSync
            | Self::CrashInCompaction
            | Self::TwoSnapshots
            | Self::CompactedReadInTransaction
            | Self::TornWrites
            | Self::ReadAfterPause
            | Self::ReplacedEntries
            | Self::ReadsAlone => None,
        }
    }

    /// True if watching clients are slow, and their streams small.
    fn starves(self) -> bool {
        matches!(self, Self::ProgressTooEarly | Self::StarvedStreams)
    }

    fn watch(self, random: &mut Random, plan: &Plan, from: From) -> Watch {
        Watch {
            at: random.below(plan.lasts / 2),
            key: random.chance(300).then(|| random.below(plan.parameters.keys)),
            from,
            prev_kv: random.chance(500),
            fragment: random.chance(300),
            slowness: if self.starves() { 2 * SECOND } else { 20 * MS },
        }
    }

    fn fault(self, random: &mut Random) -> Option<Fault> {
        let anyone = random.between(1, 3);
        let member = if random.chance(500) { LEADER } else { anyone };
        let lasts = random.skewed(50 * MS, 3 * SECOND);
        let crash_at = |random: &mut Random, points: &[CrashPoint]| {
            Some(Fault::CrashAt { member, point: *random.pick(points), lasts })
        };
        match self {
            Self::CrashUnderLoad => {
                crash_at(random, &[CrashPoint::Writing, CrashPoint::Written, CrashPoint::Applied])
            }
            Self::SingleMemberCrash => {
                let point =
                    *random.pick(&[CrashPoint::Writing, CrashPoint::Written, CrashPoint::Applied]);
                Some(Fault::CrashAt { member: 1, point, lasts })
            }
            Self::CrashInSync => crash_at(random, &[CrashPoint::Syncing, CrashPoint::Synced]),
            Self::CrashInCompaction => {
                crash_at(random, &[CrashPoint::Compacting, CrashPoint::Syncing])
            }
            Self::TornWrites => crash_at(random, &[CrashPoint::Writing]),
            Self::RefusalAfterRestart => Some(Fault::Crash { member, lasts }),
            Self::ReplacedEntries | Self::ReadsAlone => None,
            Self::WatchAfterPartition => {
                Some(Fault::Partition { side: vec![member], one_way: random.chance(300), lasts })
            }
            Self::TwoSnapshots if random.chance(500) => Some(Fault::Crash { member, lasts }),
            Self::TwoSnapshots => {
                Some(Fault::Partition { side: vec![anyone], one_way: false, lasts })
            }
            Self::ReadAfterPause => {
                let lasts = random.between(SECOND / 2, 6 * SECOND);
                random.chance(200).then_some(Fault::Pause { member: LEADER, lasts })
            }
            Self::ProgressTooEarly
            | Self::TransactionEvents
            | Self::StarvedStreams
            | Self::CompactionAtDeletion
            | Self::CompactedReadInTransaction
            | Self::WatchFromCompaction
            | Self::WatchFromFuture => random.chance(200).then_some(Fault::Crash { member, lasts }),
        }
    }
}

/// The leader is partitioned, and soon after that ends all members lose power.
fn replacement(random: &mut Random, turn: u64) -> [(Micros, Fault); 2] {
    let (at, lasts) = ((2 + turn * 5 / 2) * SECOND, random.between(1200, 2200) * MS);
    let partition = Fault::Partition { side: vec![LEADER], one_way: false, lasts };
    let blackout = Fault::Blackout { lasts: 100 * MS };
    [(at, partition), (at + lasts + random.skewed(MS, 300 * MS), blackout)]
}

/// The leader is partitioned during its lease, and another member tries to become leader.
fn usurpation(random: &mut Random, turn: u64) -> Vec<(Micros, Fault)> {
    let at = (2 + turn * 5) * SECOND;
    let one = random.between(1, 3);
    let other = (one + random.below(2)) % 3 + 1;
    let cut = |one_way, lasts| Fault::Partition { side: vec![LEADER], one_way, lasts };
    match random.below(4) {
        // One follower has received no heartbeat for long; the other one has, loses the leader, and campaigns.
        0 => {
            let then = at + random.between(1100 * MS, 2200 * MS);
            let side = vec![one];
            let crash = Fault::Crash { member: other, lasts: random.between(10 * MS, 100 * MS) };
            let stands = then + random.between(100 * MS, 250 * MS);
            vec![
                (at, Fault::Partition { side, one_way: false, lasts: then - at }),
                (then - random.below(50 * MS), crash),
                (then, cut(false, 2 * SECOND)),
                (stands, Fault::Campaign { member: other }),
            ]
        }
        // Responses arrive long after the last heartbeat was received.
        1 => {
            let wire = Wire { loss_permille: 0, repeat_permille: 0, delay_max: 2 * SECOND };
            let deaf = at + random.between(200 * MS, 900 * MS);
            vec![
                (at, Fault::Noise { wire, lasts: SECOND }),
                (deaf, cut(true, 4 * SECOND)),
                (deaf + random.between(300 * MS, 1300 * MS), cut(false, 2 * SECOND)),
            ]
        }
        // A follower becomes leader by a transfer.
        2 => {
            let transfer = Fault::Transfer { member: LEADER, to: one };
            vec![(at, transfer), (at + random.skewed(1, 60 * MS), cut(false, 2 * SECOND))]
        }
        // The leader is paused, and does not know of the next one when it continues.
        _ => {
            let lasts = random.between(1200 * MS, 3 * SECOND);
            let pause = Fault::Pause { member: LEADER, lasts };
            vec![(at, pause), (at + 10 * MS, cut(false, lasts + SECOND))]
        }
    }
}

/// The request of a client.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Put,
    Get,
    Delete,
    Swap,
    Pair,
    Past,
    Compact,
    Alarm,
    Grant,
    Renew,
}

fn operations(
    random: &mut Random,
    plan: &Plan,
    pause_max: Micros,
    kinds: &[(u64, Kind)],
) -> Vec<Operation> {
    let mut at: Micros = SECOND;
    let mut operations = Vec::new();
    while at < plan.lasts {
        at += random.between(1, pause_max);
        let kind = pick(random, kinds);
        let key = random.below(plan.parameters.keys);
        let lease = random.between(1, plan.parameters.members) as LeaseId;
        let ask = match kind {
            Kind::Put => ClientOp::Put { key },
            Kind::Get => ClientOp::Get { key },
            Kind::Delete => ClientOp::Delete { key },
            Kind::Swap => ClientOp::Swap { key },
            Kind::Pair => ClientOp::PutPair,
            Kind::Past => ClientOp::PutAndLookBack { key, back: random.below(15) as i64 },
            Kind::Compact => ClientOp::Compact { back: random.below(4) as i64 },
            Kind::Grant => ClientOp::Grant { lease, ttl: random.between(3, 12) as i64 },
            Kind::Renew => ClientOp::KeepAlive { lease },
            Kind::Alarm => ClientOp::Alarm { on: random.chance(300) },
        };
        let anyone = random.between(1, plan.parameters.members);
        // Renewals of one lease are sent to one member only.
        let member = if matches!(ask, ClientOp::KeepAlive { .. }) { lease as u64 } else { anyone };
        operations.push(Operation { at, member, timeout: 3 * SECOND, ask });
    }
    operations
}

fn pick(random: &mut Random, kinds: &[(u64, Kind)]) -> Kind {
    let mut drawn = random.below(kinds.iter().map(|(weight, _)| weight).sum());
    for (weight, kind) in kinds {
        if drawn < *weight {
            return *kind;
        }
        drawn -= weight;
    }
    Kind::Get
}
