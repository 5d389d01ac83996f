//! JSON streams, waiting calls and websockets in flight when the server is stopped: each ends with a line that
//! reports it, as etcd's do.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use crate::process::{self, Server, Setup};

/// etcd takes seven seconds.
const PATIENCE: Duration = Duration::from_secs(30);
/// etcd's gateway sends one of the two, depending on whether it or the server behind it ends first.
const LAST_WORDS: [(&str, u64); 3] = [
    ("error reading from server: EOF", 14),
    ("grpc: the client connection is closing", 1),
    (
        "closing transport due to: connection error: desc = \"error reading from server: EOF\", received prior goaway: \
         code: NO_ERROR, debug data: \"graceful_stop\"",
        14,
    ),
];

fn open(server: &Server, request: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(("127.0.0.1", server.port)).expect("accepted");
    stream.set_read_timeout(Some(PATIENCE)).expect("a time");
    stream.write_all(request).expect("taken");
    stream
}

fn post(server: &Server, path: &str, body: &str) -> TcpStream {
    let length = body.len();
    let head = format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n");
    open(server, format!("{head}\r\n{body}").as_bytes())
}

/// A watch over a websocket, and its first message, if any.
fn websocket(server: &Server, message: &str) -> TcpStream {
    let head = "GET /v3/watch HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    let length = u8::try_from(message.len()).expect("short");
    assert!(length < 126, "one byte tells the length");
    let frame = match message {
        "" => Vec::new(),
        message => [&[0x81, 0x80 | length, 0, 0, 0, 0], message.as_bytes()].concat(),
    };
    // etcd's proxy accepts no message before it has answered.
    let mut stream = open(server, head.as_bytes());
    read_until(&mut stream, &mut Vec::new(), "\r\n\r\n");
    stream.write_all(&frame).expect("taken");
    stream
}

/// Reads until this text has arrived.
fn read_until(stream: &mut TcpStream, told: &mut Vec<u8>, text: &str) {
    let mut byte = [0];
    while !told.ends_with(text.as_bytes()) {
        let read = stream.read_exact(&mut byte);
        assert!(read.is_ok(), "{read:?} after {:?}", String::from_utf8_lossy(told));
        told.push(byte[0]);
    }
}

fn rest(mut stream: TcpStream) -> Vec<u8> {
    let mut told = Vec::new();
    stream.read_to_end(&mut told).expect("it ends");
    told
}

/// The last object of a stream, in the words of the first variant.
fn last_words(object: &Value) -> Value {
    let mut object = object.clone();
    let error = if object.get("error").is_some() { &mut object["error"] } else { &mut object };
    for (text, code) in LAST_WORDS {
        if error["message"] == text && error["code"] == code {
            *error = "the last words".into();
        }
    }
    object
}

/// The chunks of a body, with their lengths checked, and true if the final chunk is there.
fn chunks(body: &[u8]) -> (Vec<Value>, bool) {
    let (mut rest, mut found) = (body, Vec::new());
    loop {
        let Some(end) = rest.windows(2).position(|it| it == b"\r\n") else { return (found, false) };
        let digits = std::str::from_utf8(&rest[..end]).expect("digits");
        let length = usize::from_str_radix(digits, 16).expect("a length");
        let chunk = &rest[end + 2..end + 2 + length];
        rest = &rest[end + 2 + length + 2..];
        if length == 0 {
            return (found, rest.is_empty());
        }
        found.push(last_words(&serde_json::from_slice(chunk).expect("a line of JSON")));
    }
}

