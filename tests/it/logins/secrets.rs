//! Three members over mutual TLS that log everything they can: after a run of everything that has to do with users, no password,
//! token or private key is in a data directory, a log, an audit log, a page or a snapshot.

use std::collections::HashMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use basalt_proto::etcdserverpb::{
    AuthUserChangePasswordRequest, AuthUserChangePasswordResponse, AuthenticateRequest,
    AuthenticateResponse,
};
use bytes::Bytes;
use rustix::process::Signal;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;

use super::PATIENCE;
use super::audit::contents;
use crate::cluster::members::Members;
use crate::compare::runtime;
use crate::gateway::{ask_over, framed};
use crate::process::{self, Scratch, Server, Setup, run};
use crate::secured::{ALICE, NAMELESS, PASSWORD, ROOT, STRANGER, Secured};
use crate::wire::{self, Wire};

const CHANGED: &str = "pw-changed-7731";
const OVER_JSON: &str = "pw-over-json-5620";
const WRONG: &str = "pw-wrong-1184";
const UNUSED: &str = "pw-unused-9042";
const OF_NOBODY: &str = "pw-of-nobody-3377";
/// Values are in stores, and in no log.
const VALUE: &str = "value-6613-of-alice";

/// Bytes of a secret that are looked up first.
const START_BYTES: usize = 6;
const BLOCK_BYTES: usize = 4096;
static ZEROS: [u8; BLOCK_BYTES] = [0; BLOCK_BYTES];

/// Tokens that members make.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Tokens {
    Simple,
    Jwt,
}

/// Secrets, by a name each.
struct Secrets(Vec<(String, Vec<u8>)>);

impl Secrets {
    fn add(&mut self, name: &str, secret: impl AsRef<[u8]>) {
        self.0.push((name.to_owned(), secret.as_ref().to_vec()));
    }

    /// The part of a token that is not told: letters, or the signature.
    fn add_token(&mut self, name: &str, token: &str) {
        let secret = match token.matches('.').count() {
            2 => token.rsplit_once('.').expect("it has parts").1,
            _ => &token[..16],
        };
        self.add(name, secret);
    }

    /// A key as it is in its file, by lines, and in DER.
    fn add_key(&mut self, file: &str) {
        let text = fs::read_to_string(file).expect("it is there");
        let lines = text.lines().filter(|line| line.len() > 40 && !line.starts_with('-'));
        lines.for_each(|line| self.add(file, line));
        let key = PrivateKeyDer::from_pem_slice(text.as_bytes()).expect("a key");
        self.add(file, key.secret_der());
    }

    fn are_not_in(&self, found: &[(PathBuf, Vec<u8>)]) {
        let mut by_start: HashMap<&[u8], Vec<&(String, Vec<u8>)>> = HashMap::new();
        for secret in &self.0 {
            by_start.entry(&secret.1[..START_BYTES]).or_default().push(secret);
        }
        for (path, bytes) in found {
            for part in written_parts(bytes) {
                for (at, start) in part.windows(START_BYTES).enumerate() {
                    for (name, secret) in by_start.get(start).into_iter().flatten() {
                        let around = &part[at.saturating_sub(400)..part.len().min(at + 100)];
                        let around = String::from_utf8_lossy(around);
                        let is_here = part[at..].starts_with(secret);
                        assert!(!is_here, "{name} is in {}: {around}", path.display());
                    }
                }
            }
        }
    }
}

/// The parts of a file that are not filled with zeros, as most of a log is.
fn written_parts(bytes: &[u8]) -> Vec<&[u8]> {
    let is_empty = |at: usize| {
        let block = &bytes[at..bytes.len().min(at + BLOCK_BYTES)];
        *block == ZEROS[..block.len()]
    };
    let (mut parts, mut began) = (Vec::new(), None);
    for at in (0..bytes.len()).step_by(BLOCK_BYTES) {
        match (is_empty(at), began) {
            (true, Some(from)) => {
                parts.push(&bytes[from..at]);
                began = None;
            }
            (false, None) => began = Some(at),
            (true, None) | (false, Some(_)) => (),
        }
    }
    parts.extend(began.map(|from| &bytes[from..]));
    parts
}

async fn login(wire: &Wire, name: &str, password: &str) -> Result<String, tonic::Status> {
    let (name, password) = (name.to_owned(), password.to_owned());
    let request = AuthenticateRequest { name, password };
    let answer: AuthenticateResponse = wire.ask(wire::AUTHENTICATE, &request).await?;
    Ok(answer.token)
}

