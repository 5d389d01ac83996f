//! Admission of the requests of one executor: so many, and so many bytes of them, may wait to be applied.
//!
//! ```text
//!  command ─► encoded ─► admit ─┬─ room ────────────────────► permit ─► slot, until it is answered
//!                               ├─ none: waits in order ────┘   └─ too late: "etcdserver: request timed out"
//!                               └─ too many bytes wait already: "etcdserver: too many requests"
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};

use crate::io::clock;
use crate::metrics;
use crate::types::limits::REQUESTS_IN_FLIGHT_MAX;
use crate::types::{Budgets, Refusal};

/// Cheap to clone.
#[derive(Clone)]
pub(super) struct Admission {
    slots: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
    /// All permits of `bytes`: a request of more takes them all.
    bytes_max: usize,
    /// Bytes of the requests that wait.
    waiting: Arc<AtomicUsize>,
    waiting_max: usize,
    timeout: Duration,
}

/// Room for one request, given back when it is dropped.
pub(super) struct Permit {
    _slot: OwnedSemaphorePermit,
    _bytes: OwnedSemaphorePermit,
}

/// Bytes of a request that waits.
struct Waiting<'a>(&'a AtomicUsize, usize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(self.1, Ordering::Relaxed);
    }
}

impl Admission {
    /// All of it is free. `timeout` is how long a request may wait.
    pub(super) fn new(budgets: &Budgets, timeout: Duration) -> Self {
        Self {
            slots: Arc::new(Semaphore::new(REQUESTS_IN_FLIGHT_MAX)),
            bytes: Arc::new(Semaphore::new(budgets.requests)),
            bytes_max: budgets.requests,
            waiting: Arc::default(),
            waiting_max: budgets.requests_waiting,
            timeout,
        }
    }

    /// Waits for room for a request of so many bytes, first come first served.
    ///
    /// # Errors
    /// There was none in time, too many bytes wait already, or the member stops.
    pub(super) async fn admit(&self, bytes: usize) -> Result<Permit, Refusal> {
        // Budgets are far below 4 GiB.
        let permits = bytes.min(self.bytes_max) as u32;
        if let Some(permit) = self.admit_now(permits) {
            return Ok(permit);
        }
        metrics::REQUESTS_WAITED.add(1);
        let permit = self.wait(bytes, permits).await;
        permit.inspect_err(|_| metrics::REQUESTS_REFUSED.add(1))
    }

    fn admit_now(&self, permits: u32) -> Option<Permit> {
        let slot = Arc::clone(&self.slots).try_acquire_owned().ok()?;
        let bytes = Arc::clone(&self.bytes).try_acquire_many_owned(permits).ok()?;
        Some(Permit { _slot: slot, _bytes: bytes })
    }

    async fn wait(&self, bytes: usize, permits: u32) -> Result<Permit, Refusal> {
        let before = self.waiting.fetch_add(bytes, Ordering::Relaxed);
        let _waiting = Waiting(&self.waiting, bytes);
        // One request may always wait, whatever its size.
        if before > 0 && before + bytes > self.waiting_max {
            return Err(Refusal::TooManyRequests);
        }
        let acquired = async {
            let slot = Arc::clone(&self.slots).acquire_owned().await?;
            let bytes = Arc::clone(&self.bytes).acquire_many_owned(permits).await?;
            Ok(Permit { _slot: slot, _bytes: bytes })
        };
        let acquired = clock::deadline(self.timeout, acquired).await.ok_or(Refusal::Timeout)?;
        acquired.map_err(|_: AcquireError| Refusal::Stopped)
    }

