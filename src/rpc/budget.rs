//! The budget of bytes of all responses in flight. Past it a request waits, within bounds of number and time, and is
//! refused only then, instead of exhausting the memory of the process.
//!
//! A small part of it is for new clients, who may be such that take nothing: they wait for each other then, and not the
//! clients that have taken a large answer before. An answer that does not fit into the small part is counted in the
//! large one.
//!
//! ```text
//!  read ─► grow ─┬─ fits ─────────► read on ─► permit, until the answer has left
//!                 └─ does not fit ─► release all ─► queue, in order of arrival ─► read again from the beginning
//! ```
//!
//! No request waits while it holds a part of the budget, so that no two can wait for each other. A request that reads
//! again has reserved twice the bytes that it had read, so that it seldom has to wait again.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::io::{ClientKind, clock};
use crate::metrics;
use crate::types::Refusal;
use crate::types::limits::{
    ANSWER_WAIT_MAX, ANSWERS_WAITING_MAX, RESPONSE_BYTES_IN_FLIGHT_MAX, RESPONSE_BYTES_UNCOUNTED,
    RESPONSE_PARTS_OF_NEW,
};

static PROVEN: Budget = Budget::new(
    ClientKind::Proven,
    None,
    RESPONSE_BYTES_IN_FLIGHT_MAX - of_new(RESPONSE_BYTES_IN_FLIGHT_MAX),
);
static NEW: Budget =
    Budget::new(ClientKind::New, Some(&PROVEN), of_new(RESPONSE_BYTES_IN_FLIGHT_MAX));

/// The part of so many bytes that is for new clients.
const fn of_new(bytes: usize) -> usize {
    bytes / RESPONSE_PARTS_OF_NEW
}

/// Sets the bytes of responses that may be in flight. Must be called before the first request is served.
pub fn set_response_bytes_max(bytes: usize) {
    NEW.bytes_max.store(of_new(bytes), SeqCst);
    PROVEN.bytes_max.store(bytes - of_new(bytes), SeqCst);
}

/// A budget, shared by all cores.
struct Budget {
    clients: ClientKind,
    /// The budget for what does not fit into this one.
    larger: Option<&'static Budget>,
    bytes_max: AtomicUsize,
    waiting_max: usize,
    wait_max: Duration,
    taken: AtomicUsize,
    /// The length of the queue. After a change of either number the changing thread reads both: sequential consistency
    /// makes one of two concurrent changes visible to the other thread.
    waiting: AtomicUsize,
    /// The number of the next waiter.
    next: AtomicU64,
    /// Never held across a wait, nor while a reservation is released.
    queue: Mutex<VecDeque<Waiter>>,
}

/// A request that waits for a part of the budget.
struct Waiter {
    number: u64,
    bytes: usize,
    admit: flume::Sender<Taken>,
}

/// A reserved part of the budget.
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
    /// Releases all but so many bytes.
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

/// A position in the queue, given up when it is dropped.
struct Place {
    budget: &'static Budget,
    number: u64,
    admitted: flume::Receiver<Taken>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut queue = self.budget.queue();
        queue.retain(|waiter| waiter.number != self.number);
        self.budget.note_waiting(queue.len());
        drop(queue);
        // The next one may need less.
        self.budget.admit();
    }
}

