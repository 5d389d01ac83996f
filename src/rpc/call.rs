//! What surrounds every call: messages are counted both ways, the end is counted by its code, slow ones are
//! told of, and what an answer takes of the budget is held until it has left.
//!
//! ```text
//!  request body ─► Received ─► tonic ─► a service ─► tonic ─► Outgoing ─► HTTP/2, in slices, as the
//!                                                                         client takes them
//! ```

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use hyper::body::{Body as _, Frame, Incoming, SizeHint};
use hyper::header::HeaderMap;
use tonic::body::Body;
use tonic::{Code, Status};

use super::budget::Permit;
use super::deadline::{Deadline, late};
use crate::io::clock::Moment;
use crate::metrics::{self, Kind, Method, Timed};

/// Bytes of an answer that are handed to HTTP/2 at once: the rest waits here, where it is counted, until the
/// client has taken what came before.
const SLICE_BYTES: usize = 256 << 10;

/// A transaction told that it only reads; put into the extensions of its answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct ReadOnly;

/// Counts gRPC messages in a body, however it is cut into frames (five bytes before each message: a flag and
/// the length).
#[derive(Debug, Default)]
struct Messages {
    head: [u8; 5],
    filled: usize,
    left: usize,
}

impl Messages {
    /// Messages that begin in `data`.
    fn count(&mut self, mut data: &[u8]) -> u64 {
        let mut begun = 0;
        while !data.is_empty() {
            let skip = self.left.min(data.len());
            self.left -= skip;
            data = &data[skip..];
            let take = data.len().min(self.head.len() - self.filled);
            self.head[self.filled..self.filled + take].copy_from_slice(&data[..take]);
            self.filled += take;
            data = &data[take..];
            if self.filled == self.head.len() {
                let [_, length @ ..] = self.head;
                self.left = u32::from_be_bytes(length) as usize;
                self.filled = 0;
                begun += 1;
            }
        }
        begun
    }
}

/// Where the messages of a request come from.
pub enum Source {
    /// A client that speaks gRPC.
    Wire(Incoming),
    /// Made here, of what a client sent in another form.
    Made(Body),
}

/// A request's body, counted.
pub(super) struct Received {
    body: Source,
    method: &'static Method,
    messages: Messages,
}

impl Received {
    pub(super) fn new(body: Source, method: &'static Method) -> Self {
        Self { body, method, messages: Messages::default() }
    }

    fn poll_body(&mut self, context: &mut Context<'_>) -> Poll<Option<Piece>> {
        match &mut self.body {
            Source::Wire(body) => Pin::new(body).poll_frame(context).map_err(Into::into),
            Source::Made(body) => Pin::new(body).poll_frame(context).map_err(Into::into),
        }
    }
}

type Piece = Result<Frame<Bytes>, tonic::codegen::StdError>;

