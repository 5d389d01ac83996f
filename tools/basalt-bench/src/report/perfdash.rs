//! The three percentiles that Kubernetes' perf-dash reads, in a file of the form and name that etcd's
//! benchmark gives it.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{env, fs};

use serde_json::json;

use super::{Recorder, Report};

/// Writes a report's file at time `now` (since 1970) below `$ARTIFACTS`, or `./_artifacts`.
///
/// # Errors
/// When it cannot be written.
pub fn write(report: &Report, now: Duration) -> io::Result<PathBuf> {
    let directory = env::var_os("ARTIFACTS").filter(|it| !it.is_empty());
    let directory = directory.map_or_else(|| PathBuf::from("./_artifacts"), PathBuf::from);
    write_below(&directory, report, now)
}

fn write_below(directory: &Path, report: &Report, now: Duration) -> io::Result<PathBuf> {
    fs::create_dir_all(directory)?;
    let name = format!("EtcdAPI_benchmark_{}_{}.json", report.name, rfc3339(now.as_secs()));
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

/// Seconds since 1970 as a date and time in UTC, by the civil calendar counted in eras of 400 years.
pub(super) fn rfc3339(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400 + 719_468, seconds % 86_400);
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    // The years of this count begin in March.
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    let year = era * 400 + year + next;
    let (hour, minute, second) = (rest / 3_600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_civil() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00Z");
        assert_eq!(rfc3339(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(rfc3339(1_795_251_661), "2026-11-21T09:01:01Z");
    }

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
