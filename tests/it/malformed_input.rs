//! Malformed input of every kind: flags, directories, bytes on the port, connections that never finish.
//! The server refuses it with one clear text, or goes on; it loses nothing and serves all other clients.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::Duration;

use basalt_proto::etcdserverpb::{PutRequest, RequestOp, TxnRequest, TxnResponse, request_op};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::compare::runtime;
use crate::process::{self, Finished, Scratch, Server, Setup, run};
use crate::wire::{self, Wire};

/// Command lines that are refused, each with a part of the reason.
const REFUSED: &[(&[&str], &str)] = &[
    (&["--nonexistent"], "flag provided but not defined: -nonexistent"),
    (&["-nonexistent=1"], "flag provided but not defined: -nonexistent"),
    (&["--name"], "flag needs an argument: -name"),
    (&["--snapshot-count=abc"], "invalid value \"abc\" for flag -snapshot-count"),
    (&["--max-txn-ops=-1"], "invalid value \"-1\" for flag -max-txn-ops"),
    (&["--listen-client-urls=notaurl"], "for flag -listen-client-urls"),
    (&["--initial-cluster-state=sideways"], "invalid value \"sideways\""),
    (&["--listen-client-urls=http://127.0.0.1:1"], "--advertise-client-urls is required"),
    (&["--heartbeat-interval=100", "--election-timeout=200"], "should be at least as 5 times"),
    (&["word"], "\"word\" is not a valid flag"),
    (&["--auto-compaction-mode=x"], "unknown auto-compaction-mode \"x\""),
    (&["--data-dir=/dev/null/x"], "/dev/null/x"),
    (&["--data-dir=/proc/nope"], "/proc/nope"),
    (&["--config-file=/nonexistent.yaml"], "/nonexistent.yaml"),
];

