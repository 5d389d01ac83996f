//! The API over JSON: the same bytes are sent to a real etcd and to Basalt, and the responses must be the
//! same: status, headers, and body, but for blanks and values that belong to the process.

mod secured;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::process::{self, Server, Setup, reference, run};

const REQUESTS: &str = include_str!("gateway/requests.txt");
/// Maximum time of a response.
const PATIENCE: Duration = Duration::from_secs(30);
/// Headers that clients use.
const HEADERS: &[&str] = &[
    "content-type",
    "grpc-metadata-content-type",
    "location",
    "allow",
    "www-authenticate",
    "x-content-type-options",
    "access-control-allow-origin",
    "access-control-allow-methods",
    "access-control-allow-headers",
];
/// Fields of responses that belong to the process.
const HIDDEN: &[&str] = &[
    "raft_term",
    "raftTerm",
    "raftIndex",
    "raftAppliedIndex",
    "dbSize",
    "dbSizeInUse",
    "hash_revision",
    // etcd decides it some time after its start.
    "storage",
    "storageVersion",
];

/// One request of the script.
struct Request {
    line: String,
    bytes: Vec<u8>,
    /// Number of lines of the response to read; all of them if none is given.
    lines: Option<usize>,
    /// True if the client closes early, and waits until its request's effects are removed.
    gives_up: bool,
}

/// After the deadline etcd sends one of the two, as its gateway or its server notices it first.
const LATE: &str = "context deadline exceeded";
const CUT: &str = "stream terminated by RST_STREAM with error code: CANCEL";

/// Long enough to remove them.
const CLEARING: Duration = Duration::from_millis(600);

fn requests() -> Vec<Request> {
    let mut headers = String::new();
    let mut requests = Vec::new();
    for line in REQUESTS.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if let Some(header) = line.strip_prefix("> ") {
            headers.push_str(header);
            headers.push_str("\r\n");
            continue;
        }
        let (first, rest) = line.split_once(' ').expect("a method and a path");
        let (method, lines, rest) = match (first, rest.split_once(' ')) {
            ("STREAM", Some((lines, rest))) => {
                ("POST", Some(lines.parse().expect("a number")), rest)
            }
            _ => (first, None, rest),
        };
        let (path, body) = rest.split_once(' ').unwrap_or((rest, ""));
        let body = match body.strip_prefix("hex:") {
            Some(digits) => hex(digits),
            None => body.as_bytes().to_vec(),
        };
        let bytes = framed(method, path, &headers, &body);
        let gives_up = headers.contains("Grpc-Timeout");
        headers.clear();
        requests.push(Request { line: line.to_owned(), bytes, lines, gives_up });
    }
    requests
}

fn hex(digits: &str) -> Vec<u8> {
    let pairs = digits.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).expect("digits"));
    pairs.map(|pair| u8::from_str_radix(pair, 16).expect("digits")).collect()
}

pub(crate) fn framed(method: &str, path: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\
         Content-Length: {length}\r\n{headers}\r\n"
    );
    [head.as_bytes(), body].concat()
}

/// A response.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Answer {
    pub(crate) status: String,
    headers: BTreeMap<String, String>,
    pub(crate) body: String,
}

/// Sends `bytes`, and reads until the server ends, or until this many lines of the body have arrived.
pub(crate) fn ask(server: &Server, bytes: &[u8], lines: Option<usize>) -> Answer {
    ask_over(connect(server), bytes, lines)
}

/// A connection on which a read waits for a short time.
pub(crate) fn connect(server: &Server) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", server.port)).expect("accepted");
    stream.set_read_timeout(Some(Duration::from_millis(200))).expect("a time");
    stream
}

/// The same over a connection with [`connect`]'s timeout.
pub(crate) fn ask_over(
    mut stream: impl Read + Write,
    bytes: &[u8],
    lines: Option<usize>,
) -> Answer {
    // A server that refuses early closes before it has read all.
    let _ = stream.write_all(bytes);
    let until = Instant::now() + PATIENCE;
    let (mut told, mut piece) = (Vec::new(), vec![0; 1 << 16]);
    while Instant::now() < until {
        match stream.read(&mut piece) {
            Ok(0) => return Answer::read(&told),
            Ok(length) => told.extend_from_slice(&piece[..length]),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => (),
            Err(_) => return Answer::read(&told),
        }
        let found = Answer::read(&told).body.matches('\n').count();
        if lines.is_some_and(|lines| found >= lines) {
            return Answer::read(&told);
        }
    }
    let mut answer = Answer::read(&told);
    answer.status.push_str(" (and no end)");
    answer
}

