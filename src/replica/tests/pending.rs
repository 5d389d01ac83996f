//! Pending requests, from their slot to their answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use bytes::Bytes;

use crate::machine::Reply;
use crate::replica::{Delivery, PendingRequests, executor_of};
use crate::types::Refusal;
use crate::types::limits::{BUNDLE_BYTES_MAX, BUNDLE_PROPOSALS_MAX};

const NONCE: u32 = 77;

fn pending() -> PendingRequests {
    PendingRequests::new(3, NONCE, 0)
}

/// Ids of released requests that may be kept.
const PILED_UP: usize = 2000;

fn propose(pending: &mut PendingRequests, command: Bytes) {
    let id = pending.acquire();
    pending.propose(id, command);
}

fn replies(ids: &[u64]) -> Delivery {
    let replies = ids.iter().map(|id| (*id, Ok(Reply::Done))).collect();
    Delivery { replies, ..Delivery::default() }
}

#[derive(Default)]
struct Wakes(AtomicUsize);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn ids_name_the_executor_and_this_start() {
    let id = pending().acquire();
    assert_eq!(executor_of(id, NONCE), Some(3));
    assert_eq!(executor_of(id, NONCE + 1), None, "of another start, or another member");
}

#[test]
fn an_id_that_still_waits_is_not_given_twice() {
    let mut pending = pending();
    let first = pending.acquire();
    // The counter has 24 bits.
    pending.counter = 0xff_ffff - 1;
    let ids = [(); 3].map(|()| pending.acquire());
    assert!(!ids.contains(&first), "{ids:x?}");
    assert_eq!(ids.map(|id| id & 0xff_ffff), [0xff_ffff, 0, 2]);
}

#[test]
fn an_answer_wakes_its_session_and_is_taken_once() {
    let (mut pending, wakes) = (pending(), Arc::new(Wakes::default()));
    let waker = Waker::from(Arc::clone(&wakes));
    let (id, other) = (pending.acquire(), pending.acquire());
    assert!(pending.poll_reply(id, &waker).is_pending());
    pending.deliver(replies(&[other, 12345]));
    assert_eq!(wakes.0.load(Ordering::Relaxed), 0, "the answers of others");
    pending.deliver(replies(&[id]));
    assert_eq!(wakes.0.load(Ordering::Relaxed), 1);
    assert_eq!(pending.poll_reply(id, &waker), Poll::Ready(Ok(Reply::Done)));
    pending.release(id);
    assert_eq!(pending.poll_reply(id, &waker), Poll::Ready(Err(Refusal::Stopped)));
}

#[test]
fn bundles_are_bounded_in_count_and_bytes() {
    let mut pending = pending();
    let large = Bytes::from(vec![0; BUNDLE_BYTES_MAX / 3]);
    let larger = Bytes::from(vec![0; 2 * BUNDLE_BYTES_MAX]);
    let small = vec![Bytes::from_static(b"x"); BUNDLE_PROPOSALS_MAX + 1];
    [vec![large; 4], vec![larger; 2], small]
        .concat()
        .into_iter()
        .for_each(|it| propose(&mut pending, it));
    let mut counts = Vec::new();
    while pending.poll_bundle(&Context::from_waker(Waker::noop())).is_ready() {
        counts.push(pending.take_bundle(0).0.len());
    }
    assert_eq!(counts, [3, 1, 1, 1, BUNDLE_PROPOSALS_MAX, 1]);
    assert_eq!(pending.take_bundle(0), (Vec::new(), None));
}

#[test]
fn what_was_released_is_not_handed_in_and_holds_no_memory() {
    let mut pending = pending();
    let command = Bytes::from(vec![7; 100]);
    // Nothing is taken, and all time out, for as long as that may be.
    for _ in 0..10 * PILED_UP {
        let id = pending.acquire();
        pending.propose(id, command.clone());
        pending.release(id);
    }
    assert!(command.is_unique(), "nothing else holds it");
    assert!(pending.queued() <= PILED_UP, "{}", pending.queued());
    let kept = pending.acquire();
    pending.propose(kept, command.clone());
    assert_eq!(pending.take_bundle(0), (vec![command], None));
    assert!(pending.poll_bundle(&Context::from_waker(Waker::noop())).is_pending());
}

