//! How much a user, and a client's address, may ask for: requests and bytes in a second, ranges at a time, watches. Without
//! limits nothing is counted. Time is an argument, in ms of a clock that does not go back.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::types::limits::RATE_SUBJECTS_MAX;

/// The time between two searches for idle users and addresses, in ms.
const SWEEP_MS: u64 = 1000;

/// Limits of one user or one address; `None` is no limit.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Limits {
    /// Requests in a second. As many may come at once.
    pub requests: Option<u64>,
    /// Bytes of requests in a second. As many may come at once, and one request of any size.
    pub bytes: Option<u64>,
    /// Ranges that are read at a time.
    pub ranges: Option<u64>,
    /// Watches that are open.
    pub watches: Option<u64>,
}

impl Limits {
    fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// A thing of which only so many may be there at a time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Held {
    /// A range is being read.
    Range,
    /// A watch is open.
    Watch,
}

/// A user, or an address.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Subject {
    /// By its name.
    User(Arc<str>),
    /// Without a port.
    Address(Arc<str>),
}

/// Recent requests of users and addresses.
#[derive(Debug)]
pub struct RateLimiter {
    user: Limits,
    address: Limits,
    usage: BTreeMap<Subject, Usage>,
    /// When idle ones were last looked for: a flood of new ones must not look each time.
    swept_ms: Option<u64>,
}

/// The rest of a second's allowance, and the number of things under way.
#[derive(Clone, Copy, Debug)]
struct Usage {
    at_ms: u64,
    requests: f64,
    bytes: f64,
    ranges: u64,
    watches: u64,
}

impl Usage {
    fn new(limits: &Limits, at_ms: u64) -> Self {
        let full = |limit: Option<u64>| limit.map_or(0.0, |limit| limit as f64);
        Self {
            at_ms,
            requests: full(limits.requests),
            bytes: full(limits.bytes),
            ranges: 0,
            watches: 0,
        }
    }

    fn refill(&mut self, limits: &Limits, now_ms: u64) {
        let seconds = now_ms.saturating_sub(self.at_ms) as f64 / 1000.0;
        let refilled = |left: f64, limit: Option<u64>| {
            limit.map_or(0.0, |limit| (left + seconds * limit as f64).min(limit as f64))
        };
        self.requests = refilled(self.requests, limits.requests);
        self.bytes = refilled(self.bytes, limits.bytes);
        self.at_ms = now_ms.max(self.at_ms);
    }

    /// True if a request of any size may come: it may take more than there is, and then others wait longer.
    fn admits(&self, limits: &Limits) -> bool {
        (limits.requests.is_none() || self.requests >= 1.0)
            && (limits.bytes.is_none() || self.bytes > 0.0)
    }

    fn is_idle(&self, limits: &Limits) -> bool {
        let fresh = Self::new(limits, self.at_ms);
        (self.requests, self.bytes) >= (fresh.requests, fresh.bytes)
            && (self.ranges, self.watches) == (0, 0)
    }
}

impl RateLimiter {
    /// With these limits for each user and each address.
    pub fn new(user: Limits, address: Limits) -> Self {
        Self { user, address, usage: BTreeMap::new(), swept_ms: None }
    }

    /// Tells if nothing is limited.
    pub fn is_off(&self) -> bool {
        self.user.is_none() && self.address.is_none()
    }

    /// Counts a request, if all of these may make it.
    pub fn admit(&mut self, subjects: &[Subject], bytes: usize, now_ms: u64) -> bool {
        let limits = |this: &Self, subject: &Subject| *this.limits(subject);
        for subject in subjects {
            let limits = limits(self, subject);
            let Some(usage) = self.usage(subject, now_ms) else { return false };
            usage.refill(&limits, now_ms);
            if !usage.admits(&limits) {
                return false;
            }
        }
        for subject in subjects {
            if let Some(usage) = self.usage.get_mut(subject) {
                usage.requests -= 1.0;
                usage.bytes -= bytes as f64;
            }
        }
        true
    }

    /// Begins something that [`RateLimiter::release`] ends, if all of these may have one more.
    pub fn hold(&mut self, subjects: &[Subject], held: Held, now_ms: u64) -> bool {
        for subject in subjects {
            let limits = *self.limits(subject);
            let Some(usage) = self.usage(subject, now_ms) else { return false };
            let (count, max) = match held {
                Held::Range => (usage.ranges, limits.ranges),
                Held::Watch => (usage.watches, limits.watches),
            };
            if max.is_some_and(|max| count >= max) {
                return false;
            }
        }
        self.count(subjects, held, |count| count + 1);
        true
    }

    /// See [`RateLimiter::hold`].
    pub fn release(&mut self, subjects: &[Subject], held: Held) {
        self.count(subjects, held, |count| count.saturating_sub(1));
    }

    fn count(&mut self, subjects: &[Subject], held: Held, change: impl Fn(u64) -> u64) {
        for subject in subjects {
            let Some(usage) = self.usage.get_mut(subject) else { continue };
            match held {
                Held::Range => usage.ranges = change(usage.ranges),
                Held::Watch => usage.watches = change(usage.watches),
            }
        }
    }

