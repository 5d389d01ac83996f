//! One TLS connection: ciphertext in, plaintext out, and back. Knows no socket: whoever owns one lends its reads and
//! writes to each call.
//!
//! ```text
//!  socket ─poll_read─► scratch of the thread ─► records ─► the caller's buffer; what is over waits in `plain`
//!                          ▲ an unfinished record waits in `partial`
//!  socket ◄─poll_write─ `out` ◄─ records ◄─ the caller's slices, joined
//! ```
//!
//! An idle connection holds no buffer. The buffers to read and write belong to the thread.
//!
//! rustls remembers places in the bytes that it was given and has not done with. So each call of it gets all of them,
//! `partial`, also when it is about something else: with other bytes it panics, and the process with it.

use std::cell::RefCell;
use std::io::{Error, ErrorKind, IoSlice, Result};
use std::task::{Context, Poll, ready};

use rustls::client::UnbufferedClientConnection;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError};

/// A record: its head, the most that its plaintext may have, and what encryption adds at most (RFC 8446, 5.2; RFC 5246, 6.2.3).
const RECORD_BYTES_MAX: usize = 5 + (16 << 10) + 2048;
const RECORD_HEAD_BYTES: usize = 5;
/// Plaintext of one record.
const PLAIN_BYTES_MAX: usize = 16 << 10;
/// Upper bound of the bytes that a record adds to its plaintext.
const OVERHEAD_BYTES: usize = 64;
/// Plaintext that is encrypted at once; the caller waits with the rest until this was sent.
const WRITE_BYTES_MAX: usize = 64 << 10;
/// Ciphertext that is read at once.
const READ_BYTES_MAX: usize = 64 << 10;

thread_local! {
    /// Shared by all connections of a thread: ciphertext that came, and plaintext that goes.
    static SCRATCH: RefCell<Scratch> = RefCell::new(Scratch {
        read: vec![0; READ_BYTES_MAX + RECORD_BYTES_MAX],
        joined: Vec::with_capacity(WRITE_BYTES_MAX),
        encrypted: vec![0; WRITE_BYTES_MAX + (WRITE_BYTES_MAX / PLAIN_BYTES_MAX + 1) * OVERHEAD_BYTES],
    });
}

struct Scratch {
    read: Vec<u8>,
    joined: Vec<u8>,
    encrypted: Vec<u8>,
}

/// Which end this is.
pub(super) enum Side {
    Server(UnbufferedServerConnection),
    Client(UnbufferedClientConnection),
}

/// The output of records: plaintext, first into the reader's buffer, and ciphertext to send.
struct Sink<'a> {
    into: &'a mut [u8],
    filled: usize,
    plain: &'a mut Vec<u8>,
    out: &'a mut Vec<u8>,
    closed: &'a mut bool,
}

impl Sink<'_> {
    fn take(&mut self, plain: &[u8]) {
        let room = self.into.len() - self.filled;
        let now = if self.plain.is_empty() { room.min(plain.len()) } else { 0 };
        self.into[self.filled..self.filled + now].copy_from_slice(&plain[..now]);
        self.filled += now;
        self.plain.extend_from_slice(&plain[now..]);
    }
}

/// A write for when the state of the connection allows it: these bytes, or close_notify.
struct Goal<'a> {
    plain: Option<&'a [u8]>,
    into: &'a mut [u8],
    /// Bytes written, once they are.
    length: Option<usize>,
}

/// The next step for the same bytes.
#[derive(PartialEq, Eq)]
enum Flow {
    Again,
    Done,
}

/// A TLS connection whose handshake is under way or done.
pub(in crate::io) struct Session {
    side: Side,
    /// The beginning of a record whose rest is yet to come.
    partial: Vec<u8>,
    /// Plaintext that the reader had no room for, and how much of it was taken.
    plain: Vec<u8>,
    taken: usize,
    /// Ciphertext that the socket has not taken, and how much of it was sent.
    out: Vec<u8>,
    sent: usize,
    /// The other end has said that it sends no more.
    closed: bool,
    /// So has this one.
    closing: bool,
    /// It sent what is none of TLS; nothing more is asked of rustls.
    failed: bool,
}

