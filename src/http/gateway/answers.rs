//! Conversion of gRPC responses to JSON.

use std::future::Future as _;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use basalt_proto::grpc_frame::{HEAD_BYTES, Head};
use bytes::{Buf as _, Bytes, BytesMut};
use futures_lite::Stream;
use hyper::body::{Body as _, Frame, SizeHint};
use tonic::{Code, Status};

use super::{error_line, late, stopped};
use crate::io::Closing;
use crate::io::clock::Sleep;
use crate::json::{MessageId, Schema, Spelling};
use crate::rpc::MeteredResponse;

/// The messages of a response, however its body is cut.
pub(super) struct Messages {
    body: MeteredResponse,
    waiting: BytesMut,
    ended: bool,
}

impl Messages {
    pub(super) fn new(body: MeteredResponse) -> Self {
        Self { body, waiting: BytesMut::new(), ended: false }
    }

    fn take(&mut self) -> Option<Bytes> {
        let head = Head::read(&self.waiting)?;
        if self.waiting.len() < head.framed_length() {
            self.waiting.reserve(head.framed_length() - self.waiting.len());
            return None;
        }
        self.waiting.advance(HEAD_BYTES);
        Some(self.waiting.split_to(head.length as usize).freeze())
    }
}

impl Stream for Messages {
    type Item = Result<Bytes, Status>;

    fn poll_next(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Status>>> {
        loop {
            if let Some(message) = self.take() {
                return Poll::Ready(Some(Ok(message)));
            }
            if self.ended {
                return Poll::Ready(None);
            }
            let Some(frame) = ready!(Pin::new(&mut self.body).poll_frame(context)) else {
                self.ended = true;
                continue;
            };
            match frame?.into_data() {
                Ok(data) => self.waiting.extend_from_slice(&data),
                Err(frame) => {
                    let trailers = frame.trailers_ref();
                    if let Some(status) = trailers.and_then(Status::from_header_map)
                        && status.code() != Code::Ok
                    {
                        self.ended = true;
                        return Poll::Ready(Some(Err(status)));
                    }
                }
            }
        }
    }
}

/// A line for each message, and one for an error after the first.
pub(super) struct Lines {
    messages: Messages,
    schema: &'static Schema,
    output: MessageId,
    first: Option<Bytes>,
    /// The client's deadline.
    end: Option<Pin<Box<Sleep>>>,
    closing: Closing,
    ended: bool,
}

impl Lines {
    /// Begins with the first message.
    ///
    /// # Errors
    /// The bytes are not a message of this type.
    pub(super) fn new(
        messages: Messages,
        schema: &'static Schema,
        output: MessageId,
        first: &[u8],
        end: Option<Sleep>,
    ) -> Result<Self, String> {
        let first = Some(line(schema, output, first)?);
        let (end, closing) = (end.map(Box::pin), Closing::watch());
        Ok(Self { messages, schema, output, first, end, closing, ended: false })
    }

    fn is_late(&mut self, context: &mut Context<'_>) -> bool {
        self.end.as_mut().is_some_and(|end| end.as_mut().poll(context).is_ready())
    }

    fn last(&mut self, status: &Status) -> Bytes {
        self.ended = true;
        Bytes::from(format!("{}\n", error_line(status)))
    }
}

/// grpc-gateway prints lines by `encoding/json`, which escapes for HTML.
fn line(schema: &Schema, output: MessageId, message: &[u8]) -> Result<Bytes, String> {
    let mut text = "{\"result\":".to_owned();
    schema.print(output, message, Spelling::Html, &mut text)?;
    text.push_str("}\n");
    Ok(Bytes::from(text))
}

impl hyper::body::Body for Lines {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(Ok(Frame::data(first))));
        }
        if self.ended {
            return Poll::Ready(None);
        }
        if self.is_late(context) {
            return Poll::Ready(Some(Ok(Frame::data(self.last(&late())))));
        }
        let line = match Pin::new(&mut self.messages).poll_next(context) {
            Poll::Ready(None) => return Poll::Ready(None),
            Poll::Ready(Some(Ok(message))) => {
                let line = line(self.schema, self.output, &message);
                line.unwrap_or_else(|what| self.last(&Status::internal(what)))
            }
            Poll::Ready(Some(Err(status))) => self.last(&status),
            Poll::Pending => {
                ready!(self.closing.poll(context));
                self.last(&stopped())
            }
        };
        Poll::Ready(Some(Ok(Frame::data(line))))
    }
}

/// A text with its part of the budget, which is held until it was sent.
pub(super) struct Holding {
    text: Option<Bytes>,
    _messages: Messages,
}

impl Holding {
    pub(super) fn new(text: String, messages: Messages) -> Self {
        Self { text: Some(Bytes::from(text)), _messages: messages }
    }
}

impl hyper::body::Body for Holding {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        Poll::Ready(self.text.take().map(|text| Ok(Frame::data(text))))
    }

    fn is_end_stream(&self) -> bool {
        self.text.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.text.as_ref().map_or(0, |text| text.len() as u64))
    }
}
