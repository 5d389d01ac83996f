//! `basaltctl` beside the real etcdctl, `basaltutl` beside the real etcdutl: the same shell lines are run with
//! both, each against a server of its own with the same history, so that every byte and every exit
//! code can be compared.
//!
//! ```text
//! transcripts/<file>.txt ─┬─► etcdctl ─────────────► server ─┐
//!    one line, one command│                                  ├─► evened ─► equal?
//!                         └─► etcdctl -> basaltctl ► server ─┘
//! ```
//!
//! Each comparison is made twice: with Basalt as both servers, and with a real etcd as both.
//!
//! A line finds the program as `etcdctl` or `etcdutl` in its `PATH`, the server in `ETCDCTL_ENDPOINTS`
//! and `PLAIN`, and a directory to work in, empty but for `snap.db` if it is etcdutl's turn. `secured` runs them over mutual TLS.

mod secured;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::process::{self, Scratch, Server, Setup, reference, run};
use crate::tls::certificates::{Authority, Wanted};

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

#[test]
fn basaltutl_works_on_files_like_etcdutl() {
    let server = server();
    let place = Scratch::new();
    let file = place.path().join("snap.db");
    for line in ["put a 1", "put a 2", "put b 3", "del b", "compaction 3", "put c 4"] {
        asked(&server, line);
    }
    asked(&server, &format!("snapshot save {}", file.display()));
    let ours = process::basaltutl();
    let theirs = reference("etcdutl");
    compare_programs(
        "etcdutl",
        [&theirs, &ours],
        &Ground::plain(&process::basalt()),
        "files",
        &[("snap.db", &file)],
    );
}

#[test]
fn gateway_and_grpc_proxy_help_and_complain_like_etcds() {
    let place = Scratch::new();
    let authority = Authority::new(place.path(), "ca");
    let pair = authority.issue("cn", &Wanted { common_name: "root", ..Wanted::default() });
    let (theirs, ours) = (process::etcd(), process::basalt());
    let given = [("cn.crt", Path::new(&pair.certificate)), ("cn.key", Path::new(&pair.key))];
    compare_programs("etcd", [&theirs, &ours], &Ground::plain(&ours), "proxies", &given);
}

#[test]
fn basaltutl_reports_that_basalts_files_need_no_defrag_or_migrate() {
    let mut server = Setup::new(process::basalt()).start();
    asked(&server, "put a 1");
    server.kill();
    let data_dir = server.data_dir().display().to_string();
    let told = |line: &str| {
        let mut command = Command::new(process::basaltutl());
        command.args(line.split(' ')).arg("--data-dir").arg(&data_dir);
        let told = run(command, LINE_TIME_MAX);
        assert!(told.stdout.is_empty(), "{line}: {}", told.stdout);
        (told.stderr, told.code)
    };
    let (words, code) = told("defrag");
    assert!(code == Some(0) && words.starts_with("Nothing to defragment"), "{words}");
    let (words, code) = told("migrate --target-version 3.7");
    assert!(code == Some(0) && words.starts_with("Nothing to migrate"), "{words}");
    let (words, code) = told("migrate --target-version 3.6 --force");
    assert!(code == Some(1) && words.contains("save a snapshot"), "{words}");
    // Nothing was modified.
    server.start();
    asked(&server, "get a");
}

fn asked(server: &Server, line: &str) {
    let mut command = Command::new(process::basaltctl());
    command.args(line.split(' ')).arg("--endpoints").arg(server.endpoint());
    let told = run(command, LINE_TIME_MAX);
    assert_eq!(told.code, Some(0), "{line}: {}", told.stderr);
}

fn compare(file: &str) {
    for behind in [process::basalt(), process::etcd()] {
        compare_over(&Ground::plain(&behind), file);
    }
}

/// etcdctl and `basaltctl`.
fn compare_over(ground: &Ground<'_>, file: &str) {
    let programs = [&*reference("etcdctl"), &*process::basaltctl()];
    compare_programs("etcdctl", programs, ground, file, &[]);
}

/// The kind of server behind the programs, and how lines reach it.
struct Ground<'a> {
    binary: &'a Path,
    client: Option<secured::Client<'a>>,
}

impl<'a> Ground<'a> {
    fn plain(binary: &'a Path) -> Self {
        Self { binary, client: None }
    }
}

