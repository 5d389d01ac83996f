//! Guards of a request's slot, of its bytes and of a reader's membership in a batch: each is released when it is
//! dropped, also when the client disconnects.

use std::future::poll_fn;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Poll, Waker};

use super::Pending;
use crate::machine::Reply;
use crate::metrics;
use crate::replica::Place;
use crate::types::Refusal;

/// A slot of a pending request.
pub(super) struct Slot {
    pending: Pending,
    id: u64,
}

impl Slot {
    /// Waits for a slot.
    pub(super) async fn acquire(pending: &Pending) -> Self {
        let mut waiter = Waiter { pending, place: None };
        let id = poll_fn(|context| {
            pending.borrow_mut().poll_acquire(&mut waiter.place, context.waker())
        });
        Self { id: id.await, pending: pending.clone() }
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
    }
}

/// A caller that may have to wait for a slot.
struct Waiter<'a> {
    pending: &'a Pending,
    place: Place,
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        if let Some(place) = self.place {
            self.pending.borrow_mut().give_up(place);
        }
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
        Self { pending: pending.clone(), batch: pending.borrow_mut().join_read() }
    }

    /// Ready when the read may be served.
    pub(super) fn poll(&self, waker: &Waker) -> Poll<Result<(), Refusal>> {
        self.pending.borrow_mut().poll_read(self.batch, waker)
    }
}

impl Reader {
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

/// Bytes of the proposals that wait to be applied, of all executors.
static ALL: AtomicU64 = AtomicU64::new(0);

/// Counts a proposal that waits to be applied, and its bytes.
pub(super) struct PendingBytes(u64);

impl PendingBytes {
    pub(super) fn add(bytes: usize) -> Self {
        metrics::PROPOSALS_PENDING.add(1);
        ALL.fetch_add(bytes as u64, Ordering::Relaxed);
        Self(bytes as u64)
    }

    /// The bytes of all executors.
    pub(super) fn all() -> u64 {
        ALL.load(Ordering::Relaxed)
    }
}

impl Drop for PendingBytes {
    fn drop(&mut self) {
        metrics::PROPOSALS_PENDING.add(-1);
        ALL.fetch_sub(self.0, Ordering::Relaxed);
    }
}
