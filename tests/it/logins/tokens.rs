//! Simple tokens: how long they live, and where.

use std::process::Command;
use std::time::{Duration, Instant};

use tokio::time::sleep;

use super::{PATIENCE, enable, fine, invalid, login, login_over, outcome, told, used};
use crate::cluster::members::Members;
use crate::compare::{from_environment, runtime};
use crate::process::{self, Server, Setup, run};
use crate::wire::Wire;

fn setup() -> Setup {
    Setup::new(process::basalt()).flag("bcrypt-cost", "4")
}

#[test]
fn tokens_survive_restarts_and_go_with_what_made_them() {
    runtime().block_on(async {
        let mut server = setup().start();
        enable(&server, &[("root", "r"), ("alice", "a")]);
        let root = login(&server, "root", "r").await.expect("it is right");
        let alice = login(&server, "alice", "a").await.expect("it is right");
        let (letters, index) = root.split_once('.').expect("etcd's form");
        assert!(letters.len() == 16 && index.parse::<u64>().is_ok(), "{root}");
        server.kill();
        server.start();
        assert_eq!(used(&server, &root).await, fine());
        assert_eq!(used(&server, &alice).await, fine());
        let as_root = ["--user", "root:r"];
        told(&server, &[&as_root[..], &["role", "add", "more"]].concat());
        assert_eq!(used(&server, &alice).await, fine(), "another role is nothing to it");
        told(&server, &[&as_root[..], &["user", "delete", "alice"]].concat());
        assert_eq!(used(&server, &alice).await, invalid());
        told(&server, &[&as_root[..], &["auth", "disable"]].concat());
        assert_eq!(used(&server, "nonsense").await, fine(), "nobody asks");
        told(&server, &["auth", "enable"]);
        assert_eq!(used(&server, &root).await, invalid());
        server.kill();
        server.start();
        assert_eq!(used(&server, &root).await, invalid());
    });
}

/// A controller with many workers logs in with one name, each worker with a connection of its own.
#[test]
fn many_clients_of_one_user_do_not_end_each_others_tokens() {
    const CLIENTS: usize = 1100;
    runtime().block_on(async {
        let server = setup().start();
        enable(&server, &[("root", "r")]);
        let wire = Wire::new(&server.endpoint());
        let first = login_over(&wire, "root", "r").await.expect("it is right");
        for _ in 0..CLIENTS / 100 {
            let mut all = tokio::task::JoinSet::new();
            for _ in 0..100 {
                let wire = wire.clone();
                all.spawn(async move { login_over(&wire, "root", "r").await });
            }
            while let Some(token) = all.join_next().await {
                token.expect("it ran").expect("the password is right");
            }
        }
        assert_eq!(used(&server, &first).await, fine());
        // All of them go at once, in steps, and the member serves.
        told(&server, &["--user", "root:r", "auth", "disable"]);
        told(&server, &["auth", "enable"]);
        assert_eq!(used(&server, &first).await, invalid());
    });
}

#[test]
fn tokens_live_as_long_as_they_are_used_as_by_etcd() {
    async fn conversation(server: &Server) -> Vec<[(i32, String); 2]> {
        enable(server, &[("root", "r")]);
        let (kept, left) = (login(server, "root", "r").await, login(server, "root", "r").await);
        let (kept, left) = (kept.expect("it is right"), left.expect("it is right"));
        let mut answers = Vec::new();
        for _ in 0..10 {
            sleep(Duration::from_millis(600)).await;
            answers.push(used(server, &kept).await);
        }
        answers.push(used(server, &left).await);
        answers
    }
    runtime().block_on(async {
        let own = setup().flag("auth-token-ttl", "4").start();
        let other = Setup::new(process::etcd()).flag("auth-token-ttl", "4").start();
        let (own, other) = tokio::join!(conversation(&own), conversation(&other));
        assert_eq!(own, other);
        assert_eq!(own.last(), Some(&invalid()));
        assert_eq!(own.first(), Some(&fine()));
    });
}

#[test]
fn a_forged_token_is_refused_at_once() {
    runtime().block_on(async {
        let server = setup().start();
        enable(&server, &[("root", "r")]);
        let token = login(&server, "root", "r").await.expect("it is right");
        let (letters, index) = token.split_once('.').expect("etcd's form");
        let next = index.parse::<u64>().expect("a number") + 3;
        for forged in [
            format!("{letters}.18446744073709551615"),
            format!("{letters}.{next}"),
            format!("abcdefghijklmnop.{index}"),
            letters.to_owned(),
            String::new(),
            "a.b.c".to_owned(),
        ] {
            let began = Instant::now();
            assert_eq!(used(&server, &forged).await, invalid(), "{forged}");
            assert!(began.elapsed() < Duration::from_secs(15), "{forged}: {:?}", began.elapsed());
        }
        assert_eq!(used(&server, &token).await, fine());
    });
}

