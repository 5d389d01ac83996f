//! Connected sockets, with TLS or without.

use std::io::{IoSlice, Result};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustix::net::sockopt;

use crate::io::reactor;
use crate::io::tls::Session;

/// Idle time until the kernel probes a client, the interval between two probes, and how many may stay unanswered: a
/// half-open connection ends after a minute and a half. Go's and etcd's listeners probe after 15 and 30 s.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);
const KEEPALIVE_PROBES: u32 = 4;

/// A connected socket.
pub(super) enum Stream {
    Tcp(reactor::Stream),
    Unix(reactor::Stream),
    /// One of the others, with TLS over it.
    Secured(Box<Secured>),
}

/// A socket and the session over it.
pub(super) struct Secured {
    plain: reactor::Stream,
    is_unix: bool,
    session: Box<Session>,
}

impl Stream {
    /// A socket with the options that connections have.
    ///
    /// # Errors
    /// The other end has gone already.
    pub(super) fn of(socket: reactor::Stream, is_unix: bool) -> Result<Self> {
        if is_unix {
            return Ok(Self::Unix(socket));
        }
        socket.set_nodelay()?;
        keep_alive(socket.as_fd())?;
        Ok(Self::Tcp(socket))
    }

    /// The same socket with TLS over it, whose handshake is done.
    pub(super) fn secured(self, session: Box<Session>) -> Self {
        match self {
            Self::Tcp(plain) => Self::Secured(Box::new(Secured { plain, is_unix: false, session })),
            Self::Unix(plain) => Self::Secured(Box::new(Secured { plain, is_unix: true, session })),
            Self::Secured(_) => self,
        }
    }

    /// The socket, if it is one of TCP.
    pub(super) fn tcp(&self) -> Option<&reactor::Stream> {
        match self {
            Self::Tcp(stream) => Some(stream),
            Self::Unix(_) => None,
            Self::Secured(secured) => (!secured.is_unix).then_some(&secured.plain),
        }
    }

    /// The socket below TLS, if there is TLS.
    pub(super) fn socket(&self) -> &reactor::Stream {
        match self {
            Self::Tcp(stream) | Self::Unix(stream) => stream,
            Self::Secured(secured) => &secured.plain,
        }
    }

    pub(super) fn poll_read(
        &mut self,
        context: &mut Context<'_>,
        into: &mut [u8],
    ) -> Poll<Result<usize>> {
        match self {
            Self::Tcp(stream) | Self::Unix(stream) => stream.poll_read(context, into),
            Self::Secured(secured) => {
                let Secured { plain, session, .. } = &mut **secured;
                session.poll_read(context, into, |context, into| plain.poll_read(context, into))
            }
        }
    }

    /// Sends some of these bytes; how much is told.
    pub(super) fn poll_write(
        &mut self,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<Result<usize>> {
        match self {
            Self::Tcp(stream) | Self::Unix(stream) => stream.poll_write(context, bytes),
            Self::Secured(_) => self.poll_write_vectored(context, &[IoSlice::new(bytes)]),
        }
    }

    /// The same for bytes that lie in several places.
    pub(super) fn poll_write_vectored(
        &mut self,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<Result<usize>> {
        match self {
            Self::Tcp(stream) | Self::Unix(stream) => stream.poll_write_vectored(context, parts),
            Self::Secured(secured) => {
                let Secured { plain, session, .. } = &mut **secured;
                session
                    .poll_write(context, parts, |context, bytes| plain.poll_write(context, bytes))
            }
        }
    }

    /// Ready when all that was taken is with the kernel.
    pub(super) fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<Result<()>> {
        match self {
            Self::Tcp(_) | Self::Unix(_) => Poll::Ready(Ok(())),
            Self::Secured(secured) => {
                let Secured { plain, session, .. } = &mut **secured;
                session.poll_flush(context, |context, bytes| plain.poll_write(context, bytes))
            }
        }
    }

    /// Ready when no more will be sent, and all was.
    pub(super) fn poll_close(&mut self, context: &mut Context<'_>) -> Poll<Result<()>> {
        if let Self::Secured(secured) = self {
            let Secured { plain, session, .. } = &mut **secured;
            let write = |context: &mut Context<'_>, bytes: &[u8]| plain.poll_write(context, bytes);
            ready!(session.poll_close(context, write))?;
        }
        Poll::Ready(self.socket().shut_down())
    }
}

/// Enables TCP keep-alive, so that the kernel detects a dead peer on an idle connection.
fn keep_alive(socket: BorrowedFd<'_>) -> Result<()> {
    sockopt::set_socket_keepalive(socket, true)?;
    sockopt::set_tcp_keepidle(socket, KEEPALIVE_IDLE)?;
    sockopt::set_tcp_keepintvl(socket, KEEPALIVE_INTERVAL)?;
    Ok(sockopt::set_tcp_keepcnt(socket, KEEPALIVE_PROBES)?)
}

/// Lets the kernel end a connection whose other end has acknowledged no bytes for so long. grpc-go's server sets the
/// same option to the same time, etcd's `--grpc-keepalive-timeout`.
pub(super) fn end_after(socket: BorrowedFd<'_>, silence: Duration) -> Result<()> {
    let millis = u32::try_from(silence.as_millis()).unwrap_or(u32::MAX);
    Ok(sockopt::set_tcp_user_timeout(socket, millis)?)
}
