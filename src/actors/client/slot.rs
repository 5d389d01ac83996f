//! Guards of a request's slot and of a reader's place in a batch: each is given back when it is dropped, also when the
//! client is gone.

use std::future::poll_fn;
use std::task::{Poll, Waker};

use super::Pending;
use super::admission::Permit;
use crate::io::{RequestBytes, clock};
use crate::machine::Reply;
use crate::metrics;
use crate::types::Refusal;

/// A slot of a pending request.
pub(super) struct Slot {
    pending: Pending,
    id: u64,
    /// Given back after the slot.
    _permit: Permit,
    _counted: RequestBytes,
}

impl Slot {
    /// Waits for room for a request of so many bytes.
    ///
    /// # Errors
    /// There was none in time, or too many wait.
    pub(super) async fn acquire(pending: &Pending, bytes: usize) -> Result<Self, Refusal> {
        let permit = pending.admission().admit(bytes).await?;
        let counted = RequestBytes::add(bytes);
        let mut requests = pending.borrow_mut();
        requests.begin(clock::now_ms);
        let id = requests.acquire();
        drop(requests);
        metrics::PROPOSALS_PENDING.add(1);
        Ok(Self { pending: pending.clone(), id, _permit: permit, _counted: counted })
    }

    /// The id of the request.
    pub(super) fn id(&self) -> u64 {
        self.id
    }

    /// Waits for the answer.
    pub(super) async fn reply(&self) -> Result<Reply, Refusal> {
        poll_fn(|context| self.pending.borrow_mut().poll_reply(self.id, context.waker())).await
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.pending.borrow_mut().release(self.id);
        metrics::PROPOSALS_PENDING.add(-1);
    }
}

/// A reader in a batch of reads.
pub(super) struct Reader {
    pending: Pending,
    batch: u64,
}

impl Reader {
    /// Joins the next batch.
    pub(super) fn join(pending: &Pending) -> Self {
        let mut requests = pending.borrow_mut();
        requests.begin(clock::now_ms);
        Self { pending: pending.clone(), batch: requests.join_read() }
    }

    /// Ready when the read may be served.
    pub(super) fn poll(&self, waker: &Waker) -> Poll<Result<(), Refusal>> {
        self.pending.borrow_mut().poll_read(self.batch, waker)
    }

    /// Ready when its read index is known.
    pub(super) fn poll_index(&self, waker: &Waker) -> Poll<Result<(), Refusal>> {
        self.pending.borrow_mut().poll_read_index(self.batch, waker)
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.pending.borrow_mut().leave_read(self.batch);
    }
}