/// Made on one member, used at once on another one, and after whatever happens to the members.
#[test]
fn tokens_are_valid_on_every_member() {
    runtime().block_on(async {
        let setup = setup()
            .flag("heartbeat-interval", "50")
            .flag("election-timeout", "500")
            .flag("snapshot-count", "100")
            .flag("snapshot-catchup-entries", "10");
        let mut members = Members::found(&setup, 3);
        enable(&members.0[0], &[("root", "r")]);
        let wires: Vec<_> = members.0.iter().map(|it| Wire::new(&it.endpoint())).collect();
        for round in 0..from_environment("LOGINS_ROUNDS", 100) as usize {
            let (made, used) = (&wires[round % 3], &wires[(round + 1) % 3]);
            let token = login_over(made, "root", "r").await.expect("it is right");
            let read = used.clone().with_token(&token).get("k").await;
            assert_eq!(outcome(&read).0, 0, "round {round}: {read:?}");
        }
        let token = login(&members.0[1], "root", "r").await.expect("it is right");
        // One member is away for so long that it needs a snapshot, which has the tokens.
        let leader = members.leader_with_token(&token).await;
        let away = (leader + 1) % 3;
        members.0[away].kill();
        let late = login(&members.0[leader], "root", "r").await.expect("it is right");
        let wire = Wire::new(&members.0[leader].endpoint()).with_token(&token);
        for number in 0..400 {
            wire.put(&format!("k{number}"), "v").await.expect("it is put");
        }
        members.restart(away);
        assert_eq!(used(&members.0[away], &late).await, fine());
        // The leader goes.
        members.0[leader].kill();
        let next = members.leader_with_token(&token).await;
        assert_eq!(used(&members.0[next], &token).await, fine());
        assert_eq!(used(&members.0[away], &late).await, fine());
    });
}

/// Files that operators keep let nobody in.
#[test]
fn a_saved_snapshot_has_users_and_no_tokens() {
    runtime().block_on(async {
        let server = setup().start();
        enable(&server, &[("root", "r")]);
        let token = login(&server, "root", "r").await.expect("it is right");
        assert_eq!(used(&server, &token).await, fine());
        let place = process::Scratch::new();
        let file = place.path().join("snapshot.db").display().to_string();
        told(&server, &["--user", "root:r", "snapshot", "save", &file]);
        let mut restored = Server::new(setup());
        let mut restore = std::process::Command::new(process::reference("etcdutl"));
        restore.args(["snapshot", "restore", &file, "--data-dir"]).arg(place.path().join("e"));
        assert_eq!(process::run(restore, super::PATIENCE).code, Some(0), "etcd's tools read it");
        let mut restore = std::process::Command::new(process::basaltutl());
        restore.args(["snapshot", "restore", &file, "--name", "pillar"]);
        restore.args(["--initial-cluster", "pillar=http://127.0.0.1:12380"]);
        restore.args(["--initial-advertise-peer-urls", "http://127.0.0.1:12380", "--data-dir"]);
        restore.arg(restored.data_dir());
        let made = process::run(restore, super::PATIENCE);
        assert_eq!(made.code, Some(0), "{}\n{}", made.stdout, made.stderr);
        restored.start();
        assert_eq!(used(&restored, &token).await, invalid());
        let again = login(&restored, "root", "r").await.expect("users are there");
        assert_eq!(used(&restored, &again).await, fine());
    });
}

/// The stream that keeps the lease of a lock logs in once more, while the lock is asked for.
#[test]
fn a_lock_is_taken_with_the_token_before_while_a_new_one_is_fetched() {
    let server = Setup::new(process::basalt()).flag("bcrypt-cost", "10").start();
    enable(&server, &[("root", "r")]);
    for name in ["one", "two", "three"] {
        let mut command = Command::new(process::basaltctl());
        command.args(["--endpoints", &server.endpoint(), "--user", "root:r"]);
        command.args(["lock", name, "echo", "held"]);
        let told = run(command, PATIENCE);
        assert_eq!((&*told.stdout, &*told.stderr, told.code), ("held", "", Some(0)));
    }
}
