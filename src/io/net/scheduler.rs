//! Polls one HTTP/2 connection in rounds: first the calls that were woken, then up to 4 KiB of new input and the calls
//! that begin in it, then one write for all responses.
//!
//! ```text
//!  woken ─► poll woken calls ─► read up to 4 KiB ─► poll each call in it once ─┬─ answered ─► one write ─► next
//!                                    ▲                                         │                        connection
//!                                    └── some of them wait, and there is more ─┘
//! ```
//!
//! The data that a call reads is so still in the processor's cache when it is answered, however many more calls wait:
//! those wait in the sockets, as bytes. Clients with many calls in flight send the headers of all before the first
//! message; a connection that read nothing but headers continues to read, so that these calls do not wait until all
//! other connections have begun as many. If each connection read its whole input before the first response, a range
//! among 16,384 in flight would take one and a half times the CPU of one among 512.
//!
//! **Ownership is a tree.** The task of the connection owns its [`ConnectionScheduler`], which owns the calls. hyper,
//! the calls (each holds a clone of hyper's executor) and the socket hold a [`Handle`], which owns no call that has
//! begun. All calls are dropped with the scheduler, or when the connection ends, whichever is first; calls that begin
//! after the end, for example in the destructors of other calls, are dropped at once.
//!
//! ```text
//!  task ─owns─► ConnectionScheduler ─owns─► calls ─┐
//!    └──owns─► hyper ───────────────┴─share─► Handle: bytes left, calls that are yet to begin
//! ```

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt as _};

use super::progress::{Flow, TrackedCall};
use crate::io::fair_queue::{CALL_COST, note_answer, note_work};

/// Bytes that a connection reads before it begins calls.
const READ_BYTES: usize = 4 << 10;
/// Upper bound of the same: the bytes double each time no call began in the last round, so that large requests are not
/// read in small pieces. Also the most bytes of a whole round: some four milliseconds of the smallest calls.
pub(super) const TURN_BYTES_MAX: usize = 64 << 10;
/// Woken calls that may end in one round; the others end in the next one.
const WOKEN_MAX: usize = 256;

/// The rounds of one connection, and its calls. Belongs to the task of the connection.
pub(super) struct ConnectionScheduler {
    handle: Handle,
    /// Bytes that may be read at once.
    bytes: usize,
    /// Calls that wait.
    calls: FuturesUnordered<TrackedCall>,
    /// How many of them wait although the whole input was read: at most those that waited when the socket was last empty.
    settled: usize,
}

/// The handle for hyper, as its executor, and for the socket. Clones share the state.
#[derive(Clone)]
pub(super) struct Handle(Rc<State>);

struct State {
    /// Bytes that may still be read in this round.
    left: Cell<usize>,
    /// The socket is empty and wakes the connection when it is not.
    waits: Cell<bool>,
    /// The connection has ended: no call begins any more.
    ended: Cell<bool>,
    /// Calls that began since the last poll.
    begun: RefCell<Vec<TrackedCall>>,
    flow: Flow,
}

impl ConnectionScheduler {
    pub(super) fn new() -> Self {
        let state = State {
            left: Cell::new(0),
            waits: Cell::new(false),
            ended: Cell::new(false),
            begun: RefCell::default(),
            flow: Flow::default(),
        };
        let (handle, calls) = (Handle(Rc::new(state)), FuturesUnordered::new());
        Self { handle, bytes: READ_BYTES, calls, settled: 0 }
    }

