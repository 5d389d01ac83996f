//! Plain connections between members: dialed ones, and accepted ones that begin with the magic bytes.

use std::future::poll_fn;
use std::io::{ErrorKind, Result};
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::Duration;

use super::open::ConnectionPermit;
use super::socket::Stream;
use super::{Address, PEER_SILENCE_MAX, clock, end_after, keep_alive, reactor};
use crate::io::Pool;
use crate::io::clock::Instant;

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
        if let Stream::Tcp(stream) = &self.stream {
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
                return Ok(Self::new(Stream::Unix(stream.ok_or_else(late)??), None));
            }
        };
        let stream = connect_first(&look_up(name, wait).await?, wait).await?;
        stream.set_nodelay()?;
        keep_alive(stream.as_fd())?;
        Ok(Self::new(Stream::Tcp(stream), None))
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
        Ok(())
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

/// An HTTP request to another member: status line, headers and body of `path`, within `wait` for each of its addresses
/// to connect, and another `wait` for the response. Blocks: not for executors.
///
/// # Errors
/// No address answers, or the response is late or not 200.
pub fn get(
    address: &Address,
    path: &str,
    wait: Duration,
) -> std::result::Result<(String, String), String> {
    let text = |error: std::io::Error| error.to_string();
    let name = match address {
        Address::Tcp(name) => name,
        Address::Unix(socket) => {
            let stream = std::os::unix::net::UnixStream::connect(socket).map_err(text)?;
            // From here on both kinds of sockets are used alike.
            return ask(OwnedFd::from(stream).into(), "localhost", path, wait);
        }
    };
    let mut last = format!("{address} has no address");
    for address in name.to_socket_addrs().map_err(text)? {
        match std::net::TcpStream::connect_timeout(&address, wait) {
            Ok(stream) => return ask(stream, &address.to_string(), path, wait),
            Err(error) => last = error.to_string(),
        }
    }
    Err(last)
}

fn ask(
    mut stream: std::net::TcpStream,
    host: &str,
    path: &str,
    wait: Duration,
) -> std::result::Result<(String, String), String> {
    use std::io::{Read as _, Write as _};
    let text = |error: std::io::Error| error.to_string();
    let began = Instant::now();
    stream.set_write_timeout(Some(wait)).map_err(text)?;
    let ask = format!("GET {path} HTTP/1.0\r\nHost: {host}\r\n\r\n");
    stream.write_all(ask.as_bytes()).map_err(text)?;
    let (mut answer, mut piece) = (Vec::new(), [0; ANSWER_PIECE_BYTES]);
    while answer.len() < ANSWER_BYTES_MAX {
        // A peer that sends a byte at times must not block the caller for ever.
        let left = wait.checked_sub(began.elapsed()).filter(|left| !left.is_zero());
        let left = left.ok_or_else(late).map_err(text)?;
        stream.set_read_timeout(Some(left)).map_err(text)?;
        match stream.read(&mut piece).map_err(text)? {
            0 => break,
            count => answer.extend_from_slice(&piece[..count]),
        }
    }
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    match head.split(' ').nth(1) {
        Some("200") => Ok((head.to_owned(), body.to_owned())),
        _ => Err(head.lines().next().unwrap_or_default().to_owned()),
    }
}

/// Upper bound of a response's bytes.
const ANSWER_BYTES_MAX: usize = 1 << 20;
/// Bytes read at once.
const ANSWER_PIECE_BYTES: usize = 8 << 10;
