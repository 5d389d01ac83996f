//! The responses of one stream that wait for its client: bounded in number and bytes. Whoever fills it waits for room, or
//! ends the stream.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use tokio::sync::Notify;
use tonic::Status;
use tonic::codegen::tokio_stream::Stream;

use crate::limits::{OUTBOX_BYTES_MAX, OUTBOX_RESPONSES_MAX};

#[derive(Default)]
struct State {
    waiting: VecDeque<Bytes>,
    bytes: usize,
    /// The stream ends with this: at once if it is an error, otherwise behind the responses.
    end: Option<Result<(), Status>>,
    is_gone: bool,
    reader: Option<Waker>,
}

/// The end that is filled; cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Outbox(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    room: Notify,
}

/// The end that the client reads.
pub(super) struct Responses(Outbox);

/// The outcome of [`Outbox::push`].
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Pushed {
    Taken,
    /// There is no room now.
    Full,
    /// The stream has ended.
    Ended,
}

impl Outbox {
    /// Both ends.
    pub(super) fn new() -> (Self, Responses) {
        let outbox = Self::default();
        (outbox.clone(), Responses(outbox))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().expect("no holder panics")
    }

    pub(super) fn push(&self, response: Bytes) -> Pushed {
        self.push_up_to(OUTBOX_RESPONSES_MAX, OUTBOX_BYTES_MAX, response)
    }

    /// Pushes one small response for which its sender has waited, even if others have taken the room meanwhile.
    pub(super) fn push_past_bound(&self, response: Bytes) {
        self.push_up_to(usize::MAX, usize::MAX, response);
    }

    fn push_up_to(&self, responses: usize, bytes: usize, response: Bytes) -> Pushed {
        let mut state = self.state();
        if state.is_gone || state.end.is_some() {
            return Pushed::Ended;
        }
        let is_full = state.waiting.len() >= responses || state.bytes + response.len() > bytes;
        if is_full && !state.waiting.is_empty() {
            return Pushed::Full;
        }
        state.bytes += response.len();
        state.waiting.push_back(response);
        let reader = state.reader.take();
        drop(state);
        if let Some(reader) = reader {
            reader.wake();
        }
        Pushed::Taken
    }

    /// Waits until the client has taken everything, or the stream has ended.
    pub(super) async fn drained(&self) {
        loop {
            let room = self.0.room.notified();
            {
                let state = self.state();
                if state.waiting.is_empty() || state.is_gone || state.end.is_some() {
                    return;
                }
            }
            room.await;
        }
    }

    /// Waits only if there is no room for a small response.
    pub(super) async fn drained_if_full(&self) {
        let is_full = {
            let state = self.state();
            state.waiting.len() >= OUTBOX_RESPONSES_MAX || state.bytes >= OUTBOX_BYTES_MAX
        };
        if is_full {
            self.drained().await;
        }
    }

    /// Waits for the end of the stream.
    pub(super) async fn ended(&self) {
        loop {
            let room = self.0.room.notified();
            if self.has_ended() {
                return;
            }
            room.await;
        }
    }

    /// Pushes as soon as there is room.
    pub(super) async fn send(&self, response: Bytes) {
        while self.push(response.clone()) == Pushed::Full {
            self.drained().await;
        }
    }

    /// Ends the stream; only the first end counts.
    pub(super) fn end(&self, end: Result<(), Status>) {
        let mut state = self.state();
        if end.is_err() {
            state.waiting.clear();
            state.bytes = 0;
        }
        state.end.get_or_insert(end);
        let reader = state.reader.take();
        drop(state);
        if let Some(reader) = reader {
            reader.wake();
        }
        self.0.room.notify_waiters();
    }

    /// True if nothing more will be read.
    pub(super) fn has_ended(&self) -> bool {
        let state = self.state();
        state.is_gone || state.end.is_some()
    }
}

impl Stream for Responses {
    type Item = Result<Bytes, Status>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut state = self.0.state();
        if let Some(response) = state.waiting.pop_front() {
            state.bytes -= response.len();
            let is_empty = state.waiting.is_empty();
            drop(state);
            if is_empty {
                self.0.0.room.notify_waiters();
            }
            return Poll::Ready(Some(Ok(response)));
        }
        match &mut state.end {
            Some(Ok(())) => Poll::Ready(None),
            Some(end) => Poll::Ready(std::mem::replace(end, Ok(())).err().map(Err)),
            None => {
                state.reader = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl Drop for Responses {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.is_gone = true;
        state.waiting.clear();
        drop(state);
        self.0.0.room.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn responses_are_bounded_by_number_and_bytes() {
        let (outbox, responses) = Outbox::new();
        for _ in 0..OUTBOX_RESPONSES_MAX {
            assert_eq!(outbox.push(Bytes::new()), Pushed::Taken);
        }
        assert_eq!(outbox.push(Bytes::new()), Pushed::Full);
        drop(responses);
        assert_eq!(outbox.push(Bytes::new()), Pushed::Ended);
        let (outbox, _responses) = Outbox::new();
        let large = Bytes::from(vec![0; OUTBOX_BYTES_MAX + 1]);
        assert_eq!(outbox.push(large.clone()), Pushed::Taken, "one always finds room");
        assert_eq!(outbox.push(large), Pushed::Full);
    }

    #[tokio::test]
    async fn an_error_ends_a_stream_before_what_waits() {
        let (outbox, mut responses) = Outbox::new();
        outbox.push(Bytes::from("a"));
        outbox.end(Err(Status::unavailable("why")));
        outbox.end(Ok(()));
        let next =
            std::future::poll_fn(|context| Pin::new(&mut responses).poll_next(context)).await;
        assert_eq!(next.expect("one").expect_err("an error").message(), "why");
        let next =
            std::future::poll_fn(|context| Pin::new(&mut responses).poll_next(context)).await;
        assert!(next.is_none());
    }
}
