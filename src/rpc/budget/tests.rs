//! Order and amounts of reservations of a budget; all of it is released at the end.

use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use super::*;

const MIB: usize = 1 << 20;

/// A budget of a hundred MiB.
fn budget(waiting_max: usize, wait_max: Duration) -> &'static Budget {
    let whole = Budget::new(ClientKind::Proven, None, 100 * MIB);
    Box::leak(Box::new(Budget { waiting_max, wait_max, ..whole }))
}

fn patient() -> &'static Budget {
    budget(8, Duration::from_secs(60))
}

fn holding(budget: &'static Budget, mebibytes: usize) -> Reservation {
    let mut growing = Reservation::of(budget);
    assert!(growing.grow(mebibytes * MIB));
    growing
}

fn poll<T>(future: Pin<&mut impl Future<Output = T>>) -> Poll<T> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

#[test]
fn large_reservation_waits_and_is_not_overtaken() {
    let budget = patient();
    let (one, other) = (holding(budget, 45), holding(budget, 40));
    let mut late = holding(budget, 10);
    assert!(!late.grow(10 * MIB));
    let mut first = pin!(late.wait());
    assert_eq!(poll(first.as_mut()), Poll::Pending);
    assert_eq!(budget.taken.load(SeqCst), 85 * MIB, "a request that waits holds nothing");

    // It would fit, but others are first; small ones do not count.
    let mut second = Reservation::of(budget);
    assert!(!second.grow(MIB));
    assert!(Reservation::of(budget).grow(RESPONSE_BYTES_UNCOUNTED));
    let mut second = pin!(second.wait());
    assert_eq!(poll(second.as_mut()), Poll::Pending);

    // Twice the bytes that were read must be free.
    drop(other.permit());
    assert_eq!(poll(first.as_mut()), Poll::Ready(Ok(())));
    assert_eq!(poll(second.as_mut()), Poll::Ready(Ok(())));
    assert_eq!(budget.taken.load(SeqCst), (45 + 40 + 2) * MIB);
    drop(one);
    assert_eq!(budget.taken.load(SeqCst), 42 * MIB);
}

#[test]
fn repeated_read_has_its_reservation_and_releases_the_rest() {
    let budget = patient();
    let other = holding(budget, 70);
    let mut answer = holding(budget, 20);
    assert!(!answer.grow(20 * MIB));
    {
        let mut waiting = pin!(answer.wait());
        assert_eq!(poll(waiting.as_mut()), Poll::Pending);
        drop(other);
        assert_eq!(poll(waiting.as_mut()), Poll::Ready(Ok(())));
    }
    assert_eq!(budget.taken.load(SeqCst), 80 * MIB);
    assert!((0..5).all(|_| answer.grow(10 * MIB)));
    let permit = answer.permit().expect("it is large");
    assert_eq!(budget.taken.load(SeqCst), 50 * MIB);
    drop(permit.clone());
    assert_eq!(budget.taken.load(SeqCst), 50 * MIB);
    drop(permit);
    assert_eq!(budget.taken.load(SeqCst), 0);
}

#[test]
fn dropped_waiter_leaves_the_queue_at_once() {
    let budget = patient();
    let other = holding(budget, 60);
    let (mut large, mut small) = (Reservation::of(budget), Reservation::of(budget));
    assert!(!large.grow(45 * MIB));
    {
        let mut large = Box::pin(large.wait());
        assert_eq!(poll(large.as_mut()), Poll::Pending);
        assert!(!small.grow(10 * MIB));
        let mut small = pin!(small.wait());
        assert_eq!(poll(small.as_mut()), Poll::Pending);
        drop(large);
        assert_eq!(poll(small.as_mut()), Poll::Ready(Ok(())));
    }
    // One that was admitted and dropped before it noticed.
    let mut gone = Reservation::of(budget);
    assert!(!gone.grow(30 * MIB));
    let mut gone_waits = Box::pin(gone.wait());
    assert_eq!(poll(gone_waits.as_mut()), Poll::Pending);
    drop(other);
    assert_eq!(budget.taken.load(SeqCst), 80 * MIB);
    drop(gone_waits);
    assert_eq!(budget.taken.load(SeqCst), 20 * MIB);
    drop(small);
    assert_eq!((budget.taken.load(SeqCst), budget.queue().len()), (0, 0));
}