    fn limits(&self, subject: &Subject) -> &Limits {
        match subject {
            Subject::User(_) => &self.user,
            Subject::Address(_) => &self.address,
        }
    }

    /// The usage of one, which is made if it is not there; none if too many are busy.
    fn usage(&mut self, subject: &Subject, now_ms: u64) -> Option<&mut Usage> {
        if !self.usage.contains_key(subject) {
            let is_due = self.swept_ms.is_none_or(|swept_ms| now_ms >= swept_ms + SWEEP_MS);
            if self.usage.len() >= RATE_SUBJECTS_MAX && is_due {
                self.swept_ms = Some(now_ms);
                let (user, address) = (self.user, self.address);
                self.usage.retain(|subject, usage| {
                    let limits = match subject {
                        Subject::User(_) => &user,
                        Subject::Address(_) => &address,
                    };
                    usage.refill(limits, now_ms);
                    !usage.is_idle(limits)
                });
            }
            if self.usage.len() >= RATE_SUBJECTS_MAX {
                return None;
            }
            let usage = Usage::new(self.limits(subject), now_ms);
            self.usage.insert(subject.clone(), usage);
        }
        self.usage.get_mut(subject)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: Limits = Limits { requests: None, bytes: None, ranges: None, watches: None };

    fn user(name: &str) -> Subject {
        Subject::User(name.into())
    }

    #[test]
    fn requests_and_bytes_are_limited_by_the_second() {
        let limits = Limits { requests: Some(10), bytes: Some(1000), ..NONE };
        let mut limiter = RateLimiter::new(limits, NONE);
        let alice = [user("alice"), Subject::Address("10.0.0.1".into())];
        let bob = [user("bob"), Subject::Address("10.0.0.1".into())];
        let taken = |limiter: &mut RateLimiter, who: &[Subject], bytes, now_ms| {
            (0..100).filter(|_| limiter.admit(who, bytes, now_ms)).count()
        };
        assert_eq!(taken(&mut limiter, &alice, 1, 0), 10);
        assert_eq!(taken(&mut limiter, &bob, 1, 0), 10, "each has its own");
        assert_eq!(taken(&mut limiter, &alice, 1, 500), 5);
        assert_eq!(taken(&mut limiter, &alice, 1, 60_500), 10, "no more than a second's");
        // One that is too large comes through, and others wait for it.
        assert_eq!(taken(&mut limiter, &alice, 3000, 70_000), 1);
        assert_eq!(taken(&mut limiter, &alice, 1, 71_900), 0);
        assert_eq!(taken(&mut limiter, &alice, 1, 72_100), 10);
        let mut none = RateLimiter::new(NONE, NONE);
        assert!(none.is_off() && !limiter.is_off());
        assert_eq!(taken(&mut none, &alice, 1 << 30, 0), 100);
    }

    #[test]
    fn a_refusal_costs_nothing_and_every_subject_counts() {
        let (few, many) =
            (Limits { requests: Some(1), ..NONE }, Limits { requests: Some(3), ..NONE });
        let mut limiter = RateLimiter::new(few, many);
        let from = |name: &str| [user(name), Subject::Address("10.0.0.1".into())];
        assert!(limiter.admit(&from("alice"), 0, 0));
        assert!(!limiter.admit(&from("alice"), 0, 0));
        assert!(limiter.admit(&from("bob"), 0, 0));
        assert!(limiter.admit(&from("carol"), 0, 0), "what was refused is not counted");
        assert!(!limiter.admit(&from("dave"), 0, 0), "the address has none left");
    }

    #[test]
    fn what_is_held_is_given_back() {
        let limits = Limits { ranges: Some(2), watches: Some(1), ..NONE };
        let mut limiter = RateLimiter::new(limits, NONE);
        let alice = [user("alice")];
        assert!(limiter.hold(&alice, Held::Range, 0) && limiter.hold(&alice, Held::Range, 0));
        assert!(!limiter.hold(&alice, Held::Range, 0));
        assert!(limiter.hold(&alice, Held::Watch, 0) && !limiter.hold(&alice, Held::Watch, 0));
        limiter.release(&alice, Held::Range);
        assert!(limiter.hold(&alice, Held::Range, 0));
        assert!(limiter.hold(&[user("bob")], Held::Watch, 0));
    }

    #[test]
    fn who_is_known_is_bounded_and_the_idle_go_first() {
        let limits = Limits { requests: Some(2), watches: Some(1), ..NONE };
        let mut limiter = RateLimiter::new(limits, NONE);
        assert!(limiter.hold(&[user("alice")], Held::Watch, 0));
        for number in 0..2 * RATE_SUBJECTS_MAX {
            limiter.admit(&[user(&number.to_string())], 0, 0);
        }
        assert_eq!(limiter.usage.len(), RATE_SUBJECTS_MAX);
        assert!(limiter.admit(&[user("late")], 0, 5000), "the others are idle by now");
        assert_eq!(limiter.usage.len(), 2);
        assert!(!limiter.hold(&[user("alice")], Held::Watch, 5000));
    }
}
