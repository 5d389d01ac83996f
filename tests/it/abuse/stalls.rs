//! Clients that stop in the middle, of a request or of an answer, are given up, and who is merely idle is not.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use basalt_proto::etcdserverpb::watch_request::RequestUnion;
use basalt_proto::etcdserverpb::{PutRequest, RangeRequest, WatchCreateRequest, WatchRequest};
use basalt_proto::grpc_frame::{Head, PLAIN};
use bytes::Bytes;
use prost::Message;

use super::{
    ACK, ENHANCE_YOUR_CALM, Frames, HEADERS, PATIENCE, PING, PREFACE, RST_STREAM, SETTINGS, call,
    call_of, frame, is_served,
};
use crate::compare::runtime;
use crate::curl::framed;
use crate::metrics::get;
use crate::process::{self, Server, Setup};
use crate::wire::{self, Wire};

const DATA: u8 = 0;
const WINDOW_UPDATE: u8 = 8;
const END_STREAM: u8 = 1;
const INITIAL_WINDOW_SIZE: u16 = 4;
const REFUSED_STREAM: u8 = 7;
const CANCEL: u8 = 8;
const SETTINGS_TIMEOUT: u8 = 4;
/// The member's time for clients that make no progress, instead of a minute, and a time in which all of them are found.
const STALL: Duration = Duration::from_millis(1200);
const SOME_STALLS: Duration = Duration::from_millis(4000);
const MIB: usize = 1 << 20;

fn impatient() -> Server {
    Setup::new(process::basalt())
        .variable("BASALT_STALL_MS", &STALL.as_millis().to_string())
        .start()
}

fn last_message(stream: u32, message: &impl Message) -> Vec<u8> {
    frame(DATA, END_STREAM, stream, &framed(0, &message.encode_to_vec()))
}

fn range_of(key: &str) -> RangeRequest {
    RangeRequest { key: key.to_owned().into(), ..RangeRequest::default() }
}

fn watch_of(key: &str) -> WatchRequest {
    let create = WatchCreateRequest { key: key.to_owned().into(), ..WatchCreateRequest::default() };
    WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) }
}

fn put(server: &Server, key: &str, value: &str) {
    runtime().block_on(async {
        Wire::new(&server.endpoint()).put(key, value).await.expect("written");
    });
}

fn metric(server: &Server, name: &str) -> f64 {
    let page = get(&server.endpoint(), "/metrics");
    let mut values = page.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    values.next().and_then(|value| value.parse().ok()).unwrap_or(0.0)
}

/// True if a server holds its end of a connection: it has a file of the process, and that of one that was closed has none.
fn is_held(server: &Server, stream: &TcpStream) -> bool {
    let client = stream.local_addr().expect("connected").port();
    let ends = [format!("0100007F:{:04X}", server.port), format!("0100007F:{client:04X}")];
    let table = fs::read_to_string("/proc/net/tcp").expect("a table of connections");
    table.lines().any(|line| {
        let words: Vec<_> = line.split_whitespace().collect();
        words.get(1..3) == Some(&[&*ends[0], &*ends[1]])
            && words.get(9).is_some_and(|it| *it != "0")
    })
}

