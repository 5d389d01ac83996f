//! A connection on which both ends switched from HTTP to another protocol.

use std::io::Result;
use std::task::{Context, Poll};

use bytes::{Buf as _, Bytes};

use super::hyper_io::Socket;
use super::output::Duplex;

/// Bytes in both directions, in any protocol.
pub struct UpgradedIo {
    stream: Duplex,
    /// Bytes received together with the last request.
    begin: Bytes,
}

impl UpgradedIo {
    pub(super) fn new(socket: Socket, begin: Bytes) -> Self {
        Self { stream: socket.stream, begin }
    }

    /// Reads the next bytes into a part of `into`; 0 when the other end has closed.
    ///
    /// # Errors
    /// The connection broke.
    pub fn poll_read(&mut self, context: &mut Context<'_>, into: &mut [u8]) -> Poll<Result<usize>> {
        if self.begin.is_empty() {
            return self.stream.poll_read(context, into);
        }
        let count = self.begin.len().min(into.len());
        self.begin.copy_to_slice(&mut into[..count]);
        Poll::Ready(Ok(count))
    }

    /// Sends what was taken and not sent yet.
    ///
    /// # Errors
    /// The connection broke.
    pub fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<Result<()>> {
        self.stream.poll_drain(context)
    }

    /// Takes some of it; how much is told. It may leave with the next write or flush only.
    ///
    /// # Errors
    /// The connection broke.
    pub fn poll_write(&mut self, context: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize>> {
        self.stream.poll_write(context, bytes)
    }
}
