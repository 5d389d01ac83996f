//! `basalt doctor`: its verdicts and exit codes, beside a member too, and nothing is left behind.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::process::{self, Finished, PATIENCE, Scratch, Server, Setup, run};

/// A report as JSON, and the exit code.
fn examine(command: &mut Command) -> (Value, i32) {
    let Finished { code, stdout, stderr } =
        run(std::mem::replace(command, Command::new("")), PATIENCE);
    let report = serde_json::from_str(&stdout);
    (report.unwrap_or_else(|error| panic!("{error}: {stdout}{stderr}")), code.expect("it ends"))
}

fn doctor(arguments: &[&str]) -> Command {
    let mut command = Command::new(process::basalt());
    command.args(["doctor", "-w", "json"]).args(arguments);
    command
}

/// The finding of a check.
fn finding<'a>(report: &'a Value, check: &str) -> &'a Value {
    let checks = report["checks"].as_array().expect("a list");
    checks
        .iter()
        .find(|it| it["check"] == check)
        .unwrap_or_else(|| panic!("no {check}: {report:#}"))
}

/// Every path below a directory.
fn listing(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for path in fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()) {
        if path.is_dir() {
            found.extend(listing(&path));
        }
        found.push(path);
    }
    found
}

#[test]
fn a_machine_is_examined_for_the_member_of_these_flags() {
    let scratch = Scratch::new();
    let data = scratch.path().join("a/data").display().to_string();
    let (report, code) = examine(&mut doctor(&["--data-dir", &data, "--reactor=epoll"]));
    let verdict = report["verdict"].as_str().unwrap();
    // Disks, clocks and limits of the machine that runs the tests may be worth a warning.
    assert_eq!(code, i32::from(verdict == "warn"), "{report:#}");
    assert_eq!(finding(&report, "reactor")["values"]["reactor"], "epoll");
    for check in ["processor", "memory", "open files", "clock", "locked memory", "data disk"] {
        assert_ne!(finding(&report, check)["verdict"], "fail");
    }
    let latency = &finding(&report, "disk latency")["values"]["log_write"];
    assert!(latency["p50_seconds"].as_f64().unwrap() <= latency["p99_seconds"].as_f64().unwrap());
    assert!(latency["count"].as_u64().unwrap() > 0);
    assert!(listing(scratch.path()).is_empty(), "nothing is left behind");
    let mut table = Command::new(process::basalt());
    table.arg("doctor").env("ETCD_DATA_DIR", &data);
    let told = run(table, PATIENCE);
    assert!(
        told.stdout.contains("data directory") && told.stdout.contains(&data),
        "{}",
        told.stdout
    );
}

#[test]
fn a_member_that_would_not_start_is_told_with_code_2() {
    let scratch = Scratch::new();
    let path = |name: &str| scratch.path().join(name);
    let data = |name: &str| format!("--data-dir={}", path(name).display());
    fs::create_dir_all(path("etcd/member/snap")).unwrap();
    let (report, code) = examine(&mut doctor(&[&data("etcd")]));
    assert_eq!(code, 2);
    let advice = finding(&report, "data directory")["advice"].as_str().unwrap();
    assert!(advice.contains("belongs to etcd"), "{advice}");
    let (report, code) = examine(&mut doctor(&["--heartbeat-interval=500"]));
    assert_eq!((code, &report["checks"][0]["check"]), (2, &"configuration".into()));
    let missing = ["--cert-file=/none.crt", "--key-file=/none.key"];
    let (report, code) = examine(&mut doctor(&[&data("new"), missing[0], missing[1]]));
    assert_eq!((code, &finding(&report, "client certificates")["verdict"]), (2, &"fail".into()));
    // A configuration file stands for flags.
    let file = path("config.yaml");
    fs::write(&file, format!("data-dir: {}\nfoo: 1\n", path("new").display())).unwrap();
    let (report, code) = examine(&mut doctor(&["--config-file", file.to_str().unwrap()]));
    assert!(code < 2 && report["notes"].to_string().contains("foo"), "{report:#}");
}

#[test]
fn a_running_member_is_not_disturbed() {
    let server: Server = Setup::new(process::basalt()).start();
    let data = format!("--data-dir={}", server.data_dir().display());
    let (report, code) = examine(&mut doctor(&[&data]));
    assert!(code < 2, "{report:#}");
    let found = finding(&report, "data directory")["found"].as_str().unwrap();
    assert!(found.contains("a member runs in it"), "{found}");
    let files = listing(&server.data_dir());
    assert!(!files.iter().any(|path| path.to_string_lossy().contains("doctor")), "{files:?}");
    fs::set_permissions(server.data_dir(), fs::Permissions::from_mode(0o777)).unwrap();
    let (report, code) = examine(&mut doctor(&[&data]));
    assert_eq!((code, &finding(&report, "data directory")["verdict"]), (1, &"warn".into()));
}
