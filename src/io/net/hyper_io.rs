//! Connections, tasks and timers as hyper wants them.

use std::cell::RefCell;
use std::future::Future;
use std::io::{IoSlice, Result};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::rt::ReadBufCursor;

use super::clock;
use super::merge::Merge;
use super::output::Duplex;
use super::scheduler::{Handle, TURN_BYTES_MAX};
use crate::io::fair_queue::note_answer;

/// A stream, with what was read of it already.
pub(super) struct Socket {
    pub(super) stream: Duplex,
    begin: Vec<u8>,
    turn: Handle,
    /// For HTTP/2.
    merge: Option<Merge>,
}

impl Socket {
    pub(super) fn new(stream: Duplex, begin: Vec<u8>, turn: Handle) -> Self {
        Self { stream, begin, turn, merge: None }
    }

    /// The same for HTTP/2, whose frames begin with the next bytes of the stream.
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
        // Read into a buffer that all connections share and copy what came: hyper's own is not initialised,
        // and a copy of what is mostly a few hundred bytes is cheaper than filling it with zeros.
        READ.with_borrow_mut(|buffer| {
            let room = into.remaining().min(left);
            let Poll::Ready(read) = self.stream.poll_read(context, &mut buffer[..room])? else {
                self.turn.wait();
                return Poll::Pending;
            };
            self.turn.spend(read);
            if self.stream.has_small_windows() {
                self.turn.flow().set_small_windows();
            }
            let came = &mut buffer[..read];
            let length = self.merge.as_mut().map_or(read, |merge| merge.merge(came));
            into.put_slice(&came[..length]);
            Poll::Ready(Ok(()))
        })
    }
}

impl hyper::rt::Write for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<Result<usize>> {
        self.poll_write_vectored(context, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<Result<usize>> {
        if self.merge.is_none() {
            // HTTP/1 sends nothing but answers.
            note_answer();
        }
        self.stream.poll_gather(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// Gathered bytes leave at the end of the turn.
    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        self.stream.poll_drain(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        self.stream.poll_shut_down(context)
    }
}

/// hyper's clock.
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
