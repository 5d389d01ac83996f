//! Latencies second by second, with a histogram for each, in bounded memory.
//!
//! A run longer than [`INTERVALS_MAX`] seconds goes on with intervals of twice the width: an hour costs
//! some 40 MiB and a day no more.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;

/// Maximum number of intervals; one more doubles the width of all of them.
const INTERVALS_MAX: usize = 3_600;
/// Two digits: a percentile is at most 1 % off, and an interval takes about 12 KiB.
const DIGITS: u8 = 2;

/// Intervals of one width, by the second of 1970 at which they begin.
#[derive(Clone, Debug)]
pub struct Series {
    /// Seconds.
    width: u64,
    intervals: BTreeMap<u64, Interval>,
}

/// The operations whose intended send time lies in one interval.
#[derive(Clone, Debug)]
pub struct Interval {
    /// Nanoseconds; `u64::MAX` if there was none.
    pub fastest: u64,
    /// Nanoseconds.
    pub slowest: u64,
    /// Nanoseconds.
    pub sum: u64,
    histogram: Histogram<u32>,
}

impl Default for Series {
    fn default() -> Self {
        Self { width: 1, intervals: BTreeMap::new() }
    }
}

impl Series {
    /// Records an operation with its intended second, counted from 1970.
    pub fn record(&mut self, nanos: u64, started: u64) {
        self.interval(started).record(nanos);
    }

    /// Adds another's intervals.
    pub fn merge(&mut self, other: &Self) {
        while self.width < other.width {
            self.widen();
        }
        for (&start, theirs) in &other.intervals {
            self.interval(start).merge(theirs);
        }
    }

    /// Seconds from one interval to the next.
    pub fn width(&self) -> u64 {
        self.width
    }

    /// Every interval from the first to the last with the second at which it begins; `None` for intervals
    /// without an operation.
    pub fn intervals(&self) -> impl Iterator<Item = (u64, Option<&Interval>)> {
        let ends = self.intervals.keys().next().zip(self.intervals.keys().next_back());
        let range = ends.map(|(&first, &last)| (first..=last).step_by(self.width as usize));
        range.into_iter().flatten().map(|start| (start, self.intervals.get(&start)))
    }

    fn interval(&mut self, second: u64) -> &mut Interval {
        let mut start = second - second % self.width;
        while self.intervals.len() >= INTERVALS_MAX && !self.intervals.contains_key(&start) {
            self.widen();
            start = second - second % self.width;
        }
        self.intervals.entry(start).or_default()
    }

    fn widen(&mut self) {
        self.width *= 2;
        for (start, interval) in std::mem::take(&mut self.intervals) {
            let start = start - start % self.width;
            self.intervals.entry(start).or_default().merge(&interval);
        }
    }
}

impl Default for Interval {
    fn default() -> Self {
        let histogram = Histogram::new(DIGITS).expect("the digits are a constant that is right");
        Self { fastest: u64::MAX, slowest: 0, sum: 0, histogram }
    }
}

impl Interval {
    /// Number of operations.
    pub fn count(&self) -> u64 {
        self.histogram.len()
    }

    /// Mean latency in nanoseconds.
    pub fn mean(&self) -> u64 {
        self.sum.checked_div(self.count()).unwrap_or(0)
    }

    /// Percentile of the latency in nanoseconds.
    pub fn percentile(&self, percent: f64) -> u64 {
        self.histogram.value_at_percentile(percent).clamp(self.fastest, self.slowest)
    }

    fn record(&mut self, nanos: u64) {
        self.fastest = self.fastest.min(nanos);
        self.slowest = self.slowest.max(nanos);
        self.sum += nanos;
        // The histogram resizes itself, so it takes every latency.
        self.histogram.record(nanos.max(1)).expect("it resizes itself");
    }

    fn merge(&mut self, other: &Self) {
        self.fastest = self.fastest.min(other.fastest);
        self.slowest = self.slowest.max(other.slowest);
        self.sum += other.sum;
        self.histogram.add(&other.histogram).expect("it resizes itself");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn starts(series: &Series) -> Vec<(u64, u64)> {
        series.intervals().map(|(at, it)| (at, it.map_or(0, Interval::count))).collect()
    }

    #[test]
    fn seconds_without_operations_are_there_too() {
        let mut series = Series::default();
        series.record(10, 100);
        series.record(30, 100);
        series.record(5, 102);
        assert_eq!(starts(&series), [(100, 2), (101, 0), (102, 1)]);
        let (_, first) = series.intervals().next().unwrap();
        let first = first.unwrap();
        assert_eq!((first.fastest, first.slowest, first.mean()), (10, 30, 20));
    }

    #[test]
    fn percentiles_of_a_second_are_within_a_hundredth() {
        let mut series = Series::default();
        for micros in 1..=10_000 {
            series.record(micros * 1_000, 7);
        }
        let (_, interval) = series.intervals().next().unwrap();
        for (percent, micros) in [(50.0, 5_000.0), (99.0, 9_900.0)] {
            let found = interval.unwrap().percentile(percent) as f64 / 1_000.0;
            assert!((found - micros).abs() / micros < 0.01, "{percent}: {found}");
        }
    }

    #[test]
    fn a_long_run_keeps_every_operation_in_bounded_memory() {
        let mut series = Series::default();
        let seconds = INTERVALS_MAX as u64 * 3;
        for second in 0..seconds {
            series.record(second + 1, second);
        }
        assert!(series.intervals.len() <= INTERVALS_MAX);
        assert_eq!(series.width(), 4);
        assert_eq!(series.intervals.values().map(Interval::count).sum::<u64>(), seconds);
    }

    #[test]
    fn series_of_different_width_add_up() {
        let (mut wide, mut narrow) = (Series::default(), Series::default());
        narrow.record(1, 4);
        narrow.record(1, 5);
        wide.record(1, 4);
        wide.widen();
        narrow.merge(&wide);
        assert_eq!(starts(&narrow), [(4, 3)]);
        wide.merge(&narrow);
        assert_eq!(starts(&wide), [(4, 4)]);
    }
}
