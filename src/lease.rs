//! Who lives until when. [`Leases`] is replicated: which leases there are and which keys hang on them.
//! [`Expiry`] is the leader's watch on the time; it decides nothing, it only says which leases are due.

mod expiry;
mod leases;
#[cfg(test)]
mod tests;

pub use self::expiry::Expiry;
pub use self::leases::Leases;

/// The shortest time to live, in seconds, that leaves a new leader time to take over: half an election
/// timeout more than one, rounded up, as etcd has it.
pub fn ttl_min(election_timeout_ms: u64) -> i64 {
    (election_timeout_ms * 3).div_ceil(2 * 1000) as i64
}
