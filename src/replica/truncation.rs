//! Policy of log truncation.

use std::time::Duration;

use crate::consensus::Restored;
use crate::types::limits::LOG_BYTES_MAX;
use crate::types::{ConfState, Entry, LogIndex, Term};

/// The time between two truncations: each syncs the store, which under full load costs a third of the throughput if it
/// happens every 10,000 entries, and blocks writes for some milliseconds.
const PAUSE: Duration = Duration::from_secs(4);
/// The same while the disk has no space for another segment.
const PAUSE_FULL: Duration = Duration::from_millis(500);

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

/// The log of a member that starts, as far as the state machine has applied it: it is truncated at once if it is long, or that of a
/// member that never runs for long would grow without end.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct AppliedLog {
    /// Index of the last truncated entry.
    pub start: LogIndex,
    /// Bytes of the applied entries after it.
    pub bytes: usize,
}

impl AppliedLog {
    /// Of a log that starts after `start`.
    pub fn of(start: LogIndex, entries: &[Entry], applied: LogIndex) -> Self {
        let applied = entries.iter().take_while(|entry| entry.index <= applied);
        Self { start, bytes: applied.map(|entry| entry.data.len()).sum() }
    }
}

impl From<&Restored> for AppliedLog {
    fn from(restored: &Restored) -> Self {
        Self::of(restored.log_start_index, &restored.entries, restored.applied)
    }
}

/// Decides when the log is truncated: `--snapshot-count` entries after the last truncation.
pub(super) struct LogTruncation {
    snapshot_count: u64,
    /// Index of the last truncation.
    index: LogIndex,
    /// Bytes of the entries since then.
    bytes: usize,
    /// When a truncation last began; none before the first time.
    at: Option<Duration>,
    /// The truncation that is under way: its index, and `bytes` when it began.
    running: Option<(LogIndex, usize)>,
}

impl LogTruncation {
    pub(super) fn new(snapshot_count: u64, log: AppliedLog) -> Self {
        Self { snapshot_count, index: log.start, bytes: log.bytes, at: None, running: None }
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
        let is_much = log_is_full || self.bytes >= LOG_BYTES_MAX;
        let is_needed = is_much && applied > self.index && rested(PAUSE_FULL);
        if self.running.is_some() || !(is_due || is_needed) {
            return false;
        }
        (self.at, self.running) = (Some(now), Some((applied, self.bytes)));
        true
    }

    /// The truncation is over. One that failed changed nothing: it is due again after the pause.
    pub(super) fn finish(&mut self, is_truncated: bool) {
        let Some((index, bytes)) = self.running.take().filter(|_| is_truncated) else { return };
        self.index = self.index.max(index);
        self.bytes = self.bytes.saturating_sub(bytes);
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
        let mut truncation = LogTruncation::new(100, AppliedLog { start: 10, bytes: 0 });
        assert!(!truncation.begin(109, at(0), false), "too few entries");
        assert!(truncation.begin(110, at(0), false), "the first time needs no pause");
        assert!(!truncation.begin(300, at(9000), false), "one at a time");
        truncation.finish(true);
        assert!(!truncation.begin(300, at(3999), false), "too soon");
        assert!(truncation.begin(300, at(4000), false));
    }

    #[test]
    fn large_entries_and_a_full_disk_do_not_wait() {
        let mut truncation = LogTruncation::new(1000, AppliedLog::default());
        assert!(truncation.begin(1, at(0), true), "a full log is truncated at once");
        truncation.finish(true);
        assert!(!truncation.begin(1, at(600), true), "nothing new to truncate");
        assert!(!truncation.begin(2, at(499), true), "half a second between two");
        assert!(truncation.begin(2, at(500), true));
        truncation.finish(true);
        truncation.applied(LOG_BYTES_MAX);
        assert!(truncation.begin(3, at(1000), false), "as large as the log may be");
        truncation.finish(true);
        truncation.applied(LOG_BYTES_MAX);
        truncation.restart(9);
        assert!(!truncation.begin(9, at(9000), false), "a snapshot begins anew");
    }

    #[test]
    fn a_long_log_is_truncated_when_the_member_starts() {
        let begins = |bytes| {
            let mut truncation = LogTruncation::new(1000, AppliedLog { start: 500, bytes });
            move |applied| truncation.begin(applied, at(0), false)
        };
        assert!(!begins(0)(1499));
        assert!(begins(0)(1500));
        assert!(begins(LOG_BYTES_MAX)(501));
    }

    #[test]
    fn a_truncation_that_failed_is_due_again_without_another_entry() {
        let mut truncation = LogTruncation::new(1000, AppliedLog::default());
        assert!(truncation.begin(7, at(0), true));
        truncation.finish(false);
        assert!(!truncation.begin(7, at(499), true), "half a second between two");
        assert!(truncation.begin(7, at(500), true), "the log is as full as before");
        truncation.finish(true);
        assert!(!truncation.begin(7, at(5000), true));

        truncation.applied(LOG_BYTES_MAX);
        assert!(truncation.begin(8, at(6000), false));
        truncation.applied(1);
        truncation.finish(false);
        assert!(truncation.begin(8, at(7000), false), "the log is as long as before");
    }
}
