//! Metrics and log lines of applied entries.

use std::time::Duration;

use crate::actors::slow_apply::warn_if_slow;
use crate::cluster::Version;
use crate::io::clock::Instant;
use crate::machine::Applied;
use crate::metrics;
use crate::mvcc::Changes;
use crate::replica::LeaseChange;
use crate::types::FeatureLevel;

/// Logs a change of the cluster version.
pub(super) fn tell_version(before: Option<Version>, now: Option<Version>) {
    if before == now {
        return;
    }
    let short = |version: Option<Version>| version.map(Version::short).unwrap_or_default();
    let (from, to) = (short(before), short(now));
    match before {
        None => tracing::info!(cluster_version = to, "set initial cluster version"),
        Some(_) => tracing::info!(from, to, "updated cluster version"),
    }
}

/// Counts changes of keys.
pub(super) fn count(changes: Changes) {
    metrics::DELETES.add(changes.deletes as u64);
    metrics::PUTS.add(changes.puts as u64);
    metrics::TXNS.add(changes.txns as u64);
    metrics::PUT_BYTES.add(changes.put_bytes);
    metrics::COMPACTED_KEYS.add(changes.compacted);
}

/// Counts an entry that was applied since `began`, which is then advanced, and logs one that took longer than `slow`.
pub(super) fn observe(applied: &Applied, slow: Duration, began: &mut Instant) {
    let ended = Instant::now();
    let took = ended.since(*began);
    if let Some(operation) = applied.operation {
        metrics::applied(operation, applied.reply.is_ok(), took.as_secs_f64());
        warn_if_slow(took, slow, "", operation.name());
    }
    *began = ended;
}

/// Logs a change of the feature level.
pub(super) fn tell_level(before: FeatureLevel, now: FeatureLevel) {
    if before != now {
        let (from, to) = (before.number(), now.number());
        tracing::info!(from, to, "raised the feature level of the cluster");
    }
}

/// Counts a change of the leases.
pub(super) fn count_lease(change: &LeaseChange) {
    match change {
        LeaseChange::Granted(grant) => {
            metrics::LEASES_GRANTED.add(1);
            metrics::LEASE_TTLS.observe(grant.ttl as f64);
        }
        LeaseChange::Revoked(_) => metrics::LEASES_REVOKED.add(1),
    }
}

/// Milliseconds since a moment.
pub(super) fn milliseconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1000.0
}
