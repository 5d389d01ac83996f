//! Hands out operations with their intended send times.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The intended send times of operations, counted from the start.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rate {
    /// Operations per second; 0 for as many as the clients can.
    pub rate: u64,
    /// Operations per second at the start of the ramp.
    pub ramp_from: u64,
    /// Duration of the linear ramp from `ramp_from` to `rate`; zero for no ramp.
    pub ramp: Duration,
    /// No operation is intended to be sent later than this; zero for no end.
    pub end: Duration,
}

impl Rate {
    /// The intended send time of operation `index`.
    fn offset(&self, index: u64) -> Duration {
        if self.ramp.is_zero() {
            let nanos = u128::from(index) * 1_000_000_000 / u128::from(self.rate);
            return Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        }
        let (from, to) = (self.ramp_from as f64, self.rate as f64);
        let (seconds, count) = (self.ramp.as_secs_f64(), index as f64);
        let within = (from + to) / 2.0 * seconds;
        let due = if count < within {
            // from·t + slope·t²/2 = count, solved in the form that also holds for a slope of zero.
            let slope = (to - from) / seconds;
            2.0 * count / (from + (from * from + 2.0 * slope * count).sqrt()).max(f64::MIN_POSITIVE)
        } else {
            seconds + (count - within) / to
        };
        Duration::try_from_secs_f64(due).unwrap_or(Duration::MAX)
    }

    /// Number of `total` operations that are due before the end; `None` without a rate.
    fn due(&self, total: u64) -> Option<u64> {
        match (self.rate, self.end.is_zero()) {
            (_, true) => Some(total),
            (0, false) => None,
            (_, false) => {
                let (mut none, mut all) = (0, total);
                while none < all {
                    let middle = none + (all - none) / 2;
                    match self.offset(middle) < self.end {
                        true => none = middle + 1,
                        false => all = middle,
                    }
                }
                Some(none)
            }
        }
    }

    /// Intended operations per second at this moment; 0 without a rate.
    pub fn rate_at(&self, at: Duration) -> f64 {
        let share = match self.ramp.is_zero() {
            true => 1.0,
            false => (at.as_secs_f64() / self.ramp.as_secs_f64()).min(1.0),
        };
        let from = if self.ramp.is_zero() { 0.0 } else { self.ramp_from as f64 };
        from + (self.rate as f64 - from) * share
    }
}

/// Hands out operations to connections.
#[derive(Debug)]
pub(super) struct Schedule {
    /// Number of operations that are due; `None` if the end depends on time alone.
    total: Option<u64>,
    conns: u64,
    pace: Rate,
    /// The next operation of all connections; used without a rate only.
    next: AtomicU64,
    /// Ends a closed loop when it is set.
    stop: Option<Arc<AtomicBool>>,
}

/// The next step of a free client.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NextOperation {
    /// Operation `index`, meant to be sent at `intended`.
    Send { index: u64, intended: Instant },
    /// Nothing before this moment.
    Wait(Instant),
    /// Nothing any more.
    Finished,
}

impl Schedule {
    pub(super) fn new(total: u64, pace: Rate, conns: u64) -> Self {
        Self { total: pace.due(total), conns, pace, next: AtomicU64::new(0), stop: None }
    }

    /// The same; without a rate it ends also when `stop` is set, and the number of operations is then not known.
    pub(super) fn stopped_by(mut self, stop: Option<Arc<AtomicBool>>) -> Self {
        if stop.is_some() {
            self.total = None;
        }
        self.stop = stop;
        self
    }

    /// Number of operations that are due, where it is known beforehand.
    pub(super) fn total(&self) -> Option<u64> {
        self.total
    }