/// Waits until a server holds its end of a connection, or until it has closed it.
fn wait_held(server: &Server, stream: &TcpStream, held: bool) {
    let until = Instant::now() + PATIENCE;
    while is_held(server, stream) != held {
        assert!(Instant::now() < until, "held: {held}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

impl Frames {
    /// The last byte of the code by which a stream is reset.
    fn reset(&mut self) -> Option<u8> {
        while let Some((kind, _, payload)) = self.next() {
            if kind == RST_STREAM {
                return payload.last().copied();
            }
        }
        None
    }
}

#[test]
fn answers_that_nobody_takes_are_given_up() {
    const CONNECTIONS: usize = 50;
    let server = impatient();
    put(&server, "small", &"s".repeat(300));
    put(&server, "large", &"l".repeat(MIB));
    let ask = |window: u32, key: &str| {
        let mut frames = Frames::with_settings(&server, &[(INITIAL_WINDOW_SIZE, window)]);
        frames.send(&[call(1), last_message(1, &range_of(key))].concat());
        frames
    };
    // No window at all, one that takes the first byte, and one of the connection that takes the first of many.
    let mut asked: Vec<_> = (0..CONNECTIONS)
        .flat_map(|_| [(0, "large"), (0, "small"), (1, "small"), (1 << 30, "large")])
        .map(|(window, key)| ask(window, key))
        .collect();
    let mut watch = Frames::with_settings(&server, &[(INITIAL_WINDOW_SIZE, 0)]);
    watch.send(&call_of(1, wire::WATCH));
    watch.send(&frame(DATA, 0, 1, &framed(0, &watch_of("small").encode_to_vec())));
    // Others are served meanwhile.
    runtime().block_on(async {
        let answer = Wire::new(&server.endpoint()).get("large").await.expect("served");
        assert_eq!(answer.kvs[0].value.len(), MIB);
    });
    for (number, frames) in asked.iter_mut().enumerate() {
        assert_eq!(frames.reset(), Some(CANCEL), "{number}: {}", server.logs.tail());
    }
    assert_eq!(metric(&server, "basalt_calls_stalled_total"), asked.len() as f64);
    // Watches stay: official clients do not resume one that was reset.
    watch.send(&frame(WINDOW_UPDATE, 0, 1, &1000_u32.to_be_bytes()));
    assert!(watch.read_until(|kind, _| kind == DATA), "created");
    put(&server, "small", "s");
    assert!(watch.read_until(|kind, _| kind == DATA), "an event");
    // The connections go on.
    for frames in asked.iter_mut().take(3) {
        frames.send(&frame(PING, 0, 0, &[0; 8]));
        assert!(frames.read_until(|kind, flags| kind == PING && flags & ACK != 0));
    }
    is_served(&server);
}

#[test]
fn clients_with_small_windows_do_not_hold_many_answers() {
    const STREAMS: u32 = 200;
    let server = impatient();
    put(&server, "medium", &"m".repeat(16_000));
    let mut frames = Frames::with_settings(&server, &[(INITIAL_WINDOW_SIZE, 1)]);
    for number in 0..STREAMS {
        let stream = 2 * number + 1;
        frames.send(&[call(stream), last_message(stream, &range_of("medium"))].concat());
    }
    let codes: Vec<_> = (0..STREAMS).filter_map(|_| frames.reset()).collect();
    let refused = codes.iter().filter(|code| **code == REFUSED_STREAM).count();
    let given_up = codes.iter().filter(|code| **code == CANCEL).count();
    assert_eq!(refused + given_up, codes.len(), "{codes:?}");
    assert!(refused > 0 && given_up > 10, "{refused} refused, {given_up} given up");
    assert_eq!(metric(&server, "basalt_streams_refused_total"), refused as f64);
    is_served(&server);
}

#[test]
fn clients_that_are_idle_or_slow_are_not_given_up() {
    let server = impatient();
    put(&server, "large", &"l".repeat(MIB));
    // A watch without events, and a stream whose first message is yet to come.
    let mut watch = Frames::open(&server);
    watch.send(&call_of(1, wire::WATCH));
    watch.send(&frame(DATA, 0, 1, &framed(0, &watch_of("k").encode_to_vec())));
    watch.send(&call_of(3, wire::WATCH));
    assert!(watch.read_until(|kind, _| kind == DATA), "created");
    // A client that has connected and asks for nothing.
    let mut idle = Frames::open(&server);
    // One that takes a large answer in small parts.
    let mut slow = Frames::with_settings(&server, &[(INITIAL_WINDOW_SIZE, 0)]);
    slow.send(&[call(1), last_message(1, &range_of("large"))].concat());
    let began = Instant::now();
    while began.elapsed() < SOME_STALLS {
        std::thread::sleep(STALL / 4);
        let part = 70_000_u32.to_be_bytes();
        slow.send(&[frame(WINDOW_UPDATE, 0, 1, &part), frame(WINDOW_UPDATE, 0, 0, &part)].concat());
        assert!(slow.read_until(|kind, _| kind == DATA), "it goes on");
    }
    let rest = (2 * MIB as u32).to_be_bytes();
    slow.send(&[frame(WINDOW_UPDATE, 0, 1, &rest), frame(WINDOW_UPDATE, 0, 0, &rest)].concat());
    assert!(slow.read_until(|kind, flags| kind == HEADERS && flags & END_STREAM != 0));
    put(&server, "k", "v");
    assert!(watch.read_until(|kind, _| kind == DATA), "an event");
    watch.send(&frame(DATA, 0, 3, &framed(0, &watch_of("k").encode_to_vec())));
    assert!(watch.read_until(|kind, _| kind == DATA), "created");
    idle.send(&[call(1), last_message(1, &range_of("k"))].concat());
    assert!(idle.read_until(|kind, flags| kind == HEADERS && flags & END_STREAM != 0));
    assert_eq!(metric(&server, "basalt_calls_stalled_total"), 0.0);
    assert_eq!(metric(&server, "basalt_connections_disconnected_total"), 0.0);
}

#[test]
fn requests_that_do_not_come_are_refused() {
    let server = impatient();
    // A message of which half has come, one whose end is missing, and one of a stream that takes a single message.
    let mut slow = Frames::open(&server);
    slow.send(&[call(1), frame(DATA, 0, 1, &[0, 0, 0, 0, 9, 1])].concat());
    slow.send(&[call(3), frame(DATA, 0, 3, &framed(0, &range_of("k").encode_to_vec()))].concat());
    slow.send(&call_of(5, wire::RANGE_STREAM));
    for _ in 0..3 {
        assert!(slow.read_until(|kind, flags| kind == HEADERS && flags & END_STREAM != 0));
    }
    let page = get(&server.endpoint(), "/metrics");
    for (method, count) in [("Range", 2), ("RangeStream", 1)] {
        let line = |line: &&str| {
            line.starts_with("grpc_server_handled_total{")
                && line.contains("grpc_code=\"DeadlineExceeded\"")
                && line.contains(&format!("grpc_method=\"{method}\""))
        };
        let line = page.lines().find(line).unwrap_or_default();
        assert!(line.ends_with(&format!(" {count}")), "{method}: {line}");
    }
    // The same as JSON.
    let mut slow = TcpStream::connect(("127.0.0.1", server.port)).expect("accepted");
    slow.set_read_timeout(Some(PATIENCE)).expect("a time");
    slow.write_all(b"POST /v3/kv/range HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{\"key\"")
        .expect("taken");
    let mut told = String::new();
    slow.read_to_string(&mut told).expect("an answer and the end");
    assert!(told.starts_with("HTTP/1.1 504"), "{told}");
    assert!(told.contains("the body of the request was not received in time"), "{told}");
    // A stream of requests may pause for as long as it likes.
    let mut watch = TcpStream::connect(("127.0.0.1", server.port)).expect("accepted");
    watch.set_read_timeout(Some(PATIENCE)).expect("a time");
    let create = "{\"create_request\":{\"key\":\"aw==\"}}";
    let head = "POST /v3/watch HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
    let chunk = format!("{head}{:x}\r\n{create}\r\n", create.len());
    watch.write_all(chunk.as_bytes()).expect("taken");
    std::thread::sleep(SOME_STALLS);
    put(&server, "k", "v");
    let mut told = Vec::new();
    while !String::from_utf8_lossy(&told).contains("\"value\":\"dg==\"") {
        let mut piece = [0; 1024];
        let count = watch.read(&mut piece).expect("an event");
        assert!(count > 0, "{}", String::from_utf8_lossy(&told));
        told.extend_from_slice(&piece[..count]);
    }
}

#[test]
fn of_large_requests_that_do_not_come_those_that_stall_are_refused() {
    const UPLOAD_BYTES: usize = MIB;
    /// More than sixteen executors keep.
    const UPLOADS: usize = 700;
    const PIECE_BYTES: usize = 16 << 10;
    let server = Setup::new(process::basalt()).start();
    let refused = |method: &str| {
        let page = get(&server.endpoint(), "/metrics");
        page.lines().any(|line| {
            line.starts_with("grpc_server_handled_total{grpc_code=\"ResourceExhausted\"")
                && line.contains(&format!("grpc_method=\"{method}\""))
                && !line.ends_with(" 0")
        })
    };
    let head = Head { flag: PLAIN, length: UPLOAD_BYTES as u32 }.to_bytes();
    let mut uploads = Vec::new();
    while !(refused("Range") && refused("Watch")) {
        assert!(uploads.len() < UPLOADS, "{}", server.logs.tail());
        for path in [wire::RANGE, wire::WATCH] {
            let mut frames = Frames::open(&server);
            frames.send(&[call_of(1, path), frame(DATA, 0, 1, &head)].concat());
            let piece = frame(DATA, 0, 1, &[0; PIECE_BYTES]);
            for _ in 1..UPLOAD_BYTES / PIECE_BYTES {
                frames.send(&piece);
            }
            uploads.push(frames);
        }
        put(&server, "whole", &"w".repeat(UPLOAD_BYTES));
    }
    is_served(&server);
}

/// They come in turns, so that all of them are incomplete until the last piece.
#[test]
fn large_requests_that_come_from_many_clients_at_once_are_all_served() {
    const UPLOADS: usize = 80;
    const PIECE_BYTES: usize = 16 << 10;
    let server = Setup::new(process::basalt()).start();
    let put = |number: usize| {
        let (key, value) = (format!("upload{number}").into(), vec![b'u'; 1_000_000].into());
        framed(0, &PutRequest { key, value, ..PutRequest::default() }.encode_to_vec())
    };
    let mut uploads: Vec<_> = (0..UPLOADS)
        .map(|number| {
            let mut frames = Frames::open(&server);
            frames.send(&call_of(1, wire::PUT));
            (frames, put(number))
        })
        .collect();
    let pieces = put(0).len().div_ceil(PIECE_BYTES);
    for piece in 0..pieces {
        let flags = if piece + 1 == pieces { END_STREAM } else { 0 };
        for (frames, message) in &mut uploads {
            let bytes = message.chunks(PIECE_BYTES).nth(piece).unwrap_or_default();
            frames.send(&frame(DATA, flags, 1, bytes));
        }
    }
    for (number, (frames, _)) in uploads.iter_mut().enumerate() {
        // An answer has a message; a refusal would be trailers alone.
        let is_answered = std::iter::from_fn(|| frames.next()).any(|(kind, ..)| kind == DATA);
        assert!(is_answered, "upload {number}: {}", server.logs.tail());
    }
}

#[test]
fn connections_that_say_nothing_after_their_first_bytes_are_closed() {
    let server = impatient();
    let stream = TcpStream::connect(("127.0.0.1", server.port)).expect("accepted");
    stream.set_read_timeout(Some(PATIENCE)).expect("a time");
    let mut silent = Frames(stream);
    silent.send(&[PREFACE, &frame(SETTINGS, 0, 0, &[])].concat());
    assert_eq!(silent.farewell(), Some((SETTINGS_TIMEOUT, "settings_timeout".to_owned())));
    is_served(&server);
}

/// Asks for more than the sockets of both ends hold, and reads nothing of it.
fn ask_and_read_nothing(server: &Server) -> Frames {
    const MOST: u32 = (1 << 31) - 1;
    let mut frames = Frames::with_settings(server, &[(INITIAL_WINDOW_SIZE, MOST)]);
    frames.send(&frame(WINDOW_UPDATE, 0, 0, &(MOST - 65_535).to_be_bytes()));
    let list = RangeRequest { range_end: "m".into(), ..range_of("l") };
    frames.send(&[call(1), last_message(1, &list)].concat());
    frames
}

fn fill(server: &Server) {
    for number in 0..16 {
        put(server, &format!("l{number}"), &"l".repeat(MIB));
    }
}

#[test]
fn connections_that_take_nothing_are_closed() {
    // The kernel's own time is longer.
    let server = Setup::new(process::basalt())
        .variable("BASALT_STALL_MS", &STALL.as_millis().to_string())
        .flag("grpc-keepalive-timeout", "1000s")
        .start();
    fill(&server);
    let frames = ask_and_read_nothing(&server);
    wait_held(&server, &frames.0, true);
    let mut json = TcpStream::connect(("127.0.0.1", server.port)).expect("accepted");
    let ask = "{\"key\":\"bA==\",\"range_end\":\"bQ==\"}";
    write!(
        json,
        "POST /v3/kv/range HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{ask}",
        ask.len()
    )
    .expect("taken");
    wait_held(&server, &json, true);
    wait_held(&server, &frames.0, false);
    wait_held(&server, &json, false);
    is_served(&server);
}

#[test]
fn clients_that_have_taken_a_large_answer_do_not_wait_for_new_ones_that_take_none() {
    const READERS: usize = 30;
    // None is given up before the test has ended.
    let server = Setup::new(process::basalt()).variable("BASALT_STALL_MS", "100000000").start();
    fill(&server);
    let list = RangeRequest { range_end: "m".into(), ..range_of("l") };
    let ask = Bytes::from(list.encode_to_vec());
    runtime().block_on(async {
        let (new, proven) = (Wire::new(&server.endpoint()), Wire::new(&server.endpoint()));
        let take = async |client: &Wire| {
            let taken = client.call(wire::RANGE, ask.clone()).await;
            assert!(taken.expect("served").len() > 16 * MIB);
        };
        take(&proven).await;
        let readers: Vec<_> = (0..READERS).map(|_| ask_and_read_nothing(&server)).collect();
        let until = Instant::now() + PATIENCE;
        while metric(&server, "basalt_network_answer_waits_total") == 0.0 {
            assert!(Instant::now() < until, "all of them fit");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        for _ in 0..5 {
            take(&proven).await;
        }
        let late = tokio::time::timeout(STALL, take(&new)).await;
        assert!(late.is_err(), "a new one does not wait");
        let small = new.get("none").await.expect("served");
        assert_eq!(small.count, 0);
        drop(readers);
        take(&new).await;
    });
}

#[test]
fn a_client_that_was_told_to_go_and_reads_nothing_is_closed() {
    // It is not the kernel that ends the connection, nor that it has stalled.
    let server = Setup::new(process::basalt()).flag("grpc-keepalive-timeout", "1000s").start();
    fill(&server);
    let mut frames = ask_and_read_nothing(&server);
    // The answer has begun, and fills the sockets.
    assert!(frames.read_until(|kind, _| kind == HEADERS));
    std::thread::sleep(Duration::from_millis(500));
    frames.send(&frame(PING, 0, 0, &[0; 8]).repeat(5));
    let until = Instant::now() + PATIENCE;
    while metric(&server, "basalt_connections_disconnected_total") < 1.0 {
        assert!(Instant::now() < until, "it is told to go");
    }
    wait_held(&server, &frames.0, false);
    // There was no room for the GOAWAY, or it is the last frame.
    let told = frames.farewell();
    assert!(told.is_none_or(|(code, _)| code == ENHANCE_YOUR_CALM));
}

#[test]
fn streams_beyond_the_bound_are_refused() {
    const STREAMS: u32 = 32_768;
    const MORE: u32 = 20;
    // Their messages never come, however long it takes until all of them are open.
    let server = Setup::new(process::basalt()).variable("BASALT_STALL_MS", "100000000").start();
    let mut frames = Frames::open(&server);
    // It is much work for one connection.
    for set in [TcpStream::set_read_timeout, TcpStream::set_write_timeout] {
        set(&frames.0, Some(10 * PATIENCE)).expect("a time");
    }
    let numbers: Vec<_> = (0..STREAMS + MORE).map(|number| 2 * number + 1).collect();
    for some in numbers.chunks(1000) {
        frames.send(&some.iter().flat_map(|stream| call(*stream)).collect::<Vec<_>>());
    }
    for _ in 0..MORE {
        assert_eq!(frames.reset(), Some(REFUSED_STREAM));
    }
    assert_eq!(metric(&server, "basalt_streams_refused_total"), f64::from(MORE));
    is_served(&server);
    // When some have ended, there is room again, as soon as the member got to it.
    let ends = numbers.iter().take(100).flat_map(|it| frame(RST_STREAM, 0, *it, &[0, 0, 0, 8]));
    frames.send(&ends.collect::<Vec<_>>());
    let is_answered = (STREAMS + MORE..).map(|number| 2 * number + 1).take(1000).any(|next| {
        frames.send(&[call(next), last_message(next, &range_of("k"))].concat());
        loop {
            match frames.next() {
                Some((HEADERS, flags, _)) if flags & END_STREAM != 0 => break true,
                Some((RST_STREAM, ..)) => break false,
                Some(_) => (),
                None => panic!("the connection has ended"),
            }
        }
    });
    assert!(is_answered);
}
