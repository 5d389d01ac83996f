//! Judges whether the calls of a connection make progress: a client that sends no more of a request, or takes no more of an
//! answer, must not hold memory for ever.
//!
//! ```text
//!  poll of a call ─► PollResult: its body gave bytes ───────────► waits for its client, anew
//!                          its body has none yet ─────────► waits for nobody
//!                          the request is not complete ───► waits for its client
//!                          nothing of these ──────────────► as before, if an answer was under way
//!  sweep ─► waits too long: an answer ─► the call is dropped, and its stream is reset
//!                           a request ─► the call is polled once more, and refuses it
//! ```
//!
//! Clients that take nothing hold the memory of their answers meanwhile. So a client is new until it has taken a large
//! answer to its end, and the memory of answers to new clients is a part of its own ([`ClientKind`]).
//!
//! There is no timer for a call. Connections with calls that wait for their clients are swept some times in
//! [`stall_time`]; the time is read when a call begins to wait, which few calls do.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use super::clock;
use crate::metrics;
use crate::types::limits::{STALL_MS_MAX, STALL_PARTS_IF_NEW_WAIT, STALL_PARTS_IF_OTHERS_WAIT};

type Call = Pin<Box<dyn Future<Output = ()>>>;

static STALL_MS: AtomicU64 = AtomicU64::new(STALL_MS_MAX);

/// Sets the time after which a client that makes no progress is given up. Must be called before the first connection.
pub fn set_stall_time(time: Duration) {
    STALL_MS.store(u64::try_from(time.as_millis()).unwrap_or(STALL_MS_MAX).max(1), Relaxed);
}

/// The time after which a client that makes no progress is given up.
pub fn stall_time() -> Duration {
    Duration::from_millis(STALL_MS.load(Relaxed))
}

/// The client of a connection, by the answers that it has taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ClientKind {
    /// It has not taken a large one yet. Clients of HTTP/1 never count as more.
    New,
    /// It has taken a large one to its end.
    Proven,
}

/// Answers to clients of these kinds wait for memory.
static NEW_WAIT: AtomicBool = AtomicBool::new(false);
static PROVEN_WAIT: AtomicBool = AtomicBool::new(false);

impl ClientKind {
    /// Of the call that is being polled.
    pub fn of_call() -> Self {
        CLIENT.get()
    }

    /// Tells if answers to such clients wait for memory: those that hold it and take nothing are given up sooner then.
    pub fn set_answers_wait(self, wait: bool) {
        let waits = match self {
            Self::New => &NEW_WAIT,
            Self::Proven => &PROVEN_WAIT,
        };
        // Mostly it is so already, and the line is not taken from other cores.
        if waits.load(Relaxed) != wait {
            waits.store(wait, Relaxed);
        }
    }

    /// The inverse of the part of [`stall_time`] after which such a client is given up that takes nothing of its answer,
    /// by the kinds of clients that wait. A very large answer to a new client is counted with those to proven ones.
    const fn answer_stall_parts(self, new_wait: bool, proven_wait: bool) -> u32 {
        match (self, new_wait, proven_wait) {
            (Self::New, true, _) => STALL_PARTS_IF_NEW_WAIT,
            (_, _, true) => STALL_PARTS_IF_OTHERS_WAIT,
            (_, _, false) => 1,
        }
    }
}

/// Time between two looks at clients that may stall: half of the shortest one after which any is given up.
pub(super) fn sweep_time() -> Duration {
    let parts = ClientKind::New.answer_stall_parts(NEW_WAIT.load(Relaxed), true);
    stall_time() / (2 * parts)
}

/// The observation made by one poll of a call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum PollResult {
    /// Neither body was polled.
    Nothing,
    /// The answer has no more bytes yet.
    Idle,
    /// The answer had bytes, which HTTP/2 sends as its client allows.
    Given,
    /// The request is not complete.
    Reads,
}

thread_local! {
    /// Of the call that is being polled.
    static RESULT: Cell<PollResult> = const { Cell::new(PollResult::Nothing) };
    static IS_LATE: Cell<bool> = const { Cell::new(false) };
    static CLIENT: Cell<ClientKind> = const { Cell::new(ClientKind::New) };
    /// Calls of this executor.
    static CALLS: Cell<usize> = const { Cell::new(0) };
    /// Bytes of answers of this executor that were given to HTTP/2 and not sent.
    static UNSENT: Cell<usize> = const { Cell::new(0) };
}

/// Notes the observation of the current poll.
pub(super) fn note(result: PollResult) {
    RESULT.set(result);
}

/// Notes that the call that is being polled waits for the rest of its request; true if it must wait no longer.
pub fn request_is_late() -> bool {
    note(PollResult::Reads);
    IS_LATE.get()
}

/// Calls and unsent bytes of one connection, or of an executor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Load {
    pub(super) calls: usize,
    pub(super) unsent: usize,
}

/// The load of this executor.
pub(super) fn executor_load() -> Load {
    Load { calls: CALLS.get(), unsent: UNSENT.get() }
}

/// Counts the bytes of answers that were given to HTTP/2 and are not sent yet.
pub trait UnsentBytes {
    /// HTTP/2 has these, too.
    fn given(&self, bytes: usize);

    /// It has sent these, or given them up.
    fn sent(&self, bytes: usize);
}

/// Unsent bytes of a connection, and its calls that wait for the client. Clones share them.
#[derive(Clone, Default)]
pub(super) struct Flow(Rc<FlowCells>);

#[derive(Default)]
struct FlowCells {
    calls: Cell<usize>,
    /// Calls that wait for the client.
    waiting: Cell<usize>,
    /// Bytes of answers that were given to HTTP/2 and not sent, without those of answers that may stall.
    unsent: Cell<usize>,
    small_windows: Cell<bool>,
    is_proven: Cell<bool>,
}