impl Answer {
    fn read(told: &[u8]) -> Self {
        let end = told.windows(4).position(|it| it == b"\r\n\r\n").unwrap_or(told.len());
        let head = String::from_utf8_lossy(&told[..end]).into_owned();
        let mut lines = head.lines();
        let status = lines.next().unwrap_or_default().to_owned();
        let headers: BTreeMap<_, _> = lines
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
            .collect();
        let body = told.get(end + 4..).unwrap_or_default();
        let body = match headers.get("transfer-encoding").is_some_and(|it| it == "chunked") {
            true => dechunked(body),
            false => body.to_vec(),
        };
        Self { status, headers, body: String::from_utf8_lossy(&body).into_owned() }
    }

    pub(crate) fn header(&self, name: &str) -> Option<String> {
        self.headers.get(name).cloned()
    }

    /// The parts that must be the same.
    pub(crate) fn evened(&self) -> Self {
        let headers = self.headers.clone().into_iter();
        let headers = headers.filter(|(name, _)| HEADERS.contains(&name.as_str())).collect();
        // protojson varies the blanks, and uses another kind of them before its texts.
        let lines = self.body.lines().map(|line| match serde_json::from_str::<Value>(line) {
            Ok(mut value) => {
                hide(&mut value);
                value.to_string().replace("proto:\u{a0}", "proto: ").replace(CUT, LATE)
            }
            Err(_) => line.to_owned(),
        });
        let body = lines.collect::<Vec<_>>().join("\n");
        Self { status: self.status.clone(), headers, body }
    }
}

fn dechunked(mut body: &[u8]) -> Vec<u8> {
    let mut whole = Vec::new();
    while let Some(end) = body.windows(2).position(|it| it == b"\r\n") {
        let length = std::str::from_utf8(&body[..end]).ok();
        let length = length.and_then(|it| usize::from_str_radix(it, 16).ok()).unwrap_or(0);
        let data = &body[end + 2..];
        whole.extend_from_slice(&data[..length.min(data.len())]);
        body = data.get(length + 2..).unwrap_or_default();
    }
    whole
}

fn hide(value: &mut Value) {
    match value {
        Value::Object(members) => {
            for (name, value) in members.iter_mut() {
                match HIDDEN.contains(&name.as_str()) {
                    true => *value = Value::from("hidden"),
                    false => hide(value),
                }
            }
        }
        Value::Array(values) => values.iter_mut().for_each(hide),
        _ => (),
    }
}

#[test]
fn both_answer_the_same_bytes_alike() {
    let etcd = Setup::new(process::etcd()).start();
    let basalt = Setup::new(process::basalt()).start();
    let asked = |request: &Request| {
        [&etcd, &basalt].map(|server| ask(server, &request.bytes, request.lines))
    };
    compare(&requests(), asked);
}

