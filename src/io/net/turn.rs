//! A connection's turn: it goes on with its calls that were woken, reads a little, the calls in that are begun, and
//! what all of them answer leaves together.
//!
//! ```text
//!  woken ─► poll woken calls ─► read up to 4 KiB ─► poll each call in it once ─┬─ answered ─► one write ─► next
//!                                    ▲                                         │                        connection
//!                                    └── some of them wait, and there is more ─┘
//! ```
//!
//! So what a call takes is still in the processor's cache when it is answered, however many more are on their way:
//! those wait in the sockets, as bytes. Clients with many calls under way send the headers of all before the first
//! message; a connection that read no further than headers goes on reading, so that these calls do not wait until all
//! other connections have begun as many. If each connection read all that there is before the first answer, a range
//! among 16,384 in flight would take one and a half times the CPU of one among 512.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use futures_util::stream::{FuturesUnordered, StreamExt as _};

/// Bytes that a connection reads before it begins calls.
const READ_BYTES: usize = 4 << 10;
/// As many at most: twice as many each time when no call began in the last turn, so that large ones do not come in
/// drops. Also the most bytes of a whole turn: some four milliseconds of the smallest calls.
pub(super) const TURN_BYTES_MAX: usize = 64 << 10;
/// Calls that end in one turn because they were woken; the others end in the next one.
const WOKEN_MAX: usize = 256;

type Call = Pin<Box<dyn Future<Output = ()>>>;

/// The turns of one connection. Clones are the same.
#[derive(Clone)]
pub(super) struct Turn(Rc<State>);

struct State {
    /// How much may be read at once, and what is left of that.
    bytes: Cell<usize>,
    left: Cell<usize>,
    /// The socket has nothing more and wakes the connection when it has.
    waits: Cell<bool>,
    /// Calls that came since they were last looked for.
    begun: RefCell<Vec<Call>>,
    /// Calls that wait for something. Gone with the connection.
    calls: RefCell<FuturesUnordered<Call>>,
    /// How many of them do so though all was read: at most those that waited when the socket last had nothing more.
    settled: Cell<usize>,
}

impl Turn {
    pub(super) fn new() -> Self {
        Self(Rc::new(State {
            bytes: Cell::new(READ_BYTES),
            left: Cell::new(0),
            waits: Cell::new(false),
            begun: RefCell::default(),
            calls: RefCell::default(),
            settled: Cell::new(0),
        }))
    }

    /// One turn: polls woken calls and the connection, begins what it took in, and polls it again to send what was
    /// answered.
    pub(super) fn take<T>(
        &self,
        context: &mut Context<'_>,
        mut connection: impl FnMut(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        let state = &*self.0;
        let calls = &mut *state.calls.borrow_mut();
        end_woken(calls, context);
        let (mut allowed, mut any_begun) = (state.bytes.get(), false);
        state.left.set(allowed);
        state.waits.set(false);
        loop {
            let polled = connection(context);
            if polled.is_ready() {
                return polled;
            }
            let begun = state.begun.take();
            let mut active = !begun.is_empty();
            any_begun |= active;
            for mut call in begun {
                if call.as_mut().poll(context).is_pending() {
                    calls.push(call);
                }
            }
            active |= end_woken(calls, context);
            let (waiting, all_read) = (calls.len(), state.waits.get());
            state.settled.set(if all_read { waiting } else { state.settled.get().min(waiting) });
            let has_more = !all_read && state.left.get() == 0;
            let goes_on = has_more && waiting > state.settled.get() && allowed < TURN_BYTES_MAX;
            if !active && !goes_on {
                state.bytes.set(match (any_begun, has_more) {
                    (true, _) => READ_BYTES,
                    (false, false) => state.bytes.get(),
                    (false, true) => (2 * state.bytes.get()).min(TURN_BYTES_MAX),
                });
                return Poll::Pending;
            }
            // Else nothing more is read in this turn.
            state.left.set(if goes_on { READ_BYTES } else { 0 });
            allowed += READ_BYTES;
        }
    }

    /// Bytes that may be read now. `None` when the turn is over; the connection will be woken for its next one.
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

    /// So many were read.
    pub(super) fn spend(&self, bytes: usize) {
        self.0.left.set(self.0.left.get() - bytes);
    }

    /// There was nothing to read.
    pub(super) fn wait(&self) {
        self.0.waits.set(true);
    }
}

/// Polls calls that were woken. Whether any ended; not more than [`WOKEN_MAX`] do.
fn end_woken(calls: &mut FuturesUnordered<Call>, context: &mut Context<'_>) -> bool {
    for ended in 0..WOKEN_MAX {
        let Poll::Ready(Some(())) = calls.poll_next_unpin(context) else { return ended > 0 };
    }
    context.waker().wake_by_ref();
    true
}

impl<F: Future<Output = ()> + 'static> hyper::rt::Executor<F> for Turn {
    fn execute(&self, call: F) {
        self.0.begun.borrow_mut().push(Box::pin(call));
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, poll_fn, ready};
    use std::task::Waker;

