//! Servers where io_uring is refused, as in most containers, and on either reactor.

use std::os::unix::net::UnixDatagram;
use std::os::unix::process::ExitStatusExt as _;
use std::time::{Duration, Instant};

use basalt_proto::etcdserverpb::{
    WatchCreateRequest, WatchRequest, WatchResponse, watch_request::RequestUnion,
};
use bytes::Bytes;
use prost::Message as _;
use rustix::process::Signal;

use crate::compare::{from_environment, runtime};
use crate::process::{self, PATIENCE, Server, Setup, basalt};
use crate::wire::{self, Wire};

/// How long a server may take until it serves. A second on a machine that does nothing else.
const READY_MAX: Duration = Duration::from_secs(10);

/// A server in the sandbox, not started yet.
fn sandboxed(refuses: &str) -> Server {
    let setup = Setup::new(process::sandbox()).variable("SANDBOX_REFUSES", refuses);
    let binary = basalt().to_string_lossy().into_owned();
    // All servers may run there already.
    Server::new(if is_sandbox() { setup } else { setup.variable("SANDBOX_BIN", &binary) })
}

/// True if the server under test runs in the sandbox anyway.
fn is_sandbox() -> bool {
    basalt().ends_with("sandbox")
}

/// The reactors that the server under test may use.
pub(crate) fn reactors() -> &'static [&'static str] {
    let asked = std::env::var("SANDBOX_REFUSES").unwrap_or_else(|_| "EPERM".to_owned());
    let disabled = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled");
    let refused = is_sandbox() && !["nothing", "Localhost"].contains(&asked.as_str());
    match refused || disabled.is_ok_and(|it| it.trim() != "0") {
        true => &["epoll"],
        false => &["io_uring", "epoll"],
    }
}

/// Puts, gets, and sees the put in a watch.
async fn serves(server: &Server) {
    let wire = Wire::new(&server.endpoint());
    let request = WatchCreateRequest { key: Bytes::from_static(b"k"), ..Default::default() };
    let union = RequestUnion::CreateRequest(request);
    let create = WatchRequest { request_union: Some(union) }.encode_to_vec();
    let mut talk = wire.talk(wire::WATCH, Bytes::from(create)).await.unwrap();
    let bytes = talk.answers.message().await.unwrap().expect("a response");
    assert!(WatchResponse::decode(bytes).unwrap().created);
    wire.put("k", "v").await.unwrap();
    assert_eq!(wire.get("k").await.unwrap().kvs[0].value, "v");
    let bytes = talk.answers.message().await.unwrap().expect("an event");
    assert_eq!(WatchResponse::decode(bytes).unwrap().events.len(), 1);
}

#[test]
fn a_server_without_io_uring_serves_on_epoll_and_says_why() {
    for refuses in ["EPERM", "ENOSYS", "RuntimeDefault"] {
        let mut server = sandboxed(refuses);
        let began = Instant::now();
        server.launch();
        assert!(server.wait_ready(READY_MAX), "{refuses}: {}", server.logs.tail());
        println!("{refuses}: ready after {:?}", began.elapsed());
        let first = server.logs.tail();
        let line =
            first.lines().find(|line| line.contains("starting an etcd server")).expect("a line");
        assert!(line.contains("\"reactor\":\"epoll\""), "{line}");
        assert!(line.contains("io_uring_setup fails") && line.contains("seccomp"), "{line}");
        runtime().block_on(serves(&server));
        let page = metrics(&server);
        assert!(page.contains("basalt_reactor_info{reactor=\"epoll\"} 1"), "{page}");
        server.signal(Signal::TERM);
        let status = server.wait_exit(PATIENCE).expect("it ends");
        assert_eq!(status.signal(), Some(Signal::TERM.as_raw()), "{refuses}: {status}");
    }
}

fn metrics(server: &Server) -> String {
    let mut curl = std::process::Command::new("curl");
    curl.args(["-s", &format!("{}/metrics", server.endpoint())]);
    process::run(curl, PATIENCE).stdout
}

#[test]
fn what_the_machine_refuses_is_one_sentence_and_no_panic() {
    let mut server = sandboxed("EPERM");
    server.set("reactor", "io_uring");
    server.launch();
    let status = server.wait_exit(PATIENCE).expect("it cannot start");
    let said = server.logs.all();
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains("io_uring_setup fails") && said.contains("--reactor=epoll"), "{said}");
    assert!(!said.contains("panicked") && !said.contains("Romulus"), "{said}");
    // Nothing was written.
    assert!(!server.data_dir().exists());
}

