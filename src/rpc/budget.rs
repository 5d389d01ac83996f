//! One budget of bytes for all answers that are on their way. Past it a request waits for its turn, within bounds of
//! number and time, and is refused only then, instead of all of them dying with the process.
//!
//! ```text
//!  read ─► grow ─┬─ fits ─────────► read on ─► permit, until the answer has left
//!                └─ does not fit ─► give all back ─► queue, first come first served ─► read again from the beginning
//! ```
//!
//! Nobody waits with a part of the budget in hand, so that no two can wait for each other. Whoever reads again has
//! asked for twice of what it had read, so that it does not come back often.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::io::clock;
use crate::metrics;
use crate::types::Refusal;
use crate::types::limits::{
    ANSWER_WAIT_MAX, ANSWERS_WAITING_MAX, RESPONSE_BYTES_IN_FLIGHT_MAX, RESPONSE_BYTES_UNCOUNTED,
};

static BUDGET: Budget =
    Budget::new(RESPONSE_BYTES_IN_FLIGHT_MAX, ANSWERS_WAITING_MAX, ANSWER_WAIT_MAX);

/// Sets how many bytes of responses may be in flight. Before the first request is served.
pub fn set_response_bytes_max(bytes: usize) {
    BUDGET.bytes_max.store(bytes, SeqCst);
}

/// The budget, of all cores together.
struct Budget {
    bytes_max: AtomicUsize,
    waiting_max: usize,
    wait_max: Duration,
    taken: AtomicUsize,
    /// The length of the queue. Both numbers are looked at after either was changed, by whoever changed it: sequential
    /// consistency lets one of two that do so at once see the other's.
    waiting: AtomicUsize,
    /// The number of the next waiter.
    next: AtomicU64,
    /// Never held across a wait, nor while a part is given back.
    queue: Mutex<VecDeque<Waiter>>,
}

/// A request that waits for a part of the budget.
struct Waiter {
    number: u64,
    bytes: usize,
    admit: flume::Sender<Taken>,
}

/// A part of the budget.
struct Taken {
    budget: &'static Budget,
    bytes: usize,
}

impl std::fmt::Debug for Taken {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{} bytes", self.bytes)
    }
}

impl Taken {
    /// Gives back all but so much.
    fn shrink(&mut self, bytes: usize) {
        let back = self.bytes.saturating_sub(bytes);
        if back > 0 {
            self.bytes -= back;
            self.budget.taken.fetch_sub(back, SeqCst);
            self.budget.admit();
        }
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.shrink(0);
    }
}

/// A place in the queue, left when it is dropped.
struct Place {
    budget: &'static Budget,
    number: u64,
    admitted: flume::Receiver<Taken>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut queue = self.budget.queue();
        queue.retain(|waiter| waiter.number != self.number);
        self.budget.waiting.store(queue.len(), SeqCst);
        drop(queue);
        // The next one may need less.
        self.budget.admit();
    }
}

impl Budget {
    const fn new(bytes_max: usize, waiting_max: usize, wait_max: Duration) -> Self {
        Self {
            bytes_max: AtomicUsize::new(bytes_max),
            waiting_max,
            wait_max,
            taken: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            next: AtomicU64::new(0),
            queue: Mutex::new(VecDeque::new()),
        }
    }

    fn bytes_max(&self) -> usize {
        self.bytes_max.load(SeqCst)
    }

    fn queue(&self) -> MutexGuard<'_, VecDeque<Waiter>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes so much, if it is there.
    fn take(&'static self, bytes: usize) -> Option<Taken> {
        let fits = |taken: usize| Some(taken + bytes).filter(|taken| *taken <= self.bytes_max());
        self.taken.fetch_update(SeqCst, SeqCst, fits).ok()?;
        Some(Taken { budget: self, bytes })
    }

    /// Lets those in whose turn it is and for whom there is enough.
    fn admit(&'static self) {
        while self.waiting.load(SeqCst) > 0 {
            let mut queue = self.queue();
            let Some(taken) = queue.front().and_then(|first| self.take(first.bytes)) else {
                return;
            };
            let first = queue.pop_front();
            self.waiting.store(queue.len(), SeqCst);
            drop(queue);
            // If it has gone, its part comes back with the message.
            drop(first.map(|first| first.admit.send(taken)));
        }
    }

