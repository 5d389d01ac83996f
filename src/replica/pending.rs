//! Pending requests of one executor's sessions, from the proposal or the read to the answer.
//!
//! ```text
//!  acquire ─► slot ─► propose ─► outbox ─take_bundle─► Input::Requests     deliver ─► slot ─► poll_reply
//!  join_read ─► batch of reads ────────────┘                              └──► batch ─► poll_read
//! ```
//!
//! All requests of one scheduling round of the executor are sent as one bundle, and the answers of one applied batch
//! are received as one [`Delivery`]: the cost of crossing cores is paid for each round, not for each request.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;

use crate::machine::Reply;
use crate::metrics;
use crate::types::Refusal;
use crate::types::limits::{BUNDLE_BYTES_MAX, BUNDLE_PROPOSALS_MAX};

/// Released requests in the outbox, at least, before it is looked through for them.
const RELEASED_MIN: usize = 1024;

/// Answers for one executor after one applied batch.
#[derive(Default, Debug)]
pub struct Delivery {
    /// Request ids and their answers.
    pub replies: Vec<(u64, Result<Reply, Refusal>)>,
    /// Batches of reads that may be served now.
    pub reads: Vec<u64>,
    /// Batches of reads whose read index is known but not applied yet, because a large entry is being applied.
    pub indexed: Vec<u64>,
}

impl Delivery {
    /// True if there is nothing to deliver.
    pub fn is_empty(&self) -> bool {
        self.replies.is_empty() && self.reads.is_empty() && self.indexed.is_empty()
    }
}

/// The executor of a request id, if the id was created since this start.
///
/// ```text
///  63        32 31    24 23        0
///  boot nonce   executor counter
/// ```
/// The nonce differs between members and starts, so that a replayed entry never answers another request.
pub fn executor_of(id: u64, boot_nonce: u32) -> Option<usize> {
    ((id >> 32) as u32 == boot_nonce).then_some((id >> 24) as usize & 0xff)
}

enum Slot {
    /// No answer yet; with the waker of the session, once it polled.
    Waiting(Option<Waker>),
    Answered(Result<Reply, Refusal>),
}

struct Request {
    slot: Slot,
    since_ms: u64,
    /// Until it is handed in.
    proposal: Option<Bytes>,
}

/// Reads that share one read index.
struct ReadBatch {
    readers: usize,
    /// True once the read index is known.
    indexed: bool,
    /// True once it is applied.
    confirmed: bool,
    wakers: Vec<Waker>,
    since_ms: u64,
}

/// Hashes ids, which the executor chooses by counting, so that nobody can make them collide: the low bits of the product
/// count too, and the high ones are mixed.
#[derive(Default)]
struct IdHasher(u64);

