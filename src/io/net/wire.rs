//! Connections between members: dialed ones, and accepted ones that turn out to be such.

use std::future::poll_fn;
use std::io::{ErrorKind, Result};
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::os::fd::AsFd as _;
use std::time::Duration;

use rustls::pki_types::ServerName;

use super::open::ConnectionPermit;
use super::socket::{Stream, end_after};
use super::{Address, PEER_SILENCE_MAX, clock, reactor};
use crate::io::Pool;
use crate::io::tls::{self, TlsCredentials};

/// Bytes read at once.
const READ_BYTES: usize = 256 << 10;

/// A connection that carries frames.
pub struct Wire {
    stream: Stream,
    buffer: Vec<u8>,
    /// The permit while the connection is open, if it was accepted.
    _permit: Option<ConnectionPermit>,
}

fn late() -> std::io::Error {
    ErrorKind::TimedOut.into()
}

impl Wire {
    fn new(stream: Stream, permit: Option<ConnectionPermit>) -> Self {
        let wire = Self { stream, buffer: vec![0; READ_BYTES], _permit: permit };
        wire.limit_silence(PEER_SILENCE_MAX);
        wire
    }

    pub(super) fn accepted(stream: Stream, permit: ConnectionPermit) -> Self {
        Self::new(stream, Some(permit))
    }

    /// Lets the kernel end the connection when the other end has acknowledged no bytes for so long. Unlike a deadline
    /// for writes it also counts while all written bytes are in the socket's buffer.
    pub fn limit_silence(&self, silence: Duration) {
        if let Some(stream) = self.stream.tcp() {
            // Refused by no kernel that has the option, and of no harm if it is.
            let _ = end_after(stream.as_fd(), silence);
        }
    }

    /// Connects to the first of these addresses that answers within `wait`.
    ///
    /// # Errors
    /// None of them answers.
    pub async fn dial(address: &Address, wait: Duration) -> Result<Self> {
        let name = match address {
            Address::Tcp(name) => name,
            Address::Unix(path) => {
                let stream = clock::deadline(wait, reactor::Stream::connect_unix(path)).await;
                return Ok(Self::new(Stream::of(stream.ok_or_else(late)??, true)?, None));
            }
        };
        let stream = connect_first(&look_up(name, wait).await?, wait).await?;
        Ok(Self::new(Stream::of(stream, false)?, None))
    }

    /// The next bytes; none when the other end has closed. Cancel-safe.
    ///
    /// # Errors
    /// The connection broke.
    pub async fn read(&mut self) -> Result<&[u8]> {
        let Self { stream, buffer, .. } = self;
        let count = poll_fn(|context| stream.poll_read(context, buffer)).await?;
        Ok(&self.buffer[..count])
    }

    /// Sends all of the bytes.
    ///
    /// # Errors
    /// The connection broke, or took nothing for `wait`.
    pub async fn write(&mut self, bytes: &[u8], wait: Duration) -> Result<()> {
        let mut left = bytes;
        while !left.is_empty() {
            let write = poll_fn(|context| self.stream.poll_write(context, left));
            match clock::deadline(wait, write).await.ok_or_else(late)?? {
                0 => return Err(ErrorKind::WriteZero.into()),
                count => left = &left[count..],
            }
        }
        let flush = poll_fn(|context| self.stream.poll_flush(context));
        clock::deadline(wait, flush).await.ok_or_else(late)?
    }

    /// The same connection with TLS over it, after a handshake within `wait` with who must be `name`.
    ///
    /// # Errors
    /// It is somebody else, refuses this member, or is late.
    pub(super) async fn secure(
        self,
        credentials: &TlsCredentials,
        name: ServerName<'static>,
        wait: Duration,
    ) -> Result<Self> {
        let is_unix = self.stream.tcp().is_none();
        let socket = rustix::io::fcntl_dupfd_cloexec(self.stream.socket(), 0)?;
        // Its own descriptor is closed: the handshake is made on another one of the same socket.
        drop(self);
        let made = tls::dial(socket, credentials, name, wait).await;
        let (socket, session) = made.map_err(std::io::Error::other)?;
        let stream = Stream::of(reactor::Stream::adopt(socket)?, is_unix)?;
        Ok(Self::new(stream.secured(session), None))
    }
}

/// Connects to the first of these addresses that answers, each within `wait`.
pub(super) async fn connect_first(
    addresses: &[SocketAddr],
    wait: Duration,
) -> Result<reactor::Stream> {
    let mut last = ErrorKind::AddrNotAvailable.into();
    for address in addresses {
        match clock::deadline(wait, reactor::Stream::connect_tcp(*address)).await {
            Some(Ok(stream)) => return Ok(stream),
            Some(Err(error)) => last = error,
            None => last = late(),
        }
    }
    Err(last)
}

/// All addresses of `host:port`. An address needs no name server.
async fn look_up(name: &str, wait: Duration) -> Result<Vec<SocketAddr>> {
    if let Ok(address) = name.parse() {
        return Ok(vec![address]);
    }
    let owned = name.to_owned();
    let resolving = Pool::Dns.run_if_wanted(move || Ok(owned.to_socket_addrs()?.collect()));
    clock::deadline(wait, resolving).await.unwrap_or_else(|| Err(late()))
}

/// The first address of `host:port`. Blocks: not for executors.
pub fn resolve(address: &str) -> Option<SocketAddr> {
    address.to_socket_addrs().ok()?.next()
}
