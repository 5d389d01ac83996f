//! Division of the memory of a machine or container among the parts of a member.
//!
//! ```text
//!  memory ─┬─ 1/4   responses in flight, all executors together
//!          ├─ 1/8   requests in flight ─────┐
//!          ├─ 1/16  requests that wait      ├ divided by the number of executors
//!          ├─ 1/8   unsent events of watches┘
//!          ├─ 1/16  blocks of the store ─┐ caches
//!          ├─ 1/32  records              ┘
//!          └─ the rest: memtables, entries for followers that lag, and memory without a budget
//! ```
//!
//! Each share has an upper bound, a constant of [`limits`](super::limits), beyond which more memory makes nothing faster.
//! A share may be smaller than the largest request of one client; then that request is refused, as with any full budget.

use super::limits::{
    BLOCK_CACHE_BYTES_MAX, RECORD_CACHE_BYTES, REQUEST_BYTES_IN_FLIGHT_MAX,
    RESPONSE_BYTES_IN_FLIGHT_MAX, WATCH_HUB_BYTES_MAX,
};

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
    /// Unsent events of the watches of one executor. Past it each stream may hold its share only.
    pub watch_hub: usize,
    /// The record cache.
    pub record_cache: u64,
    /// The store's cache of blocks.
    pub block_cache: u64,
}

impl Budgets {
    /// The budgets of a member with `memory_bytes` of memory and this number of executors.
    pub fn new(memory_bytes: u64, executors: usize) -> Self {
        let share = |inverse: u64| memory_bytes / inverse;
        let part = |inverse: u64, max: usize| {
            let executors = executors.max(1) as u64;
            usize::try_from(share(inverse) / executors).unwrap_or(max).min(max)
        };
        Self {
            responses: usize::try_from(share(4))
                .unwrap_or(usize::MAX)
                .min(RESPONSE_BYTES_IN_FLIGHT_MAX),
            requests: part(8, REQUEST_BYTES_IN_FLIGHT_MAX),
            requests_waiting: part(16, REQUEST_BYTES_IN_FLIGHT_MAX / 2),
            watch_hub: part(8, WATCH_HUB_BYTES_MAX),
            record_cache: share(32).min(RECORD_CACHE_BYTES),
            block_cache: share(16).min(BLOCK_CACHE_BYTES_MAX),
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
    fn all_shares_together_leave_a_third_of_any_memory() {
        for shift in 26..40 {
            for executors in [1, 2, 8, 64, 255] {
                let memory = 1u64 << shift;
                let Budgets {
                    responses,
                    requests,
                    requests_waiting,
                    watch_hub,
                    record_cache,
                    block_cache,
                } = Budgets::new(memory, executors);
                let of_one = requests + requests_waiting + watch_hub;
                let of_executors = executors as u64 * of_one as u64;
                let sum = responses as u64 + of_executors + record_cache + block_cache;
                assert!(sum <= memory / 3 * 2, "{memory} bytes, {executors}: {sum}");
            }
        }
    }

    #[test]
    fn a_large_machine_has_what_the_constants_allow() {
        let budgets = Budgets::new(64 << 30, 8);
        assert_eq!(budgets, Budgets::unbounded());
        assert_eq!(budgets.responses, RESPONSE_BYTES_IN_FLIGHT_MAX);
        assert_eq!(budgets.watch_hub, WATCH_HUB_BYTES_MAX);
    }
}