impl Session {
    pub(super) fn new(side: Side) -> Self {
        Self {
            side,
            partial: Vec::new(),
            plain: Vec::new(),
            taken: 0,
            out: Vec::new(),
            sent: 0,
            closed: false,
            closing: false,
            failed: false,
        }
    }

    pub(super) fn side(&self) -> &Side {
        &self.side
    }

    pub(super) fn is_handshaking(&self) -> bool {
        match &self.side {
            Side::Server(connection) => connection.is_handshaking(),
            Side::Client(connection) => connection.is_handshaking(),
        }
    }

    /// Takes bytes of the handshake that came.
    ///
    /// # Errors
    /// They are refused. An alert waits to be sent.
    pub(super) fn take_handshake(
        &mut self,
        bytes: &[u8],
    ) -> std::result::Result<(), rustls::Error> {
        self.partial.extend_from_slice(bytes);
        self.process_partial(None)
    }

    /// Goes on with what is there, and reaches a goal if there is one.
    fn process_partial(
        &mut self,
        goal: Option<&mut Goal<'_>>,
    ) -> std::result::Result<(), rustls::Error> {
        let mut all = std::mem::take(&mut self.partial);
        let (used, _) = self.process(&mut all, &mut [], goal)?;
        if used > 0 {
            all.drain(..used);
        }
        self.partial = if all.is_empty() { Vec::new() } else { all };
        Ok(())
    }

    /// Ciphertext that waits to be sent.
    pub(super) fn to_send(&self) -> &[u8] {
        &self.out[self.sent..]
    }

    /// So much of it was sent.
    pub(super) fn note_sent(&mut self, count: usize) {
        self.sent += count;
        if self.sent == self.out.len() {
            (self.out, self.sent) = (Vec::new(), 0);
        }
    }

    /// Lets records be decrypted, as many as are whole. Gives how many bytes are done with, and how many of plaintext
    /// came into `into`.
    fn process(
        &mut self,
        bytes: &mut [u8],
        into: &mut [u8],
        mut goal: Option<&mut Goal<'_>>,
    ) -> std::result::Result<(usize, usize), rustls::Error> {
        if self.failed {
            return Err(rustls::Error::General("the connection has failed before".to_owned()));
        }
        let Self { side, plain, out, closed, failed, .. } = self;
        let mut sink = Sink { into, filled: 0, plain, out, closed };
        let mut used = 0;
        loop {
            let (discard, flow) = step(side, &mut bytes[used..], &mut sink, goal.as_deref_mut());
            used += discard;
            match flow {
                Ok(Flow::Again) => (),
                Ok(Flow::Done) => return Ok((used, sink.filled)),
                Err(error) => {
                    *failed = true;
                    // The alert comes first. Further bytes are not looked at: they could bring a second one, which rustls
                    // takes for a mistake of ours.
                    let (discard, _) = step(side, &mut bytes[used..], &mut sink, None);
                    used += discard;
                    debug_assert!(
                        used <= bytes.len(),
                        "rustls is done with bytes that it was not given"
                    );
                    return Err(error);
                }
            }
        }
    }

