//! Pinned executors, one per core.
//!
//! glommio 0.9 can park an executor although tasks are ready (its run loop takes a preemption before the first
//! task for idleness), and then only an event from outside wakes it: a timer of its own may be among what is
//! parked. So one plain thread wakes every executor: every few milliseconds while clients send something, and
//! rarely otherwise, as every wake wakes a core that would sleep. An executor can park before its very first task
//! likewise, when there is nothing yet to wake: such a one is given up, and another one started.

use std::future::{Future, pending, poll_fn};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Poll, Waker};
use std::time::Duration;

use glommio::{ExecutorJoinHandle, LocalExecutorBuilder, Placement, PoolPlacement};

use super::thread;
use crate::types::Fault;

/// How long a task may run before others get their turn.
const PREEMPT: Duration = Duration::from_millis(1);
/// How often executors are poked from outside while bytes come in.
const WAKE_EVERY: Duration = Duration::from_millis(5);
/// How often when nothing came in since the last time.
const WAKE_EVERY_IDLE: Duration = Duration::from_millis(50);

/// Memory that is pinned for direct file I/O, which no executor does: as little as glommio allows.
pub(super) const IO_MEMORY_BYTES: usize = 64 << 10;
/// glommio's own threads for what blocks. Nothing is asked of them ([`super::Pool`] has its own), and fewer than one is
/// not allowed.
const BLOCKING_THREADS: usize = 1;

/// How long an executor may take to begin, and how many may fail to.
const BEGIN: Duration = Duration::from_millis(500);
const ATTEMPTS_MAX: usize = 20;

/// True if bytes were received since the last periodic wake.
static RUNNABLE: AtomicBool = AtomicBool::new(false);

/// Bytes came in.
pub(super) fn mark_runnable() {
    // Looked at first, so that cores do not fight for the line.
    if !RUNNABLE.load(Ordering::Relaxed) {
        RUNNABLE.store(true, Ordering::Relaxed);
    }
}

/// Running executors.
pub struct Executors {
    handles: Vec<ExecutorJoinHandle<Result<(), Fault>>>,
    wakes: Vec<Arc<PeriodicWake>>,
}

/// How an executor is poked: by waking a task of it, again and again. A message to that task would not do: the
/// task itself may be among those that are parked although they are ready, and then nobody takes the message
/// and no further one wakes anything.
#[derive(Default)]
struct PeriodicWake {
    task: OnceLock<Waker>,
    ended: AtomicBool,
}

/// Says that an executor has ended, however it did.
struct Ended(Arc<PeriodicWake>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.ended.store(true, Ordering::Release);
    }
}

impl Executors {
    /// None yet.
    pub fn new() -> Self {
        Self { handles: Vec::new(), wakes: Vec::new() }
    }

    /// Starts an executor pinned to a core, running what `start` makes there. Waits until it has begun.
    ///
    /// # Errors
    /// The kernel refuses it.
    pub fn start<F>(
        &mut self,
        core: usize,
        start: impl FnOnce() -> F + Send + 'static,
    ) -> Result<(), Fault>
    where
        F: Future<Output = Result<(), Fault>> + 'static,
    {
        let mut start = start;
        for _ in 0..ATTEMPTS_MAX {
            // Taken by the executor when it begins, or back when it does not: then it ends if ever it begins.
            let offered = Arc::new(Mutex::new(Some(start)));
            let take = |from: &Mutex<Option<_>>| {
                from.lock().unwrap_or_else(PoisonError::into_inner).take()
            };
            let wake = Arc::new(PeriodicWake::default());
            let (begun, has_begun) = flume::bounded(1);
            let (ended, poked, offer) =
                (Ended(Arc::clone(&wake)), Arc::clone(&wake), Arc::clone(&offered));
            let main = move || async move {
                let _ended = ended;
                let Some(start) = take(&offer) else { return Ok(()) };
                register(poked);
                let _ = begun.send(());
                start().await
            };
            // From a thread that is not pinned: glommio's blocking thread may go where it may.
            let spawn = move || {
                LocalExecutorBuilder::new(Placement::Fixed(core))
                    .name(&format!("core-{core}"))
                    .preempt_timer(PREEMPT)
                    .io_memory(IO_MEMORY_BYTES)
                    .blocking_thread_pool_placement(PoolPlacement::Unbound(BLOCKING_THREADS))
                    .spawn(main)
            };
            let cannot = |error: &dyn std::fmt::Display| {
                Fault::new(format!("an executor cannot start on core {core}: {error}"))
            };
            let spawned = thread::start("starter", spawn)?.join();
            let handle = spawned
                .map_err(|_| cannot(&"its thread panicked"))?
                .map_err(|error| cannot(&error))?;
            let waited = has_begun.recv_timeout(BEGIN);
            match take(&offered) {
                Some(back) if waited == Err(flume::RecvTimeoutError::Timeout) => {
                    tracing::warn!(core, "an executor does not begin; another one is started");
                    start = back;
                }
                // It began, or could not and says why when it is joined.
                Some(_) | None => {
                    self.handles.push(handle);
                    self.wakes.push(wake);
                    return Ok(());
                }
            }
        }
        Err(Fault::new(format!("no executor on core {core} begins to work")))
    }

