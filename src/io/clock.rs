//! The clock, and timers.
//!
//! ```text
//!  executor ─► its timers (a map of its own) ◄─ clock's thread: wakes due timers, sleeps until the next of all maps
//! ```
//!
//! The futures are `Send`, as tonic's handlers need, so they cannot contain one of the executor's own timers. The
//! crates for such timers do not fit either (futures-timer, async-io): each timer that begins there wakes one thread,
//! and there are tens of thousands a second, nearly all of which are dropped long before they are due.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant as StdInstant, SystemTime, UNIX_EPOCH};

use futures_lite::future::or;
use futures_util::FutureExt as _;

use super::thread;

#[allow(clippy::disallowed_methods, reason = "this is the one place that reads the clock")]
fn now() -> StdInstant {
    StdInstant::now()
}

/// Milliseconds since the first call in this process.
pub fn now_ms() -> u64 {
    static START: OnceLock<StdInstant> = OnceLock::new();
    now().duration_since(*START.get_or_init(now)).as_millis() as u64
}

/// Time since the machine was started. Unlike all other times here it includes suspend.
pub fn since_boot() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec as u32)
}

/// Time since 1970.
#[allow(clippy::disallowed_methods, reason = "this is the one place that reads the clock")]
pub fn unix_time() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// A moment to measure from.
#[derive(Clone, Copy, Debug)]
pub struct Instant(StdInstant);

impl Instant {
    /// This moment.
    pub fn now() -> Self {
        Self(now())
    }

    /// Time since an earlier one.
    pub fn since(self, earlier: Self) -> Duration {
        self.0.duration_since(earlier.0)
    }

    /// Time since then.
    pub fn elapsed(self) -> Duration {
        now().duration_since(self.0)
    }
}

/// Due time of a timer, and a number that is unique among the timers of its thread.
type Key = (StdInstant, u64);

/// Timers of one thread: in practice of one executor, whose tasks create and drop them. The clock's thread holds the
/// lock only while it collects the due ones, so that no executor waits for another one.
#[derive(Default)]
struct Timers(Mutex<BTreeMap<Key, Waker>>);

impl Timers {
    /// Sets the waker of a timer, in place of an earlier one.
    fn set(&self, key: Key, waker: &Waker) {
        let mut pending = lock(&self.0);
        let is_first = pending.first_key_value().is_none_or(|(first, _)| key < *first);
        let before = pending.insert(key, waker.clone());
        drop(pending);
        drop(before);
        if is_first {
            clock().look_at(key.0);
        }
    }

    fn remove(&self, key: &Key) {
        let waker = lock(&self.0).remove(key);
        // Dropped without the lock: it may be the last reference to a task.
        drop(waker);
    }

    /// Takes the wakers of due timers; returns the time of the next one.
    fn take_due(&self, time: StdInstant, due: &mut Vec<Waker>) -> Option<StdInstant> {
        let mut pending = lock(&self.0);
        loop {
            let first = pending.first_entry()?;
            if first.key().0 > time {
                return Some(first.key().0);
            }
            due.push(first.remove());
        }
    }
}

/// The thread that wakes due timers of all executors.
#[derive(Default)]
struct Clock {
    state: Mutex<ClockState>,
    changed: Condvar,
}

#[derive(Default)]
struct ClockState {
    /// Timers of all threads. Those of a thread that ended are removed at the next check.
    threads: Vec<Weak<Timers>>,
    /// Time of the thread's next check; `None` while there is no timer.
    looks_at: Option<StdInstant>,
}

fn clock() -> &'static Clock {
    static CLOCK: OnceLock<&'static Clock> = OnceLock::new();
    CLOCK.get_or_init(|| {
        let clock: &'static Clock = Box::leak(Box::default());
        let spawned = thread::start("clock", || clock.run());
        assert!(spawned.is_ok(), "the clock's thread cannot start");
        clock
    })
}

