//! Rounds with random calls, wakes and ends, compared with the expected state.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Wake;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use super::*;

const SEEDS: u64 = 500;
const STEPS: usize = 60;

/// The waker of a connection's task.
#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The test's state of a call.
#[derive(Clone, Default)]
struct Known {
    /// The waker of its last poll.
    waker: Option<Waker>,
    polls: usize,
    is_gone: bool,
}

/// State shared by calls and test.
#[derive(Default)]
struct Seen {
    /// Number of calls that exist.
    alive: Cell<usize>,
    calls: RefCell<Vec<Known>>,
    rng: RefCell<Option<StdRng>>,
}

impl Seen {
    fn chance(&self, of: f64) -> bool {
        self.rng.borrow_mut().as_mut().is_some_and(|rng| rng.random_bool(of))
    }
}

/// A call that ends, wakes itself or another one, and begins others, at random; in its destructor, too.
struct Random {
    number: usize,
    handle: Handle,
    seen: Rc<Seen>,
}

impl Random {
    fn begin(handle: &Handle, seen: &Rc<Seen>) {
        let number = seen.calls.borrow().len();
        seen.calls.borrow_mut().push(Known::default());
        seen.alive.set(seen.alive.get() + 1);
        handle.execute(Self { number, handle: handle.clone(), seen: Rc::clone(seen) });
    }

    fn wake_another(&self) {
        let calls = self.seen.calls.borrow();
        let other = &calls[(self.number * 7 + 3) % calls.len()];
        other.waker.iter().for_each(Waker::wake_by_ref);
    }
}

impl Future for Random {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        {
            let call = &mut self.seen.calls.borrow_mut()[self.number];
            call.waker = Some(context.waker().clone());
            call.polls += 1;
        }
        if self.seen.chance(0.2) {
            Self::begin(&self.handle, &self.seen);
        }
        if self.seen.chance(0.2) {
            self.wake_another();
        }
        if self.seen.chance(0.1) {
            context.waker().wake_by_ref();
        }
        if self.seen.chance(0.4) { Poll::Ready(()) } else { NEVER }
    }
}

impl Drop for Random {
    fn drop(&mut self) {
        self.seen.alive.set(self.seen.alive.get() - 1);
        self.seen.calls.borrow_mut()[self.number].is_gone = true;
        if self.seen.chance(0.2) {
            Self::begin(&self.handle, &self.seen);
        }
        self.wake_another();
    }
}

/// Runs rounds until the task is not woken any more.
fn settle(turn: &mut ConnectionScheduler, woken: &Arc<Woken>) {
    let waker = Waker::from(Arc::clone(woken));
    while woken.0.swap(false, Ordering::Relaxed) {
        assert_eq!(idle(turn, &mut Context::from_waker(&waker)), NEVER);
    }
}

/// Wakes the call of this number: afterwards it must have been polled, or be dropped.
fn wake(turn: &mut ConnectionScheduler, woken: &Arc<Woken>, seen: &Seen, number: usize) {
    let before = seen.calls.borrow()[number].clone();
    before.waker.iter().for_each(Waker::wake_by_ref);
    settle(turn, woken);
    let after = &seen.calls.borrow()[number];
    assert!(after.is_gone || after.polls > before.polls, "call {number} is forgotten");
}

#[test]
fn random_calls_are_all_polled_and_dropped() {
    for seed in 0..SEEDS {
        let mut rng = StdRng::seed_from_u64(seed);
        let seen = Rc::new(Seen::default());
        seen.rng.replace(Some(StdRng::seed_from_u64(!seed)));
        let (mut turn, woken) = (ConnectionScheduler::new(), Arc::new(Woken::default()));
        let handle = turn.handle();
        for _ in 0..rng.random_range(0..STEPS) {
            if rng.random_bool(0.5) {
                Random::begin(&handle, &seen);
                woken.0.store(true, Ordering::Relaxed);
                settle(&mut turn, &woken);
            }
            let count = seen.calls.borrow().len();
            if count > 0 && rng.random_bool(0.5) {
                wake(&mut turn, &woken, &seen, rng.random_range(0..count));
            }
            assert_eq!(turn.calls.len(), seen.alive.get(), "seed {seed}");
        }
        Random::begin(&handle, &seen);
        match rng.random_bool(0.5) {
            true => drop(turn),
            false => {
                let context = &mut Context::from_waker(Waker::noop());
                assert_eq!(turn.take(context, |_| Poll::Ready(())), Poll::Ready(()));
            }
        }
        assert_eq!(seen.alive.get(), 0, "seed {seed}");
        // Wakers of dropped calls wake nothing, and calls that begin late are dropped.
        let wakers: Vec<_> = seen.calls.borrow().iter().filter_map(|it| it.waker.clone()).collect();
        wakers.iter().for_each(Waker::wake_by_ref);
        Random::begin(&handle, &seen);
        assert_eq!(seen.alive.get(), 0, "seed {seed}");
    }
}
