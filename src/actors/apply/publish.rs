//! Publishes the new state to readers and watchers, and sends answers to sessions.

use std::sync::Arc;
use std::time::Duration;

use super::Actor;
use super::report;
use crate::actors::mailbox::apply::Handle;
use crate::actors::state::State;
use crate::io::{LsmEngine, LsmView, clock};
use crate::machine::{Machine, Published};
use crate::metrics;
use crate::mvcc::ReadView;
use crate::replica::Delivery;
use crate::store::Engine as _;
use crate::types::{Fault, MemberId};

/// Interval at which the store's files are checked when nothing is applied.
const REFRESH: Duration = Duration::from_millis(500);

/// Requests at intervals that the state is published again, for when nothing is applied.
pub async fn refreshes(apply: Handle) {
    while apply.try_refresh() {
        clock::sleep(REFRESH).await;
    }
}

/// The state to publish: `read` and the other replicated state of the machine.
pub fn state_of(
    machine: &Machine<LsmEngine>,
    read: ReadView<LsmView>,
    member_id: MemberId,
    disk_bytes: u64,
) -> State {
    State {
        read,
        alarms: machine.alarms(),
        members: machine.cluster().members().cloned().collect(),
        cluster_version: machine.cluster().version(),
        feature_level: machine.cluster().feature_level(),
        permissions: Arc::clone(machine.permissions()),
        leases: machine.lease_count(),
        applied: machine.applied(),
        applied_term: machine.applied_term(),
        disk_bytes,
        sole_voter: machine.is_sole_voter(member_id),
    }
}

impl Actor {
    pub(super) fn publish(&mut self, published: Published<LsmView>) {
        report::count(published.changes);
        let revision = published.read.revision;
        let state = self.state(published.read);
        let before = self.shared.state();
        report::tell_version(before.cluster_version, state.cluster_version);
        report::tell_level(before.feature_level, state.feature_level);
        metrics::AUTH_REVISION.set(state.permissions.revision() as i64);
        self.shared.publish(state);
        for hub in &self.outputs.hubs {
            if published.left_out_events {
                hub.left_out();
            } else {
                hub.events(&published.events, revision);
            }
        }
    }

    /// The state to publish.
    fn state(&mut self, read: ReadView<LsmView>) -> State {
        let machine = self.applier.machine();
        let engine = machine.engine();
        (self.disk_bytes, self.changes) = (engine.disk_bytes(), engine.changes());
        engine.note_usage(read.usage.logical);
        state_of(machine, read, self.shared.node.member_id, self.disk_bytes)
    }

    /// Answers on this executor by a call, to the others by one message.
    pub(super) fn deliver(&self, executor: usize, delivery: Delivery) {
        let (here, pending) = &self.outputs.here;
        if executor == *here {
            return pending.borrow_mut().deliver(delivery);
        }
        let sent = self.outputs.deliveries[executor].try_send(delivery);
        assert!(!matches!(sent, Err(flume::TrySendError::Full(_))), "more answers than requests");
    }

    /// Publishes again if the store's files changed: the published view keeps deleted ones open.
    pub(super) fn refresh(&mut self) -> Result<(), Fault> {
        let engine = self.applier.machine().engine();
        if (engine.disk_bytes(), engine.changes()) == (self.disk_bytes, self.changes) {
            return Ok(());
        }
        let published = self.applier.refresh()?;
        self.publish(published);
        Ok(())
    }
}
