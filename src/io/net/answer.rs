//! The service of an HTTP/2 connection, as hyper calls it: bounds the streams of a connection and of an executor, and counts
//! the bytes of answers on their way to HTTP/2.
//!
//! ```text
//!  stream ─► too many? ─┬─ yes: REFUSED_STREAM, so that clients try again
//!                       └─ no: service ─► AnswerBody ─► hyper ─► h2, which keeps what its client does not take
//! ```
//!
//! hyper gives a piece of an answer to h2 as soon as one byte of it fits into the client's window, and its call ends with
//! its last piece. So the last byte of what is large is a piece of its own: as long as h2 keeps the rest, the call
//! waits and can be given up. Clients with small windows get all answers in this way.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::service::Service;
use send_wrapper::SendWrapper;

use super::progress::{self, Flow, PollResult, UnsentBytes};
use crate::io::fair_queue::note_answer;
use crate::metrics;
use crate::types::limits::{
    RESPONSE_BYTES_UNCOUNTED, STREAMS_OF_CONNECTION_MAX, UNSENT_BYTES_OF_CONNECTION_MIN,
};

type Failed = Box<dyn std::error::Error + Send + Sync>;

/// Marks a response whose client may take its messages as late as it likes, because what waits for it is bounded by its
/// service: official clients do not resume a watch whose stream was reset. The service counts the bytes that HTTP/2 holds.
#[derive(Clone)]
pub struct MayStall(SendWrapper<Rc<dyn UnsentBytes>>);

impl MayStall {
    /// With the service's count.
    pub fn new(unsent: Rc<dyn UnsentBytes>) -> Self {
        Self(SendWrapper::new(unsent))
    }
}

/// A service within the bounds of streams.
#[derive(Clone)]
pub(super) struct BoundedService<S> {
    service: S,
    flow: Flow,
    /// Streams of this executor.
    streams_max: usize,
    /// Unsent bytes of answers of this executor.
    unsent_max: usize,
}

impl<S> BoundedService<S> {
    pub(super) fn new(service: S, flow: Flow, streams_max: usize, unsent_max: usize) -> Self {
        Self { service, flow, streams_max, unsent_max }
    }

    /// True if there is no room for one more stream.
    fn is_full(&self) -> bool {
        let (own, all) = (self.flow.load(), progress::executor_load());
        own.calls >= STREAMS_OF_CONNECTION_MAX
            || all.calls >= self.streams_max
            || (own.unsent > UNSENT_BYTES_OF_CONNECTION_MIN
                && (self.flow.has_small_windows() || all.unsent > self.unsent_max))
    }
}

impl<S, B> Service<hyper::Request<Incoming>> for BoundedService<S>
where
    S: Service<hyper::Request<Incoming>, Response = hyper::Response<B>>,
    S::Future: Unpin,
    S::Error: Into<Failed>,
{
    type Response = hyper::Response<AnswerBody<B>>;
    type Error = Failed;
    type Future = Answering<S::Future>;

    fn call(&self, request: hyper::Request<Incoming>) -> Self::Future {
        if self.is_full() {
            metrics::STREAMS_REFUSED.add(1);
            return Answering { answer: None, flow: self.flow.clone() };
        }
        Answering { answer: Some(self.service.call(request)), flow: self.flow.clone() }
    }
}

/// An answer in preparation; none to a refused stream.
pub(super) struct Answering<F> {
    answer: Option<F>,
    flow: Flow,
}

impl<F, B, E> Future for Answering<F>
where
    F: Future<Output = Result<hyper::Response<B>, E>> + Unpin,
    E: Into<Failed>,
{
    type Output = Result<hyper::Response<AnswerBody<B>>, Failed>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(answer) = &mut self.answer else {
            return Poll::Ready(Err(h2::Error::from(h2::Reason::REFUSED_STREAM).into()));
        };
        let answer = ready!(Pin::new(answer).poll(context)).map_err(Into::into)?;
        let counted = match answer.extensions().get::<MayStall>() {
            Some(MayStall(unsent)) => UnsentCount::ByService(Rc::clone(unsent)),
            None => UnsentCount::ByFlow(self.flow.clone()),
        };
        Poll::Ready(Ok(answer.map(|body| AnswerBody {
            body,
            counted,
            last: None,
            is_large: false,
        })))
    }
}

/// The counter of an answer's unsent bytes.
#[derive(Clone)]
enum UnsentCount {
    /// The connection's. Its client is given up if it does not take them in time.
    ByFlow(Flow),
    /// A service's. Its client may take them as late as it likes.
    ByService(Rc<dyn UnsentBytes>),
}

impl UnsentCount {
    fn counter(&self) -> &dyn UnsentBytes {
        match self {
            Self::ByFlow(flow) => flow,
            Self::ByService(service) => &**service,
        }
    }
}

/// A piece of an answer, counted as long as HTTP/2 holds it.
pub(super) struct Piece {
    bytes: Bytes,
    counted: UnsentCount,
}

impl Piece {
    fn new(bytes: Bytes, counted: UnsentCount) -> Self {
        counted.counter().given(bytes.len());
        Self { bytes, counted }
    }
}

impl Buf for Piece {
    fn remaining(&self) -> usize {
        self.bytes.len()
    }

    fn chunk(&self) -> &[u8] {
        &self.bytes
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
        self.counted.counter().sent(count);
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        if !self.bytes.is_empty() {
            self.counted.counter().sent(self.bytes.len());
        }
    }
}

/// The body of an answer.
pub(super) struct AnswerBody<B> {
    body: B,
    counted: UnsentCount,
    /// The last byte of the piece that was given.
    last: Option<Bytes>,
    /// One of its pieces was large.
    is_large: bool,
}

impl<B> AnswerBody<B> {
    /// Counts a piece that is given to HTTP/2, and keeps its last byte.
    fn give(&mut self, mut piece: Bytes) -> Piece {
        note_answer();
        match &self.counted {
            UnsentCount::ByService(_) => progress::note(PollResult::Idle),
            UnsentCount::ByFlow(flow) => {
                progress::note(PollResult::Given);
                self.is_large |= piece.len() > RESPONSE_BYTES_UNCOUNTED;
                let is_split = piece.len() > RESPONSE_BYTES_UNCOUNTED || flow.has_small_windows();
                if is_split && piece.len() > 1 {
                    self.last = Some(piece.split_off(piece.len() - 1));
                }
            }
        }
        Piece::new(piece, self.counted.clone())
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for AnswerBody<B> {
    type Data = Piece;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Piece>, B::Error>>> {
        if let Some(last) = self.last.take() {
            progress::note(PollResult::Given);
            return Poll::Ready(Some(Ok(Frame::data(Piece::new(last, self.counted.clone())))));
        }
        let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) else {
            progress::note(PollResult::Idle);
            return Poll::Pending;
        };
        // HTTP/2 asks for the end when it has sent most of what came before.
        if frame.as_ref().is_none_or(|frame| frame.as_ref().is_ok_and(Frame::is_trailers))
            && let (UnsentCount::ByFlow(flow), true) = (&self.counted, self.is_large)
        {
            flow.set_proven();
        }
        let frame = frame.map(|frame| frame.map(|frame| frame.map_data(|piece| self.give(piece))));
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.last.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests;
