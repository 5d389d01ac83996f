//! Bytes of requests that are not complete yet. They are in no other budget: a client could begin many large messages and
//! end none.

use std::cell::Cell;

use crate::metrics;
use crate::types::Refusal;
use crate::types::limits::INCOMPLETE_BYTES_UNCOUNTED;

thread_local! {
    /// Of all requests of this executor, but for small ones.
    static BYTES: Cell<usize> = const { Cell::new(0) };
}

/// The part of one request that has come; counted until this is dropped. Belongs to one executor.
#[derive(Debug, Default)]
pub struct IncompleteBytes {
    counted: usize,
    /// It must not be sent to another thread, which has a sum of its own.
    _here: std::marker::PhantomData<*const ()>,
}

impl IncompleteBytes {
    /// So many bytes have come; those of all requests together may be `max`.
    ///
    /// # Errors
    /// They are more.
    pub fn came(&mut self, bytes: usize, max: usize) -> Result<(), Refusal> {
        if bytes <= INCOMPLETE_BYTES_UNCOUNTED {
            return Ok(());
        }
        let sum = BYTES.get() - self.counted + bytes;
        if sum > max {
            metrics::REQUESTS_REFUSED.add(1);
            return Err(Refusal::TooManyAnswers);
        }
        BYTES.set(sum);
        self.counted = bytes;
        Ok(())
    }
}

impl Drop for IncompleteBytes {
    fn drop(&mut self) {
        BYTES.set(BYTES.get() - self.counted);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn incomplete_requests_are_refused_when_they_are_too_large_together() {
        let max = 4 * INCOMPLETE_BYTES_UNCOUNTED;
        let (mut first, mut second) = (IncompleteBytes::default(), IncompleteBytes::default());
        assert_eq!(first.came(max - 1, max), Ok(()));
        assert_eq!(second.came(INCOMPLETE_BYTES_UNCOUNTED, max), Ok(()), "a small one");
        assert_eq!(second.came(INCOMPLETE_BYTES_UNCOUNTED + 1, max), Err(Refusal::TooManyAnswers));
        assert_eq!(first.came(max, max), Ok(()), "what it had is counted once");
        drop(first);
        assert_eq!(second.came(max, max), Ok(()));
        drop(second);
        assert_eq!(BYTES.get(), 0);
    }
}
