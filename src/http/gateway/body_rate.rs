//! The rate at which the body of a request must come: a client that sends a byte now and then would hold it for ever.

use std::time::Duration;

use crate::types::limits::BODY_BYTES_PER_SECOND_MIN;

/// A body that is being received.
#[derive(Clone, Copy, Debug)]
pub(super) struct BodyRate {
    grace: Duration,
    bytes: u64,
}

impl BodyRate {
    /// A body that may come as slowly as it likes for `grace`.
    pub(super) fn new(grace: Duration) -> Self {
        Self { grace, bytes: 0 }
    }

    /// Counts received bytes.
    pub(super) fn came(&mut self, bytes: usize) {
        self.bytes = self.bytes.saturating_add(bytes as u64);
    }

    /// The time left for the next bytes, `elapsed` after the head of the request; `None` if it is too slow already.
    pub(super) fn left(&self, elapsed: Duration) -> Option<Duration> {
        let earned =
            Duration::from_millis(self.bytes.saturating_mul(1000) / BODY_BYTES_PER_SECOND_MIN);
        self.grace.saturating_add(earned).checked_sub(elapsed).filter(|left| !left.is_zero())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_must_come_at_a_kibibyte_a_second_after_its_grace() {
        let (grace, second) = (Duration::from_secs(30), Duration::from_secs(1));
        let mut rate = BodyRate::new(grace);
        assert_eq!(rate.left(Duration::ZERO), Some(grace));
        assert_eq!(rate.left(29 * second), Some(second));
        assert_eq!(rate.left(30 * second), None);
        rate.came(10 << 10);
        assert_eq!(rate.left(30 * second), Some(10 * second));
        assert_eq!(rate.left(40 * second), None);
        // Large ones have all the time that they need.
        rate.came(usize::MAX);
        assert!(rate.left(3600 * second).is_some());
    }
}
