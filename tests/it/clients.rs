//! Real clients against the real server: the official Go client, Python's etcd3 and etcd3gw, and etcdctl, whose
//! output must be the same with Basalt as with etcd.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::process::{self, Logs, Server, Setup, reference, run, spawn};

const PATIENCE: Duration = Duration::from_secs(240);

#[test]
fn the_go_client_is_served() {
    let server = Setup::new(process::basalt()).start();
    let mut client = Command::new(reference("go-client"));
    client.arg("-endpoint").arg(server.endpoint());
    tells_all(client, &server);
}

#[test]
fn the_python_client_is_served() {
    python("client.py");
}

/// One stream carries the renewals of all leases of a client, which sends all due ones at once.
#[test]
fn a_go_client_keeps_twenty_thousand_leases_alive_at_once() {
    burst(&["-leases", "20000", "-ttl", "120", "-at-once", "-for", "5s"]);
}

#[test]
fn a_go_client_opens_ten_thousand_watches_on_one_stream() {
    burst(&["-watches", "10000"]);
}

fn burst(arguments: &[&str]) {
    let server = Setup::new(process::basalt()).start();
    let mut client = Command::new(reference("go-client"));
    client.args(arguments).arg("-endpoint").arg(server.endpoint());
    tells_all(client, &server);
}

/// etcd3gw uses JSON.
#[test]
fn the_python_client_of_the_gateway_is_served() {
    python("gateway.py");
}

fn python(script: &str) {
    let server = Setup::new(process::basalt()).start();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = root.join("target/python/bin/python");
    assert!(python.exists(), "{} is missing: run tools/setup", python.display());
    let script = root.join("tests/clients/python").join(script);
    let mut client = Command::new(python);
    client.arg(script).arg(server.port.to_string());
    tells_all(client, &server);
}

fn tells_all(client: Command, server: &Server) {
    let told = run(client, PATIENCE);
    assert_eq!(
        told.code,
        Some(0),
        "{}\n{}\nserver:\n{}",
        told.stdout,
        told.stderr,
        server.logs.tail()
    );
}

/// Commands in the order given to both; the parts of the output that contain times and sizes are
/// replaced by `…` in [`evened`].
const TRANSCRIPT: &[&[&str]] = &[
    &["put", "a", "1"],
    &["put", "a", "2", "--prev-kv"],
    &["put", "b/1", "x"],
    &["put", "b/2", "y"],
    &["get", "a"],
    &["get", "a", "-w", "json"],
    &["get", "a", "-w", "fields"],
    &["get", "b/", "--prefix"],
    &["get", "b/", "--prefix", "--keys-only"],
    &["get", "b/", "--prefix", "--count-only", "-w", "fields"],
    &["get", "", "--from-key", "--limit", "2", "--order", "descend"],
    &["get", "a", "--rev", "2"],
    &["get", "a", "--rev", "99"],
    &["get", "--prefix", "b", "--sort-by", "modify", "--order", "DESCEND"],
    &["get", "missing"],
    &["put", ""],
    &["get", ""],
    &["lease", "grant", "600", "-w", "json"],
    &["lease", "revoke", "1234"],
    &["lease", "timetolive", "1234"],
    &["lease", "timetolive", "1234", "--keys", "-w", "json"],
    &["lease", "keep-alive", "1234", "--once"],
    &["put", "leased", "x", "--lease", "1234"],
    &["del", "b/", "--prefix", "--prev-kv"],
    &["del", "b/", "--prefix"],
    &["put", "c", "3"],
    &["put", "c", "--ignore-value"],
    &["compaction", "4"],
    &["compaction", "4"],
    &["compaction", "400"],
    &["compaction", "5", "--physical"],
    &["get", "a", "--rev", "2"],
    &["endpoint", "health"],
    &["endpoint", "hashkv"],
    &["endpoint", "hashkv", "-w", "json"],
    &["member", "list"],
    &["member", "list", "-w", "table"],
    &["member", "list", "-w", "json"],
    &["alarm", "list"],
    &["version"],
    &["no-such-command"],
];

/// Transactions by their lines on stdin.
const TRANSACTIONS: &[&str] = &[
    "mod(\"a\") > \"0\"\n\nput t 1\nget t\n\nget a\n\n",
    "create(\"a\") = \"0\"\n\nput t 2\n\nget a\ndel t\n\n",
    "value(\"a\") = \"2\"\nversion(\"nobody\") = \"0\"\n\nput t 3\n\n\n",
    "ver(\"a\") != \"0\"\n\nput t 4\nput t 5\n\n\n",
];

