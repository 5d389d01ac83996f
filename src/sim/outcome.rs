//! Results of runs without failures.

use std::fmt;

/// Counts of events, in one run or in many.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Outcome {
    /// Simulated time, in microseconds.
    pub lasted_us: u64,
    /// Steps of the simulation.
    pub steps: u64,
    /// Requests of clients.
    pub asked: u64,
    /// Those that were answered.
    pub answered: u64,
    /// Committed entries of the log.
    pub entries: u64,
    /// Faults of the plan.
    pub faults: u64,
    /// Power failures.
    pub crashes: u64,
    /// Writes of the log torn by a power failure.
    pub torn: u64,
    /// Snapshots sent to another member.
    pub snapshots: u64,
    /// Events received by watching clients.
    pub watched: u64,
    /// Reads answered by a leader under its lease.
    pub lease_reads: u64,
    /// A digest of all events, in order: two runs with the same digest are the same.
    pub story: u64,
}

impl Outcome {
    /// Adds another run.
    pub fn add(&mut self, other: &Self) {
        let sum = self.numbers().into_iter().zip(other.numbers()).map(|(a, b)| a.wrapping_add(b));
        *self = Self::from_numbers(sum);
    }

    /// Simulated hours.
    pub fn hours(&self) -> f64 {
        self.lasted_us as f64 / 3.6e9
    }

    /// All numbers on a line, for another process.
    pub fn to_line(&self) -> String {
        self.numbers().map(|number| number.to_string()).join(" ")
    }

    /// The inverse of [`Outcome::to_line`]; `None` for other text.
    pub fn from_line(line: &str) -> Option<Self> {
        let numbers: Option<Vec<u64>> = line.split(' ').map(|it| it.parse().ok()).collect();
        Some(Self::from_numbers(numbers?.into_iter()))
    }

    fn numbers(&self) -> [u64; 12] {
        let Self { lasted_us, steps, asked, answered, entries, .. } = *self;
        let Self { faults, crashes, torn, snapshots, watched, lease_reads, story, .. } = *self;
        [
            lasted_us,
            steps,
            asked,
            answered,
            entries,
            faults,
            crashes,
            torn,
            snapshots,
            watched,
            lease_reads,
            story,
        ]
    }

    fn from_numbers(mut numbers: impl Iterator<Item = u64>) -> Self {
        let mut next = || numbers.next().unwrap_or_default();
        Self {
            lasted_us: next(),
            steps: next(),
            asked: next(),
            answered: next(),
            entries: next(),
            faults: next(),
            crashes: next(),
            torn: next(),
            snapshots: next(),
            watched: next(),
            lease_reads: next(),
            story: next(),
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = (self.lasted_us as f64 / 1e6).max(1.0);
        write!(
            out,
            "{:.1} cluster-hours, {} steps, {} requests ({:.2} a second), {} answered, {} entries, \
             {} faults ({:.2} a minute), {} crashes, {} torn writes, {} snapshots sent, {} events watched, \
             {} reads answered alone",
            self.hours(),
            self.steps,
            self.asked,
            self.asked as f64 / seconds,
            self.answered,
            self.entries,
            self.faults,
            self.faults as f64 * 60.0 / seconds,
            self.crashes,
            self.torn,
            self.snapshots,
            self.watched,
            self.lease_reads
        )
    }
}
