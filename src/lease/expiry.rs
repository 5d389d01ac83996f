//! The leader's watch on the time of leases.

use std::collections::{BTreeMap, BTreeSet};

use crate::types::LeaseId;

struct Lease {
    ttl: i64,
    /// On the clock of [`Expiry`], which stands still while nobody leads.
    expires_ms: i64,
    /// The leadership in which it was handed out to be revoked; it cannot be renewed in the same one.
    due_in: u64,
}

/// The time of all leases. Times are milliseconds since some moment of the caller's choice.
///
/// A new leader gives every lease what it had left when this member last knew, and an extension; since all
/// deadlines are on one clock that is set back, this costs the same for one lease as for a million.
#[derive(Default)]
pub struct Expiry {
    leases: BTreeMap<LeaseId, Lease>,
    by_expiry: BTreeSet<(i64, LeaseId)>,
    leads: bool,
    /// How far the clock of the deadlines is behind the caller's.
    behind_ms: u64,
    /// The caller's time when the clock was last stopped.
    stopped_ms: u64,
    extend_ms: u64,
    /// Counts the times this member began to lead.
    leadership: u64,
}

impl Expiry {
    /// No lease, not leading. A new leader extends all leases by `extend_ms`: the time in which they could
    /// not be renewed.
    pub fn new(extend_ms: u64) -> Self {
        Self { extend_ms, ..Self::default() }
    }

    fn clock(&self, now_ms: u64) -> i64 {
        let now_ms = if self.leads { now_ms } else { self.stopped_ms };
        now_ms as i64 - self.behind_ms as i64
    }

    /// A lease of `ttl` seconds begins.
    pub fn granted(&mut self, id: LeaseId, ttl: i64, now_ms: u64) {
        self.revoked(id);
        let expires_ms = self.clock(now_ms) + ttl * 1000;
        self.by_expiry.insert((expires_ms, id));
        self.leases.insert(id, Lease { ttl, expires_ms, due_in: 0 });
    }

    /// A lease is gone.
    pub fn revoked(&mut self, id: LeaseId) {
        if let Some(lease) = self.leases.remove(&id) {
            self.by_expiry.remove(&(lease.expires_ms, id));
        }
    }

    /// Gives a lease its full time again, in seconds; `None` if there is none or its time is up.
    pub fn renew(&mut self, id: LeaseId, now_ms: u64) -> Option<i64> {
        let clock = self.clock(now_ms);
        let leadership = self.leadership;
        let live = |lease: &&mut Lease| lease.due_in != leadership && lease.expires_ms > clock;
        let lease = self.leases.get_mut(&id).filter(live)?;
        self.by_expiry.remove(&(lease.expires_ms, id));
        lease.expires_ms = clock + lease.ttl * 1000;
        self.by_expiry.insert((lease.expires_ms, id));
        Some(lease.ttl)
    }

    /// Seconds granted and seconds left, −1 when the time is up; `None` if there is no such lease.
    pub fn remaining(&self, id: LeaseId, now_ms: u64) -> Option<(i64, i64)> {
        let clock = self.clock(now_ms);
        let lease = self.leases.get(&id)?;
        let live = lease.expires_ms > clock && !(self.leads && lease.due_in == self.leadership);
        let left = live.then(|| lease.expires_ms - clock);
        Some((lease.ttl, left.map_or(-1, |left| left / 1000)))
    }

    /// This member leads from now on: the clock goes on, set back by the extension.
    pub fn promote(&mut self, now_ms: u64) {
        if !self.leads {
            self.leads = true;
            self.behind_ms += now_ms.saturating_sub(self.stopped_ms) + self.extend_ms;
            self.leadership += 1;
        }
    }

    /// This member does not lead any more: the clock stands still.
    pub fn demote(&mut self, now_ms: u64) {
        if self.leads {
            self.stopped_ms = now_ms;
            self.leads = false;
        }
    }

    /// Up to `max` leases whose time is up, each once; nothing while not leading.
    pub fn due(&mut self, now_ms: u64, max: usize) -> Vec<LeaseId> {
        if !self.leads {
            return Vec::new();
        }
        let up = self.by_expiry.range(..=(self.clock(now_ms), LeaseId::MAX));
        let (leases, leadership) = (&mut self.leases, self.leadership);
        let ids = up.filter_map(|(_, id)| {
            let lease = leases.get_mut(id).filter(|lease| lease.due_in != leadership)?;
            lease.due_in = leadership;
            Some(*id)
        });
        ids.take(max).collect()
    }

    /// All leases, the one that expires first first.
    pub fn by_expiry(&self) -> Vec<LeaseId> {
        self.by_expiry.iter().map(|(_, id)| *id).collect()
    }
}