/// Sends each request to etcd and to Basalt, in this order.
fn compare(requests: &[Request], asked: impl Fn(&Request) -> [Answer; 2]) {
    assert!(requests.len() >= 150, "{} requests are too few", requests.len());
    let mut differences = Vec::new();
    for request in requests {
        let [left, right] = asked(request).map(|answer| answer.evened());
        if left != right {
            let line = &request.line;
            differences.push(format!("{line}\n--- etcd\n{left:?}\n--- basalt\n{right:?}"));
        }
        if request.gives_up {
            std::thread::sleep(CLEARING);
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n\n"));
}

#[test]
fn requests_too_large_are_refused_alike() {
    let etcd = Setup::new(process::etcd()).start();
    let basalt = Setup::new(process::basalt()).start();
    // Within both limits, above that of a request, above that of a message.
    for bytes in [1_000_000, 1_600_000, 3_000_000] {
        let value = "AAAA".repeat(bytes / 3);
        let body = format!("{{\"key\":\"YQ==\",\"value\":\"{value}\"}}");
        let request = framed("POST", "/v3/kv/put", "", body.as_bytes());
        let [left, right] = [&etcd, &basalt].map(|server| ask(server, &request, None).evened());
        assert_eq!(left, right, "{bytes} bytes: etcd on the left, Basalt on the right");
    }
    // etcd would read all of it into memory.
    let endless =
        framed("POST", "/v3/kv/put", "", &[b" {\"key\":\"".as_slice(), &[b'A'; 20 << 20]].concat());
    let refused = ask(&basalt, &endless, None);
    assert!(refused.status.contains("429") || refused.status.is_empty(), "{refused:?}");
    assert_eq!(
        ask(&basalt, &framed("POST", "/v3/kv/range", "", b"{\"key\":\"YQ==\"}"), None).status,
        "HTTP/1.1 200 OK"
    );
}

#[test]
fn a_watch_goes_on_until_its_client_leaves() {
    let server = Setup::new(process::basalt()).start();
    let watch = framed("POST", "/v3/watch", "", br#"{"create_request":{"key":"dw=="}}"#);
    let mut stream = TcpStream::connect(("127.0.0.1", server.port)).expect("accepted");
    stream.set_read_timeout(Some(PATIENCE)).expect("a time");
    stream.write_all(&watch).expect("sent");
    let mut told = Vec::new();
    let mut until = |text: &str, stream: &mut TcpStream| {
        let mut piece = [0; 4096];
        while !String::from_utf8_lossy(&told).contains(text) {
            let length = stream.read(&mut piece).expect("more comes");
            assert!(length > 0, "it ended: {:?}", String::from_utf8_lossy(&told));
            told.extend_from_slice(&piece[..length]);
        }
    };
    until("\"created\":true", &mut stream);
    for number in 0..20 {
        let value = format!("{number:03}");
        let body = format!("{{\"key\":\"dw==\",\"value\":\"{value}0\"}}");
        let put = framed("POST", "/v3/kv/put", "", body.as_bytes());
        assert_eq!(ask(&server, &put, None).status, "HTTP/1.1 200 OK");
        until(&format!("\"value\":\"{value}0\""), &mut stream);
    }
    // They are counted at intervals.
    let comes_to = |count: u64| {
        let until = Instant::now() + PATIENCE;
        while watchers(&server) != count {
            assert!(Instant::now() < until, "{} watchers, not {count}", watchers(&server));
            std::thread::sleep(Duration::from_millis(50));
        }
    };
    comes_to(1);
    drop(stream);
    comes_to(0);
}

/// etcd answers when it has read all; here requests and responses may alternate, in any pieces.
#[test]
fn requests_may_come_while_answers_go() {
    let server = Setup::new(process::basalt()).start();
    let mut stream = TcpStream::connect(("127.0.0.1", server.port)).expect("accepted");
    stream.set_read_timeout(Some(PATIENCE)).expect("a time");
    let head = "POST /v3/watch HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes()).expect("sent");
    let mut told = String::new();
    for (pieces, answer) in [
        ([r#"{"create_request":{"key":"YQ"#, r#"=="}}"#], r#""created":true"#),
        ([r#"{"create_request":{"#, r#""key":"Yg=="}}"#], r#""watch_id":"1","created":true"#),
        ([r#"{"cancel_request":"#, r#"{"watch_id":1}}"#], r#""watch_id":"1","canceled":true"#),
    ] {
        for piece in pieces {
            let chunk = format!("{:x}\r\n{piece}\r\n", piece.len());
            stream.write_all(chunk.as_bytes()).expect("sent");
        }
        while !told.contains(answer) {
            let mut piece = [0; 4096];
            let length = stream.read(&mut piece).expect("more comes");
            assert!(length > 0, "it ended: {told}");
            told.push_str(&String::from_utf8_lossy(&piece[..length]));
        }
    }
}

fn watchers(server: &Server) -> u64 {
    counted(server, "etcd_debugging_mvcc_watcher_total")
}

fn counted(server: &Server, series: &str) -> u64 {
    let page = ask(server, &framed("GET", "/metrics", "", b""), None).body;
    let value = page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    value.expect("it is counted").parse::<f64>().expect("a number") as u64
}

#[test]
fn calls_are_counted_as_those_of_grpc_are() {
    let servers = [process::etcd(), process::basalt()].map(|binary| Setup::new(binary).start());
    let mut counts = Vec::new();
    for server in &servers {
        for (path, body) in [
            ("/v3/kv/put", r#"{"key":"YQ=="}"#),
            ("/v3/kv/range", "{}"),
            ("/v3/kv/range", "garbage"),
            ("/v3/lease/keepalive", r#"{"ID":"5"}"#),
        ] {
            ask(server, &framed("POST", path, "", body.as_bytes()), None);
        }
        let handled = |code: &str, method: &str, service: &str, kind: &str| {
            let labels = format!(
                "{{grpc_code=\"{code}\",grpc_method=\"{method}\",\
                 grpc_service=\"etcdserverpb.{service}\",grpc_type=\"{kind}\"}}"
            );
            counted(server, &format!("grpc_server_handled_total{labels}"))
        };
        counts.push([
            handled("OK", "Put", "KV", "unary"),
            handled("Canceled", "Put", "KV", "unary"),
            handled("InvalidArgument", "Range", "KV", "unary"),
            handled("OK", "LeaseKeepAlive", "Lease", "bidi_stream"),
        ]);
    }
    assert_eq!(counts, [[1, 0, 1, 1]; 2], "etcd on the left, Basalt on the right");
}

#[test]
fn a_snapshot_in_lines_is_the_file() {
    let server = Setup::new(process::basalt()).start();
    for number in 0..200 {
        let value = "eHh4".repeat(100);
        let body = format!("{{\"key\":\"a2{number:03}AA=\",\"value\":\"{value}\"}}");
        ask(&server, &framed("POST", "/v3/kv/put", "", body.as_bytes()), None);
    }
    let told = ask(&server, &framed("POST", "/v3/maintenance/snapshot", "", b"{}"), None);
    let mut file = Vec::new();
    let mut left = Vec::new();
    for line in told.body.lines() {
        let line: Value = serde_json::from_str(line).expect("a line of JSON");
        let blob = line["result"]["blob"].as_str().expect("a blob").to_owned();
        let script =
            Command::new("sh").args(["-c", "printf %s \"$0\" | base64 -d"]).arg(blob).output();
        file.extend(script.expect("base64 is there").stdout);
        left.push(
            line["result"]["remaining_bytes"]
                .as_str()
                .map_or(0, |it| it.parse().expect("a number")),
        );
    }
    assert!(left.is_sorted_by(|one: &u64, other| one >= other), "{left:?}");
    let scratch = process::Scratch::new();
    let path = scratch.path().join("snapshot.db");
    std::fs::write(&path, file).expect("it can be written");
    let mut status = Command::new(reference("etcdutl"));
    status.args(["snapshot", "status", "-w", "json"]).arg(&path);
    let told = run(status, PATIENCE);
    let told: Value = serde_json::from_str(told.stdout.trim()).expect("etcdutl reads it");
    assert_eq!(told["totalKey"], 200, "{told}");
}

#[test]
fn served_methods_are_described() {
    let server = Setup::new(process::basalt()).start();
    let told = ask(&server, &framed("GET", "/openapi.json", "", b""), None);
    assert_eq!(told.headers["content-type"], "application/json");
    let described: Value = serde_json::from_str(&told.body).expect("JSON");
    let paths = described["paths"].as_object().expect("paths");
    for path in paths.keys() {
        let answer = ask(&server, &framed("GET", path, "", b""), None);
        assert_eq!(answer.status, "HTTP/1.1 501 Not Implemented", "{path} is not served");
    }
    assert_eq!(paths.len(), 51);
}

#[test]
fn it_can_be_switched_off() {
    let servers = [process::etcd(), process::basalt()]
        .map(|binary| Setup::new(binary).flag("enable-grpc-gateway", "false").start());
    for (method, path) in [("POST", "/v3/kv/range"), ("GET", "/v3"), ("GET", "/health")] {
        let request = framed(method, path, "", b"");
        let [left, right] = [&servers[0], &servers[1]].map(|it| ask(it, &request, None).evened());
        assert_eq!(left, right, "{path}: etcd on the left, Basalt on the right");
    }
}
