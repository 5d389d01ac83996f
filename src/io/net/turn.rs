//! A connection's turn: it reads a little, the requests in that are begun, and what they answer leaves together.
//!
//! ```text
//!  woken ─► read up to 4 KiB ─► poll each request in it once ─┬─ answered ──► one write ─► next connection
//!                                                             └─ waits ─► a task of its own
//! ```
//!
//! So what a request takes is still in the processor's cache when it is answered, however many more are on their
//! way: those wait in the sockets, as bytes. If each connection read all that there is before the first answer,
//! a range among 16,384 in flight would take one and a half times the CPU of one among 512.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use crate::io::executor;

/// Bytes that a connection reads in its turn.
const TURN_BYTES: usize = 4 << 10;
/// As many at most: twice as many each time when no request began in the last turn, so that large ones do not come
/// in drops.
pub(super) const TURN_BYTES_MAX: usize = 64 << 10;

type Task = Pin<Box<dyn Future<Output = ()>>>;

/// The turns of one connection. Clones are the same.
#[derive(Clone)]
pub(super) struct Turn(Rc<State>);

struct State {
    /// How much may be read in this turn, and what is left of that.
    bytes: Cell<usize>,
    left: Cell<usize>,
    /// The socket has nothing more and wakes the connection when it has.
    waits: Cell<bool>,
    /// Requests that came in this turn.
    tasks: RefCell<Vec<Task>>,
}

impl Turn {
    pub(super) fn new() -> Self {
        Self(Rc::new(State {
            bytes: Cell::new(TURN_BYTES),
            left: Cell::new(0),
            waits: Cell::new(false),
            tasks: RefCell::default(),
        }))
    }

    /// One turn: polls the connection, begins what it took in, and polls it again to send what that answered.
    pub(super) fn take<T>(
        &self,
        context: &mut Context<'_>,
        mut connection: impl FnMut(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        let state = &*self.0;
        state.left.set(state.bytes.get());
        state.waits.set(false);
        let mut begun = false;
        loop {
            let polled = connection(context);
            let tasks = state.tasks.take();
            if tasks.is_empty() {
                let all_read = state.left.get() > 0;
                state.bytes.set(match (begun, all_read) {
                    (true, _) => TURN_BYTES,
                    (false, true) => state.bytes.get(),
                    (false, false) => (2 * state.bytes.get()).min(TURN_BYTES_MAX),
                });
                return polled;
            }
            begun = true;
            // Nothing more is read in this turn.
            state.left.set(0);
            for mut task in tasks {
                if task.as_mut().poll(context).is_pending() {
                    executor::spawn(task);
                }
            }
            if polled.is_ready() {
                return polled;
            }
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

impl<F: Future<Output = ()> + 'static> hyper::rt::Executor<F> for Turn {
    fn execute(&self, task: F) {
        self.0.tasks.borrow_mut().push(Box::pin(task));
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};
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
        assert_eq!(take(&turn, 3), (TURN_BYTES, 2), "polled again, to send the answers");
        assert_eq!(take(&turn, 3), (TURN_BYTES, 2));
    }

    #[test]
    fn large_requests_are_read_in_larger_turns() {
        let turn = Turn::new();
        let reads: Vec<_> = (0..6).map(|_| take(&turn, 0).0).collect();
        assert_eq!(reads, [4, 8, 16, 32, 64, 64].map(|kib| kib << 10));
        assert_eq!(take(&turn, 1).0, TURN_BYTES_MAX);
        assert_eq!(take(&turn, 1).0, TURN_BYTES, "small ones come again");
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

    #[test]
    fn a_request_that_waits_goes_on_by_itself() {
        let ended = glommio::LocalExecutorBuilder::default().spawn(|| async {
            let (turn, (end, ended)) = (Turn::new(), flume::bounded(1));
            let mut polls = 0;
            let waits = std::future::poll_fn(move |context| {
                polls += 1;
                context.waker().wake_by_ref();
                if polls < 3 {
                    return NEVER;
                }
                end.send(polls).unwrap();
                Poll::Ready(())
            });
            turn.execute(waits);
            turn.execute(pending());
            let context = &mut Context::from_waker(Waker::noop());
            assert_eq!(turn.take(context, |_| Poll::Ready(())), Poll::Ready(()));
            assert!(ended.is_empty());
            ended.recv_async().await
        });
        assert_eq!(ended.unwrap().join().unwrap(), Ok(3));
    }
}
