//! The plan of a run: drawn from the seed before it begins, so that parts of it can be removed while the rest
//! stays the same.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// In simulated time.
pub(super) use super::linear::Micros;
use super::random::Random;
use crate::consensus::vote_lease;
use crate::types::{DiskSpace, LeaseId, MemberId};

/// Ticks of the shortest election timeout.
pub(super) const ELECTION_TICKS: usize = 10;

pub(super) const MS: Micros = 1000;
pub(super) const SECOND: Micros = 1000 * MS;

/// Stands for the member that leads when a fault begins.
pub(super) const LEADER: MemberId = 0;

/// A fault, and its duration. A member may be [`LEADER`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Fault {
    /// Messages between the two sides are lost; `one_way`: only those from the first side.
    Partition { side: Vec<MemberId>, one_way: bool, lasts: Micros },
    /// A member loses power.
    Crash { member: MemberId, lasts: Micros },
    /// A member loses power as soon as it reaches this point.
    CrashAt { member: MemberId, point: CrashPoint, lasts: Micros },
    /// All members lose power.
    Blackout { lasts: Micros },
    /// A member is paused, but its clock and mailboxes are not.
    Pause { member: MemberId, lasts: Micros },
    /// Writes and syncs take `times` as long.
    SlowDisk { member: MemberId, times: u64, lasts: Micros },
    /// A member's disk has little free space or none.
    FullDisk { member: MemberId, space: DiskSpace, lasts: Micros },
    /// The network loses, repeats and delays more than usual.
    Noise { wire: Wire, lasts: Micros },
    /// Another member joins, without a vote.
    Grow,
    /// Learners that follow closely get a vote.
    Promote,
    /// A member is removed.
    Shrink { member: MemberId },
    /// A member campaigns.
    Campaign { member: MemberId },
    /// The leader, if it is this one, transfers leadership.
    Transfer { member: MemberId, to: MemberId },
}

/// Points at which a crash is most interesting.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) enum CrashPoint {
    /// A write was begun.
    Writing,
    /// A write is durable, and not acknowledged.
    Written,
    /// A batch is in the store, and not acknowledged.
    Applied,
    /// The store is being synced.
    Syncing,
    /// The store is synced, the log not truncated.
    Synced,
    /// A part of a large entry is in the store's memory, and not committed.
    Stepping,
    /// A slice of compaction is in the store.
    Compacting,
    /// The member has become leader.
    Elected,
    /// Another member's state is installed, and the log does not begin there yet.
    Installed,
}

/// Rates of the network's faults.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Wire {
    pub(super) loss_permille: u64,
    pub(super) repeat_permille: u64,
    pub(super) delay_max: Micros,
}

/// The kind of a client's request.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) enum ClientOp {
    Put {
        key: u64,
    },
    Get {
        key: u64,
    },
    /// From the local state of the member.
    GetSerializable {
        key: u64,
    },
    Delete {
        key: u64,
    },
    /// Put if the key is unchanged since the client last saw it.
    Swap {
        key: u64,
    },
    /// Two keys in one transaction, which must be seen together.
    PutPair,
    GetPair,
    /// A put, and a read of the key so many revisions ago.
    PutAndLookBack {
        key: u64,
        back: i64,
    },
    /// Compact all but so many revisions.
    Compact {
        back: i64,
    },
    /// Raise NOSPACE: no more puts, until it is disarmed.
    Alarm {
        on: bool,
    },
    Grant {
        lease: LeaseId,
        ttl: i64,
    },
    KeepAlive {
        lease: LeaseId,
    },
    PutLeased {
        lease: LeaseId,
    },
}

impl ClientOp {
    /// True if it reads the published state, or renews a lease, after a read index.
    pub(super) fn is_read(self) -> bool {
        matches!(
            self,
            Self::Get { .. }
                | Self::GetSerializable { .. }
                | Self::GetPair
                | Self::KeepAlive { .. }
        )
    }
}

