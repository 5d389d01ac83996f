//! Members among themselves, over TLS.

use std::time::{Duration, Instant};

use super::certificates::{Authority, Pair, Wanted};
use super::{PATIENCE, curl, etcdctl};
use crate::process::{self, Finished, Scratch, Server, Setup};

/// Members of one cluster whose clients speak plain HTTP.
pub(super) struct Cluster(pub(super) Vec<Server>);

impl Cluster {
    pub(super) fn new(setups: Vec<Setup>) -> Self {
        Self(setups.into_iter().map(Server::new).collect())
    }

    /// The URL of a member's peer port.
    pub(super) fn url(&self, at: usize, scheme: &str) -> String {
        format!("{scheme}://127.0.0.1:{}", self.0[at].peer_port)
    }

    pub(super) fn found(&mut self, scheme: &str) {
        let urls: Vec<_> = (0..self.0.len()).map(|at| self.url(at, scheme)).collect();
        let all: Vec<_> = urls.iter().enumerate().map(|(at, url)| format!("m{at}={url}")).collect();
        for (at, server) in self.0.iter_mut().enumerate() {
            let endpoint = server.endpoint();
            server.set("name", &format!("m{at}"));
            server.set("initial-advertise-peer-urls", &urls[at]);
            server.set("listen-peer-urls", &urls[at]);
            server.set("advertise-client-urls", &endpoint);
            server.set("initial-cluster", &all.join(","));
            server.set("heartbeat-interval", "100");
            server.set("election-timeout", "1000");
            server.launch();
        }
        (0..self.0.len()).for_each(|at| self.wait_ready(at));
    }

    pub(super) fn wait_ready(&self, at: usize) {
        assert!(self.0[at].wait_ready(PATIENCE), "m{at}:\n{}", self.0[at].logs.tail());
    }

    fn ctl(&self, at: usize, arguments: &[&str]) -> Finished {
        etcdctl(&self.0[at].endpoint(), &[], arguments)
    }

    /// Tries until it succeeds; gives what it prints.
    fn told(&self, at: usize, arguments: &[&str]) -> String {
        let until = Instant::now() + PATIENCE;
        loop {
            let told = self.ctl(at, arguments);
            if told.code == Some(0) {
                return told.stdout;
            }
            assert!(Instant::now() < until, "{}\n{}", told.stderr, self.0[at].logs.tail());
        }
    }

    fn restart(&mut self, at: usize) {
        self.0[at].kill();
        self.0[at].launch();
        self.wait_ready(at);
    }
}

pub(super) fn peer_flags(setup: Setup, authority: &Authority, pair: &Pair) -> Setup {
    setup
        .flag("peer-cert-file", &pair.certificate)
        .flag("peer-key-file", &pair.key)
        .flag("peer-trusted-ca-file", &authority.file)
        .flag("peer-client-cert-auth", "true")
}

#[test]
fn members_dial_and_accept_with_certificates() {
    let place = Scratch::new();
    let authority = Authority::new(place.path(), "ca");
    let pair = authority.issue("peer", &Wanted { common_name: "member", ..Wanted::default() });
    let stranger = authority.issue("other", &Wanted { common_name: "other", ..Wanted::default() });
    let setup = peer_flags(Setup::new(process::basalt()), &authority, &pair)
        .flag("peer-cert-allowed-cn", "somebody,member")
        .flag("snapshot-count", "20")
        .flag("snapshot-catchup-entries", "5");
    let mut cluster = Cluster::new(vec![setup; 3]);
    cluster.found("https");
    for at in 0..3 {
        cluster.told(at, &["put", &format!("key-{at}"), "x"]);
    }
    // A member that is far behind gets a snapshot over TLS, too.
    cluster.0[2].kill();
    for number in 0..60 {
        cluster.told(0, &["put", &format!("later-{number}"), "x"]);
    }
    cluster.0[2].launch();
    cluster.wait_ready(2);
    let keys = cluster.told(2, &["get", "later-", "--prefix", "--keys-only"]);
    assert_eq!(keys.lines().filter(|line| !line.is_empty()).count(), 60);
    // Members' requests to each other over HTTP.
    let until = Instant::now() + PATIENCE;
    while !curl(&[&format!("{}/version", cluster.0[0].endpoint())]).stdout.contains("3.7.0") {
        assert!(Instant::now() < until, "no version was agreed on");
        std::thread::sleep(Duration::from_millis(100));
    }
    let members = format!("{}/members", cluster.url(0, "https"));
    let with = |pair: &Pair| {
        curl(&[
            "--cacert",
            &authority.file,
            "--cert",
            &pair.certificate,
            "--key",
            &pair.key,
            &members,
        ])
    };
    assert!(with(&pair).stdout.contains("m1"));
    assert_ne!(with(&stranger).code, Some(0), "its name is not allowed");
    let said = "client certificate authentication failed";
    assert!(cluster.0[0].logs.wait_for(said, PATIENCE), "{}", cluster.0[0].logs.tail());
    assert_ne!(
        curl(&["--cacert", &authority.file, &members]).code,
        Some(0),
        "without a certificate"
    );
    let dead =
        (0..3).find(|at| cluster.told(*at, &["endpoint", "status"]).contains(", true, false"));
    let dead = dead.expect("one leads");
    cluster.0[dead].kill();
    cluster.told((dead + 1) % 3, &["put", "after", "x"]);
}

