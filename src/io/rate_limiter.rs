//! A limit of bandwidth for bulk work, which leaves most of it to other work.

use std::time::Duration;

use super::clock::Instant;

/// Upper bound of the delay that may be made up for.
const BEHIND_MAX: Duration = Duration::from_millis(50);
/// Shorter waits are combined.
const NAP: Duration = Duration::from_millis(1);

/// Keeps bulk work from handling more than so many bytes in a second.
#[derive(Debug)]
pub(super) struct RateLimiter {
    bytes_per_second: f64,
    began: Instant,
    /// Time at which the bytes so far were due, since the start.
    due: Duration,
}

impl RateLimiter {
    pub(super) fn new(bytes_per_second: usize) -> Self {
        Self {
            bytes_per_second: bytes_per_second as f64,
            began: Instant::now(),
            due: Duration::ZERO,
        }
    }

    /// Waits until the next `bytes` are due.
    #[allow(clippy::disallowed_methods, reason = "a thread of its own, which hosts nothing")]
    pub(super) fn keep(&mut self, bytes: usize) {
        if let Some(wait) = self.wait(bytes) {
            std::thread::sleep(wait);
        }
    }

    /// So many bytes are next: the time until they are due, if that is worth waiting for.
    pub(super) fn wait(&mut self, bytes: usize) -> Option<Duration> {
        let now = self.began.elapsed();
        self.due = self.due.max(now.saturating_sub(BEHIND_MAX));
        let wait = self.due.saturating_sub(now);
        self.due += Duration::from_secs_f64(bytes as f64 / self.bytes_per_second);
        (wait >= NAP).then_some(wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(clippy::disallowed_methods, reason = "a test's thread")]
    fn bytes_take_their_time_and_a_rest_is_made_up_for_in_part() {
        let mut limiter = RateLimiter::new(1_000_000);
        (0..10).for_each(|_| limiter.keep(10_000));
        assert!(limiter.began.elapsed() >= Duration::from_millis(89), "the first are due at once");
        limiter.began = Instant::now();
        limiter.due = Duration::ZERO;
        std::thread::sleep(4 * BEHIND_MAX);
        (0..20).for_each(|_| limiter.keep(10_000));
        let took = limiter.began.elapsed();
        assert!(took >= 4 * BEHIND_MAX + Duration::from_millis(140), "{took:?}");
    }
}
