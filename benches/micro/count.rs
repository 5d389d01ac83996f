//! Counts what one operation takes.

use std::process::Command;
use std::time::Instant;

use super::{Operation, repeat};

/// The argument with which this program runs operations and nothing else.
pub(crate) const TIMES: &str = "--times=";

/// Operations in the two runs that are compared.
const LESS: u64 = 1_000;
const MORE: u64 = 3_000;

/// Instructions of one operation as text, or its time where they cannot be counted.
pub(crate) fn one(name: &str, make: impl Fn() -> Operation) -> String {
    match (instructions(name, LESS), instructions(name, MORE)) {
        (Some(less), Some(more)) => {
            format!("{:>9.1} instructions", (more - less) as f64 / (MORE - LESS) as f64)
        }
        _ => {
            repeat(make(), LESS);
            let (operation, began) = (make(), Instant::now());
            repeat(operation, MORE);
            format!("{:>9.1} ns", began.elapsed().as_secs_f64() * 1e9 / MORE as f64)
        }
    }
}

/// Instructions of this program while it runs so many operations; `None` without valgrind.
fn instructions(name: &str, times: u64) -> Option<u64> {
    let output = Command::new("valgrind")
        .args(["--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null"])
        .arg(std::env::current_exe().ok()?)
        .args([name, &format!("{TIMES}{times}")])
        .output()
        .ok()?;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let line = text
        .lines()
        .find_map(|line| line.split_once("I   refs:").or(line.split_once("I refs:")))?;
    line.1.trim().replace(',', "").parse().ok()
}
