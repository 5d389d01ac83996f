//! Hosts [`crate::replica::PendingRequests`] of one executor: sends the requests of its sessions to consensus, passes
//! answers to them, and times out old ones.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use futures_lite::future::yield_now;

use super::client::Pending;
use super::mailbox::consensus;
use super::mailbox::peer::Peers;
use super::state::Shared;
use crate::io::clock;
use crate::replica::{Delivery, LeaderHistory, late_refusal};

/// Interval between two checks for timed-out requests.
const SWEEP: Duration = Duration::from_millis(250);

/// Sends requests to consensus, a bundle at a time. Ends when the member is stopping.
pub async fn hand_in(executor: usize, pending: Pending, consensus: consensus::Handle) {
    loop {
        poll_fn(|context| pending.borrow_mut().poll_bundle(context)).await;
        // All sessions that are ready add to the bundle first.
        yield_now().await;
        let (proposals, read) = pending.borrow_mut().take_bundle(clock::now_ms());
        if proposals.is_empty() && read.is_none() {
            continue;
        }
        if !consensus.requests(executor, proposals, read).await {
            return;
        }
    }
}

/// Passes the answers of apply, which runs on another executor, to the sessions.
pub async fn deliver(pending: Pending, inbox: flume::Receiver<Delivery>) {
    while let Ok(delivery) = inbox.recv_async().await {
        pending.borrow_mut().deliver(delivery);
    }
}

/// Answers requests that waited too long, and all of them when the member stops.
pub async fn sweep(pending: Pending, shared: Arc<Shared>, peers: Peers) {
    let node = &shared.node;
    while !shared.stopping() {
        poll_fn(|context| pending.borrow_mut().poll_used(context)).await;
        clock::sleep(SWEEP).await;
        let history = LeaderHistory {
            leader: shared.status().leader,
            found_ms: shared.leader_since_ms(),
            lost_ms: shared.leader_lost_ms(),
            election_ms: node.election_timeout_ms,
        };
        let late = |since_ms| {
            let state = shared.state();
            let members: Vec<_> = state.members.iter().map(|member| member.id).collect();
            let active_since_ms = |id| peers.active_since_ms(id);
            late_refusal(since_ms, &history, node.member_id, &members, active_since_ms)
        };
        pending.borrow_mut().sweep(clock::now_ms(), node.request_timeout_ms, late);
    }
    pending.close();
}