    /// The next operation for connection `conn`, which has taken `taken` so far.
    ///
    /// With a rate, connection `c` of `n` sends operations `c`, `c + n`, `c + 2n`: each wakes for its
    /// own only, and an operation that a connection could not send in time is not handed to another one.
    pub(super) fn take(
        &self,
        conn: u64,
        taken: u64,
        start: Instant,
        now: Instant,
    ) -> NextOperation {
        let over = |index| self.total.is_some_and(|total| index >= total);
        if self.pace.rate == 0 {
            let end = self.pace.end;
            let late = !end.is_zero() && now.saturating_duration_since(start) >= end;
            let stopped = self.stop.as_ref().is_some_and(|stop| stop.load(Ordering::Relaxed));
            if late || stopped {
                return NextOperation::Finished;
            }
            let index = self.next.fetch_add(1, Ordering::Relaxed);
            return match over(index) {
                true => NextOperation::Finished,
                false => NextOperation::Send { index, intended: now },
            };
        }
        let index = taken * self.conns + conn;
        if over(index) {
            return NextOperation::Finished;
        }
        let intended = start + self.pace.offset(index);
        if intended > now {
            NextOperation::Wait(intended)
        } else {
            NextOperation::Send { index, intended }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at_rate(rate: u64) -> Rate {
        Rate { rate, ..Rate::default() }
    }

    #[test]
    fn without_a_rate_every_operation_is_taken_once_and_at_once() {
        let (schedule, now) = (Schedule::new(2, at_rate(0), 3), crate::clock::now());
        assert_eq!(schedule.take(2, 0, now, now), NextOperation::Send { index: 0, intended: now });
        assert_eq!(schedule.take(0, 0, now, now), NextOperation::Send { index: 1, intended: now });
        assert_eq!(schedule.take(0, 1, now, now), NextOperation::Finished);
    }

    #[test]
    fn with_a_rate_late_operations_keep_their_intended_time() {
        let start = crate::clock::now();
        let schedule = Schedule::new(5, at_rate(1000), 2);
        let late = start + Duration::from_millis(10);
        let third = start + Duration::from_millis(3);
        assert_eq!(
            schedule.take(1, 1, start, late),
            NextOperation::Send { index: 3, intended: third }
        );
        assert_eq!(schedule.take(1, 1, start, start), NextOperation::Wait(third));
        assert_eq!(schedule.take(1, 2, start, late), NextOperation::Finished);
        assert_eq!(
            schedule.take(0, 2, start, late),
            NextOperation::Send { index: 4, intended: start + Duration::from_millis(4) }
        );
    }

    #[test]
    fn a_ramp_sends_what_its_area_holds() {
        let pace =
            Rate { rate: 300, ramp_from: 100, ramp: Duration::from_secs(10), ..Rate::default() };
        // 100/s rising to 300/s in ten seconds are 2,000 operations; 1,000·t + 10·t² of them by t.
        assert_eq!(pace.offset(0), Duration::ZERO);
        let near = |index, seconds: f64| {
            let found = pace.offset(index).as_secs_f64();
            assert!((found - seconds).abs() < 1e-6, "{index}: {found} instead of {seconds}");
        };
        near(750, 5.0);
        near(2_000, 10.0);
        near(2_300, 11.0);
        assert_eq!(pace.rate_at(Duration::from_secs(5)), 200.0);
        assert_eq!(pace.rate_at(Duration::from_secs(50)), 300.0);
    }

    #[test]
    fn a_ramp_may_start_at_nothing_and_go_down() {
        let up = Rate { rate: 100, ramp: Duration::from_secs(2), ..Rate::default() };
        assert_eq!(up.offset(100), Duration::from_secs(2));
        assert!(up.offset(1) < up.offset(2));
        let down = Rate { rate: 10, ramp_from: 100, ramp: Duration::from_secs(2), ..up };
        assert!((down.offset(110).as_secs_f64() - 2.0).abs() < 1e-9);
        let offsets: Vec<_> = (0..200).map(|index| down.offset(index)).collect();
        assert!(offsets.is_sorted());
    }

    #[test]
    fn time_ends_a_run() {
        let start = crate::clock::now();
        let pace = Rate { end: Duration::from_secs(2), ..at_rate(10) };
        assert_eq!(Schedule::new(u64::MAX, pace, 1).total(), Some(20));
        assert_eq!(Schedule::new(5, pace, 1).total(), Some(5));
        let closed = Schedule::new(u64::MAX, Rate { rate: 0, ..pace }, 1);
        assert_eq!(closed.total(), None);
        let after = start + Duration::from_secs(2);
        assert_eq!(closed.take(0, 0, start, after), NextOperation::Finished);
        assert_eq!(
            closed.take(0, 0, start, start),
            NextOperation::Send { index: 0, intended: start }
        );
    }

    #[test]
    fn operations_delayed_by_a_stalled_server_are_sent_late_and_not_left_out() {
        let start = crate::clock::now();
        let pace = Rate { end: Duration::from_secs(1), ..at_rate(100) };
        let schedule = Schedule::new(u64::MAX, pace, 1);
        // The only client comes back a minute later: all hundred operations are still due, each
        // since its own moment.
        let back = start + Duration::from_secs(60);
        for taken in 0..100 {
            let intended = start + Duration::from_millis(10 * taken);
            let turn = schedule.take(0, taken, start, back);
            assert_eq!(turn, NextOperation::Send { index: taken, intended });
        }
        assert_eq!(schedule.take(0, 100, start, back), NextOperation::Finished);
    }
}
