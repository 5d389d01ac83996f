//! Makes the store durable, and replaces it by a snapshot.

use std::rc::Rc;
use std::time::Duration;

use super::Actor;
use crate::actors::mailbox::apply::Prepared;
use crate::io::{Pool, clock, spawn};
use crate::metrics;
use crate::replica::LogStart;
use crate::types::Fault;

/// Pause before a store that cannot be written is tried again.
const RETRY: Duration = Duration::from_secs(1);

impl Actor {
    /// Makes the committed state durable, and waits as long as the disk has no space for it.
    pub(super) async fn persist(&self) {
        loop {
            let engine = self.engine();
            let Err(fault) = Pool::Durable.run(move || engine.persist()).await else { return };
            tracing::error!(error = %fault, "the members' change waits for the store");
            clock::sleep(RETRY).await;
        }
    }

    /// Goes on from another member's state.
    pub(super) async fn install(&mut self, prepared: Prepared) -> Result<(), Fault> {
        let Prepared { machine, incoming } = prepared;
        let (index, term) = machine.position();
        let engine = machine.engine().clone();
        metrics::SNAPSHOTS_APPLYING.add(1);
        let old = self.applier.install(machine, &mut self.out)?;
        Pool::Durable.run(move || incoming.install(index, term)).await?;
        self.outputs.disk.owe(engine.unflushed());
        old.engine().abandon();
        // Closing a store joins its threads.
        spawn(Pool::Durable.run(move || drop(old)));
        self.perform().await;
        metrics::SNAPSHOTS_APPLYING.add(-1);
        tracing::info!(index, term, "applied snapshot");
        Ok(())
    }

    pub(super) fn note_truncation(&mut self) {
        if let Some(is_truncated) = self.truncated.take() {
            self.applier.truncated(is_truncated);
        }
    }

    /// Truncates a log that is full, although nothing is applied.
    pub(super) async fn truncate_if_due(&mut self) {
        self.note_truncation();
        let log_is_full = self.outputs.wal.room_left().is_some();
        self.applier.truncate_log(clock::since_boot(), log_is_full, &mut self.out);
        self.perform().await;
    }

    /// Lets the log go that the store holds on disk, beside the work.
    pub(super) fn truncate_log(&self, start: LogStart) {
        let (engine, wal) = (self.engine(), self.outputs.wal.clone());
        let truncated = Rc::clone(&self.truncated);
        spawn(async move {
            let persisted = Pool::Durable.run(move || engine.persist()).await;
            match &persisted {
                Ok(()) => wal.log_start(start.index, start.term, start.conf_state).await,
                // The log keeps entries that the store does not have; the next attempt may succeed.
                Err(fault) => tracing::error!(error = %fault, "the log cannot be truncated"),
            }
            truncated.set(Some(persisted.is_ok()));
        });
    }
}
