//! Many watchers of a few keys, and puts of those keys: how fast watchers are created, and how fast
//! their events arrive.

use std::collections::HashMap;

use basalt_proto::etcdserverpb::{PutRequest, WatchCreateRequest};
use bytes::Bytes;
use clap::Args;
use prost::Message;

use super::{Kind, Load};
use crate::distribution::Distribution;
use crate::error::Fatal;
use crate::generator::Workload;
use crate::keys::{KeySpec, Keys};
use crate::options::Globals;
use crate::paths;
use crate::report::{Finished, Report};
use crate::session;
use crate::spectators::{Spectators, stamp};

/// Flags of `watch`.
#[derive(Args, Clone, Debug)]
pub struct Flags {
    /// Total watch streams
    #[arg(long, default_value_t = 10)]
    pub streams: usize,
    /// Total watchers per stream
    #[arg(long, default_value_t = 100)]
    pub watch_per_stream: usize,
    /// Total number of keys to be watched
    #[arg(long, default_value_t = 1)]
    pub watched_key_total: usize,
    /// Number of keys to put per second, each at its scheduled time (0 is no limit)
    #[arg(long, default_value_t = 0)]
    pub put_rate: u64,
    /// Number of put requests
    #[arg(long, default_value_t = 1000)]
    pub put_total: u64,
    /// Key size of watch request
    #[arg(long, default_value_t = 32)]
    pub key_size: usize,
    /// Maximum possible keys
    #[arg(long, default_value_t = 1)]
    pub key_space_size: u64,
    /// Use sequential keys
    #[arg(long)]
    pub sequential_keys: bool,
}

/// Puts the watched keys one after the other.
struct PutWatched {
    keys: Vec<Bytes>,
}

impl Workload for PutWatched {
    fn begin(&mut self, _: usize, index: u64, body: &mut Vec<u8>) -> &'static str {
        let key = self.keys[(index % self.keys.len() as u64) as usize].clone();
        let value = Bytes::copy_from_slice(&stamp());
        let request = PutRequest { key, value, ..PutRequest::default() };
        request.encode(body).expect("a Vec takes everything");
        paths::PUT
    }

    fn message(&mut self, _: usize, _: &[u8]) -> Result<(), String> {
        Ok(())
    }
}

/// Watches, puts, checks that every watcher saw every put of its key, and reports.
///
/// # Errors
/// The flags are wrong, a watcher fails or the server cannot be reached.
pub fn run(globals: &Globals, flags: &Flags) -> Result<Finished, Fatal> {
    let keys = watched(globals, flags)?;
    let dialer = session::dialer(globals)?;
    let (conns, wanted) = (globals.conns.min(globals.clients), 1 + flags.streams / 100);
    if conns < wanted {
        eprintln!(
            "warning: grpc limits 100 streams per client connection, have {conns} but need {wanted}"
        );
    }
    let watcher = |number: usize| WatchCreateRequest {
        key: keys[number % keys.len()].clone(),
        ..WatchCreateRequest::default()
    };
    let (streams, each) = (flags.streams, flags.watch_per_stream);
    let plan =
        (0..streams).map(|stream| (0..each).map(|at| watcher(stream + at * streams)).collect());
    let spectators = Spectators::start(&dialer, globals.conns, plan.collect(), globals.series());
    spectators.wait_created();
    let kinds = vec![Kind::new("watch-put-request", 1)];
    let load = Load { globals, total: flags.put_total, rate: flags.put_rate, kinds };
    let (mut finished, _) = load.run(&dialer, |_| PutWatched { keys: keys.clone() })?;
    let puts = finished.reports[0].recorder.count() + finished.reports[0].recorder.error_count();
    let seen = spectators.finish(expected(&keys, streams * each, puts))?;
    let report = |name: &str, heading: &str, total, recorder| Report {
        name: name.to_owned(),
        heading: heading.to_owned(),
        total,
        recorder,
    };
    let creation =
        report("watch-make", "Watch creation summary:\n", seen.creation_total, seen.creation);
    let events =
        report("watch-put", "Watch events received summary:\n", seen.events_total, seen.events);
    finished.reports[0].heading = "Put summary:\n".to_owned();
    finished.reports.splice(0..0, [creation, events]);
    finished.health.merge(&seen.health);
    finished.details.insert("streams".into(), streams.into());
    finished.details.insert("watchers".into(), (streams * each).into());
    finished.details.insert("watched_key_total".into(), flags.watched_key_total.into());
    finished.details.insert("events".into(), seen.event_count.into());
    Ok(finished)
}

/// The keys that are watched, one for each watched key, and the same one more than once if the key
/// space is small.
fn watched(globals: &Globals, flags: &Flags) -> Result<Vec<Bytes>, Fatal> {
    let distribution =
        if flags.sequential_keys { Distribution::Sequential } else { Distribution::Uniform };
    let space = flags.key_space_size;
    let spec = KeySpec { prefix: Vec::new(), size: flags.key_size, space, distribution };
    spec.check()?;
    if flags.watched_key_total == 0 {
        return Err("expected positive --watched-key-total, got (0)".into());
    }
    let mut keys = Keys::new(spec, globals.seed);
    Ok((0..flags.watched_key_total as u64).map(|index| keys.key(index)).collect())
}

/// Number of events of `puts` puts that go through the keys in turn, where the watchers do the same.
fn expected(keys: &[Bytes], watchers: usize, puts: u64) -> u64 {
    let mut watching: HashMap<&Bytes, u64> = HashMap::new();
    for number in 0..watchers {
        *watching.entry(&keys[number % keys.len()]).or_default() += 1;
    }
    let of = |index: u64| watching.get(&keys[(index % keys.len() as u64) as usize]).copied();
    let round: u64 = (0..keys.len() as u64).map(|index| of(index).unwrap_or(0)).sum();
    let rest: u64 = (0..puts % keys.len() as u64).map(|index| of(index).unwrap_or(0)).sum();
    puts / keys.len() as u64 * round + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_watcher_of_a_key_gets_every_put_of_it() {
        let keys: Vec<Bytes> = ["a", "b", "a"].into_iter().map(Bytes::from).collect();
        // Watchers go a, b, a, a, b; puts go a, b, a, a: three of "a" by three, one of "b" by two.
        assert_eq!(expected(&keys, 5, 4), 3 * 3 + 2);
        assert_eq!(expected(&keys, 0, 4), 0);
    }
}
