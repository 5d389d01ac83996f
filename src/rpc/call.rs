//! The metrics of every call: messages are counted both ways, the end is counted by its code, slow calls are
//! logged, and the part of the byte budget that a response takes is held until it was sent.
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
use basalt_proto::rpc::Rpc;
use bytes::{Buf as _, Bytes};
use hyper::body::{Body as _, Frame, Incoming, SizeHint};
use hyper::header::{HeaderMap, HeaderValue};
use tonic::body::Body;
use tonic::{Code, Status};

use super::body::ResponseBody;
use super::budget::Permit;
use super::deadline::{Deadline, late};
use super::table::rule;
use crate::io::clock::Moment;
use crate::metrics::{self, Timed};

/// Bytes of an answer that are handed to HTTP/2 at once: the rest waits here, where it is counted, until the
/// client has taken what came before.
const SLICE_BYTES: usize = 256 << 10;

/// Marks the answer of a transaction that only reads, as one of its extensions.
#[derive(Clone, Copy, Debug)]
pub(super) struct ReadOnly;

/// Where the messages of a request come from.
pub enum Source {
    /// A client that speaks gRPC.
    Wire(Incoming),
    /// Made here, of what a client sent in another form.
    Made(Body),
}

/// A request's body, counted.
pub(super) struct MeteredRequest {
    body: Source,
    rpc: Rpc,
    messages: MessageCounter,
}

impl MeteredRequest {
    pub(super) fn new(body: Source, rpc: Rpc) -> Self {
        Self { body, rpc, messages: MessageCounter::default() }
    }

    /// Bytes that come next; nothing at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, Status> {
        while !self.is_end_stream() {
            match poll_fn(|context| Pin::new(&mut *self).poll_frame(context)).await {
                None => break,
                Some(Err(error)) => return Err(Status::from_error(error)),
                // Trailers, which nobody looks at.
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
        }
    }
}

type Piece = Result<Frame<Bytes>, tonic::codegen::StdError>;

