//! The warning about a request whose application took long, in etcd's words: alerts and runbooks look for them.

use std::time::Duration;

use gocompat::duration;

use crate::metrics;

/// Logs and counts a request that took longer than `--warning-apply-duration`, which is `expected`. `prefix` is empty
/// for entries of the log, and tells of reads what they are. Keys and values are not logged.
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
