//! Time keeping of leases on the leader.

use std::collections::{BTreeMap, BTreeSet};

use super::Grant;
use crate::types::LeaseId;
use crate::types::limits::LEASE_REVOKE_RETRY_MS;

struct Lease {
    grant: Grant,
    /// Expiry on the clock of [`Expiry`], which stands still while this member does not lead.
    expires_ms: i64,
    /// Time of the last listing as due, on the same clock.
    handed_ms: Option<i64>,
}

/// The deadlines of all leases. Times are milliseconds since an arbitrary moment of the caller's choice.
///
/// A new leader gives every lease its full time and an extension: it does not know the renewals by the previous leader,
/// and a lease must never end earlier than its owner expects. Since all deadlines are on one clock that is set back,
/// the start of a leadership costs the same for one lease as for a million.
#[derive(Default)]
pub struct Expiry {
    leases: BTreeMap<LeaseId, Lease>,
    by_expiry: BTreeSet<(i64, LeaseId)>,
    leads: bool,
    /// Difference between the caller's clock and the clock of the deadlines, in ms.
    behind_ms: u64,
    /// The caller's time when the clock was last stopped.
    stopped_ms: u64,
    extend_ms: u64,
}

impl Expiry {
    /// No lease, not leading. A new leader extends all leases by `extend_ms`: the time in which they could not be renewed.
    pub fn new(extend_ms: u64) -> Self {
        Self { extend_ms, ..Self::default() }
    }

    fn clock(&self, now_ms: u64) -> i64 {
        let now_ms = if self.leads { now_ms } else { self.stopped_ms };
        now_ms as i64 - self.behind_ms as i64
    }

    /// Adds a lease.
    pub fn granted(&mut self, grant: Grant, now_ms: u64) {
        self.revoked(grant.id);
        let expires_ms = self.clock(now_ms) + grant.ttl * 1000;
        self.by_expiry.insert((expires_ms, grant.id));
        self.leases.insert(grant.id, Lease { grant, expires_ms, handed_ms: None });
    }

    /// Removes a lease.
    pub fn revoked(&mut self, id: LeaseId) {
        if let Some(lease) = self.leases.remove(&id) {
            self.by_expiry.remove(&(lease.expires_ms, id));
        }
    }

    /// Gives a lease its full time again and returns that in seconds; `None` if there is no such lease or its time is up.
    pub fn renew(&mut self, id: LeaseId, now_ms: u64) -> Option<i64> {
        let clock = self.clock(now_ms);
        let lease = self.leases.get_mut(&id).filter(|lease| lease.expires_ms > clock)?;
        self.by_expiry.remove(&(lease.expires_ms, id));
        lease.expires_ms = clock + lease.grant.ttl * 1000;
        self.by_expiry.insert((lease.expires_ms, id));
        Some(lease.grant.ttl)
    }

    /// Seconds granted and seconds left, −1 when the time is up; `None` if there is no such lease.
    pub fn remaining(&self, id: LeaseId, now_ms: u64) -> Option<(i64, i64)> {
        let clock = self.clock(now_ms);
        let lease = self.leases.get(&id)?;
        let left_ms = lease.expires_ms - clock;
        Some((lease.grant.ttl, if left_ms > 0 { left_ms / 1000 } else { -1 }))
    }

    /// Starts the clock, set back by the extension: this member leads.
    pub fn promote(&mut self, now_ms: u64) {
        if !self.leads {
            self.leads = true;
            self.behind_ms += now_ms.saturating_sub(self.stopped_ms) + self.extend_ms;
        }
    }

    /// Stops the clock, with all leases at their full time: this member does not lead any more.
    pub fn demote(&mut self, now_ms: u64) {
        if !self.leads {
            return;
        }
        (self.stopped_ms, self.leads) = (now_ms, false);
        let clock = self.clock(now_ms);
        for lease in self.leases.values_mut() {
            (lease.expires_ms, lease.handed_ms) = (clock + lease.grant.ttl * 1000, None);
        }
        let all = self.leases.iter();
        self.by_expiry = all.map(|(id, lease)| (lease.expires_ms, *id)).collect();
    }

    /// Up to `max` leases whose time is up; none while not leading. A lease that still exists after a while is listed
    /// again: its revoke was lost, or refused while a member was corrupt.
    pub fn due(&mut self, now_ms: u64, max: usize) -> Vec<Grant> {
        if !self.leads {
            return Vec::new();
        }
        let clock = self.clock(now_ms);
        let up = self.by_expiry.range(..=(clock, LeaseId::MAX));
        let leases = &mut self.leases;
        let grants = up.filter_map(|(_, id)| {
            let waits =
                |handed_ms: i64| clock < handed_ms.saturating_add(LEASE_REVOKE_RETRY_MS as i64);
            let lease = leases.get_mut(id).filter(|lease| !lease.handed_ms.is_some_and(waits))?;
            lease.handed_ms = Some(clock);
            Some(lease.grant)
        });
        grants.take(max).collect()
    }

    /// All leases in the order of expiry.
    pub fn by_expiry(&self) -> Vec<LeaseId> {
        self.by_expiry.iter().map(|(_, id)| *id).collect()
    }
}
