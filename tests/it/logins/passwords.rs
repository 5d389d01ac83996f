//! Passwords, beside etcd.

use super::{ctl, enable, login, outcome, told, used};
use crate::compare::runtime;
use crate::process::{self, Server, Setup};

/// Answers to logins, in an order that no throttle minds.
async fn logins(server: &Server) -> Vec<(i32, String)> {
    let long = "x".repeat(72);
    let mut answers = Vec::new();
    for (user, password) in [
        ("root", "right"),
        ("root", "wrong"),
        ("root", ""),
        ("nobody", "right"),
        ("", ""),
        ("free", "any"),
        ("free", ""),
        ("long", &long),
        ("long", &format!("{long}more")),
        ("long", "x"),
        ("pass\u{df}", "p\u{e4}ss\u{1f511}"),
    ] {
        answers.push(outcome(&login(server, user, password).await));
    }
    answers
}

async fn conversation(server: &Server) -> Vec<(i32, String)> {
    let mut answers = vec![outcome(&login(server, "root", "right").await)];
    let long = "x".repeat(72);
    told(server, &["user", "add", "free", "--no-password"]);
    told(server, &["user", "add", &format!("long:{long}")]);
    told(server, &["user", "add", "pass\u{df}:p\u{e4}ss\u{1f511}"]);
    let too_long = ctl(server, &["user", "add", &format!("longer:{long}x")]);
    answers
        .push((too_long.code.unwrap_or(-1), too_long.stderr.lines().last().unwrap_or("").into()));
    enable(server, &[("root", "right")]);
    answers.extend(logins(server).await);
    // An old password is none, and its token neither.
    let token = login(server, "root", "right").await.expect("it is right");
    answers.extend(used(server, &token).await);
    let user = ["--user", "root:right"];
    told(server, &[&user[..], &["user", "passwd", "root", "--interactive=false"]].concat());
    answers.extend(used(server, &token).await);
    answers.push(outcome(&login(server, "root", "right").await));
    answers
}

#[test]
fn logins_are_answered_as_by_etcd() {
    runtime().block_on(async {
        let own = Setup::new(process::basalt()).flag("bcrypt-cost", "4").start();
        let other = Setup::new(process::etcd()).flag("bcrypt-cost", "4").start();
        let (own, other) = (conversation(&own).await, conversation(&other).await);
        assert_eq!(own, other);
        assert!(own.len() > 15 && own.iter().filter(|answer| answer.0 == 0).count() > 5, "{own:?}");
    });
}

#[test]
fn guesses_are_throttled_and_the_owner_who_was_here_is_not() {
    runtime().block_on(async {
        let server = Setup::new(process::basalt()).flag("bcrypt-cost", "6").start();
        enable(&server, &[("root", "right"), ("alice", "hers")]);
        let wrong =
            (3, "etcdserver: authentication failed, invalid user ID or password".to_owned());
        assert_eq!(login(&server, "alice", "hers").await.err().map(|it| it.code()), None);
        let token = login(&server, "root", "right").await.expect("it is right");
        for guess in 0..12 {
            let guessed = login(&server, "bob", &guess.to_string()).await;
            assert_eq!(outcome(&guessed), wrong, "guess {guess}");
        }
        // Whoever logged in within the last minute still does, and tokens work.
        assert!(login(&server, "alice", "hers").await.is_ok());
        assert_eq!(used(&server, &token).await, super::fine());
        told(&server, &["--user", "root:right", "user", "add", "carol:new"]);
        // Carol is right, and comes from an address that guessed too often.
        assert_eq!(outcome(&login(&server, "carol", "new").await), wrong);
        let page = crate::logins::audit::page(&server, "/metrics");
        assert!(!page.contains("basalt_auth_logins_throttled_total 0\n"), "{page}");
    });
}

/// The time tells nobody which names there are: a login of somebody unknown costs a hash, too.
#[test]
fn an_unknown_user_costs_as_much_as_a_known_one() {
    runtime().block_on(async {
        let server = Setup::new(process::basalt()).flag("bcrypt-cost", "4").start();
        enable(&server, &[("root", "right")]);
        let hashes = || {
            let page = super::audit::page(&server, "/metrics");
            let name = "basalt_auth_password_hashes_total ";
            let line = page.lines().find_map(|line| line.strip_prefix(name)).expect("a metric");
            line.parse::<f64>().expect("a number")
        };
        told(&server, &["--user", "root:right", "user", "add", "free", "--no-password"]);
        for user in ["root", "nobody", "free"] {
            let before = hashes();
            assert!(login(&server, user, "wrong").await.is_err());
            assert!((hashes() - before - 1.0).abs() < 0.5, "{user}");
        }
    });
}

/// Beside etcdctl, which is Go's client. This one sends its token over TLS alone.
#[test]
fn the_python_client_logs_in() {
    let server = Setup::new(process::basalt()).flag("bcrypt-cost", "4").start();
    enable(&server, &[("root", "right")]);
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut client = std::process::Command::new(root.join("target/python/bin/python"));
    client.arg(root.join("tests/clients/python/users.py"));
    client.args([&server.port.to_string(), "root", "right"]);
    let told = process::run(client, super::PATIENCE);
    assert_eq!(told.code, Some(0), "{}\n{}", told.stdout, told.stderr);
}

#[test]
fn our_client_reads_passwords_from_where_nobody_else_sees_them() {
    let server = Setup::new(process::basalt()).flag("bcrypt-cost", "4").start();
    enable(&server, &[("root", "right")]);
    let place = process::Scratch::new();
    let file = place.path().join("password");
    std::fs::write(&file, "right\nand more\n").expect("it is written");
    let ctl = |arguments: &[&str]| {
        let mut command = std::process::Command::new(process::basaltctl());
        command.args(["--endpoints", &server.endpoint()]).args(arguments);
        command.env("WHO", "root:right");
        process::run(command, super::PATIENCE)
    };
    let file = file.display().to_string();
    for (arguments, code) in [
        (&["--user", "root", "--password-file", &file, "put", "a", "1"][..], Some(0)),
        (&["--user-from-env", "WHO", "get", "a"], Some(0)),
        (&["--user-from-env", "NOBODY", "get", "a"], Some(128)),
        (&["--user", "root", "--password-file", "/nowhere", "get", "a"], Some(128)),
        (&["get", "a"], Some(1)),
    ] {
        let told = ctl(arguments);
        assert_eq!(told.code, code, "{arguments:?}\n{}\n{}", told.stdout, told.stderr);
    }
}
