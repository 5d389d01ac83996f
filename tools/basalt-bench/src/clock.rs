//! The one place that reads the clock, and a timer finer than tokio's millisecond: an intended send
//! time is missed by tens of microseconds, not by half a millisecond.

use std::io;
use std::os::fd::OwnedFd;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};
use tokio::io::unix::AsyncFd;

/// The time now.
#[allow(
    clippy::disallowed_methods,
    reason = "a tool that measures time reads the clock, here only"
)]
pub fn now() -> Instant {
    Instant::now()
}

/// Time since 1970.
#[allow(
    clippy::disallowed_methods,
    reason = "a tool that measures time reads the clock, here only"
)]
pub fn unix() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Nanoseconds from `start` to `end`; 0 if `end` is earlier.
pub fn nanos(start: Instant, end: Instant) -> u64 {
    u64::try_from(end.saturating_duration_since(start).as_nanos()).unwrap_or(u64::MAX)
}

/// Wakes a task at a moment.
#[derive(Debug)]
pub struct Alarm(AsyncFd<OwnedFd>);

impl Alarm {
    /// An alarm that is not set.
    ///
    /// # Errors
    /// The process has no file descriptor left.
    #[allow(
        deprecated,
        reason = "its replacement is unsafe; an OwnedFd is always the same descriptor"
    )]
    pub fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = rustix::time::timerfd_create(TimerfdClockId::Monotonic, flags)?;
        Ok(Self(AsyncFd::new(timer)?))
    }

    /// Sets the alarm to `at`, in place of an earlier setting.
    ///
    /// # Errors
    /// Never in practice: the timer is ours and the time is valid.
    pub fn set(&self, at: Instant) -> io::Result<()> {
        // Zero would disarm the timer.
        let wait = at.saturating_duration_since(now()).max(Duration::from_nanos(1));
        let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
        let it_value = Timespec {
            tv_sec: i64::try_from(wait.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(wait.subsec_nanos()),
        };
        let spec = Itimerspec { it_interval: zero, it_value };
        rustix::time::timerfd_settime(self.0.get_ref(), TimerfdTimerFlags::empty(), &spec)?;
        Ok(())
    }

    /// Ready once after the alarm's time has come.
    pub fn poll(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.0.poll_read_ready(context))?.clear_ready();
        Poll::Ready(Ok(()))
    }
}
