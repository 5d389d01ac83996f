//! `basaltctl` beside the real etcdctl: the same shell lines through both, each against a server of
//! its own with the same history, so that every byte and every exit code can be compared.
//!
//! ```text
//! transcripts/<file>.txt ─┬─► etcdctl ─────────────► server ─┐
//!    one line, one command│                                  ├─► evened ─► equal?
//!                         └─► etcdctl -> basaltctl ► server ─┘
//! ```
//!
//! A line finds the program as `etcdctl` in its `PATH`, the server in `ETCDCTL_ENDPOINTS` and
//! `PLAIN`, and an empty directory to work in. `CTL_SERVER=etcd` puts a real etcd behind both.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use crate::process::{self, Scratch, Server, Setup, reference, run};

const LINE_TIME_MAX: Duration = Duration::from_secs(30);

#[test]
fn basaltctl_helps_and_complains_like_etcdctl() {
    compare("help");
}

#[test]
fn basaltctl_gets_and_puts_like_etcdctl() {
    compare("keys");
}

#[test]
fn basaltctl_makes_transactions_like_etcdctl() {
    compare("txn");
}

#[test]
fn basaltctl_leases_and_watches_like_etcdctl() {
    compare("leases");
}

#[test]
fn basaltctl_maintains_like_etcdctl() {
    compare("cluster");
}

#[test]
fn basaltctl_authenticates_like_etcdctl() {
    compare("auth");
}

fn compare(file: &str) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/transcripts");
    let text = fs::read_to_string(root.join(format!("{file}.txt"))).expect("is there");
    let lines: Vec<&str> =
        text.lines().filter(|it| !it.is_empty() && !it.starts_with('#')).collect();
    let (left, right) = std::thread::scope(|scope| {
        let left = scope.spawn(|| told(&reference("etcdctl"), &lines));
        let right = told(&basaltctl(), &lines);
        (left.join().expect("etcdctl's half runs to its end"), right)
    });
    let differences: Vec<String> = (lines.iter().zip(&left).zip(&right))
        .filter(|((_, left), right)| left != right)
        .map(|((line, left), right)| format!("{line}\n--- etcdctl\n{left}\n--- basaltctl\n{right}"))
        .collect();
    let count = differences.len();
    assert!(count == 0, "{count} of {} differ:\n{}", lines.len(), differences.join("\n\n"));
}

/// The program as it is now, built if it is not.
fn basaltctl() -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let path = BUILT.get_or_init(|| {
        let beside = Path::new(env!("CARGO_BIN_EXE_basalt")).with_file_name("basaltctl");
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "-q", "-p", "basaltctl"]).current_dir(env!("CARGO_MANIFEST_DIR"));
        if beside.parent().is_some_and(|it| it.ends_with("release")) {
            cargo.arg("--release");
        }
        let built = run(cargo, Duration::from_secs(600));
        assert_eq!(built.code, Some(0), "{}", built.stderr);
        beside
    });
    path.clone()
}

/// What each line said, with everything hidden that belongs to one process alone.
fn told(program: &Path, lines: &[&str]) -> Vec<String> {
    let server = match std::env::var("CTL_SERVER").as_deref() {
        Ok("etcd") => Setup::new(process::etcd()).start(),
        _ => Setup::new(process::basalt()).start(),
    };
    let place = Scratch::new();
    for name in ["bin", "work"] {
        fs::create_dir(place.path().join(name)).expect("a new directory");
    }
    symlink(program, place.path().join("bin/etcdctl")).expect("a new link");
    let mut leases = Vec::new();
    lines.iter().map(|line| evened(&say(line, &server, &place), &server, &mut leases)).collect()
}

fn say(line: &str, server: &Server, place: &Scratch) -> String {
    let path = std::env::var("PATH").unwrap_or_default();
    let (out, err) = (place.path().join("out"), place.path().join("err"));
    let mut shell = Command::new("sh");
    shell
        .args(["-c", "eval \"$LINE\" >\"$OUT\" 2>\"$ERR\" </dev/null"])
        .current_dir(place.path().join("work"))
        .env("PATH", format!("{}:{path}", place.path().join("bin").display()))
        .env("ETCDCTL_ENDPOINTS", format!("127.0.0.1:{}", server.port))
        .env("PLAIN", format!("127.0.0.1:{}", server.port))
        .env("LC_ALL", "C")
        .env("OUT", &out)
        .env("ERR", &err)
        .env("LINE", line);
    let code = run(shell, LINE_TIME_MAX).code;
    let read =
        |path: &Path| String::from_utf8_lossy(&fs::read(path).expect("written")).into_owned();
    format!("{}\nstderr:\n{}\ncode: {code:?}", read(&out), read(&err))
}

/// Marks behind which something stands that differs between two runs, and what ends it.
const HIDDEN: &[(&str, &[char])] = &[
    ("\"ts\":\"", &['"']),
    ("etcd-endpoints://0x", &['/']),
    ("LocalAddr: '", &['\'']),
    ("took = ", &['\n']),
    ("took ", &[' ', '\n']),
    ("\"took\":\"", &['"']),
    ("\"Took\" : ", &['\n']),
    ("\"raftIndex\":", &[',', '}']),
    ("\"raftAppliedIndex\":", &[',', '}']),
    ("\"dbSize\":", &[',', '}']),
    ("\"dbSizeInUse\":", &[',', '}']),
    ("\"RaftIndex\" : ", &['\n']),
    ("\"RaftAppliedIndex\" : ", &['\n']),
    ("\"DBSize\" : ", &['\n']),
    ("\"DBSizeInUse\" : ", &['\n']),
    ("\"size\":\"", &['"']),
];

fn evened(text: &str, server: &Server, leases: &mut Vec<String>) -> String {
    let mut text = text.replace(&format!(":{}", server.port), ":PORT");
    for (mark, ends) in HIDDEN {
        text = hidden(&text, mark, ends);
    }
    // Go's stack is nobody else's.
    let stack = ",\"stacktrace\":\"";
    text = hidden(&text, stack, &['"']).replace(&format!("{stack}…\""), "");
    for (at, _) in text.match_indices(" granted with TTL(") {
        let id = text[..at].rsplit(' ').next().unwrap_or_default().to_owned();
        if !leases.contains(&id) {
            leases.push(id);
        }
    }
    for (number, id) in leases.iter().enumerate() {
        let decimal = i64::from_str_radix(id, 16).expect("a lease's id").to_string();
        text = text.replace(id.as_str(), &format!("LEASE{number}"));
        text = text.replace(&decimal, &format!("LEASE{number}"));
    }
    text
}

/// The text with `…` for what stands between each `mark` and the first of `ends` after it.
fn hidden(text: &str, mark: &str, ends: &[char]) -> String {
    let mut parts = text.split(mark);
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let end = part.find(ends).unwrap_or(part.len());
        out.push_str(mark);
        out.push('…');
        out.push_str(&part[end..]);
    }
    out
}
