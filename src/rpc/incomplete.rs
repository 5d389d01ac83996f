//! Requests that are not complete yet. Their bytes are in no other budget: a client could begin many large messages and end
//! none. Past the bound the oldest is refused, so that whoever holds the room does not keep it from those who come later,
//! whose messages are complete within milliseconds.

use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use crate::metrics;
use crate::types::Refusal;
use crate::types::limits::INCOMPLETE_BYTES_UNCOUNTED;

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
    last_id: u64,
    /// By id: the oldest is the first.
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
    fn remove(&mut self, id: u64) -> Option<Part> {
        let part = self.requests.remove(&id)?;
        self.bytes -= part.bytes;
        Some(part)
    }

    /// Takes the oldest requests out until at most `max` bytes, or one request, are left.
    fn take_oldest(&mut self, max: usize) -> Vec<Part> {
        let mut taken = Vec::new();
        while self.bytes > max
            && self.requests.len() > 1
            && let Some((id, _)) = self.requests.first_key_value()
        {
            taken.extend(self.remove(*id));
        }
        taken
    }
}

/// The bytes of one request whose message is not complete; counted until it is, or until this is dropped.
#[derive(Debug)]
pub struct IncompleteBytes {
    requests: Arc<IncompleteRequests>,
    /// 0 if it is not counted.
    id: u64,
}

impl IncompleteBytes {
    /// None have come.
    pub fn new(requests: &Arc<IncompleteRequests>) -> Self {
        Self { requests: Arc::clone(requests), id: 0 }
    }

    /// So many bytes of the current message have come; 0 if it is complete.
    ///
    /// # Errors
    /// The request is refused, now or before.
    pub fn came(&mut self, bytes: usize) -> Result<(), Refusal> {
        if self.id == 0 && bytes <= INCOMPLETE_BYTES_UNCOUNTED {
            return Ok(());
        }
        let Self { requests, id } = self;
        if bytes == 0 {
            let complete = requests.with(|state| state.remove(*id));
            return complete.map(|_| *id = 0).ok_or(Refusal::TooManyAnswers);
        }
        let (is_kept, refused) = requests.with(|state| {
            if *id == 0 {
                state.last_id += 1;
                *id = state.last_id;
                state.requests.insert(*id, Part { bytes: 0, waker: None });
            }
            let Some(part) = state.requests.get_mut(id) else { return (false, Vec::new()) };
            state.bytes = state.bytes - part.bytes + bytes;
            part.bytes = bytes;
            let refused = state.take_oldest(requests.max);
            (state.requests.contains_key(id), refused)
        });
        metrics::REQUESTS_REFUSED.add(refused.len() as u64);
        refused.into_iter().filter_map(|part| part.waker).for_each(Waker::wake);
        if is_kept { Ok(()) } else { Err(Refusal::TooManyAnswers) }
    }

    /// Ready once the request is refused.
    pub fn poll_refused(&self, context: &mut Context<'_>) -> Poll<Refusal> {
        if self.id == 0 {
            return Poll::Pending;
        }
        let waker = context.waker().clone();
        let replaced = self
            .requests
            .with(|state| state.requests.get_mut(&self.id).map(|part| part.waker.replace(waker)));
        match replaced {
            None => Poll::Ready(Refusal::TooManyAnswers),
            Some(_) => Poll::Pending,
        }
    }

    /// The output of `next`, which waits for more of the request, unless the request is refused.
    ///
    /// # Errors
    /// The request is refused.
    pub async fn unless_refused<T>(&self, next: impl Future<Output = T>) -> Result<T, Refusal> {
        let mut next = pin!(next);
        poll_fn(|context| match next.as_mut().poll(context) {
            Poll::Ready(output) => Poll::Ready(Ok(output)),
            Poll::Pending => self.poll_refused(context).map(Err),
        })
        .await
    }
}

impl Drop for IncompleteBytes {
    fn drop(&mut self) {
        if self.id != 0 {
            self.requests.with(|state| state.remove(self.id));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_lite::future::{block_on, pending, poll_once};

    const SMALL: usize = INCOMPLETE_BYTES_UNCOUNTED;
    const MAX: usize = 4 * SMALL;
    const REFUSED: Result<(), Refusal> = Err(Refusal::TooManyAnswers);

    fn bytes(requests: &IncompleteRequests) -> usize {
        requests.with(|state| state.bytes)
    }

    #[test]
    fn the_oldest_is_refused_when_they_are_too_large_together() {
        let requests = Arc::new(IncompleteRequests::new(MAX));
        let [mut first, mut second, mut third] = [(); 3].map(|()| IncompleteBytes::new(&requests));
        assert_eq!(first.came(MAX - SMALL), Ok(()));
        assert_eq!(second.came(SMALL), Ok(()), "a small one");
        assert_eq!(bytes(&requests), MAX - SMALL);
        {
            let mut waits = pin!(first.unless_refused(pending::<()>()));
            assert_eq!(block_on(poll_once(waits.as_mut())), None);
            assert_eq!(second.came(SMALL + 1), Ok(()));
            assert_eq!(block_on(waits), REFUSED, "the first waits for the rest");
        }
        assert_eq!(first.came(MAX), REFUSED, "it stays refused");
        assert_eq!(bytes(&requests), SMALL + 1);
        assert_eq!(third.came(MAX - SMALL - 1), Ok(()), "they fit exactly");
        assert_eq!(second.came(SMALL + 2), REFUSED, "the oldest is the one that grows");
        assert_eq!(bytes(&requests), MAX - SMALL - 1);
        drop([first, second, third]);
        assert_eq!(bytes(&requests), 0);
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
