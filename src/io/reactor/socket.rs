//! Sockets of either reactor: TCP and unix, connected and listening. They belong to the executor that opened them.

use std::future::poll_fn;
use std::io::{Error, ErrorKind, IoSlice, Result};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd, IntoRawFd as _, OwnedFd};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_lite::{AsyncRead as _, AsyncWrite as _};
use rustix::io::Errno;
use rustix::net::{
    self, AddressFamily, RecvFlags, SendAncillaryBuffer, SendFlags, SocketAddrUnix, SocketFlags,
    SocketType, sockopt,
};

use super::epoll::{self, Way};
use super::periodic_wake::{OpenStream, mark_runnable};
use super::uring::net as uring;
use crate::io::clock;

/// Time until a connection to a unix socket is tried again whose queue is full.
const QUEUE_FULL_PAUSE: Duration = Duration::from_millis(5);

/// A connected socket.
pub(in crate::io) struct Stream {
    socket: Connected,
    _open: OpenStream,
}

/// glommio's type for TCP takes any socket for streams, and lends its descriptor, which the one for unix sockets does not.
enum Connected {
    Uring(uring::TcpStream),
    Epoll(epoll::Socket),
}

/// A connection on its way to its executor.
pub(in crate::io) enum Accepted {
    Uring(uring::AcceptedTcpStream),
    /// One that does not block on epoll.
    Fd(OwnedFd),
}

impl Accepted {
    /// Its descriptor, for what makes a handshake elsewhere. glommio closes its own with its stream, so that another
    /// one of the same socket leaves.
    ///
    /// # Errors
    /// There is no descriptor left.
    pub(in crate::io) fn into_fd(self) -> Result<OwnedFd> {
        match self {
            Self::Uring(stream) => {
                let stream = Stream::of(Connected::Uring(stream.bind_to_executor()));
                Ok(rustix::io::fcntl_dupfd_cloexec(&stream, 0)?)
            }
            Self::Fd(fd) => Ok(fd),
        }
    }

    /// Takes it to this executor, which is of the same reactor as the one that accepted it.
    ///
    /// # Errors
    /// The kernel has no room for it.
    pub(in crate::io) fn bind(self) -> Result<Stream> {
        match self {
            Self::Uring(stream) => Ok(Stream::of(Connected::Uring(stream.bind_to_executor()))),
            Self::Fd(fd) => Stream::adopt(fd),
        }
    }
}

impl Stream {
    fn of(socket: Connected) -> Self {
        Self { socket, _open: OpenStream::new() }
    }