impl hyper::body::Body for Received {
    type Data = Bytes;
    type Error = tonic::codegen::StdError;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Piece>> {
        let frame = ready!(self.poll_body(context));
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
        {
            metrics::BYTES_RECEIVED.add(data.len() as u64);
            let begun = self.messages.count(data);
            self.method.received(begun);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.body {
            Source::Wire(body) => body.is_end_stream(),
            Source::Made(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.body {
            Source::Wire(body) => body.size_hint(),
            Source::Made(body) => body.size_hint(),
        }
    }
}

/// One call, from its first header to its last byte. Dropped before its end, it counts as canceled.
pub(super) struct Call {
    method: &'static Method,
    peer: Arc<str>,
    began: Moment,
    slow: Duration,
    ended: bool,
}

impl Call {
    pub(super) fn begin(method: &'static Method, peer: Arc<str>, slow: Duration) -> Self {
        method.started();
        Self { method, peer, began: Moment::now(), slow, ended: false }
    }

    /// The service has answered; the body is yet to be sent.
    pub(super) fn answered(
        self,
        response: hyper::Response<Body>,
        max: usize,
    ) -> hyper::Response<Outgoing> {
        let (mut head, body) = response.into_parts();
        let code = in_go_words(&mut head.headers, self.method.kind, max);
        self.time(code.is_none_or(|code| code == 0), head.extensions.get::<ReadOnly>().is_some());
        let permit = head.extensions.remove::<Permit>();
        let mut outgoing = Outgoing {
            body,
            rest: Bytes::new(),
            messages: Messages::default(),
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
        if self.method.kind != Kind::Unary {
            return;
        }
        let took = self.began.elapsed();
        if let Some(kind) = timed(self.method.name, read_only) {
            metrics::request(kind, success, took.as_secs_f64());
        }
        if took > self.slow {
            tracing::warn!(
                "time spent" = ?took,
                remote = &*self.peer,
                "response type" = format!("/{}/{}", self.method.service, self.method.name),
                "request stats"
            );
        }
    }

    fn end(&mut self, code: i32) {
        if !std::mem::replace(&mut self.ended, true) {
            self.method.handled(code);
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.end(Code::Cancelled as i32);
    }
}

fn timed(method: &str, read_only: bool) -> Option<Timed> {
    Some(match method {
        "Range" => Timed::Range,
        "Put" => Timed::Put,
        "DeleteRange" => Timed::DeleteRange,
        "Txn" if read_only => Timed::ReadonlyTxn,
        "Txn" => Timed::Txn,
        "Compact" => Timed::Compaction,
        "LeaseGrant" => Timed::LeaseGrant,
        "LeaseRevoke" => Timed::LeaseRevoke,
        "Alarm" => Timed::Alarm,
        _ => return None,
    })
}

/// A response's body.
pub struct Outgoing {
    body: Body,
    /// What is left of the last frame.
    rest: Bytes,
    messages: Messages,
    max: usize,
    call: Option<Call>,
    /// When the client no longer waits for the rest.
    deadline: Option<Deadline>,
    /// Given back when the body is gone.
    _permit: Option<Permit>,
}

impl Outgoing {
    /// A body that is none of gRPC's.
    pub fn plain(body: Body) -> Self {
        let (rest, messages) = (Bytes::new(), Messages::default());
        Self { body, rest, messages, max: 0, call: None, deadline: None, _permit: None }
    }

    /// The same body, cut off when that time is over.
    pub(super) fn until(self, deadline: Deadline) -> Self {
        Self { deadline: Some(deadline), ..self }
    }

    /// What the body says next, or that there was not time enough.
    fn poll_body(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        let is_over = |deadline: &mut Deadline| deadline.is_over(context);
        if polled.is_ready() || !self.deadline.as_mut().is_some_and(is_over) {
            return polled;
        }
        (self.body, self.deadline) = (Body::empty(), None);
        let mut trailers = HeaderMap::new();
        let added = late().add_header(&mut trailers);
        Poll::Ready(Some(added.map(|()| Frame::trailers(trailers))))
    }

    fn end(&mut self, code: i32) {
        if let Some(call) = &mut self.call {
            call.end(code);
        }
    }

    /// The next slice of what waits.
    fn slice(&mut self) -> Bytes {
        let length = self.rest.remaining().min(SLICE_BYTES);
        let slice = self.rest.split_to(length);
        if self.call.is_some() {
            metrics::BYTES_SENT.add(length as u64);
        }
        slice
    }
}

impl hyper::body::Body for Outgoing {
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
                if let Some(method) = self.call.as_ref().map(|call| call.method) {
                    let begun = self.messages.count(&data);
                    method.sent(begun);
                }
                self.rest = data;
                Frame::data(self.slice())
            }
            Err(frame) => match frame.into_trailers() {
                Ok(mut trailers) => {
                    if let Some(kind) = self.call.as_ref().map(|call| call.method.kind) {
                        let code = in_go_words(&mut trailers, kind, self.max);
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
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        if self.rest.is_empty() { self.body.size_hint() } else { SizeHint::default() }
    }
}

/// How a call ended, if these headers tell.
fn code_of(headers: &HeaderMap) -> Option<i32> {
    headers.get(Status::GRPC_STATUS)?.to_str().ok()?.parse().ok()
}

/// Refuses a message that is too large or makes no sense in the words and with the code of grpc-go, which
/// clients look for, instead of tonic's. Gives the code, if the headers hold one.
fn in_go_words(headers: &mut HeaderMap, kind: Kind, max: usize) -> Option<i32> {
    let code = code_of(headers)?;
    if code != Code::OutOfRange as i32 && code != Code::Internal as i32 {
        return Some(code);
    }
    let status = Status::from_header_map(headers)?;
    let message = status.message();
    let status = if let Some((_, found)) = message.split_once("message length too large: found ") {
        let found: String = found.chars().take_while(char::is_ascii_digit).collect();
        Status::resource_exhausted(format!(
            "grpc: received message larger than max ({found} vs. {max})"
        ))
    } else if message.starts_with("failed to decode Protobuf message") {
        let what = match kind {
            Kind::Unary => "error unmarshalling request",
            Kind::ServerStream | Kind::Bidi => "failed to unmarshal the received message",
        };
        let why = match message.contains("UTF-8") {
            true => "string field contains invalid UTF-8",
            false => "proto: cannot parse invalid wire-format data",
        };
        Status::internal(format!("grpc: {what}: {why}"))
    } else {
        return Some(code);
    };
    // All of it is plain text and fits into headers.
    drop(status.add_header(headers));
    Some(status.code() as i32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_counted_however_they_are_cut() {
        // Three bytes, none, and one.
        let bytes = [0, 0, 0, 0, 3, 9, 9, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 7];
        for size in 1..=bytes.len() {
            let mut messages = Messages::default();
            let counted: u64 = bytes.chunks(size).map(|chunk| messages.count(chunk)).sum();
            assert_eq!(counted, 3, "in pieces of {size}");
        }
    }

    #[test]
    fn too_large_a_message_is_refused_in_gos_words() {
        let text = "Error, decoded message length too large: found 3000000 bytes, the limit is: 2097152 bytes";
        let mut headers = HeaderMap::new();
        Status::out_of_range(text).add_header(&mut headers).expect("plain text");
        in_go_words(&mut headers, Kind::Unary, 2_097_152);
        let status = Status::from_header_map(&headers).expect("a status");
        assert_eq!(status.code(), Code::ResourceExhausted);
        assert_eq!(
            status.message(),
            "grpc: received message larger than max (3000000 vs. 2097152)"
        );
    }
}
