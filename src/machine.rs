//! Applies one committed request to the whole replicated state and says what happened: reply, events,
//! effects. The same log makes the same state on every member.
//!
//! A [`Refusal`] is an answer: every member gives it. A [`Fault`] is this member's alone and ends the
//! process: a member that went on after its own disk error would have diverged.

mod alarms;
mod apply;
mod payload;
mod position;
mod steps;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use basalt_proto::encoded::{DeleteRangeResponse, PutResponse, TxnResponse};
use basalt_proto::etcdserverpb::{AlarmMember, LeaseGrantResponse};

use self::alarms::Alarms;
pub use self::payload::check_payload;
pub use self::position::applied_state;
use self::steps::Running;
use crate::cluster::{Cluster, Member};
use crate::command::Operation;
use crate::lease::{Grant, Leases};
use crate::mvcc::{Changes, Event, Mvcc, ReadView, Usage};
use crate::store::{Engine, Overlay};
use crate::types::limits::{APPLY_AT_ONCE_RECORDS_MAX, STAGE_WRITES_MAX};
use crate::types::{
    ConfChange, ConfState, Fault, FeatureLevel, LeaseId, LogIndex, MemberId, Refusal, Term,
};

/// What never changes while the member runs.
#[derive(Clone, Debug)]
pub struct Config {
    /// Bytes of the cache of newest records.
    pub cache_bytes: u64,
    /// The shortest time to live of a lease, in seconds. Counts below [`FeatureLevel::LIMITS_PROPOSED`]; from then on
    /// the proposer's does.
    pub lease_ttl_min: i64,
    /// `--max-learners`, which counts as long.
    pub learners_max: usize,
    /// The level that this member supports: [`FeatureLevel::NEWEST`], less in tests.
    pub feature_level: FeatureLevel,
    /// [`StepLimits::DEFAULT`], less in tests.
    pub steps: StepLimits,
}

/// From where on entries are applied in steps. No limit changes what comes of an entry.
#[derive(Clone, Copy, Debug)]
pub struct StepLimits {
    /// Records that an entry may look at to be applied at once.
    pub at_once_records: usize,
    /// Writes that are kept beside the store before it takes them.
    pub stage_writes: usize,
}

impl StepLimits {
    /// What members run with.
    pub const DEFAULT: Self =
        Self { at_once_records: APPLY_AT_ONCE_RECORDS_MAX, stage_writes: STAGE_WRITES_MAX };
}

/// The answer to a request that was applied.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// To `put`.
    Put(PutResponse),
    /// To `delete_range`.
    DeleteRange(DeleteRangeResponse),
    /// To `txn`.
    Txn(TxnResponse),
    /// To `compaction`; the revision is the store's.
    Compact {
        /// The newest revision.
        revision: i64,
    },
    /// To `lease_grant`.
    LeaseGrant(LeaseGrantResponse),
    /// To `lease_revoke`; the revision is the store's.
    LeaseRevoke {
        /// The newest revision.
        revision: i64,
    },
    /// To `alarm`: the alarms asked for, raised or put out.
    Alarm(Vec<AlarmMember>),
    /// To requests that only change the member's own records.
    Done,
}

/// What others must do because of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// A lease began.
    LeaseGranted(Grant),
    /// A lease is gone.
    LeaseRevoked(LeaseId),
    /// The membership changed, as raft must know.
    ConfChanged(ConfChange),
    /// History was forgotten; the store can be cleaned up.
    Compacted,
}

/// What came of an entry.
#[derive(Clone, Debug, PartialEq)]
pub struct Applied {
    /// The request's id; 0 if it has none.
    pub request: u64,
    /// The kind of command; none in an empty entry or a change of the members.
    pub operation: Option<Operation>,
    /// The answer.
    pub reply: Result<Reply, Refusal>,
    /// What others must do.
    pub effects: Vec<Effect>,
}

/// What is to be seen of a batch that was committed.
pub struct Published<V> {
    /// What readers use from now on.
    pub read: ReadView<V>,
    /// What happened, in order.
    pub events: Arc<[Event]>,
    /// Whether more happened than is kept: there are no events then, and they are to be read from history.
    pub left_out_events: bool,
    /// How much happened.
    pub changes: Changes,
}

/// The replicated state of one member. Changes stay in an overlay until [`Machine::commit`].
pub struct Machine<E: Engine> {
    engine: E,
    tx: Overlay<E::View>,
    mvcc: Mvcc,
    leases: Leases,
    cluster: Cluster,
    alarms: Alarms,
    conf_state: ConfState,
    applied: LogIndex,
    applied_term: Term,
    config: Config,
    dirty: bool,
    /// An entry that is applied in steps.
    running: Option<Running>,
}

impl<E: Engine> Machine<E> {
    /// Up to where the log is applied.
    pub fn applied(&self) -> LogIndex {
        self.applied
    }

    /// The term of the entry that was applied last.
    pub fn applied_term(&self) -> Term {
        self.applied_term
    }

    /// Who counts for raft as of what is applied.
    pub fn conf_state(&self) -> &ConfState {
        &self.conf_state
    }

    /// Bytes that keys and their kept history take.
    pub fn usage(&self) -> Usage {
        self.mvcc.usage()
    }

    /// Under the machine.
    pub fn engine(&self) -> &E {
        &self.engine
    }

    /// The membership.
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// Active alarms.
    pub fn alarms(&self) -> Vec<AlarmMember> {
        self.alarms.list(0, basalt_proto::etcdserverpb::AlarmType::None)
    }

    /// The keys of a lease, in order.
    pub fn lease_keys(&self, id: LeaseId) -> Vec<bytes::Bytes> {
        self.leases.keys(id)
    }

    /// All leases.
    pub fn leases(&self) -> impl Iterator<Item = Grant> {
        self.leases.all()
    }

    /// Whether this member knows nothing of a cluster yet.
    pub fn is_new(&self) -> bool {
        self.applied == 0 && self.cluster.members().next().is_none()
    }

    /// Writes down the first members; all of them vote. Must be the same on every member. As if one entry of
    /// the first term had entered each: a member that comes later has a log that begins earlier, and so gets
    /// the state instead of entries that do not tell of the first members.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn bootstrap(&mut self, members: Vec<Member>) -> Result<(), Fault> {
        self.conf_state.voters = members.iter().map(|member| member.id).collect();
        self.conf_state.voters.sort_unstable();
        (self.applied, self.applied_term) = (members.len() as LogIndex, 1);
        for member in members {
            self.cluster.put(&mut self.tx, member);
        }
        self.note_conf_state();
        self.dirty = true;
        self.commit().map(drop)
    }

    /// The member with this id, if it is in the cluster.
    pub fn member(&self, id: MemberId) -> Option<&Member> {
        self.cluster.member(id)
    }
}
