//! Latencies, errors and seconds of a run, added up during the run.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;

use super::Series;

/// Three digits: a percentile is at most 0.1 % off, and the memory stays below 1 MiB.
const DIGITS: u8 = 3;
/// Latencies above an hour count as an hour.
const NANOS_MAX: u64 = 3_600_000_000_000;

/// Adds up the operations of one thread; threads are merged at the end.
#[derive(Clone, Debug)]
pub struct Recorder {
    histogram: Histogram<u64>,
    fastest: u64,
    slowest: u64,
    sum: f64,
    squares: f64,
    errors: BTreeMap<String, u64>,
    /// Second by second; only if asked for.
    series: Option<Series>,
}

impl Recorder {
    /// An empty recorder; `series` keeps every second, too.
    pub fn new(series: bool) -> Self {
        let histogram = Histogram::new_with_bounds(1, NANOS_MAX, DIGITS);
        Self {
            histogram: histogram.expect("the bounds are constants that are right"),
            fastest: u64::MAX,
            slowest: 0,
            sum: 0.0,
            squares: 0.0,
            errors: BTreeMap::new(),
            series: series.then(Series::default),
        }
    }

    /// Records a successful operation. `started` is its intended second, counted from 1970.
    pub fn record(&mut self, nanos: u64, started: u64) {
        self.histogram.saturating_record(nanos);
        self.fastest = self.fastest.min(nanos);
        self.slowest = self.slowest.max(nanos);
        self.sum += nanos as f64;
        self.squares += nanos as f64 * nanos as f64;
        if let Some(series) = &mut self.series {
            series.record(nanos, started);
        }
    }

    /// Records failed operations; their latency does not count.
    pub fn error(&mut self, what: impl Into<String>, count: u64) {
        if count > 0 {
            *self.errors.entry(what.into()).or_default() += count;
        }
    }

    /// Adds another recorder's operations.
    pub fn merge(&mut self, other: &Self) {
        self.histogram.add(&other.histogram).expect("all have the same bounds");
        self.fastest = self.fastest.min(other.fastest);
        self.slowest = self.slowest.max(other.slowest);
        self.sum += other.sum;
        self.squares += other.squares;
        for (what, &count) in &other.errors {
            self.error(what.as_str(), count);
        }
        if let (Some(mine), Some(theirs)) = (&mut self.series, &other.series) {
            mine.merge(theirs);
        }
    }

    /// Operations that succeeded.
    pub fn count(&self) -> u64 {
        self.histogram.len()
    }

    /// Failed operations, by error text.
    pub fn errors(&self) -> &BTreeMap<String, u64> {
        &self.errors
    }

    /// Operations that failed.
    pub fn error_count(&self) -> u64 {
        self.errors.values().sum()
    }

    /// Smallest latency in nanoseconds; 0 if no operation succeeded.
    pub fn fastest(&self) -> u64 {
        if self.count() == 0 { 0 } else { self.fastest }
    }

    /// Largest latency in nanoseconds; exact.
    pub fn slowest(&self) -> u64 {
        self.slowest
    }

    /// Mean latency in nanoseconds.
    pub fn mean(&self) -> f64 {
        if self.count() == 0 { 0.0 } else { self.sum / self.count() as f64 }
    }

    /// Standard deviation of the latency in nanoseconds.
    pub fn deviation(&self) -> f64 {
        if self.count() == 0 {
            return 0.0;
        }
        let mean = self.mean();
        (self.squares / self.count() as f64 - mean * mean).max(0.0).sqrt()
    }

    /// Percentile of the latency in nanoseconds, at most the largest one recorded.
    pub fn percentile(&self, percent: f64) -> u64 {
        self.histogram.value_at_percentile(percent).clamp(self.fastest(), self.slowest)
    }

    /// Number of operations with at most `nanos`, to the histogram's precision.
    pub fn count_up_to(&self, nanos: u64) -> u64 {
        if nanos >= self.slowest { self.count() } else { self.histogram.count_between(0, nanos) }
    }

    /// Every second, if recorded.
    pub fn series(&self) -> Option<&Series> {
        self.series.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_within_a_thousandth() {
        let mut recorder = Recorder::new(false);
        for micros in 1..=10_000 {
            recorder.record(micros * 1000, 0);
        }
        for (percent, micros) in [(50.0, 5000.0), (90.0, 9000.0), (99.0, 9900.0), (99.9, 9990.0)] {
            let found = recorder.percentile(percent) as f64 / 1000.0;
            assert!((found - micros).abs() / micros < 0.001, "{percent}: {found}");
        }
        assert_eq!(recorder.fastest(), 1000);
        assert_eq!(recorder.slowest(), 10_000_000, "the worst is exact");
        assert_eq!(recorder.mean(), 5_000_500.0);
        assert!((recorder.deviation() - 2_886_751.3).abs() < 1.0);
        assert_eq!(recorder.count_up_to(u64::MAX), 10_000);
    }

    #[test]
    fn threads_add_up() {
        let mut all = Recorder::new(true);
        let mut one = Recorder::new(true);
        all.record(10, 100);
        all.error("lost", 1);
        one.record(30, 100);
        one.record(5, 102);
        one.error("lost", 2);
        one.error("nothing", 0);
        all.merge(&one);
        assert_eq!((all.count(), all.fastest(), all.slowest()), (3, 5, 30));
        assert_eq!(all.errors().iter().collect::<Vec<_>>(), [(&"lost".to_owned(), &3)]);
        let seconds: Vec<_> = all.series().unwrap().intervals().collect();
        assert_eq!(seconds.len(), 3, "the empty second too");
        let first = seconds[0].1.unwrap();
        assert_eq!((first.fastest, first.slowest, first.sum, first.count()), (10, 30, 40, 2));
    }

    #[test]
    fn nothing_recorded_is_zero_everywhere() {
        let recorder = Recorder::new(true);
        assert_eq!(recorder.percentile(99.0), 0);
        assert_eq!((recorder.fastest(), recorder.mean(), recorder.deviation()), (0, 0.0, 0.0));
        assert_eq!(recorder.series().unwrap().intervals().count(), 0);
    }
}
