//! Order of the connections of an executor: one whose rounds are cheap has its round as soon as it is woken, of the others
//! one at a time. A request of a light client so waits for one of the busy ones, not for all of them.
//!
//! ```text
//!  woken ─► cheap so far, and answers its client? ─┬─ yes ──────────────────────────────────────► round
//!                                                  └─ no ─► queue ─► behind all that are ready ─► round
//!                                                               ▲      the one before has ended │
//!                                                               └───────────────────────────────┘
//! ```
//!
//! An executor runs its tasks in the order in which they were woken. A hundred clients that send as fast as they can have a
//! hundred tasks ready at any time, and each of the waits of a put would last for a round of each of them. The same holds for
//! thousands of clients who send a byte now and then and never a whole request. Through the queue one of all these is
//! ready at a time. None of them starves: each time that the executor has run everything that was ready one of them
//! follows, and one more for each [`SHARE`] of work of cheap rounds.
//!
//! The cost of a round is counted, not measured: a thread that the kernel interrupts would make cheap rounds long.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// The cost of a call, in the unit of all costs: a byte that is read, sent or found in the store.
pub(super) const CALL_COST: usize = 4 << 10;
/// The cost from which a connection is busy: that of its last round, and of those before at half, a quarter and so on.
const BUSY: usize = 96 << 10;
/// The rounds in a row without an answer after which a connection waits like a busy one, and with which a new one begins.
const UNANSWERED_MAX: u32 = 16;
/// The cost of rounds without a wait after which one more of those that wait has its round.
const SHARE: usize = 64 << 10;

/// The work of the round that is under way on this executor.
#[derive(Clone, Copy, Default)]
struct Work {
    cost: usize,
    is_answer: bool,
}

thread_local! {
    static WORK: Cell<Work> = const { Cell::new(Work { cost: 0, is_answer: false }) };
    static QUEUE: RefCell<FairQueue> = RefCell::default();
}

/// Counts work for the connection whose round it is.
pub fn note_work(cost: usize) {
    WORK.set(Work { cost: WORK.get().cost + cost, ..WORK.get() });
}

/// Notes that its client got an answer, or a part of one.
pub(super) fn note_answer() {
    WORK.set(Work { is_answer: true, ..WORK.get() });
}

/// The task of a connection, each poll of which is a round.
pub(super) fn queued_fairly(task: impl Future<Output = ()>) -> impl Future<Output = ()> {
    // On the heap, as a future in another one takes its place twice.
    let (mut task, mut state) = (Box::pin(task), TaskState::new());
    poll_fn(move |context| {
        if !state.begin(context) {
            return Poll::Pending;
        }
        WORK.take();
        let polled = task.as_mut().poll(context);
        state.end(WORK.take());
        polled
    })
}

/// Connections that wait for their round.
#[derive(Default)]
struct FairQueue {
    waiting: VecDeque<Rc<Waiter>>,
    /// Connections that are admitted and have not ended their round.
    admitted: usize,
    /// Cost of rounds without a wait, since one was admitted for it.
    cheap: usize,
}

struct Waiter {
    waker: RefCell<Waker>,
    is_admitted: Cell<bool>,
}

impl FairQueue {
    /// Admits the next one, which is then to be woken.
    fn admit(&mut self) -> Option<Waker> {
        let next = self.waiting.pop_front()?;
        self.admitted += 1;
        next.is_admitted.set(true);
        Some(next.waker.borrow().clone())
    }

    /// An admitted one has ended its round, or is gone.
    fn leave(&mut self) -> Option<Waker> {
        self.admitted -= 1;
        if self.admitted == 0 { self.admit() } else { None }
    }

    /// A round without a wait has ended.
    fn pass(&mut self, cost: usize) -> Option<Waker> {
        if self.waiting.is_empty() {
            return None;
        }
        self.cheap += cost;
        let is_due = self.cheap >= SHARE;
        if is_due {
            self.cheap = 0;
        }
        is_due.then(|| self.admit()).flatten()
    }
}

/// Changes the queue, and wakes the connection that was admitted.
fn change(queue: impl FnOnce(&mut FairQueue) -> Option<Waker>) {
    // Not while the queue is borrowed: a waker may drop the last reference to another connection.
    let admitted = QUEUE.with_borrow_mut(queue);
    admitted.into_iter().for_each(Waker::wake);
}

enum Place {
    Nowhere,
    Waiting(Rc<Waiter>),
    Admitted,
}

/// The rounds of one connection.
struct TaskState {
    /// Cost of the last round, and of those before at half, a quarter and so on.
    cost: usize,
    unanswered: u32,
    place: Place,
}

impl TaskState {
    fn new() -> Self {
        Self { cost: 0, unanswered: UNANSWERED_MAX, place: Place::Nowhere }
    }

    fn must_wait(&self) -> bool {
        self.cost >= BUSY || self.unanswered >= UNANSWERED_MAX
    }

    /// True if the connection has its round now. If not, it is woken for it.
    fn begin(&mut self, context: &Context<'_>) -> bool {
        match &self.place {
            Place::Nowhere if !self.must_wait() => true,
            Place::Nowhere => {
                self.place = QUEUE.with_borrow_mut(|queue| {
                    if queue.admitted == 0 {
                        queue.admitted = 1;
                        return Place::Admitted;
                    }
                    let waker = RefCell::new(context.waker().clone());
                    let waiter = Rc::new(Waiter { waker, is_admitted: Cell::new(false) });
                    queue.waiting.push_back(Rc::clone(&waiter));
                    Place::Waiting(waiter)
                });
                if matches!(self.place, Place::Admitted) {
                    // Behind all that are ready.
                    context.waker().wake_by_ref();
                }
                false
            }
            Place::Admitted => true,
            Place::Waiting(waiter) if waiter.is_admitted.get() => {
                self.place = Place::Admitted;
                true
            }
            Place::Waiting(waiter) => {
                waiter.waker.borrow_mut().clone_from(context.waker());
                false
            }
        }
    }

    /// The round has ended.
    fn end(&mut self, round: Work) {
        self.cost = self.cost / 2 + round.cost;
        self.unanswered = if round.is_answer { 0 } else { self.unanswered.saturating_add(1) };
        match std::mem::replace(&mut self.place, Place::Nowhere) {
            Place::Admitted => change(FairQueue::leave),
            Place::Nowhere | Place::Waiting(_) => change(|queue| queue.pass(round.cost)),
        }
    }
}

impl Drop for TaskState {
    fn drop(&mut self) {
        match std::mem::replace(&mut self.place, Place::Nowhere) {
            Place::Nowhere => (),
            Place::Waiting(waiter) if !waiter.is_admitted.get() => QUEUE.with_borrow_mut(|queue| {
                queue.waiting.retain(|other| !Rc::ptr_eq(other, &waiter));
            }),
            Place::Waiting(_) | Place::Admitted => change(FairQueue::leave),
        }
    }
}

#[cfg(test)]
mod tests;
