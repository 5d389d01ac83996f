//! Callers that found no room, in the order in which they came. A caller may be gone before its turn comes, or
//! between being woken and coming in: then it is the turn of the next one, who would otherwise wait for ever.

use std::collections::BTreeMap;
use std::task::Waker;

/// Callers that wait.
#[derive(Default)]
pub(super) struct Queue {
    last: u64,
    wakers: BTreeMap<u64, Waker>,
}

impl Queue {
    /// Waits at `place`, or at a new one at the end.
    pub(super) fn wait(&mut self, place: &mut Option<u64>, waker: &Waker) {
        let place = *place.get_or_insert_with(|| {
            self.last += 1;
            self.last
        });
        self.wakers.insert(place, waker.clone());
    }

    /// There is room for one more.
    pub(super) fn wake_next(&mut self) {
        if let Some((_, waker)) = self.wakers.pop_first() {
            waker.wake();
        }
    }

    /// The caller at `place` came in.
    pub(super) fn enter(&mut self, place: u64) {
        self.wakers.remove(&place);
    }

    /// The caller at `place` is gone without having come in.
    pub(super) fn give_up(&mut self, place: u64) {
        if self.wakers.remove(&place).is_none() {
            self.wake_next();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn who_is_gone_does_not_take_the_turn_of_the_next_one() {
        let mut queue = Queue::default();
        let mut wait = || {
            let (woken, mut place) = (Arc::new(Woken::default()), None);
            queue.wait(&mut place, &Waker::from(Arc::clone(&woken)));
            (woken, place.expect("a place"))
        };
        let (gone, woken_and_gone, third) = (wait(), wait(), wait());
        queue.give_up(gone.1);
        queue.wake_next();
        queue.give_up(woken_and_gone.1);
        let woken = [gone, woken_and_gone, third].map(|it| it.0.0.load(Ordering::Relaxed));
        assert_eq!(woken, [0, 1, 1]);
    }
}