    use super::*;
    use hyper::rt::Executor as _;

    const NEVER: Poll<()> = Poll::Pending;

    /// A turn in which a connection reads all that it may and takes in `requests` that are answered at once; gives
    /// what it read, and how often it was polled.
    fn take(turn: &Turn, requests: usize) -> (usize, usize) {
        let (mut read, mut polls) = (0, 0);
        let polled = turn.take(&mut Context::from_waker(Waker::noop()), |context| {
            polls += 1;
            while let Some(left) = turn.left(context) {
                turn.spend(left.min(1000));
                read += left.min(1000);
            }
            (0..if polls == 1 { requests } else { 0 }).for_each(|_| turn.execute(ready(())));
            NEVER
        });
        assert_eq!(polled, NEVER);
        (read, polls)
    }

    #[test]
    fn a_turn_ends_and_what_it_took_in_is_answered_in_it() {
        let turn = Turn::new();
        assert_eq!(take(&turn, 3), (READ_BYTES, 2), "polled again, to send the answers");
        assert_eq!(take(&turn, 3), (READ_BYTES, 2));
    }

    #[test]
    fn large_requests_are_read_in_larger_turns() {
        let turn = Turn::new();
        let reads: Vec<_> = (0..6).map(|_| take(&turn, 0).0).collect();
        assert_eq!(reads, [4, 8, 16, 32, 64, 64].map(|kib| kib << 10));
        assert_eq!(take(&turn, 1).0, TURN_BYTES_MAX);
        assert_eq!(take(&turn, 1).0, READ_BYTES, "small ones come again");
    }

    #[test]
    fn calls_that_wait_for_their_message_are_read_on_for() {
        let (turn, message) = (Turn::new(), Rc::new(Cell::new(false)));
        let mut reads = 0;
        let polled = turn.take(&mut Context::from_waker(Waker::noop()), |context| {
            while let Some(left) = turn.left(context) {
                turn.spend(left);
                reads += 1;
                let came = Rc::clone(&message);
                match reads {
                    1 => turn.execute(poll_fn(move |context| {
                        context.waker().wake_by_ref();
                        if came.get() { Poll::Ready(()) } else { NEVER }
                    })),
                    3 => message.set(true),
                    _ => (),
                }
            }
            NEVER
        });
        assert_eq!((polled, reads), (NEVER, 3));
        // However long they wait, others get their turn.
        turn.execute(pending());
        let (read, _) = take(&turn, 1);
        assert_eq!(read, TURN_BYTES_MAX);
    }

    #[test]
    fn a_socket_that_waits_is_left_alone() {
        let turn = Turn::new();
        let context = &mut Context::from_waker(Waker::noop());
        let mut asked = 0;
        let polled = turn.take(context, |context| {
            if turn.left(context).is_some() {
                asked += 1;
                turn.wait();
                turn.execute(ready(()));
            }
            NEVER
        });
        assert_eq!((polled, asked), (NEVER, 1));
    }

    /// Calls that end as soon as someone wakes them.
    fn woken_later(turn: &Turn, count: usize) -> Rc<RefCell<Vec<Waker>>> {
        let wakers = Rc::new(RefCell::new(Vec::new()));
        for _ in 0..count {
            let (wakers, mut polls) = (Rc::clone(&wakers), 0);
            // Polled when it comes, when it is put to those that wait, and when it is woken.
            turn.execute(poll_fn(move |context| {
                polls += 1;
                wakers.borrow_mut().push(context.waker().clone());
                if polls < 3 { NEVER } else { Poll::Ready(()) }
            }));
        }
        wakers
    }

    #[test]
    fn calls_that_were_woken_go_on_in_the_next_turn() {
        let turn = Turn::new();
        let wakers = woken_later(&turn, WOKEN_MAX + 1);
        let wake = || wakers.take().iter().for_each(Waker::wake_by_ref);
        let waiting = || turn.0.calls.borrow().len();
        take(&turn, 0);
        assert_eq!(waiting(), WOKEN_MAX + 1);
        wake();
        let nothing_to_read = |turn: &Turn| {
            turn.take(&mut Context::from_waker(Waker::noop()), |_| {
                turn.wait();
                NEVER
            })
        };
        assert_eq!(nothing_to_read(&turn), NEVER);
        assert_eq!(waiting(), 0);
    }

    #[test]
    fn calls_end_with_their_connection() {
        let turn = Turn::new();
        let wakers = woken_later(&turn, 1);
        take(&turn, 0);
        let connection = turn.take(&mut Context::from_waker(Waker::noop()), |_| Poll::Ready(()));
        assert_eq!(connection, Poll::Ready(()));
        assert_eq!(Rc::strong_count(&wakers), 2);
        drop(turn);
        assert_eq!(Rc::strong_count(&wakers), 1);
    }
}
