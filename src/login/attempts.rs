//! Hashes that wait to be computed. Users take turns, so that attempts at one user's password do not keep another user
//! waiting, and each user has one attempt under way at most. Equal attempts are one.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use crate::types::limits::{
    LOGIN_WAITERS_MAX, LOGINS_OF_USER_WAITING_MAX, LOGINS_REMEMBERED_MAX, LOGINS_WAITING_MAX,
};

/// For how long an attempt that was right is right without another hash, in ms.
const REMEMBERED_MS: u64 = 60_000;

/// Tells attempts apart: made of the user, the hash of its password and the password, by a key of this process alone.
pub type Digest = [u8; 32];

/// Hashes that wait for a thread, and the successes of the last minute. `J` is what a thread needs, `W` who waits for it.
#[derive(Debug)]
pub struct Attempts<J, W> {
    users: BTreeMap<Arc<str>, VecDeque<Attempt<J, W>>>,
    /// Users whose next attempt waits for a thread, in their order.
    turns: VecDeque<Arc<str>>,
    waiting: usize,
    waiters: usize,
    remembered: BTreeMap<Digest, u64>,
    /// The same, oldest first.
    ages: VecDeque<(u64, Digest)>,
}

#[derive(Debug)]
struct Attempt<J, W> {
    digest: Digest,
    /// Taken when a thread begins with it.
    job: Option<J>,
    waiters: Vec<W>,
}

/// The immediate outcome of an attempt.
#[derive(Debug, PartialEq, Eq)]
pub enum Begun {
    /// It was right within the last minute.
    Remembered,
    /// It waits, or an equal one does.
    Waits,
    /// Too many wait.
    Full,
}

impl<J, W> Default for Attempts<J, W> {
    fn default() -> Self {
        Self {
            users: BTreeMap::new(),
            turns: VecDeque::new(),
            waiting: 0,
            waiters: 0,
            remembered: BTreeMap::new(),
            ages: VecDeque::new(),
        }
    }
}

impl<J, W> Attempts<J, W> {
    /// Tells if this attempt was right lately.
    pub fn is_remembered(&self, digest: &Digest, now_ms: u64) -> bool {
        self.remembered.get(digest).is_some_and(|until| now_ms < *until)
    }

    /// Takes an attempt. `waiter` is dropped if it need not wait, or cannot.
    pub fn begin(
        &mut self,
        user: &Arc<str>,
        digest: Digest,
        job: J,
        waiter: W,
        now_ms: u64,
    ) -> Begun {
        if self.is_remembered(&digest, now_ms) {
            return Begun::Remembered;
        }
        if self.waiters >= LOGIN_WAITERS_MAX {
            return Begun::Full;
        }
        let own = self.users.entry(Arc::clone(user)).or_default();
        if let Some(equal) = own.iter_mut().find(|attempt| attempt.digest == digest) {
            equal.waiters.push(waiter);
            self.waiters += 1;
            return Begun::Waits;
        }
        if self.waiting >= LOGINS_WAITING_MAX || own.len() >= LOGINS_OF_USER_WAITING_MAX {
            if own.is_empty() {
                self.users.remove(user);
            }
            return Begun::Full;
        }
        if own.is_empty() {
            self.turns.push_back(Arc::clone(user));
        }
        own.push_back(Attempt { digest, job: Some(job), waiters: vec![waiter] });
        self.waiting += 1;
        self.waiters += 1;
        Begun::Waits
    }

    /// The next job for a thread that is free, and whose it is; [`Attempts::finish`] must follow. Attempts that nobody
    /// waits for any more are dropped.
    pub fn next(&mut self, mut is_gone: impl FnMut(&W) -> bool) -> Option<(Arc<str>, J)> {
        while let Some(user) = self.turns.pop_front() {
            while let Some(attempt) = self.users.get_mut(&user).and_then(VecDeque::front_mut) {
                if attempt.waiters.iter().all(&mut is_gone) {
                    self.take_first(&user);
                    continue;
                }
                if let Some(job) = attempt.job.take() {
                    return Some((user, job));
                }
                break;
            }
        }
        None
    }

    /// The first attempt of this user, which a thread has begun, is over. Gives who waited for it.
    pub fn finish(&mut self, user: &Arc<str>, is_right: bool, now_ms: u64) -> Vec<W> {
        let Some(attempt) = self.take_first(user) else { return Vec::new() };
        if self.users.contains_key(user) {
            self.turns.push_back(Arc::clone(user));
        }
        if is_right {
            self.remember(attempt.digest, now_ms);
        }
        attempt.waiters
    }

