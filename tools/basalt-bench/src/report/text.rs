//! The report as etcd's benchmark prints it, so that scripts that parse that parse this too; then
//! the percentiles.

use std::fmt::Write;
use std::time::Duration;

use gocompat::duration;

use super::{Finished, Recorder};

const BUCKETS: u64 = 10;
const BAR_CHARS_MAX: u64 = 40;
const PERCENTS: [f64; 8] = [10.0, 25.0, 50.0, 75.0, 90.0, 95.0, 99.0, 99.9];
const TAIL: [(&str, f64); 4] = [("p50", 50.0), ("p90", 90.0), ("p99", 99.0), ("p99.9", 99.9)];

/// Format of the text.
#[derive(Clone, Copy, Debug, Default)]
pub struct Style {
    /// All digits instead of four decimals.
    pub precise: bool,
    /// A line for each second.
    pub sample: bool,
}

impl Style {
    /// etcd's report of a run that took `total`. Empty if there were no operations.
    pub fn report(self, recorder: &Recorder, total: Duration) -> String {
        let mut text = String::new();
        if recorder.count() > 0 {
            self.summary(&mut text, recorder, total);
            self.histogram(&mut text, recorder);
            self.latencies(&mut text, recorder);
            if self.sample {
                samples(&mut text, recorder);
            }
        }
        if recorder.error_count() > 0 {
            text.push_str("\nError distribution:\n");
            for (what, count) in recorder.errors() {
                line(&mut text, format_args!("  [{count}]\t{what}"));
            }
        }
        text
    }

    /// Lines about the run after its reports: the comparison of the revision with the writes, and the state of
    /// the generator.
    pub fn closing(self, finished: &Finished) -> String {
        let mut text = String::new();
        if let Some(verified) = finished.verified {
            let word = if verified.holds { "Verified" } else { "NOT TRUE" };
            line(&mut text, format_args!("\n{word}: {}", verified.words()));
        }
        if finished.health.lag.is_empty() {
            return text;
        }
        line(&mut text, format_args!("\nGenerator: {}", self.generator(finished)));
        text
    }

    /// One sentence about the generator.
    pub fn generator(self, finished: &Finished) -> String {
        let health = &finished.health;
        let median = finished.reports.first().map_or(0, |report| report.recorder.percentile(50.0));
        let starved = health.starved.map_or(String::new(), |share| {
            format!(", without a core for {:.0}% of the time", share * 100.0)
        });
        let per_operation = health.cpu.as_secs_f64() * 1e6 / (finished.operations().max(1)) as f64;
        format!(
            "busiest thread {:.0}% of a core, {per_operation:.1} us of CPU per operation{starved}, event \
             loop late by p50 {:.3} p99 {:.3} worst {:.3} ms: {}",
            health.busiest * 100.0,
            health.lag_ms(50.0),
            health.lag_ms(99.0),
            health.lag.max() as f64 / 1e6,
            health.verdict(median).words(),
        )
    }

    /// The high percentiles in milliseconds, which etcd does not print.
    pub fn percentiles(self, recorder: &Recorder) -> String {
        let mut text = String::from("\nPercentiles (ms):\n");
        for (name, percent) in TAIL {
            let millis = recorder.percentile(percent) as f64 / 1e6;
            line(&mut text, format_args!("  {name}\t{}", self.number(millis)));
        }
        line(&mut text, format_args!("  worst\t{}", self.number(recorder.slowest() as f64 / 1e6)));
        text
    }

    fn summary(self, text: &mut String, recorder: &Recorder, total: Duration) {
        text.push_str("\nSummary:\n");
        let seconds = [
            ("Total", total.as_secs_f64()),
            ("Slowest", recorder.slowest() as f64 / 1e9),
            ("Fastest", recorder.fastest() as f64 / 1e9),
            ("Average", recorder.mean() / 1e9),
            ("Stddev", recorder.deviation() / 1e9),
        ];
        for (name, value) in seconds {
            line(text, format_args!("  {name}:\t{} secs.", self.number(value)));
        }
        let rate = recorder.count() as f64 / total.as_secs_f64();
        line(text, format_args!("  Requests/sec:\t{}", self.number(rate)));
    }

    fn histogram(self, text: &mut String, recorder: &Recorder) {
        let (fastest, slowest) = (recorder.fastest(), recorder.slowest());
        let bound = |bucket| match bucket {
            BUCKETS => slowest,
            _ => fastest + (slowest - fastest) * bucket / BUCKETS,
        };
        let mut below = 0;
        let mut counts = Vec::new();
        for bucket in 0..=BUCKETS {
            let up_to = recorder.count_up_to(bound(bucket)).max(below);
            counts.push((bound(bucket), up_to - below));
            below = up_to;
        }
        let most = counts.iter().map(|&(_, count)| count).max().unwrap_or(0).max(1);
        text.push_str("\nResponse time histogram:\n");
        for (bound, count) in counts {
            let bar = "∎".repeat(usize::try_from(count * BAR_CHARS_MAX / most).unwrap_or(0));
            line(text, format_args!("  {} [{count}]\t|{bar}", self.number(bound as f64 / 1e9)));
        }
    }

