//! Executors of glommio.
//!
//! glommio 0.9 can park an executor although tasks are ready (its run loop takes a preemption before the first
//! task for idleness), and then only an event from outside wakes it: a timer of its own may be among what is
//! parked. So one plain thread wakes every executor: every few milliseconds while clients send something to it, and
//! rarely otherwise, as every wake costs a core its sleep that would sleep. An executor can park before its very first task
//! likewise, when there is nothing yet to wake: such a one is given up, and another one started.

use std::cell::Cell;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

pub(super) use glommio::net;
use glommio::{
    ExecutorJoinHandle, Latency, LocalExecutorBuilder, Placement, PoolPlacement, Shares,
    TaskQueueHandle,
};

use super::periodic_wake::PeriodicWake;
use super::{Place, Rank};
use crate::io::thread;
use crate::types::Fault;

pub(super) type Handle = ExecutorJoinHandle<Result<(), Fault>>;

/// How long a task may run before others get their turn.
const PREEMPT: Duration = Duration::from_millis(1);
/// How often executors are woken from outside while bytes come in.
const WAKE_EVERY: Duration = Duration::from_millis(5);
/// How often when nothing came in since the last time, the first one and those that have connections.
const WAKE_EVERY_IDLE: Duration = Duration::from_millis(50);
/// How often those that have none, in rounds of [`WAKE_EVERY_IDLE`].
const WAKE_EVERY_UNUSED_ROUNDS: u32 = 20;

/// Memory that is pinned for direct file I/O, which no executor does: as little as glommio allows.
pub(super) const IO_MEMORY_BYTES: usize = 64 << 10;
/// glommio's own threads for what blocks. Nothing is asked of them ([`crate::io::Pool`] has its own), and fewer than one
/// is not allowed.
const BLOCKING_THREADS: usize = 1;

/// How long an executor may take to begin, and how many may fail to.
const BEGIN: Duration = Duration::from_millis(500);
const ATTEMPTS_MAX: usize = 20;

pub(super) fn start<F>(
    place: Place,
    start: impl FnOnce() -> F + Send + 'static,
) -> Result<Handle, Fault>
where
    F: Future<Output = Result<(), Fault>> + 'static,
{
    let mut start = start;
    for _ in 0..ATTEMPTS_MAX {
        // Taken by the executor when it begins, or back when it does not: then it ends if ever it begins.
        let offered = Arc::new(Mutex::new(Some(start)));
        let take =
            |from: &Mutex<Option<_>>| from.lock().unwrap_or_else(PoisonError::into_inner).take();
        let (begun, has_begun) = flume::bounded(1);
        let offer = Arc::clone(&offered);
        let main = move || async move {
            let Some(start) = take(&offer) else { return Ok(()) };
            place.bind()?;
            let _ = begun.send(());
            start().await
        };
        // From a thread that is not bound: glommio's blocking thread may go where it may.
        let spawn = move || {
            LocalExecutorBuilder::new(Placement::Unbound)
                .name(&place.thread_name())
                .preempt_timer(PREEMPT)
                .io_memory(IO_MEMORY_BYTES)
                .blocking_thread_pool_placement(PoolPlacement::Unbound(BLOCKING_THREADS))
                .spawn(main)
        };
        let spawned = thread::start("starter", spawn)?.join();
        let handle = spawned
            .map_err(|_| place.cannot(&"its thread panicked"))?
            .map_err(|error| place.cannot(&error))?;
        let waited = has_begun.recv_timeout(BEGIN);
        match take(&offered) {
            Some(back) if waited == Err(flume::RecvTimeoutError::Timeout) => {
                let executor = place.number;
                tracing::warn!(executor, "an executor does not begin; another one is started");
                start = back;
            }
            // It began, or could not and says why when it is joined.
            Some(_) | None => return Ok(handle),
        }
    }
    Err(place.cannot(&"it does not begin to work"))
}

/// Starts to wake executors, from a thread of its own, until they have ended. The first one is woken as often as if it had
/// connections: consensus is there.
#[allow(clippy::disallowed_methods, reason = "a thread of its own, which hosts nothing")]
pub(in crate::io) fn wake_periodically(wakes: Vec<(Place, Arc<PeriodicWake>)>) {
    let mut wakes = wakes;
    let waker = thread::start("waker", move || {
        let mut idle_rounds: u32 = 0;
        let mut pause = WAKE_EVERY_IDLE;
        while !wakes.is_empty() {
            wakes.retain(|(_, wake)| !wake.has_ended());
            let is_idle_round = pause == WAKE_EVERY_IDLE;
            idle_rounds = idle_rounds.wrapping_add(u32::from(is_idle_round));
            let is_unused_round = idle_rounds.is_multiple_of(WAKE_EVERY_UNUSED_ROUNDS);
            let mut any_busy = false;
            for (place, wake) in &wakes {
                let busy = wake.take_busy();
                any_busy |= busy;
                if busy || place.number == 0 || wake.has_streams() || is_unused_round {
                    wake.wake();
                }
            }
            pause = if any_busy { WAKE_EVERY } else { WAKE_EVERY_IDLE };
            std::thread::sleep(pause);
        }
    });
    assert!(waker.is_ok(), "the thread that pokes executors cannot start");
}

pub(super) fn spawn(rank: Rank, task: impl Future<Output = ()> + 'static) {
    thread_local! {
        /// The queue of connections. The other one is never behind it for longer than [`PREEMPT`]: of two queues the one that
        /// ran less is next.
        static CLIENTS: Cell<Option<TaskQueueHandle>> = const { Cell::new(None) };
    }
    let queue = match rank {
        Rank::Member => TaskQueueHandle::default(),
        Rank::Client => CLIENTS.get().unwrap_or_else(|| {
            let executor = glommio::executor();
            let made =
                executor.create_task_queue(Shares::default(), Latency::NotImportant, "clients");
            CLIENTS.set(Some(made));
            made
        }),
    };
    let spawned = glommio::spawn_local_into(task, queue);
    spawned.expect("the queue is of this executor").detach();
}