impl hyper::body::Body for MeteredRequest {
    type Data = Bytes;
    type Error = tonic::codegen::StdError;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Piece>> {
        let frame = ready!(self.poll_body(context));
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
        {
            metrics::BYTES_RECEIVED.add(data.len() as u64);
            let begun = self.messages.count(data);
            metrics::rpc_received(self.rpc, begun);
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
    rpc: Rpc,
    peer: Arc<str>,
    began: Moment,
    slow: Duration,
    ended: bool,
}

impl Call {
    pub(super) fn begin(rpc: Rpc, peer: Arc<str>, slow: Duration) -> Self {
        metrics::rpc_started(rpc);
        Self { rpc, peer, began: Moment::now(), slow, ended: false }
    }

    /// The service has answered; the body is yet to be sent.
    pub(super) fn answered(
        self,
        response: hyper::Response<ResponseBody>,
        max: usize,
    ) -> hyper::Response<MeteredResponse> {
        let (mut head, body) = response.into_parts();
        let code = in_go_words(&mut head.headers, max);
        self.time(code.is_none_or(|code| code == 0), head.extensions.get::<ReadOnly>().is_some());
        let permit = head.extensions.remove::<Permit>();
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
        if let Some(kind) = timed(self.rpc, read_only) {
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
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.end(Code::Cancelled as i32);
    }
}

/// The label under which the time of a call is taken.
fn timed(rpc: Rpc, read_only: bool) -> Option<Timed> {
    match rule(rpc).timed {
        Some(Timed::Txn) if read_only => Some(Timed::ReadonlyTxn),
        other => other,
    }
}

/// A response's body.
pub struct MeteredResponse {
    body: ResponseBody,
    /// What is left of the last frame.
    rest: Bytes,
    messages: MessageCounter,
    max: usize,
    call: Option<Call>,
    /// When the client no longer waits for the rest.
    deadline: Option<Deadline>,
    /// Given back when the body is gone.
    _permit: Option<Permit>,
}

impl MeteredResponse {
    /// A body that is none of gRPC's.
    pub fn plain(body: Body) -> Self {
        let (body, rest, messages) =
            (ResponseBody::Stream(body), Bytes::new(), MessageCounter::default());
        Self { body, rest, messages, max: 0, call: None, deadline: None, _permit: None }
    }

    /// A refusal of what is no call of any service.
    pub(super) fn refusal(status: Status) -> hyper::Response<Self> {
        let mut refused = status.into_http().map(Self::plain);
        in_go_words(refused.headers_mut(), 0);
        refused
    }

    /// The same body, cut off when that time is over.
    pub(super) fn until(self, deadline: Option<Deadline>) -> Self {
        Self { deadline, ..self }
    }

    /// What the body says next, or that there was not time enough.
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

/// How a call ended, if these headers tell.
fn code_of(headers: &HeaderMap) -> Option<i32> {
    headers.get(Status::GRPC_STATUS)?.to_str().ok()?.parse().ok()
}

/// Gives the code, if the headers hold one. What went wrong is said as grpc-go says it, which clients and scripts
/// look for, instead of as tonic does.
fn in_go_words(headers: &mut HeaderMap, max: usize) -> Option<i32> {
    let code = code_of(headers)?;
    if code == Code::Ok as i32 {
        return Some(code);
    }
    let status = Status::from_header_map(headers)?;
    let (code, message) = translated(&status, max);
    headers.insert(Status::GRPC_STATUS, HeaderValue::from(code as i32));
    let message = HeaderValue::from_bytes(&escaped(&message)).expect("printable ASCII");
    headers.insert(Status::GRPC_MESSAGE, message);
    Some(code as i32)
}

/// tonic's refusals of messages that make no sense.
fn translated(status: &Status, max: usize) -> (Code, String) {
    let message = status.message();
    let after = |words| message.split_once(words).map(|(_, rest)| rest);
    let number = |rest: &str| rest.chars().take_while(char::is_ascii_digit).collect::<String>();
    if let Some(rest) = after("message length too large: found ") {
        let found = number(rest);
        let text = format!("grpc: received message larger than max ({found} vs. {max})");
        (Code::ResourceExhausted, text)
    } else if let Some(rest) = after("Error decompressing: size limit, of ") {
        let max = number(rest);
        let text = format!("grpc: received message after decompression larger than max {max}");
        (Code::ResourceExhausted, text)
    } else if let Some(rest) = after("Error decompressing: ") {
        let why = rest.strip_suffix(", while sending request").unwrap_or(rest);
        (Code::Internal, not_decompressed(why, false))
    } else if let Some(rest) = after("Content is compressed with `") {
        let encoding = rest.split('`').next().unwrap_or_default();
        (Code::Unimplemented, unknown_encoding(encoding))
    } else if message.contains("received message with compressed-flag but no grpc-encoding") {
        (Code::Internal, NO_ENCODING.to_owned())
    } else if let Some(rest) = after("received message with invalid compression flag: ") {
        (Code::Internal, unknown_format(number(rest)))
    } else if message == "Unexpected EOF decoding stream." {
        (Code::Internal, "unexpected EOF".to_owned())
    } else if message == "Missing request message." {
        let text =
            "cardinality violation: received no request message from non-client-streaming RPC";
        (Code::Internal, text.to_owned())
    } else if message.starts_with("failed to decode Protobuf message") {
        let why = decode_error(message);
        let text = format!("grpc: failed to unmarshal the received message: {why}");
        (Code::Internal, text)
    } else {
        (status.code(), message.to_owned())
    }
}

/// Go's words for a compressed message in a call that names no compression.
pub(super) const NO_ENCODING: &str = "grpc: compressed flag set with identity or empty encoding";

/// Go's words for a compression that is not known.
pub(super) fn unknown_encoding(name: &str) -> String {
    format!("grpc: Decompressor is not installed for grpc-encoding {name:?}")
}

/// Go's words for what is not compressed as its call says, or only begins so, given flate2's.
pub(super) fn not_decompressed(why: &str, begins: bool) -> String {
    let what = if begins { "read decompressed data" } else { "decompress the message" };
    let why = match why {
        "unexpected end of file" | "incomplete deflate stream" => "unexpected EOF",
        "invalid gzip header" => "gzip: invalid header",
        "corrupt gzip stream does not have a matching checksum" => "gzip: invalid checksum",
        other => other,
    };
    format!("grpc: failed to {what}: {why}")
}

/// Go's words for what is neither a plain message nor a compressed one.
pub(super) fn unknown_format(flag: impl std::fmt::Display) -> String {
    format!("grpc: received unexpected payload format {flag}")
}

/// A message as headers carry it: only what is no printable ASCII is escaped, and the sign of that (gRPC over
/// HTTP/2, "Status-Message"). tonic escapes blanks and quotes, too.
fn escaped(message: &str) -> Vec<u8> {
    let mut escaped = Vec::with_capacity(message.len());
    for byte in message.bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' => escaped.push(byte),
            _ => escaped.extend_from_slice(format!("%{byte:02X}").as_bytes()),
        }
    }
    escaped
}

/// Go's words for why bytes are no message, given prost's.
pub(super) fn decode_error(why: &str) -> &'static str {
    match why.contains("UTF-8") {
        true => "string field contains invalid UTF-8",
        false => "proto: cannot parse invalid wire-format data",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_cannot_be_printed_is_escaped() {
        let mut headers = HeaderMap::new();
        Status::not_found("\"a b\" <100 %>\n\u{e4}").add_header(&mut headers).expect("escaped");
        assert_eq!(in_go_words(&mut headers, 0), Some(Code::NotFound as i32));
        assert_eq!(headers[Status::GRPC_MESSAGE], "\"a b\" <100 %25>%0A%C3%A4");
    }

    #[test]
    fn too_large_a_message_is_refused_in_gos_words() {
        let text = "Error, decoded message length too large: found 3000000 bytes, the limit is: 2097152 bytes";
        let mut headers = HeaderMap::new();
        Status::out_of_range(text).add_header(&mut headers).expect("plain text");
        in_go_words(&mut headers, 2_097_152);
        let status = Status::from_header_map(&headers).expect("a status");
        assert_eq!(status.code(), Code::ResourceExhausted);
        assert_eq!(
            status.message(),
            "grpc: received message larger than max (3000000 vs. 2097152)"
        );
    }
}
