//! A log that is not read, and one that would fill a disk.

use std::io::Read as _;
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::compare::runtime;
use crate::process::{self, PATIENCE, Scratch, Server, Setup};
use crate::tls::certificates::{Authority, Wanted};
use crate::wire::Wire;

/// Writes for this long, each of which is logged as slow: more than a pipe holds.
const WRITES: Duration = Duration::from_millis(2500);

#[test]
fn a_log_that_nobody_reads_stops_no_request() {
    let server =
        Server::new(Setup::new(process::basalt()).flag("warning-unary-request-duration", "1ns"));
    let standard = [Stdio::null(), Stdio::null(), Stdio::piped()];
    let mut child = process::spawn_with(server.command(), standard);
    let mut log = child.stderr.take().expect("piped");
    runtime().block_on(async {
        let wire = Wire::new(&server.endpoint());
        let began = Instant::now();
        while wire.put("key", "0").await.is_err() {
            assert!(began.elapsed() < Duration::from_secs(30), "it does not serve");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let began = Instant::now();
        let mut writes = 0;
        let value = "v".repeat(200);
        while began.elapsed() < WRITES || writes < 1000 {
            let put = wire.put("key", &value);
            let done = tokio::time::timeout(Duration::from_secs(5), put).await;
            done.unwrap_or_else(|_| panic!("stopped after {writes} writes")).expect("written");
            writes += 1;
        }
    });
    // The queued lines are written now that the log is read; not a line for each write.
    let (sender, lines) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let (mut text, mut piece) = (String::new(), [0; 4096]);
        while let Ok(count) = log.read(&mut piece) {
            text.push_str(&String::from_utf8_lossy(&piece[..count]));
            if count == 0 || text.contains("\"suppressed log lines") {
                break;
            }
        }
        let _ = sender.send(text);
    });
    let text = lines.recv_timeout(Duration::from_secs(10)).expect("it is told");
    let _ = child.kill();
    let _ = child.wait();
    let slow = text.matches("\"caller\":\"rpc/").count();
    let told = text.lines().find(|line| line.contains("suppressed log lines"));
    let told = told.unwrap_or_else(|| panic!("{slow} lines and none about the others"));
    assert!(told.contains("\"suppressed-caller\":\"rpc/"), "{told}");
    assert!(told.contains("\"count\":"), "{told}");
}

/// As logrotate does with `postrotate kill -HUP`.
#[test]
fn files_that_were_moved_away_are_opened_again() {
    let place = Scratch::new();
    let path = |name: &str| place.path().join(name);
    let text = |name: &str| std::fs::read_to_string(path(name)).unwrap_or_default();
    for rotates in [false, true] {
        let mut server = Server::new(
            Setup::new(process::basalt())
                .flag("log-outputs", &path("server.log").display().to_string())
                .flag("enable-log-rotation", &rotates.to_string())
                .flag("audit-log-path", &path("audit.log").display().to_string()),
        );
        server.launch();
        runtime().block_on(async {
            let wire = Wire::new(&server.endpoint());
            let began = Instant::now();
            while wire.put("before", "x").await.is_err() {
                assert!(began.elapsed() < Duration::from_secs(30), "{}", text("server.log"));
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            waits(|| text("audit.log").contains("before"), "an audit line");
            for name in ["server.log", "audit.log"] {
                std::fs::rename(path(name), path(&format!("{name}.1"))).expect("it is there");
            }
            server.signal(rustix::process::Signal::HUP);
            waits(|| path("server.log").exists() && path("audit.log").exists(), "new files");
            wire.put("after", "x").await.expect("it serves");
            wire.put("late", "x").await.expect("it serves");
        });
        waits(|| text("audit.log").contains("late"), "an audit line");
        assert!(text("server.log.1").contains("received signal"), "{}", text("server.log.1"));
        assert!(text("audit.log.1").contains("before") && !text("audit.log.1").contains("late"));
        server.signal(rustix::process::Signal::TERM);
        server.wait_exit(Duration::from_secs(30)).expect("it ends");
        assert!(text("server.log").contains("closed the member"), "{}", text("server.log"));
        for name in ["server.log", "audit.log", "server.log.1", "audit.log.1"] {
            std::fs::remove_file(path(name)).expect("it is there");
        }
    }
}

fn waits(until: impl Fn() -> bool, what: &str) {
    let late = Instant::now() + Duration::from_secs(30);
    while !until() {
        assert!(Instant::now() < late, "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn what_leaves_a_member_open_is_said_at_the_start() {
    let mut server = Server::new(Setup::new(process::basalt()));
    server.start();
    assert!(!server.logs.mentions("insecure: "), "{}", server.logs.all());
    assert!(!server.logs.mentions("check file permission"));
    server.kill();
    let place = Scratch::new();
    let authority = Authority::new(place.path(), "ca");
    let pair = authority.issue("server", &Wanted::default());
    let mode = |path: &std::path::Path, mode: u32| {
        let permissions = std::os::unix::fs::PermissionsExt::from_mode(mode);
        std::fs::set_permissions(path, permissions).expect("it is ours");
    };
    mode(std::path::Path::new(&pair.key), 0o640);
    mode(&server.data_dir(), 0o755);
    let everywhere = format!("http://0.0.0.0:{}", server.port);
    server.set("listen-client-urls", &everywhere);
    let peers = format!("http://0.0.0.0:{}", server.peer_port);
    server.set("listen-peer-urls", &peers);
    server.set("cert-file", &pair.certificate);
    server.set("key-file", &pair.key);
    server.set("client-cert-auth", "true");
    server.start();
    for (text, about) in [
        (
            "insecure: clients are served without TLS beyond this machine",
            &everywhere["http://".len()..],
        ),
        ("insecure: the peer port has no TLS", &peers["http://".len()..]),
        ("insecure: authentication is off", &everywhere["http://".len()..]),
        ("verified by the system's authorities, since no CA is given", "--client-cert-auth"),
        ("insecure: a file of a private key can be read by others", &pair.key),
    ] {
        let line = server.logs.line(text, PATIENCE);
        let line = line.unwrap_or_else(|| panic!("{text}\n{}", server.logs.tail()));
        assert!(line.contains("\"level\":\"warn\"") && line.contains(about), "{line}");
    }
    assert!(!server.logs.mentions("tokens are sent without tls"));
    let line = server.logs.line("check file permission", PATIENCE).expect("etcd's line");
    let dir = server.data_dir().display().to_string();
    // As etcd 3.7.1 says it.
    let text = format!(
        "directory \\\"{dir}\\\" exist, but the permission is \\\"drwxr-xr-x\\\". The recommended permission \
         is \\\"-rwx------\\\" to prevent possible unprivileged access to the data"
    );
    assert!(line.contains(&text), "{line}");
}
