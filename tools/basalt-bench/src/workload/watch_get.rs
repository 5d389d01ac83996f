//! Serializable gets of one client while many watchers read history: measures how much the catch-up disturbs
//! readers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use basalt_proto::etcdserverpb::{PutRequest, PutResponse, RangeRequest, WatchCreateRequest};
use clap::Args;
use prost::Message;

use super::{Kind, Load};
use crate::error::Fatal;
use crate::generator::Workload;
use crate::options::Globals;
use crate::paths;
use crate::report::Finished;
use crate::session;
use crate::spectators::Spectators;

const WATCHED_KEY: &str = "watchkey";
const READ_KEY: &str = "abc";

/// Flags of `watch-get`.
#[derive(Args, Clone, Debug)]
pub struct Flags {
    /// Total number of watchers
    #[arg(long, default_value_t = 10_000)]
    pub watchers: usize,
    /// Total number of watcher streams
    #[arg(long, default_value_t = 1)]
    pub streams: usize,
    /// Number of events per watcher
    #[arg(long, default_value_t = 8)]
    pub events: u64,
}

struct Get;

impl Workload for Get {
    fn begin(&mut self, _: usize, _: u64, body: &mut Vec<u8>) -> &'static str {
        let request =
            RangeRequest { key: READ_KEY.into(), serializable: true, ..RangeRequest::default() };
        request.encode(body).expect("a Vec takes everything");
        paths::RANGE
    }

    fn message(&mut self, _: usize, _: &[u8]) -> Result<(), String> {
        Ok(())
    }
}

/// Puts, watches from the first put on, gets until every watcher has seen all puts, and reports the gets.
///
/// # Errors
/// The flags are wrong, a watcher fails or the server cannot be reached.
pub fn run(globals: &Globals, flags: &Flags) -> Result<Finished, Fatal> {
    if flags.streams == 0 {
        return Err("expected positive --streams, got (0)".into());
    }
    let dialer = session::dialer(globals)?;
    let mut first = 0;
    for event in 0..flags.events {
        let value = event.to_string().into();
        let request = PutRequest { key: WATCHED_KEY.into(), value, ..PutRequest::default() };
        let put: PutResponse = session::call(&dialer, paths::PUT, &request)?;
        if event == 0 {
            first = put.header.map_or(0, |header| header.revision);
        }
    }
    let watcher = WatchCreateRequest {
        key: WATCHED_KEY.into(),
        start_revision: first,
        ..WatchCreateRequest::default()
    };
    let of = |stream| {
        flags.watchers / flags.streams + usize::from(stream < flags.watchers % flags.streams)
    };
    let streams = (0..flags.streams).map(|stream| vec![watcher.clone(); of(stream)]).collect();
    let expected = flags.watchers as u64 * flags.events;
    let spectators = Spectators::start(&dialer, globals.conns, streams, globals.series());
    let stop = Arc::new(AtomicBool::new(false));
    let one = Globals { conns: 1, clients: 1, threads: 1, ..globals.clone() };
    let kinds = vec![Kind::new("watch-get", 0)];
    let load = Load { globals: &one, total: u64::MAX, rate: 0, kinds };
    let (ran, seen) = thread::scope(|scope| {
        let waiter = scope.spawn(|| {
            let seen = spectators.finish(expected);
            stop.store(true, Ordering::Relaxed);
            seen
        });
        let ran = load.run_until(&dialer, Some(Arc::clone(&stop)), |_| Get);
        (ran, waiter.join())
    });
    let seen = seen.map_err(|_| "the thread that waits for the watchers panicked")??;
    let (mut finished, _) = ran?;
    finished.reports[0].heading = "Get during watch summary:\n".to_owned();
    finished.health.merge(&seen.health);
    let details = &mut finished.details;
    details.remove("total");
    details.insert("watchers".into(), flags.watchers.into());
    details.insert("streams".into(), flags.streams.into());
    details.insert("events".into(), seen.event_count.into());
    details.insert("events_seconds".into(), seen.events_total.as_secs_f64().into());
    for (what, &count) in seen.events.errors() {
        finished.reports[0].recorder.error(what.as_str(), count);
    }
    finished.epilogue = epilogue(seen.event_count, seen.events_total);
    Ok(finished)
}

fn epilogue(events: u64, total: Duration) -> String {
    let rate = events as f64 / total.as_secs_f64().max(1e-9);
    format!("\nReceived: {events} events of history, {rate:.0} per second\n")
}
