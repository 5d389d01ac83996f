//! Executors, one for each core that is used.

use std::future::Future;
use std::sync::Arc;

use super::fair_queue::queued_fairly;
use super::reactor::{self, PeriodicWake, Place, Rank, Reactor, Running};
use super::watchdog;
use crate::types::Fault;

/// Running executors.
pub struct Executors {
    reactor: Reactor,
    running: Vec<Running>,
    wakes: Vec<(Place, Arc<PeriodicWake>)>,
}

impl Executors {
    /// None yet.
    pub fn new(reactor: Reactor) -> Self {
        Self { reactor, running: Vec::new(), wakes: Vec::new() }
    }

    /// Starts an executor at its place, running what `start` makes there. Waits until it has begun.
    ///
    /// # Errors
    /// The kernel refuses it.
    pub fn start<F>(
        &mut self,
        place: Place,
        start: impl FnOnce() -> F + Send + 'static,
    ) -> Result<(), Fault>
    where
        F: Future<Output = Result<(), Fault>> + 'static,
    {
        let wake = Arc::<PeriodicWake>::default();
        let own = Arc::clone(&wake);
        let running = reactor::start(self.reactor, place, move || async move {
            let _ended = reactor::begin_periodic_wake(own);
            start().await
        })?;
        self.running.push(running);
        self.wakes.push((place, wake));
        Ok(())
    }

    /// Watches those that run from threads of their own, until they have ended: keeps glommio's from sleeping although
    /// they have work, and tells systemd's watchdog that all of them answer.
    pub fn watch(&mut self) {
        let wakes = std::mem::take(&mut self.wakes);
        watchdog::add(wakes.iter().map(|(_, wake)| Arc::clone(wake)));
        match self.reactor {
            Reactor::IoUring => reactor::wake_periodically(wakes),
            // It needs none.
            Reactor::Epoll => (),
        }
    }

    /// Waits until all have ended.
    ///
    /// # Errors
    /// The error that stopped the first of them.
    pub fn join(self) -> Result<(), Fault> {
        self.running.into_iter().try_for_each(Running::join)
    }
}

/// Of the reactor that every machine has, for tests.
#[cfg(test)]
impl Default for Executors {
    fn default() -> Self {
        Self::new(Reactor::Epoll)
    }
}

/// Runs a task of the member on this executor, in the background.
pub fn spawn(task: impl Future<Output = ()> + 'static) {
    reactor::spawn(Rank::Member, task);
}

/// Runs the task of a client's connection on this executor, in the background. Tasks of the member do not wait until all
/// connections that are ready had their turn, nor does a light connection until all busy ones had theirs.
pub fn spawn_client(task: impl Future<Output = ()> + 'static) {
    reactor::spawn(Rank::Client, queued_fairly(task));
}

/// Runs a task that takes new connections of clients on this executor, in the background. It has its turn like a connection.
pub fn spawn_accept(task: impl Future<Output = ()> + 'static) {
    reactor::spawn(Rank::Client, task);
}
