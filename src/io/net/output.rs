//! Bytes on their way out of a connection, gathered: hyper hands in heads and payloads of frames one by one (two for each
//! 16 KiB of a large answer), and asks to flush after each. They leave together, at the latest when the connection's
//! turn is over.
//!
//! ```text
//!  hyper ─poll_write─► gathered (one buffer for all connections of the executor) ─ full, or end of the turn ─► socket
//!                                                      what it does not take: left ◄─┘ (of the connection)
//! ```
//!
//! Only one connection of an executor has its turn at a time, and its turn ends with [`Duplex::send`], so that the
//! buffer is empty between turns. Copying costs less than the calls that it saves.

use std::cell::RefCell;
use std::io::{Error, ErrorKind, IoSlice, Result};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use super::clock;
use super::guard::Guard;
use super::socket::Stream;
use crate::io::fair_queue::note_work;
use crate::metrics;
use crate::types::limits::SEND_BYTES_MAX;

thread_local! {
    static GATHERED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// A stream and its output. Clones are the same.
#[derive(Clone)]
pub(super) struct Duplex(Rc<RefCell<Inner>>);

struct Inner {
    stream: Stream,
    /// Bytes that the socket did not take, of which it has taken `sent` since.
    left: Vec<u8>,
    sent: usize,
    /// Error that occurred after bytes were taken from hyper.
    failed: Option<Error>,
    /// The judge of the frames of HTTP/2.
    guard: Option<Guard>,
    /// The socket took nothing when it was last asked to.
    is_full: bool,
    /// Since then it has taken nothing.
    stalled: Option<Duration>,
}

impl Duplex {
    pub(super) fn new(stream: Stream) -> Self {
        Self(Rc::new(RefCell::new(Inner {
            stream,
            left: Vec::new(),
            sent: 0,
            failed: None,
            guard: None,
            is_full: false,
            stalled: None,
        })))
    }

    /// Judges the frames from now on: those of HTTP/2 begin with the next bytes in both directions.
    pub(super) fn judge(&self, guard: Guard) {
        self.0.borrow_mut().guard = Some(guard);
    }

    /// The last frame for a client that was judged to cost too much.
    pub(super) fn goaway(&self) -> Option<Vec<u8>> {
        self.0.borrow().guard.as_ref().and_then(Guard::goaway)
    }

    /// True if the client allows answers to be sent in small pieces only.
    pub(super) fn has_small_windows(&self) -> bool {
        self.0.borrow().guard.as_ref().is_some_and(Guard::has_small_windows)
    }

    /// True if the client may be one that makes no progress.
    pub(super) fn may_stall(&self) -> bool {
        let inner = self.0.borrow();
        inner.stalled.is_some() || inner.guard.as_ref().is_some_and(Guard::may_stall)
    }

    /// True if the socket has taken nothing for `time`.
    pub(super) fn is_stalled(&self, now: Duration, time: Duration) -> bool {
        self.0.borrow().stalled.is_some_and(|since| now.saturating_sub(since) >= time)
    }

    /// True if the client does not do for `time` what it has to, with so many bytes waiting for it.
    pub(super) fn sweep(&self, now: Duration, time: Duration, unsent: usize) -> bool {
        self.0.borrow_mut().guard.as_mut().is_some_and(|it| it.sweep(now, time, unsent).is_some())
    }

    /// Reads the next bytes into a part of `into`.
    pub(super) fn poll_read(
        &self,
        context: &mut Context<'_>,
        into: &mut [u8],
    ) -> Poll<Result<usize>> {
        let inner = &mut *self.0.borrow_mut();
        let read = ready!(inner.stream.poll_read(context, into))?;
        note_work(read);
        if let Some(guard) = &mut inner.guard {
            guard.received(&into[..read], Duration::from_millis(clock::now_ms()));
            if let Some(verdict) = guard.verdict() {
                metrics::CONNECTIONS_JUDGED.add(1);
                return Poll::Ready(Err(Error::other(verdict.text())));
            }
        }
        Poll::Ready(Ok(read))
    }

    /// Takes some of these bytes; how much is told. Takes nothing while the socket takes nothing.
    pub(super) fn poll_gather(
        &self,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<Result<usize>> {
        let inner = &mut *self.0.borrow_mut();
        ready!(inner.poll_left(context))?;
        GATHERED.with_borrow_mut(|gathered| {
            if gathered.len() == SEND_BYTES_MAX {
                ready!(inner.poll_send(context, gathered))?;
            }
            if gathered.is_empty() && parts.first().is_some_and(|it| it.len() >= SEND_BYTES_MAX) {
                let polled = inner.stream.poll_write_vectored(context, parts);
                let written = ready!(inner.asked(polled))?;
                note_work(written);
                inner.judge_sent(parts, written);
                return Poll::Ready(Ok(written));
            }
            let before = gathered.len();
            for part in parts {
                let room = SEND_BYTES_MAX - gathered.len();
                gathered.extend_from_slice(&part[..part.len().min(room)]);
            }
            let taken = gathered.len() - before;
            note_work(taken);
            inner.judge_sent(parts, taken);
            Poll::Ready(Ok(taken))
        })
    }

    /// Sends what was gathered as far as the socket takes it; the rest, too, when it takes more. Ends the turn.
    pub(super) fn send(&self, context: &mut Context<'_>) {
        let inner = &mut *self.0.borrow_mut();
        GATHERED.with_borrow_mut(|gathered| {
            if gathered.is_empty() {
                return;
            }
            if let Poll::Ready(Err(error)) = inner.poll_send(context, gathered) {
                // Told when hyper writes or flushes next, as it does now.
                inner.failed = Some(error);
                context.waker().wake_by_ref();
            }
        });
        inner.note_stall();
    }

    /// Ready when the socket has taken what it did not take before.
    pub(super) fn poll_drain(&self, context: &mut Context<'_>) -> Poll<Result<()>> {
        self.0.borrow_mut().poll_left(context)
    }

    /// Ready when all is sent, and no more will be.
    pub(super) fn poll_shut_down(&self, context: &mut Context<'_>) -> Poll<Result<()>> {
        let inner = &mut *self.0.borrow_mut();
        ready!(inner.poll_left(context))?;
        ready!(GATHERED.with_borrow_mut(|gathered| inner.poll_send(context, gathered)))?;
        inner.stream.poll_close(context)
    }

    /// Sends some of these bytes at once, for what has no turns.
    pub(super) fn poll_write(
        &self,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<Result<usize>> {
        let inner = &mut *self.0.borrow_mut();
        ready!(inner.poll_left(context))?;
        let written = ready!(inner.stream.poll_write(context, bytes))?;
        note_work(written);
        Poll::Ready(Ok(written))
    }
}

impl Inner {
    /// Notes if the socket takes anything.
    fn asked(&mut self, polled: Poll<Result<usize>>) -> Poll<Result<usize>> {
        self.is_full |= polled.is_pending();
        if let Poll::Ready(Ok(1..)) = polled {
            self.stalled = None;
        }
        polled
    }

    /// Ends a turn: the socket has stalled while there are bytes that it does not take.
    fn note_stall(&mut self) {
        if !std::mem::take(&mut self.is_full) && self.left.is_empty() {
            self.stalled = None;
        } else if self.stalled.is_none() {
            self.stalled = Some(Duration::from_millis(clock::now_ms()));
        }
    }

    /// Shows the guard so many bytes of these parts.
    fn judge_sent(&mut self, parts: &[IoSlice<'_>], mut length: usize) {
        let Some(guard) = &mut self.guard else { return };
        for part in parts {
            let taken = length.min(part.len());
            guard.sent(&part[..taken]);
            length -= taken;
        }
    }

    /// Sends what was gathered. Keeps what the socket does not take.
    fn poll_send(&mut self, context: &mut Context<'_>, gathered: &mut Vec<u8>) -> Poll<Result<()>> {
        let mut sent = 0;
        let outcome = loop {
            if sent == gathered.len() {
                break self.stream.poll_flush(context);
            }
            // Bytes left before go before these.
            let polled = match self.left.is_empty() {
                true => {
                    let polled = self.stream.poll_write(context, &gathered[sent..]);
                    self.asked(polled)
                }
                false => Poll::Pending,
            };
            match polled {
                Poll::Ready(Ok(0)) => break Poll::Ready(Err(ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(count)) => sent += count,
                Poll::Ready(Err(error)) => break Poll::Ready(Err(error)),
                Poll::Pending => {
                    self.left.extend_from_slice(&gathered[sent..]);
                    break Poll::Pending;
                }
            }
        };
        gathered.clear();
        outcome
    }

    fn poll_left(&mut self, context: &mut Context<'_>) -> Poll<Result<()>> {
        if let Some(error) = self.failed.take() {
            return Poll::Ready(Err(error));
        }
        while self.sent < self.left.len() {
            let polled = self.stream.poll_write(context, &self.left[self.sent..]);
            match ready!(self.asked(polled))? {
                0 => return Poll::Ready(Err(ErrorKind::WriteZero.into())),
                count => self.sent += count,
            }
        }
        if self.sent > 0 {
            (self.left, self.sent) = (Vec::new(), 0);
        }
        self.stream.poll_flush(context)
    }
}

#[cfg(test)]
mod tests;
