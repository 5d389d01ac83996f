//! The loads, one file each: flags, requests, what an answer must be. This file runs whichever was
//! asked for and prints its reports.

pub mod put;
pub mod range;
pub mod txn_put;
pub mod watch_latency;

use std::time::Duration;

use serde_json::{Map, Value};

use crate::cli::{Cli, Command, Globals};
use crate::generator::{self, Outcome, Plan, Workload};
use crate::progress::Progress;
use crate::report::{Facts, Recorder, Style, Verified, write_json};
use crate::session::{self, Fatal};
use crate::wire::Dialer;

/// A finished load: its reports, in order, each under its heading.
#[derive(Debug, Default)]
pub struct Finished {
    reports: Vec<Report>,
    /// Printed after the reports.
    epilogue: String,
}

/// One report of a load.
#[derive(Debug)]
pub struct Report {
    heading: &'static str,
    facts: Facts,
    recorder: Recorder,
}

/// Runs what the command line asks for. Whether everything in it went well.
///
/// # Errors
/// When it could not be run at all.
pub fn run(cli: Cli) -> Result<bool, Fatal> {
    let Cli { globals, command } = cli;
    let finished = match command {
        Command::Put(flags) => put::run(&globals, &flags),
        Command::Range(flags) => range::run(&globals, &flags),
        Command::TxnPut(flags) => txn_put::run(&globals, &flags),
        Command::WatchLatency(flags) => watch_latency::run(&globals, &flags),
    }?;
    let style = Style { precise: globals.precise };
    let to_stdout = globals.json.as_deref() == Some("-".as_ref());
    if !to_stdout {
        print(&finished, style);
    }
    if let Some(path) = &globals.json {
        let reports = finished.reports.iter().map(|report| (&report.facts, &report.recorder));
        write_json(path, &reports.collect::<Vec<_>>())?;
    }
    Ok(finished.reports.iter().all(Report::is_good))
}

fn print(finished: &Finished, style: Style) {
    for report in &finished.reports {
        print!("{}", report.heading);
        println!("{}", style.report(&report.recorder, report.facts.total));
        if report.recorder.count() > 0 {
            print!("{}", style.percentiles(&report.recorder));
        }
        if let Some(verified) = &report.facts.verified {
            let grown = verified.revision_after - verified.revision_before;
            let word = if verified.holds { "Verified" } else { "NOT TRUE" };
            println!("\n{word}: the revision grew by {grown} of {}", verified.expected);
        }
    }
    print!("{}", finished.epilogue);
}

impl Report {
    fn is_good(&self) -> bool {
        self.recorder.error_count() == 0
            && self.facts.verified.is_none_or(|verified| verified.holds)
    }
}

/// The load of a plain closed or open loop.
struct Load<'a> {
    globals: &'a Globals,
    total: u64,
    rate: u64,
}

impl Load<'_> {
    fn run<W: Workload + Send + 'static>(
        &self,
        dialer: &Dialer,
        make: impl Fn(usize) -> W + Sync,
    ) -> Result<(Outcome<W>, Option<Duration>), Fatal> {
        let plan = Plan {
            total: self.total,
            clients: self.globals.clients,
            conns: self.globals.conns,
            rate: self.rate,
            threads: self.globals.threads,
            sample: self.globals.sample,
        };
        let progress = Progress::new(self.total);
        let before = session::cpu();
        let outcome = generator::run(plan, dialer.clone(), progress.counter(), make)?;
        let cpu = session::cpu().zip(before).map(|(after, before)| after.saturating_sub(before));
        Ok((outcome, cpu))
    }

    /// What every report says of how it was made.
    fn details(&self) -> Map<String, Value> {
        let mut details = Map::new();
        details.insert("endpoints".into(), self.globals.endpoints.clone().into());
        details.insert("conns".into(), self.globals.conns.into());
        details.insert("clients".into(), self.globals.clients.into());
        details.insert("total".into(), self.total.into());
        details.insert("rate".into(), self.rate.into());
        details
    }
}

/// A report of a load whose writes were counted.
fn report<W>(
    name: &str,
    outcome: Outcome<W>,
    cpu: Option<Duration>,
    details: Map<String, Value>,
    verified: Option<Verified>,
) -> Finished {
    let facts =
        Facts { name: name.to_owned(), total: outcome.total, client_cpu: cpu, details, verified };
    let report = Report { heading: "", facts, recorder: outcome.recorder };
    Finished { reports: vec![report], epilogue: String::new() }
}
