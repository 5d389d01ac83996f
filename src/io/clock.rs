//! The clock, and waiting for it. The futures are `Send`, as tonic's handlers need, so they cannot hold one of
//! the executor's own timers: one thread keeps all deadlines and wakes whoever waits.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::thread;

#[allow(clippy::disallowed_methods, reason = "this is the one place that reads the clock")]
fn now() -> Instant {
    Instant::now()
}

/// Milliseconds since the first call in this process.
pub fn now_ms() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    now().duration_since(*START.get_or_init(now)).as_millis() as u64
}

/// Time since the machine was started. Unlike all others here it goes on while the machine sleeps or is suspended.
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
pub struct Moment(Instant);

impl Moment {
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

/// Someone who waits, ordered by when.
struct Sleeper {
    at: Instant,
    slot: Arc<Mutex<Option<Waker>>>,
}

impl PartialEq for Sleeper {
    fn eq(&self, other: &Self) -> bool {
        self.at == other.at
    }
}
impl Eq for Sleeper {}
impl PartialOrd for Sleeper {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Sleeper {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.at.cmp(&other.at)
    }
}

#[derive(Default)]
struct Timers {
    sleepers: Mutex<BinaryHeap<Reverse<Sleeper>>>,
    changed: Condvar,
}

fn timers() -> &'static Timers {
    static TIMERS: OnceLock<&'static Timers> = OnceLock::new();
    TIMERS.get_or_init(|| {
        let timers: &'static Timers = Box::leak(Box::default());
        let spawned = thread::start("clock", || timers.run());
        assert!(spawned.is_ok(), "the clock's thread cannot start");
        timers
    })
}

impl Timers {
    fn run(&self) {
        let mut sleepers = self.sleepers.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let time = now();
            while sleepers.peek().is_some_and(|Reverse(sleeper)| sleeper.at <= time) {
                if let Some(Reverse(sleeper)) = sleepers.pop() {
                    let waker = sleeper.slot.lock().unwrap_or_else(PoisonError::into_inner).take();
                    waker.into_iter().for_each(Waker::wake);
                }
            }
            let wait = sleepers.peek().map(|Reverse(sleeper)| sleeper.at.duration_since(time));
            sleepers = match wait {
                Some(wait) => {
                    let waited = self.changed.wait_timeout(sleepers, wait);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
                None => self.changed.wait(sleepers).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }

    fn add(&self, sleeper: Sleeper) {
        let mut sleepers = self.sleepers.lock().unwrap_or_else(PoisonError::into_inner);
        let first = sleepers.peek().is_none_or(|Reverse(first)| sleeper.at < first.at);
        sleepers.push(Reverse(sleeper));
        drop(sleepers);
        if first {
            self.changed.notify_one();
        }
    }
}

/// Completes after a time.
pub struct Sleep {
    at: Instant,
    slot: Option<Arc<Mutex<Option<Waker>>>>,
}

/// Completes after a time.
pub fn sleep(duration: Duration) -> Sleep {
    Sleep { at: now() + duration, slot: None }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if now() >= self.at {
            return Poll::Ready(());
        }
        let waker = context.waker().clone();
        match &self.slot {
            Some(slot) => *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(waker),
            None => {
                let slot = Arc::new(Mutex::new(Some(waker)));
                self.slot = Some(Arc::clone(&slot));
                timers().add(Sleeper { at: self.at, slot });
            }
        }
        // The time may have come while the waker was put away.
        if now() >= self.at { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl Drop for Sleep {
    /// Lets go of who waits: what is left of a timer that nobody needs any more is a few bytes, until its
    /// time has come.
    fn drop(&mut self) {
        if let Some(slot) = &self.slot {
            slot.lock().unwrap_or_else(PoisonError::into_inner).take();
        }
    }
}

/// Waits for a future, but not for ever: `None` when the time is up.
pub async fn deadline<T>(duration: Duration, future: impl Future<Output = T>) -> Option<T> {
    let done = async { Some(future.await) };
    let late = async {
        sleep(duration).await;
        None
    };
    futures_lite::future::or(done, late).await
}