    fn take_first(&mut self, user: &Arc<str>) -> Option<Attempt<J, W>> {
        let own = self.users.get_mut(user)?;
        let first = own.pop_front()?;
        if own.is_empty() {
            self.users.remove(user);
        }
        self.waiting -= 1;
        self.waiters -= first.waiters.len();
        Some(first)
    }

    fn remember(&mut self, digest: Digest, now_ms: u64) {
        let until = now_ms + REMEMBERED_MS;
        self.remembered.insert(digest, until);
        self.ages.push_back((until, digest));
        let is_over = |(until, _): &(u64, Digest), kept: usize| {
            *until <= now_ms || kept > LOGINS_REMEMBERED_MAX
        };
        while self.ages.front().is_some_and(|oldest| is_over(oldest, self.ages.len())) {
            let Some((until, digest)) = self.ages.pop_front() else { break };
            // It may have been remembered again since.
            if self.remembered.get(&digest) == Some(&until) {
                self.remembered.remove(&digest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(number: usize) -> Digest {
        let mut digest = [0; 32];
        digest[..8].copy_from_slice(&number.to_be_bytes());
        digest
    }

    fn user(name: &str) -> Arc<str> {
        name.into()
    }

    #[test]
    fn equal_attempts_are_one_and_a_success_is_remembered_for_a_minute() {
        let mut attempts: Attempts<&str, usize> = Attempts::default();
        let (alice, right, wrong) = (user("alice"), digest(1), digest(2));
        for waiter in 0..1000 {
            assert_eq!(attempts.begin(&alice, right, "right", waiter, 0), Begun::Waits);
        }
        assert_eq!(attempts.begin(&alice, wrong, "wrong", 1000, 0), Begun::Waits);
        assert_eq!(attempts.next(|_| false), Some((Arc::clone(&alice), "right")));
        // One at a time; who comes now still joins it.
        assert_eq!(attempts.next(|_| false), None);
        assert_eq!(attempts.begin(&alice, right, "right", 1001, 5), Begun::Waits);
        assert_eq!(attempts.finish(&alice, true, 10).len(), 1001);
        assert_eq!(attempts.begin(&alice, right, "right", 0, 59_999), Begun::Remembered);
        assert_eq!(attempts.next(|_| false), Some((Arc::clone(&alice), "wrong")));
        assert_eq!(attempts.finish(&alice, false, 70), [1000]);
        assert_eq!(attempts.begin(&alice, wrong, "wrong", 0, 71), Begun::Waits);
        assert_eq!(attempts.begin(&alice, right, "right", 1, 60_010), Begun::Waits);
    }

    #[test]
    fn users_take_turns_and_one_user_does_not_fill_the_queue() {
        let mut attempts: Attempts<usize, ()> = Attempts::default();
        let (alice, bob) = (user("alice"), user("bob"));
        let begun: Vec<_> =
            (0..100).map(|number| attempts.begin(&alice, digest(number), number, (), 0)).collect();
        let taken = begun.iter().filter(|begun| **begun == Begun::Waits).count();
        assert_eq!(taken, LOGINS_OF_USER_WAITING_MAX);
        assert_eq!(begun.last(), Some(&Begun::Full));
        assert_eq!(attempts.begin(&bob, digest(7), 7, (), 0), Begun::Waits);
        assert_eq!(attempts.next(|()| false), Some((Arc::clone(&alice), 0)));
        assert_eq!(attempts.next(|()| false), Some((Arc::clone(&bob), 7)));
        attempts.finish(&alice, false, 1);
        attempts.finish(&bob, false, 1);
        assert_eq!(attempts.next(|()| false), Some((Arc::clone(&alice), 1)));
    }

    #[test]
    fn the_queue_is_bounded_and_forgets_whom_nobody_waits_for() {
        let mut attempts: Attempts<usize, usize> = Attempts::default();
        for number in 0..LOGINS_WAITING_MAX {
            let one = user(&format!("user {number}"));
            assert_eq!(attempts.begin(&one, digest(number), number, number, 0), Begun::Waits);
        }
        assert_eq!(attempts.begin(&user("late"), digest(0), 0, 0, 0), Begun::Full);
        // All but the last one are gone.
        let last = LOGINS_WAITING_MAX - 1;
        let (one, job) = attempts.next(|waiter| *waiter != last).expect("one is left");
        assert_eq!(job, last);
        assert_eq!(attempts.finish(&one, true, 0), [last]);
        assert_eq!((attempts.waiting, attempts.waiters, attempts.users.len()), (0, 0, 0));
        for number in 0..2 * LOGINS_REMEMBERED_MAX {
            attempts.remember(digest(number), 0);
        }
        assert_eq!(attempts.remembered.len(), LOGINS_REMEMBERED_MAX);
        assert_eq!(attempts.ages.len(), LOGINS_REMEMBERED_MAX);
    }
}
