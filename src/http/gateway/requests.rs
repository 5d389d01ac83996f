//! Conversion of JSON requests to gRPC messages.

use std::pin::Pin;
use std::task::{Context, Poll};

use basalt_proto::grpc_frame::frame;
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Frame;
use tonic::Status;
use tonic::body::Body;

use super::{bounded, too_much};
use crate::json::{MessageId, Schema, Values};
use crate::rpc::IncompleteBytes;

/// One message.
pub(super) fn one(message: &[u8]) -> Body {
    Body::new(Full::new(frame(message)))
}

/// Many messages of at most `max` bytes, as they arrive.
pub(super) fn stream(
    body: Body,
    schema: &'static Schema,
    input: MessageId,
    max: usize,
    incomplete: IncompleteBytes,
) -> Body {
    let values = Values::default();
    Body::new(Stream { body, schema, input, max, values, incomplete, ended: false })
}

struct Stream {
    body: Body,
    schema: &'static Schema,
    input: MessageId,
    max: usize,
    values: Values,
    incomplete: IncompleteBytes,
    /// The client has ended the body.
    ended: bool,
}

impl Stream {
    /// The next message; `Ok(None)` if more of the body is needed. A malformed message ends the request stream without an
    /// error to the client, as in grpc-gateway.
    fn take(&mut self) -> Result<Option<Bytes>, String> {
        let value = match self.ended {
            false => self.values.take()?,
            true => self.values.last()?,
        };
        let Some(value) = value else { return Ok(None) };
        self.schema.encode(self.input, &value).map(|message| Some(frame(&message)))
    }
}

impl hyper::body::Body for Stream {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        loop {
            match self.take() {
                Ok(Some(message)) => return Poll::Ready(Some(Ok(Frame::data(message)))),
                Ok(None) if self.ended => return Poll::Ready(None),
                Ok(None) => (),
                Err(_) => return Poll::Ready(None),
            }
            let waiting = self.values.waiting();
            if let Err(refusal) = self.incomplete.came(waiting) {
                return Poll::Ready(Some(Err(too_much(refusal))));
            }
            let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) else {
                let refused = self.incomplete.poll_refused(context);
                return refused.map(|refusal| Some(Err(too_much(refusal))));
            };
            match frame {
                Some(Ok(frame)) => {
                    if let Some(data) = frame.data_ref() {
                        self.values.push(data);
                    }
                    if let Err(status) = bounded(&self.values, self.max) {
                        return Poll::Ready(Some(Err(status)));
                    }
                }
                // The client disconnected during its requests. Not reported as `Cancelled`, which tonic treats as their
                // regular end: the call would continue, and over HTTP/1 nothing else ends it.
                Some(Err(error)) => {
                    return Poll::Ready(Some(Err(Status::unknown(error.message()))));
                }
                None => self.ended = true,
            }
        }
    }
}
