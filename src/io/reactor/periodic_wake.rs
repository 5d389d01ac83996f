//! A task of each executor that counts how often it was woken from outside: proof that the executor runs its tasks.

use std::cell::RefCell;
use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Poll, Waker};

thread_local! {
    /// Of the executor of this thread.
    static OWN: RefCell<Option<Arc<PeriodicWake>>> = const { RefCell::new(None) };
}

/// The wake of one executor.
#[derive(Debug, Default)]
pub(in crate::io) struct PeriodicWake {
    /// Wakes its task. A message to that task would not do: the task itself may be among those that glommio has parked
    /// although they are ready, and then nobody takes the message and no further one wakes anything.
    task: OnceLock<Waker>,
    beats: AtomicU64,
    ended: AtomicBool,
    /// Bytes came in since it was last looked at.
    busy: AtomicBool,
    /// Open streams of glommio.
    streams: AtomicUsize,
}

/// Says that an executor has ended, however it did.
pub(in crate::io) struct Ended(Arc<PeriodicWake>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.ended.store(true, Ordering::Release);
        // Gone already when the thread is going down.
        let _ = OWN.try_with(|own| own.borrow_mut().take());
    }
}

impl PeriodicWake {
    /// Has the executor count one more beat when it runs its tasks.
    pub(in crate::io) fn wake(&self) {
        self.task.get().into_iter().for_each(Waker::wake_by_ref);
    }

    /// How often it ran the task.
    pub(in crate::io) fn beats(&self) -> u64 {
        self.beats.load(Ordering::Acquire)
    }

    pub(in crate::io) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    pub(super) fn take_busy(&self) -> bool {
        self.busy.load(Ordering::Relaxed) && self.busy.swap(false, Ordering::Relaxed)
    }

    pub(super) fn has_streams(&self) -> bool {
        self.streams.load(Ordering::Relaxed) > 0
    }
}

/// Bytes came in on this executor.
pub(super) fn mark_runnable() {
    with_own(|wake| {
        // Looked at first, so that the line stays in this core's cache.
        if !wake.busy.load(Ordering::Relaxed) {
            wake.busy.store(true, Ordering::Relaxed);
        }
    });
}

fn with_own(action: impl FnOnce(&PeriodicWake)) {
    // Gone already when the thread is going down.
    let _ = OWN.try_with(|own| own.borrow().as_deref().map(action));
}

/// An open stream of this executor.
pub(super) struct OpenStream;

impl OpenStream {
    pub(super) fn new() -> Self {
        with_own(|wake| {
            wake.streams.fetch_add(1, Ordering::Relaxed);
        });
        Self
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        with_own(|wake| {
            wake.streams.fetch_sub(1, Ordering::Relaxed);
        });
    }
}

/// Starts the wake of this executor, which ends with what this returns. Its task runs at once, whatever else is ready.
pub(in crate::io) fn begin_periodic_wake(wake: Arc<PeriodicWake>) -> Ended {
    OWN.with_borrow_mut(|own| *own = Some(Arc::clone(&wake)));
    let ended = Ended(Arc::clone(&wake));
    super::spawn(
        super::Rank::Member,
        poll_fn(move |context| {
            wake.task.get_or_init(|| context.waker().clone());
            wake.beats.fetch_add(1, Ordering::Release);
            Poll::<()>::Pending
        }),
    );
    ended
}
