//! Connected sockets.

use std::io::{IoSlice, Result};
use std::task::{Context, Poll};

use crate::io::reactor;

/// A connected socket.
pub(super) enum Stream {
    Tcp(reactor::Stream),
    Unix(reactor::Stream),
}

impl Stream {
    fn socket(&mut self) -> &mut reactor::Stream {
        match self {
            Self::Tcp(stream) | Self::Unix(stream) => stream,
        }
    }

    pub(super) fn poll_read(
        &mut self,
        context: &mut Context<'_>,
        into: &mut [u8],
    ) -> Poll<Result<usize>> {
        self.socket().poll_read(context, into)
    }

    pub(super) fn poll_write(
        &mut self,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<Result<usize>> {
        self.socket().poll_write(context, bytes)
    }

    /// The same for bytes that lie in several places.
    pub(super) fn poll_write_vectored(
        &mut self,
        context: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<Result<usize>> {
        self.socket().poll_write_vectored(context, bytes)
    }

    /// Ready when all that was taken is with the kernel.
    #[allow(clippy::unused_self, reason = "a stream that encrypts keeps bytes of its own")]
    pub(super) fn poll_flush(&mut self, _context: &mut Context<'_>) -> Poll<Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// Ready when no more will be sent, and all was.
    pub(super) fn poll_close(&mut self, _context: &mut Context<'_>) -> Poll<Result<()>> {
        Poll::Ready(self.socket().shut_down())
    }
}
