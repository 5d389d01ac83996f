//! The core of every load: many operations in flight over few connections, each latency recorded.
//!
//! ```text
//!   schedule ─(which operation, since when)─► free client ─► workload writes the request
//!       ▲                                                          │
//!       └── recorder ◄─ latency = end − intended send time ◄─ answer, workload reads it
//! ```
//!
//! Without a rate the intended send time is the moment a client became free. With a rate it is the
//! moment the schedule says, however late a client became free: a server that stalls cannot hide it
//! by stopping the generator (coordinated omission).
//!
//! One task per connection, no task per client: an operation costs a few table look-ups, and all
//! requests that became possible by one read leave in one write.

mod drive;
mod schedule;

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Barrier, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use tokio::runtime;
use tokio::task::LocalSet;

use crate::clock;
use crate::report::Recorder;
use crate::wire::{Channel, Dialer};

use schedule::Schedule;

/// What an operation asks and what it makes of the answer. One per connection; `slot` is the client,
/// below the number of clients, and has one operation at a time.
pub trait Workload {
    /// Writes the first request of operation `index` as protobuf into `body` and names its method.
    fn begin(&mut self, slot: usize, index: u64, body: &mut Vec<u8>) -> &'static str;

    /// Takes one message of the answer.
    ///
    /// # Errors
    /// What is wrong with it; the operation then counts as failed.
    fn message(&mut self, slot: usize, body: &[u8]) -> Result<(), String>;

    /// After an answer with status OK: writes another request that belongs to the same operation,
    /// if there is one. Most have none.
    ///
    /// # Errors
    /// What is wrong with the whole answer; the operation then counts as failed.
    fn next(&mut self, _slot: usize, _body: &mut Vec<u8>) -> Result<Option<&'static str>, String> {
        Ok(None)
    }
}

/// How much load, and over what.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Operations in all.
    pub total: u64,
    /// Operations in flight at most.
    pub clients: usize,
    /// Connections; never more than clients.
    pub conns: usize,
    /// Operations per second, 0 for as many as the clients can.
    pub rate: u64,
    /// Threads of the generator; never more than connections.
    pub threads: usize,
    /// Whether to keep a line per second.
    pub sample: bool,
}

/// What a run gave: everything recorded, how long it took, and the workloads with what they counted.
#[derive(Debug)]
pub struct Outcome<W> {
    /// All threads together.
    pub recorder: Recorder,
    /// From the first operation to the last answer.
    pub total: Duration,
    /// One per connection.
    pub workloads: Vec<W>,
}

/// What all connections share.
struct Shared {
    plan: Plan,
    dialer: Dialer,
    schedule: Schedule,
    /// Set when every connection stands.
    start: OnceLock<Instant>,
    ready: Barrier,
    done: Arc<AtomicU64>,
}

/// Runs the plan; `make` gives the workload of a connection by its number, `done` counts finished
/// operations while it runs.
///
/// # Errors
/// When a connection cannot be made at the start. What fails later is in the recorder.
pub fn run<W: Workload + Send + 'static>(
    mut plan: Plan,
    dialer: Dialer,
    done: Arc<AtomicU64>,
    make: impl Fn(usize) -> W + Sync,
) -> io::Result<Outcome<W>> {
    plan.clients = plan.clients.max(1);
    // Every endpoint gets load even if one connection was asked for, as with etcd's balancer.
    plan.conns = plan.conns.max(dialer.endpoints.len()).clamp(1, plan.clients);
    plan.threads = plan.threads.clamp(1, plan.conns);
    let shared = Arc::new(Shared {
        schedule: Schedule::new(plan.total, plan.rate, plan.conns as u64),
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
        threads.into_iter().map(join).collect::<Vec<io::Result<(Recorder, Vec<W>)>>>()
    });
    let end = clock::now();
    let mut outcome = Outcome {
        recorder: Recorder::new(shared.plan.sample),
        total: end.saturating_duration_since(shared.start.get().copied().unwrap_or(end)),
        workloads: Vec::new(),
    };
    for result in results {
        let (recorder, workloads) = result?;
        outcome.recorder.merge(&recorder);
        outcome.workloads.extend(workloads);
    }
    let sent = outcome.recorder.count() + outcome.recorder.error_count();
    let unsent = shared.plan.total.saturating_sub(sent);
    outcome.recorder.error("not sent: no connection", unsent);
    Ok(outcome)
}

/// One thread of the generator: the connections `thread`, `thread + threads`, and so on.
fn run_thread<W: Workload + 'static>(
    shared: &Arc<Shared>,
    thread: usize,
    make: &impl Fn(usize) -> W,
) -> io::Result<(Recorder, Vec<W>)> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    let numbers = (thread..shared.plan.conns).step_by(shared.plan.threads);
    let numbers: Vec<usize> = numbers.collect();
    let channels: io::Result<Vec<Channel>> = runtime.block_on(async {
        let mut channels = Vec::new();
        for &number in &numbers {
            channels.push(shared.dialer.dial(number).await?);
        }
        Ok(channels)
    });
    // The others wait for this thread even if it failed.
    shared.ready.wait();
    let channels = channels?;
    shared.start.get_or_init(clock::now);
    let recorder = Rc::new(RefCell::new(Recorder::new(shared.plan.sample)));
    let local = LocalSet::new();
    let drives: Vec<_> = numbers
        .into_iter()
        .zip(channels)
        .map(|(number, channel)| {
            let drive = drive::Drive::new(Arc::clone(shared), Rc::clone(&recorder), number);
            local.spawn_local(drive.run(channel, make(number)))
        })
        .collect();
    let workloads = local.block_on(&runtime, async {
        let mut workloads = Vec::new();
        for drive in drives {
            workloads.push(drive.await.map_err(io::Error::other)??);
        }
        Ok::<_, io::Error>(workloads)
    })?;
    drop(local);
    let recorder =
        Rc::try_unwrap(recorder).map_or_else(|shared| shared.borrow().clone(), RefCell::into_inner);
    Ok((recorder, workloads))
}
