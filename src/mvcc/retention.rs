//! Automatic compaction: when a member compacts, and up to which revision, from `--auto-compaction-mode` and
//! `--auto-compaction-retention`, by the rules of etcd's `v3compactor`. All members keep the state, so that a new
//! leader continues where the old one stopped; only the leader compacts. Never reads a clock.

use std::collections::VecDeque;
use std::time::Duration;

use crate::types::limits::RETENTION_NOTES_MAX;

/// Time between two compactions by number of revisions.
const REVISIONS_PAUSE: Duration = Duration::from_secs(5 * 60);

/// The longest time between two compactions by time.
const TIME_PAUSE_MAX: Duration = Duration::from_secs(3600);

/// Revisions recorded in each such time.
const NOTES: u32 = 10;

/// History that is kept by automatic compaction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Retention {
    /// All history.
    All,
    /// History younger than this.
    Time(Duration),
    /// This many of the newest revisions.
    Revisions(i64),
}

/// State of automatic compaction.
pub struct AutoCompaction {
    retention: Retention,
    /// The newest revisions (`main`) at past checks, oldest first.
    notes: VecDeque<i64>,
    /// The newest compaction that succeeded.
    done: i64,
    /// Time of that compaction, in ms; of the start, if there was none.
    done_ms: u64,
    /// Time after that compaction until the next one is due, in ms.
    wait_ms: u64,
}

impl AutoCompaction {
    /// The initial state: nothing is compacted before the whole retention has passed once.
    pub fn new(retention: Retention, now_ms: u64) -> Self {
        let wait_ms = match retention {
            Retention::Time(time) => milliseconds(time),
            Retention::All | Retention::Revisions(_) => 0,
        };
        Self { retention, notes: VecDeque::new(), done: 0, done_ms: now_ms, wait_ms }
    }

    /// Time to wait between [`Self::note`] and [`Self::due`]; `None` if all history is kept.
    pub fn pause(&self) -> Option<Duration> {
        match self.retention {
            Retention::All => None,
            Retention::Time(time) => Some(time.min(TIME_PAUSE_MAX) / NOTES),
            Retention::Revisions(_) => Some(REVISIONS_PAUSE),
        }
    }

    /// Records the newest revision.
    pub fn note(&mut self, newest: i64) {
        let kept = match (self.retention, self.pause()) {
            (Retention::Time(time), Some(pause)) => {
                let pauses = time.as_nanos() / pause.as_nanos().max(1) + 1;
                usize::try_from(pauses).unwrap_or(RETENTION_NOTES_MAX).min(RETENTION_NOTES_MAX)
            }
            _ => 1,
        };
        self.notes.push_back(newest);
        while self.notes.len() > kept {
            self.notes.pop_front();
        }
    }

    /// The revision to compact at now, if a compaction is due.
    pub fn due(&self, now_ms: u64, newest: i64) -> Option<i64> {
        let revision = match self.retention {
            Retention::All => return None,
            Retention::Time(_) if now_ms.saturating_sub(self.done_ms) < self.wait_ms => {
                return None;
            }
            Retention::Time(_) => *self.notes.front()?,
            Retention::Revisions(count) => newest.saturating_sub(count),
        };
        (revision > 0 && revision != self.done).then_some(revision)
    }

    /// Records a compaction, by this member or another client.
    pub fn done(&mut self, revision: i64, now_ms: u64) {
        (self.done, self.done_ms) = (revision, now_ms);
        if let Retention::Time(time) = self.retention {
            self.wait_ms = milliseconds(time.min(TIME_PAUSE_MAX));
        }
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Simulates the compactor with one new revision each second; returns times in seconds and revisions of compactions.
    fn compactions(retention: Retention, seconds: u64) -> Vec<(u64, i64)> {
        let mut auto = AutoCompaction::new(retention, 0);
        let pause_ms = milliseconds(auto.pause().unwrap());
        let (mut now_ms, mut made) = (0, Vec::new());
        while now_ms < seconds * 1000 {
            auto.note(at(now_ms));
            now_ms += pause_ms;
            if let Some(revision) = auto.due(now_ms, at(now_ms)) {
                made.push((now_ms / 1000, revision));
                auto.done(revision, now_ms);
            }
        }
        made
    }

    fn at(now_ms: u64) -> i64 {
        i64::try_from(now_ms / 1000).unwrap() + 1
    }

    /// The revision recorded one pause before the retention's start is the oldest that etcd keeps, too.
    #[test]
    fn a_short_time_is_kept_and_compacted_as_often() {
        let made = compactions(Retention::Time(Duration::from_secs(600)), 1900);
        assert_eq!(made, [(600, 1), (1200, 541), (1800, 1141)]);
    }

    #[test]
    fn a_long_time_is_kept_and_compacted_every_hour() {
        let hours = |count: u64| count * 3600;
        let made = compactions(Retention::Time(Duration::from_secs(hours(3))), hours(6));
        let expected = [(hours(3), 1), (hours(4), 3241), (hours(5), 6841), (hours(6), 10_441)];
        assert_eq!(made, expected);
    }

    #[test]
    fn revisions_are_counted_every_five_minutes() {
        let made = compactions(Retention::Revisions(400), 1000);
        assert_eq!(made, [(600, 201), (900, 501), (1200, 801)]);
    }

    #[test]
    fn unchanged_history_is_not_compacted_twice() {
        let mut auto = AutoCompaction::new(Retention::Time(Duration::from_secs(10)), 0);
        auto.note(7);
        assert_eq!(auto.due(9_999, 7), None);
        assert_eq!(auto.due(10_000, 7), Some(7));
        auto.done(7, 10_000);
        auto.note(7);
        assert_eq!(auto.due(30_000, 7), None);
    }

    #[test]
    fn failed_compaction_is_tried_again_after_a_pause() {
        let mut auto = AutoCompaction::new(Retention::Time(Duration::from_secs(10)), 0);
        auto.note(2);
        assert_eq!(auto.due(10_000, 3), Some(2));
        auto.note(3);
        assert_eq!(auto.due(11_000, 3), Some(2));
    }

    #[test]
    fn a_century_is_noted_in_bounded_room() {
        let mut auto =
            AutoCompaction::new(Retention::Time(Duration::from_secs(100 * 365 * 86_400)), 0);
        (0..RETENTION_NOTES_MAX as i64 + 10).for_each(|revision| auto.note(revision));
        assert_eq!(auto.notes.len(), RETENTION_NOTES_MAX);
    }
}
