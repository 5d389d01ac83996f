//! Applies one committed request to the whole replicated state and returns reply, events and effects. The same log
//! makes the same state on every member. Never waits, never reads a clock; its only I/O is the store that it is given.
//!
//! A [`Refusal`] is an answer: every member gives it. A [`Fault`] is this member's alone and ends the
//! process: a member that went on after its own disk error would have diverged.

mod access;
mod alarms;
mod apply;
mod payload;
mod position;
mod steps;
#[cfg(test)]
mod tests;
mod tokens;

use std::sync::Arc;

use basalt_proto::encoded::{DeleteRangeResponse, PutResponse, TxnResponse};
use basalt_proto::etcdserverpb::{AlarmMember, LeaseGrantResponse};

pub use self::access::check_access;
use self::alarms::Alarms;
pub use self::payload::check_payload;
pub use self::position::applied_state;
use self::steps::Running;
use crate::auth::{Auth, Change, Permissions};
use crate::cluster::{Cluster, Member};
use crate::command::Operation;
use crate::lease::{Grant, Leases};
use crate::mvcc::{Changes, Event, Mvcc, ReadView, Usage};
use crate::store::{Engine, Overlay};
use crate::token::TokenStore;
use crate::types::limits::{APPLY_AT_ONCE_RECORDS_MAX, STAGE_WRITES_MAX};
use crate::types::{
    CacheBytes, ConfChange, ConfState, Fault, FeatureLevel, LeaseId, LogIndex, MemberId, Refusal,
    Term,
};

/// Parameters of a member that do not change while it runs.
#[derive(Clone, Debug)]
pub struct Config {
    /// Bytes of the caches in front of the store.
    pub caches: CacheBytes,
    /// The shortest time to live of a lease, in seconds. Used while the cluster is below
    /// [`FeatureLevel::LIMITS_PROPOSED`]; from that level on proposals contain the limit of their proposer.
    pub lease_ttl_min: i64,
    /// `--max-learners`, used likewise.
    pub learners_max: usize,
    /// The level that this member supports: [`FeatureLevel::NEWEST`], lower in tests.
    pub feature_level: FeatureLevel,
    /// [`StepLimits::DEFAULT`], lower in tests.
    pub steps: StepLimits,
}

/// Thresholds above which entries are applied in steps. They never change the result of an entry.
#[derive(Clone, Copy, Debug)]
pub struct StepLimits {
    /// Upper bound of records that an entry applied at once may read.
    pub at_once_records: usize,
    /// Writes kept in memory before they are staged in the store.
    pub stage_writes: usize,
}

impl StepLimits {
    /// The thresholds of a running member.
    pub const DEFAULT: Self =
        Self { at_once_records: APPLY_AT_ONCE_RECORDS_MAX, stage_writes: STAGE_WRITES_MAX };
}

/// The reply to an applied request.
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
    /// To `alarm`: the alarms listed, raised or disarmed.
    Alarm(Vec<AlarmMember>),
    /// To a login: where its token is.
    Token {
        /// The index of the entry.
        index: LogIndex,
    },
    /// To requests without a reply of their own.
    Done,
}

/// A consequence of an entry that other rooms have to perform.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// A lease was granted.
    LeaseGranted(Grant),
    /// A lease was revoked or expired.
    LeaseRevoked(LeaseId),
    /// The membership changed; raft has to be configured alike.
    ConfChanged(ConfChange),
    /// History was compacted; the store can remove it.
    Compacted,
    /// Users, roles or whether they count are not what they were.
    AuthChanged(Change),
}

/// The result of an entry.
#[derive(Clone, Debug, PartialEq)]
pub struct Applied {
    /// The request's id; 0 if it has none.
    pub request: u64,
    /// The kind of command; `None` for an empty entry or a change of the members.
    pub operation: Option<Operation>,
    /// The reply.
    pub reply: Result<Reply, Refusal>,
    /// The consequences for other rooms.
    pub effects: Vec<Effect>,
}

/// The public result of a committed batch.
pub struct Published<V> {
    /// The new state for readers.
    pub read: ReadView<V>,
    /// The events of the batch, in order.
    pub events: Arc<[Event]>,
    /// True if the events were too many to be kept: `events` is empty then, and they have to be read from history.
    pub left_out_events: bool,
    /// Counts of the changes.
    pub changes: Changes,
}

/// The replicated state of one member. Changes stay in an overlay until [`Machine::commit`].
pub struct Machine<E: Engine> {
    engine: E,
    tx: Overlay<E::View>,
    mvcc: Mvcc,
    leases: Leases,
    auth: Auth,
    tokens: TokenStore,
    cluster: Cluster,
    alarms: Alarms,
    conf_state: ConfState,
    applied: LogIndex,
    applied_term: Term,
    config: Config,
    dirty: bool,
    /// The entry that is applied in steps, if any.
    running: Option<Running>,
}

impl<E: Engine> Machine<E> {
    /// Index of the last applied entry.
    pub fn applied(&self) -> LogIndex {
        self.applied
    }

    /// Term of the last applied entry.
    pub fn applied_term(&self) -> Term {
        self.applied_term
    }

    /// The configuration as of the last applied entry.
    pub fn conf_state(&self) -> &ConfState {
        &self.conf_state
    }

    /// True if this member is the only voter, as of the last applied entry.
    pub fn is_sole_voter(&self, member: MemberId) -> bool {
        self.conf_state.voters == [member] && self.conf_state.voters_outgoing.is_empty()
    }

    /// Bytes of keys and their kept history.
    pub fn usage(&self) -> Usage {
        self.mvcc.usage()
    }

    /// The store.
    pub fn engine(&self) -> &E {
        &self.engine
    }

    /// The membership.
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// Users and roles, and what they may do.
    pub fn permissions(&self) -> &Arc<Permissions> {
        self.auth.permissions()
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

    /// Number of leases.
    pub fn lease_count(&self) -> usize {
        self.leases.count()
    }

    /// True if this member does not belong to a cluster yet.
    pub fn is_new(&self) -> bool {
        self.applied == 0 && self.cluster.members().next().is_none()
    }

    /// Stores the first members, all of them voters. Must be the same on every member. Each counts as one entry of the
    /// first term, so that the log of a member that joins later begins below the log of the others: it then receives
    /// the state as a snapshot instead of entries, which would lack the first members.
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
