//! Executors, one for each core that is used.

use std::future::Future;
use std::sync::Arc;

use super::reactor::{self, Place, Pulse, Reactor, Running};
use super::watchdog;
use crate::types::Fault;

/// Running executors.
pub struct Executors {
    reactor: Reactor,
    running: Vec<Running>,
    pulses: Vec<(Place, Arc<Pulse>)>,
}

impl Executors {
    /// None yet.
    pub fn new(reactor: Reactor) -> Self {
        Self { reactor, running: Vec::new(), pulses: Vec::new() }
    }

    /// Starts an executor at its place, running what `start` makes there. Waits until it has begun.
    ///
    /// # Errors
    /// The kernel does not let it.
    pub fn start<F>(
        &mut self,
        place: Place,
        start: impl FnOnce() -> F + Send + 'static,
    ) -> Result<(), Fault>
    where
        F: Future<Output = Result<(), Fault>> + 'static,
    {
        let pulse = Arc::<Pulse>::default();
        let own = Arc::clone(&pulse);
        let running = reactor::start(self.reactor, place, move || async move {
            let _ended = reactor::begin_pulse(own);
            start().await
        })?;
        self.running.push(running);
        self.pulses.push((place, pulse));
        Ok(())
    }

    /// Watches those that run from threads of their own, until they have ended: keeps glommio's from sleeping although
    /// they have work, and tells systemd's watchdog that all of them answer.
    pub fn watch(&mut self) {
        let pulses = std::mem::take(&mut self.pulses);
        watchdog::add(pulses.iter().map(|(_, pulse)| Arc::clone(pulse)));
        match self.reactor {
            Reactor::IoUring => reactor::wake(pulses),
            // It needs none.
            Reactor::Epoll => (),
        }
    }

    /// Waits until all have ended.
    ///
    /// # Errors
    /// What stopped one of them.
    pub fn join(self) -> Result<(), Fault> {
        self.running.into_iter().try_for_each(Running::join)
    }
}

/// Runs a task on this executor, in the background.
pub fn spawn(task: impl Future<Output = ()> + 'static) {
    reactor::spawn(task);
}