    /// Waits for its turn, and for so much.
    async fn wait(&'static self, bytes: usize) -> Result<Taken, Refusal> {
        if bytes > self.bytes_max() {
            return Err(Refusal::TooManyAnswers);
        }
        let (admit, admitted) = flume::bounded(1);
        let number = self.next.fetch_add(1, SeqCst);
        let place = {
            let mut queue = self.queue();
            if queue.len() >= self.waiting_max {
                return Err(Refusal::TooManyAnswers);
            }
            queue.push_back(Waiter { number, bytes, admit });
            self.waiting.store(queue.len(), SeqCst);
            Place { budget: self, number, admitted }
        };
        metrics::ANSWERS_WAITED.add(1);
        self.admit();
        let taken = clock::deadline(self.wait_max, place.admitted.recv_async()).await;
        taken.and_then(Result::ok).ok_or(Refusal::TooManyAnswers)
    }
}

/// A part of the budget, given back when the last clone is gone. Priority in the extensions of the answer to
/// where the answer leaves.
#[derive(Clone, Debug)]
#[expect(dead_code, reason = "held for its drop")]
pub(super) struct ReservedBytes(Arc<Taken>);

/// A part of the budget that grows with an answer.
#[derive(Debug)]
pub(super) struct Reservation {
    /// What the answer takes so far.
    bytes: usize,
    /// What is taken of the budget for it: nothing while it is small, more than it takes after it waited.
    taken: Taken,
}

impl Reservation {
    pub(super) fn new() -> Self {
        Self::of(&BUDGET)
    }

    fn of(budget: &'static Budget) -> Self {
        Self { bytes: 0, taken: Taken { budget, bytes: 0 } }
    }

    /// Takes more, if it is there. If not, what was read must go and the caller must [`wait`](Self::wait).
    #[must_use]
    pub(super) fn grow(&mut self, bytes: usize) -> bool {
        self.bytes += bytes;
        self.bytes <= RESPONSE_BYTES_UNCOUNTED || self.take(self.bytes)
    }

    /// Takes so much in all, unless others came first.
    fn take(&mut self, bytes: usize) -> bool {
        let Some(more) = bytes.checked_sub(self.taken.bytes) else { return true };
        let budget = self.taken.budget;
        if more == 0 {
            return true;
        }
        if self.taken.bytes == 0 && budget.waiting.load(SeqCst) > 0 {
            return false;
        }
        let Some(mut taken) = budget.take(more) else { return false };
        self.taken.bytes += std::mem::take(&mut taken.bytes);
        true
    }

    /// Gives everything back and waits until there is room for the answer, which is then read from its beginning.
    ///
    /// # Errors
    /// There is never room for it, or not in time, or too many wait already.
    pub(super) async fn wait(&mut self) -> Result<(), Refusal> {
        let (bytes, bytes_max) = (std::mem::take(&mut self.bytes), self.taken.budget.bytes_max());
        // More than there can ever be is asked for as it is, and refused.
        self.wait_for(bytes.max((2 * bytes).min(bytes_max))).await
    }

    /// Holds this much from now on, and waits for it if it must.
    ///
    /// # Errors
    /// There is never room for it, or not in time, or too many wait already.
    pub(super) async fn hold(&mut self, bytes: usize) -> Result<(), Refusal> {
        self.bytes = bytes;
        self.taken.shrink(bytes);
        if self.take(bytes) { Ok(()) } else { self.wait_for(bytes).await }
    }

    async fn wait_for(&mut self, bytes: usize) -> Result<(), Refusal> {
        self.taken.shrink(0);
        let waited = self.taken.budget.wait(bytes).await;
        self.taken = waited.inspect_err(|_| metrics::ANSWERS_REFUSED.add(1))?;
        Ok(())
    }

    /// To be kept with the answer; `None` for a small one, which is not worth it.
    pub(super) fn permit(mut self) -> Option<ReservedBytes> {
        let bytes = Some(self.bytes).filter(|bytes| *bytes > RESPONSE_BYTES_UNCOUNTED)?;
        self.taken.shrink(bytes);
        Some(ReservedBytes(Arc::new(self.taken)))
    }
}

#[cfg(test)]
mod tests;
