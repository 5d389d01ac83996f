//! The body of a response: one message whose bytes are complete, or tonic's stream of messages.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body as _, Frame};
use hyper::header::{HeaderMap, HeaderValue};
use tonic::Status;
use tonic::body::Body;

/// The status of a call that succeeded.
const OK: HeaderValue = HeaderValue::from_static("0");

/// The messages of a response, and the status that ends it.
pub(super) enum ResponseBody {
    /// One message with its frame header, then the status OK.
    Message(Bytes),
    /// The status OK.
    Ok,
    /// Messages and a status; empty if the status is in the headers.
    Stream(Body),
}

impl ResponseBody {
    /// The next frame; none at the end.
    pub(super) fn poll_frame(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let (frame, then) = match self {
            Self::Stream(body) => return Pin::new(body).poll_frame(context),
            Self::Message(message) => (Frame::data(std::mem::take(message)), Self::Ok),
            Self::Ok => {
                let mut trailers = HeaderMap::with_capacity(1);
                trailers.insert(Status::GRPC_STATUS, OK);
                (Frame::trailers(trailers), Self::Stream(Body::empty()))
            }
        };
        *self = then;
        Poll::Ready(Some(Ok(frame)))
    }
}