#[test]
fn too_many_too_long_and_too_large_are_refused() {
    let refused = Poll::Ready(Err(Refusal::TooManyAnswers));
    let budget = budget(1, Duration::from_millis(20));
    let mut alone = holding(budget, 70);
    assert!(!alone.grow(70 * MIB));
    assert_eq!(poll(pin!(alone.wait())), refused, "it fits into no budget");
    let other = holding(budget, 90);
    let (mut first, mut second) = (Reservation::of(budget), Reservation::of(budget));
    assert!(!first.grow(20 * MIB) && !second.grow(20 * MIB));
    let mut first = pin!(first.wait());
    assert_eq!(poll(first.as_mut()), Poll::Pending);
    assert_eq!(poll(pin!(second.wait())), refused, "one may wait");
    assert_eq!(futures_lite::future::block_on(first), Err(Refusal::TooManyAnswers));
    assert_eq!(budget.queue().len(), 0);
    assert_eq!(Refusal::TooManyAnswers.code(), crate::types::Code::ResourceExhausted);
    assert_eq!(Refusal::TooManyAnswers.text(), "etcdserver: too many requests");
    drop(other);
    assert_eq!(budget.taken.load(SeqCst), 0);
}

#[test]
fn a_stream_holds_one_chunk_at_a_time() {
    let budget = patient();
    let mut stream = Reservation::of(budget);
    assert_eq!(poll(pin!(stream.hold(30 * MIB))), Poll::Ready(Ok(())));
    assert_eq!(poll(pin!(stream.hold(10 * MIB))), Poll::Ready(Ok(())));
    let other = holding(budget, 85);
    let mut more = pin!(stream.hold(20 * MIB));
    assert_eq!(poll(more.as_mut()), Poll::Pending);
    assert_eq!(budget.taken.load(SeqCst), 85 * MIB);
    drop(other);
    assert_eq!(poll(more.as_mut()), Poll::Ready(Ok(())));
    assert_eq!(budget.taken.load(SeqCst), 20 * MIB);
}

#[test]
fn new_clients_wait_for_each_other_and_an_answer_too_large_for_them_is_counted_with_the_others() {
    let proven = patient();
    let new: &'static Budget =
        Box::leak(Box::new(Budget::new(ClientKind::New, Some(proven), 10 * MIB)));
    let one = holding(new, 8);
    let (mut second, mut large) = (Reservation::of(new), Reservation::of(new));
    assert!(!second.grow(4 * MIB) && !large.grow(6 * MIB));
    let mut second = pin!(second.wait());
    assert_eq!(poll(second.as_mut()), Poll::Pending);
    assert_eq!(poll(pin!(large.wait())), Poll::Ready(Ok(())), "twice its bytes do not fit");
    assert_eq!((new.taken.load(SeqCst), proven.taken.load(SeqCst)), (8 * MIB, 12 * MIB));
    assert!(holding(proven, 80).grow(MIB), "others do not wait");

    assert!(large.grow(11 * MIB));
    let large = large.permit();
    assert_eq!(proven.taken.load(SeqCst), 11 * MIB);
    drop(one);
    assert_eq!(poll(second.as_mut()), Poll::Ready(Ok(())));
    drop(large);
    assert_eq!((new.taken.load(SeqCst), proven.taken.load(SeqCst)), (8 * MIB, 0));
}

#[test]
fn little_of_any_budget_is_kept_from_the_largest_answer() {
    for bytes in [1024, 512, 96, 48, 3] {
        assert_eq!(of_new(bytes * MIB), bytes * (MIB / 16));
    }
}

/// Many threads reserve, give up and retry with all sizes: never more than the budget is taken, none waits for ever,
/// and all of it is released.
#[test]
fn nobody_is_forgotten_and_nothing_is_lost() {
    use rand::rngs::StdRng;
    use rand::{Rng as _, SeedableRng as _};

    let budget = budget(64, Duration::from_secs(60));
    let reader = |seed| {
        let mut random = StdRng::seed_from_u64(seed);
        for _ in 0..300 {
            let pieces = random.random_range(1..60);
            let mut answer = Reservation::of(budget);
            let mut read = 0;
            while read < pieces {
                if answer.grow(MIB) {
                    read += 1;
                } else {
                    read = 0;
                    futures_lite::future::block_on(answer.wait()).expect("its turn comes");
                }
                assert!(budget.taken.load(SeqCst) <= budget.bytes_max());
            }
            if random.random() {
                drop(answer.permit());
            }
        }
    };
    std::thread::scope(|scope| {
        for seed in 0..8 {
            scope.spawn(move || reader(seed));
        }
    });
    assert_eq!((budget.taken.load(SeqCst), budget.queue().len()), (0, 0));
}
