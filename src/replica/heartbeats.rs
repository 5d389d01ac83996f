//! When a leader sent its heartbeats: one that leaves late shows that the member does too much, or that its disk is slow.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::types::MemberId;

/// Intervals after which etcd calls a heartbeat late.
const INTERVALS_MAX: u32 = 2;

/// The times of the newest heartbeats of one leadership.
pub(super) struct Heartbeats {
    interval: Duration,
    sent: BTreeMap<MemberId, Duration>,
}

impl Heartbeats {
    /// None was sent yet. One should be sent to each member in each `interval`.
    pub(super) fn new(interval: Duration) -> Self {
        Self { interval, sent: BTreeMap::new() }
    }

    /// One leaves for a member. The time by which it is late, if it is.
    pub(super) fn note(&mut self, to: MemberId, now: Duration) -> Option<Duration> {
        let before = self.sent.insert(to, now)?;
        let late = now.saturating_sub(before).saturating_sub(self.interval * INTERVALS_MAX);
        (!late.is_zero()).then_some(late)
    }

    /// Another leadership begins, or none.
    pub(super) fn restart(&mut self) {
        self.sent.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_heartbeat_is_late_after_two_intervals_without_one() {
        let ms = Duration::from_millis;
        let mut heartbeats = Heartbeats::new(ms(100));
        let late = [(2, 0), (3, 50), (2, 200), (3, 251), (2, 500), (2, 600)];
        let late = late.map(|(to, now)| heartbeats.note(to, ms(now)));
        assert_eq!(late, [None, None, None, Some(ms(1)), Some(ms(100)), None]);
        heartbeats.restart();
        assert_eq!(heartbeats.note(2, ms(5000)), None);
    }
}
