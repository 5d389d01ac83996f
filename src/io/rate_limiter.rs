//! Bulk work that leaves the machine to others most of the time.

use std::time::Duration;

use super::clock::Instant;

/// How much may be made up for after a time in which less was done.
const BEHIND_MAX: Duration = Duration::from_millis(50);
/// Shorter waits are put together.
const NAP: Duration = Duration::from_millis(1);

/// Keeps a thread that hosts nothing from handling more than so many bytes in a second.
#[derive(Debug)]
pub(super) struct RateLimiter {
    bytes_per_second: f64,
    began: Instant,
    /// When what was handled so far was due, counted from the beginning.
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

    /// So many bytes are next: waits until they are due.
    #[allow(clippy::disallowed_methods, reason = "a thread of its own, which hosts nothing")]
    pub(super) fn keep(&mut self, bytes: usize) {
        let now = self.began.elapsed();
        self.due = self.due.max(now.saturating_sub(BEHIND_MAX));
        let wait = self.due.saturating_sub(now);
        if wait >= NAP {
            std::thread::sleep(wait);
        }
        self.due += Duration::from_secs_f64(bytes as f64 / self.bytes_per_second);
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
