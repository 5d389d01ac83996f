//! Clients that cost much and ask for nothing are told so and disconnected, while others are served.

mod stalls;

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use crate::compare::runtime;
use crate::metrics::get;
use crate::process::{self, PATIENCE, Server, Setup};
use crate::wire::{self, Wire};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEAD_BYTES: usize = 9;
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const ENHANCE_YOUR_CALM: u8 = 11;

/// A connection of HTTP/2, frame by frame.
pub(crate) struct Frames(TcpStream);

impl Frames {
    pub(crate) fn open(server: &Server) -> Self {
        Self::with_settings(server, &[])
    }

    /// A connection with these settings of its client.
    fn with_settings(server: &Server, settings: &[(u16, u32)]) -> Self {
        let payload: Vec<u8> = settings
            .iter()
            .flat_map(|(id, value)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat())
            .collect();
        let stream = TcpStream::connect(("127.0.0.1", server.port)).expect("accepted");
        stream.set_read_timeout(Some(PATIENCE)).expect("a time");
        stream.set_write_timeout(Some(PATIENCE)).expect("a time");
        let mut frames = Self(stream);
        frames.send(&[PREFACE, &frame(SETTINGS, 0, 0, &payload)].concat());
        frames.read_until(|kind, flags| kind == SETTINGS && flags & ACK == 0);
        frames.send(&frame(SETTINGS, ACK, 0, &[]));
        frames
    }

    /// A connection that was closed meanwhile takes nothing.
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        let _ = self.0.write_all(bytes);
    }

    /// The next frame: kind, flags, payload; `None` at the end.
    fn next(&mut self) -> Option<(u8, u8, Vec<u8>)> {
        let mut head = [0; HEAD_BYTES];
        if let Err(error) = self.0.read_exact(&mut head) {
            let is_end = matches!(
                error.kind(),
                ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe
            );
            assert!(is_end, "{error}");
            return None;
        }
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; length as usize];
        self.0.read_exact(&mut payload).ok()?;
        Some((head[3], head[4], payload))
    }

    fn read_until(&mut self, wanted: impl Fn(u8, u8) -> bool) -> bool {
        while let Some((kind, flags, _)) = self.next() {
            if wanted(kind, flags) {
                return true;
            }
        }
        false
    }

    /// A whole call of this path, with its only message.
    pub(crate) fn call(&mut self, path: &str, message: &[u8]) {
        self.send(&call_of(1, path));
        self.send(&frame(DATA, END_STREAM, 1, message));
    }

    /// Waits for the answer to a ping, or for the end.
    pub(crate) fn ping(&mut self) {
        self.send(&frame(PING, 0, 0, &[0; 8]));
        self.read_until(|kind, flags| kind == PING && flags & ACK != 0);
    }

    /// Code and text of the last GOAWAY before the end.
    pub(crate) fn farewell(mut self) -> Option<(u8, String)> {
        let mut told = None;
        while let Some((kind, _, payload)) = self.next() {
            if kind == GOAWAY {
                told = Some((payload[7], String::from_utf8_lossy(&payload[8..]).into_owned()));
            }
        }
        told
    }
}

pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("short");
    [&length.to_be_bytes()[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// The head of a call whose message is yet to come.
pub(crate) fn call(stream: u32) -> Vec<u8> {
    call_of(stream, wire::RANGE)
}

/// The same for any method.
fn call_of(stream: u32, path: &str) -> Vec<u8> {
    let text = |text: &str| [&[text.len() as u8], text.as_bytes()].concat();
    let block = [
        &[0x83, 0x86, 0x04][..],
        &text(path),
        &[0x01],
        &text("localhost"),
        &[0x0f, 0x10],
        &text("application/grpc"),
        &[0x00],
        &text("te"),
        &text("trailers"),
    ]
    .concat();
    frame(HEADERS, END_HEADERS, stream, &block)
}

fn calm(text: &str) -> Option<(u8, String)> {
    Some((ENHANCE_YOUR_CALM, text.to_owned()))
}

pub(crate) fn is_served(server: &Server) {
    runtime().block_on(async {
        Wire::new(&server.endpoint()).put("k", "v").await.expect("others are served");
    });
}

#[test]
fn a_client_that_pings_too_often_is_told_so_as_by_etcd() {
    for binary in [process::etcd(), process::basalt()] {
        let server = Setup::new(binary).start();
        let mut frames = Frames::open(&server);
        for _ in 0..4 {
            frames.send(&frame(PING, 0, 0, &[0; 8]));
            std::thread::sleep(Duration::from_millis(20));
        }
        assert_eq!(frames.farewell(), calm("too_many_pings"), "{}", server.logs.tail());
        is_served(&server);
    }
}

#[test]
fn streams_that_are_reset_at_once_end_their_connection_alone() {
    const BATCH: u32 = 200;
    let server = Setup::new(process::basalt()).start();
    let mut frames = Frames::open(&server);
    for batch in 0..60 {
        let streams = || (0..BATCH).map(|number| 2 * (batch * BATCH + number) + 1);
        frames.send(&streams().flat_map(call).collect::<Vec<_>>());
        // They are accepted, each a call, before they are reset.
        frames.send(&frame(SETTINGS, 0, 0, &[]));
        if !frames.read_until(|kind, flags| kind == SETTINGS && flags & ACK != 0) {
            break;
        }
        let resets = streams().flat_map(|stream| frame(RST_STREAM, 0, stream, &[0, 0, 0, 8]));
        frames.send(&resets.collect::<Vec<_>>());
        is_served(&server);
    }
    let mut last = Frames::open(&server);
    last.send(&frame(PING, 0, 0, &[0; 8]));
    assert!(last.read_until(|kind, _| kind == PING), "new connections are served");
    let page = get(&server.endpoint(), "/metrics");
    assert!(page.contains("\nbasalt_connections_disconnected_total 1\n"), "{page}");
}

#[test]
fn frames_that_ask_for_nothing_end_their_connection() {
    let server = Setup::new(process::basalt()).start();
    let mut frames = Frames::open(&server);
    let many = frame(PRIORITY, 0, 1, &[0; 5]).repeat(1000);
    for _ in 0..250 {
        frames.send(&many);
    }
    assert_eq!(frames.farewell(), calm("too_many_frames"));
    is_served(&server);
}