/// Memory that may not be locked is no reason to stop, whether the kernel counts it or not.
#[test]
fn a_server_that_may_lock_no_memory_serves() {
    let mut server = sandboxed("nothing");
    server.launch();
    assert!(server.wait_ready(READY_MAX), "{}", server.logs.tail());
    runtime().block_on(serves(&server));
}

/// The seccomp profile in `deploy` allows all that io_uring needs, beside a read-only root and no /sys.
#[test]
fn the_profile_with_io_uring_suffices() {
    if !reactors().contains(&"io_uring") {
        return println!("skipped: this machine or the sandbox around it refuses io_uring");
    }
    let mut server = sandboxed("Localhost");
    server.set("reactor", "io_uring");
    server.launch();
    assert!(server.wait_ready(READY_MAX), "{}", server.logs.tail());
    runtime().block_on(serves(&server));
}

/// Short forms of what `SANDBOX_STARTS=100` makes long.
#[test]
fn servers_start_again_and_again_on_either_reactor() {
    let starts = from_environment("SANDBOX_STARTS", 5);
    for reactor in reactors().iter().copied() {
        let mut server = Server::new(Setup::new(basalt()).flag("reactor", reactor));
        for start in 0..starts {
            server.start();
            let line = server.logs.tail();
            let expected = format!("\"reactor\":\"{reactor}\"");
            assert!(line.contains(&expected), "start {start}: {line}");
            runtime().block_on(async {
                let wire = Wire::new(&server.endpoint());
                wire.put("start", &start.to_string()).await.unwrap();
            });
            server.signal(Signal::TERM);
            let status = server.wait_exit(PATIENCE).expect("it ends");
            assert_eq!(status.signal(), Some(Signal::TERM.as_raw()), "as etcd ends: {status}");
            server.kill();
        }
    }
}

/// Notifications to systemd, in order, as by etcd; and that the server is alive, while it is.
#[test]
fn systemd_is_told_when_a_member_serves_lives_and_stops() {
    let scratch = process::Scratch::new();
    let path = scratch.path().join("notify");
    let systemd = UnixDatagram::bind(&path).unwrap();
    systemd.set_read_timeout(Some(PATIENCE)).unwrap();
    let next = || {
        let mut message = [0; 256];
        let length = systemd.recv(&mut message).expect("it is told");
        String::from_utf8_lossy(&message[..length]).trim().to_owned()
    };
    for reactor in reactors().iter().copied() {
        let setup = Setup::new(basalt()).flag("reactor", reactor);
        let socket = path.to_string_lossy();
        let setup = setup.variable("NOTIFY_SOCKET", &socket).variable("WATCHDOG_USEC", "400000");
        let mut server = setup.start();
        assert_eq!(next(), "READY=1");
        (0..3).for_each(|_| assert_eq!(next(), "WATCHDOG=1", "{reactor}"));
        server.signal(Signal::TERM);
        let stopping = (0..1000).map(|_| next()).find(|it| it != "WATCHDOG=1");
        assert_eq!(stopping.as_deref(), Some("STOPPING=1"), "{reactor}");
        assert!(server.wait_exit(PATIENCE).is_some());
        // Notifications in flight.
        systemd.set_nonblocking(true).unwrap();
        while systemd.recv(&mut [0; 256]).is_ok() {}
        systemd.set_nonblocking(false).unwrap();
    }
}

#[test]
fn a_machine_without_a_journal_is_told_as_by_etcd() {
    if std::path::Path::new("/run/systemd/journal/socket").exists() {
        return println!("skipped: this machine has a journal");
    }
    let said = [basalt(), process::etcd()].map(|program| {
        let mut server = Server::new(Setup::new(program).flag("log-outputs", "systemd/journal"));
        server.launch();
        assert!(server.wait_exit(PATIENCE).is_some_and(|status| !status.success()));
        let said = server.logs.all();
        assert!(said.contains("/run/systemd/journal/socket: connect: no such file"), "{said}");
        said.lines().count()
    });
    assert!(said.iter().all(|lines| *lines > 0), "{said:?}");
}