    /// Starts to wake those that run, from a thread of its own, until they have ended.
    #[allow(clippy::disallowed_methods, reason = "a thread of its own, which hosts nothing")]
    pub fn wake_periodically(&mut self) {
        let mut wakes = std::mem::take(&mut self.wakes);
        let waker = thread::start("waker", move || {
            while !wakes.is_empty() {
                wakes.retain(|wake| !wake.ended.load(Ordering::Acquire));
                wakes.iter().filter_map(|wake| wake.task.get()).for_each(Waker::wake_by_ref);
                let busy = RUNNABLE.swap(false, Ordering::Relaxed);
                std::thread::sleep(if busy { WAKE_EVERY } else { WAKE_EVERY_IDLE });
            }
        });
        assert!(waker.is_ok(), "the thread that wakes executors cannot start");
    }

    /// Waits until all have ended.
    ///
    /// # Errors
    /// The error that stopped the first of them.
    pub fn join(self) -> Result<(), Fault> {
        for handle in self.handles {
            handle.join().map_err(|error| Fault::new(format!("an executor died: {error}")))??;
        }
        Ok(())
    }
}

/// Spawns the task that is poked. It runs at once, whatever else is ready.
fn register(wake: Arc<PeriodicWake>) {
    glommio::spawn_local(async move {
        poll_fn(|context| {
            wake.task.get_or_init(|| context.waker().clone());
            Poll::Ready(())
        })
        .await;
        pending::<()>().await;
    })
    .detach();
}

impl Default for Executors {
    fn default() -> Self {
        Self::new()
    }
}

/// Runs a task on this executor, in the background.
pub fn spawn(task: impl Future<Output = ()> + 'static) {
    glommio::spawn_local(task).detach();
}

#[cfg(test)]
mod tests {
    use super::*;

    /// On a machine where every thread is interrupted all the time, as a loaded one does.
    #[test]
    #[allow(clippy::disallowed_methods, reason = "the load is made of threads")]
    fn executors_begin_however_loaded_the_machine_is() {
        let over = Arc::new(AtomicBool::new(false));
        let busy: Vec<_> = (0..8)
            .map(|_| {
                let over = Arc::clone(&over);
                std::thread::spawn(move || {
                    while !over.load(Ordering::Relaxed) {
                        std::hint::spin_loop();
                    }
                })
            })
            .collect();
        for round in 0..100 {
            let (done, result) = flume::bounded(1);
            let mut executors = Executors::new();
            executors
                .start(round % 2, move || async move {
                    futures_lite::future::yield_now().await;
                    done.send(()).map_err(|_| Fault::new("nobody listens"))
                })
                .unwrap();
            executors.wake_periodically();
            assert_eq!(result.recv_timeout(Duration::from_secs(30)), Ok(()), "round {round}");
            executors.join().unwrap();
        }
        over.store(true, Ordering::Relaxed);
        busy.into_iter().for_each(|thread| thread.join().unwrap());
    }
}
