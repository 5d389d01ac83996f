//! Metrics of every call: messages are counted in both directions, the end by its code, slow calls are logged, and the
//! response's part of the byte budget is held until it was sent.
//!
//! ```text
//!                                  ┌─► unary ─┐               ┌─► unary ─┐
//!  request body ─► MeteredRequest ─┤          ├─► a service ─►┤          ├─► MeteredResponse ─► HTTP/2, in slices, as the
//!                                  └─► tonic ─┘               └─► tonic ─┘                      client takes them
//! ```

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use basalt_proto::grpc_frame::MessageCounter;
use basalt_proto::rpc::{Kind, Rpc};
use bytes::{Buf as _, Bytes};
use hyper::body::{Body as _, Frame, Incoming, SizeHint};
use hyper::header::HeaderMap;
use tonic::body::Body;
use tonic::{Code, Status};

use super::body::ResponseBody;
use super::budget::ReservedBytes;
use super::deadline::{Deadline, late, too_slow};
use super::go_errors::in_go_words;
use super::incomplete::IncompleteBytes;
use super::policy::Observed;
use super::status;
use crate::io::clock::Instant;
use crate::io::request_is_late;
use crate::metrics::{self, Timed};

/// Bytes of a response that are passed to HTTP/2 at once: the rest waits here, where it is counted, until the client
/// has taken the earlier part. A client that takes less than that in a minute makes no progress.
const SLICE_BYTES: usize = 64 << 10;

/// Extension of the response to a read-only transaction.
#[derive(Clone, Copy, Debug)]
pub(super) struct ReadOnly;

/// Source of a request's messages.
pub enum Source {
    /// A gRPC client.
    Wire(Incoming),
    /// Built here, from a request in another form.
    Made(Body),
    /// The one message of a request that was read before, with its frame header, until it is taken.
    Whole(Option<Bytes>),
}

/// A request's body with metrics.
pub(super) struct MeteredRequest {
    body: Source,
    rpc: Rpc,
    messages: MessageCounter,
    incomplete: IncompleteBytes,
    /// It is one message, which must be complete in time.
    is_single: bool,
}

impl MeteredRequest {
    pub(super) fn new(body: Source, rpc: Rpc, incomplete: IncompleteBytes) -> Self {
        let is_single = matches!(rpc.method().kind, Kind::Unary | Kind::ServerStream);
        Self { body, rpc, messages: MessageCounter::default(), incomplete, is_single }
    }

    /// The same request again, whose message was read.
    pub(super) fn with_message(self, message: Bytes) -> Self {
        Self { body: Source::Whole(Some(message)), ..self }
    }

    /// The next bytes; `None` at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, Status> {
        while !self.is_end_stream() {
            match poll_fn(|context| Pin::new(&mut *self).poll_frame(context)).await {
                None => break,
                Some(Err(error)) => return Err(Status::from_error(error)),
                // Trailers, which are not read.
                Some(Ok(frame)) if !frame.is_data() => (),
                Some(Ok(frame)) => return Ok(frame.into_data().ok()),
            }
        }
        Ok(None)
    }

    fn poll_body(&mut self, context: &mut Context<'_>) -> Poll<Option<Piece>> {
        match &mut self.body {
            Source::Wire(body) => Pin::new(body).poll_frame(context).map_err(Into::into),
            Source::Made(body) => Pin::new(body).poll_frame(context).map_err(Into::into),
            Source::Whole(message) => Poll::Ready(message.take().map(|it| Ok(Frame::data(it)))),
        }
    }
}

type Piece = Result<Frame<Bytes>, tonic::codegen::StdError>;

