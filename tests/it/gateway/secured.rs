//! The same requests over mutual TLS with auth on: a token tells the user, and the certificate has no name, since etcd's gateway
//! refuses those that have one.

use std::sync::Arc;

use super::{Answer, Request, ask_over, compare, requests};
use crate::process::{self, Server, Setup};
use crate::secured::{ALICE, NAMELESS, ROOT, STRANGER, Secured};

/// The request with more headers, unless it has them.
fn with_headers(request: &Request, token: &str) -> Vec<u8> {
    let text = &request.bytes;
    let end = text.windows(2).position(|it| it == b"\r\n").expect("a line") + 2;
    let head = String::from_utf8_lossy(text).to_lowercase();
    let mut more = String::new();
    // etcd takes a request without it for one of the server's own name.
    if !head.contains("\r\naccept: ") {
        more.push_str("Accept: */*\r\n");
    }
    if !head.contains("\r\nauthorization: ") {
        more.push_str(&format!("Authorization: {token}\r\n"));
    }
    [&text[..end], more.as_bytes(), &text[end..]].concat()
}

/// All but the locks and campaigns that are given up: etcd then deletes the key of the one who waited without the token, and
/// is refused, as `README.md` says.
fn compared(is_long: bool) -> Vec<Request> {
    let is_wait = |line: &str| line.contains("/lock/lock") || line.contains("/election/campaign");
    let mut requests = requests();
    // Others that are given up take their time.
    requests.retain(|it| !it.gives_up || (is_long && !is_wait(&it.line)));
    requests
}

/// A refusal without what etcd adds to it over TLS alone, where it serves gRPC by another server.
fn without_content_type(mut answer: Answer) -> Answer {
    if !answer.status.contains(" 200 ") || answer.body.is_empty() {
        answer.headers.remove("grpc-metadata-content-type");
    }
    answer
}

fn started(binary: std::path::PathBuf, secured: &Arc<Secured>) -> Server {
    let server = Setup::new(binary).secured(secured).start();
    secured.enable_auth(&server);
    server
}

/// `SECURED=all` asks in the name of a user who may use all keys, and of one who may use none, too.
#[test]
fn both_answer_users_over_tls_alike() {
    let is_long = std::env::var("SECURED").is_ok_and(|value| value == "all");
    let users = [ROOT, ALICE, STRANGER];
    for user in &users[..if is_long { 3 } else { 1 }] {
        let secured = Arc::new(Secured::new());
        let servers = [process::etcd(), process::basalt()].map(|it| started(it, &secured));
        let tokens = servers.each_ref().map(|server| secured.token(server, user));
        let holder = secured.holder(NAMELESS);
        let asked = |request: &Request| {
            let ask = |at: usize| {
                let bytes = with_headers(request, &tokens[at]);
                let answer = ask_over(holder.connect(&servers[at]), &bytes, request.lines);
                without_content_type(answer)
            };
            [ask(0), ask(1)]
        };
        compare(&compared(is_long), asked);
    }
}
