//! Open connections: the permits by which descriptors are shared, and the registration by which an executor closes
//! its connections.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures_lite::future::or;
use futures_util::FutureExt as _;
use slab::Slab;

use super::clock;
use super::progress::sweep_time;
use crate::io::descriptors::{self, Entered, Lane};
use crate::io::spawn;
use crate::metrics;

/// Interval at which a closing executor checks for remaining connections.
const CLOSE_LOOK: Duration = Duration::from_millis(10);

/// Least time between two log lines about waiting connections.
const LOG_AGAIN_MS: u64 = 10_000;

/// Number of open connections of one executor. Relaxed: nothing else is ordered by it.
#[derive(Clone, Default)]
pub(super) struct ConnectionCount(Arc<AtomicUsize>);

impl ConnectionCount {
    /// The number of open connections.
    pub(super) fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// The permit of one open connection, counted for its lane, and for its executor once that is known.
pub(super) struct ConnectionPermit {
    entered: Entered,
    share: Option<ConnectionCount>,
}

impl ConnectionPermit {
    /// Waits until there is a descriptor for one more connection to a port of this lane. A client port also accepts a
    /// few when there is none for clients, as they may ask for health.
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

    /// Counts the connection for an executor from now on.
    pub(super) fn with(mut self, share: &ConnectionCount) -> Self {
        share.0.fetch_add(1, Ordering::Relaxed);
        self.share = Some(share.clone());
        self
    }

    /// True if this connection may only ask for health, as there is still no descriptor left for a client's.
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

/// Counts a client's connection that is closed for lack of a descriptor.
pub(super) fn turned_away() {
    metrics::CONNECTIONS_TURNED_AWAY.add(1);
    log_full();
}

/// Logs a lack of descriptors, rate limited.
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

/// Logs a failed accept.
pub(super) fn log_accept_failed(error: &str) {
    metrics::ACCEPTS_FAILED.add(1);
    if FAILED_LOGGED.allows() {
        tracing::warn!(%error, "failed to accept a connection");
    }
}

/// Time of the last log line, so that there is at most one in [`LOG_AGAIN_MS`].
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
    /// Connections that wait for the next sweep.
    awaiting: Vec<usize>,
    /// Number of sweeps; no connection waits for one that was.
    sweeps: u64,
    sweeping: bool,
}

thread_local! {
    static OPEN: RefCell<Open> = RefCell::default();
}

/// Wakes the connections that wait for a sweep, as long as there are any.
async fn sweep() {
    loop {
        clock::sleep(sweep_time()).await;
        let awaiting = OPEN.with_borrow_mut(|open| {
            open.sweeps += 1;
            open.sweeping = !open.awaiting.is_empty();
            std::mem::take(&mut open.awaiting)
        });
        if awaiting.is_empty() {
            return;
        }
        for number in awaiting {
            let waker = OPEN.with_borrow(|open| open.wakers.get(number).cloned().flatten());
            waker.iter().for_each(Waker::wake_by_ref);
        }
    }
}

/// Registration of one connection, or listener, of this executor.
pub(super) struct OpenSlot(usize);

impl OpenSlot {
    pub(super) fn take() -> Self {
        Self(OPEN.with_borrow_mut(|open| open.wakers.insert(None)))
    }

    /// Has the next sweep wake this connection, whose task has asked before if the executor is closing. Returns its number.
    pub(super) fn await_sweep(&self) -> u64 {
        let (next, begins) = OPEN.with_borrow_mut(|open| {
            open.awaiting.push(self.0);
            (open.sweeps + 1, !std::mem::replace(&mut open.sweeping, true))
        });
        if begins {
            spawn(sweep());
        }
        next
    }

    /// True if the sweep with this number was.
    pub(super) fn is_swept(number: u64) -> bool {
        OPEN.with_borrow(|open| open.sweeps >= number)
    }

    /// True if the executor is closing; otherwise `context` is woken when it does.
    pub(super) fn is_closing(&self, context: &Context<'_>) -> bool {
        OPEN.with_borrow_mut(|open| {
            let waker = &mut open.wakers[self.0];
            if !waker.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
                *waker = Some(context.waker().clone());
            }
            open.closing
        })
    }

    /// The output of `future`, or `None` if the executor closes first.
    pub(super) fn or_closing<T>(
        &self,
        future: impl Future<Output = T>,
    ) -> impl Future<Output = Option<T>> {
        let closing = poll_fn(|context| match self.is_closing(context) {
            true => Poll::Ready(None),
            false => Poll::Pending,
        });
        or(closing, future.map(Some))
    }
}

impl Drop for OpenSlot {
    fn drop(&mut self) {
        // The thread-local is gone while the thread ends; then there is nothing to wake.
        let _ = OPEN.try_with(|open| open.borrow_mut().wakers.try_remove(self.0));
    }
}

/// Notifies that this executor closes its connections, for tasks without an end of their own. Belongs to the
/// executor that made it.
pub struct Closing(OpenSlot);

impl Closing {
    /// A notification for this executor.
    pub fn watch() -> Self {
        Self(OpenSlot::take())
    }

    /// Ready once the executor closes.
    pub fn poll(&self, context: &Context<'_>) -> Poll<()> {
        if self.0.is_closing(context) { Poll::Ready(()) } else { Poll::Pending }
    }
}

/// Closes the connections and listeners of this executor: new requests are refused, and requests in flight may finish
/// within `grace`. Later connections are closed at once.
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
