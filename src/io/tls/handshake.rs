//! One handshake on one socket, as far as its bytes have come.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::Arc;

use gotls::{Leaf, handshake_error};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, Shutdown, recv, send, shutdown};
use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::ServerName;
use rustls::server::UnbufferedServerConnection;
use rustls::{ClientConfig, ServerConfig};

use super::certificate::PeerCertificate;
use super::session::{Session, Side};

/// Bytes read at once: more than a handshake has in most cases.
const READ_BYTES: usize = 16 << 10;
/// The head of a record, and what its first byte is for a handshake (RFC 8446, 5.1).
const RECORD_HEAD_BYTES: usize = 5;
const HANDSHAKE: u8 = 0x16;
/// The longest first record that is waited for.
const HELLO_BYTES_MAX: usize = RECORD_HEAD_BYTES + (16 << 10);

/// The kind of a connection's first bytes.
#[derive(PartialEq, Eq, Debug)]
pub(super) enum Begin {
    /// There are too few of them.
    Unknown,
    /// A whole record of a handshake.
    Tls,
    /// Something else.
    Other,
    /// The other end has gone.
    Ended,
}

/// Looks at the first bytes, which stay where they are: a client that sends them slowly, or none, takes no memory here.
pub(super) fn peek(socket: &OwnedFd) -> Begin {
    let mut head = [0; RECORD_HEAD_BYTES];
    let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
    let count = match recv(socket, &mut head[..], flags) {
        Ok((0, _)) => return Begin::Ended,
        Ok((count, _)) => count,
        Err(Errno::AGAIN | Errno::INTR) => return Begin::Unknown,
        Err(_) => return Begin::Ended,
    };
    if head[0] != HANDSHAKE {
        return Begin::Other;
    }
    if count < RECORD_HEAD_BYTES {
        return Begin::Unknown;
    }
    let length = RECORD_HEAD_BYTES + usize::from(u16::from_be_bytes([head[3], head[4]]));
    let there = rustix::io::ioctl_fionread(socket).unwrap_or(0);
    match there as usize >= length.min(HELLO_BYTES_MAX) {
        true => Begin::Tls,
        false => Begin::Unknown,
    }
}

/// How far a handshake has come.
pub(super) enum Progress {
    /// The other end's turn, or the socket is full.
    Waits,
    Done,
}

/// Why a handshake failed, in Go's words.
pub(super) enum Failure {
    /// The other end hung up before it was clear who it is.
    Gone,
    Refused(String),
}

/// A session for a connection that was accepted.
///
/// # Errors
/// The configuration cannot be used.
pub(super) fn accept(config: Arc<ServerConfig>) -> Result<Session, String> {
    let connection = UnbufferedServerConnection::new(config);
    let connection = connection.map_err(|error| error.to_string())?;
    Ok(Session::new(Side::Server(connection)))
}

/// A session for a connection that was dialed.
///
/// # Errors
/// The configuration cannot be used.
pub(super) fn connect(
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
) -> Result<Session, String> {
    let connection = UnbufferedClientConnection::new(config, name);
    let connection = connection.map_err(|error| error.to_string())?;
    Ok(Session::new(Side::Client(connection)))
}

/// Goes on as far as bytes have come.
///
/// # Errors
/// The handshake is over. The other end was told.
pub(super) fn advance(session: &mut Session, socket: &OwnedFd) -> Result<Progress, Failure> {
    let mut buffer = [0; READ_BYTES];
    // The first step of a client sends without having read.
    let mut taken = session.take_handshake(&[]);
    loop {
        let flushed = flush(session, socket.as_fd());
        if let Err(error) = taken {
            return Err(Failure::Refused(handshake_error(&error)));
        }
        match flushed {
            Ok(true) => (),
            Ok(false) => return Ok(Progress::Waits),
            Err(error) => return Err(Failure::Refused(format!("write tcp: {error}"))),
        }
        if !session.is_handshaking() {
            return Ok(Progress::Done);
        }
        match recv(socket, &mut buffer[..], RecvFlags::DONTWAIT) {
            Ok((0, _)) => return Err(Failure::Gone),
            Ok((count, _)) => taken = session.take_handshake(&buffer[..count]),
            Err(Errno::AGAIN) => return Ok(Progress::Waits),
            Err(Errno::INTR) => (),
            Err(Errno::CONNRESET) => return Err(Failure::Gone),
            Err(error) => return Err(Failure::Refused(format!("read tcp: {error}"))),
        }
    }
}

/// Sends what waits; whether all of it went.
fn flush(session: &mut Session, socket: BorrowedFd<'_>) -> Result<bool, Errno> {
    while !session.to_send().is_empty() {
        match send(socket, session.to_send(), SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
            Ok(count) => session.note_sent(count),
            Err(Errno::AGAIN) => return Ok(false),
            Err(Errno::INTR) => (),
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}

/// Ends the sending side, so that an alert arrives, which bytes that nobody reads would keep from the other end.
pub(super) fn end_sending(socket: &OwnedFd) {
    let _ = shutdown(socket, Shutdown::Write);
}

/// Throws away what still comes; whether the other end has ended, too.
pub(super) fn drain(socket: &OwnedFd) -> bool {
    let mut buffer = [0; READ_BYTES];
    loop {
        match recv(socket, &mut buffer[..], RecvFlags::DONTWAIT) {
            Ok((0, _)) => return true,
            Ok(_) | Err(Errno::INTR) => (),
            Err(Errno::AGAIN) => return false,
            Err(_) => return true,
        }
    }
}

/// The certificate that the other end has shown, and what it says; nothing if it showed none.
pub(super) fn shown(session: &Session, is_user: bool) -> Option<(Arc<PeerCertificate>, Leaf)> {
    let chain = match session.side() {
        Side::Server(connection) => connection.peer_certificates(),
        Side::Client(connection) => connection.peer_certificates(),
    };
    let first = chain?.first()?;
    let leaf = Leaf::parse(first).ok()?;
    Some((Arc::new(PeerCertificate::new(first, &leaf, is_user)), leaf))
}
