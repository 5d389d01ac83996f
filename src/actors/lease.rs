//! Hosts [`crate::lease::Expiry`]: keeps the time of all leases on the leader, renews them from memory and
//! proposes to revoke those that expired. One per member.

use std::sync::atomic::Ordering;
use std::time::Duration;

use prost::Message as _;

use super::mailbox::consensus;
use super::mailbox::lease::{Handle, Inbox, Msg, NOT_LEADING};
use crate::io::clock;
use crate::lease::{Expiry, Grant};
use crate::metrics;
use crate::types::limits::LEASE_REVOKES_PER_SECOND;

/// How often expired leases are looked for; etcd's too.
const TICK: Duration = Duration::from_millis(500);

/// Wakes the actor every [`TICK`].
pub async fn ticks(handle: Handle) {
    loop {
        clock::sleep(TICK).await;
        if !handle.tick() {
            return;
        }
    }
}

/// Serves until all handles are gone. Revokes are nobody's requests: their answers are not waited for. Only the
/// leader of the term in which a lease ran out proposes that, so that a deposed one revokes nothing.
pub async fn run(mut expiry: Expiry, Inbox { inbox, leads }: Inbox, consensus: consensus::Handle) {
    let mut term = NOT_LEADING;
    while let Ok(msg) = inbox.recv_async().await {
        let now = clock::now_ms();
        let before = std::mem::replace(&mut term, leads.load(Ordering::Acquire));
        if before != term {
            // Who led in between may have renewed what this member does not know of.
            expiry.demote(now);
            if term != NOT_LEADING {
                expiry.promote(now);
            }
        }
        match msg {
            Msg::Granted(grant) => expiry.granted(grant, now),
            Msg::Revoked(id) => expiry.revoked(id),
            Msg::Replaced(leases) => {
                expiry.by_expiry().into_iter().for_each(|id| expiry.revoked(id));
                leases.into_iter().for_each(|grant| expiry.granted(grant, now));
            }
            Msg::KeepAlive(id, answer) => {
                let renewed = expiry.renew(id, now);
                metrics::LEASES_RENEWED.add(u64::from(renewed.is_some()));
                let _ = answer.try_send(renewed.unwrap_or(0));
            }
            Msg::TimeToLive(id, answer) => drop(answer.try_send(expiry.remaining(id, now))),
            Msg::List(answer) => drop(answer.try_send(expiry.by_expiry())),
            Msg::Tick => {
                let due = expiry.due(now, LEASE_REVOKES_PER_SECOND / 2);
                if !due.is_empty() {
                    metrics::LEASES_EXPIRED.add(due.len() as u64);
                    // Only tried: apply waits for this actor and consensus for apply, so that this actor must
                    // not wait for consensus. What is not taken is due again later.
                    consensus.try_own_work(term, due.into_iter().map(expire).collect());
                }
            }
        }
    }
}

fn expire(grant: Grant) -> bytes::Bytes {
    grant.expire().encode_to_vec().into()
}
