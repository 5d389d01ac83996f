//! The gateway: bytes and endpoints.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::Command;
use std::time::Duration;

use super::{PATIENCE, Proxy, address, told};
use crate::process::{self, Scratch, Setup, run};

#[test]
fn the_gateway_leaves_out_endpoints_that_do_not_answer_until_they_do() {
    let (mut first, second) =
        (Setup::new(process::basalt()).start(), Setup::new(process::basalt()).start());
    let endpoints = format!("{},{}", first.endpoint(), address(&second));
    let gateway = Proxy::gateway(&endpoints, &["--retry-delay", "100ms"]);
    told(&first.endpoint(), &["put", "who", "first"]);
    told(&second.endpoint(), &["put", "who", "second"]);
    let who = || told(&gateway.endpoint(), &["get", "who", "--print-value-only"]);
    let mut seen = [who(), who()];
    seen.sort();
    assert_eq!(seen, ["first\n", "second\n"], "each has its turn");
    first.kill();
    for _ in 0..4 {
        assert_eq!(who(), "second\n");
    }
    let line = gateway.logs.line("deactivated endpoint", PATIENCE).expect("it was tried");
    assert!(line.contains("\"interval\":\"100ms\""), "{line}");
    assert!(line.contains("connect: connection refused"), "{line}");
    assert!(gateway.logs.wait_for("failed to activate endpoint", PATIENCE));
    let port = first.port;
    first.start();
    assert_eq!(first.port, port, "another process has taken the port");
    assert!(gateway.logs.wait_for("\"msg\":\"activated\"", PATIENCE));
    let seen = [who(), who()];
    assert!(seen.contains(&"first\n".to_owned()), "{seen:?}");
}

#[test]
fn a_direction_that_has_ended_does_not_end_the_other_one() {
    let member = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = member.local_addr().expect("bound").to_string();
    let gateway = Proxy::gateway(&address, &[]);
    let answering = std::thread::spawn(move || {
        let (mut client, _) = member.accept().expect("the gateway connects");
        let mut question = Vec::new();
        // To its end: only then is there an answer.
        client.read_to_end(&mut question).expect("the question");
        client.write_all(&question).expect("the answer");
        client.write_all(b" and more").expect("the answer");
    });
    let mut client = TcpStream::connect(gateway.address()).expect("it listens");
    client.set_read_timeout(Some(PATIENCE)).expect("a time");
    let question = vec![b'x'; 3 << 20];
    client.write_all(&question).expect("the question");
    client.shutdown(Shutdown::Write).expect("its end");
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).expect("the answer");
    assert_eq!(answer.len(), question.len() + " and more".len());
    answering.join().expect("it answers");
}

#[test]
fn a_connection_ends_when_no_endpoint_answers() {
    let unused = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = unused.local_addr().expect("bound").to_string();
    drop(unused);
    let gateway = Proxy::gateway(&address, &[]);
    let mut client = TcpStream::connect(gateway.address()).expect("it listens");
    client.set_read_timeout(Some(PATIENCE)).expect("a time");
    assert_eq!(client.read(&mut [0]).expect("its end"), 0);
}

/// etcd compares the addresses alone, and then connects to itself without end.
#[test]
fn the_gateway_refuses_itself_on_all_addresses() {
    let place = Scratch::new();
    let mut command = Command::new(process::basalt());
    command.current_dir(place.path());
    command.args(["gateway", "start", "--listen-addr", "0.0.0.0:23790"]);
    command.args(["--endpoints", "127.0.0.1:23790"]);
    let refused = run(command, Duration::from_secs(20));
    assert_eq!(refused.code, Some(1));
    assert!(
        refused.stdout.contains("should not resolve to the gateway listen addr (0.0.0.0:23790)"),
        "{}",
        refused.stdout
    );
}