    /// Refuses all requests that wait or come: the member stops.
    pub(super) fn close(&self) {
        self.slots.close();
        self.bytes.close();
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::{Pin, pin};
    use std::task::{Context, Poll, Waker};

    use super::*;

    const BUDGET: usize = 100;

    fn admission(timeout: Duration) -> Admission {
        let budgets = Budgets { requests: BUDGET, requests_waiting: 50, ..Budgets::unbounded() };
        Admission::new(&budgets, timeout)
    }

    fn poll<T>(future: Pin<&mut impl Future<Output = T>>) -> Poll<T> {
        future.poll(&mut Context::from_waker(Waker::noop()))
    }

    fn admitted(admission: &Admission, bytes: usize) -> Permit {
        match poll(pin!(admission.admit(bytes))) {
            Poll::Ready(Ok(permit)) => permit,
            Poll::Ready(Err(refusal)) => panic!("{refusal}"),
            Poll::Pending => panic!("no room for {bytes} bytes"),
        }
    }

    #[test]
    fn requests_wait_for_bytes_in_their_order() {
        let admission = admission(Duration::from_secs(3600));
        let (first, second) = (admitted(&admission, 60), admitted(&admission, 30));
        let mut large = pin!(admission.admit(40));
        assert!(poll(large.as_mut()).is_pending());
        let mut small = pin!(admission.admit(5));
        assert!(poll(small.as_mut()).is_pending(), "the large one came first");
        drop(second);
        let large = poll(large.as_mut());
        assert!(large.is_ready());
        assert!(poll(small.as_mut()).is_pending());
        drop(first);
        assert!(poll(small.as_mut()).is_ready());
    }

    #[test]
    fn a_caller_that_is_gone_passes_its_turn_on() {
        let admission = admission(Duration::from_secs(3600));
        let first = admitted(&admission, 90);
        let mut next = pin!(admission.admit(20));
        {
            let mut gone = pin!(admission.admit(30));
            assert!(poll(gone.as_mut()).is_pending());
            assert!(poll(next.as_mut()).is_pending());
        }
        drop(first);
        assert!(poll(next.as_mut()).is_ready());
        assert_eq!(admission.waiting.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn requests_are_bounded_in_count() {
        let admission = admission(Duration::from_secs(3600));
        let mut permits: Vec<_> =
            (0..REQUESTS_IN_FLIGHT_MAX).map(|_| admitted(&admission, 0)).collect();
        let mut next = pin!(admission.admit(0));
        assert!(poll(next.as_mut()).is_pending());
        permits.pop();
        assert!(poll(next.as_mut()).is_ready());
    }

    #[test]
    fn a_request_of_more_than_the_budget_is_admitted_alone() {
        let admission = admission(Duration::from_secs(3600));
        let small = admitted(&admission, 1);
        let mut large = pin!(admission.admit(10 * BUDGET));
        assert!(poll(large.as_mut()).is_pending());
        drop(small);
        let Poll::Ready(Ok(large)) = poll(large.as_mut()) else { panic!("there is room") };
        assert!(poll(pin!(admission.admit(1))).is_pending());
        drop(large);
        drop(admitted(&admission, BUDGET));
    }

    #[test]
    fn waiting_is_bounded_in_bytes_and_time() {
        let refusal = |polled| match polled {
            Poll::Ready(Err(refusal)) => refusal,
            Poll::Ready(Ok(_)) | Poll::Pending => panic!("it is not refused"),
        };
        let admission = admission(Duration::from_millis(1));
        let _all = admitted(&admission, BUDGET);
        let mut first = pin!(admission.admit(30));
        assert!(poll(first.as_mut()).is_pending());
        assert_eq!(refusal(poll(pin!(admission.admit(30)))), Refusal::TooManyRequests);
        let waited = Poll::Ready(futures_lite::future::block_on(first));
        assert_eq!(refusal(waited), Refusal::Timeout);
        let mut last = pin!(admission.admit(30));
        assert!(poll(last.as_mut()).is_pending());
        admission.close();
        assert_eq!(refusal(poll(last.as_mut())), Refusal::Stopped);
        assert_eq!(refusal(poll(pin!(admission.admit(1)))), Refusal::Stopped);
    }
}
