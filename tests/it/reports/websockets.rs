//! PR 21935: tokens in the protocols of a websocket.

use std::io::{ErrorKind, Read as _, Write as _};
use std::time::Instant;

use super::PATIENCE;
use crate::compare::runtime;
use crate::gateway::connect;
use crate::logins::{enable, login};
use crate::process::{self, Server, Setup};

/// The beginning of a watch over a websocket with these headers: the first line, the chosen protocol, and the first message.
fn watched(server: &Server, headers: &str) -> [String; 3] {
    let mut stream = connect(server);
    let head = format!(
        "GET /v3/watch HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n{headers}\r\n"
    );
    stream.write_all(head.as_bytes()).expect("sent");
    let (until, mut told, mut is_asked) = (Instant::now() + PATIENCE, Vec::new(), false);
    let message = loop {
        let text = String::from_utf8_lossy(&told).into_owned();
        if let Some(message) = message_in(&text) {
            break message;
        }
        assert!(Instant::now() < until, "{text}");
        // etcd ends connections that send before it has answered.
        if !is_asked && text.contains("\r\n\r\n") {
            stream.write_all(&asked()).expect("sent");
            is_asked = true;
        }
        let mut piece = [0; 4096];
        match stream.read(&mut piece) {
            Ok(0) => break "the end".to_owned(),
            Ok(length) => told.extend_from_slice(&piece[..length]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => (),
            Err(error) => break error.to_string(),
        }
    };
    let text = String::from_utf8_lossy(&told).into_owned();
    let line = |mark: &str| {
        let found = text.lines().find(|line| line.to_lowercase().starts_with(mark));
        found.unwrap_or_default().to_lowercase()
    };
    [line("http/1.1"), line("sec-websocket-protocol"), message]
}

/// A watch as a text frame, masked with zeros.
fn asked() -> Vec<u8> {
    let message = br#"{"create_request":{"key":"YTE="}}"#;
    let length = u8::try_from(message.len()).expect("it is short");
    [&[0x81, 0x80 | length, 0, 0, 0, 0][..], message].concat()
}

/// The words that count in the first message, once it has come.
fn message_in(text: &str) -> Option<String> {
    let (_, after) = text.split_once("\r\n\r\n")?;
    ["invalid auth token", "permission denied", "user name is empty", "\"created\":true"]
        .into_iter()
        .find(|words| after.contains(words))
        .map(str::to_owned)
}

#[test]
fn tokens_in_the_protocols_of_a_websocket_are_taken_as_by_etcd() {
    let conversation = |server: &Server| {
        enable(server, &[("root", "r")]);
        let token = runtime().block_on(login(server, "root", "r")).expect("it is right");
        let protocols = |value: &str| format!("Sec-WebSocket-Protocol: {value}\r\n");
        let headers = [
            String::new(),
            protocols(&format!("bearer, {token}")),
            protocols(&format!("Bearer, {token}")),
            protocols(&format!("bearer,{token}")),
            protocols("bearer, nonsense"),
            protocols("Bearer, nonsense"),
            protocols("other"),
            format!("Authorization: {token}\r\n"),
            format!("Authorization: Bearer {token}\r\n"),
        ];
        headers.map(|headers| watched(server, &headers).map(|it| it.replace(&token, "TOKEN")))
    };
    let [own, other] = [process::basalt(), process::etcd()].map(|binary| {
        let server = Setup::new(binary).flag("bcrypt-cost", "4").start();
        conversation(&server)
    });
    assert_eq!(own, other, "Basalt on the left, etcd on the right");
    assert!(own[2][2].contains("created"), "{own:#?}");
}
