//! The core of every load: many operations in flight over few connections, each latency recorded.
//!
//! ```text
//!   schedule ─(which operation, since when)─► free client ─► workload writes the request
//!       ▲                                                          │
//!       └── recorder ◄─ latency = end − intended send time ◄─ response, workload reads it
//! ```
//!
//! Without a rate the intended send time is the moment a client became free. With a rate it is the
//! moment given by the schedule, however late a client became free: a server that stalls cannot hide it
//! by stopping the generator (coordinated omission).
//!
//! One task per connection, no task per client: an operation costs a few table look-ups, and all
//! requests that became possible by one read leave in one write.

mod drive;
mod pulse;
mod schedule;

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Barrier, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use tokio::runtime;
use tokio::task::LocalSet;

use crate::clock;
use crate::report::Recorder;
use crate::wire::Dialer;

use schedule::Schedule;

pub use pulse::{Health, Pulse, Verdict};
pub use schedule::Rate;

/// The requests of an operation and the checks of its responses. One per connection; `slot` is the client,
/// below the number of clients, and has one operation at a time.
pub trait Workload {
    /// Writes the first request of operation `index` as protobuf into `body` and names its method.
    fn begin(&mut self, slot: usize, index: u64, body: &mut Vec<u8>) -> &'static str;

    /// Takes one message of the response.
    ///
    /// # Errors
    /// The message is wrong; the operation then counts as failed.
    fn message(&mut self, slot: usize, body: &[u8]) -> Result<(), String>;

    /// After a response with status OK: writes another request that belongs to the same operation,
    /// if there is one. Most have none.
    ///
    /// # Errors
    /// The whole response is wrong; the operation then counts as failed.
    fn next(&mut self, _slot: usize, _body: &mut Vec<u8>) -> Result<Option<&'static str>, String> {
        Ok(None)
    }

    /// True if the messages received suffice and the rest of the response is not wanted: asked after each message,
    /// for streams that the server does not end. The response then counts as OK.
    fn is_enough(&self, _slot: usize) -> bool {
        false
    }

    /// Index of the recorder for the operation of `slot`, below [`Plan::kinds`].
    fn kind(&self, _slot: usize) -> usize {
        0
    }
}

impl<W: Workload + ?Sized> Workload for Box<W> {
    fn begin(&mut self, slot: usize, index: u64, body: &mut Vec<u8>) -> &'static str {
        (**self).begin(slot, index, body)
    }

    fn message(&mut self, slot: usize, body: &[u8]) -> Result<(), String> {
        (**self).message(slot, body)
    }

    fn next(&mut self, slot: usize, body: &mut Vec<u8>) -> Result<Option<&'static str>, String> {
        (**self).next(slot, body)
    }

    fn is_enough(&self, slot: usize) -> bool {
        (**self).is_enough(slot)
    }

    fn kind(&self, slot: usize) -> usize {
        (**self).kind(slot)
    }
}

/// The load of a run, and its connections.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Operations in all, at most.
    pub total: u64,
    /// The intended send times, and their end.
    pub pace: Rate,
    /// Kinds of operations, each with a recorder of its own.
    pub kinds: usize,
    /// Operations in flight at most.
    pub clients: usize,
    /// Connections; never more than clients.
    pub conns: usize,
    /// Threads of the generator; never more than connections.
    pub threads: usize,
    /// True to keep a histogram of every second.
    pub series: bool,
    /// Ends a closed loop when it is set.
    pub stop: Option<Arc<AtomicBool>>,
}

/// The result of a run: everything recorded, its duration, and the workloads with their counters.
#[derive(Debug)]
pub struct Outcome<W> {
    /// All threads together, by kind.
    pub recorders: Vec<Recorder>,
    /// State of the generator's threads and event loops.
    pub health: Health,
    /// From the first operation to the last response.
    pub total: Duration,
    /// One per connection.
    pub workloads: Vec<W>,
}

/// State shared by all connections.
struct Shared {
    plan: Plan,
    dialer: Dialer,
    schedule: Schedule,
    /// Set when every connection is established.
    start: OnceLock<Instant>,
    ready: Barrier,
    done: Arc<AtomicU64>,
}

