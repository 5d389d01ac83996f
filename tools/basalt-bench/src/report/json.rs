//! The result for machines: one object per run.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use serde::Serialize;
use serde_json::{Map, Value};

use super::Recorder;

/// What is known of a run besides its latencies.
#[derive(Debug)]
pub struct Facts {
    /// The subcommand, with a suffix where it has several reports.
    pub name: String,
    /// How long it took.
    pub total: Duration,
    /// Processor time of this process in the run, where it is known.
    pub client_cpu: Option<Duration>,
    /// The flags of the workload, and what it counted.
    pub details: Map<String, Value>,
    /// Whether the server did what it said.
    pub verified: Option<Verified>,
}

/// What the revision says about the writes.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Verified {
    /// Before the first write.
    pub revision_before: i64,
    /// After the last.
    pub revision_after: i64,
    /// By how much it should have grown.
    pub expected: u64,
    /// Whether it did.
    pub holds: bool,
}

#[derive(Serialize)]
struct Run<'a> {
    name: &'a str,
    seconds: f64,
    ok: u64,
    errors: u64,
    error_distribution: &'a BTreeMap<String, u64>,
    requests_per_second: f64,
    latency_ns: Latency,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_cpu_us_per_op: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    verified: Option<Verified>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    samples: Vec<Sample>,
    #[serde(flatten)]
    details: &'a Map<String, Value>,
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

#[derive(Serialize)]
struct Sample {
    unix_second: u64,
    count: u64,
    fastest: u64,
    mean: u64,
    worst: u64,
}

/// Writes one line of JSON per report to the file, or to standard output for `-`.
///
/// # Errors
/// When the file cannot be written.
pub fn write(path: &Path, reports: &[(&Facts, &Recorder)]) -> io::Result<()> {
    let mut text = String::new();
    for (facts, recorder) in reports {
        text.push_str(&serde_json::to_string(&run(facts, recorder)).map_err(io::Error::other)?);
        text.push('\n');
    }
    if path == Path::new("-") {
        io::stdout().write_all(text.as_bytes())
    } else {
        File::create(path)?.write_all(text.as_bytes())
    }
}

fn run<'a>(facts: &'a Facts, recorder: &'a Recorder) -> Run<'a> {
    let seconds = facts.total.as_secs_f64();
    let done = recorder.count() + recorder.error_count();
    let per_op = |cpu: Duration| cpu.as_secs_f64() * 1e6 / done.max(1) as f64;
    let samples = recorder.seconds().unwrap_or_default().into_iter().map(|(at, second)| Sample {
        unix_second: at,
        count: second.count,
        fastest: second.fastest,
        mean: second.mean(),
        worst: second.slowest,
    });
    Run {
        name: &facts.name,
        seconds,
        ok: recorder.count(),
        errors: recorder.error_count(),
        error_distribution: recorder.errors(),
        requests_per_second: if seconds > 0.0 { recorder.count() as f64 / seconds } else { 0.0 },
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
        client_cpu_us_per_op: facts.client_cpu.map(per_op),
        verified: facts.verified,
        samples: samples.collect(),
        details: &facts.details,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_one_object_with_its_details() {
        let mut recorder = Recorder::new(false);
        recorder.record(2_000, 0);
        let mut details = Map::new();
        details.insert("clients".into(), 5.into());
        let facts = Facts {
            name: "put".into(),
            total: Duration::from_millis(500),
            client_cpu: Some(Duration::from_micros(3)),
            details,
            verified: None,
        };
        let value = serde_json::to_value(run(&facts, &recorder)).unwrap();
        assert_eq!(value["requests_per_second"], 2.0);
        assert_eq!(value["clients"], 5);
        assert_eq!(value["client_cpu_us_per_op"], 3.0);
        assert_eq!(value["latency_ns"]["worst"], 2000);
        assert!(value.get("verified").is_none());
    }
}