#[test]
fn readers_share_a_batch_until_it_leaves() {
    let mut pending = pending();
    let (first, second) = (pending.join_read(), pending.join_read());
    assert_eq!(first, second);
    assert_eq!(pending.take_bundle(0), (Vec::new(), Some(first)));
    let third = pending.join_read();
    assert_ne!(third, first, "the index of a batch that left may be older than this read");
    pending.deliver(Delivery { reads: vec![first], ..Delivery::default() });
    assert_eq!(pending.poll_read(first, Waker::noop()), Poll::Ready(Ok(())));
    assert!(pending.poll_read(third, Waker::noop()).is_pending());
}

#[test]
fn readers_that_are_gone_leave_no_batch_behind() {
    let mut pending = pending();
    // It disconnects before the batch is sent: no read index is requested.
    let batch = pending.join_read();
    pending.leave_read(batch);
    assert_eq!(pending.take_bundle(0), (Vec::new(), None));
    // It disconnects before the answer.
    let batch = pending.join_read();
    assert_eq!(pending.take_bundle(0).1, Some(batch));
    pending.leave_read(batch);
    pending.deliver(Delivery { reads: vec![batch], ..Delivery::default() });
    // It disconnects after the answer.
    let batch = pending.join_read();
    assert_eq!(pending.take_bundle(0).1, Some(batch));
    pending.deliver(Delivery { reads: vec![batch], ..Delivery::default() });
    pending.leave_read(batch);
    assert_eq!(pending.counts(), (0, 0));
}

#[test]
fn late_requests_and_reads_are_answered() {
    let mut pending = pending();
    let old = pending.acquire();
    let read = pending.join_read();
    assert_eq!(pending.take_bundle(400).1, Some(read));
    let new = pending.acquire();
    pending.sweep(501, 500, |since_ms| {
        assert_eq!(since_ms, 0);
        Refusal::TimeoutDueToLeaderFail
    });
    let refused = Poll::Ready(Err(Refusal::TimeoutDueToLeaderFail));
    assert_eq!(pending.poll_reply(old, Waker::noop()), refused);
    assert!(pending.poll_reply(new, Waker::noop()).is_pending());
    assert_eq!(pending.poll_read(read, Waker::noop()), Poll::Ready(Err(Refusal::Timeout)));
    pending.close();
    assert_eq!(pending.poll_reply(new, Waker::noop()), Poll::Ready(Err(Refusal::Stopped)));
}

#[test]
fn a_pause_without_requests_does_not_count_as_waiting() {
    let wakes = Arc::new(Wakes::default());
    let waker = Waker::from(Arc::clone(&wakes));
    let mut pending = pending();
    assert!(pending.poll_used(&Context::from_waker(&waker)).is_pending());
    for now_ms in [60_000, 120_000] {
        pending.begin(|| now_ms);
        let (id, read) = (pending.acquire(), pending.join_read());
        assert!(pending.poll_used(&Context::from_waker(&waker)).is_ready());
        // The time is asked for once.
        pending.begin(|| unreachable!("there is a request"));
        pending.sweep(now_ms + 500, 500, |_| Refusal::Timeout);
        assert!(pending.poll_reply(id, Waker::noop()).is_pending());
        pending.sweep(now_ms + 501, 500, |_| Refusal::Timeout);
        assert_eq!(pending.poll_reply(id, Waker::noop()), Poll::Ready(Err(Refusal::Timeout)));
        assert!(pending.poll_read(read, Waker::noop()).is_ready());
        pending.release(id);
    }
    assert_eq!(wakes.0.load(Ordering::Relaxed), 1, "the sweeper waited once");
}

#[test]
fn a_read_index_is_known_before_it_is_applied() {
    let mut pending = pending();
    let batch = pending.join_read();
    assert_eq!(pending.take_bundle(0).1, Some(batch));
    assert!(pending.poll_read_index(batch, Waker::noop()).is_pending());
    pending.deliver(Delivery { indexed: vec![batch], ..Delivery::default() });
    assert_eq!(pending.poll_read_index(batch, Waker::noop()), Poll::Ready(Ok(())));
    assert!(pending.poll_read(batch, Waker::noop()).is_pending(), "a read waits longer");
}
