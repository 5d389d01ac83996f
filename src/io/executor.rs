//! Pinned executors, one per core.
//!
//! glommio 0.9 can park an executor although tasks are ready (its run loop takes a preemption before the first
//! task for idleness), and then only an event from outside wakes it: a timer of its own may be among what is
//! parked. So one plain thread pokes every executor: every few milliseconds while clients send something, and
//! rarely otherwise, as every poke wakes a core that would sleep.

use std::future::{Future, pending, poll_fn};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Poll, Waker};
use std::time::Duration;

use glommio::{ExecutorJoinHandle, LocalExecutorBuilder, Placement};

use crate::types::Fault;

/// How long a task may run before others get their turn.
const PREEMPT: Duration = Duration::from_millis(1);
/// How often executors are poked from outside while bytes come in.
const POKE: Duration = Duration::from_millis(5);
/// How often when nothing came in since the last time.
const POKE_IDLE: Duration = Duration::from_millis(50);

/// Whether bytes came in since executors were last poked.
static BUSY: AtomicBool = AtomicBool::new(false);

/// Bytes came in.
pub(super) fn busy() {
    // Looked at first, so that cores do not fight for the line.
    if !BUSY.load(Ordering::Relaxed) {
        BUSY.store(true, Ordering::Relaxed);
    }
}

/// Running executors.
pub struct Executors {
    handles: Vec<ExecutorJoinHandle<Result<(), Fault>>>,
    pokes: Vec<Arc<Poke>>,
}

/// How an executor is poked: by waking a task of it, again and again. A message to that task would not do: the
/// task itself may be among those that are parked although they are ready, and then nobody takes the message
/// and no further one wakes anything.
#[derive(Default)]
struct Poke {
    task: OnceLock<Waker>,
    ended: AtomicBool,
}

/// Says that an executor has ended, however it did.
struct Ended(Arc<Poke>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.ended.store(true, Ordering::Release);
    }
}

impl Executors {
    /// None yet.
    pub fn new() -> Self {
        Self { handles: Vec::new(), pokes: Vec::new() }
    }

    /// Starts an executor pinned to a core, running what `start` makes there.
    ///
    /// # Errors
    /// The kernel does not let it.
    pub fn start<F>(
        &mut self,
        core: usize,
        start: impl FnOnce() -> F + Send + 'static,
    ) -> Result<(), Fault>
    where
        F: Future<Output = Result<(), Fault>> + 'static,
    {
        let poke = Arc::new(Poke::default());
        let ended = Ended(Arc::clone(&poke));
        let poked = Arc::clone(&poke);
        let handle = LocalExecutorBuilder::new(Placement::Fixed(core))
            .name(&format!("core-{core}"))
            .preempt_timer(PREEMPT)
            .spawn(move || async move {
                let _ended = ended;
                glommio::spawn_local(async move {
                    poll_fn(|context| {
                        poked.task.get_or_init(|| context.waker().clone());
                        Poll::Ready(())
                    })
                    .await;
                    pending::<()>().await;
                })
                .detach();
                start().await
            })
            .map_err(|error| {
                Fault::new(format!("an executor cannot start on core {core}: {error}"))
            })?;
        self.handles.push(handle);
        self.pokes.push(poke);
        Ok(())
    }

    /// Starts to poke those that run, from a thread of its own, until they have ended.
    #[allow(clippy::disallowed_methods, reason = "a thread of its own, which hosts nothing")]
    pub fn poke(&mut self) {
        let mut pokes = std::mem::take(&mut self.pokes);
        let poker = std::thread::Builder::new().name("poker".into()).spawn(move || {
            while !pokes.is_empty() {
                pokes.retain(|poke| !poke.ended.load(Ordering::Acquire));
                pokes.iter().filter_map(|poke| poke.task.get()).for_each(Waker::wake_by_ref);
                let busy = BUSY.swap(false, Ordering::Relaxed);
                std::thread::sleep(if busy { POKE } else { POKE_IDLE });
            }
        });
        assert!(poker.is_ok(), "the thread that pokes executors cannot start");
    }

    /// Waits until all have ended.
    ///
    /// # Errors
    /// What stopped one of them.
    pub fn join(self) -> Result<(), Fault> {
        for handle in self.handles {
            handle.join().map_err(|error| Fault::new(format!("an executor died: {error}")))??;
        }
        Ok(())
    }
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

/// Runs what blocks on another thread.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    glommio::executor().spawn_blocking(work).await
}
