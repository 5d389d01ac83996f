//! Few file descriptors and many clients: connected clients, members and health checks are served, and the
//! log contains the reason why others wait.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::compare::runtime;
use crate::ports;
use crate::process::{self, PATIENCE, Scratch, Server, Setup};
use crate::wire::Wire;

/// The first bytes of an HTTP/2 connection: the preface and empty settings.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// The server behind `ulimit` with these arguments.
fn limited(place: &Scratch, limits: &str) -> PathBuf {
    let path = place.path().join("limited");
    let binary = process::basalt();
    fs::write(&path, format!("#!/bin/sh\n{limits}\nexec {} \"$@\"\n", binary.display())).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
    path
}

/// The response to a GET, or an empty text if the connection ends or nothing arrives.
fn get(port: u16, path: &str) -> String {
    let mut told = Vec::new();
    let asked = TcpStream::connect(("127.0.0.1", port)).and_then(|mut stream| {
        stream.set_read_timeout(Some(Duration::from_secs(3)))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")?;
        stream.read_to_end(&mut told)
    });
    let _ = asked;
    String::from_utf8_lossy(&told).into_owned()
}

/// The same, repeated while the server refuses connections.
fn get_in_time(port: u16, path: &str) -> String {
    let until = Instant::now() + PATIENCE;
    loop {
        let told = get(port, path);
        if told.starts_with("HTTP/1.1 200") || Instant::now() > until {
            return told;
        }
    }
}

fn number(metrics: &str, name: &str) -> f64 {
    let mut values = metrics.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    values.next().and_then(|value| value.parse().ok()).unwrap_or(-1.0)
}

/// An HTTP/2 connection without requests, if the server answers with HTTP/2, too.
fn idle(server: &Server) -> Option<TcpStream> {
    let mut stream = TcpStream::connect(("127.0.0.1", server.port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(3))).ok()?;
    stream.write_all(PREFACE).ok()?;
    let mut settings = [0; 9];
    stream.read_exact(&mut settings).ok()?;
    Some(stream)
}

#[test]
fn the_soft_limit_is_raised_to_the_hard_one() {
    let place = Scratch::new();
    let server = Setup::new(limited(&place, "ulimit -Sn 300; ulimit -Hn 2000")).start();
    let metrics = get(server.port, "/metrics");
    assert_eq!(number(&metrics, "process_max_fds"), 2000.0, "{metrics}");
}

#[test]
fn too_few_descriptors_are_refused() {
    let place = Scratch::new();
    let mut server = Server::new(Setup::new(limited(&place, "ulimit -n 100")));
    server.launch();
    let ended = server.wait_exit(PATIENCE).and_then(|status| status.code());
    let told = server.logs.all();
    assert_eq!(ended, Some(1), "{told}");
    assert!(told.contains("file descriptor limit of the process is too low (100)"), "{told}");
}

#[test]
fn clients_leave_descriptors_for_files_members_and_health_checks() {
    let place = Scratch::new();
    let metrics_port = ports::free();
    let setup = Setup::new(limited(&place, "ulimit -n 300"))
        .flag("listen-metrics-urls", &format!("http://127.0.0.1:{metrics_port}"));
    let mut server = setup.start();
    let runtime = runtime();
    let _inside = runtime.enter();
    let early = Wire::new(&server.endpoint());
    runtime.block_on(async { early.put("early", "1").await.expect("written") });

    // More than there are descriptors. Some are silent, as port scanners are.
    let silent: Vec<_> =
        (0..20).filter_map(|_| TcpStream::connect(("127.0.0.1", server.port)).ok()).collect();
    let mut connected: Vec<_> = (0..300).filter_map(|_| idle(&server)).collect();
    assert!((20..250).contains(&connected.len()), "{} are connected", connected.len());
    drop(silent);
    while let Some(more) = idle(&server) {
        connected.push(more);
    }

    // Connected clients are served, and health checks, on each port.
    let put = runtime.block_on(async { early.put("early", "2").await });
    assert!(put.is_ok(), "{put:?}\n{}", server.logs.tail());
    for path in ["/health", "/readyz"] {
        let told = get_in_time(server.port, path);
        assert!(told.starts_with("HTTP/1.1 200"), "{path}: {told}");
    }
    let metrics = get_in_time(metrics_port, "/metrics");
    assert!(get_in_time(metrics_port, "/health").contains("\"health\":\"true\""));
    let members = get_in_time(server.peer_port, "/members");
    assert!(members.contains("pillar"), "{members}");
    // It is logged and counted.
    assert!(server.logs.wait_for("connections wait for file descriptors", PATIENCE));
    assert!(number(&metrics, "basalt_network_connections_turned_away_total") >= 1.0, "{metrics}");
    let (open, most) = (number(&metrics, "process_open_fds"), number(&metrics, "process_max_fds"));
    assert!(most == 300.0 && open < most - 50.0, "{open} of {most} are open");
    // Files can still be opened: a new segment of the log, a snapshot, the store's tables.
    let value = "x".repeat(1 << 20);
    runtime.block_on(async {
        for at in 0..80 {
            early.put(&format!("large/{}", at % 8), &value).await.expect("written");
        }
    });
    assert!(server.wait_exit(Duration::from_millis(10)).is_none(), "it runs");

    // When some are closed, others are accepted.
    drop(connected);
    let until = Instant::now() + PATIENCE;
    while idle(&server).is_none() {
        assert!(Instant::now() < until, "nobody is let in");
    }
    let late = Wire::new(&server.endpoint());
    runtime.block_on(async { late.put("late", "1").await.expect("written") });
    server.kill();
}
