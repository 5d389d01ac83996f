//! Requests that are not complete yet. Their bytes are in no other budget: a client could begin many large messages and end
//! none. Those that stall are refused when there are many, so that whoever holds the room does not keep it from those who
//! come later.
//!
//! ```text
//!  order of their last bytes:   first ◄── stalled: a quarter of the bound came for others since ──► last
//!                                 └── refused past a quarter of the bound if stalled, past the bound in any case
//! ```
//!
//! Large requests of many clients at once are read in turns, some 64 KiB of each: those that come do not stall, unless
//! they are hundreds. Time is counted in bytes that came, so that a slow machine refuses no more than a fast one.

use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use futures_lite::future::or;
use futures_util::FutureExt as _;

use crate::metrics;
use crate::types::Refusal;
use crate::types::limits::INCOMPLETE_BYTES_UNCOUNTED;

/// Requests that stall are refused past one of so many parts of the bound, and stall while so much comes for others.
const STALLED_PARTS: usize = 4;

/// The incomplete requests of one executor, but for small ones.
#[derive(Debug)]
pub struct IncompleteRequests {
    /// Upper bound of their bytes. One request always fits.
    max: usize,
    /// Never contended: one thread uses it.
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    bytes: usize,
    /// Bytes that ever came.
    came: u64,
    /// By the value of `came` with their last bytes: the one that stalls for longest is the first.
    requests: BTreeMap<u64, Part>,
}

/// The part of a request that has come.
#[derive(Debug)]
struct Part {
    bytes: usize,
    /// Of the task that waits for the rest.
    waker: Option<Waker>,
}

impl IncompleteRequests {
    /// So many bytes may be incomplete.
    pub fn new(max: usize) -> Self {
        Self { max, state: Mutex::default() }
    }