    fn latencies(self, text: &mut String, recorder: &Recorder) {
        text.push_str("\nLatency distribution:\n");
        for percent in PERCENTS {
            let seconds = recorder.percentile(percent) as f64 / 1e9;
            line(text, format_args!("  {percent}% in {} secs.", self.number(seconds)));
        }
    }

    /// `%4.4f`, or `%g` with all digits.
    fn number(self, value: f64) -> String {
        if self.precise { shortest(value) } else { format!("{value:.4}") }
    }
}

fn line(text: &mut String, line: std::fmt::Arguments<'_>) {
    writeln!(text, "{line}").expect("a String takes everything");
}

fn samples(text: &mut String, recorder: &Recorder) {
    let Some(series) = recorder.series() else { return };
    text.push_str("\nSample in one second (unix latency throughput):\n");
    text.push_str("UNIX-SECOND,MIN-LATENCY-MS,AVG-LATENCY-MS,MAX-LATENCY-MS,AVG-THROUGHPUT\n");
    for (at, interval) in series.intervals() {
        let values = interval.map_or([0; 3], |it| [it.fastest, it.mean(), it.slowest]);
        let [fastest, mean, slowest] =
            values.map(|nanos| duration::text(Duration::from_nanos(nanos)));
        let count = interval.map_or(0, |it| it.count() / series.width());
        line(text, format_args!("{at},{fastest},{mean},{slowest},{count}"));
    }
    text.push('\n');
}

/// The shortest digits that read back as the same number, with Go's exponent below 0.0001.
fn shortest(value: f64) -> String {
    if value == 0.0 || (1e-4..1e21).contains(&value.abs()) {
        return value.to_string();
    }
    let text = format!("{value:e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_has_etcds_form() {
        let mut recorder = Recorder::new(false);
        for millis in 1..=100 {
            recorder.record(millis * 1_000_000, 0);
        }
        recorder.error("etcdserver: too many requests", 2);
        let text = Style::default().report(&recorder, Duration::from_secs(2));
        let start = "\nSummary:\n  Total:\t2.0000 secs.\n  Slowest:\t0.1000 secs.\n  \
                     Fastest:\t0.0010 secs.\n  Average:\t0.0505 secs.\n  Stddev:\t0.0289 secs.\n  \
                     Requests/sec:\t50.0000\n\nResponse time histogram:\n  0.0010 [1]\t|";
        assert!(text.starts_with(start), "{text}");
        assert!(text.contains("\nLatency distribution:\n  10% in 0.0100 secs.\n"), "{text}");
        assert!(text.contains("  99.9% in 0.1000 secs.\n"), "{text}");
        let end = "\nError distribution:\n  [2]\tetcdserver: too many requests\n";
        assert!(text.ends_with(end), "{text}");
    }

    #[test]
    fn the_histogram_counts_everything_once() {
        let mut recorder = Recorder::new(false);
        for nanos in [5, 7, 1_000, 1_000_000, 999_999, 123_456] {
            recorder.record(nanos, 0);
        }
        let mut text = String::new();
        Style::default().histogram(&mut text, &recorder);
        let counts = text.lines().filter_map(|line| line.split(['[', ']']).nth(1));
        let counts: Vec<u64> = counts.map(|count| count.parse().unwrap()).collect();
        assert_eq!(counts.len(), 11);
        assert_eq!(counts.iter().sum::<u64>(), 6);
    }

    #[test]
    fn one_operation_is_a_report_too() {
        let mut recorder = Recorder::new(true);
        recorder.record(1_500_000, 77);
        let text =
            Style { precise: true, sample: true }.report(&recorder, Duration::from_millis(1500));
        assert!(text.contains("  Total:\t1.5 secs.\n  Slowest:\t0.0015 secs."), "{text}");
        assert!(text.contains("\n77,1.5ms,1.5ms,1.5ms,1\n"), "{text}");
    }

    #[test]
    fn nothing_done_prints_nothing() {
        assert_eq!(Style::default().report(&Recorder::new(false), Duration::from_secs(1)), "");
    }

    #[test]
    fn numbers_are_written_as_go_writes_them() {
        assert_eq!(shortest(0.0), "0");
        assert_eq!(shortest(0.000_05), "5e-05");
        assert_eq!(shortest(0.000_123), "0.000123");
        assert_eq!(shortest(5000.25), "5000.25");
    }
}
