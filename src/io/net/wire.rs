//! Plain connections between members: dialed ones, and accepted ones that turn out to be such.

use std::future::poll_fn;
use std::io::Result;
use std::os::fd::AsRawFd as _;
use std::pin::Pin;
use std::time::Duration;

use futures_lite::AsyncWriteExt as _;
use glommio::net::TcpStream;

use super::open::Counted;
use super::socket::Stream;
use super::{PEER_SILENCE_MAX, borrow, clock, end_after, keep_alive};
use crate::io::clock::Moment;
use crate::io::{Pool, executor};

/// Bytes read at once.
const READ_BYTES: usize = 256 << 10;

/// A connection that carries frames.
pub struct Wire {
    stream: TcpStream,
    buffer: Vec<u8>,
    /// Held while it is open, if it was accepted.
    _counted: Option<Counted>,
}

impl Wire {
    fn new(stream: TcpStream, counted: Option<Counted>) -> Self {
        // Refused by no kernel that has the option, and of no harm if it is.
        let _ = end_after(borrow(stream.as_raw_fd()), PEER_SILENCE_MAX);
        Self { stream, buffer: vec![0; READ_BYTES], _counted: counted }
    }

    pub(super) fn accepted(stream: Stream, counted: Counted) -> Option<Self> {
        match stream {
            Stream::Tcp(stream) => Some(Self::new(stream, Some(counted))),
            Stream::Unix(_) => None,
        }
    }

    /// Connects to `host:port`.
    ///
    /// # Errors
    /// Nobody is there, or not in time.
    pub async fn dial(address: &str, wait: Duration) -> Result<Self> {
        let late = || std::io::Error::from(std::io::ErrorKind::TimedOut);
        let name = address.to_owned();
        // Looking a name up blocks.
        let address = Pool::Dns.run_if_wanted(move || resolve(&name)).await.ok_or_else(late)?;
        let connected = clock::deadline(wait, TcpStream::connect(address)).await;
        let stream = connected.ok_or_else(late)?.map_err(std::io::Error::from)?;
        stream.set_nodelay(true).map_err(std::io::Error::from)?;
        keep_alive(borrow(stream.as_raw_fd()))?;
        Ok(Self::new(stream, None))
    }

    /// What comes next; nothing when the other end has closed. May be given up and called again.
    ///
    /// # Errors
    /// The connection broke.
    pub async fn read(&mut self) -> Result<&[u8]> {
        let Self { stream, buffer, .. } = self;
        let read = poll_fn(|context| {
            futures_lite::AsyncRead::poll_read(Pin::new(&mut *stream), context, buffer)
        });
        let count = read.await?;
        executor::busy();
        Ok(&self.buffer[..count])
    }

    /// Sends all of it.
    ///
    /// # Errors
    /// The connection broke, or took nothing for so long.
    pub async fn write(&mut self, bytes: &[u8], wait: Duration) -> Result<()> {
        let written = clock::deadline(wait, self.stream.write_all(bytes)).await;
        written.unwrap_or_else(|| Err(std::io::ErrorKind::TimedOut.into()))
    }
}

/// The first address of `host:port`. Blocks: not for executors.
pub fn resolve(address: &str) -> Option<std::net::SocketAddr> {
    std::net::ToSocketAddrs::to_socket_addrs(address).ok()?.next()
}

/// Asks another member over HTTP: head and body of what `path` gives, within `wait` for each of its addresses to
/// connect, and another `wait` for the answer. Blocks: not for executors.
///
/// # Errors
/// Nobody is there, or answers too late or with anything but 200.
pub fn get(
    address: &str,
    path: &str,
    wait: Duration,
) -> std::result::Result<(String, String), String> {
    use std::io::{Read as _, Write as _};
    let text = |error: std::io::Error| error.to_string();
    let addresses = std::net::ToSocketAddrs::to_socket_addrs(address).map_err(text)?;
    let mut last = format!("{address} has no address");
    for address in addresses {
        let connected = std::net::TcpStream::connect_timeout(&address, wait);
        let mut stream = match connected {
            Ok(stream) => stream,
            Err(error) => {
                last = error.to_string();
                continue;
            }
        };
        let (began, late) = (Moment::now(), || std::io::ErrorKind::TimedOut.into());
        stream.set_write_timeout(Some(wait)).map_err(text)?;
        let ask = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n");
        stream.write_all(ask.as_bytes()).map_err(text)?;
        let (mut answer, mut piece) = (Vec::new(), [0; ANSWER_PIECE_BYTES]);
        while answer.len() < ANSWER_BYTES_MAX {
            // Who sends a byte now and then must not keep the asker for ever.
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
        return match head.split(' ').nth(1) {
            Some("200") => Ok((head.to_owned(), body.to_owned())),
            _ => Err(head.lines().next().unwrap_or_default().to_owned()),
        };
    }
    Err(last)
}

/// Bytes of an answer of another member's HTTP side.
const ANSWER_BYTES_MAX: usize = 1 << 20;
/// Bytes of it that are read at once.
const ANSWER_PIECE_BYTES: usize = 8 << 10;