/// A file for the commands: its name, and its source.
type Given<'a> = (&'a str, &'a Path);

fn compare_programs(
    name: &str,
    [theirs, ours]: [&Path; 2],
    ground: &Ground<'_>,
    file: &str,
    given: &[Given],
) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/transcripts");
    let text = fs::read_to_string(root.join(format!("{file}.txt"))).expect("is there");
    let lines: Vec<&str> =
        text.lines().filter(|it| !it.is_empty() && !it.starts_with('#')).collect();
    let (left, right) = std::thread::scope(|scope| {
        let left = scope.spawn(|| told(name, theirs, ground, &lines, given));
        let right = told(name, ours, ground, &lines, given);
        (left.join().expect("their half runs to its end"), right)
    });
    let differences: Vec<String> = (lines.iter().zip(&left).zip(&right))
        .filter(|((_, left), right)| left != right)
        .map(|((line, left), right)| format!("{line}\n--- theirs\n{left}\n--- ours\n{right}"))
        .collect();
    let count = differences.len();
    let over = ground.binary.display();
    let of = lines.len();
    assert!(count == 0, "{count} of {of} differ over {over}:\n{}", differences.join("\n\n"));
}

/// The output of each line, with everything hidden that belongs to one process alone.
fn told(
    name: &str,
    program: &Path,
    ground: &Ground<'_>,
    lines: &[&str],
    given: &[Given],
) -> Vec<String> {
    let server = match &ground.client {
        Some(client) => client.started(ground.binary),
        None => started(ground.binary),
    };
    let place = Scratch::new();
    for name in ["bin", "work"] {
        fs::create_dir(place.path().join(name)).expect("a new directory");
    }
    symlink(program, place.path().join("bin").join(name)).expect("a new link");
    for (name, from) in given {
        fs::copy(from, place.path().join("work").join(name)).expect("a new file");
    }
    let mut leases = Vec::new();
    let said = |line: &&str| say(line, &server, ground.client.as_ref(), &place);
    lines.iter().map(|line| evened(&said(line), &server, &mut leases)).collect()
}

/// The server of both programs in tests that do not depend on its kind: Basalt, or etcd if `CTL_SERVER` asks for it.
pub(crate) fn server() -> Server {
    match std::env::var("CTL_SERVER").as_deref() {
        Ok("etcd") => started(&process::etcd()),
        _ => started(&process::basalt()),
    }
}

/// A new server. A real etcd finds the version of its files some seconds after its start; output
/// before that would differ by chance.
fn started(binary: &Path) -> Server {
    let server = Setup::new(binary.to_owned()).start();
    versioned(server, binary)
}

fn versioned(server: Server, binary: &Path) -> Server {
    if !process::is_etcd(binary) {
        return server;
    }
    let until = Instant::now() + LINE_TIME_MAX;
    loop {
        let told = server.ctl(&["endpoint", "status", "-w", "json"], LINE_TIME_MAX).stdout;
        if told.contains("\"storageVersion\":\"3.7.0\"") {
            return server;
        }
        assert!(Instant::now() < until, "etcd does not find its version: {told}");
    }
}

fn say(
    line: &str,
    server: &Server,
    client: Option<&secured::Client<'_>>,
    place: &Scratch,
) -> String {
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
    if let Some(client) = client {
        client.prepare(&mut shell, line);
    }
    let code = run(shell, LINE_TIME_MAX).code;
    let read =
        |path: &Path| String::from_utf8_lossy(&fs::read(path).expect("written")).into_owned();
    format!("{}\nstderr:\n{}\ncode: {code:?}", read(&out), read(&err))
}

/// Marks before a text that differs between two runs, and the characters that end it.
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
    // The remaining time of a lease.
    ("\"ttl\":", &[',', '}']),
    ("\"TTL\" : ", &['\n']),
    ("remaining(", &[')']),
];

pub(crate) fn evened(text: &str, server: &Server, leases: &mut Vec<String>) -> String {
    let mut text = text.replace(&format!(":{}", server.port), ":PORT");
    for (mark, ends) in HIDDEN {
        text = hidden(&text, mark, ends);
    }
    // The stack of a Go program.
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

/// The text with `…` in place of the text between each `mark` and the first of `ends` after it.
pub(crate) fn hidden(text: &str, mark: &str, ends: &[char]) -> String {
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
