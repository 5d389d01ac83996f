//! Which connections are open: how many in the process, and how to reach those of this executor when it is
//! time to close them.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use rustix::process::{Resource, getrlimit};
use slab::Slab;

use super::clock;

/// Descriptors kept back for files, and for what the process needs to end well.
const FILES_KEPT: u64 = 150;
/// How often a closing executor looks whether all are gone.
const CLOSE_LOOK: Duration = Duration::from_millis(10);

/// Open connections of all executors. Relaxed: nothing else is ordered by it.
static COUNT: AtomicUsize = AtomicUsize::new(0);

/// Open connections of one executor. Relaxed, like [`COUNT`].
#[derive(Clone, Default)]
pub(super) struct Share(Arc<AtomicUsize>);

impl Share {
    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// One open connection, counted, also with its executor once that is known.
pub(super) struct Counted(Option<Share>);

impl Counted {
    /// Waits until there are descriptors for one more.
    pub(super) async fn enter(pause: Duration) -> Self {
        while COUNT.load(Ordering::Relaxed) as u64 >= max() {
            clock::sleep(pause).await;
        }
        COUNT.fetch_add(1, Ordering::Relaxed);
        Self(None)
    }

    /// Counted with an executor from here on.
    pub(super) fn with(mut self, share: &Share) -> Self {
        share.0.fetch_add(1, Ordering::Relaxed);
        self.0 = Some(share.clone());
        self
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        COUNT.fetch_sub(1, Ordering::Relaxed);
        if let Some(share) = &self.0 {
            share.0.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

fn max() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX).saturating_sub(FILES_KEPT).max(1)
}

#[derive(Default)]
struct Open {
    closing: bool,
    wakers: Slab<Option<Waker>>,
}

thread_local! {
    static OPEN: RefCell<Open> = RefCell::default();
}

/// The place of one connection, or listener, among those of this executor.
pub(super) struct Seat(usize);

impl Seat {
    pub(super) fn take() -> Self {
        Self(OPEN.with_borrow_mut(|open| open.wakers.insert(None)))
    }

    /// Whether it is time to close; if not, `context` is woken when it is.
    pub(super) fn is_closing(&self, context: &Context<'_>) -> bool {
        OPEN.with_borrow_mut(|open| {
            let waker = &mut open.wakers[self.0];
            if !waker.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
                *waker = Some(context.waker().clone());
            }
            open.closing
        })
    }

    /// What `future` gives, or `None` if it is time to close before.
    pub(super) async fn or_closing<T>(&self, future: impl Future<Output = T>) -> Option<T> {
        let mut future = std::pin::pin!(future);
        poll_fn(|context| match self.is_closing(context) {
            true => Poll::Ready(None),
            false => future.as_mut().poll(context).map(Some),
        })
        .await
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        // Nothing is left to tell when the thread is going down.
        let _ = OPEN.try_with(|open| open.borrow_mut().wakers.try_remove(self.0));
    }
}

/// Closes the connections and listeners of this executor: new requests are refused, what is under way is
/// finished if it is within `grace`. Connections that come later are closed at once.
pub async fn close_connections(grace: Duration) {
    let wakers: Vec<Waker> = OPEN.with_borrow_mut(|open| {
        open.closing = true;
        open.wakers.iter().filter_map(|(_, waker)| waker.clone()).collect()
    });
    wakers.into_iter().for_each(Waker::wake);
    let all_gone = async {
        while OPEN.with_borrow(|open| !open.wakers.is_empty()) {
            clock::sleep(CLOSE_LOOK).await;
        }
    };
    clock::deadline(grace, all_gone).await;
}