impl Hasher for IdHasher {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(self.0 << 8 | u64::from(*byte));
        }
    }

    fn write_u64(&mut self, id: u64) {
        /// 2^64 divided by the golden ratio, as for Fibonacci hashing.
        const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;
        self.0 = id.wrapping_mul(MULTIPLIER);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// The requests of one executor.
pub struct PendingRequests {
    id_prefix: u64,
    pub(super) counter: u32,
    now_ms: u64,
    requests: HashMap<u64, Request, BuildHasherDefault<IdHasher>>,
    /// Requests to hand in, in order. Those that were released meanwhile are passed over.
    outbox: VecDeque<u64>,
    batches: BTreeMap<u64, ReadBatch>,
    batch: u64,
    /// Readers may still join the newest batch: it was not sent yet.
    batch_is_open: bool,
    flusher: Option<Waker>,
    /// To be woken by the next request.
    sweeper: Option<Waker>,
}

impl PendingRequests {
    /// No requests. `boot_nonce` differs between members and starts.
    pub fn new(executor: u8, boot_nonce: u32, now_ms: u64) -> Self {
        Self {
            id_prefix: u64::from(boot_nonce) << 32 | u64::from(executor) << 24,
            counter: 0,
            now_ms,
            requests: HashMap::default(),
            outbox: VecDeque::new(),
            batches: BTreeMap::new(),
            batch: 0,
            batch_is_open: false,
            flusher: None,
            sweeper: None,
        }
    }

    fn is_idle(&self) -> bool {
        self.requests.is_empty() && self.batches.is_empty()
    }

    /// Ready while there are requests, which have to be swept.
    pub fn poll_used(&mut self, context: &Context<'_>) -> Poll<()> {
        if self.is_idle() {
            self.sweeper = Some(context.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(())
    }

    /// A request comes. While there are none, nobody tells the time.
    pub fn begin(&mut self, now_ms: impl FnOnce() -> u64) {
        if self.is_idle() {
            self.now_ms = now_ms();
            self.sweeper.take().into_iter().for_each(Waker::wake);
        }
    }

    /// Takes a slot; gives the request's id. The host bounds slots in number and in bytes.
    pub fn acquire(&mut self) -> u64 {
        // The counter wraps; an id that still waits is skipped.
        let id = loop {
            self.counter = (self.counter + 1) & 0xff_ffff;
            let id = self.id_prefix | u64::from(self.counter);
            if !self.requests.contains_key(&id) {
                break id;
            }
        };
        self.requests.insert(
            id,
            Request { slot: Slot::Waiting(None), since_ms: self.now_ms, proposal: None },
        );
        id
    }

    /// Frees the slot of a request that was answered, or whose client is gone. It is not handed in any more: while nothing
    /// is taken, what timed out would pile up.
    pub fn release(&mut self, id: u64) {
        self.requests.remove(&id);
    }

    /// Hands in the encoded command of a request.
    pub fn propose(&mut self, id: u64, command: Bytes) {
        let Some(request) = self.requests.get_mut(&id) else { return };
        request.proposal = Some(command);
        if self.outbox.len() >= RELEASED_MIN + 2 * self.requests.len() {
            self.outbox.retain(|id| self.requests.contains_key(id));
        }
        self.outbox.push_back(id);
        self.wake_flusher();
    }

    fn wake_flusher(&mut self) {
        self.flusher.take().into_iter().for_each(Waker::wake);
    }

    /// The answer to a request.
    pub fn poll_reply(&mut self, id: u64, waker: &Waker) -> Poll<Result<Reply, Refusal>> {
        let Some(request) = self.requests.get_mut(&id) else {
            return Poll::Ready(Err(Refusal::Stopped));
        };
        match std::mem::replace(&mut request.slot, Slot::Waiting(None)) {
            Slot::Answered(reply) => Poll::Ready(reply),
            Slot::Waiting(_) => {
                request.slot = Slot::Waiting(Some(waker.clone()));
                Poll::Pending
            }
        }
    }

    /// Joins the next batch of reads; returns its number. Every reader calls [`PendingRequests::leave_read`] at the end.
    pub fn join_read(&mut self) -> u64 {
        if !self.batch_is_open {
            self.batch += 1;
            self.batch_is_open = true;
            let since_ms = self.now_ms;
            let batch = ReadBatch {
                readers: 0,
                indexed: false,
                confirmed: false,
                wakers: Vec::new(),
                since_ms,
            };
            self.batches.insert(self.batch, batch);
            self.wake_flusher();
        }
        self.batches.entry(self.batch).and_modify(|batch| batch.readers += 1);
        self.batch
    }

    /// Ready when the reads of a batch may be served; an error after a timeout.
    pub fn poll_read(&mut self, batch: u64, waker: &Waker) -> Poll<Result<(), Refusal>> {
        match self.batches.get_mut(&batch) {
            None => Poll::Ready(Err(Refusal::Timeout)),
            Some(batch) if batch.confirmed => Poll::Ready(Ok(())),
            Some(batch) => {
                batch.wakers.push(waker.clone());
                Poll::Pending
            }
        }
    }

    /// Ready when the read index of a batch is known: this member then knows the commit index of the time when the
    /// batch was sent. An error after a timeout.
    pub fn poll_read_index(&mut self, batch: u64, waker: &Waker) -> Poll<Result<(), Refusal>> {
        match self.batches.get(&batch) {
            Some(batch) if batch.indexed => Poll::Ready(Ok(())),
            Some(_) | None => self.poll_read(batch, waker),
        }
    }

    /// A reader was served or disconnected. The last one removes a batch that was sent.
    pub fn leave_read(&mut self, number: u64) {
        let Some(batch) = self.batches.get_mut(&number) else { return };
        batch.readers -= 1;
        if batch.readers == 0 && !(self.batch_is_open && number == self.batch) {
            self.batches.remove(&number);
        }
    }

    /// Ready when there is something to send; takes nothing yet.
    pub fn poll_bundle(&mut self, context: &Context<'_>) -> Poll<()> {
        if self.outbox.is_empty() && !self.batch_is_open {
            self.flusher = Some(context.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(())
    }

    /// Takes the queued commands, up to the bounds of a bundle, and the batch of reads that needs a read index.
    pub fn take_bundle(&mut self, now_ms: u64) -> (Vec<Bytes>, Option<u64>) {
        self.now_ms = now_ms;
        let is_open = std::mem::take(&mut self.batch_is_open);
        // A batch without remaining readers needs no read index.
        let is_empty = self.batches.get(&self.batch).is_none_or(|batch| batch.readers == 0);
        if is_open && is_empty {
            self.batches.remove(&self.batch);
        }
        let read = (is_open && !is_empty).then_some(self.batch);
        (self.take_proposals(), read)
    }

    fn take_proposals(&mut self) -> Vec<Bytes> {
        let (mut proposals, mut bytes) = (Vec::new(), 0);
        while proposals.len() < BUNDLE_PROPOSALS_MAX
            && let Some(id) = self.outbox.front()
        {
            let request = self.requests.get_mut(id);
            if let Some(request) = request
                && let Some(proposal) = request.proposal.take()
            {
                bytes += proposal.len();
                if bytes > BUNDLE_BYTES_MAX && !proposals.is_empty() {
                    request.proposal = Some(proposal);
                    break;
                }
                proposals.push(proposal);
            }
            self.outbox.pop_front();
        }
        proposals
    }

    /// Handles the answers from apply.
    pub fn deliver(&mut self, delivery: Delivery) {
        for (id, reply) in delivery.replies {
            let Some(request) = self.requests.get_mut(&id) else { continue };
            let before = std::mem::replace(&mut request.slot, Slot::Answered(reply));
            if let Slot::Waiting(Some(waker)) = before {
                waker.wake();
            }
        }
        for number in delivery.indexed {
            let Some(batch) = self.batches.get_mut(&number) else { continue };
            batch.indexed = true;
            batch.wakers.drain(..).for_each(Waker::wake);
        }
        for number in delivery.reads {
            let Some(batch) = self.batches.get_mut(&number) else { continue };
            batch.confirmed = true;
            batch.wakers.drain(..).for_each(Waker::wake);
        }
    }

    /// Answers requests that are older than `timeout_ms` with the error that `late` returns for the time of the request.
    pub fn sweep(&mut self, now_ms: u64, timeout_ms: u64, late: impl Fn(u64) -> Refusal) {
        self.now_ms = now_ms;
        let oldest = now_ms.saturating_sub(timeout_ms);
        self.expire(|since_ms| since_ms < oldest, late);
    }

    /// Answers all requests: the member stops.
    pub fn close(&mut self) {
        self.expire(|_| true, |_| Refusal::Stopped);
    }

    fn expire(&mut self, is_late: impl Fn(u64) -> bool, error: impl Fn(u64) -> Refusal) {
        for request in self.requests.values_mut().filter(|request| is_late(request.since_ms)) {
            if let Slot::Waiting(waker) = &mut request.slot {
                let waker = waker.take();
                request.slot = Slot::Answered(Err(error(request.since_ms)));
                metrics::PROPOSALS_FAILED.add(1);
                waker.into_iter().for_each(Waker::wake);
            }
        }
        let late = |_: &u64, batch: &mut ReadBatch| is_late(batch.since_ms) && !batch.confirmed;
        for (_, batch) in self.batches.extract_if(.., late) {
            metrics::READ_INDEXES_FAILED.add(batch.readers as u64);
            batch.wakers.into_iter().for_each(Waker::wake);
        }
    }

    /// How many requests wait to be handed in, those included that were released.
    #[cfg(test)]
    pub(super) fn queued(&self) -> usize {
        self.outbox.len()
    }

    /// How many requests and batches of reads there are.
    pub fn counts(&self) -> (usize, usize) {
        (self.requests.len(), self.batches.len())
    }
}
