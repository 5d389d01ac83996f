//! State that every core may read without a message: the published state and a few numbers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use basalt_proto::etcdserverpb::{AlarmMember, AlarmType, ResponseHeader};

use crate::auth::Permissions;
use crate::cluster::{Member, Version};
use crate::consensus::{Progress, Role};
use crate::io::{LsmView, clock};
use crate::mvcc::{self, ReadView, Usage};
use crate::types::{Budgets, DiskSpace, Error, Fault, FeatureLevel, LogIndex, MemberId, Term};

use super::watch;

/// Properties of the member that do not change while it runs.
#[derive(Clone, Debug)]
pub struct Node {
    /// The cluster's id.
    pub cluster_id: u64,
    /// This member's id.
    pub member_id: MemberId,
    /// `--max-txn-ops`.
    pub max_txn_ops: usize,
    /// `--max-request-bytes`.
    pub max_request_bytes: usize,
    /// Byte budgets of the member's parts.
    pub budgets: Budgets,
    /// `--quota-backend-bytes`, resolved: 0 for none.
    pub quota_bytes: u64,
    /// Timeout of a request in consensus: 5 s and two election timeouts, in ms.
    pub request_timeout_ms: u64,
    /// `--strict-reconfig-check`.
    pub strict_reconfig: bool,
    /// The shortest time to live of a lease that this member proposes, in seconds.
    pub lease_ttl_min: i64,
    /// `--max-learners`.
    pub learners_max: usize,
    /// The feature level that this member supports.
    pub feature_level: FeatureLevel,
    /// `--election-timeout`, in ms.
    pub election_timeout_ms: u64,
    /// `--warning-apply-duration`.
    pub slow_apply: Duration,
}

/// The replicated state as of one applied batch. Published after the batch is committed to the store and before any
/// notification of it, so that a client with an answer reads its effect.
#[derive(Clone)]
pub struct State {
    /// The key space.
    pub read: ReadView<LsmView>,
    /// Active alarms.
    pub alarms: Vec<AlarmMember>,
    /// Members, sorted by id.
    pub members: Vec<Member>,
    /// The cluster version; `None` until it is decided.
    pub cluster_version: Option<Version>,
    /// The feature level that all members support.
    pub feature_level: FeatureLevel,
    /// Users and roles, and what they may do.
    pub permissions: Arc<Permissions>,
    /// Number of leases.
    pub leases: usize,
    /// Index of the last applied entry.
    pub applied: LogIndex,
    /// The term of that entry.
    pub applied_term: Term,
    /// Bytes of the store on disk.
    pub disk_bytes: u64,
    /// True if this member is the only voter.
    pub sole_voter: bool,
}

/// Bytes that etcd's file has in use when it is empty.
const EMPTY_BYTES_IN_USE: u64 = 16 << 10;

/// Positions and leader, for status and metrics.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Status {
    /// The current term.
    pub term: Term,
    /// The leader, 0 if none is known.
    pub leader: MemberId,
    /// The newest committed index.
    pub committed: LogIndex,
    /// The newest applied index.
    pub applied: LogIndex,
}

/// State shared by all cores; no call here waits.
pub struct Shared {
    /// Properties that do not change.
    pub node: Node,
    state: ArcSwap<State>,
    term: AtomicU64,
    leader: AtomicU64,
    /// Time at which the leader was last found, in ms.
    leader_since_ms: AtomicU64,
    /// Time at which it was last lost, in ms.
    leader_lost_ms: AtomicU64,
    committed: AtomicU64,
    /// The disk space level of this member.
    disk: AtomicU8,
    /// Bytes that the log can still take; the largest number while there is a next segment.
    log_room: AtomicU64,
    /// Members without room while no quorum has some; else empty.
    full: ArcSwap<Vec<MemberId>>,
    stopping: AtomicBool,
}

impl State {
    /// Bytes that etcd's file would have in use for the same keys and their history, and no more than there are on disk, where
    /// they are compressed: dashboards show the difference of the two.
    pub fn bytes_in_use(&self) -> u64 {
        bytes_in_use(self.read.usage).min(self.disk_bytes)
    }
}

/// Bytes that etcd's file would have in use.
pub fn bytes_in_use(usage: Usage) -> u64 {
    EMPTY_BYTES_IN_USE + usage.paged
}

impl Shared {
    /// With the state that was read at start.
    pub fn new(node: Node, state: State) -> Self {
        Self {
            node,
            committed: AtomicU64::new(state.applied),
            state: ArcSwap::from_pointee(state),
            term: AtomicU64::new(0),
            leader: AtomicU64::new(0),
            leader_since_ms: AtomicU64::new(0),
            leader_lost_ms: AtomicU64::new(0),
            disk: AtomicU8::new(DiskSpace::Enough.to_u8()),
            log_room: AtomicU64::new(u64::MAX),
            full: ArcSwap::default(),
            stopping: AtomicBool::new(false),
        }
    }

    /// The feature level of the cluster, as of the newest published state.
    pub(super) fn feature_level(&self) -> FeatureLevel {
        self.state.load().feature_level
    }

