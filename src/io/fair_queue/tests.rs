//! Light connections wait for one of the busy ones, and busy ones for each other.

use std::sync::{Arc, Mutex};
use std::task::Wake;

use super::*;
use crate::io::reactor::tests::{reactors, run};
use crate::io::spawn_client;

/// The connections that were woken, in order.
#[derive(Clone, Default)]
struct Woken(Arc<Mutex<Vec<usize>>>);

impl Woken {
    fn take(&self) -> Vec<usize> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

struct Noting(Woken, usize);

impl Wake for Noting {
    fn wake(self: Arc<Self>) {
        self.0.0.lock().unwrap().push(self.1);
    }
}

/// A connection with a number, by which it is known when it is woken.
struct Connection {
    state: TaskState,
    waker: Waker,
}

impl Connection {
    fn new(woken: &Woken, number: usize) -> Self {
        let waker = Waker::from(Arc::new(Noting(woken.clone(), number)));
        Self { state: TaskState::new(), waker }
    }

    /// One that answered its client in its last round, at this cost.
    fn after(woken: &Woken, number: usize, cost: usize) -> Self {
        let mut connection = Self::new(woken, number);
        connection.state.unanswered = 0;
        connection.state.cost = cost;
        connection
    }

    fn begin(&mut self) -> bool {
        self.state.begin(&Context::from_waker(&self.waker))
    }

    fn end(&mut self, cost: usize) {
        self.state.end(Work { cost, is_answer: true });
    }
}

#[test]
fn a_light_connection_has_its_round_at_once() {
    let woken = Woken::default();
    let (mut busy, mut light) =
        (Connection::after(&woken, 0, BUSY), Connection::after(&woken, 1, BUSY - 1));
    assert!(!busy.begin(), "behind all that are ready");
    assert_eq!(woken.take(), [0]);
    assert!(light.begin());
    light.end(1);
    assert!(busy.begin());
    busy.end(BUSY);
    assert!(woken.take().is_empty());
}

#[test]
fn of_busy_connections_one_is_ready_at_a_time_in_the_order_in_which_they_came() {
    let woken = Woken::default();
    let mut all: Vec<_> = (0..4).map(|number| Connection::after(&woken, number, BUSY)).collect();
    assert!(all.iter_mut().all(|it| !it.begin()));
    assert_eq!(woken.take(), [0]);
    assert!(!all[1].begin(), "woken by its socket, it still waits");
    assert!(all[0].begin());
    all[0].end(BUSY);
    assert_eq!(woken.take(), [1]);
    assert!(!all[0].begin(), "behind the others");
    for (now, next) in [(1, 2), (2, 3), (3, 0)] {
        assert!(all[now].begin());
        all[now].end(BUSY);
        assert_eq!(woken.take(), [next]);
    }
}

#[test]
fn a_connection_that_was_busy_is_light_after_a_few_cheap_rounds() {
    let woken = Woken::default();
    let mut connection = Connection::after(&woken, 0, 0);
    assert!(connection.begin());
    connection.end(3 * BUSY);
    for _ in 0..2 {
        assert!(!connection.begin());
        assert!(connection.begin());
        connection.end(0);
    }
    assert!(connection.begin());
}

#[test]
fn a_connection_waits_until_its_first_answer_and_again_without_one_for_long() {
    let woken = Woken::default();
    let mut connection = Connection::new(&woken, 0);
    assert!(!connection.begin());
    assert!(connection.begin());
    connection.end(1);
    for _ in 0..UNANSWERED_MAX {
        assert!(connection.begin());
        connection.state.end(Work { cost: 1, is_answer: false });
    }
    assert!(!connection.begin());
}

#[test]
fn busy_connections_have_a_share_however_much_light_ones_do() {
    let woken = Woken::default();
    let mut busy: Vec<_> = (0..3).map(|number| Connection::after(&woken, number, BUSY)).collect();
    busy.iter_mut().for_each(|it| assert!(!it.begin()));
    assert_eq!(woken.take(), [0]);
    let mut light = Connection::after(&woken, 9, 0);
    for _ in 0..2 * SHARE / CALL_COST {
        assert!(light.begin());
        light.end(CALL_COST);
    }
    assert_eq!(woken.take(), [1, 2]);
    for busy in &mut busy {
        assert!(busy.begin());
        busy.end(BUSY);
    }
}

#[test]
fn one_that_is_gone_is_waited_for_by_nobody() {
    let woken = Woken::default();
    let mut all: Vec<_> = (0..4).map(|number| Connection::after(&woken, number, BUSY)).collect();
    all.iter_mut().for_each(|it| assert!(!it.begin()));
    drop(all.remove(1));
    drop(all.remove(0));
    assert_eq!(woken.take(), [0, 2], "the admitted one is gone, the next is woken");
    drop(all.remove(0));
    assert_eq!(woken.take(), [3], "woken, it was gone before its round");
    assert!(all[0].begin());
    all[0].end(0);
    assert!(QUEUE.with_borrow(|queue| queue.admitted == 0 && queue.waiting.is_empty()));
}

/// Tasks that are always ready, on real executors.
#[test]
fn a_light_task_runs_once_for_each_round_of_a_hundred_busy_ones() {
    const BUSY_TASKS: usize = 100;
    const LIGHT_ROUNDS: usize = 1_000;
    for reactor in reactors() {
        let rounds = run(reactor, || async {
            let rounds: Rc<[Cell<usize>]> = (0..BUSY_TASKS).map(|_| Cell::new(0)).collect();
            for number in 0..BUSY_TASKS {
                let rounds = Rc::clone(&rounds);
                spawn_client(poll_fn(move |context| {
                    note_work(BUSY);
                    note_answer();
                    rounds[number].set(rounds[number].get() + 1);
                    context.waker().wake_by_ref();
                    Poll::Pending
                }));
            }
            let (end, ended) = flume::bounded(1);
            let mut left = LIGHT_ROUNDS;
            spawn_client(poll_fn(move |context| {
                note_answer();
                left -= 1;
                if left > 0 {
                    context.waker().wake_by_ref();
                    return Poll::Pending;
                }
                let _ = end.send(rounds.iter().map(Cell::get).collect::<Vec<_>>());
                Poll::Ready(())
            }));
            ended.recv_async().await.unwrap()
        });
        let (least, most) = (rounds.iter().min().unwrap(), rounds.iter().max().unwrap());
        let sum: usize = rounds.iter().sum();
        assert!(most - least <= 1, "{reactor:?}: by turns, {least} to {most}");
        assert!(sum.abs_diff(LIGHT_ROUNDS) < LIGHT_ROUNDS / 2, "{reactor:?}: {sum} busy rounds");
    }
}