/// A member of another authority takes no part.
#[test]
fn a_member_with_another_certificate_is_left_out() {
    let place = Scratch::new();
    let (authority, other) =
        (Authority::new(place.path(), "ca"), Authority::new(place.path(), "other"));
    let pair = authority.issue("peer", &Wanted::default());
    let wrong = other.issue("wrong", &Wanted::default());
    let setup = || Setup::new(process::basalt());
    let mut cluster = Cluster::new(vec![
        peer_flags(setup(), &authority, &pair),
        peer_flags(setup(), &authority, &pair),
        peer_flags(setup(), &authority, &pair),
    ]);
    cluster.found("https");
    cluster.0[2].set("peer-cert-file", &wrong.certificate);
    cluster.0[2].set("peer-key-file", &wrong.key);
    cluster.0[2].kill();
    cluster.0[2].launch();
    let said = "x509: certificate signed by unknown authority";
    let told = (0..2).any(|at| cluster.0[at].logs.wait_for(said, PATIENCE));
    assert!(told, "{}", cluster.0[0].logs.tail());
    cluster.told(0, &["put", "a", "b"]);
    assert!(
        cluster.0[2].logs.wait_for("remote error: tls: ", PATIENCE),
        "{}",
        cluster.0[2].logs.tail()
    );
}

/// The way of etcd's documentation: certificates first, then another URL for each member, one after the other.
#[test]
fn tls_is_switched_on_member_by_member() {
    let place = Scratch::new();
    let authority = Authority::new(place.path(), "ca");
    let pair = authority.issue("peer", &Wanted::default());
    let mut cluster = Cluster::new(vec![Setup::new(process::basalt()); 3]);
    cluster.found("http");
    let mut written = Vec::new();
    let mut write = |cluster: &Cluster, asked: usize| {
        let key = format!("key-{}", written.len());
        cluster.told(asked, &["put", &key, "x"]);
        written.push(key);
    };
    write(&cluster, 0);
    for at in 0..3 {
        for (name, value) in [
            ("peer-cert-file", &*pair.certificate),
            ("peer-key-file", &pair.key),
            ("peer-trusted-ca-file", &authority.file),
        ] {
            cluster.0[at].set(name, value);
        }
        // Both for as long as others may still know the old one.
        let both = format!("{},{}", cluster.url(at, "http"), cluster.url(at, "https"));
        cluster.0[at].set("listen-peer-urls", &both);
        cluster.restart(at);
        write(&cluster, at);
    }
    for at in 0..3 {
        let list = cluster.told(0, &["member", "list"]);
        let name = format!(", m{at}, ");
        let line = list.lines().find(|line| line.contains(&name)).expect("it is a member");
        let id = line.split(',').next().expect("an id");
        let url = format!("--peer-urls={}", cluster.url(at, "https"));
        cluster.told(0, &["member", "update", id, &url]);
        write(&cluster, at);
    }
    for at in 0..3 {
        let url = cluster.url(at, "https");
        cluster.0[at].set("listen-peer-urls", &url);
        cluster.0[at].set("peer-client-cert-auth", "true");
        cluster.restart(at);
        write(&cluster, at);
    }
    for at in 0..3 {
        let found = cluster.told(at, &["get", "key-", "--prefix", "--keys-only"]);
        let found = found.lines().filter(|line| !line.is_empty()).count();
        assert_eq!(found, written.len(), "m{at}");
        let plain = curl(&[&format!("{}/version", cluster.url(at, "http"))]);
        assert_ne!(plain.code, Some(0), "m{at} still speaks without TLS");
    }
}

#[test]
fn members_make_certificates_for_themselves() {
    let setup = Setup::new(process::basalt()).flag("peer-auto-tls", "true");
    let mut cluster = Cluster::new(vec![setup; 3]);
    cluster.found("https");
    cluster.told(1, &["put", "a", "b"]);
    for server in &cluster.0 {
        assert!(server.data_dir().join("fixtures/peer/key.pem").exists());
    }
}
