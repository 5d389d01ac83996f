//! A round ends, calls in it are polled, and all of them are dropped with the connection.

use std::future::{pending, poll_fn, ready};
use std::task::Waker;

use super::*;
use hyper::rt::Executor as _;

const NEVER: Poll<()> = Poll::Pending;

/// A round in which a connection reads all that it may and accepts `requests` that are answered at once; returns the
/// bytes read, and how often it was polled.
fn take(turn: &mut ConnectionScheduler, requests: usize) -> (usize, usize) {
    let (mut read, mut polls) = (0, 0);
    let handle = turn.handle();
    let polled = turn.take(&mut Context::from_waker(Waker::noop()), |context| {
        polls += 1;
        while let Some(left) = handle.left(context) {
            handle.spend(left.min(1000));
            read += left.min(1000);
        }
        (0..if polls == 1 { requests } else { 0 }).for_each(|_| handle.execute(ready(())));
        NEVER
    });
    assert_eq!(polled, NEVER);
    (read, polls)
}

#[test]
fn a_turn_ends_and_what_it_took_in_is_answered_in_it() {
    let mut turn = ConnectionScheduler::new();
    assert_eq!(take(&mut turn, 3), (READ_BYTES, 2), "polled again, to send the answers");
    assert_eq!(take(&mut turn, 3), (READ_BYTES, 2));
}

#[test]
fn large_requests_are_read_in_larger_turns() {
    let mut turn = ConnectionScheduler::new();
    let reads: Vec<_> = (0..6).map(|_| take(&mut turn, 0).0).collect();
    assert_eq!(reads, [4, 8, 16, 32, 64, 64].map(|kib| kib << 10));
    assert_eq!(take(&mut turn, 1).0, TURN_BYTES_MAX);
    assert_eq!(take(&mut turn, 1).0, READ_BYTES, "small ones come again");
}

#[test]
fn calls_that_wait_for_their_message_are_read_on_for() {
    let (mut turn, message) = (ConnectionScheduler::new(), Rc::new(Cell::new(false)));
    let (handle, mut reads) = (turn.handle(), 0);
    let polled = turn.take(&mut Context::from_waker(Waker::noop()), |context| {
        while let Some(left) = handle.left(context) {
            handle.spend(left);
            reads += 1;
            let came = Rc::clone(&message);
            match reads {
                1 => handle.execute(poll_fn(move |context| {
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
    // However long they wait, other connections are polled.
    handle.execute(pending());
    let (read, _) = take(&mut turn, 1);
    assert_eq!(read, TURN_BYTES_MAX);
}

/// A round in which the socket has no bytes.
fn idle(turn: &mut ConnectionScheduler, context: &mut Context<'_>) -> Poll<()> {
    let handle = turn.handle();
    turn.take(context, |_| {
        handle.wait();
        NEVER
    })
}

#[test]
fn a_socket_that_waits_is_left_alone() {
    let mut turn = ConnectionScheduler::new();
    let (handle, mut asked) = (turn.handle(), 0);
    let polled = turn.take(&mut Context::from_waker(Waker::noop()), |context| {
        if handle.left(context).is_some() {
            asked += 1;
            handle.wait();
            handle.execute(ready(()));
        }
        NEVER
    });
    assert_eq!((polled, asked), (NEVER, 1));
}

/// Calls that end as soon as they are woken.
fn woken_later(turn: &ConnectionScheduler, count: usize) -> Rc<RefCell<Vec<Waker>>> {
    let wakers = Rc::new(RefCell::new(Vec::new()));
    for _ in 0..count {
        let (wakers, mut polls) = (Rc::clone(&wakers), 0);
        // Polled when it begins, when it is added to the waiting ones, and when it is woken.
        turn.handle().execute(poll_fn(move |context| {
            polls += 1;
            wakers.borrow_mut().push(context.waker().clone());
            if polls < 3 { NEVER } else { Poll::Ready(()) }
        }));
    }
    wakers
}

#[test]
fn calls_that_were_woken_go_on_in_the_next_turn() {
    let mut turn = ConnectionScheduler::new();
    let wakers = woken_later(&turn, WOKEN_MAX + 1);
    take(&mut turn, 0);
    assert_eq!(turn.calls.len(), WOKEN_MAX + 1);
    wakers.take().iter().for_each(Waker::wake_by_ref);
    assert_eq!(idle(&mut turn, &mut Context::from_waker(Waker::noop())), NEVER);
    assert_eq!(turn.calls.len(), 0);
}

/// Calls as hyper makes them: each holds a clone of the executor.
fn never_answered(turn: &ConnectionScheduler, count: usize) -> Rc<()> {
    let alive = Rc::new(());
    for _ in 0..count {
        let held = (turn.handle(), Rc::clone(&alive));
        turn.handle().execute(poll_fn(move |_| {
            let _ = &held;
            NEVER
        }));
    }
    alive
}

#[test]
fn calls_end_with_their_connection() {
    let mut turn = ConnectionScheduler::new();
    let alive = never_answered(&turn, 3);
    take(&mut turn, 0);
    assert_eq!((turn.calls.len(), Rc::strong_count(&alive)), (3, 4));
    let handle = turn.handle();
    let connection = turn.take(&mut Context::from_waker(Waker::noop()), |_| {
        // One begins with the last bytes.
        let held = (handle.clone(), Rc::clone(&alive));
        handle.execute(async move {
            pending::<()>().await;
            drop(held)
        });
        Poll::Ready(())
    });
    assert_eq!(connection, Poll::Ready(()));
    assert_eq!(Rc::strong_count(&alive), 1, "the turn itself is still there");
    assert_eq!(Rc::strong_count(&handle.0), 2);
}

#[test]
fn calls_end_when_the_connection_is_dropped() {
    let mut turn = ConnectionScheduler::new();
    let alive = never_answered(&turn, 3);
    take(&mut turn, 0);
    let begun_later = never_answered(&turn, 3);
    let handle = turn.handle();
    drop(turn);
    assert_eq!((Rc::strong_count(&alive), Rc::strong_count(&begun_later)), (1, 1));
    assert_eq!(Rc::strong_count(&handle.0), 1);
}

#[test]
fn calls_end_when_a_poll_of_the_connection_panics() {
    let mut turn = ConnectionScheduler::new();
    let alive = never_answered(&turn, 3);
    take(&mut turn, 0);
    let panics = std::panic::AssertUnwindSafe(move || {
        let _ = turn.take::<()>(&mut Context::from_waker(Waker::noop()), |_| panic!("in a poll"));
    });
    assert!(std::panic::catch_unwind(panics).is_err());
    assert_eq!(Rc::strong_count(&alive), 1);
}

/// Begins another call when it is dropped.
struct Respawn(Handle, Rc<()>);

impl Drop for Respawn {
    fn drop(&mut self) {
        let held = (self.0.clone(), Rc::clone(&self.1));
        self.0.execute(async move {
            pending::<()>().await;
            drop(held)
        });
    }
}

#[test]
fn a_call_that_begins_another_one_in_its_destructor_leaves_nothing() {
    let mut turn = ConnectionScheduler::new();
    let (handle, alive) = (turn.handle(), Rc::new(()));
    for polled in [true, false] {
        let held = Respawn(handle.clone(), Rc::clone(&alive));
        handle.execute(async move {
            pending::<()>().await;
            drop(held)
        });
        if polled {
            take(&mut turn, 0);
        }
    }
    drop(turn);
    assert_eq!((Rc::strong_count(&alive), Rc::strong_count(&handle.0)), (1, 1));
}

mod random;
