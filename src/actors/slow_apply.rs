//! The warning about a request whose application took long, with etcd's text: alerts and runbooks search for it.

use std::time::Duration;

use gocompat::duration;

use crate::metrics;

/// Logs and counts a request that took longer than `--warning-apply-duration`, which is `expected`. `prefix` is empty
/// for entries of the log, and the kind for reads. Keys and values are not logged.
pub fn warn_if_slow(took: Duration, expected: Duration, prefix: &str, request: &str) {
    if took <= expected {
        return;
    }
    metrics::APPLIES_SLOW.add(1);
    tracing::warn!(
        took = duration::text(took),
        expected_duration = duration::text(expected),
        prefix,
        request,
        "apply request took too long"
    );
}
