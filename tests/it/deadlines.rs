//! `grpc-timeout`: the server itself ends calls whose deadline has passed, whatever the client does.
//! Client libraries end such calls themselves, so they cannot show it; curl has no deadline of its own.

use std::process::Command;
use std::time::{Duration, Instant};

use basalt_proto::etcdserverpb::watch_request::RequestUnion;
use basalt_proto::etcdserverpb::{PutRequest, RangeRequest, WatchCreateRequest, WatchRequest};
use basalt_proto::v3lockpb::LockRequest;
use prost::Message;

use crate::curl::{self, framed};
use crate::process::{self, Server, Setup, basalt, reference, run};

const PUT: &str = "/etcdserverpb.KV/Put";
const RANGE: &str = "/etcdserverpb.KV/Range";
const WATCH: &str = "/etcdserverpb.Watch/Watch";
const LOCK: &str = "/v3lockpb.Lock/Lock";
/// Maximum time of a call that is answered at once, on a busy machine.
const SLOW: Duration = Duration::from_secs(20);

/// The response to a call with this timeout.
fn answer(server: &Server, path: &str, message: &impl Message, timeout: &str) -> Vec<String> {
    // With a `;`, curl sends a header without a value.
    let colon = if timeout.is_empty() { ';' } else { ':' };
    let timeout = format!("grpc-timeout{colon}{timeout}");
    curl::call(server, path, &framed(0, &message.encode_to_vec()), &[timeout]).lines
}

const LATE: [&str; 3] = ["HTTP/2 200", "grpc-message: context deadline exceeded", "grpc-status: 4"];

#[test]
fn times_that_make_no_sense_are_refused_as_by_etcd() {
    let (etcd, ours) = (Setup::new(process::etcd()).start(), Setup::new(basalt()).start());
    let get = RangeRequest { key: "k".into(), ..RangeRequest::default() };
    for timeout in
        ["20S", "5H", "0S", "00n", "5x", "S", "", "123456789S", "+5S", "1.5S", "99999999H"]
    {
        let [theirs, ours] = [&etcd, &ours].map(|server| early(server, &get, timeout));
        assert_eq!(theirs, ours, "{timeout:?}: etcd is on the left");
        assert!(ours.len() >= 2, "{timeout:?}: {ours:?}");
    }
    assert_eq!(early(&ours, &get, "0S"), LATE);
}

/// The response to a request that was not read to its end. The stream is reset after such a response, and curl
/// may see that first and discard the response.
fn early(server: &Server, get: &RangeRequest, timeout: &str) -> Vec<String> {
    let mut attempts = (0..20).map(|_| answer(server, RANGE, get, timeout));
    attempts.find(|it| !it.is_empty()).unwrap_or_default()
}

#[test]
fn a_call_ends_when_its_time_is_over() {
    let server = Setup::new(basalt()).start();
    let put = PutRequest { key: "k".into(), value: "v".into(), ..PutRequest::default() };
    assert_eq!(answer(&server, PUT, &put, "20S"), ["HTTP/2 200", "grpc-status: 0"]);
    let lock = LockRequest { name: "l".into(), lease: 0 };
    assert_eq!(answer(&server, LOCK, &lock, "20S"), ["HTTP/2 200", "grpc-status: 0"]);
    // The lock is held by the call before: this one waits until its deadline, and leaves the queue.
    let began = Instant::now();
    assert_eq!(answer(&server, LOCK, &lock, "300m"), LATE);
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(300) && took < SLOW, "{took:?}");
    let until = Instant::now() + SLOW;
    while keys(&server, "l/").lines().count() > 1 {
        assert!(Instant::now() < until, "who gave up still waits: {}", keys(&server, "l/"));
    }
    // A stream that has begun ends likewise.
    let create = WatchCreateRequest { key: "k".into(), ..WatchCreateRequest::default() };
    let watch = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
    let began = Instant::now();
    assert_eq!(answer(&server, WATCH, &watch, "300000u"), LATE);
    assert!(began.elapsed() >= Duration::from_millis(300) && began.elapsed() < SLOW);
}

fn keys(server: &Server, prefix: &str) -> String {
    let mut get = Command::new(reference("etcdctl"));
    get.args(["get", prefix, "--prefix", "--keys-only", "-w", "fields", "--endpoints"]);
    get.arg(server.endpoint());
    let told = run(get, SLOW).stdout;
    told.lines().filter(|line| line.starts_with("\"Key\"")).collect::<Vec<_>>().join("\n")
}