    /// Wakers are neither woken nor dropped here: a task that ends then would come back for the lock.
    fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        work(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl State {
    fn remove(&mut self, at: u64) -> Option<Part> {
        let part = self.requests.remove(&at)?;
        self.bytes -= part.bytes;
        Some(part)
    }

    /// Takes requests out, those first that stall for longest, until those that are left may stay.
    fn take_refused(&mut self, max: usize) -> Vec<Part> {
        let mut taken = Vec::new();
        let many = max / STALLED_PARTS;
        while self.requests.len() > 1
            && let Some((&at, _)) = self.requests.first_key_value()
            && (self.bytes > max || (self.bytes > many && self.came - at > many as u64))
        {
            taken.extend(self.remove(at));
        }
        taken
    }
}

/// The bytes of one request whose message is not complete; counted until it is, or until this is dropped.
#[derive(Debug)]
pub struct IncompleteBytes {
    requests: Arc<IncompleteRequests>,
    /// Its place among the others; 0 if it is not counted.
    at: u64,
}

impl IncompleteBytes {
    /// None have come.
    pub fn new(requests: &Arc<IncompleteRequests>) -> Self {
        Self { requests: Arc::clone(requests), at: 0 }
    }

    /// So many bytes of the current message have come; 0 if it is complete.
    ///
    /// # Errors
    /// The request is refused, now or before.
    pub fn came(&mut self, bytes: usize) -> Result<(), Refusal> {
        if self.at == 0 && bytes <= INCOMPLETE_BYTES_UNCOUNTED {
            return Ok(());
        }
        let Self { requests, at } = self;
        if bytes == 0 {
            let complete = requests.with(|state| state.remove(*at));
            return complete.map(|_| *at = 0).ok_or(Refusal::TooManyAnswers);
        }
        let (is_kept, refused) = requests.with(|state| {
            let before = match *at {
                0 => Part { bytes: 0, waker: None },
                at => match state.remove(at) {
                    Some(part) => part,
                    None => return (false, Vec::new()),
                },
            };
            // Never the same twice, so that it can be a name.
            state.came += bytes.saturating_sub(before.bytes).max(1) as u64;
            *at = state.came;
            state.bytes += bytes;
            state.requests.insert(*at, Part { bytes, ..before });
            let refused = state.take_refused(requests.max);
            (state.requests.contains_key(at), refused)
        });
        metrics::REQUESTS_REFUSED.add(refused.len() as u64);
        refused.into_iter().filter_map(|part| part.waker).for_each(Waker::wake);
        if is_kept { Ok(()) } else { Err(Refusal::TooManyAnswers) }
    }

    /// Ready once the request is refused.
    pub fn poll_refused(&self, context: &mut Context<'_>) -> Poll<Refusal> {
        if self.at == 0 {
            return Poll::Pending;
        }
        let waker = context.waker().clone();
        let replaced = self
            .requests
            .with(|state| state.requests.get_mut(&self.at).map(|part| part.waker.replace(waker)));
        match replaced {
            None => Poll::Ready(Refusal::TooManyAnswers),
            Some(_) => Poll::Pending,
        }
    }

    /// The output of `next`, which waits for more of the request, unless the request is refused.
    ///
    /// # Errors
    /// The request is refused.
    pub fn unless_refused<T>(
        &self,
        next: impl Future<Output = T>,
    ) -> impl Future<Output = Result<T, Refusal>> {
        or(next.map(Ok), poll_fn(|context| self.poll_refused(context).map(Err)))
    }
}

impl Drop for IncompleteBytes {
    fn drop(&mut self) {
        if self.at != 0 {
            self.requests.with(|state| state.remove(self.at));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use super::*;
    use futures_lite::future::{block_on, pending, poll_once};

    const SMALL: usize = INCOMPLETE_BYTES_UNCOUNTED;
    const MAX: usize = 64 * SMALL;
    const MANY: usize = MAX / STALLED_PARTS;
    const REFUSED: Result<(), Refusal> = Err(Refusal::TooManyAnswers);

    fn bytes(requests: &IncompleteRequests) -> usize {
        requests.with(|state| state.bytes)
    }

    #[test]
    fn one_that_stalls_is_refused_when_there_are_many() {
        let requests = Arc::new(IncompleteRequests::new(MAX));
        let [mut stalled, mut other, mut small] = [(); 3].map(|()| IncompleteBytes::new(&requests));
        assert_eq!(stalled.came(MANY / 2), Ok(()));
        assert_eq!(small.came(SMALL), Ok(()));
        assert_eq!(bytes(&requests), MANY / 2, "small ones are not counted");
        {
            let mut waits = pin!(stalled.unless_refused(pending::<()>()));
            assert_eq!(other.came(MANY), Ok(()));
            assert_eq!(block_on(poll_once(waits.as_mut())), None, "it does not stall yet");
            assert_eq!(other.came(MANY + 1), Ok(()));
            assert_eq!(block_on(waits), REFUSED);
        }
        assert_eq!(stalled.came(MANY), REFUSED, "it stays refused");
        assert_eq!(bytes(&requests), MANY + 1);
    }

    #[test]
    fn those_that_come_by_turns_are_all_kept_up_to_the_bound() {
        const PIECE: usize = 2 * SMALL;
        const COUNT: usize = MAX / MANY;
        let requests = Arc::new(IncompleteRequests::new(MAX));
        let mut all: Vec<_> = (0..COUNT).map(|_| IncompleteBytes::new(&requests)).collect();
        for round in 1..=MANY / PIECE {
            for request in &mut all {
                assert_eq!(request.came(round * PIECE), Ok(()));
            }
        }
        assert_eq!(bytes(&requests), MAX);
        assert_eq!(all[COUNT - 1].came(MANY + 1), Ok(()), "the last one is the one that comes");
        assert_eq!(all[0].came(MANY), REFUSED, "the first had its turn before all others");
        assert_eq!(all[1].came(MANY), Ok(()));
        drop(all);
        assert_eq!(bytes(&requests), 0);
    }

    #[test]
    fn few_bytes_may_stall_for_ever() {
        let requests = Arc::new(IncompleteRequests::new(MAX));
        let mut stalled = IncompleteBytes::new(&requests);
        assert_eq!(stalled.came(MANY / 2), Ok(()));
        for _ in 0..100 {
            let mut other = IncompleteBytes::new(&requests);
            assert_eq!((other.came(MANY / 2), other.came(0)), (Ok(()), Ok(())));
        }
        assert_eq!(stalled.came(MANY / 2 + 1), Ok(()));
    }

    #[test]
    fn one_request_always_fits_and_the_next_of_its_messages_is_counted_anew() {
        let requests = Arc::new(IncompleteRequests::new(MAX));
        let mut only = IncompleteBytes::new(&requests);
        for _ in 0..2 {
            assert_eq!(only.came(2 * MAX), Ok(()));
            assert_eq!(only.came(3 * MAX), Ok(()));
            assert_eq!(bytes(&requests), 3 * MAX, "what it had is counted once");
            assert_eq!(only.came(0), Ok(()));
            assert_eq!(bytes(&requests), 0);
        }
    }

    #[test]
    fn a_request_that_waits_is_woken_when_it_is_refused() {
        use std::sync::atomic::{AtomicBool, Ordering};
        struct Woken(AtomicBool);
        impl std::task::Wake for Woken {
            fn wake(self: Arc<Self>) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        let requests = Arc::new(IncompleteRequests::new(MAX));
        let [mut old, mut new] = [(); 2].map(|()| IncompleteBytes::new(&requests));
        old.came(MAX).expect("room");
        let woken = Arc::new(Woken(AtomicBool::new(false)));
        let waker = Waker::from(Arc::clone(&woken));
        assert_eq!(old.poll_refused(&mut Context::from_waker(&waker)), Poll::Pending);
        new.came(SMALL + 1).expect("room, once the old one is refused");
        assert!(woken.0.load(Ordering::Relaxed));
    }
}
