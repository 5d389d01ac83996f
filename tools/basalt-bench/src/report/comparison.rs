//! Two targets under the same load: the results of each, and the ratio.

use std::fmt::Write;

use serde_json::{Value, json};

use super::{Finished, Report};

/// Order of the loads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// One after the other, so many times, in reversed order every second time.
    Turns(usize),
    /// Both at the same time, sharing the generator's machine.
    Together,
}

/// One of the two.
#[derive(Debug)]
pub struct Side {
    /// The name that the user gave it.
    pub name: String,
    /// All turns together.
    pub finished: Finished,
    /// Requests per second of the first report, turn by turn.
    pub rates: Vec<f64>,
}

/// Both results; the second is divided by the first.
#[derive(Debug)]
pub struct Comparison {
    /// How they were loaded.
    pub how: How,
    /// The divisor of the ratio.
    pub first: Side,
    /// The dividend of the ratio.
    pub second: Side,
}

/// A line of the table: its name, and its value in a report.
type Measure = (&'static str, fn(&Report) -> f64);

const MEASURES: [Measure; 6] = [
    ("requests/sec", Report::rate),
    ("p50 ms", |report| report.recorder.percentile(50.0) as f64 / 1e6),
    ("p90 ms", |report| report.recorder.percentile(90.0) as f64 / 1e6),
    ("p99 ms", |report| report.recorder.percentile(99.0) as f64 / 1e6),
    ("p99.9 ms", |report| report.recorder.percentile(99.9) as f64 / 1e6),
    ("worst ms", |report| report.recorder.slowest() as f64 / 1e6),
];

/// One line of the table.
#[derive(Debug, PartialEq)]
pub struct Row {
    /// The measure.
    pub what: &'static str,
    /// Of the first target.
    pub first: f64,
    /// Of the second.
    pub second: f64,
}

impl Row {
    /// The second divided by the first; `None` if the first is zero.
    pub fn ratio(&self) -> Option<f64> {
        (self.first > 0.0).then(|| self.second / self.first)
    }
}

impl How {
    /// In words.
    pub fn words(self) -> String {
        match self {
            Self::Turns(1) => "one turn each, one target at a time".to_owned(),
            Self::Turns(turns) => format!("{turns} turns each, one target at a time"),
            Self::Together => "both targets at the same time".to_owned(),
        }
    }
}

impl Comparison {
    /// The table of each report, by its name.
    pub fn tables(&self) -> Vec<(&str, Vec<Row>)> {
        let pairs = self.first.finished.reports.iter().zip(&self.second.finished.reports);
        let table = |(first, second): (&'_ Report, &'_ Report)| {
            let row = |(what, of): &Measure| Row { what, first: of(first), second: of(second) };
            MEASURES.iter().map(row).collect()
        };
        pairs.map(|pair| (pair.0.name.as_str(), table(pair))).collect()
    }

    /// The tables as text.
    pub fn to_text(&self) -> String {
        let mut text = format!("\nSide by side: {}\n", self.how.words());
        let mut line = |it: std::fmt::Arguments<'_>| {
            writeln!(text, "{it}").expect("a String takes everything");
        };
        let (first, second) = (&self.first.name, &self.second.name);
        for (name, rows) in self.tables() {
            line(format_args!("  {name:<28}{first:>16}{second:>16}{:>10}", "ratio"));
            for row in rows {
                let ratio = row.ratio().map_or("-".to_owned(), |ratio| format!("{ratio:.2}"));
                let what = row.what;
                line(format_args!(
                    "    {what:<26}{:>16.4}{:>16.4}{ratio:>10}",
                    row.first, row.second
                ));
            }
        }
        if self.first.rates.len() > 1 {
            let ratios: Vec<String> = self.turn_ratios().map(|it| format!("{it:.2}")).collect();
            line(format_args!("  ratio of requests/sec turn by turn: {}", ratios.join(" ")));
        }
        text
    }

    /// The tables as JSON.
    pub fn to_json(&self) -> Value {
        let table = |(name, rows): (&str, Vec<Row>)| {
            let row = |row: Row| {
                let ratio = row.ratio();
                json!({"what": row.what, "first": row.first, "second": row.second, "ratio": ratio})
            };
            json!({"name": name, "rows": rows.into_iter().map(row).collect::<Vec<_>>()})
        };
        json!({
            "comparison": [self.first.name, self.second.name],
            "how": self.how.words(),
            "tables": self.tables().into_iter().map(table).collect::<Vec<_>>(),
            "turn_ratios": self.turn_ratios().collect::<Vec<_>>(),
        })
    }

    fn turn_ratios(&self) -> impl Iterator<Item = f64> {
        let pairs = self.first.rates.iter().zip(&self.second.rates);
        pairs.filter(|(first, _)| **first > 0.0).map(|(first, second)| second / first)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::report::Recorder;

    fn side(name: &str, nanos: u64) -> Side {
        let mut recorder = Recorder::new(false);
        recorder.record(nanos, 0);
        let total = Duration::from_nanos(nanos);
        let report = Report { name: "put".into(), heading: String::new(), total, recorder };
        let rates = vec![report.rate(), report.rate()];
        let finished = Finished { reports: vec![report], ..Finished::default() };
        Side { name: name.into(), finished, rates }
    }

    #[test]
    fn the_ratio_is_the_second_by_the_first() {
        let (first, second) = (side("etcd", 4_000_000), side("basalt", 1_000_000));
        let both = Comparison { how: How::Turns(2), first, second };
        let tables = both.tables();
        let ratio = |at: usize| tables[0].1[at].ratio().unwrap();
        assert!((ratio(0) - 4.0).abs() < 0.01, "four times the rate");
        assert!((ratio(1) - 0.25).abs() < 0.01, "a quarter of the latency");
        let text = both.to_text();
        assert!(text.contains("2 turns each, one target at a time"), "{text}");
        assert!(text.contains("turn by turn: 4.00 4.00"), "{text}");
        assert_eq!(both.to_json()["comparison"], json!(["etcd", "basalt"]));
    }

    #[test]
    fn nothing_is_divided_by_nothing() {
        assert_eq!(Row { what: "p50 ms", first: 0.0, second: 1.0 }.ratio(), None);
    }
}
