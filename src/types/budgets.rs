//! Division of the memory of a machine or container among the parts of a member.
//!
//! ```text
//!  memory ─┬─ 3/16  responses in flight, all executors together
//!          ├─ 7/64  requests in flight ─────┐
//!          ├─ 1/64  requests that wait      ├ divided by the number of executors
//!          ├─ 1/32  requests not complete   │
//!          ├─ 1/32  unsent events of watches┘
//!          ├─ 1/16  blocks of the store ─┐
//!          ├─ 1/32  records              ├ caches
//!          ├─ 1/64  lists                ┘
//!          ├─ 1/16  memtables of the store
//!          ├─ 1/16  applied entries for followers that lag
//!          ├─ 1/32  entries that are not committed, of other members' clients too
//!          ├─ 1/32  proposals that wait for a leader
//!          ├─ 1/128 appends to each other member
//!          └─ the rest, more than a quarter: memory without a budget
//! ```
//!
//! Each share has an upper bound, a constant of [`limits`](super::limits), beyond which more memory makes nothing faster.
//! A share may be smaller than the largest request of one client; then that request is refused, as with any full budget.

use super::limits::{
    BLOCK_CACHE_BYTES_MAX, CATCH_UP_ENTRIES_BYTES_MAX, DEFERRED_BYTES_MAX, INCOMPLETE_BYTES_MAX,
    LIST_CACHE_BYTES_MAX, MEMTABLE_BYTES_MAX, PEER_BULK_BYTES_MAX, RECORD_CACHE_BYTES,
    REQUEST_BYTES_IN_FLIGHT_MAX, RESPONSE_BYTES_IN_FLIGHT_MAX, SEALED_MEMTABLES_MAX,
    UNCOMMITTED_BYTES_MAX, WATCH_HUB_BYTES_MAX,
};

/// Memtables at most: the sealed ones, and the one that is written to.
const MEMTABLES: u64 = SEALED_MEMTABLES_MAX as u64 + 1;

/// Bytes of the caches in front of the store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CacheBytes {
    /// Newest records of keys.
    pub records: u64,
    /// Encoded lists.
    pub lists: u64,
}

impl CacheBytes {
    /// Without caches.
    pub const NONE: Self = Self { records: 0, lists: 0 };
}

/// Bytes that parts of a member may hold. Computed once, when the member starts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Budgets {
    /// Responses in flight, of all executors together. Past it requests wait; they are refused after a timeout.
    pub responses: usize,
    /// Requests in flight of one executor: sizes of the proposals that wait to be applied. Past it sessions wait. One
    /// request always fits, whatever its size.
    pub requests: usize,
    /// Requests of one executor that wait for that. Past it they are refused.
    pub requests_waiting: usize,
    /// Requests of one executor of which the rest is still to come. Past it those that stall for longest are refused, and past a
    /// quarter of it those that stall; one always fits.
    pub requests_incomplete: usize,
    /// Unsent events of the watches of one executor. Past it each stream may hold its share only.
    pub watch_hub: usize,
    /// The caches in front of the store.
    pub caches: CacheBytes,
    /// The store's cache of blocks.
    pub block_cache: u64,
    /// One memtable of the store.
    pub memtable: u64,
    /// Applied entries that are kept for followers that lag; one that lags more gets a snapshot.
    pub catch_up: usize,
    /// Entries that are proposed and not yet committed. Past it proposals wait as those without a leader.
    pub uncommitted: usize,
    /// Proposals that wait for a leader. Past it clients wait.
    pub deferred: usize,
    /// Appends that wait to be sent to one other member. Past it they are dropped; one always fits.
    pub peer_queue: usize,
}