impl Budget {
    const fn new(clients: ClientKind, larger: Option<&'static Self>, bytes_max: usize) -> Self {
        Self {
            clients,
            larger,
            bytes_max: AtomicUsize::new(bytes_max),
            waiting_max: ANSWERS_WAITING_MAX,
            wait_max: ANSWER_WAIT_MAX,
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

    /// The queue has this length now. As long as any wait, clients that hold a part of the budget must take their answers.
    fn note_waiting(&self, waiting: usize) {
        self.waiting.store(waiting, SeqCst);
        self.clients.set_answers_wait(waiting > 0);
    }

    /// Reserves so many bytes, if they are free.
    fn take(&'static self, bytes: usize) -> Option<Taken> {
        let fits = |taken: usize| Some(taken + bytes).filter(|taken| *taken <= self.bytes_max());
        self.taken.fetch_update(SeqCst, SeqCst, fits).ok()?;
        Some(Taken { budget: self, bytes })
    }

    /// Admits waiters in order, as long as the free bytes suffice.
    fn admit(&'static self) {
        while self.waiting.load(SeqCst) > 0 {
            let mut queue = self.queue();
            let Some(taken) = queue.front().and_then(|first| self.take(first.bytes)) else {
                return;
            };
            let first = queue.pop_front();
            self.note_waiting(queue.len());
            drop(queue);
            // If the waiter was dropped, its part is released with the message.
            drop(first.map(|first| first.admit.send(taken)));
        }
    }

    /// Waits in the queue for so many bytes.
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
            self.note_waiting(queue.len());
            Place { budget: self, number, admitted }
        };
        metrics::ANSWERS_WAITED.add(1);
        self.admit();
        let taken = clock::deadline(self.wait_max, place.admitted.recv_async()).await;
        taken.and_then(Result::ok).ok_or(Refusal::TooManyAnswers)
    }
}

/// A part of the budget, released when the last clone is dropped. Passed in the extensions of the response to the
/// code that sends it.
#[derive(Clone, Debug)]
#[expect(dead_code, reason = "held for its drop")]
pub(super) struct ReservedBytes(Arc<Taken>);

/// A reservation that grows with a response.
#[derive(Debug)]
pub(super) struct Reservation {
    /// Bytes of the response so far.
    bytes: usize,
    /// The reserved part: nothing while the response is small, more than its size after a wait.
    taken: Taken,
}

impl Reservation {
    /// For an answer to the call that is being polled.
    pub(super) fn new() -> Self {
        Self::of(match ClientKind::of_call() {
            ClientKind::New => &NEW,
            ClientKind::Proven => &PROVEN,
        })
    }

    fn of(budget: &'static Budget) -> Self {
        Self { bytes: 0, taken: Taken { budget, bytes: 0 } }
    }

    /// Reserves more, if it is free. If not, the caller must drop the bytes read and [`wait`](Self::wait).
    #[must_use]
    pub(super) fn grow(&mut self, bytes: usize) -> bool {
        self.bytes += bytes;
        self.bytes <= RESPONSE_BYTES_UNCOUNTED || self.take(self.bytes)
    }

    /// Reserves so many bytes in total, unless others wait.
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

    /// Releases everything and waits until the response fits, which is then read from its beginning.
    ///
    /// # Errors
    /// The response can never fit, or not in time, or too many wait already.
    pub(super) async fn wait(&mut self) -> Result<(), Refusal> {
        let (bytes, own) = (std::mem::take(&mut self.bytes), self.taken.budget);
        let bytes_max = own.larger.unwrap_or(own).bytes_max();
        // A request for more than the whole budget is not doubled, and refused.
        self.wait_for(bytes.max((2 * bytes).min(bytes_max))).await
    }

    /// Reserves so many bytes in total, and waits for them if necessary.
    ///
    /// # Errors
    /// They can never fit, or not in time, or too many wait already.
    pub(super) async fn hold(&mut self, bytes: usize) -> Result<(), Refusal> {
        self.bytes = bytes;
        self.taken.shrink(bytes);
        if self.take(bytes) { Ok(()) } else { self.wait_for(bytes).await }
    }

    async fn wait_for(&mut self, bytes: usize) -> Result<(), Refusal> {
        self.taken.shrink(0);
        let own = self.taken.budget;
        let budget = own.larger.filter(|_| bytes > own.bytes_max()).unwrap_or(own);
        let waited = budget.wait(bytes).await;
        self.taken = waited.inspect_err(|_| metrics::ANSWERS_REFUSED.add(1))?;
        Ok(())
    }

    /// The reservation to keep with the response; `None` for a small one, which is not counted.
    pub(super) fn permit(mut self) -> Option<ReservedBytes> {
        let bytes = Some(self.bytes).filter(|bytes| *bytes > RESPONSE_BYTES_UNCOUNTED)?;
        self.taken.shrink(bytes);
        Some(ReservedBytes(Arc::new(self.taken)))
    }
}

#[cfg(test)]
mod tests;