/// A client's request.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Operation {
    pub(super) at: Micros,
    pub(super) member: MemberId,
    pub(super) timeout: Micros,
    pub(super) ask: ClientOp,
}

/// Start of a watch.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) enum From {
    Now,
    Start,
    /// At the compaction revision.
    Compaction,
    /// After so many revisions that do not exist yet.
    Future(i64),
}

/// A client that watches, and continues on another member after a disconnection.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Watch {
    pub(super) at: Micros,
    /// The first watched key; `None` for all keys.
    pub(super) key: Option<u64>,
    pub(super) from: From,
    pub(super) prev_kv: bool,
    pub(super) fragment: bool,
    /// The longest time of reading a response.
    pub(super) slowness: Micros,
}

/// Parameters that do not change during a run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Parameters {
    pub(super) members: u64,
    pub(super) keys: u64,
    pub(super) pre_vote: bool,
    /// Time between two ticks of an exact clock.
    pub(super) tick: Micros,
    pub(super) wire: Wire,
    /// Speed of each member's clock, in thousandths of the true speed above 950.
    pub(super) drift: Vec<u64>,
    pub(super) disk_max: Micros,
    pub(super) apply_max: Micros,
    pub(super) segment_blocks: usize,
    pub(super) snapshot_count: u64,
    /// Entries kept in memory for followers that lag.
    pub(super) catch_up_entries: u64,
    pub(super) hub_mailbox: usize,
    pub(super) stream_bytes: usize,
    pub(super) read_revisions: usize,
    /// Leaders answer reads under the vote leases of a quorum.
    pub(super) lease_reads: bool,
}

impl Parameters {
    /// The vote lease of the members.
    pub(super) fn vote_lease(&self) -> Duration {
        let vote_lease = vote_lease(ELECTION_TICKS, Duration::from_micros(self.tick));
        if self.lease_reads { vote_lease } else { Duration::ZERO }
    }
}

/// The plan of a run.
#[derive(Clone, Debug)]
pub struct Plan {
    pub(super) seed: u64,
    pub(super) parameters: Parameters,
    pub(super) lasts: Micros,
    pub(super) faults: Vec<(Micros, Fault)>,
    pub(super) operations: Vec<Operation>,
    pub(super) watches: Vec<Watch>,
}

impl Plan {
    /// The plan of a seed.
    pub fn new(seed: u64) -> Self {
        let random = &mut Random::new(seed, "plan", 0);
        let mut parameters = parameters(random);
        // Drawn from its own stream, so that adding it did not change the plans of existing seeds.
        parameters.lease_reads = Random::new(seed, "reads alone", 0).chance(333);
        let (lasts, pause, faults_max) = if Self::is_long(seed) {
            let lasts = random.between(3600, 4 * 3600) * SECOND;
            (lasts, random.between(200, 800) * MS, lasts / (20 * SECOND))
        } else {
            (random.between(10, 40) * SECOND, random.skewed(3 * MS, 200 * MS), 40)
        };
        let mut faults = faults(random, &parameters, lasts, faults_max);
        faults.extend(full_disks(&mut Random::new(seed, "full disks", 0), &parameters, lasts));
        faults.sort_by_key(|(at, _)| *at);
        let operations = operations(random, &parameters, lasts, pause);
        let watches = (0..random.below(5)).map(|_| watch(random, &parameters, lasts)).collect();
        Self { seed, parameters, lasts, faults, operations, watches }
    }

    /// The seed of decisions that the plan leaves open.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// One of so many consecutive seeds makes hours of usual load with occasional faults; the others make storms
    /// of some seconds.
    pub const LONG_EVERY: u64 = 8;

    /// True if a seed makes such a long run.
    pub fn is_long(seed: u64) -> bool {
        seed % Self::LONG_EVERY == Self::LONG_EVERY - 1
    }

    /// Number of parts that can be removed: faults, operations, watches.
    pub fn parts(&self) -> usize {
        self.faults.len() + self.operations.len() + self.watches.len()
    }