/// The response to each of the calls after the server was stopped.
fn told(binary: PathBuf) -> Vec<(&'static str, Value)> {
    let server = Setup::new(binary).start();
    rest(post_closing(&server, "/v3/lease/grant", r#"{"TTL":60,"ID":77}"#));
    let mut told = Vec::new();
    let watch = r#"{"create_request":{"key":"YQ=="}}"#;
    let mut streams = Vec::new();
    // As clients do that will send more, and as those do that know their whole request.
    let head = "POST /v3/watch HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n";
    let request = format!("{head}{:x}\r\n{watch}\r\n0\r\n\r\n", watch.len());
    streams.push(("chunked", open(&server, request.as_bytes())));
    streams.push(("watch", post(&server, "/v3/watch", watch)));
    for (_, stream) in &mut streams {
        read_until(stream, &mut Vec::new(), "\"created\":true}}\n\r\n");
    }
    rest(post_closing(&server, "/v3/lock/lock", r#"{"name":"bG9jaw==","lease":77}"#));
    let waiting = post(&server, "/v3/lock/lock", r#"{"name":"bG9jaw=="}"#);
    let mut socket = websocket(&server, watch);
    read_until(&mut socket, &mut Vec::new(), "\"created\":true}}");
    let silent = websocket(&server, "");
    std::thread::sleep(Duration::from_millis(500));
    server.signal(Signal::TERM);
    for (name, stream) in streams {
        let (lines, is_whole) = chunks(&rest(stream));
        told.push((name, serde_json::json!([lines, is_whole])));
    }
    let came = String::from_utf8_lossy(&rest(waiting)).into_owned();
    let (head, body) = came.split_once("\r\n\r\n").unwrap_or((&came, "null"));
    let status = head.lines().next().unwrap_or_default();
    let body = last_words(&serde_json::from_str(body).expect("an object"));
    told.push(("lock", serde_json::json!([status, body])));
    told.push(("websocket", messages(&rest(socket))));
    told.push(("silent websocket", messages(&rest(silent))));
    told
}

fn post_closing(server: &Server, path: &str, body: &str) -> TcpStream {
    let length = body.len();
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {length}\r\n"
    );
    open(server, format!("{head}\r\n{body}").as_bytes())
}

/// The messages in a server's frames of text; other bytes are shown as they are.
fn messages(mut bytes: &[u8]) -> Value {
    let mut found = Vec::new();
    loop {
        let (length, rest) = match bytes {
            [0x81, length @ 0..126, rest @ ..] => (u16::from(*length), rest),
            [0x81, 126, high, low, rest @ ..] => (u16::from_be_bytes([*high, *low]), rest),
            _ => break,
        };
        let (message, after) = rest.split_at(usize::from(length));
        found.push(last_words(&serde_json::from_slice(message).expect("an object")));
        bytes = after;
    }
    serde_json::json!([found, bytes])
}

#[test]
fn calls_in_flight_end_with_etcds_errors() {
    let (theirs, ours) = std::thread::scope(|scope| {
        let theirs = scope.spawn(|| told(process::etcd()));
        let ours = told(process::basalt());
        (theirs.join().expect("etcd's half runs to its end"), ours)
    });
    let last = serde_json::json!({ "error": "the last words" });
    assert_eq!(theirs[1], ("watch", serde_json::json!([[last], true])));
    assert_eq!(ours, theirs);
}

/// Opening the store may wait for other processes for seconds. etcd then ends as by an unhandled signal, too.
#[test]
fn a_member_that_is_still_starting_stops_at_once() {
    use std::os::unix::process::ExitStatusExt as _;
    // They accept connections and send nothing.
    let silent: Vec<_> =
        (0..2).map(|_| std::net::TcpListener::bind("127.0.0.1:0").expect("a port")).collect();
    let urls = silent.iter().map(|it| format!("http://{}", it.local_addr().expect("its own")));
    let others: Vec<_> =
        urls.enumerate().map(|(number, url)| format!("other{number}={url}")).collect();
    let cluster = format!("pillar=http://127.0.0.1:12380,{}", others.join(","));
    for signal in [Signal::TERM, Signal::INT] {
        let setup = Setup::new(process::basalt())
            .flag("initial-cluster", &cluster)
            .flag("initial-cluster-state", "existing");
        let mut server = Server::new(setup);
        server.launch();
        assert!(
            server.logs.wait_for("starting an etcd server", PATIENCE),
            "{}",
            server.logs.tail()
        );
        std::thread::sleep(Duration::from_millis(300));
        server.signal(signal);
        let ended = server.wait_exit(Duration::from_secs(1));
        let ended = ended.unwrap_or_else(|| panic!("still opens\n{}", server.logs.tail()));
        assert_eq!(ended.signal(), Some(signal.as_raw()), "{ended}");
        assert!(server.logs.all().contains("received signal; shutting down"));
    }
}

/// etcd continues to wait for its clients, up to seven seconds.
#[test]
fn a_second_signal_ends_a_member_at_once() {
    use std::os::unix::process::ExitStatusExt as _;
    let mut server = Setup::new(process::basalt()).start();
    // This watch never ends, so that the member waits for its maximum time.
    let watch = r#"{"create_request":{"key":"YQ=="}}"#;
    let mut stream = post(&server, "/v3/watch", watch);
    read_until(&mut stream, &mut Vec::new(), "\"created\":true}}\n\r\n");
    server.signal(Signal::TERM);
    assert!(server.logs.wait_for("received signal", PATIENCE), "{}", server.logs.tail());
    server.signal(Signal::INT);
    let ended = server.wait_exit(Duration::from_secs(10)).expect("it ends");
    assert_eq!(ended.signal(), Some(Signal::INT.as_raw()), "{ended}\n{}", server.logs.tail());
}
