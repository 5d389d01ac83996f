//! The result as JSON: one object per report.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use serde::Serialize;
use serde_json::{Map, Value};

use super::{Comparison, Finished, Recorder, Report, Verified};

#[derive(Serialize)]
struct Run<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<&'a str>,
    seconds: f64,
    ok: u64,
    errors: u64,
    error_distribution: &'a BTreeMap<String, u64>,
    requests_per_second: f64,
    latency_ns: Latency,
    client_cpu_us_per_op: f64,
    generator: Generator,
    #[serde(skip_serializing_if = "Option::is_none")]
    verified: Option<Verified>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    series: Vec<Sample>,
    #[serde(flatten)]
    details: &'a Map<String, Value>,
}

/// State of the generator in the run.
#[derive(Serialize)]
struct Generator {
    busiest_thread_share: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    without_core_share: Option<f64>,
    lag_ms_p50: f64,
    lag_ms_p99: f64,
    lag_ms_worst: f64,
    verdict: String,
}

#[derive(Serialize)]
struct Latency {
    fastest: u64,
    mean: f64,
    deviation: f64,
    p10: u64,
    p50: u64,
    p90: u64,
    p99: u64,
    p999: u64,
    worst: u64,
}

/// One interval of the series; latencies in nanoseconds.
#[derive(Serialize)]
struct Sample {
    unix_second: u64,
    seconds: u64,
    count: u64,
    fastest: u64,
    mean: u64,
    p50: u64,
    p90: u64,
    p99: u64,
    worst: u64,
}

/// Writes one line of JSON per report to the file, or to standard output for `-`; of two targets, the
/// lines of each under its name, and a line that compares them.
///
/// # Errors
/// The file cannot be written.
pub fn write(
    path: &Path,
    sides: &[(&str, &Finished)],
    compared: Option<&Comparison>,
) -> io::Result<()> {
    let mut text = String::new();
    let mut push = |value: serde_json::Result<String>| {
        text.push_str(&value.map_err(io::Error::other)?);
        text.push('\n');
        Ok::<_, io::Error>(())
    };
    for (target, finished) in sides {
        let target = (sides.len() > 1).then_some(*target);
        for report in &finished.reports {
            push(serde_json::to_string(&run(target, finished, report)))?;
        }
    }
    if let Some(comparison) = compared {
        push(serde_json::to_string(&comparison.to_json()))?;
    }
    if path == Path::new("-") {
        io::stdout().write_all(text.as_bytes())
    } else {
        File::create(path)?.write_all(text.as_bytes())
    }
}

fn run<'a>(target: Option<&'a str>, finished: &'a Finished, report: &'a Report) -> Run<'a> {
    let recorder = &report.recorder;
    let done = finished.operations().max(1);
    Run {
        name: &report.name,
        target,
        seconds: report.total.as_secs_f64(),
        ok: recorder.count(),
        errors: recorder.error_count(),
        error_distribution: recorder.errors(),
        requests_per_second: report.rate(),
        latency_ns: Latency {
            fastest: recorder.fastest(),
            mean: recorder.mean(),
            deviation: recorder.deviation(),
            p10: recorder.percentile(10.0),
            p50: recorder.percentile(50.0),
            p90: recorder.percentile(90.0),
            p99: recorder.percentile(99.0),
            p999: recorder.percentile(99.9),
            worst: recorder.slowest(),
        },
        client_cpu_us_per_op: finished.health.cpu.as_secs_f64() * 1e6 / done as f64,
        generator: generator(finished, recorder),
        verified: finished.verified,
        series: samples(recorder),
        details: &finished.details,
    }
}

fn generator(finished: &Finished, recorder: &Recorder) -> Generator {
    let health = &finished.health;
    Generator {
        busiest_thread_share: health.busiest,
        without_core_share: health.starved,
        lag_ms_p50: health.lag_ms(50.0),
        lag_ms_p99: health.lag_ms(99.0),
        lag_ms_worst: health.lag.max() as f64 / 1e6,
        verdict: format!("{:?}", health.verdict(recorder.percentile(50.0))).to_lowercase(),
    }
}

fn samples(recorder: &Recorder) -> Vec<Sample> {
    let Some(series) = recorder.series() else { return Vec::new() };
    let sample = |(unix_second, interval): (u64, Option<&super::Interval>)| {
        let of = |value: fn(&super::Interval) -> u64| interval.map_or(0, value);
        Sample {
            unix_second,
            seconds: series.width(),
            count: of(super::Interval::count),
            fastest: of(|it| it.fastest),
            mean: of(super::Interval::mean),
            p50: of(|it| it.percentile(50.0)),
            p90: of(|it| it.percentile(90.0)),
            p99: of(|it| it.percentile(99.0)),
            worst: of(|it| it.slowest),
        }
    };
    series.intervals().map(sample).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::generator::Health;

    #[test]
    fn a_run_is_one_object_with_its_details_and_its_seconds() {
        let mut recorder = Recorder::new(true);
        recorder.record(2_000, 77);
        let report = Report {
            name: "put".into(),
            heading: String::new(),
            total: Duration::from_millis(500),
            recorder,
        };
        let mut finished = Finished {
            reports: vec![report],
            health: Health { cpu: Duration::from_micros(3), busiest: 0.5, ..Health::default() },
            ..Finished::default()
        };
        finished.details.insert("clients".into(), 5.into());
        let value = serde_json::to_value(run(None, &finished, &finished.reports[0])).unwrap();
        assert_eq!(value["requests_per_second"], 2.0);
        assert_eq!(value["clients"], 5);
        assert_eq!(value["client_cpu_us_per_op"], 3.0);
        assert_eq!(value["latency_ns"]["worst"], 2000);
        assert_eq!(value["series"][0]["unix_second"], 77);
        assert_eq!(value["generator"]["verdict"], "free");
        assert!(value.get("verified").is_none() && value.get("target").is_none());
    }
}
