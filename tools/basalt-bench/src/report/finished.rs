//! A finished load: its reports, and the facts about the run that they share.

use std::time::Duration;

use serde::Serialize;
use serde_json::{Map, Value};

use super::Recorder;
use crate::generator::{Health, Rate};

/// Results of a load.
#[derive(Debug, Default)]
pub struct Finished {
    /// Printed before the reports.
    pub prologue: String,
    /// In the order in which they are printed.
    pub reports: Vec<Report>,
    /// Printed after the reports.
    pub epilogue: String,
    /// State of the generator's threads and event loops.
    pub health: Health,
    /// Comparison of the revision with the writes; `None` if it was not asked for.
    pub verified: Option<Verified>,
    /// The flags of the load, and its counters.
    pub details: Map<String, Value>,
    /// The intended send times.
    pub pace: Rate,
}

/// One report of a load.
#[derive(Debug)]
pub struct Report {
    /// The subcommand, with a suffix where it has several reports.
    pub name: String,
    /// Printed before the report.
    pub heading: String,
    /// How long it took.
    pub total: Duration,
    /// The operations.
    pub recorder: Recorder,
}

/// Writes of a load, by outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Writes with status OK.
    pub answered: u64,
    /// Writes with another status, or without an answer.
    pub failed: u64,
}

/// Comparison of the revision's growth with the number of writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Verified {
    /// Before the first write.
    pub revision_before: i64,
    /// After the last write.
    pub revision_after: i64,
    /// Expected growth: the writes with status OK.
    pub expected: u64,
    /// Failed writes, which a server may nevertheless have applied (`request timed out`).
    pub unsure: u64,
    /// Actual growth.
    pub grown: i64,
    /// True if the growth is at least `expected`, and at most `expected + unsure`.
    pub holds: bool,
}

impl Finished {
    /// True if no operation failed and the revision is right.
    pub fn is_good(&self) -> bool {
        self.reports.iter().all(|report| report.recorder.error_count() == 0)
            && self.verified.is_none_or(|verified| verified.holds)
    }

    /// Number of finished operations, failed ones included, in all reports.
    pub fn operations(&self) -> u64 {
        let count = |report: &Report| report.recorder.count() + report.recorder.error_count();
        self.reports.iter().map(count).sum()
    }

    /// Adds another turn of the same load against the same target.
    pub fn merge(&mut self, other: Self) {
        for (mine, theirs) in self.reports.iter_mut().zip(&other.reports) {
            mine.total += theirs.total;
            mine.recorder.merge(&theirs.recorder);
        }
        self.health.merge(&other.health);
        self.epilogue = other.epilogue;
        self.verified = match (self.verified, other.verified) {
            (Some(first), Some(second)) => Some(first.and(second)),
            (first, second) => first.or(second),
        };
    }
}

impl Report {
    /// Successful operations per second.
    pub fn rate(&self) -> f64 {
        let seconds = self.total.as_secs_f64();
        if seconds > 0.0 { self.recorder.count() as f64 / seconds } else { 0.0 }
    }
}

impl Verified {
    /// Compares two revisions with how many writes were answered in between.
    pub fn new(revision_before: i64, revision_after: i64, written: Written) -> Self {
        let Written { answered: expected, failed: unsure } = written;
        let grown = revision_after - revision_before;
        let possible = expected..=expected.saturating_add(unsure);
        let holds = u64::try_from(grown).is_ok_and(|grown| possible.contains(&grown));
        Self { revision_before, revision_after, expected, unsure, grown, holds }
    }

    /// The growth of the revision, and the expected growth, as text.
    pub fn words(&self) -> String {
        let unsure = match self.unsure {
            0 => String::new(),
            unsure => format!(", and {unsure} that failed and may have been made"),
        };
        format!("the revision grew by {} of {}{unsure}", self.grown, self.expected)
    }

    fn and(self, later: Self) -> Self {
        Self {
            revision_after: later.revision_after,
            expected: self.expected + later.expected,
            unsure: self.unsure + later.unsure,
            grown: self.grown + later.grown,
            holds: self.holds && later.holds,
            ..self
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turn(nanos: u64, verified: Verified) -> Finished {
        let mut recorder = Recorder::new(false);
        recorder.record(nanos, 0);
        let total = Duration::from_millis(500);
        let report = Report { name: "put".into(), heading: String::new(), total, recorder };
        Finished { reports: vec![report], verified: Some(verified), ..Finished::default() }
    }

    fn answered(answered: u64) -> Written {
        Written { answered, failed: 0 }
    }

    #[test]
    fn turns_add_up_and_one_lie_spoils_all() {
        let mut all = turn(10, Verified::new(1, 2, answered(1)));
        all.merge(turn(30, Verified::new(5, 6, answered(1))));
        assert!(all.is_good());
        assert_eq!((all.operations(), all.reports[0].rate()), (2, 2.0));
        assert_eq!(all.verified.unwrap().expected, 2);
        all.merge(turn(30, Verified::new(6, 6, answered(1))));
        assert!(!all.is_good());
        assert_eq!(all.verified.unwrap().grown, 2);
    }

    #[test]
    fn a_revision_that_went_back_is_not_true() {
        assert!(!Verified::new(9, 2, answered(0)).holds);
    }

    #[test]
    fn writes_that_failed_may_have_been_made() {
        let after = |revision| Verified::new(1, revision, Written { answered: 5, failed: 2 }).holds;
        assert_eq!([5, 6, 7, 8, 9].map(after), [false, true, true, true, false]);
    }
}
