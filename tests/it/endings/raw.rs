//! A client without a library, which can end in any way: HTTP/2 frames, HTTP/1 and websocket bytes by hand over TCP
//! or a unix socket.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use prost::Message;

use crate::curl::framed;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const CANCEL: u32 = 8;

/// Address of a server.
#[derive(Clone, Copy)]
pub(super) enum To<'a> {
    Tcp(u16),
    Unix(&'a Path),
}

enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// One connection; closed when dropped.
pub(super) struct Raw {
    socket: Socket,
    /// Streams of HTTP/2 that were opened.
    pub(super) streams: u32,
}

impl Raw {
    pub(super) fn connect(to: To<'_>) -> io::Result<Self> {
        let socket = match to {
            To::Tcp(port) => Socket::Tcp(TcpStream::connect(("127.0.0.1", port))?),
            To::Unix(path) => Socket::Unix(UnixStream::connect(path)?),
        };
        Ok(Self { socket, streams: 0 })
    }

    /// Sends all of it, unless the other end has closed.
    pub(super) fn send(&mut self, bytes: &[u8]) {
        let _ = match &mut self.socket {
            Socket::Tcp(socket) => socket.write_all(bytes),
            Socket::Unix(socket) => socket.write_all(bytes),
        };
    }

    /// Bytes received within `wait`, until `is_enough` of them were.
    pub(super) fn read(&mut self, wait: Duration, is_enough: impl Fn(&[u8]) -> bool) -> Vec<u8> {
        let (until, mut came, mut piece) = (Instant::now() + wait, Vec::new(), [0; 4096]);
        while !is_enough(&came) {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            let read = match &mut self.socket {
                Socket::Tcp(socket) => {
                    socket.set_read_timeout(Some(left)).and_then(|()| socket.read(&mut piece))
                }
                Socket::Unix(socket) => {
                    socket.set_read_timeout(Some(left)).and_then(|()| socket.read(&mut piece))
                }
            };
            match read {
                Ok(0) | Err(_) => break,
                Ok(count) => came.extend_from_slice(&piece[..count]),
            }
        }
        came
    }

    /// Begins HTTP/2.
    pub(super) fn preface(&mut self) {
        self.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        self.send(&frame(SETTINGS, 0, 0, &[]));
    }

    /// Opens a gRPC stream, on which no message has been sent yet.
    pub(super) fn open(&mut self, path: &str) -> u32 {
        let stream = 2 * self.streams + 1;
        self.streams += 1;
        let fields = [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", path),
            (":authority", "127.0.0.1"),
            ("content-type", "application/grpc"),
            ("te", "trailers"),
        ];
        // Literals that are not indexed, without Huffman codes (RFC 7541, 6.2.2).
        let text = |text: &str| [&[text.len() as u8], text.as_bytes()].concat();
        let block = fields.map(|(name, value)| [vec![0], text(name), text(value)].concat());
        self.send(&frame(HEADERS, END_HEADERS, stream, &block.concat()));
        stream
    }

    /// Sends a message of a stream, which may be its last one.
    pub(super) fn message(&mut self, stream: u32, message: &impl Message, is_last: bool) {
        let flags = if is_last { END_STREAM } else { 0 };
        self.send(&frame(DATA, flags, stream, &framed(0, &message.encode_to_vec())));
    }

    /// Sends the beginning of a message that is longer.
    pub(super) fn half(&mut self, stream: u32) {
        self.send(&frame(DATA, 0, stream, &[0, 0, 0, 4, 0, 1, 2, 3]));
    }

    /// A whole call of one message.
    pub(super) fn call(&mut self, path: &str, message: &impl Message) {
        let stream = self.open(path);
        self.message(stream, message, true);
    }

    /// Cancels all streams.
    pub(super) fn reset_streams(&mut self) {
        for number in 0..self.streams {
            self.send(&frame(RST_STREAM, 0, 2 * number + 1, &CANCEL.to_be_bytes()));
        }
    }

    pub(super) fn go_away(&mut self) {
        self.send(&frame(GOAWAY, 0, 0, &[0; 8]));
    }

    /// Posts JSON over HTTP/1; the request may go on after it.
    pub(super) fn post(&mut self, path: &str, json: &str, goes_on: bool) {
        let length = json.len();
        let head = format!("POST {path} HTTP/1.1\r\nhost: x\r\n");
        let (head, body) = match goes_on {
            true => {
                (head + "transfer-encoding: chunked\r\n\r\n", format!("{length:x}\r\n{json}\r\n"))
            }
            false => (head + &format!("content-length: {length}\r\n\r\n"), json.to_owned()),
        };
        self.send((head + &body).as_bytes());
    }

    /// Sends a message over a websocket.
    pub(super) fn websocket(&mut self, path: &str, json: &str) {
        let head = format!(
            "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
             sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        self.send(head.as_bytes());
        self.read(Duration::from_secs(5), |came| came.ends_with(b"\r\n\r\n"));
        // A text frame, masked with zeros.
        self.send(&[&[0x81, 0x80 | json.len() as u8, 0, 0, 0, 0], json.as_bytes()].concat());
    }

    /// Ends the sending direction.
    pub(super) fn half_close(&self) {
        let _ = match &self.socket {
            Socket::Tcp(socket) => socket.shutdown(Shutdown::Write),
            Socket::Unix(socket) => socket.shutdown(Shutdown::Write),
        };
    }

    /// Closes it with RST instead of FIN.
    pub(super) fn reset(self) {
        if let Socket::Tcp(_) = &self.socket {
            let linger = rustix::net::sockopt::set_socket_linger(self.fd(), Some(Duration::ZERO));
            linger.expect("a socket lingers");
        }
    }

    /// From here on incoming packets are dropped before the kernel's TCP: neither bytes nor probes are
    /// acknowledged, as by a machine that lost its power.
    #[allow(unsafe_code, reason = "rustix has no socket filters")]
    pub(super) fn fall_silent(&self) {
        // BPF: return 0, keep nothing of a packet.
        let mut drop_all = libc::sock_filter { code: 6, jt: 0, jf: 0, k: 0 };
        let program = libc::sock_fprog { len: 1, filter: &raw mut drop_all };
        // SAFETY: the kernel copies the program, of the length given, during the call.
        let set = unsafe {
            libc::setsockopt(
                self.fd().as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_ATTACH_FILTER,
                (&raw const program).cast(),
                size_of::<libc::sock_fprog>() as u32,
            )
        };
        assert_eq!(set, 0, "{}", io::Error::last_os_error());
    }

    fn fd(&self) -> BorrowedFd<'_> {
        match &self.socket {
            Socket::Tcp(socket) => socket.as_fd(),
            Socket::Unix(socket) => socket.as_fd(),
        }
    }
}

/// True if HTTP/2 bytes contain the first frame of a response.
pub(super) fn has_answer(mut bytes: &[u8]) -> bool {
    while let Some((head, rest)) = bytes.split_first_chunk::<9>() {
        if matches!(head[3], DATA | HEADERS) {
            return true;
        }
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let Some(rest) = rest.get(length..) else { return false };
        bytes = rest;
    }
    false
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}
