//! Times of a leader's heartbeats: a late one shows that the member is overloaded, or that its disk is slow.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::types::MemberId;

/// Intervals after which etcd reports a heartbeat as late.
const INTERVALS_MAX: u32 = 2;

/// The times of the newest heartbeats of one leadership.
pub(super) struct Heartbeats {
    interval: Duration,
    sent: BTreeMap<MemberId, Duration>,
}

impl Heartbeats {
    /// No heartbeats yet. One should be sent to each member in each `interval`.
    pub(super) fn new(interval: Duration) -> Self {
        Self { interval, sent: BTreeMap::new() }
    }

    /// Records a heartbeat to a member. Returns by how much it is late, if it is.
    pub(super) fn note(&mut self, to: MemberId, now: Duration) -> Option<Duration> {
        let before = self.sent.insert(to, now)?;
        let late = now.saturating_sub(before).saturating_sub(self.interval * INTERVALS_MAX);
        (!late.is_zero()).then_some(late)
    }

    /// A leadership begins or ends.
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
