//! Policy of log truncation.

use std::time::Duration;

use crate::types::{ConfState, LogIndex, Term};

/// The time between two truncations: each syncs the store, which under full load costs a third of the throughput if it
/// happens every 10,000 entries, and blocks writes for some milliseconds.
const PAUSE: Duration = Duration::from_secs(4);
/// The same while the disk has no space for another segment.
const PAUSE_FULL: Duration = Duration::from_millis(500);
/// Bytes of entries after which the log is truncated in any case: with large values the pause alone would let it
/// grow to gigabytes.
const BYTES_MAX: usize = 256 << 20;

/// The start of the log: the last truncated entry.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LogStart {
    /// Its index.
    pub index: LogIndex,
    /// Its term.
    pub term: Term,
    /// The configuration as of this entry.
    pub conf_state: ConfState,
}

/// Decides when the log is truncated: `--snapshot-count` entries after the last truncation.
pub(super) struct LogTruncation {
    snapshot_count: u64,
    /// Index of the last truncation.
    index: LogIndex,
    /// Bytes of the entries since then.
    bytes: usize,
    /// Time of the last truncation; `None` before the first.
    at: Option<Duration>,
    /// True if a truncation is in progress.
    is_running: bool,
}

impl LogTruncation {
    pub(super) fn new(snapshot_count: u64, index: LogIndex) -> Self {
        Self { snapshot_count, index, bytes: 0, at: None, is_running: false }
    }

    /// Counts an applied entry.
    pub(super) fn applied(&mut self, bytes: usize) {
        self.bytes += bytes;
    }

    /// The log starts at a snapshot.
    pub(super) fn restart(&mut self, index: LogIndex) {
        (self.index, self.bytes) = (index, 0);
    }

    /// True if the log is to be truncated at `applied` now. Then a truncation is in progress until
    /// [`LogTruncation::finish`]. `log_is_full`: the disk has no space for another segment, and truncation may free one.
    pub(super) fn begin(&mut self, applied: LogIndex, now: Duration, log_is_full: bool) -> bool {
        let rested = |pause: Duration| self.at.is_none_or(|at| now.saturating_sub(at) >= pause);
        let is_due = rested(PAUSE) && applied - self.index >= self.snapshot_count;
        let is_needed = log_is_full && applied > self.index && rested(PAUSE_FULL);
        if self.is_running || !(is_due || is_needed || self.bytes >= BYTES_MAX) {
            return false;
        }
        (self.index, self.bytes, self.at, self.is_running) = (applied, 0, Some(now), true);
        true
    }

    pub(super) fn finish(&mut self) {
        self.is_running = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_log_is_truncated_after_so_many_entries_and_a_pause() {
        let mut truncation = LogTruncation::new(100, 10);
        assert!(!truncation.begin(109, at(0), false), "too few entries");
        assert!(truncation.begin(110, at(0), false), "the first time needs no pause");
        assert!(!truncation.begin(300, at(9000), false), "one at a time");
        truncation.finish();
        assert!(!truncation.begin(300, at(3999), false), "too soon");
        assert!(truncation.begin(300, at(4000), false));
    }

    #[test]
    fn large_entries_and_a_full_disk_do_not_wait() {
        let mut truncation = LogTruncation::new(1000, 0);
        assert!(truncation.begin(1, at(0), true), "a full log is truncated at once");
        truncation.finish();
        assert!(!truncation.begin(1, at(600), true), "nothing new to truncate");
        assert!(!truncation.begin(2, at(499), true), "half a second between two");
        assert!(truncation.begin(2, at(500), true));
        truncation.finish();
        truncation.applied(BYTES_MAX);
        assert!(truncation.begin(3, at(501), false), "as large as the log may be");
        truncation.finish();
        truncation.applied(BYTES_MAX);
        truncation.restart(9);
        assert!(!truncation.begin(9, at(9000), false), "a snapshot begins anew");
    }
}
