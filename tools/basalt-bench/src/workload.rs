//! The loads, one file each: flags, requests, the checks of a response. Above them, in this file, the closed and open loops
//! that most of them run.

pub mod kube;
pub mod lease_keepalive;
pub mod mix;
mod mutex;
pub mod mvcc;
pub mod put;
pub mod range;
pub mod stm;
pub mod txn_mixed;
pub mod txn_put;
pub mod watch;
pub mod watch_get;
pub mod watch_latency;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use serde_json::{Map, Value};

use crate::error::Fatal;
use crate::generator::{self, Outcome, Plan, Rate, Workload};
use crate::options::Globals;
use crate::progress::Progress;
use crate::report::{Finished, Report, Written};
use crate::session;
use crate::wire::Dialer;

/// A kind of operations, with a report of its own.
#[derive(Clone, Debug)]
pub struct Kind {
    /// Name in reports.
    pub name: String,
    /// Number of revisions that each operation makes.
    pub writes: u64,
}

impl Kind {
    /// A kind by its name.
    pub fn new(name: impl Into<String>, writes: u64) -> Self {
        Self { name: name.into(), writes }
    }
}

/// The load of a plain closed or open loop.
struct Load<'a> {
    globals: &'a Globals,
    total: u64,
    rate: u64,
    kinds: Vec<Kind>,
}

impl Load<'_> {
    /// Runs it, checks that the revision grew by its writes, and makes a report of each kind.
    fn run<W: Workload + Send + 'static>(
        &self,
        dialer: &Dialer,
        make: impl Fn(usize) -> W + Sync,
    ) -> Result<(Finished, Vec<W>), Fatal> {
        self.run_until(dialer, None, make)
    }

    /// The same; ends also when `stop` is set.
    fn run_until<W: Workload + Send + 'static>(
        &self,
        dialer: &Dialer,
        stop: Option<Arc<AtomicBool>>,
        make: impl Fn(usize) -> W + Sync,
    ) -> Result<(Finished, Vec<W>), Fatal> {
        let pace = self.globals.pace(self.rate)?;
        // A run with a duration has no total.
        let total = if pace.end.is_zero() { self.total } else { u64::MAX };
        let verify = !self.globals.no_verify && self.kinds.iter().any(|kind| kind.writes > 0);
        let (outcome, verified) = session::verified(dialer, verify, || {
            let outcome = self.generate(dialer, pace, total, stop, make)?;
            let written = |(kind, recorder): (&Kind, &crate::report::Recorder)| {
                (kind.writes * recorder.count(), kind.writes * recorder.error_count())
            };
            let all = self.kinds.iter().zip(&outcome.recorders).map(written);
            let (answered, failed) = all.fold((0, 0), |(good, bad), it| (good + it.0, bad + it.1));
            Ok((outcome, Written { answered, failed }))
        })?;
        let report = |(kind, recorder): (&Kind, _)| Report {
            name: kind.name.clone(),
            heading: String::new(),
            total: outcome.total,
            recorder,
        };
        let finished = Finished {
            reports: self.kinds.iter().zip(outcome.recorders).map(report).collect(),
            health: outcome.health,
            verified,
            details: self.details(),
            pace,
            ..Finished::default()
        };
        Ok((finished, outcome.workloads))
    }

    fn generate<W: Workload + Send + 'static>(
        &self,
        dialer: &Dialer,
        pace: Rate,
        total: u64,
        stop: Option<Arc<AtomicBool>>,
        make: impl Fn(usize) -> W + Sync,
    ) -> Result<Outcome<W>, Fatal> {
        let plan = Plan {
            total,
            pace,
            kinds: self.kinds.len(),
            clients: self.globals.clients,
            conns: self.globals.conns,
            threads: self.globals.threads,
            series: self.globals.series(),
            stop,
        };
        let progress = Progress::new(self.total);
        Ok(generator::run(plan, dialer.clone(), progress.counter(), make)?)
    }

    /// Number of connections that the generator will make.
    fn conns(&self, dialer: &Dialer) -> usize {
        generator::conns(self.globals.conns, self.globals.clients, dialer.endpoints.len())
    }

    /// The flags that every report names.
    fn details(&self) -> Map<String, Value> {
        let globals = self.globals;
        let mut details = Map::new();
        details.insert("endpoints".into(), globals.endpoints.clone().into());
        details.insert("conns".into(), globals.conns.into());
        details.insert("clients".into(), globals.clients.into());
        details.insert("rate".into(), self.rate.into());
        if globals.duration.is_zero() {
            details.insert("total".into(), self.total.into());
        } else {
            details.insert("duration_seconds".into(), globals.duration.as_secs_f64().into());
        }
        if !globals.ramp.is_zero() {
            details.insert("ramp_from".into(), globals.ramp_from.into());
            details.insert("ramp_seconds".into(), globals.ramp.as_secs_f64().into());
        }
        details
    }
}
