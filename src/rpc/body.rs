//! The body of a response: one message whose bytes are complete, or tonic's stream of messages.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::vec;

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
    /// The same in pieces.
    Pieces(vec::IntoIter<Bytes>),
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
        let bytes = match self {
            Self::Stream(body) => return Pin::new(body).poll_frame(context),
            Self::Pieces(pieces) => pieces.next(),
            Self::Message(message) => {
                let message = std::mem::take(message);
                *self = Self::Ok;
                Some(message)
            }
            Self::Ok => None,
        };
        let frame = bytes.map(Frame::data).unwrap_or_else(|| {
            *self = Self::Stream(Body::empty());
            let mut trailers = HeaderMap::with_capacity(1);
            trailers.insert(Status::GRPC_STATUS, OK);
            Frame::trailers(trailers)
        });
        Poll::Ready(Some(Ok(frame)))
    }
}