/// Number of connections to make when `asked` are asked for: never more than clients, but every endpoint gets
/// load, as with etcd's balancer. Client `c` is on connection `c` modulo this.
pub fn conns(asked: usize, clients: usize, endpoints: usize) -> usize {
    asked.max(endpoints).clamp(1, clients.max(1))
}

/// Runs the plan; `make` gives the workload of a connection by its number, `done` counts finished
/// operations while it runs.
///
/// # Errors
/// A connection cannot be made at the start. Later failures are in the recorder.
pub fn run<W: Workload + Send + 'static>(
    mut plan: Plan,
    dialer: Dialer,
    done: Arc<AtomicU64>,
    make: impl Fn(usize) -> W + Sync,
) -> io::Result<Outcome<W>> {
    plan.clients = plan.clients.max(1);
    plan.conns = conns(plan.conns, plan.clients, dialer.endpoints.len());
    plan.threads = plan.threads.clamp(1, plan.conns);
    let shared = Arc::new(Shared {
        schedule: Schedule::new(plan.total, plan.pace, plan.conns as u64)
            .stopped_by(plan.stop.clone()),
        ready: Barrier::new(plan.threads),
        start: OnceLock::new(),
        dialer,
        done,
        plan,
    });
    let threads = 0..shared.plan.threads;
    let results = thread::scope(|scope| {
        let run = |thread| {
            scope.spawn({
                let (shared, make) = (&shared, &make);
                move || run_thread(shared, thread, make)
            })
        };
        let threads: Vec<_> = threads.map(run).collect();
        let join = |thread: thread::ScopedJoinHandle<'_, _>| {
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        threads.into_iter().map(join).collect::<Vec<_>>()
    });
    let end = clock::now();
    let mut outcome = Outcome {
        recorders: recorders(&shared.plan),
        health: Health::default(),
        total: end.saturating_duration_since(shared.start.get().copied().unwrap_or(end)),
        workloads: Vec::new(),
    };
    for result in results {
        let part: Part<W> = result?;
        for (all, one) in outcome.recorders.iter_mut().zip(&part.recorders) {
            all.merge(one);
        }
        outcome.health.merge(&part.health);
        outcome.workloads.extend(part.workloads);
    }
    let sent = outcome.recorders.iter().map(|it| it.count() + it.error_count()).sum();
    let unsent = shared.schedule.total().map_or(0, |total| total.saturating_sub(sent));
    if let Some(first) = outcome.recorders.first_mut() {
        first.error("not sent: no connection", unsent);
    }
    Ok(outcome)
}

/// Result of one thread.
struct Part<W> {
    recorders: Vec<Recorder>,
    health: Health,
    workloads: Vec<W>,
}

fn recorders(plan: &Plan) -> Vec<Recorder> {
    vec![Recorder::new(plan.series); plan.kinds]
}

/// One thread of the generator: the connections `thread`, `thread + threads`, and so on.
fn run_thread<W: Workload + 'static>(
    shared: &Arc<Shared>,
    thread: usize,
    make: &impl Fn(usize) -> W,
) -> io::Result<Part<W>> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    let numbers = (thread..shared.plan.conns).step_by(shared.plan.threads);
    let numbers: Vec<usize> = numbers.collect();
    let channels = runtime.block_on(shared.dialer.dial_all(numbers.iter().copied()));
    // The others wait for this thread even if it failed.
    shared.ready.wait();
    let channels = channels?;
    shared.start.get_or_init(clock::now);
    let recorders = Rc::new(RefCell::new(recorders(&shared.plan)));
    let local = LocalSet::new();
    let drives: Vec<_> = numbers
        .into_iter()
        .zip(channels)
        .map(|(number, channel)| {
            let drive = drive::Drive::new(Arc::clone(shared), Rc::clone(&recorders), number);
            local.spawn_local(drive.run(channel, make(number)))
        })
        .collect();
    let (workloads, health) = local.block_on(&runtime, async {
        let pulse = Pulse::start();
        let mut workloads = Vec::new();
        for drive in drives {
            workloads.push(drive.await.map_err(io::Error::other)??);
        }
        Ok::<_, io::Error>((workloads, pulse.stop().await?))
    })?;
    drop(local);
    let recorders = Rc::try_unwrap(recorders)
        .map_or_else(|shared| shared.borrow().clone(), RefCell::into_inner);
    Ok(Part { recorders, health, workloads })
}