    /// Connects to an address.
    pub(in crate::io) async fn connect_tcp(address: SocketAddr) -> Result<Self> {
        if !epoll::is_here() {
            return Ok(Self::of(Connected::Uring(uring::TcpStream::connect(address).await?)));
        }
        let family = match address {
            SocketAddr::V4(_) => AddressFamily::INET,
            SocketAddr::V6(_) => AddressFamily::INET6,
        };
        let fd = open(family)?;
        match net::connect(&fd, &address) {
            Ok(()) => Self::adopt(fd),
            Err(Errno::INPROGRESS) => {
                let socket = epoll::Socket::new(fd)?;
                socket.next_edge(Way::Write).await;
                sockopt::socket_error(&socket)??;
                Ok(Self::of(Connected::Epoll(socket)))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Connects to the socket at a path.
    pub(in crate::io) async fn connect_unix(path: &str) -> Result<Self> {
        let (fd, address) = (open(AddressFamily::UNIX)?, SocketAddrUnix::new(path)?);
        while let Err(error) = net::connect(&fd, &address) {
            match error {
                Errno::AGAIN => clock::sleep(QUEUE_FULL_PAUSE).await,
                error => return Err(error.into()),
            }
        }
        Self::adopt(fd)
    }

    /// Takes over a connected socket that does not block.
    ///
    /// # Errors
    /// The kernel has no room for it.
    pub(in crate::io) fn adopt(fd: OwnedFd) -> Result<Self> {
        Ok(Self::of(match epoll::is_here() {
            true => Connected::Epoll(epoll::Socket::new(fd)?),
            false => Connected::Uring(hand_over(fd)),
        }))
    }

    /// The address of the other end of a TCP connection.
    pub(in crate::io) fn peer_addr(&self) -> Result<SocketAddr> {
        let address = net::getpeername(self)?.ok_or(ErrorKind::NotConnected)?;
        SocketAddr::try_from(address).map_err(|_| ErrorKind::Unsupported.into())
    }

    /// Small writes leave at once.
    pub(in crate::io) fn set_nodelay(&self) -> Result<()> {
        Ok(sockopt::set_tcp_nodelay(self, true)?)
    }

    /// Reads the next bytes into a part of `into`; none when the other end has closed.
    pub(in crate::io) fn poll_read(
        &mut self,
        context: &mut Context<'_>,
        into: &mut [u8],
    ) -> Poll<Result<usize>> {
        let read = match &mut self.socket {
            Connected::Uring(stream) => Pin::new(stream).poll_read(context, into),
            Connected::Epoll(socket) => {
                let room = into.len();
                return socket.poll(context, Way::Read, room, |fd| {
                    net::recv(fd, &mut *into, RecvFlags::empty()).map(|(_, length)| length)
                });
            }
        };
        if read.is_ready() {
            mark_runnable();
        }
        read
    }

    /// Sends some of it; how much is told.
    pub(in crate::io) fn poll_write(
        &mut self,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<Result<usize>> {
        match &mut self.socket {
            Connected::Uring(stream) => Pin::new(stream).poll_write(context, bytes),
            Connected::Epoll(socket) => socket.poll(context, Way::Write, bytes.len(), |fd| {
                net::send(fd, bytes, SendFlags::NOSIGNAL)
            }),
        }
    }

    /// The same for bytes that lie in several places.
    pub(in crate::io) fn poll_write_vectored(
        &mut self,
        context: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<Result<usize>> {
        let room = bytes.iter().map(|part| part.len()).sum();
        if let Connected::Epoll(socket) = &mut self.socket {
            return socket.poll(context, Way::Write, room, |fd| {
                net::sendmsg(fd, bytes, &mut SendAncillaryBuffer::default(), SendFlags::NOSIGNAL)
            });
        }
        // glommio has no such call, and waits until the socket takes one byte at least.
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        match net::sendmsg(&*self, bytes, &mut SendAncillaryBuffer::default(), flags) {
            Err(Errno::WOULDBLOCK | Errno::INTR) => {
                let first = bytes.iter().find(|part| !part.is_empty());
                first.map_or(Poll::Ready(Ok(0)), |part| self.poll_write(context, part))
            }
            sent => Poll::Ready(sent.map_err(Error::from)),
        }
    }

    /// Sends nothing more.
    pub(in crate::io) fn shut_down(&self) -> Result<()> {
        Ok(net::shutdown(self, net::Shutdown::Write)?)
    }
}

impl AsFd for Stream {
    #[allow(unsafe_code, reason = "glommio's streams lend their descriptor as a number only")]
    fn as_fd(&self) -> BorrowedFd<'_> {
        let number = match &self.socket {
            Connected::Uring(stream) => stream.as_raw_fd(),
            Connected::Epoll(socket) => return socket.as_fd(),
        };
        // SAFETY: the stream is borrowed as long as the descriptor, and keeps it open.
        unsafe { BorrowedFd::borrow_raw(number) }
    }
}

/// A socket that does not block.
fn open(family: AddressFamily) -> Result<OwnedFd> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    Ok(net::socket_with(family, SocketType::STREAM, flags, None)?)
}

/// Gives a socket to glommio.
#[allow(unsafe_code, reason = "glommio takes a socket that someone else made as a number only")]
fn hand_over<T: FromRawFd>(fd: OwnedFd) -> T {
    // SAFETY: the descriptor is open, and nobody else owns it any more.
    unsafe { T::from_raw_fd(fd.into_raw_fd()) }
}

/// A socket that listens.
pub(in crate::io) enum Listener {
    Uring(uring::TcpListener),
    Epoll(epoll::Socket),
}

impl Listener {
    /// Takes over a socket that listens.
    pub(in crate::io) fn new(listener: OwnedFd) -> Result<Self> {
        if epoll::is_here() {
            rustix::io::ioctl_fionbio(&listener, true)?;
            return Ok(Self::Epoll(epoll::Socket::new(listener)?));
        }
        Ok(Self::Uring(hand_over(listener)))
    }

    /// The next connection.
    pub(in crate::io) async fn accept(&self) -> Result<Accepted> {
        match self {
            Self::Uring(listener) => Ok(Accepted::Uring(listener.shared_accept().await?)),
            Self::Epoll(socket) => poll_fn(|context| accept_nonblocking(socket, context)).await,
        }
    }
}

fn accept_nonblocking(socket: &epoll::Socket, context: &Context<'_>) -> Poll<Result<Accepted>> {
    let mut accepted = None;
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let polled = socket.poll(context, Way::Read, 0, |fd| {
        accepted = Some(net::accept_with(fd, flags)?);
        Ok(0)
    });
    polled.map(|outcome| {
        outcome?;
        accepted.map(Accepted::Fd).ok_or_else(|| ErrorKind::WouldBlock.into())
    })
}