#[test]
fn etcdctl_says_the_same_of_both() {
    let etcd = Setup::new(process::etcd()).start();
    let basalt = Setup::new(process::basalt()).start();
    let mut differences = Vec::new();
    for arguments in TRANSCRIPT {
        let (left, right) = (etcdctl(&etcd, arguments), etcdctl(&basalt, arguments));
        if left != right {
            differences
                .push(format!("etcdctl {arguments:?}\n--- etcd\n{left}\n--- basalt\n{right}"));
        }
    }
    for lines in TRANSACTIONS {
        let (left, right) = (transaction(&etcd, lines), transaction(&basalt, lines));
        if left != right {
            differences.push(format!("txn {lines:?}\n--- etcd\n{left}\n--- basalt\n{right}"));
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n\n"));
}

#[test]
fn etcdctl_watches_and_leases() {
    let told: Vec<_> = [process::etcd(), process::basalt()]
        .into_iter()
        .map(|binary| {
            let server = Setup::new(binary).start();
            etcdctl(&server, &["put", "w/a", "1"]);
            let watch = watching(&server, &["watch", "w/", "--prefix", "--rev", "1", "--prev-kv"]);
            etcdctl(&server, &["put", "w/a", "2"]);
            etcdctl(&server, &["del", "w/a"]);
            let granted = etcdctl_raw(&server, &["lease", "grant", "100"]);
            let lease = granted.split_whitespace().nth(1).expect("an id").to_owned();
            let with_lease = format!("--lease={lease}");
            etcdctl(&server, &["put", "w/leased", "x", &with_lease]);
            let keys = etcdctl(&server, &["lease", "timetolive", &lease, "--keys"]);
            let keys = keys.replace(&lease, "LEASE");
            let listed = etcdctl(&server, &["lease", "list"]).replace(&lease, "LEASE");
            let alive = etcdctl(&server, &["lease", "keep-alive", &lease, "--once"]);
            let alive = alive.replace(&lease, "LEASE");
            let revoked = etcdctl(&server, &["lease", "revoke", &lease]).replace(&lease, "LEASE");
            let gone = etcdctl(&server, &["get", "w/leased"]);
            etcdctl(&server, &["put", "w/end", "end"]);
            let watched = watch.until("w/end");
            (keys, listed, alive, revoked, gone, watched)
        })
        .collect();
    assert_eq!(told[0], told[1], "etcd on the left, Basalt on the right");
}

fn etcdctl(server: &Server, arguments: &[&str]) -> String {
    evened(&etcdctl_raw(server, arguments), server)
}

fn command(server: &Server, arguments: &[&str]) -> Command {
    let mut command = Command::new(reference("etcdctl"));
    command.args(arguments).arg("--endpoints").arg(server.endpoint());
    command
}

fn etcdctl_raw(server: &Server, arguments: &[&str]) -> String {
    let told = run(command(server, arguments), Duration::from_secs(20));
    format!("{}\nstderr:\n{}\ncode: {:?}", told.stdout, told.stderr, told.code)
}

/// A transaction read from stdin, fed through a shell because our children have none.
fn transaction(server: &Server, lines: &str) -> String {
    let mut shell = Command::new("sh");
    shell
        .args(["-c", "printf '%s' \"$LINES\" | \"$CTL\" txn --endpoints \"$ENDPOINT\""])
        .env("LINES", lines)
        .env("CTL", reference("etcdctl"))
        .env("ENDPOINT", server.endpoint());
    let told = run(shell, Duration::from_secs(20));
    evened(&format!("{}\n{}\n{:?}", told.stdout, told.stderr, told.code), server)
}

/// A running `etcdctl watch`.
struct Watch {
    child: std::process::Child,
    logs: Logs,
}

fn watching(server: &Server, arguments: &[&str]) -> Watch {
    let mut child = spawn(command(server, arguments));
    let logs = Logs::default();
    logs.read(child.stdout.take().expect("piped"));
    let watch = Watch { child, logs };
    assert!(watch.logs.wait_for("w/a", Duration::from_secs(10)), "the past was not shown");
    watch
}

impl Watch {
    /// Its output up to a line with `text`, and the line after.
    fn until(mut self, text: &str) -> String {
        let began = Instant::now();
        let told = self.logs.wait_for(text, Duration::from_secs(10));
        // The value follows the key.
        std::thread::sleep(Duration::from_millis(100));
        let _ = self.child.kill();
        let _ = self.child.wait();
        let all = self.logs.all();
        assert!(told, "no {text} after {:?}:\n{all}", began.elapsed());
        all
    }
}

/// Text without the parts that differ between two runs: addresses, times, the term, ids of leases.
fn evened(text: &str, server: &Server) -> String {
    let text = text.replace(&format!(":{}", server.port), ":PORT");
    let mut out = String::new();
    for line in text.lines() {
        let line = match line.find("took = ") {
            Some(at) => format!("{}took = TIME", &line[..at]),
            None => line.to_owned(),
        };
        let line = number_after(&line, "\"raft_term\":");
        let line = number_after(&line, "\"RaftTerm\" : ");
        let line = number_after(&line, "\"ID\":");
        // The client's own log lines contain their time.
        let line = match line.starts_with("{\"level\"") {
            true => "LOG".to_owned(),
            false => line,
        };
        out.push_str(&line);
        out.push('\n');
    }
    out
}

/// The line with the number behind `name` hidden.
fn number_after(line: &str, name: &str) -> String {
    let Some(at) = line.find(name) else { return line.to_owned() };
    let (head, tail) = line.split_at(at + name.len());
    format!("{head}N{}", tail.trim_start_matches(|c: char| c.is_ascii_digit()))
}