fn add(cell: &Cell<usize>, count: usize) {
    cell.set(cell.get() + count);
}

fn subtract(cell: &Cell<usize>, count: usize) {
    cell.set(cell.get() - count);
}

impl Flow {
    /// The load of the connection.
    pub(super) fn load(&self) -> Load {
        Load { calls: self.0.calls.get(), unsent: self.0.unsent.get() }
    }

    /// Number of calls that wait for the client.
    pub(super) fn waiting(&self) -> usize {
        self.0.waiting.get()
    }

    /// True if the client allows answers to be sent in small pieces only.
    pub(super) fn has_small_windows(&self) -> bool {
        self.0.small_windows.get()
    }

    /// From now on it does.
    pub(super) fn set_small_windows(&self) {
        self.0.small_windows.set(true);
    }

    /// The client has taken a large answer to its end.
    pub(super) fn set_proven(&self) {
        self.0.is_proven.set(true);
    }

    pub(super) fn client(&self) -> ClientKind {
        if self.0.is_proven.get() { ClientKind::Proven } else { ClientKind::New }
    }

    /// The time after which the client is given up if it takes nothing of its answer.
    pub(super) fn answer_stall_time(&self) -> Duration {
        let (new_wait, proven_wait) = (NEW_WAIT.load(Relaxed), PROVEN_WAIT.load(Relaxed));
        stall_time() / self.client().answer_stall_parts(new_wait, proven_wait)
    }
}

impl UnsentBytes for Flow {
    fn given(&self, bytes: usize) {
        add(&self.0.unsent, bytes);
        UNSENT.with(|unsent| add(unsent, bytes));
    }

    fn sent(&self, bytes: usize) {
        subtract(&self.0.unsent, bytes);
        UNSENT.with(|unsent| subtract(unsent, bytes));
    }
}

/// A call that waits for its client.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Wait {
    since: Duration,
    /// For the rest of the request; otherwise until bytes of the answer are taken.
    reads: bool,
}

impl Wait {
    /// After a poll with this result.
    fn after(
        before: Option<Self>,
        result: PollResult,
        now: impl FnOnce() -> Duration,
    ) -> Option<Self> {
        match result {
            // A poll of a call that reads its request says so.
            PollResult::Nothing => before.filter(|wait| !wait.reads),
            PollResult::Idle => None,
            PollResult::Given => Some(Self { since: now(), reads: false }),
            PollResult::Reads => {
                let before = before.filter(|wait| wait.reads);
                before.or_else(|| Some(Self { since: now(), reads: true }))
            }
        }
    }

    fn is_over(self, now: Duration, time: Duration) -> bool {
        now.saturating_sub(self.since) >= time
    }
}

/// A call of a connection, and whether it waits for the client.
pub(super) struct TrackedCall {
    /// Nothing once it was dropped for its client.
    call: Option<Call>,
    flow: Flow,
    waiting: Option<Box<Waiting>>,
}

struct Waiting {
    wait: Wait,
    waker: Waker,
    is_late: bool,
}

impl TrackedCall {
    pub(super) fn new(call: Call, flow: Flow) -> Self {
        add(&flow.0.calls, 1);
        CALLS.with(|calls| add(calls, 1));
        Self { call: Some(call), flow, waiting: None }
    }

    fn update(&mut self, wait: Option<Wait>, context: &Context<'_>) {
        match (wait, &mut self.waiting) {
            (None, None) => (),
            (None, Some(_)) => {
                self.waiting = None;
                subtract(&self.flow.0.waiting, 1);
            }
            (Some(wait), Some(waiting)) => {
                waiting.is_late &= waiting.wait.reads == wait.reads;
                waiting.wait = wait;
                waiting.waker.clone_from(context.waker());
            }
            (Some(wait), none) => {
                let waker = context.waker().clone();
                *none = Some(Box::new(Waiting { wait, waker, is_late: false }));
                add(&self.flow.0.waiting, 1);
            }
        }
    }

    /// Gives up the call if it waits for the rest of its request for `time`, or until its answer is taken for `answer_time`.
    pub(super) fn sweep(&mut self, now: Duration, time: Duration, answer_time: Duration) {
        let Some(waiting) = &mut self.waiting else { return };
        let time = if waiting.wait.reads { time } else { answer_time };
        if !waiting.wait.is_over(now, time) || waiting.is_late {
            return;
        }
        metrics::CALLS_STALLED.add(1);
        waiting.is_late = true;
        if !waiting.wait.reads {
            self.call = None;
        }
        // Polled, it ends.
        waiting.waker.wake_by_ref();
    }
}

impl Future for TrackedCall {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let before = self.waiting.as_ref().map(|waiting| (waiting.wait, waiting.is_late));
        let client = self.flow.client();
        let Some(call) = &mut self.call else { return Poll::Ready(()) };
        RESULT.set(PollResult::Nothing);
        IS_LATE.set(before.is_some_and(|(_, is_late)| is_late));
        CLIENT.set(client);
        let polled = call.as_mut().poll(context);
        IS_LATE.set(false);
        CLIENT.set(ClientKind::New);
        if polled.is_pending() {
            let now = || Duration::from_millis(clock::now_ms());
            let wait = Wait::after(before.map(|(wait, _)| wait), RESULT.get(), now);
            self.update(wait, context);
        }
        polled
    }
}

impl Drop for TrackedCall {
    fn drop(&mut self) {
        CALLS.with(|calls| subtract(calls, 1));
        subtract(&self.flow.0.calls, 1);
        if self.waiting.is_some() {
            subtract(&self.flow.0.waiting, 1);
        }
    }
}

#[cfg(test)]
mod tests;
