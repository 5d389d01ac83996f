//! Leases. [`Leases`] is replicated: the leases and the keys attached to them. [`Expiry`] tracks their time on the
//! leader; it revokes nothing, it only lists leases that are due.

mod expiry;
mod leases;
#[cfg(test)]
mod tests;

use basalt_proto::etcdserverpb::LeaseExpireRequest;

pub use self::expiry::Expiry;
pub use self::leases::Leases;
use crate::command::Command;
use crate::types::{LeaseId, LogIndex};

/// A lease that was granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Its id; the owner may revoke it and grant it again.
    pub id: LeaseId,
    /// The log entry that granted it, which distinguishes it from earlier leases of the id; 0 for a lease granted by etcd.
    pub at: LogIndex,
    /// Its time to live in seconds.
    pub ttl: i64,
}

impl Grant {
    /// The command that revokes this lease when its time is up, and no other lease of that id.
    pub fn expire(self) -> Command {
        Command::LeaseExpire(LeaseExpireRequest { id: self.id, granted_at: self.at })
    }
}

/// The shortest time to live, in seconds, that leaves a new leader time to take over: half an election
/// timeout more than one, rounded up, as etcd has it.
pub fn ttl_min(election_timeout_ms: u64) -> i64 {
    (election_timeout_ms * 3).div_ceil(2 * 1000) as i64
}
