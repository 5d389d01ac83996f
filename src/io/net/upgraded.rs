//! A connection whose two ends agreed to speak something else than HTTP.

use std::io::Result;
use std::task::{Context, Poll};

use bytes::{Buf as _, Bytes};

use super::hyper_io::Socket;
use super::output::Duplex;

/// Bytes in both directions, in whatever language.
pub struct UpgradedIo {
    stream: Duplex,
    /// What came together with the last request.
    begin: Bytes,
}

impl UpgradedIo {
    pub(super) fn new(socket: Socket, begin: Bytes) -> Self {
        Self { stream: socket.stream, begin }
    }

    /// What comes next, into a part of `into`; nothing when the other end has closed.
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

    /// Sends some of it; how much is told.
    ///
    /// # Errors
    /// The connection broke.
    pub fn poll_write(&mut self, context: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize>> {
        self.stream.poll_write(context, bytes)
    }
}
