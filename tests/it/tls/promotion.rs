//! Promotions by users who are known by their certificates, through any member, and over the peer port.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::certificates::{Authority, Pair, Wanted};
use super::members::{Cluster, peer_flags};
use super::{PATIENCE, curl, etcdctl, secure_endpoint};
use crate::process::{self, Finished, Scratch, Server, Setup};

/// A cluster of two voters and a learner, which serves clients with certificates; without one nobody is who asks.
struct Fixture {
    cluster: Cluster,
    authority: Authority,
    place: Scratch,
}

impl Fixture {
    fn new() -> Self {
        let place = Scratch::new();
        let authority = Authority::new(place.path(), "ca");
        let pair = authority.issue("peer", &Wanted::default());
        for name in ["root", "alice"] {
            authority.issue(name, &Wanted { common_name: name, ..Wanted::default() });
        }
        let setup = peer_flags(Setup::new(process::basalt()), &authority, &pair)
            .flag("cert-file", &pair.certificate)
            .flag("key-file", &pair.key)
            .flag("trusted-ca-file", &authority.file)
            .flag("client-cert-auth", "true");
        let mut cluster = Cluster::new(vec![setup.clone(); 2]);
        for (at, server) in cluster.0.iter_mut().enumerate() {
            prepare(server, &place, at);
        }
        cluster.found("https");
        let mut it = Self { cluster, authority, place };
        for arguments in [
            &["user", "add", "root", "--no-password"][..],
            &["user", "add", "alice", "--no-password"],
            &["auth", "enable"],
        ] {
            it.told(0, "root", arguments);
        }
        it.add_learner(setup);
        it
    }

    fn add_learner(&mut self, setup: Setup) {
        let mut learner = Server::new(setup);
        prepare(&mut learner, &self.place, 2);
        self.cluster.0.push(learner);
        let url = self.cluster.url(2, "https");
        self.told(0, "root", &["member", "add", "m2", "--learner", &format!("--peer-urls={url}")]);
        let all: Vec<_> =
            (0..3).map(|at| format!("m{at}={}", self.cluster.url(at, "https"))).collect();
        let learner = &mut self.cluster.0[2];
        let endpoint = secure_endpoint(learner);
        for (name, value) in [
            ("name", "m2"),
            ("initial-advertise-peer-urls", &*url),
            ("listen-peer-urls", &url),
            ("advertise-client-urls", &endpoint),
            ("initial-cluster", &all.join(",")),
            ("initial-cluster-state", "existing"),
            ("heartbeat-interval", "100"),
            ("election-timeout", "1000"),
        ] {
            learner.set(name, value);
        }
        learner.launch();
        self.cluster.wait_ready(2);
    }

    fn pair(&self, name: &str) -> Pair {
        let path =
            |end: &str| self.place.path().join(format!("{name}.{end}")).display().to_string();
        Pair { certificate: path("crt"), key: path("key") }
    }

    fn ask(&self, at: usize, name: &str, arguments: &[&str]) -> Finished {
        let Pair { certificate, key } = self.pair(name);
        let flags = ["--cacert", &self.authority.file, "--cert", &certificate, "--key", &key];
        etcdctl(&secure_endpoint(&self.cluster.0[at]), &flags, arguments)
    }

    /// Tries until it succeeds; gives what it prints.
    fn told(&self, at: usize, name: &str, arguments: &[&str]) -> String {
        let until = Instant::now() + PATIENCE;
        loop {
            let told = self.ask(at, name, arguments);
            if told.code == Some(0) {
                return told.stdout;
            }
            let tail = self.cluster.0[at].logs.tail();
            assert!(Instant::now() < until, "{arguments:?}: {}\n{tail}", told.stderr);
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// A line of a member's audit log about a promotion, once it is there.
    fn promotion(&self, at: usize, user: &Value, code: &str) -> Value {
        let until = Instant::now() + PATIENCE;
        loop {
            let text = fs::read_to_string(audit_log(&self.place, at)).unwrap_or_default();
            let mut lines =
                text.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
            let found = lines.find(|line| {
                line["rpc"] == "/etcdserverpb.Cluster/MemberPromote"
                    && line["user"] == *user
                    && line["code"] == code
            });
            if let Some(found) = found {
                return found;
            }
            assert!(Instant::now() < until, "{user} {code}: {text}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

fn audit_log(place: &Scratch, at: usize) -> std::path::PathBuf {
    place.path().join(format!("audit-{at}.log"))
}

fn prepare(server: &mut Server, place: &Scratch, at: usize) {
    let both = format!("{},{}", server.endpoint(), secure_endpoint(server));
    server.set("listen-client-urls", &both);
    server.set("audit-log-path", &audit_log(place, at).display().to_string());
}

/// etcd hands a token alone to its leader, and refuses users without one: `user name is empty`.
#[test]
fn users_with_certificates_promote_through_any_member() {
    let it = Fixture::new();
    let leads =
        |at: &usize| it.told(*at, "root", &["endpoint", "status"]).contains(", true, false");
    let leader = (0..2).find(leads).expect("one leads");
    let follower = 1 - leader;
    let list = it.told(0, "root", &["member", "list"]);
    let line = list.lines().find(|line| line.contains(", m2, ")).expect("it is a member");
    let id = line.split(',').next().expect("an id");
    let promote = ["member", "promote", id];
    // Over the peer port nobody is root by a member's certificate, on the leader neither.
    let number = u64::from_str_radix(id, 16).expect("digits");
    let url = format!("{}/members/promote/{number}", it.cluster.url(leader, "https"));
    let Pair { certificate, key } = it.pair("peer");
    let with = ["--cacert", &it.authority.file, "--cert", &certificate, "--key", &key];
    let refused = curl(&[&with[..], &["-X", "POST", &url]].concat());
    assert_eq!(refused.stdout.trim_end(), "etcdserver: user name is empty");
    let line = it.promotion(leader, &Value::Null, "InvalidArgument");
    assert_eq!(line["source"], "none", "{line}");
    assert!(line["certificate"].as_str().is_some_and(|it| it.len() == 64), "{line}");
    for (name, text, code) in
        [("alice", "permission denied", "PermissionDenied"), ("root", "", "OK")]
    {
        let told = match text {
            "" => it.told(follower, name, &promote),
            _ => it.ask(follower, name, &promote).stderr,
        };
        assert!(told.contains(text), "{name}: {told}");
        let line = it.promotion(follower, &name.into(), code);
        assert_eq!(line["source"], "certificate", "{line}");
    }
    let list = it.told(2, "root", &["member", "list"]);
    assert!(list.lines().all(|line| line.ends_with(", false")), "{list}");
}