impl hyper::body::Body for MeteredRequest {
    type Data = Bytes;
    type Error = tonic::codegen::StdError;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Piece>> {
        let is_counted = matches!(self.body, Source::Whole(_));
        let Poll::Ready(frame) = self.poll_body(context) else {
            if self.is_single && request_is_late() {
                return Poll::Ready(Some(Err(too_slow().into())));
            }
            let refused = self.incomplete.poll_refused(context);
            return refused.map(|refusal| Some(Err(status(refusal).into())));
        };
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
            && !is_counted
        {
            metrics::BYTES_RECEIVED.add(data.len() as u64);
            let begun = self.messages.count(data);
            metrics::rpc_received(self.rpc, begun);
            let incomplete = self.messages.incomplete();
            if let Err(refusal) = self.incomplete.came(incomplete) {
                return Poll::Ready(Some(Err(status(refusal).into())));
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.body {
            Source::Wire(body) => body.is_end_stream(),
            Source::Made(body) => body.is_end_stream(),
            Source::Whole(message) => message.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.body {
            Source::Wire(body) => body.size_hint(),
            Source::Made(body) => body.size_hint(),
            Source::Whole(message) => {
                SizeHint::with_exact(message.as_ref().map_or(0, Bytes::len) as u64)
            }
        }
    }
}

/// One call, from its first header to its last byte. Dropped before its end, it counts as canceled.
pub(super) struct Call {
    rpc: Rpc,
    /// The label of its duration.
    timed: Option<Timed>,
    peer: Arc<str>,
    began: Instant,
    slow: Duration,
    ended: bool,
    /// Of a stream: what is written down of it.
    observed: Option<Box<Observed>>,
}

impl Call {
    pub(super) fn begin(rpc: Rpc, timed: Option<Timed>, peer: Arc<str>, slow: Duration) -> Self {
        metrics::rpc_started(rpc);
        Self { rpc, timed, peer, began: Instant::now(), slow, ended: false, observed: None }
    }

    /// The same call, of which something is written down when it ends.
    pub(super) fn observed(mut self, observed: Option<Box<Observed>>) -> Self {
        self.observed = observed;
        self
    }

    /// The service has answered; the body is not sent yet.
    pub(super) fn answered(
        self,
        response: hyper::Response<ResponseBody>,
        max: usize,
    ) -> hyper::Response<MeteredResponse> {
        let (mut head, body) = response.into_parts();
        let code = in_go_words(&mut head.headers, max);
        self.time(code.is_none_or(|code| code == 0), head.extensions.get::<ReadOnly>().is_some());
        let permit = head.extensions.remove::<ReservedBytes>();
        let mut outgoing = MeteredResponse {
            body,
            rest: Bytes::new(),
            messages: MessageCounter::default(),
            max,
            call: Some(self),
            deadline: None,
            _permit: permit,
        };
        if let Some(code) = code {
            outgoing.end(code);
        }
        hyper::Response::from_parts(head, outgoing)
    }

    fn time(&self, success: bool, read_only: bool) {
        if matches!(self.rpc, Rpc::Streaming(_)) {
            return;
        }
        let took = self.began.elapsed();
        let timed = match self.timed {
            Some(Timed::Txn) if read_only => Some(Timed::ReadonlyTxn),
            other => other,
        };
        if let Some(kind) = timed {
            metrics::request(kind, success, took.as_secs_f64());
        }
        if took > self.slow {
            tracing::warn!(
                "time spent" = ?took,
                remote = &*self.peer,
                "response type" = self.rpc.method().path,
                "request stats"
            );
        }
    }

    fn end(&mut self, code: i32) {
        if !std::mem::replace(&mut self.ended, true) {
            metrics::rpc_handled(self.rpc, code);
            if let Some(mut observed) = self.observed.take() {
                observed.finish_now(code);
            }
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.end(Code::Cancelled as i32);
    }
}

/// A response's body.
pub struct MeteredResponse {
    body: ResponseBody,
    /// The rest of the last frame.
    rest: Bytes,
    messages: MessageCounter,
    max: usize,
    call: Option<Call>,
    /// The client's deadline.
    deadline: Option<Deadline>,
    /// Released when the body is dropped.
    _permit: Option<ReservedBytes>,
}

impl MeteredResponse {
    /// A body that does not belong to gRPC.
    pub fn plain(body: Body) -> Self {
        let (body, rest, messages) =
            (ResponseBody::Stream(body), Bytes::new(), MessageCounter::default());
        Self { body, rest, messages, max: 0, call: None, deadline: None, _permit: None }
    }

    /// A refusal of a request that belongs to no method.
    pub(super) fn refusal(status: Status) -> hyper::Response<Self> {
        let mut refused = status.into_http().map(Self::plain);
        in_go_words(refused.headers_mut(), 0);
        refused
    }

    /// The same body, cut off at the deadline.
    pub(super) fn until(self, deadline: Option<Deadline>) -> Self {
        Self { deadline, ..self }
    }

    /// The next frame of the body, or the status for a passed deadline.
    fn poll_body(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let polled = self.body.poll_frame(context);
        let is_over = |deadline: &mut Deadline| deadline.is_over(context);
        if polled.is_ready() || !self.deadline.as_mut().is_some_and(is_over) {
            return polled;
        }
        (self.body, self.deadline) = (ResponseBody::Stream(Body::empty()), None);
        let mut trailers = HeaderMap::new();
        let added = late().add_header(&mut trailers);
        Poll::Ready(Some(added.map(|()| Frame::trailers(trailers))))
    }

    fn end(&mut self, code: i32) {
        if let Some(call) = &mut self.call {
            call.end(code);
        }
    }

    /// The next slice of the waiting bytes.
    fn slice(&mut self) -> Bytes {
        let length = self.rest.remaining().min(SLICE_BYTES);
        let slice = self.rest.split_to(length);
        if self.call.is_some() {
            metrics::BYTES_SENT.add(length as u64);
        }
        slice
    }
}

impl hyper::body::Body for MeteredResponse {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if !self.rest.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(self.slice()))));
        }
        let Some(frame) = ready!(self.poll_body(context)) else {
            return Poll::Ready(None);
        };
        let frame = match frame?.into_data() {
            Ok(data) => {
                if let Some(rpc) = self.call.as_ref().map(|call| call.rpc) {
                    let begun = self.messages.count(&data);
                    metrics::rpc_sent(rpc, begun);
                }
                self.rest = data;
                Frame::data(self.slice())
            }
            Err(frame) => match frame.into_trailers() {
                Ok(mut trailers) => {
                    if self.call.is_some() {
                        let code = in_go_words(&mut trailers, self.max);
                        self.end(code.unwrap_or(Code::Unknown as i32));
                    }
                    Frame::trailers(trailers)
                }
                Err(other) => other,
            },
        };
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty()
            && matches!(&self.body, ResponseBody::Stream(body) if body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        if let (ResponseBody::Stream(body), true) = (&self.body, self.rest.is_empty()) {
            return body.size_hint();
        }
        SizeHint::default()
    }
}
