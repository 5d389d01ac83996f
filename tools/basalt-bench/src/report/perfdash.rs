//! The three percentiles that Kubernetes' perf-dash reads, in a file of the form and name that etcd's
//! benchmark gives it.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{env, fs};

use gocompat::time::rfc3339;
use serde_json::json;

use super::{Recorder, Report};

/// Writes a report's file at time `now` (since 1970) below `$ARTIFACTS`, or `./_artifacts`.
///
/// # Errors
/// The file cannot be written.
pub fn write(report: &Report, now: Duration) -> io::Result<PathBuf> {
    let directory = env::var_os("ARTIFACTS").filter(|it| !it.is_empty());
    let directory = directory.map_or_else(|| PathBuf::from("./_artifacts"), PathBuf::from);
    write_below(&directory, report, now)
}

fn write_below(directory: &Path, report: &Report, now: Duration) -> io::Result<PathBuf> {
    fs::create_dir_all(directory)?;
    let name = format!("EtcdAPI_benchmark_{}_{}.json", report.name, rfc3339(now));
    let path = directory.join(name);
    fs::write(&path, text(&report.name, &report.recorder))?;
    Ok(path)
}

fn text(name: &str, recorder: &Recorder) -> String {
    let millis = |percent| (recorder.percentile(percent) as f64 / 1e6 * 1e4).round() / 1e4;
    let (p50, p90, p99) = (millis(50.0), millis(90.0), millis(99.0));
    let value = json!({
        "version": "v1",
        "dataItems": [{
            "data": {"Perc50": p50, "Perc90": p90, "Perc99": p99},
            "labels": {"Operation": name.to_uppercase()},
            "unit": "ms",
        }],
    });
    serde_json::to_string_pretty(&value).expect("a value is JSON")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_has_the_operation_in_capitals_and_milliseconds() {
        let mut recorder = Recorder::new(false);
        recorder.record(1_500_000, 0);
        let value: serde_json::Value = serde_json::from_str(&text("put", &recorder)).unwrap();
        assert_eq!(value["dataItems"][0]["labels"]["Operation"], "PUT");
        assert_eq!(value["dataItems"][0]["data"]["Perc99"], 1.5);
        assert_eq!(value["dataItems"][0]["unit"], "ms");
    }
}
