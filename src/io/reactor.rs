//! Runs tasks on a thread and waits for its sockets: by glommio on io_uring, or by epoll where the machine refuses
//! io_uring. The rest of `io` uses [`spawn`], [`start`] and the sockets; nobody outside of `io` names either.
//!
//! ```text
//!  executor ─► reactor ─┬─ uring: glommio; one thread wakes its executors, which may park with ready tasks
//!                       └─ epoll: tasks of async-task, sockets edge-triggered, an eventfd for other threads
//! ```
//!
//! Builds for musl, which glommio does not compile against, have epoll alone.
//!
//! Both try a socket first and wait only for one that would block. Timers, files and what blocks are no part of it:
//! [`super::clock`] and [`super::Pool`] have threads of their own.

mod epoll;
mod periodic_wake;
#[cfg(not(target_env = "musl"))]
mod probe;
mod socket;
#[cfg(not(target_env = "musl"))]
mod uring;
#[cfg(target_env = "musl")]
#[path = "reactor/without_uring.rs"]
mod uring;

use std::future::Future;
use std::thread::JoinHandle;

use super::thread;
use crate::types::Fault;

#[cfg(not(target_env = "musl"))]
use self::probe::io_uring as probe_io_uring;
#[cfg(target_env = "musl")]
use self::uring::io_uring as probe_io_uring;

pub(super) use self::periodic_wake::{PeriodicWake, begin_periodic_wake};
pub(super) use self::socket::{Accepted, Listener, Stream};
pub(super) use self::uring::wake_periodically;

/// A kind of reactor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reactor {
    /// glommio's.
    IoUring,
    /// Our own.
    Epoll,
}

impl Reactor {
    /// Its name in flags, logs and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::IoUring => "io_uring",
            Self::Epoll => "epoll",
        }
    }
}

/// `--reactor`: a kind, or the one that the machine allows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReactorChoice(Option<Reactor>);

impl std::str::FromStr for ReactorChoice {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let known = [Reactor::IoUring, Reactor::Epoll];
        match text {
            "auto" => Ok(Self(None)),
            name => Ok(Self(Some(*known.iter().find(|it| it.name() == name).ok_or(())?))),
        }
    }
}

impl ReactorChoice {
    /// The reactor for so many executors, and why it is that one.
    ///
    /// # Errors
    /// io_uring was asked for and the machine refuses it: one sentence on what is missing and how to grant it.
    pub fn decide(self, executors: usize) -> Result<(Reactor, String), Fault> {
        let asked = || "--reactor asks for it".to_owned();
        if self.0 == Some(Reactor::Epoll) {
            return Ok((Reactor::Epoll, asked()));
        }
        match (self.0, probe_io_uring(executors)) {
            (None, Ok(())) => Ok((Reactor::IoUring, "the machine allows io_uring".to_owned())),
            (Some(_), Ok(())) => Ok((Reactor::IoUring, asked())),
            (None, Err(why)) => Ok((Reactor::Epoll, why)),
            (Some(_), Err(why)) => Err(Fault::new(format!("{why}, or use --reactor=epoll"))),
        }
    }
}

/// Where an executor runs; by default the first one, bound to no core.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Place {
    /// Of all executors of the process.
    pub number: usize,
    /// The core that its thread is bound to; any of the process if there is none.
    pub core: Option<usize>,
}

impl Place {
    fn thread_name(self) -> String {
        format!("executor-{}", self.number)
    }

    /// Binds the calling thread.
    fn bind(self) -> Result<(), Fault> {
        let Some(core) = self.core else { return Ok(()) };
        thread::pin(core).map_err(|error| self.cannot(&error))
    }

    fn cannot(self, error: &dyn std::fmt::Display) -> Fault {
        let core = self.core.map_or_else(String::new, |core| format!(" on core {core}"));
        Fault::new(format!("executor {} cannot start{core}: {error}", self.number))
    }
}

/// An executor that runs.
pub(super) enum Running {
    Uring(uring::Handle),
    Epoll(JoinHandle<Result<(), Fault>>),
}

impl Running {
    /// Waits until it ends.
    pub(super) fn join(self) -> Result<(), Fault> {
        let died = |error: &dyn std::fmt::Display| Fault::new(format!("an executor died: {error}"));
        match self {
            Self::Uring(handle) => handle.join().map_err(|error| died(&error))?,
            Self::Epoll(handle) => handle.join().map_err(|_| died(&"it panicked"))?,
        }
    }
}

/// Starts an executor that runs what `start` makes there. Waits until it has begun.
///
/// # Errors
/// The kernel does not let it.
pub(super) fn start<F>(
    reactor: Reactor,
    place: Place,
    start: impl FnOnce() -> F + Send + 'static,
) -> Result<Running, Fault>
where
    F: Future<Output = Result<(), Fault>> + 'static,
{
    match reactor {
        Reactor::IoUring => uring::start(place, start).map(Running::Uring),
        Reactor::Epoll => epoll::start(place, start).map(Running::Epoll),
    }
}

/// Which tasks of an executor run first, where both are ready.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Rank {
    /// The member's own: consensus, its log, other members.
    Member,
    /// Connections of clients, of which thousands may be ready at once.
    Client,
}

/// Runs a task on this executor, in the background.
pub(super) fn spawn(rank: Rank, task: impl Future<Output = ()> + 'static) {
    match epoll::is_here() {
        true => epoll::spawn(rank, task),
        false => uring::spawn(rank, task),
    }
}

#[cfg(test)]
pub(super) mod tests;
