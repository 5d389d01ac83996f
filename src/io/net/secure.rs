//! Accepted connections on their way through a handshake of TLS, and descriptors as values.
//!
//! ```text
//!  Listener ─► descriptor ─► handshaker's thread ─► session ─┬─► Connection ─► executor
//!                                 └ no TLS, where that may be ┘
//! ```

use std::os::fd::{AsRawFd as _, FromRawFd as _, IntoRawFd as _, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use glommio::net::{AcceptedTcpStream, TcpStream, UnixStream};

use super::open::ConnectionPermit;
use super::socket::Stream;
use super::{Accepted, Connection, ConnectionSender, Identity, borrow, keep_alive};
use crate::io::clock::Instant;
use crate::io::descriptors::Lane;
use crate::io::tls::{Accepting, Credentials, Outcome, Rules, Session, handshakers, remote_of};

/// TLS on a port.
#[derive(Clone, Debug)]
pub struct Secure {
    /// The credentials to accept with.
    pub credentials: Arc<Credentials>,
    /// The port serves connections without TLS, too: the first byte tells.
    pub allows_plain: bool,
}

impl Secure {
    /// On a port of this lane whose connections go to these executors.
    pub(super) fn on(self, lane: Lane, port: usize, executors: Vec<ConnectionSender>) -> OnPort {
        let Self { credentials, allows_plain } = self;
        let is_peers = lane == Lane::Peers;
        let rules = Rules {
            credentials,
            allows_plain,
            // As etcd: where clients are served any address may show a certificate.
            checks_address: is_peers || lane == Lane::Metrics,
            endpoint: if is_peers { "peer" } else { "client" },
        };
        OnPort { rules: Arc::new(rules), port, is_peers, executors: executors.into() }
    }
}

pub(super) struct OnPort {
    rules: Arc<Rules>,
    port: usize,
    is_peers: bool,
    executors: Arc<[ConnectionSender]>,
}

impl OnPort {
    /// Hands a connection to the threads that make handshakes.
    pub(super) async fn take(&self, stream: Accepted, permit: ConnectionPermit) {
        static TURN: AtomicUsize = AtomicUsize::new(0);
        let began = Instant::now();
        // The threads were started before anyone listened.
        let Ok(threads) = handshakers() else { return };
        let (socket, is_unix) = match stream {
            Accepted::Tcp(stream) => match owned(stream) {
                Ok(socket) => (socket, false),
                Err(_) => return,
            },
            Accepted::Looked(looked) => (looked.socket, looked.is_unix),
        };
        let (port, executors) = (self.port, Arc::clone(&self.executors));
        let done = move |outcome| {
            let (socket, session, certificate) = match outcome {
                Outcome::Plain(socket) => (socket, None, None),
                Outcome::Secured(socket, session, certificate) => {
                    (socket, Some(session), certificate)
                }
            };
            let identity = Identity { is_secure: session.is_some(), certificate };
            let stream = Accepted::Looked(Looked { socket, is_unix, session });
            let Some(sender) = executors.iter().min_by_key(|it| it.share.count()) else { return };
            let permit = permit.with(&sender.share);
            drop(sender.to.send(Connection { stream, port, permit, began, identity }));
        };
        let remote = if is_unix { None } else { remote_of(&socket) };
        let rules = Arc::clone(&self.rules);
        let accepting = Accepting { socket, began, rules, remote, done: Box::new(done) };
        let turn = TURN.fetch_add(1, Ordering::Relaxed);
        let thread = if self.is_peers { threads.peers() } else { threads.client(turn) };
        thread.accept(accepting).await;
    }
}

/// The descriptor of an accepted socket, as a value that closes it. glommio lends its own as a number only, and closes
/// it with its stream, so that this is another one of the same socket.
///
/// # Errors
/// There is no descriptor left.
pub(super) fn owned(accepted: AcceptedTcpStream) -> rustix::io::Result<OwnedFd> {
    let stream = accepted.bind_to_executor();
    rustix::io::fcntl_dupfd_cloexec(borrow(stream.as_raw_fd()), 0)
}

/// A socket of which a handshake was made, or that turned out to speak no TLS.
pub(super) struct Looked {
    socket: OwnedFd,
    is_unix: bool,
    session: Option<Box<Session>>,
}

impl Looked {
    /// Of a unix socket.
    pub(super) fn unix(socket: OwnedFd) -> Self {
        Self { socket, is_unix: true, session: None }
    }

    /// Takes it to this executor; `None` if its other end has gone already.
    pub(super) fn bind(self) -> Option<Stream> {
        let stream = bind(self.socket, self.is_unix)?;
        Some(match self.session {
            Some(session) => stream.secured(session),
            None => stream,
        })
    }
}

/// Takes a socket to this executor; `None` if its other end has gone already.
#[allow(unsafe_code, reason = "glommio takes a socket that someone else made as a number only")]
pub(super) fn bind(socket: OwnedFd, is_unix: bool) -> Option<Stream> {
    let number = socket.into_raw_fd();
    if is_unix {
        // SAFETY: the descriptor is that of a unix socket, and nobody else owns it any more.
        return Some(Stream::Unix(unsafe { UnixStream::from_raw_fd(number) }));
    }
    // SAFETY: the descriptor is that of a TCP socket, and nobody else owns it any more.
    let stream = unsafe { TcpStream::from_raw_fd(number) };
    stream.set_nodelay(true).ok()?;
    keep_alive(borrow(stream.as_raw_fd())).ok()?;
    Some(Stream::Tcp(stream))
}
