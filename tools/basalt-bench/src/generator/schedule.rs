//! Which operation comes next, and when it was meant to be sent.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Hands out operations to connections.
#[derive(Debug)]
pub(super) struct Schedule {
    total: u64,
    conns: u64,
    /// Operations per second; 0 is no limit.
    rate: u64,
    /// The next operation of all; only without a rate.
    next: AtomicU64,
}

/// What a free client should do.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// Operation `index`, meant to be sent at `intended`.
    Send { index: u64, intended: Instant },
    /// Nothing before this moment.
    Wait(Instant),
    /// Nothing any more.
    Finished,
}

impl Schedule {
    pub(super) fn new(total: u64, rate: u64, conns: u64) -> Self {
        Self { total, conns, rate, next: AtomicU64::new(0) }
    }

    /// The next operation for connection `conn`, which has taken `taken` so far.
    ///
    /// With a rate, connection `c` of `n` sends operations `c`, `c + n`, `c + 2n`: each wakes for its
    /// own only, and what one could not send in time is late, not somebody else's.
    pub(super) fn take(&self, conn: u64, taken: u64, start: Instant, now: Instant) -> Turn {
        if self.rate == 0 {
            let index = self.next.fetch_add(1, Ordering::Relaxed);
            return match index < self.total {
                true => Turn::Send { index, intended: now },
                false => Turn::Finished,
            };
        }
        let index = taken * self.conns + conn;
        if index >= self.total {
            return Turn::Finished;
        }
        let intended = start + self.offset(index);
        if intended > now { Turn::Wait(intended) } else { Turn::Send { index, intended } }
    }

    fn offset(&self, index: u64) -> Duration {
        let nanos = u128::from(index) * 1_000_000_000 / u128::from(self.rate);
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_rate_every_operation_is_taken_once_and_at_once() {
        let (schedule, now) = (Schedule::new(2, 0, 3), crate::clock::now());
        assert_eq!(schedule.take(2, 0, now, now), Turn::Send { index: 0, intended: now });
        assert_eq!(schedule.take(0, 0, now, now), Turn::Send { index: 1, intended: now });
        assert_eq!(schedule.take(0, 1, now, now), Turn::Finished);
    }

    #[test]
    fn with_a_rate_late_operations_keep_their_intended_time() {
        let start = crate::clock::now();
        let schedule = Schedule::new(5, 1000, 2);
        let late = start + Duration::from_millis(10);
        let third = start + Duration::from_millis(3);
        assert_eq!(schedule.take(1, 1, start, late), Turn::Send { index: 3, intended: third });
        assert_eq!(schedule.take(1, 1, start, start), Turn::Wait(third));
        assert_eq!(schedule.take(1, 2, start, late), Turn::Finished);
        assert_eq!(
            schedule.take(0, 2, start, late),
            Turn::Send { index: 4, intended: start + Duration::from_millis(4) }
        );
    }
}