impl Budgets {
    /// The budgets of a member with `memory_bytes` of memory and this number of executors.
    pub fn new(memory_bytes: u64, executors: usize) -> Self {
        let share = |inverse: u64| memory_bytes / inverse;
        let whole = |bytes: u64, max: usize| usize::try_from(bytes).unwrap_or(max).min(max);
        let part = |bytes: u64, max: usize| whole(bytes / executors.max(1) as u64, max);
        Self {
            responses: whole(share(16).saturating_mul(3), RESPONSE_BYTES_IN_FLIGHT_MAX),
            requests: part(share(64).saturating_mul(7), REQUEST_BYTES_IN_FLIGHT_MAX),
            requests_waiting: part(share(64), REQUEST_BYTES_IN_FLIGHT_MAX / 2),
            requests_incomplete: part(share(32), INCOMPLETE_BYTES_MAX),
            watch_hub: part(share(32), WATCH_HUB_BYTES_MAX),
            caches: CacheBytes {
                records: share(32).min(RECORD_CACHE_BYTES),
                lists: share(64).min(LIST_CACHE_BYTES_MAX),
            },
            block_cache: share(16).min(BLOCK_CACHE_BYTES_MAX),
            memtable: share(16 * MEMTABLES).min(MEMTABLE_BYTES_MAX),
            catch_up: whole(share(16), CATCH_UP_ENTRIES_BYTES_MAX),
            uncommitted: whole(share(32), UNCOMMITTED_BYTES_MAX),
            deferred: whole(share(32), DEFERRED_BYTES_MAX),
            peer_queue: whole(share(128), PEER_BULK_BYTES_MAX),
        }
    }

    /// The budgets of a machine with unlimited memory: the upper bound of each share.
    pub fn unbounded() -> Self {
        Self::new(u64::MAX, 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_shares_together_leave_a_quarter_of_any_memory() {
        /// Of a cluster of five.
        const OTHERS: usize = 4;
        for shift in 26..40 {
            for executors in [1, 2, 8, 64, 255] {
                let memory = 1u64 << shift;
                let Budgets {
                    responses,
                    requests,
                    requests_waiting,
                    requests_incomplete,
                    watch_hub,
                    caches: CacheBytes { records, lists },
                    block_cache,
                    memtable,
                    catch_up,
                    uncommitted,
                    deferred,
                    peer_queue,
                } = Budgets::new(memory, executors);
                let of_one = requests + requests_waiting + requests_incomplete + watch_hub;
                let of_executors = executors as u64 * of_one as u64;
                let of_store = records + lists + block_cache + MEMTABLES * memtable;
                let of_log = (catch_up + uncommitted + deferred + OTHERS * peer_queue) as u64;
                let sum = responses as u64 + of_executors + of_store + of_log;
                assert!(sum <= memory / 4 * 3, "{memory} bytes, {executors}: {sum}");
            }
        }
    }

    #[test]
    fn every_bound_follows_the_memory_of_a_small_container() {
        let (small, half) = (Budgets::new(512 << 20, 1), Budgets::new(256 << 20, 1));
        for (bytes, of_half) in [
            (small.responses, half.responses),
            (small.requests, half.requests),
            (small.requests_incomplete, half.requests_incomplete),
            (small.watch_hub, half.watch_hub),
            (small.memtable as usize, half.memtable as usize),
            (small.catch_up, half.catch_up),
            (small.uncommitted, half.uncommitted),
            (small.deferred, half.deferred),
            (small.peer_queue, half.peer_queue),
        ] {
            assert!(bytes.abs_diff(of_half * 2) <= 2, "{bytes} of 512 MiB, {of_half} of 256");
        }
        assert_eq!((small.catch_up, small.peer_queue), (32 << 20, 4 << 20));
    }

    #[test]
    fn a_large_machine_has_what_the_constants_allow() {
        let budgets = Budgets::new(64 << 30, 8);
        assert_eq!(budgets, Budgets::unbounded());
        assert_eq!(budgets.responses, RESPONSE_BYTES_IN_FLIGHT_MAX);
        assert_eq!(budgets.requests, REQUEST_BYTES_IN_FLIGHT_MAX);
        assert_eq!(budgets.watch_hub, WATCH_HUB_BYTES_MAX);
    }
}
