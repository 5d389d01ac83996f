//! Callers that wait for a slot, in order of arrival. A caller that is dropped, even between its wake-up and its next
//! poll, wakes the next one, which would otherwise wait for ever.

use std::collections::BTreeMap;
use std::task::Waker;

/// Callers that wait.
#[derive(Default)]
pub(super) struct Waiters {
    last: u64,
    wakers: BTreeMap<u64, Waker>,
}

impl Waiters {
    /// Waits at `place`, or at a new one at the end.
    pub(super) fn wait(&mut self, place: &mut Option<u64>, waker: &Waker) {
        let place = *place.get_or_insert_with(|| {
            self.last += 1;
            self.last
        });
        self.wakers.insert(place, waker.clone());
    }

    /// A slot became free.
    pub(super) fn wake_next(&mut self) {
        if let Some((_, waker)) = self.wakers.pop_first() {
            waker.wake();
        }
    }

    /// The caller at `place` acquired a slot.
    pub(super) fn enter(&mut self, place: u64) {
        self.wakers.remove(&place);
    }

    /// The caller at `place` was dropped without a slot.
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
    fn a_caller_that_is_gone_passes_its_turn_on() {
        let mut waiters = Waiters::default();
        let mut wait = || {
            let (woken, mut place) = (Arc::new(Woken::default()), None);
            waiters.wait(&mut place, &Waker::from(Arc::clone(&woken)));
            (woken, place.expect("a place"))
        };
        let (gone, woken_and_gone, third) = (wait(), wait(), wait());
        waiters.give_up(gone.1);
        waiters.wake_next();
        waiters.give_up(woken_and_gone.1);
        let woken = [gone, woken_and_gone, third].map(|it| it.0.0.load(Ordering::Relaxed));
        assert_eq!(woken, [0, 1, 1]);
    }
}