    /// The plan without these parts.
    pub fn without(&self, dropped: &BTreeSet<usize>) -> Self {
        let mut plan = self.clone();
        let (faults, operations) = (self.faults.len(), self.operations.len());
        let mut at = 0..;
        let mut kept = |first: usize| !dropped.contains(&(first + at.next().unwrap_or_default()));
        plan.faults.retain(|_| kept(0));
        // A removed operation keeps its number, so that the others keep theirs.
        for (number, operation) in plan.operations.iter_mut().enumerate() {
            if dropped.contains(&(faults + number)) {
                operation.at = Micros::MAX;
            }
        }
        for (number, watch) in plan.watches.iter_mut().enumerate() {
            if dropped.contains(&(faults + operations + number)) {
                watch.at = Micros::MAX;
            }
        }
        plan
    }
}

fn parameters(random: &mut Random) -> Parameters {
    let members = *random.pick(&[1, 3, 3, 3, 3, 3, 5]);
    Parameters {
        members,
        keys: random.between(1, 4),
        pre_vote: random.chance(800),
        tick: *random.pick(&[50, 100, 100, 100, 250]) * MS,
        wire: Wire {
            loss_permille: *random.pick(&[0, 0, 5, 50]),
            repeat_permille: *random.pick(&[0, 0, 5, 50]),
            delay_max: random.skewed(MS, 50 * MS),
        },
        drift: (0..members).map(|_| random.below(101)).collect(),
        disk_max: random.skewed(MS, 50 * MS),
        apply_max: random.skewed(MS / 2, 20 * MS),
        segment_blocks: random.between(12, 40) as usize,
        snapshot_count: random.skewed(20, 400),
        catch_up_entries: random.skewed(1, 1000),
        hub_mailbox: random.skewed(1, 64) as usize,
        stream_bytes: random.skewed(300, 100_000) as usize,
        read_revisions: random.skewed(1, 100) as usize,
        lease_reads: false,
    }
}

fn faults(
    random: &mut Random,
    parameters: &Parameters,
    lasts: Micros,
    most: u64,
) -> Vec<(Micros, Fault)> {
    // Each seed uses some kinds of faults only, so that each kind also occurs with few others.
    let mut kinds: Vec<u64> = (0..10).filter(|_| random.chance(400)).collect();
    if lasts >= 3600 * SECOND {
        kinds.push(2);
    }
    if kinds.is_empty() {
        return Vec::new();
    }
    // At least one each two minutes of a long run.
    let count = random.skewed(1 + lasts / (120 * SECOND), most);
    let mut faults: Vec<_> = (0..count)
        .map(|_| {
            let (at, kind) = (random.below(lasts), *random.pick(&kinds));
            (at, fault(random, parameters, kind))
        })
        .collect();
    faults.sort_by_key(|(at, _)| *at);
    faults
}

/// In a quarter of the runs: disks that are full for a while, of one member or of several. Drawn from a stream of its
/// own, so that adding it did not change the plans of existing seeds.
fn full_disks(random: &mut Random, parameters: &Parameters, lasts: Micros) -> Vec<(Micros, Fault)> {
    let count = if random.chance(250) { random.skewed(1, 12) } else { 0 };
    let mut full_disk = || {
        let anyone = random.between(1, parameters.members);
        let member = if random.chance(400) { LEADER } else { anyone };
        let space = *random.pick(&[DiskSpace::Low, DiskSpace::Exhausted]);
        let fault =
            Fault::FullDisk { member, space, lasts: random.skewed(SECOND / 2, 10 * SECOND) };
        (random.below(lasts), fault)
    };
    (0..count).map(|_| full_disk()).collect()
}