#[test]
fn wrong_command_lines_are_refused_like_by_etcd() {
    let mut problems = Vec::new();
    for (arguments, reason) in REFUSED {
        let etcd = started(process::etcd(), arguments);
        let basalt = started(process::basalt(), arguments);
        assert!(etcd.stderr.contains(reason), "etcd's own words:\n{}", etcd.stderr);
        if basalt.code != etcd.code || !basalt.stderr.contains(reason) {
            problems.push(format!(
                "{arguments:?}: etcd ends with {:?}, Basalt with {:?}; expected `{reason}` in:\n{}",
                etcd.code, basalt.code, basalt.stderr
            ));
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[test]
fn the_environment_is_read_like_by_etcd() {
    for (name, value) in [("ETCD_SNAPSHOT_COUNT", "abc"), ("ETCD_HEARTBEAT_INTERVAL", "x")] {
        let ends = |binary| {
            let scratch = Scratch::new();
            let mut command = Command::new(binary);
            command.current_dir(scratch.path()).env(name, value);
            run(command, Duration::from_secs(10)).code
        };
        let (etcd, basalt) = (ends(process::etcd()), ends(process::basalt()));
        assert!(etcd.is_some_and(|code| code != 0), "etcd takes {name}={value}");
        assert_eq!(basalt, etcd, "{name}={value}");
    }
}

#[test]
fn version_and_help_end_well() {
    for (flag, text) in [("--version", "etcd Version: 3.7.1"), ("--help", "--data-dir")] {
        for binary in [process::etcd(), process::basalt()] {
            let told = started(binary.clone(), &[flag]);
            let said = told.stdout + &told.stderr;
            assert_eq!(told.code, Some(0), "{} {flag}:\n{said}", binary.display());
            assert!(said.contains(text), "{} {flag}:\n{said}", binary.display());
        }
    }
}

/// As `head -1` does.
#[test]
fn a_reader_that_has_gone_is_no_crash() {
    for flag in ["--version", "--help"] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = Command::new(process::basalt());
        command.arg(flag).stdin(Stdio::null()).stdout(writer).stderr(Stdio::piped());
        let told = command.output().unwrap();
        let said = String::from_utf8_lossy(&told.stderr).into_owned();
        assert!(told.status.success() && !said.contains("panicked"), "{flag}: {said}");
    }
}

/// Runs a server that is expected to end by itself.
fn started(binary: std::path::PathBuf, arguments: &[&str]) -> Finished {
    let scratch = Scratch::new();
    let mut command = Command::new(binary);
    command.args(arguments).current_dir(scratch.path());
    let told = run(command, Duration::from_secs(10));
    // Some errors are plain text, some JSON.
    Finished { stderr: told.stderr.replace("\\\"", "\""), ..told }
}

#[test]
fn a_second_process_on_the_same_data_directory_is_kept_out() {
    runtime().block_on(async {
        let first = Setup::new(process::basalt()).start();
        let wire = Wire::new(&first.endpoint());
        wire.put("kept", "1").await.unwrap();
        let data = first.data_dir().display().to_string();
        let mut second = Server::new(Setup::new(process::basalt()).flag("data-dir", &data));
        second.launch();
        // etcd waits for the first one to end; ending with a clear text is better.
        assert!(!second.wait_ready(Duration::from_secs(3)), "two processes share {data}");
        if !first.is_etcd() {
            let status = second.wait_exit(Duration::from_secs(5));
            let said = second.logs.all();
            assert!(status.is_some_and(|it| !it.success()), "neither serves nor ends:\n{said}");
            assert!(said.contains(&data), "does not name {data}:\n{said}");
        }
        second.kill();
        wire.put("kept", "2").await.unwrap();
        assert_eq!(wire.get("kept").await.unwrap().kvs[0].value, "2");
    });
}

#[test]
fn a_port_in_use_is_named_in_the_error() {
    let first = Setup::new(process::basalt()).start();
    let taken = first.endpoint();
    let mut second = Server::new(Setup::new(process::basalt()).flag("listen-client-urls", &taken));
    second.launch();
    let status = second.wait_exit(Duration::from_secs(10));
    let said = second.logs.all();
    assert!(status.is_some_and(|it| !it.success()), "shares a port:\n{said}");
    assert!(said.to_lowercase().contains("address already in use"), "{said}");
}

/// An etcd data directory is not Basalt's: it is left as it was, and the error names it.
#[test]
fn a_foreign_data_directory_is_refused_untouched() {
    let mut etcd = Setup::new(process::etcd()).start();
    runtime().block_on(async {
        Wire::new(&etcd.endpoint()).put("a", "b").await.unwrap();
    });
    etcd.kill();
    let data = etcd.data_dir().display().to_string();
    let mut basalt = Server::new(Setup::new(process::basalt()).flag("data-dir", &data));
    basalt.launch();
    if process::is_etcd(&process::basalt()) {
        return;
    }
    let status = basalt.wait_exit(Duration::from_secs(10));
    let said = basalt.logs.all();
    assert!(status.is_some_and(|it| !it.success()), "takes etcd's directory:\n{said}");
    assert!(said.contains(&data), "does not name {data}:\n{said}");
    basalt.kill();
    etcd.start();
    runtime().block_on(async {
        let got = Wire::new(&etcd.endpoint()).get("a").await.unwrap();
        assert_eq!(got.kvs[0].value, "b");
    });
}

#[test]
fn garbage_on_the_port_affects_no_other_client() {
    let server = Setup::new(process::basalt()).start();
    let mut rng = StdRng::seed_from_u64(4);
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    for round in 0..200 {
        let mut stream = TcpStream::connect(("127.0.0.1", server.port)).expect("accepted");
        stream.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        let mut bytes = vec![0_u8; rng.random_range(1..2000)];
        rng.fill(&mut bytes[..]);
        let head: &[u8] = match round % 5 {
            0 => b"",
            1 => b"GET /health HTTP/1.1\r\n",
            2 => preface,
            // A SETTINGS frame first, so that the garbage is parsed as frames.
            3 => b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
            _ => &preface[..12],
        };
        // The server may close at any time.
        let _ = stream.write_all(head);
        let _ = stream.write_all(&bytes);
        let _ = stream.read(&mut [0; 64]);
        if round % 3 == 0 {
            // Closed with unread input, which makes the kernel send a reset.
            drop(stream);
        }
    }
    serves(&server);
}

#[test]
fn half_open_connections_take_nothing_from_others() {
    let server = Setup::new(process::basalt()).start();
    let beginnings: [&[u8]; 5] = [
        b"",
        b"P",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost:",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0\0\x10\0\x01\x04\0\0\0\x01",
    ];
    let open: Vec<_> = (0..400)
        .map(|number| {
            let mut stream = TcpStream::connect(("127.0.0.1", server.port)).expect("accepted");
            stream.write_all(beginnings[number % beginnings.len()]).unwrap();
            stream
        })
        .collect();
    serves(&server);
    drop(open);
    serves(&server);
}

/// Requests that end in the middle: the stream is reset, the connection goes on.
#[test]
fn clients_that_hang_up_leave_no_trace() {
    runtime().block_on(async {
        let server = Setup::new(process::basalt()).start();
        let wire = Wire::new(&server.endpoint());
        for number in 0..300 {
            let (key, value) = (format!("k{number}"), "x".repeat(1000));
            let put = wire.put(&key, &value);
            let range = wire.everything(0);
            let moment = Duration::from_micros(number * 7);
            let _ = tokio::time::timeout(moment, async { tokio::join!(put, range) }).await;
        }
        serves(&server);
    });
}

/// etcd accepts longer keys; a store that counts their bytes in 16 bits must refuse them instead of ending.
#[test]
fn a_key_that_no_store_takes_is_refused_at_any_depth() {
    runtime().block_on(async {
        let server = Setup::new(process::basalt()).start();
        let wire = Wire::new(&server.endpoint());
        let longest = "k".repeat(65_534);
        wire.put(&longest, "kept").await.unwrap();
        let refused = "etcdserver: request is too large";
        for length in [65_535, 65_536, 1_000_000] {
            let key = "k".repeat(length);
            assert_eq!(wire.put(&key, "").await.unwrap_err().message(), refused, "{length}");
            let put = PutRequest { key: key.into(), ..Default::default() };
            let mut request = request_op::Request::RequestPut(put);
            for depth in 1..4 {
                let success = vec![RequestOp { request: Some(request) }];
                let txn = TxnRequest { success, ..Default::default() };
                let told = wire.ask::<_, TxnResponse>(wire::TXN, &txn).await;
                assert_eq!(told.unwrap_err().message(), refused, "{length} at depth {depth}");
                request = request_op::Request::RequestTxn(txn);
            }
        }
        assert_eq!(wire.get(&longest).await.unwrap().kvs[0].value, "kept");
        serves(&server);
    });
}

#[test]
fn a_data_directory_that_cannot_be_made_is_named() {
    let scratch = Scratch::new();
    let file = scratch.path().join("file");
    fs::write(&file, "not a directory").unwrap();
    let data = file.join("data").display().to_string();
    let mut server = Server::new(Setup::new(process::basalt()).flag("data-dir", &data));
    server.launch();
    let status = server.wait_exit(Duration::from_secs(10));
    let said = server.logs.all();
    assert!(status.is_some_and(|it| !it.success()), "starts without a directory:\n{said}");
    assert!(said.contains(&data), "does not name {data}:\n{said}");
}

/// gRPC, HTTP/1 and a new connection all work.
fn serves(server: &Server) {
    let work = async {
        let wire = Wire::new(&server.endpoint());
        wire.put("still", "here").await.unwrap();
        assert_eq!(wire.get("still").await.unwrap().kvs[0].value, "here");
    };
    // A runtime of its own, whatever the caller runs in.
    std::thread::scope(|scope| {
        let work = move || {
            runtime().block_on(async {
                let served = tokio::time::timeout(Duration::from_secs(10), work).await;
                served.expect("served in time");
            });
        };
        scope.spawn(work).join().expect("served");
    });
    let mut stream = TcpStream::connect(("127.0.0.1", server.port)).expect("accepted");
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream
        .write_all(b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    assert!(answer.contains("\"health\":\"true\""), "{answer}");
}