    /// Looks at users and roles as published last, without a count that cores share.
    pub(super) fn with_permissions<T>(&self, look: impl FnOnce(&Permissions) -> T) -> T {
        look(&self.state.load().permissions)
    }

    /// The newest published state.
    pub fn state(&self) -> Arc<State> {
        self.state.load_full()
    }

    pub(super) fn publish(&self, state: State) {
        self.state.store(Arc::new(state));
    }

    pub(super) fn set_role(&self, role: Role) {
        self.term.store(role.term, Ordering::Relaxed);
        let leader = role.leader.unwrap_or(0);
        if self.leader.swap(leader, Ordering::Relaxed) != leader {
            let changed = if leader == 0 { &self.leader_lost_ms } else { &self.leader_since_ms };
            changed.store(clock::now_ms(), Ordering::Relaxed);
        }
    }

    pub(super) fn set_progress(&self, progress: Progress) {
        self.committed.store(progress.committed, Ordering::Relaxed);
    }

    /// The disk space level of this member.
    pub(super) fn disk(&self) -> DiskSpace {
        DiskSpace::from_u8(self.disk.load(Ordering::Relaxed))
    }

    pub(super) fn set_disk(&self, space: DiskSpace, log_room: Option<u64>) {
        self.disk.store(space.to_u8(), Ordering::Relaxed);
        self.log_room.store(log_room.unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Bytes that the log can still take.
    pub(super) fn log_room(&self) -> u64 {
        self.log_room.load(Ordering::Relaxed)
    }

    /// True if a quorum of voters has enough disk space, as far as this member knows.
    pub(super) fn quorum_has_room(&self) -> bool {
        self.full.load().is_empty()
    }

    pub(super) fn set_full(&self, members: Vec<MemberId>) {
        self.full.store(Arc::new(members));
    }

    /// True if a request that takes space has to be refused: no quorum has enough, or this member could not apply it.
    pub(super) fn lacks_room(&self) -> bool {
        self.disk() == DiskSpace::Exhausted || !self.quorum_has_room()
    }

    /// All active alarms: those that were raised, and NOSPACE for each member short of disk space while no quorum has
    /// enough, which ends when one has.
    pub(super) fn alarms(&self) -> Vec<AlarmMember> {
        let mut alarms = self.state.load().alarms.clone();
        for member in self.full.load().iter() {
            let alarm = AlarmMember { member_id: *member, alarm: AlarmType::Nospace as i32 };
            if !alarms.contains(&alarm) {
                alarms.push(alarm);
            }
        }
        alarms.sort_by_key(|alarm| (alarm.alarm, alarm.member_id));
        alarms
    }

    /// Positions and leader.
    pub fn status(&self) -> Status {
        Status {
            term: self.term.load(Ordering::Relaxed),
            leader: self.leader.load(Ordering::Relaxed),
            committed: self.committed.load(Ordering::Relaxed),
            applied: self.state.load().applied,
        }
    }

    /// True if a read of the published state is linearizable without a read index: this member is the only voter and
    /// leads, and has applied an entry of its own term. Then all writes acknowledged by earlier leaders are applied
    /// here, and later ones are acknowledged here, after they were published.
    pub fn reads_freely(&self) -> bool {
        let state = self.state.load();
        state.sole_voter
            && self.leader.load(Ordering::Relaxed) == self.node.member_id
            && self.term.load(Ordering::Relaxed) == state.applied_term
    }

    /// Time at which the leader was last found, in ms; 0 for never.
    pub(super) fn leader_since_ms(&self) -> u64 {
        self.leader_since_ms.load(Ordering::Relaxed)
    }

    /// Time at which the leader was last lost, in ms; 0 for never.
    pub(super) fn leader_lost_ms(&self) -> u64 {
        self.leader_lost_ms.load(Ordering::Relaxed)
    }

    /// True if this member knows a leader.
    pub fn has_leader(&self) -> bool {
        self.leader.load(Ordering::Relaxed) != 0
    }

    /// Makes all later requests fail with `etcdserver: server stopped`.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
    }

    /// True if the member is stopping.
    pub fn stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }
}

impl watch::Source for Shared {
    fn header(&self) -> ResponseHeader {
        ResponseHeader {
            cluster_id: self.node.cluster_id,
            member_id: self.node.member_id,
            revision: 0,
            raft_term: self.term.load(Ordering::Relaxed),
        }
    }

    fn published(&self) -> watch::Published {
        let state = self.state.load();
        watch::Published { revision: state.read.revision, compacted: state.read.compacted }
    }

    fn history(
        &self,
        from: i64,
        revisions_max: usize,
        bytes_max: usize,
    ) -> Result<watch::History, Fault> {
        let state = self.state();
        let read = &state.read;
        let published = watch::Published { revision: read.revision, compacted: read.compacted };
        match Error::refusal(read.history(from, revisions_max, bytes_max))? {
            Ok(mvcc::History { events, next }) => {
                Ok(watch::History { from, events, next, published })
            }
            // Compacted: `published` has the compaction revision.
            Err(_) => Ok(watch::History { from, events: Vec::new(), next: from, published }),
        }
    }

    fn has_leader(&self) -> bool {
        self.has_leader()
    }
}