fn fault(random: &mut Random, parameters: &Parameters, kind: u64) -> Fault {
    let anyone = random.between(1, parameters.members);
    let member = if random.chance(400) { LEADER } else { anyone };
    let lasts = random.skewed(20 * MS, 8 * SECOND);
    match kind {
        0 => {
            let (one_way, both) = (random.chance(400), random.below(2));
            let others = (1..=parameters.members).filter(|_| (random.below(2) & both) == 1);
            let side = others.chain([member]);
            Fault::Partition { side: side.collect(), one_way, lasts }
        }
        1 => Fault::Crash { member, lasts },
        2 | 3 => {
            let points = [
                CrashPoint::Writing,
                CrashPoint::Written,
                CrashPoint::Applied,
                CrashPoint::Syncing,
                CrashPoint::Synced,
                CrashPoint::Compacting,
                CrashPoint::Stepping,
                CrashPoint::Elected,
                CrashPoint::Installed,
            ];
            Fault::CrashAt { member, point: *random.pick(&points), lasts }
        }
        4 => Fault::Blackout { lasts },
        5 => Fault::Pause { member, lasts },
        6 => Fault::SlowDisk { member, times: random.skewed(5, 300), lasts },
        7 => {
            let wire = Wire {
                loss_permille: random.below(400),
                repeat_permille: random.below(200),
                delay_max: random.skewed(10 * MS, 2 * SECOND),
            };
            Fault::Noise { wire, lasts }
        }
        8 => match random.below(4) {
            0 => Fault::Grow,
            1 => Fault::Shrink { member },
            _ => Fault::Promote,
        },
        _ if random.chance(500) => Fault::Campaign { member },
        _ => Fault::Transfer { member, to: random.between(1, parameters.members) },
    }
}

fn operations(
    random: &mut Random,
    parameters: &Parameters,
    lasts: Micros,
    pause: Micros,
) -> Vec<Operation> {
    let leases = random.below(4);
    let weights = [random.between(1, 8), random.between(1, 8), random.below(3), random.below(3)];
    let mut at = SECOND;
    let mut operations = Vec::new();
    let most = if pause < 200 * MS { 1500 } else { usize::MAX };
    while at < lasts && operations.len() < most {
        at += random.between(1, 2 * pause);
        let ask = ask(random, parameters, leases, weights);
        let member = random.between(1, parameters.members);
        operations.push(Operation { at, member, timeout: random.between(1, 7) * SECOND, ask });
    }
    operations
}

fn ask(random: &mut Random, parameters: &Parameters, leases: u64, weights: [u64; 4]) -> ClientOp {
    let key = random.below(parameters.keys);
    let lease = random.between(1, leases.max(1)) as LeaseId;
    let [put, get, delete, pair] = weights;
    let with_leases = if leases > 0 { 2 } else { 0 };
    let kinds = [
        (put, ClientOp::Put { key }),
        (get, ClientOp::Get { key }),
        (delete, ClientOp::Delete { key }),
        (put, ClientOp::Swap { key }),
        (1, ClientOp::GetSerializable { key }),
        (pair, ClientOp::PutPair),
        (pair, ClientOp::GetPair),
        (1, ClientOp::PutAndLookBack { key, back: random.below(40) as i64 }),
        (with_leases, ClientOp::Grant { lease, ttl: random.skewed(2, 20) as i64 }),
        (with_leases * 2, ClientOp::KeepAlive { lease }),
        (with_leases, ClientOp::PutLeased { lease }),
    ];
    if random.chance(15) {
        return ClientOp::Compact { back: *random.pick(&[0, 1, 5, 20, 20, 20, 100]) };
    }
    let mut drawn = random.below(kinds.iter().map(|(weight, _)| weight).sum());
    for (weight, ask) in kinds {
        if drawn < weight {
            return ask;
        }
        drawn -= weight;
    }
    ClientOp::Get { key }
}

pub(super) fn watch(random: &mut Random, parameters: &Parameters, lasts: Micros) -> Watch {
    Watch {
        at: random.below(lasts),
        key: random.chance(400).then(|| random.below(parameters.keys)),
        from: *random.pick(&[
            From::Now,
            From::Start,
            From::Compaction,
            From::Future(1),
            From::Future(7),
        ]),
        prev_kv: random.chance(500),
        fragment: random.chance(300),
        slowness: random.skewed(MS, SECOND),
    }
}