    /// Reads plaintext; 0 at its end.
    ///
    /// # Errors
    /// Those of `read`, and records that are none.
    pub(in crate::io) fn poll_read(
        &mut self,
        context: &mut Context<'_>,
        into: &mut [u8],
        mut read: impl FnMut(&mut Context<'_>, &mut [u8]) -> Poll<Result<usize>>,
    ) -> Poll<Result<usize>> {
        if self.taken < self.plain.len() {
            return Poll::Ready(Ok(self.take_plain(into)));
        }
        SCRATCH.with_borrow_mut(|scratch| {
            while !self.closed {
                let before = self.partial.len();
                let room = into.len().clamp(RECORD_HEAD_BYTES, READ_BYTES_MAX);
                if scratch.read.len() < before + room {
                    scratch.read.resize(before + room, 0);
                }
                let end = before + room;
                let count = ready!(read(context, &mut scratch.read[before..end]))?;
                if count == 0 {
                    return Poll::Ready(Ok(0));
                }
                scratch.read[..before].copy_from_slice(&self.partial);
                self.partial.clear();
                let filled = self.take_records(&mut scratch.read[..before + count], into)?;
                if filled > 0 {
                    return Poll::Ready(Ok(filled));
                }
            }
            Poll::Ready(Ok(0))
        })
    }

    /// Decrypts what is whole, and keeps what is not.
    fn take_records(&mut self, bytes: &mut [u8], into: &mut [u8]) -> Result<usize> {
        let processed = self.process(bytes, into, None);
        let (used, filled) =
            processed.map_err(|error| Error::new(ErrorKind::InvalidData, error))?;
        match used < bytes.len() {
            true => self.partial = bytes[used..].to_vec(),
            false => self.partial = Vec::new(),
        }
        Ok(filled)
    }

    fn take_plain(&mut self, into: &mut [u8]) -> usize {
        let count = into.len().min(self.plain.len() - self.taken);
        into[..count].copy_from_slice(&self.plain[self.taken..self.taken + count]);
        self.taken += count;
        if self.taken == self.plain.len() {
            (self.plain, self.taken) = (Vec::new(), 0);
        }
        count
    }

    /// Sends what waits, then encrypts some of these slices and sends them; gives the count. The rest of the
    /// ciphertext is kept until the next write or flush.
    ///
    /// # Errors
    /// Those of `write`.
    pub(in crate::io) fn poll_write(
        &mut self,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
        mut write: impl FnMut(&mut Context<'_>, &[u8]) -> Poll<Result<usize>>,
    ) -> Poll<Result<usize>> {
        ready!(self.poll_flush(context, &mut write))?;
        SCRATCH.with_borrow_mut(|scratch| {
            let Scratch { joined, encrypted, .. } = scratch;
            let plain = match slices {
                [one] => &one[..one.len().min(WRITE_BYTES_MAX)],
                several => {
                    joined.clear();
                    for slice in several {
                        let room = WRITE_BYTES_MAX - joined.len();
                        joined.extend_from_slice(&slice[..slice.len().min(room)]);
                    }
                    &joined[..]
                }
            };
            if plain.is_empty() {
                return Poll::Ready(Ok(0));
            }
            let length = self.encrypt(plain, encrypted)?;
            // Alerts and key updates that became due come first.
            ready!(self.poll_flush_or_keep(context, &encrypted[..length], &mut write))?;
            Poll::Ready(Ok(plain.len()))
        })
    }

    /// Sends what waits and then these bytes, as far as the socket takes them; the rest waits. Always ready.
    fn poll_flush_or_keep(
        &mut self,
        context: &mut Context<'_>,
        bytes: &[u8],
        write: &mut impl FnMut(&mut Context<'_>, &[u8]) -> Poll<Result<usize>>,
    ) -> Poll<Result<()>> {
        let mut left = bytes;
        if self.poll_flush(context, &mut *write)?.is_ready() {
            while !left.is_empty() {
                match write(context, left)? {
                    Poll::Ready(0) => return Poll::Ready(Err(ErrorKind::WriteZero.into())),
                    Poll::Ready(count) => left = &left[count..],
                    Poll::Pending => break,
                }
            }
        }
        self.out.extend_from_slice(left);
        Poll::Ready(Ok(()))
    }

    /// Encrypts into `encrypted`; gives the length.
    fn encrypt(&mut self, plain: &[u8], encrypted: &mut [u8]) -> Result<usize> {
        let mut goal = Goal { plain: Some(plain), into: encrypted, length: None };
        let processed = self.process_partial(Some(&mut goal));
        processed.map_err(|error| Error::new(ErrorKind::InvalidData, error))?;
        goal.length.ok_or_else(|| ErrorKind::BrokenPipe.into())
    }

    /// Sends what waits.
    ///
    /// # Errors
    /// Those of `write`.
    pub(in crate::io) fn poll_flush(
        &mut self,
        context: &mut Context<'_>,
        mut write: impl FnMut(&mut Context<'_>, &[u8]) -> Poll<Result<usize>>,
    ) -> Poll<Result<()>> {
        while self.sent < self.out.len() {
            match ready!(write(context, &self.out[self.sent..]))? {
                0 => return Poll::Ready(Err(ErrorKind::WriteZero.into())),
                count => self.note_sent(count),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Tells the other end that no more comes, and sends what waits.
    ///
    /// # Errors
    /// Those of `write`.
    pub(in crate::io) fn poll_close(
        &mut self,
        context: &mut Context<'_>,
        write: impl FnMut(&mut Context<'_>, &[u8]) -> Poll<Result<usize>>,
    ) -> Poll<Result<()>> {
        if !std::mem::replace(&mut self.closing, true) {
            let mut alert = [0; 2 * OVERHEAD_BYTES];
            let mut goal = Goal { plain: None, into: &mut alert, length: None };
            // One that has failed has said so with an alert of its own.
            let _ = self.process_partial(Some(&mut goal));
            let notify = goal.length.unwrap_or(0);
            self.out.extend_from_slice(&alert[..notify]);
        }
        self.poll_flush(context, write)
    }
}

/// One step of rustls. Gives how many bytes are done with.
fn step(
    side: &mut Side,
    bytes: &mut [u8],
    sink: &mut Sink<'_>,
    goal: Option<&mut Goal<'_>>,
) -> (usize, std::result::Result<Flow, rustls::Error>) {
    match side {
        Side::Server(connection) => {
            let status = connection.process_tls_records(bytes);
            (status.discard, status.state.and_then(|state| handle(state, sink, goal)))
        }
        Side::Client(connection) => {
            let status = connection.process_tls_records(bytes);
            (status.discard, status.state.and_then(|state| handle(state, sink, goal)))
        }
    }
}

fn handle<Data>(
    state: ConnectionState<'_, '_, Data>,
    sink: &mut Sink<'_>,
    goal: Option<&mut Goal<'_>>,
) -> std::result::Result<Flow, rustls::Error> {
    match state {
        ConnectionState::ReadTraffic(mut traffic) => {
            while let Some(record) = traffic.next_record() {
                sink.take(record?.payload);
            }
        }
        ConnectionState::EncodeTlsData(mut record) => {
            let begin = sink.out.len();
            sink.out.resize(begin + RECORD_BYTES_MAX, 0);
            let encoded = match record.encode(&mut sink.out[begin..]) {
                Err(EncodeError::InsufficientSize(lacking)) => {
                    sink.out.resize(begin + lacking.required_size, 0);
                    record.encode(&mut sink.out[begin..])
                }
                other => other,
            };
            let length = encoded.map_err(|error| rustls::Error::General(error.to_string()))?;
            sink.out.truncate(begin + length);
        }
        // It counts as sent from here on: `out` is sent before anything else is.
        ConnectionState::TransmitTlsData(transmit) => transmit.done(),
        ConnectionState::PeerClosed => *sink.closed = true,
        ConnectionState::WriteTraffic(mut traffic) => {
            if let Some(goal) = goal {
                let written = match goal.plain {
                    Some(plain) => traffic.encrypt(plain, goal.into),
                    None => traffic.queue_close_notify(goal.into),
                };
                let length = written.map_err(|error| rustls::Error::General(error.to_string()))?;
                goal.length = Some(length);
            }
            return Ok(Flow::Done);
        }
        ConnectionState::Closed | ConnectionState::BlockedHandshake => return Ok(Flow::Done),
        ConnectionState::ReadEarlyData(_) | _ => {
            return Err(rustls::Error::General("a state that is not known".to_owned()));
        }
    }
    Ok(Flow::Again)
}

#[cfg(test)]
mod tests;
