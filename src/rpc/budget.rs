//! One budget of bytes for all answers that are on their way: past it a request is refused, instead of all of
//! them dying with the process.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use crate::types::Refusal;
use crate::types::limits::{RESPONSE_BYTES_IN_FLIGHT_MAX, RESPONSE_BYTES_UNCOUNTED};

/// What is taken, by all cores. Relaxed: it bounds, it does not order.
static TAKEN: AtomicUsize = AtomicUsize::new(0);

#[derive(Debug)]
struct Taken(usize);

impl Drop for Taken {
    fn drop(&mut self) {
        TAKEN.fetch_sub(self.0, Relaxed);
    }
}

/// A part of the budget, given back when the last clone is gone. Travels in the extensions of the answer to
/// where the answer leaves.
#[derive(Clone, Debug)]
#[expect(dead_code, reason = "held for its drop")]
pub(super) struct Permit(Arc<Taken>);

/// A part of the budget that grows with an answer.
#[derive(Debug)]
pub(super) struct Growing(Taken);

impl Growing {
    pub(super) fn new() -> Self {
        Self(Taken(0))
    }

    /// Takes more.
    pub(super) fn grow(&mut self, bytes: usize) -> Result<(), Refusal> {
        let before = TAKEN.fetch_add(bytes, Relaxed);
        self.0.0 += bytes;
        if before + bytes > RESPONSE_BYTES_IN_FLIGHT_MAX {
            return Err(Refusal::TooManyRequests);
        }
        Ok(())
    }

    /// Holds this much from now on.
    pub(super) fn set(&mut self, bytes: usize) -> Result<(), Refusal> {
        let back = self.0.0.saturating_sub(bytes);
        TAKEN.fetch_sub(back, Relaxed);
        self.0.0 -= back;
        let more = bytes - self.0.0;
        self.grow(more)
    }

    /// To be kept with the answer; `None` for a small one, which is not worth it.
    pub(super) fn permit(self) -> Option<Permit> {
        (self.0.0 > RESPONSE_BYTES_UNCOUNTED).then(|| Permit(Arc::new(self.0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_comes_back_and_too_much_is_refused() {
        // The only test that takes anything.
        let mut one = Growing::new();
        assert_eq!(one.grow(RESPONSE_BYTES_IN_FLIGHT_MAX / 2), Ok(()));
        let mut other = Growing::new();
        assert_eq!(other.grow(RESPONSE_BYTES_IN_FLIGHT_MAX), Err(Refusal::TooManyRequests));
        assert_eq!(other.set(10), Ok(()));
        drop(other);
        let permit = one.permit().expect("it is large");
        drop(permit.clone());
        assert_eq!(TAKEN.load(Relaxed), RESPONSE_BYTES_IN_FLIGHT_MAX / 2);
        drop(permit);
        assert_eq!(TAKEN.load(Relaxed), 0);
    }
}
