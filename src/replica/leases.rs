//! Keeps the time of all leases on the leader.

use bytes::Bytes;

use crate::lease::{Expiry, Grant};
use crate::types::limits::LEASE_REVOKES_PER_SECOND;
use crate::types::{LeaseId, Term};

/// The time of all leases, and the leadership of this member.
pub struct LeaseKeeper {
    expiry: Expiry,
    /// The term in which this member leads.
    term: Option<Term>,
}

impl LeaseKeeper {
    /// Not leading, with these leases. A new leader extends all leases by `extend_ms`, the time in which no leader
    /// could renew them.
    pub fn new(extend_ms: u64, leases: impl Iterator<Item = Grant>, now_ms: u64) -> Self {
        let mut expiry = Expiry::new(extend_ms);
        leases.for_each(|grant| expiry.granted(grant, now_ms));
        Self { expiry, term: None }
    }

    /// Sets the term in which this member leads; `None` if it does not. Each term begins with the full time for every
    /// lease: a leader in between may have renewed leases without this member's knowledge.
    pub fn set_leadership(&mut self, term: Option<Term>, now_ms: u64) {
        if self.term == term {
            return;
        }
        self.term = term;
        self.expiry.demote(now_ms);
        if term.is_some() {
            self.expiry.promote(now_ms);
        }
    }

    /// A lease was granted.
    pub fn granted(&mut self, grant: Grant, now_ms: u64) {
        self.expiry.granted(grant, now_ms);
    }

    /// A lease was revoked.
    pub fn revoked(&mut self, id: LeaseId) {
        self.expiry.revoked(id);
    }

    /// A snapshot replaced all leases.
    pub fn replaced(&mut self, leases: impl IntoIterator<Item = Grant>, now_ms: u64) {
        self.expiry.by_expiry().into_iter().for_each(|id| self.expiry.revoked(id));
        leases.into_iter().for_each(|grant| self.expiry.granted(grant, now_ms));
    }

    /// Gives a lease its full time again and returns that in seconds. `None` if this member does not lead, or the lease
    /// has expired or does not exist: a renewal on a follower would not reach the leader.
    pub fn renew(&mut self, id: LeaseId, now_ms: u64) -> Option<i64> {
        self.term?;
        self.expiry.renew(id, now_ms)
    }

    /// Seconds granted and seconds left, −1 when expired; `None` if there is no such lease.
    pub fn remaining(&self, id: LeaseId, now_ms: u64) -> Option<(i64, i64)> {
        self.expiry.remaining(id, now_ms)
    }

    /// All leases, in the order in which they expire.
    pub fn by_expiry(&self) -> Vec<LeaseId> {
        self.expiry.by_expiry()
    }

    /// Encoded commands that revoke expired leases, and the term in which alone they may be proposed: a deposed leader
    /// revokes nothing. To be called twice a second; gives at most half of [`LEASE_REVOKES_PER_SECOND`].
    pub fn due(&mut self, now_ms: u64) -> Option<(Term, Vec<Bytes>)> {
        let term = self.term?;
        let due = self.expiry.due(now_ms, LEASE_REVOKES_PER_SECOND / 2);
        let revoke = |grant: Grant| grant.expire().to_payload(0);
        (!due.is_empty()).then(|| (term, due.into_iter().map(revoke).collect()))
    }
}
