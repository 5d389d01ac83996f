//! The text format of Prometheus, version 0.0.4, with numbers formatted as Go does.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::cells::Counts;

/// Families by name, written in this order.
#[derive(Debug, Default)]
pub(super) struct Writer(BTreeMap<&'static str, String>);

impl Writer {
    /// One number without labels.
    pub(super) fn one(&mut self, name: &'static str, kind: &str, help: &str, value: f64) {
        self.family(name, kind, help, std::iter::once((String::new(), value)));
    }

    /// A number for each set of labels. A family without any is left out, as by Go's client.
    pub(super) fn family(
        &mut self,
        name: &'static str,
        kind: &str,
        help: &str,
        rows: impl Iterator<Item = (String, f64)>,
    ) {
        let mut text = begin(name, kind, help);
        let empty = text.len();
        for (labels, value) in rows {
            row(&mut text, name, "", &labels, value);
        }
        if text.len() > empty {
            self.0.insert(name, text);
        }
    }

    /// A histogram for each set of labels.
    pub(super) fn histogram(
        &mut self,
        name: &'static str,
        help: &str,
        rows: impl Iterator<Item = (String, Counts)>,
    ) {
        let mut text = begin(name, "histogram", help);
        let empty = text.len();
        for (labels, counts) in rows {
            let comma = if labels.is_empty() { "" } else { "," };
            for (bound, below) in &counts.buckets {
                let labels = format!("{labels}{comma}le=\"{}\"", go_float(*bound));
                row(&mut text, name, "_bucket", &labels, *below as f64);
            }
            row(&mut text, name, "_sum", &labels, counts.sum);
            let count = counts.buckets.last().map_or(0, |(_, below)| *below);
            row(&mut text, name, "_count", &labels, count as f64);
        }
        if text.len() > empty {
            self.0.insert(name, text);
        }
    }

    pub(super) fn finish(self) -> String {
        self.0.into_values().collect()
    }
}

fn begin(name: &str, kind: &str, help: &str) -> String {
    format!("# HELP {name} {help}\n# TYPE {name} {kind}\n")
}

fn row(out: &mut String, name: &str, suffix: &str, labels: &str, value: f64) {
    let value = go_float(value);
    // Writing to a string cannot fail.
    let _ = match labels {
        "" => writeln!(out, "{name}{suffix} {value}"),
        labels => writeln!(out, "{name}{suffix}{{{labels}}} {value}"),
    };
}

/// A label value, quoted.
pub(super) fn quoted(value: &str) -> String {
    format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"))
}

/// The shortest digits that denote this number; with an exponent from a million on and below a ten-thousandth.
fn go_float(value: f64) -> String {
    if value.is_infinite() {
        return if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    let scientific = format!("{value:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if value != 0.0 && !(-4..6).contains(&exponent) {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{digits}e{sign}{:02}", exponent.abs());
    }
    format!("{value}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_by_go() {
        let written =
            [0.0, 1.0, 0.0001, 0.00001, 123_456.0, 1e6, 2_147_483_648.0, 8.192, f64::INFINITY];
        let expected = "0 1 0.0001 1e-05 123456 1e+06 2.147483648e+09 8.192 +Inf";
        assert_eq!(written.map(go_float).join(" "), expected);
    }

    #[test]
    fn families_are_sorted_and_empty_ones_left_out() {
        let mut out = Writer::default();
        out.one("b", "gauge", "Second.", 2.0);
        out.family("c", "gauge", "Never.", std::iter::empty());
        let counts = Counts { buckets: vec![(0.5, 1), (f64::INFINITY, 3)], sum: 7.5 };
        let labels = format!("x={}", quoted("a\"b"));
        out.histogram("a", "First.", std::iter::once((labels, counts)));
        let expected = "# HELP a First.\n# TYPE a histogram\n\
            a_bucket{x=\"a\\\"b\",le=\"0.5\"} 1\na_bucket{x=\"a\\\"b\",le=\"+Inf\"} 3\n\
            a_sum{x=\"a\\\"b\"} 7.5\na_count{x=\"a\\\"b\"} 3\n\
            # HELP b Second.\n# TYPE b gauge\nb 2\n";
        assert_eq!(out.finish(), expected);
    }
}