/// A watch over a websocket with a token in its protocols; the first message.
fn watched(secured: &Secured, server: &Server, token: &str) -> String {
    let mut stream = secured.holder(NAMELESS).connect(server);
    let head = format!(
        "GET /v3/watch HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\
         Sec-WebSocket-Protocol: bearer, {token}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).expect("sent");
    let message = br#"{"create_request":{"key":"YTE="}}"#;
    let length = u8::try_from(message.len()).expect("it is short");
    stream.write_all(&[0x81, 0x80 | length, 0, 0, 0, 0]).expect("sent");
    stream.write_all(message).expect("sent");
    let until = std::time::Instant::now() + Duration::from_secs(20);
    let mut told = String::new();
    while !told.contains("created") && std::time::Instant::now() < until {
        let mut piece = [0; 4096];
        match stream.read(&mut piece) {
            Ok(0) => break,
            Ok(length) => told.push_str(&String::from_utf8_lossy(&piece[..length])),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => (),
            Err(_) => break,
        }
    }
    told
}

/// All that has to do with users, through all members.
async fn everything(secured: &Secured, members: &Members, secrets: &mut Secrets) {
    let nameless = |at: usize| secured.wire(&members.0[at].endpoint(), NAMELESS);
    let first = login(&nameless(0), ALICE, PASSWORD).await.expect("it is right");
    let root = login(&nameless(1), ROOT, PASSWORD).await.expect("it is right");
    secrets.add_token("alice's first token", &first);
    for at in 0..3 {
        let _ = login(&nameless(at), ALICE, WRONG).await.expect_err("it is wrong");
        let _ = login(&nameless(at), "nobody", OF_NOBODY).await.expect_err("there is nobody");
        let _ = nameless(at).with_token(&first).put("a1", VALUE).await;
        let forged = format!("{first}9");
        nameless(at).with_token(&forged).get("a1").await.expect_err("it is forged");
        // No message.
        let garbage = Bytes::from_static(b"\xff\xff\xff");
        let _ = nameless(at).with_token(&first).call(wire::PUT, garbage.clone()).await;
        let _ = nameless(at).call(wire::AUTHENTICATE, garbage).await;
    }
    let (name, password) = (ALICE.to_owned(), CHANGED.to_owned());
    let change = AuthUserChangePasswordRequest { name, password, ..Default::default() };
    let path = "/etcdserverpb.Auth/UserChangePassword";
    let changed = members.wire(2).ask::<_, AuthUserChangePasswordResponse>(path, &change).await;
    changed.expect("root may");
    let second = login(&nameless(2), ALICE, CHANGED).await.expect("it is right");
    let root = login(&nameless(0), ROOT, PASSWORD).await.unwrap_or(root);
    secrets.add_token("alice's second token", &second);
    secrets.add_token("root's token", &root);
    for (at, (path, body, token)) in [
        ("user/add", format!(r#"{{"name":"json","password":"{OVER_JSON}"}}"#), &*root),
        (
            "user/add",
            format!(r#"{{"name":"none","password":"{UNUSED}","options":{{"no_password":true}}}}"#),
            &root,
        ),
        ("user/changepw", format!(r#"{{"name":"json","password":"{OVER_JSON}"}}"#), &root),
        ("authenticate", format!(r#"{{"name":"json","password":"{OVER_JSON}"}}"#), ""),
        ("authenticate", format!(r#"{{"name":"json","password":"{WRONG}"}}"#), ""),
        ("authenticate", format!(r#"{{"name":"json","password":"{WRONG}","#), ""),
        ("authenticate", format!(r#"{{"name":"json","password":{{"{WRONG}":5}}}}"#), ""),
        ("user/add", format!(r#"{{"name":"refused","password":"{UNUSED}"}}"#), &second),
    ]
    .into_iter()
    .enumerate()
    {
        let header = format!("Accept: */*\r\nAuthorization: Bearer {token}\r\n");
        let header = if token.is_empty() { "Accept: */*\r\n" } else { &header };
        let bytes = framed("POST", &format!("/v3/auth/{path}"), header, body.as_bytes());
        let server = &members.0[at % 3];
        let answer = ask_over(secured.holder(NAMELESS).connect(server), &bytes, None);
        assert!(answer.status.starts_with("HTTP/1.1 "), "{path} {body}: {answer:?}");
        if let Ok(answer) = serde_json::from_str::<serde_json::Value>(&answer.body)
            && let Some(token) = answer["token"].as_str()
        {
            secrets.add_token("json's token", token);
        }
    }
    assert!(watched(secured, &members.0[0], &root).contains("created"));
    watched(secured, &members.0[1], &format!("{root}x"));
    let user = format!("{STRANGER}:{PASSWORD}");
    let refused = secured.ctl(&members.0[1].endpoint(), NAMELESS, &["--user", &user, "get", "a"]);
    assert!(refused.stderr.contains("permission denied"), "{}", refused.stderr);
}

/// Everything that members and tools have written, and shown.
fn written(secured: &Secured, members: &mut Members, place: &Scratch) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    let root = secured.client_flags(ROOT);
    for server in &members.0 {
        for page in ["/metrics", "/debug/vars", "/debug/requests", "/debug/pprof/cmdline"] {
            let mut curl = Command::new("curl");
            curl.args(["-s", "--max-time", "20"]).args(&root);
            let told = run(
                {
                    curl.arg(format!("{}{page}", server.endpoint()));
                    curl
                },
                PATIENCE,
            );
            found.push((PathBuf::from(page), told.stdout.into_bytes()));
        }
    }
    let file = place.path().join("snapshot.db");
    let save = ["snapshot", "save", &*file.display().to_string()];
    let saved = secured.ctl(&members.0[0].endpoint(), ROOT, &save);
    assert_eq!(saved.code, Some(0), "{}", saved.stderr);
    for server in &mut members.0 {
        server.signal(Signal::TERM);
    }
    for server in &mut members.0 {
        server.wait_exit(PATIENCE);
        let logs = server.logs.all();
        assert!(logs.contains("\"level\":\"debug\""), "debug messages are logged");
        found.push((PathBuf::from("log"), logs.into_bytes()));
        contents(server.data_dir().parent().expect("a directory"), &mut found);
    }
    contents(place.path(), &mut found);
    found
}

fn leaves_no_trace(tokens: Tokens) {
    let (secured, place, keys) = (Arc::new(Secured::new()), Scratch::new(), Scratch::new());
    let mut secrets = Secrets(Vec::new());
    for password in [PASSWORD, CHANGED, OVER_JSON, WRONG, UNUSED, OF_NOBODY] {
        secrets.add(password, password);
    }
    for name in ["server", "peer", ROOT, ALICE, NAMELESS] {
        secrets.add_key(&secured.pair(name).key);
    }
    let mut setup = Setup::new(process::basalt())
        .secured(&secured)
        .flag("log-level", "debug")
        .flag("warning-apply-duration", "0s")
        .flag("warning-unary-request-duration", "0s")
        .flag("snapshot-count", "10")
        .flag("heartbeat-interval", "100")
        .flag("election-timeout", "1000")
        .flag("audit-log-path", "audit.log")
        .flag("audit-log-rules", "log");
    if tokens == Tokens::Jwt {
        let key = keys.path().join("jwt.key").display().to_string();
        let mut openssl = Command::new("openssl");
        openssl.args(["genrsa", "-out", &key, "2048"]);
        assert_eq!(run(openssl, PATIENCE).code, Some(0));
        secrets.add_key(&key);
        let flag = format!("jwt,sign-method=RS256,priv-key={key},ttl=10m");
        setup = setup.flag("auth-token", &flag).flag("auth-jwt-check-revision", "false");
    }
    runtime().block_on(async {
        let mut members = Members::found(&setup, 3);
        everything(&secured, &members, &mut secrets).await;
        // Logs are replayed, and written again.
        members.0[1].kill();
        members.restart(1);
        let found = written(&secured, &mut members, &place);
        let has = |text: &str| {
            let mut parts = found.iter().flat_map(|(_, bytes)| written_parts(bytes));
            parts.any(|part| part.windows(text.len()).any(|it| it == text.as_bytes()))
        };
        let is_there = |name: &str| found.iter().filter(|(path, _)| path.ends_with(name)).count();
        assert!(has("$2a$") && is_there("audit.log") == 3 && is_there("snapshot.db") == 1);
        assert!(has(VALUE), "values are in stores");
        secrets.are_not_in(&found);
        let is_log = |path: &PathBuf| path.ends_with("log") || path.ends_with("audit.log");
        let logs: Vec<_> = found.into_iter().filter(|(path, _)| is_log(path)).collect();
        let others = [("a value", VALUE), ("the hash of a password", "$2a$04$")];
        let others = others.map(|(name, text)| (name.to_owned(), text.into()));
        Secrets(others.into()).are_not_in(&logs);
    });
}

#[test]
fn simple_tokens_passwords_and_keys_leave_no_trace_on_three_members() {
    leaves_no_trace(Tokens::Simple);
}

#[test]
fn signed_tokens_passwords_and_keys_leave_no_trace_on_three_members() {
    leaves_no_trace(Tokens::Jwt);
}
