//! The audit log, limits, and what must never be written down.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use basalt_proto::etcdserverpb::watch_request::RequestUnion;
use basalt_proto::etcdserverpb::{
    AuthStatusRequest, AuthStatusResponse, RangeRequest, WatchCreateRequest, WatchRequest,
};
use prost::Message as _;
use serde_json::Value;
use tokio::time::sleep;
use tonic::codegen::tokio_stream::StreamExt as _;

use super::{ctl, enable, login, outcome, told, used};
use crate::compare::runtime;
use crate::process::{self, Server, Setup, run};
use crate::wire::{self, Wire};

/// The answer of a server to a GET.
pub(super) fn page(server: &Server, path: &str) -> String {
    let mut command = Command::new("curl");
    command.args(["-s", &format!("{}{path}", server.endpoint())]);
    run(command, super::PATIENCE).stdout
}

fn lines(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
}

/// Lines of the audit log once there is one of which this holds.
fn lines_with(path: &Path, holds: impl Fn(&Value) -> bool) -> Vec<Value> {
    let until = Instant::now() + super::PATIENCE;
    loop {
        let lines = lines(path);
        if lines.iter().any(&holds) {
            return lines;
        }
        assert!(Instant::now() < until, "{lines:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn is(line: &Value, rpc: &str, code: &str) -> bool {
    let path = line["rpc"].as_str().unwrap_or_default();
    path.ends_with(&format!("/{rpc}")) && line["code"] == code
}

#[test]
fn the_audit_log_says_who_did_what() {
    let place = process::Scratch::new();
    let path = place.path().join("audit.log");
    runtime().block_on(async {
        let rules = "skip rpc=reads; skip user=alice prefix=/quiet/; skip rpc=status";
        let server = Setup::new(process::basalt())
            .flag("bcrypt-cost", "4")
            .flag("audit-log-path", &path.display().to_string())
            .flag("audit-log-rules", rules)
            .start();
        enable(&server, &[("root", "r")]);
        let root = ["--user", "root:r"];
        told(&server, &[&root[..], &["user", "add", "alice:secret-of-alice"]].concat());
        told(&server, &[&root[..], &["role", "add", "some"]].concat());
        let grant = ["role", "grant-permission", "some", "readwrite", "/quiet/", "/quiet0"];
        told(&server, &[&root[..], &grant].concat());
        told(&server, &[&root[..], &["user", "grant-role", "alice", "some"]].concat());
        let token = login(&server, "alice", "secret-of-alice").await.expect("it is right");
        let wire = Wire::new(&server.endpoint()).with_token(&token);
        wire.put("/quiet/a", "value-of-alice").await.expect("she may");
        let refused = wire.put("/loud/a", "value-of-alice").await;
        assert_eq!(outcome(&refused).0, 7);
        assert_eq!(outcome(&wire.get("/loud/a").await).0, 7);
        wire.get("/quiet/a").await.expect("she may");
        let key = "/loud/watched".into();
        let create = WatchCreateRequest { key, ..WatchCreateRequest::default() };
        let create = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
        let mut watch = wire.talk(wire::WATCH, create.encode_to_vec().into()).await.expect("open");
        watch.answers.next().await.expect("an answer").expect("a cancellation");
        let list = RangeRequest { key: "/loud/listed".into(), ..RangeRequest::default() };
        let listed = wire.stream(wire::RANGE_STREAM, list.encode_to_vec().into()).await;
        assert_eq!(outcome(&listed).0, 7);
        told(&server, &[&root[..], &["put", "/loud/b", "value-of-root"]].concat());
        let lines = lines_with(&path, |line| line["key"] == "/loud/b");
        let find = |rpc: &str, code: &str| {
            let found = lines.iter().find(|line| is(line, rpc, code));
            found.unwrap_or_else(|| panic!("no {rpc} {code}: {lines:#?}")).clone()
        };
        let denied = find("Put", "PermissionDenied");
        assert_eq!((&denied["user"], &denied["key"]), (&"alice".into(), &"/loud/a".into()));
        assert_eq!(denied["source"], "token");
        assert!(denied["remote"].as_str().is_some_and(|it| it.starts_with("127.0.0.1:")));
        assert_eq!(find("Watch", "PermissionDenied")["key"], "/loud/watched");
        assert_eq!(find("RangeStream", "PermissionDenied")["key"], "/loud/listed");
        assert_eq!(find("Range", "PermissionDenied")["user"], "alice", "refusals are logged");
        assert!(!lines.iter().any(|line| is(line, "Range", "OK")), "reads are not");
        assert!(!lines.iter().any(|line| line["key"] == "/quiet/a"), "nor what a rule passes over");
        let put = find("Put", "OK");
        assert_eq!((&put["user"], &put["key"]), (&"root".into(), &"/loud/b".into()));
        assert!(put["revision"].as_i64() > Some(1) && put["took-us"].is_u64(), "{put}");
        let granted = find("RoleGrantPermission", "OK");
        assert_eq!(granted["range-end"], "/quiet0");
        let granted = |line: &&Value| is(line, "UserGrantRole", "OK") && line["name"] == "alice";
        assert_eq!(lines.iter().find(granted).expect("it was granted")["role"], "some");
        let came = |line: &Value| is(line, "Authenticate", "OK") && line["name"] == "alice";
        assert!(lines.iter().any(came), "{lines:#?}");
        let all = fs::read_to_string(&path).expect("it is there");
        for secret in ["secret-of-alice", "value-of-alice", "value-of-root", &token, &token[..16]] {
            assert!(!all.contains(secret), "{secret}");
        }
    });
}

#[test]
fn a_small_audit_log_is_rotated_and_loses_no_line() {
    let place = process::Scratch::new();
    let path = place.path().join("audit.log");
    runtime().block_on(async {
        let server = Setup::new(process::basalt())
            .flag("audit-log-path", &path.display().to_string())
            .flag("audit-log-maxsize", "1")
            .flag("audit-log-mode", "wait")
            .start();
        let wire = Wire::new(&server.endpoint());
        let long = "k".repeat(30_000);
        for number in 0..80 {
            wire.put(&format!("{long}{number}"), "v").await.expect("it is put");
        }
        let last = format!("{long}79");
        lines_with(&path, |line| line["key"] == *last);
        let files = fs::read_dir(place.path()).expect("a directory");
        let files: Vec<PathBuf> = files.map(|file| file.expect("a file").path()).collect();
        assert!(files.len() >= 3, "{files:?}");
        let is_put = |line: &Value| is(line, "Put", "OK");
        let puts: usize =
            files.iter().map(|file| lines(file).iter().filter(|line| is_put(line)).count()).sum();
        assert_eq!(puts, 80);
    });
}

#[test]
fn users_and_addresses_are_limited() {
    runtime().block_on(async {
        let server = Setup::new(process::basalt())
            .flag("bcrypt-cost", "4")
            .flag("limit-user-requests", "20")
            .start();
        enable(&server, &[("root", "r"), ("alice", "a")]);
        let root = login(&server, "root", "r").await.expect("it is right");
        let alice = login(&server, "alice", "a").await.expect("it is right");
        let wire = Wire::new(&server.endpoint()).with_token(&root);
        let mut answers = Vec::new();
        for _ in 0..300 {
            answers.push(outcome(&wire.get("k").await));
        }
        let refused = (8, "etcdserver: too many requests".to_owned());
        assert!(answers.contains(&refused) && answers[0].0 == 0, "{answers:?}");
        // Others go on, and so does who looks after the cluster.
        assert_eq!(used(&server, &alice).await, super::fine());
        let status = wire
            .ask::<_, AuthStatusResponse>("/etcdserverpb.Auth/AuthStatus", &AuthStatusRequest {});
        assert!(status.await.is_ok());
        sleep(Duration::from_millis(1100)).await;
        assert_eq!(outcome(&wire.get("k").await).0, 0);
    });
}

/// All files below a directory, read as they are.
pub(super) fn contents(dir: &Path, into: &mut Vec<(PathBuf, Vec<u8>)>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        match path.is_dir() {
            true => contents(&path, into),
            false => into.push((path.clone(), fs::read(&path).unwrap_or_default())),
        }
    }
}

#[test]
fn no_password_and_no_token_is_on_the_disk_or_in_a_log() {
    let place = process::Scratch::new();
    let audit = place.path().join("audit.log");
    runtime().block_on(async {
        let mut server = Setup::new(process::basalt())
            .flag("bcrypt-cost", "4")
            .flag("log-level", "debug")
            .flag("warning-apply-duration", "0s")
            .flag("warning-unary-request-duration", "0s")
            .flag("audit-log-path", &audit.display().to_string())
            .flag("audit-log-rules", "log")
            .start();
        let (first, second, unused) = ("pw-first-9271", "pw-second-4410", "pw-unused-3355");
        enable(&server, &[("root", first)]);
        let user = format!("root:{first}");
        let as_root = |more: &[&str]| ctl(&server, &[&["--user", &user][..], more].concat());
        as_root(&["user", "add", &format!("alice:{second}")]);
        as_root(&["user", "add", "bob", "--no-password"]);
        // A password with `no_password`, which etcd writes into its log.
        let body =
            format!(r#"{{"name":"carol","password":"{unused}","options":{{"no_password":true}}}}"#);
        let token = login(&server, "root", first).await.expect("it is right");
        let mut post = Command::new("curl");
        post.args(["-s", "-H", &format!("Authorization: {token}"), "-d", &body]);
        post.arg(format!("{}/v3/auth/user/add", server.endpoint()));
        assert!(run(post, super::PATIENCE).stdout.contains("header"));
        let alice = login(&server, "alice", second).await.expect("it is right");
        used(&server, &token).await;
        used(&server, &alice).await;
        used(&server, &format!("{}9", &alice)).await;
        let _ = login(&server, "alice", unused).await;
        let vars = page(&server, "/debug/vars") + &page(&server, "/debug/requests");
        server.signal(rustix::process::Signal::TERM);
        server.wait_exit(super::PATIENCE);
        let mut found = vec![(PathBuf::from("log"), server.logs.all().into_bytes())];
        found.push((PathBuf::from("debug"), vars.into_bytes()));
        contents(&server.data_dir(), &mut found);
        contents(place.path(), &mut found);
        assert!(found.iter().any(|(path, _)| path.ends_with("audit.log")));
        assert!(
            found.iter().any(|(_, bytes)| bytes.windows(4).any(|it| it == b"$2a$")),
            "hashes are"
        );
        for secret in [first, second, unused, &token[..16], &alice[..16]] {
            for (path, bytes) in &found {
                let has = bytes.windows(secret.len()).any(|part| part == secret.as_bytes());
                assert!(!has, "{secret} is in {}", path.display());
            }
        }
    });
}
