//! How many wrong passwords may be given: for one user, and from one address. Only failures count, so that clients which
//! know their password are never slowed down by their own logins; and only logins are refused, never what has a token or a
//! certificate.

use std::collections::BTreeMap;

use crate::types::limits::{
    LOGIN_FAILURE_REFILL_MS, LOGIN_FAILURES_BURST, LOGIN_FAILURES_TRACKED_MAX,
};

/// Recent failures by user and by address.
#[derive(Debug, Default)]
pub struct Throttle(BTreeMap<Subject, Failures>);

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Subject {
    User(String),
    Address(String),
}

/// Failures that count at a time; one less after each [`LOGIN_FAILURE_REFILL_MS`].
#[derive(Clone, Copy, Debug)]
struct Failures {
    count: u32,
    since_ms: u64,
}

impl Failures {
    /// As they count now.
    fn at(self, now_ms: u64) -> Self {
        let forgiven = now_ms.saturating_sub(self.since_ms) / LOGIN_FAILURE_REFILL_MS;
        let count = self.count.saturating_sub(u32::try_from(forgiven).unwrap_or(u32::MAX));
        let since_ms = match count {
            0 => now_ms,
            _ => self.since_ms + forgiven * LOGIN_FAILURE_REFILL_MS,
        };
        Self { count, since_ms }
    }
}

impl Throttle {
    /// Tells if a password is worth a look.
    pub fn admits(&self, user: &str, address: &str, now_ms: u64) -> bool {
        let fits = |subject: &Subject| {
            let failures = self.0.get(subject).map_or(0, |failures| failures.at(now_ms).count);
            failures < LOGIN_FAILURES_BURST
        };
        fits(&Subject::User(user.to_owned())) && fits(&Subject::Address(address.to_owned()))
    }

    /// A password was wrong.
    pub fn fail(&mut self, user: &str, address: &str, now_ms: u64) {
        for subject in [Subject::User(user.to_owned()), Subject::Address(address.to_owned())] {
            let before = self.0.get(&subject).copied();
            if before.is_none() && self.0.len() >= LOGIN_FAILURES_TRACKED_MAX {
                self.make_room(now_ms);
            }
            let before = before.unwrap_or(Failures { count: 0, since_ms: now_ms }).at(now_ms);
            let count = (before.count + 1).min(LOGIN_FAILURES_BURST);
            self.0.insert(subject, Failures { count, ..before });
        }
    }

    fn make_room(&mut self, now_ms: u64) {
        self.0.retain(|_, failures| failures.at(now_ms).count > 0);
        if self.0.len() < LOGIN_FAILURES_TRACKED_MAX {
            return;
        }
        let few = self.0.iter().min_by_key(|(_, failures)| failures.at(now_ms).count);
        if let Some(subject) = few.map(|(subject, _)| subject.clone()) {
            self.0.remove(&subject);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_failures_and_then_one_in_ten_seconds() {
        let mut throttle = Throttle::default();
        for _ in 0..LOGIN_FAILURES_BURST {
            assert!(throttle.admits("alice", "10.0.0.1", 0));
            throttle.fail("alice", "10.0.0.1", 0);
        }
        assert!(!throttle.admits("alice", "10.0.0.2", 0), "the user's are used up");
        assert!(!throttle.admits("bob", "10.0.0.1", 0), "and the address's");
        assert!(throttle.admits("bob", "10.0.0.2", 0));
        assert!(!throttle.admits("alice", "10.0.0.1", LOGIN_FAILURE_REFILL_MS - 1));
        assert!(throttle.admits("alice", "10.0.0.1", LOGIN_FAILURE_REFILL_MS));
        throttle.fail("alice", "10.0.0.1", LOGIN_FAILURE_REFILL_MS + 5);
        assert!(!throttle.admits("alice", "10.0.0.1", 2 * LOGIN_FAILURE_REFILL_MS - 1));
        assert!(throttle.admits("alice", "10.0.0.1", 2 * LOGIN_FAILURE_REFILL_MS));
        // All are forgiven in the end, and no more than all.
        let late = 1000 * LOGIN_FAILURE_REFILL_MS;
        for _ in 0..LOGIN_FAILURES_BURST {
            assert!(throttle.admits("alice", "10.0.0.1", late));
            throttle.fail("alice", "10.0.0.1", late);
        }
        assert!(!throttle.admits("alice", "10.0.0.1", late));
    }

    #[test]
    fn what_is_tracked_is_bounded_and_the_worst_stay() {
        let mut throttle = Throttle::default();
        for _ in 0..LOGIN_FAILURES_BURST {
            throttle.fail("alice", "10.0.0.1", 0);
        }
        for number in 0..LOGIN_FAILURES_TRACKED_MAX {
            throttle.fail(&format!("user {number}"), "10.0.0.1", 0);
        }
        assert!(throttle.0.len() <= LOGIN_FAILURES_TRACKED_MAX);
        assert!(!throttle.admits("alice", "10.0.0.2", 0));
        throttle.fail("carol", "10.0.0.3", 1000 * LOGIN_FAILURE_REFILL_MS);
        assert_eq!(throttle.0.len(), 2);
    }
}