thread_local! {
    static TIMERS: Arc<Timers> = {
        let timers = Arc::new(Timers::default());
        lock(&clock().state).threads.push(Arc::downgrade(&timers));
        timers
    };
    static NUMBER: Cell<u64> = const { Cell::new(0) };
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Clock {
    fn run(&self) {
        let mut due = Vec::new();
        let mut state = lock(&self.state);
        loop {
            let time = now();
            let mut next: Option<StdInstant> = None;
            state.threads.retain(|timers| {
                let Some(timers) = timers.upgrade() else { return false };
                next = timers.take_due(time, &mut due).into_iter().chain(next).min();
                true
            });
            if !due.is_empty() {
                // Woken without the lock: the woken task may create a timer at once.
                drop(state);
                due.drain(..).for_each(Waker::wake);
                state = lock(&self.state);
                continue;
            }
            state.looks_at = next;
            state = match next {
                Some(next) => {
                    let waited = self.changed.wait_timeout(state, next.duration_since(time));
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
                None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }

    /// Makes the thread check at this time or before. Called by executors only for a timer that is their next one: some
    /// ten times a second.
    fn look_at(&self, at: StdInstant) {
        let mut state = lock(&self.state);
        if state.looks_at.is_none_or(|looks_at| at < looks_at) {
            state.looks_at = Some(at);
            self.changed.notify_one();
        }
    }
}

/// Completes after a time. Dropping it removes the timer.
pub struct Sleep {
    at: StdInstant,
    timer: Option<(Arc<Timers>, Key)>,
}

/// Completes after a time.
pub fn sleep(duration: Duration) -> Sleep {
    let now = now();
    // Longer times are as good as a century.
    let at = now.checked_add(duration).unwrap_or(now + LONGEST);
    Sleep { at, timer: None }
}

/// The longest time of a timer: adding more to the present time may overflow.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 86_400);

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if now() >= self.at {
            return Poll::Ready(());
        }
        let at = self.at;
        let (timers, key) = self.timer.get_or_insert_with(|| {
            let number = NUMBER.replace(NUMBER.get() + 1);
            (TIMERS.with(Arc::clone), (at, number))
        });
        timers.set(*key, context.waker());
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some((timers, key)) = &self.timer {
            timers.remove(key);
        }
    }
}

/// Waits for a future, at most for `duration` from now: `None` after that.
///
/// Like other combinators here this is no `async fn`, which would hold the future twice.
pub fn deadline<T>(
    duration: Duration,
    future: impl Future<Output = T>,
) -> impl Future<Output = Option<T>> {
    or(future.map(Some), sleep(duration).map(|()| None))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pending() -> usize {
        TIMERS.with(|timers| lock(&timers.0).len())
    }

    #[test]
    fn nothing_is_left_of_a_timer_that_is_dropped() {
        let mut kept = Box::pin(sleep(Duration::from_secs(3600)));
        let mut context = Context::from_waker(Waker::noop());
        assert!(kept.as_mut().poll(&mut context).is_pending());
        for _ in 0..10_000 {
            let mut dropped = Box::pin(sleep(Duration::from_secs(150)));
            assert!(dropped.as_mut().poll(&mut context).is_pending());
            assert!(dropped.as_mut().poll(&mut context).is_pending());
        }
        assert_eq!(pending(), 1);
        drop(kept);
        assert_eq!(pending(), 0);
    }

    #[test]
    fn timers_of_many_threads_end_in_their_order_and_not_before_their_time() {
        let threads: Vec<_> = (0..4)
            .map(|thread: u64| {
                #[allow(clippy::disallowed_methods, reason = "a test's thread")]
                std::thread::spawn(move || {
                    for round in 0..20 {
                        let began = Instant::now();
                        let (short, long) = (1 + (thread + round) % 5, 8);
                        let first = futures_lite::future::block_on(futures_lite::future::or(
                            async {
                                sleep(Duration::from_millis(long)).await;
                                long
                            },
                            async {
                                sleep(Duration::from_millis(short)).await;
                                short
                            },
                        ));
                        let took = began.elapsed();
                        assert!(took >= Duration::from_millis(first), "{first} ms took {took:?}");
                        assert!(took < Duration::from_secs(5), "{first} ms took {took:?}");
                    }
                    assert_eq!(pending(), 0);
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().expect("it holds"));
    }

    #[test]
    fn no_time_is_too_long_to_wait_for() {
        let mut context = Context::from_waker(Waker::noop());
        assert!(Pin::new(&mut sleep(Duration::MAX)).poll(&mut context).is_pending());
    }
}
