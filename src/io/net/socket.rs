//! glommio's sockets, tasks and timers as hyper wants them.

use std::cell::RefCell;
use std::future::Future;
use std::io::Result;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_lite::{AsyncRead as _, AsyncWrite as _};
use glommio::net::{TcpStream, UnixStream};
use hyper::rt::ReadBufCursor;

use super::clock;
use super::merge::Merge;
use super::scheduler::{Handle, TURN_BYTES_MAX};
use crate::io::executor;

/// A connected socket.
pub(super) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Stream {
    pub(super) fn poll_read(
        &mut self,
        context: &mut Context<'_>,
        into: &mut [u8],
    ) -> Poll<Result<usize>> {
        let read = match self {
            Self::Tcp(stream) => Pin::new(stream).poll_read(context, into),
            Self::Unix(stream) => Pin::new(stream).poll_read(context, into),
        };
        if read.is_ready() {
            executor::mark_runnable();
        }
        read
    }

    pub(super) fn poll_write(
        &mut self,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<Result<usize>> {
        match self {
            Self::Tcp(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Unix(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<Result<()>> {
        match self {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(context),
            Self::Unix(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_close(&mut self, context: &mut Context<'_>) -> Poll<Result<()>> {
        match self {
            Self::Tcp(stream) => Pin::new(stream).poll_close(context),
            Self::Unix(stream) => Pin::new(stream).poll_close(context),
        }
    }
}

/// A stream, with bytes that were read from it already.
pub(super) struct Socket {
    pub(super) stream: Stream,
    pub(super) begin: Vec<u8>,
    turn: Handle,
    /// Set for HTTP/2.
    merge: Option<Merge>,
}

impl Socket {
    pub(super) fn new(stream: Stream, begin: Vec<u8>, turn: Handle) -> Self {
        Self { stream, begin, turn, merge: None }
    }

    /// Merges DATA frames from now on: HTTP/2 frames begin with the next bytes of the stream.
    pub(super) fn with_frames(self) -> Self {
        Self { merge: Some(Merge::default()), ..self }
    }
}

thread_local! {
    /// Shared by all connections of an executor.
    static READ: RefCell<Vec<u8>> = RefCell::new(vec![0; TURN_BYTES_MAX]);
}

impl hyper::rt::Read for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        mut into: ReadBufCursor<'_>,
    ) -> Poll<Result<()>> {
        if !self.begin.is_empty() {
            let count = self.begin.len().min(into.remaining());
            into.put_slice(&self.begin[..count]);
            self.begin.drain(..count);
            return Poll::Ready(Ok(()));
        }
        let Some(left) = self.turn.left(context) else { return Poll::Pending };
        // Read into a buffer that all connections share and copy: hyper's own is not initialised, and a copy of mostly
        // a few hundred bytes is cheaper than filling it with zeros.
        READ.with_borrow_mut(|buffer| {
            let room = into.remaining().min(left);
            let Poll::Ready(read) = self.stream.poll_read(context, &mut buffer[..room])? else {
                self.turn.wait();
                return Poll::Pending;
            };
            self.turn.spend(read);
            let came = &mut buffer[..read];
            let length = self.merge.as_mut().map_or(read, |merge| merge.merge(came));
            into.put_slice(&came[..length]);
            Poll::Ready(Ok(()))
        })
    }
}

impl hyper::rt::Write for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<Result<usize>> {
        self.stream.poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        self.stream.poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        self.stream.poll_close(context)
    }
}

/// The clock for hyper.
#[derive(Clone, Copy)]
pub(super) struct Clock;

struct Timer(clock::Sleep);

impl Future for Timer {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        Pin::new(&mut self.0).poll(context)
    }
}

impl hyper::rt::Sleep for Timer {}

impl hyper::rt::Timer for Clock {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn hyper::rt::Sleep>> {
        Box::pin(Timer(clock::sleep(duration)))
    }

    fn sleep_until(&self, deadline: std::time::Instant) -> Pin<Box<dyn hyper::rt::Sleep>> {
        self.sleep(deadline.duration_since(self.now()))
    }
}
