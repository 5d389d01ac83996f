//! Hosts [`Replica`]: waits for inputs, reads the clock, performs outputs. One per member. Never touches the disk or
//! the store itself, so that neither can delay a heartbeat.

use std::sync::Arc;
use std::time::Duration;

use futures_lite::future::or;
use gocompat::duration;

use super::mailbox::apply::Prepared;
use super::mailbox::consensus::Inbox;
use super::mailbox::peer::Peers;
use super::mailbox::{apply, lease, wal};
use super::state::Shared;
use crate::consensus::Role;
use crate::io::{Pool, clock, spawn};
use crate::metrics;
use crate::replica::{Output, Replica};
use crate::types::MemberId;

/// The actors that perform outputs.
pub struct Outputs {
    /// Appends to the log.
    pub wal: wal::Handle,
    /// Applies what is committed.
    pub apply: apply::Handle,
    /// Keeps leases while this member leads.
    pub lease: lease::Handle,
    /// Sends to other members.
    pub peers: Peers,
    /// Receives a notification when this member becomes leader.
    pub leads: flume::Sender<()>,
}

struct Actor {
    replica: Replica<Box<Prepared>>,
    outputs: Outputs,
    shared: Arc<Shared>,
}

/// Runs until all handles are dropped.
pub async fn run(
    replica: Replica<Box<Prepared>>,
    mut inbox: Inbox,
    outputs: Outputs,
    shared: Arc<Shared>,
) {
    let mut actor = Actor { replica, outputs, shared };
    let questions = inbox.questions.clone();
    let mut out = Vec::new();
    loop {
        let (appends, requests) =
            (actor.replica.accepts_appends(), actor.replica.accepts_requests());
        let asked = async {
            if let Ok(question) = questions.recv_async().await {
                let _ = question.1.try_send(actor.replica.matched(question.0));
            }
            true
        };
        if !or(inbox.wait(appends, requests), asked).await {
            return;
        }
        actor.replica.set_log_room(actor.outputs.wal.room_left());
        actor.replica.take(&mut inbox, clock::since_boot);
        actor.replica.drain(clock::since_boot(), &mut out);
        for output in out.drain(..) {
            actor.perform(output).await;
        }
        actor.shared.set_disk(actor.replica.disk(), actor.outputs.wal.room_left());
        actor.shared.set_progress(actor.replica.progress());
    }
}

impl Actor {
    async fn perform(&mut self, output: Output<Box<Prepared>>) {
        match output {
            Output::Send(messages) => {
                let undeliverable = self.outputs.peers.send(messages);
                self.replica.undeliverable(undeliverable);
            }
            Output::HeartbeatLate { to, late } => heartbeat_late(to, late),
            Output::Persist { number, records } => {
                self.outputs.wal.persist(number, records).await;
            }
            Output::Install { snapshot, .. } => self.outputs.apply.install(snapshot).await,
            // Closing a store joins its threads.
            Output::Discard(snapshot) => spawn(Pool::Durable.run(move || drop(snapshot))),
            Output::Commit(entries) => self.outputs.apply.commit(entries).await,
            Output::ReadAt { executor, batch, index } => {
                self.outputs.apply.read_at(executor, batch, index).await;
            }
            Output::RoleChanged { before, now } => self.role_changed(before, now),
            Output::QuorumFull(members) => self.quorum_full(members),
        }
    }

    fn role_changed(&self, before: Role, now: Role) {
        if now.leader.is_some_and(|leader| before.leader != Some(leader)) {
            metrics::LEADER_CHANGES.add(1);
        }
        if now.leader != before.leader {
            let hex =
                |leader: Option<MemberId>| leader.map_or("none".to_owned(), |id| format!("{id:x}"));
            let (from, to) = (hex(before.leader), hex(now.leader));
            tracing::info!(from, to, term = now.term, "the leader changed");
        }
        self.shared.set_role(now);
        self.outputs.lease.leads(now.leads.then_some(now.term));
        if now.leads {
            // The channel holds one notification; if it is full, the receiver has one pending.
            let _ = self.outputs.leads.try_send(());
        }
    }

    fn quorum_full(&self, members: Vec<MemberId>) {
        let ids: Vec<_> = members.iter().map(|id| format!("{id:x}")).collect();
        if members.is_empty() {
            tracing::info!("enough members have room on their disks again: writes are taken");
        } else {
            tracing::warn!(members = ?ids, "too few members have room on their disks: writes are refused");
        }
        self.shared.set_full(members);
    }
}

/// Counts and logs a late heartbeat, with etcd's text.
fn heartbeat_late(to: MemberId, late: Duration) {
    metrics::HEARTBEATS_FAILED.add(1);
    tracing::warn!(
        to = format!("{to:x}"),
        exceeded_duration = duration::text(late),
        "leader failed to send out heartbeat on time; took too long, leader is overloaded likely from slow disk"
    );
}
