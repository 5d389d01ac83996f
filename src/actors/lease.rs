//! Hosts [`LeaseKeeper`]: keeps the time of all leases on the leader, renews them from memory and proposes to revoke
//! expired ones. One per member. It never waits for consensus.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::mailbox::consensus;
use super::mailbox::lease::{Handle, Inbox, Msg, NOT_LEADING};
use crate::io::clock;
use crate::metrics;
use crate::replica::{LeaseChange, LeaseKeeper};

/// Interval between two checks for expired leases; etcd's (`server/lease/lessor.go`).
const TICK: Duration = Duration::from_millis(500);

/// Wakes the actor every [`TICK`].
pub async fn ticks(handle: Handle) {
    while handle.tick() {
        clock::sleep(TICK).await;
    }
}

/// Runs until all handles are dropped.
pub async fn run(
    mut keeper: LeaseKeeper,
    Inbox { inbox, leads }: Inbox,
    consensus: consensus::Handle,
) {
    while let Ok(msg) = inbox.recv_async().await {
        let now_ms = clock::now_ms();
        let term = leads.load(Ordering::Acquire);
        keeper.set_leadership((term != NOT_LEADING).then_some(term), now_ms);
        match msg {
            Msg::Changed(LeaseChange::Granted(grant)) => keeper.granted(grant, now_ms),
            Msg::Changed(LeaseChange::Revoked(id)) => keeper.revoked(id),
            Msg::Replaced(leases) => keeper.replaced(leases, now_ms),
            Msg::KeepAlive(id, answer) => {
                let renewed = keeper.renew(id, now_ms);
                metrics::LEASES_RENEWED.add(u64::from(renewed.is_some()));
                let _ = answer.try_send(renewed.unwrap_or(0));
            }
            Msg::TimeToLive(id, answer) => drop(answer.try_send(keeper.remaining(id, now_ms))),
            Msg::List(answer) => drop(answer.try_send(keeper.by_expiry())),
            Msg::Tick => {
                let Some((term, revokes)) = keeper.due(now_ms) else { continue };
                metrics::LEASES_EXPIRED.add(revokes.len() as u64);
                // Not awaited: apply waits for this actor and consensus for apply, so that this actor must not wait for
                // consensus. A lease that still exists is due again later.
                consensus.try_leader_requests(term, revokes);
            }
        }
    }
}