    /// The handle for hyper and the socket.
    pub(super) fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// One round: polls woken calls and the connection, polls the calls that began, and polls the connection again to
    /// send the responses. When the connection has ended, all calls are dropped.
    pub(super) fn take<T>(
        &mut self,
        context: &mut Context<'_>,
        mut connection: impl FnMut(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        end_woken(&mut self.calls, context);
        let (mut allowed, mut any_begun) = (self.bytes, false);
        self.handle.allow(allowed);
        self.handle.0.waits.set(false);
        loop {
            let polled = connection(context);
            if polled.is_ready() {
                self.end();
                return polled;
            }
            let begun = self.handle.0.begun.take();
            let mut active = !begun.is_empty();
            any_begun |= active;
            note_work(begun.len() * CALL_COST);
            for mut call in begun {
                match Pin::new(&mut call).poll(context) {
                    Poll::Pending => self.calls.push(call),
                    Poll::Ready(()) => note_answer(),
                }
            }
            active |= end_woken(&mut self.calls, context);
            active |= !self.handle.0.begun.borrow().is_empty();
            let (waiting, all_read) = (self.calls.len(), self.handle.0.waits.get());
            self.settled = if all_read { waiting } else { self.settled.min(waiting) };
            let has_more = !all_read && self.handle.0.left.get() == 0;
            let goes_on = has_more && waiting > self.settled && allowed < TURN_BYTES_MAX;
            if !active && !goes_on {
                self.bytes = match (any_begun, has_more) {
                    (true, _) => READ_BYTES,
                    (false, false) => self.bytes,
                    (false, true) => (2 * self.bytes).min(TURN_BYTES_MAX),
                };
                return Poll::Pending;
            }
            // Otherwise the connection reads no more in this round.
            self.handle.allow(if goes_on { READ_BYTES } else { 0 });
            allowed += READ_BYTES;
        }
    }

    /// Gives up calls that wait for their client for `time`, or for `answer_time` until it takes their answer; true if there
    /// may be any.
    pub(super) fn sweep(&mut self, now: Duration, time: Duration, answer_time: Duration) -> bool {
        let any_waits = self.handle.0.flow.waiting() > 0;
        if any_waits {
            self.calls.iter_mut().for_each(|call| call.sweep(now, time, answer_time));
        }
        any_waits
    }

    /// Drops all calls, including those that their destructors begin.
    fn end(&mut self) {
        self.handle.0.ended.set(true);
        // Taken out of the cell first: destructors may borrow it.
        let begun = self.handle.0.begun.take();
        drop(begun);
        drop(std::mem::take(&mut self.calls));
    }
}

impl Drop for ConnectionScheduler {
    fn drop(&mut self) {
        self.end();
    }
}

impl Handle {
    /// Unsent bytes of the connection, and the calls that wait for its client.
    pub(super) fn flow(&self) -> &Flow {
        &self.0.flow
    }

    fn allow(&self, bytes: usize) {
        self.0.left.set(bytes);
    }

    /// Bytes that may be read now. `None` when the round is over; the connection will be woken for its next one.
    pub(super) fn left(&self, context: &Context<'_>) -> Option<usize> {
        if self.0.waits.get() {
            return None;
        }
        let left = self.0.left.get();
        if left == 0 {
            context.waker().wake_by_ref();
            return None;
        }
        Some(left)
    }

    /// Counts read bytes.
    pub(super) fn spend(&self, bytes: usize) {
        self.0.left.set(self.0.left.get() - bytes);
    }

    /// The socket was empty.
    pub(super) fn wait(&self) {
        self.0.waits.set(true);
    }
}

/// Polls calls that were woken; at most [`WOKEN_MAX`] end. True if any ended.
fn end_woken(calls: &mut FuturesUnordered<TrackedCall>, context: &mut Context<'_>) -> bool {
    for ended in 0..WOKEN_MAX {
        let Poll::Ready(Some(())) = calls.poll_next_unpin(context) else { return ended > 0 };
        note_answer();
    }
    context.waker().wake_by_ref();
    true
}

impl<F: Future<Output = ()> + 'static> hyper::rt::Executor<F> for Handle {
    fn execute(&self, call: F) {
        if !self.0.ended.get() {
            let call = TrackedCall::new(Box::pin(call), self.0.flow.clone());
            self.0.begun.borrow_mut().push(call);
        }
    }
}

#[cfg(test)]
mod tests;
