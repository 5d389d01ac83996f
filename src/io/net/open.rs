//! Which connections are open: whether there is a descriptor for one more, and how to reach those of this executor
//! when it is time to close them.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use slab::Slab;

use super::clock;
use crate::io::descriptors::{self, Entered, Lane};
use crate::metrics;

/// How often a closing executor looks whether all are gone.
const CLOSE_LOOK: Duration = Duration::from_millis(10);

/// How often the log says at most that connections wait.
const LOG_AGAIN_MS: u64 = 10_000;

/// Open connections of one executor. Relaxed: nothing else is ordered by it.
#[derive(Clone, Default)]
pub(super) struct ConnectionCount(Arc<AtomicUsize>);

impl ConnectionCount {
    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// One open connection, counted, also with its executor once that is known.
pub(super) struct ConnectionPermit {
    entered: Entered,
    share: Option<ConnectionCount>,
}

impl ConnectionPermit {
    /// Waits until there is a descriptor for one more connection to a port of this lane. A port for clients also
    /// takes in a few when there is none for them, as they may ask for health.
    pub(super) async fn enter(lane: Lane, pause: Duration) -> Self {
        let mut waits = false;
        loop {
            let spare = if lane == Lane::Clients { Lane::Health } else { lane };
            if let Some(entered) = Entered::attempt(lane).or_else(|| Entered::attempt(spare)) {
                return Self { entered, share: None };
            }
            if !std::mem::replace(&mut waits, true) {
                metrics::ACCEPTS_WAITED.add(1);
                log_full();
            }
            clock::sleep(pause).await;
        }
    }

    /// Counted with an executor from here on.
    pub(super) fn with(mut self, share: &ConnectionCount) -> Self {
        share.0.fetch_add(1, Ordering::Relaxed);
        self.share = Some(share.clone());
        self
    }

    /// Whether this connection may only ask for health, as there is still no descriptor left for a client's.
    pub(super) fn is_spare(&mut self) -> bool {
        if self.entered.lane() == Lane::Health
            && let Some(entered) = Entered::attempt(Lane::Clients)
        {
            self.entered = entered;
        }
        self.entered.lane() == Lane::Health
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        if let Some(share) = &self.share {
            share.0.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// A client's connection is closed for want of a descriptor.
pub(super) fn turned_away() {
    metrics::CONNECTIONS_TURNED_AWAY.add(1);
    log_full();
}

/// Says that there are too few descriptors, now and then.
fn log_full() {
    if FULL_LOGGED.allows() {
        tracing::warn!(
            open = Entered::open(),
            limit = descriptors::limit(),
            "connections wait for file descriptors, all that are not kept for files, peers and health checks \
             are used; please set the limit higher"
        );
    }
}

/// Accepting failed.
pub(super) fn log_accept_failed(error: &str) {
    metrics::ACCEPTS_FAILED.add(1);
    if FAILED_LOGGED.allows() {
        tracing::warn!(%error, "failed to accept a connection");
    }
}

/// When something was last said, so that it is not said more often than once in [`LOG_AGAIN_MS`].
struct LogInterval(AtomicU64);

static FULL_LOGGED: LogInterval = LogInterval(AtomicU64::new(0));
static FAILED_LOGGED: LogInterval = LogInterval(AtomicU64::new(0));

impl LogInterval {
    fn allows(&self) -> bool {
        let (now_ms, last_ms) = (clock::now_ms().max(1), self.0.load(Ordering::Relaxed));
        let is_due = last_ms == 0 || now_ms.saturating_sub(last_ms) >= LOG_AGAIN_MS;
        let swap = |to| self.0.compare_exchange(last_ms, to, Ordering::Relaxed, Ordering::Relaxed);
        is_due && swap(now_ms).is_ok()
    }
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
pub(super) struct OpenSlot(usize);

impl OpenSlot {
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

impl Drop for OpenSlot {
    fn drop(&mut self) {
        // Nothing is left to tell when the thread is going down.
        let _ = OPEN.try_with(|open| open.borrow_mut().wakers.try_remove(self.0));
    }
}

/// Tells when this executor closes its connections, for what goes on until somebody ends it. Belongs to the executor
/// that made it.
pub struct Closing(OpenSlot);

impl Closing {
    /// Of this executor.
    pub fn watch() -> Self {
        Self(OpenSlot::take())
    }

    /// Ready from when it is time to close.
    pub fn poll(&self, context: &Context<'_>) -> Poll<()> {
        if self.0.is_closing(context) { Poll::Ready(()) } else { Poll::Pending }
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
