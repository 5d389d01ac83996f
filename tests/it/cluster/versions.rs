//! The cluster version: the leader decides it, and it never exceeds the version of a member.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::members::Members;
use super::messages::reason;
use super::{page, runtime, setup};
use crate::ports;
use crate::process::{self, PATIENCE, Server};

/// A little more than the interval at which a leader asks the members.
pub(super) const ROUND: Duration = Duration::from_secs(6);

/// Basalt's response under `/version`.
const ALL_WELL: &str = r#"{"etcdserver":"3.7.1","etcdcluster":"3.7.0","storage":"3.7.0"}"#;

/// The response of a member under `/version`.
fn version(server: &Server) -> String {
    page(&server.endpoint(), "/version")
}

/// Number of decisions about the version in the logs.
fn decisions(members: &Members) -> usize {
    let logs = members.0.iter().map(|server| server.logs.all());
    logs.map(|logs| logs.matches("\"cluster version is updated\"").count()).sum()
}

/// Waits until these members report this cluster version.
async fn speak(members: &Members, at: &[usize], cluster: &str) {
    let until = Instant::now() + PATIENCE;
    let expected = format!("\"etcdcluster\":\"{cluster}\"");
    for at in at {
        while !version(&members.0[*at]).contains(&expected) {
            let said = version(&members.0[*at]);
            assert!(Instant::now() < until, "m{} says {said}, not {cluster}", at + 1);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// A member that consists of HTTP responses on its peer URL.
struct Pretender {
    url: String,
    pages: Pages,
}

/// The response for each path; others have none.
type Pages = Arc<Mutex<BTreeMap<&'static str, String>>>;

impl Pretender {
    async fn begin() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", ports::free())).await.expect("it is free");
        let url = format!("http://{}", listener.local_addr().expect("it is bound"));
        let pages = Pages::default();
        let told = Arc::clone(&pages);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                // A request for another path finds the connection closed.
                tokio::spawn(answer(stream, Arc::clone(&told)));
            }
        });
        Self { url, pages }
    }

    fn says(&self, path: &'static str, text: &str) {
        self.pages.lock().expect("nobody panicked").insert(path, text.to_owned());
    }

    fn runs(&self, server: &str, cluster: &str) {
        let text = format!(r#"{{"etcdserver":"{server}","etcdcluster":"{cluster}"}}"#);
        self.says("/version", &text);
    }

    fn is_silent(&self) {
        self.pages.lock().expect("nobody panicked").clear();
    }
}

async fn answer(mut stream: TcpStream, pages: Pages) -> Option<()> {
    let mut asked = vec![0; 4096];
    let count = stream.read(&mut asked).await.ok()?;
    let asked = String::from_utf8_lossy(&asked[..count]).into_owned();
    let path = asked.strip_prefix("GET ")?.split(' ').next()?;
    let body = pages.lock().expect("nobody panicked").get(path)?.clone();
    let head = format!(
        "HTTP/1.1 200 OK\r\nX-Etcd-Cluster-ID: 5\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(format!("{head}{body}").as_bytes()).await.ok()
}

#[test]
fn the_leader_decides_and_the_next_one_leaves_it_so() {
    runtime().block_on(async {
        let mut members = Members::found(&setup(), 3);
        let leader = members.leader().await;
        speak(&members, &[0, 1, 2], "3.7.0").await;
        for (at, server) in members.0.iter().enumerate() {
            assert_eq!(version(server), ALL_WELL, "m{}", at + 1);
            let metrics = page(&server.endpoint(), "/metrics");
            assert!(metrics.contains("\netcd_cluster_version{cluster_version=\"3.7\"} 1\n"));
            let status = members.status(at).await.expect("it answers");
            assert_eq!((&status.version[..], &status.storage_version[..]), ("3.7.1", "3.7.0"));
        }
        let decided = decisions(&members);
        assert!((1..=2).contains(&decided), "{decided}: at first without all, then with all");
        members.0[leader].kill();
        let next = members.leader().await;
        assert_ne!(next, leader);
        // A new leader checks the versions, and one of the members does not answer.
        assert!(members.0[next].logs.wait_for("failed to get version", PATIENCE));
        assert_eq!(decisions(&members), decided);
        let others: Vec<_> = (0..3).filter(|at| *at != leader).collect();
        others.iter().for_each(|at| assert_eq!(version(&members.0[*at]), ALL_WELL));
        members.restart(leader);
        assert_eq!(version(&members.0[leader]), ALL_WELL, "it finds what was decided");
    });
}

#[test]
fn the_lowest_member_version_is_the_cluster_version() {
    runtime().block_on(async {
        let third = Pretender::begin().await;
        third.runs("3.6.9", "not_decided");
        let mut members = Members(vec![Server::new(setup()), Server::new(setup())]);
        let cluster = format!("{},m3={}", members.cluster(), third.url);
        for at in 0..2 {
            members.name(at, &cluster, "new");
            members.0[at].launch();
        }
        (0..2).for_each(|at| members.wait_ready(at));
        let first = r#"{"etcdserver":"3.7.1","etcdcluster":"3."#;
        assert!(version(&members.0[0]).starts_with(first), "it is decided before it serves");
        speak(&members, &[0, 1], "3.6.0").await;
        let leader = members.leader().await;
        tokio::time::sleep(ROUND).await;
        let said = r#"{"etcdserver":"3.7.1","etcdcluster":"3.6.0","storage":"3.6.0"}"#;
        assert_eq!(version(&members.0[leader]), said, "nobody is asked for more than it knows");
        third.is_silent();
        tokio::time::sleep(ROUND).await;
        assert_eq!(version(&members.0[leader]), said, "it may still be what it was");
        third.runs("3.8.0", "3.6.0");
        speak(&members, &[0, 1], "3.7.0").await;
        assert_eq!(version(&members.0[leader]), ALL_WELL);
        assert!(members.0[leader].logs.wait_for("leader found higher-versioned member", PATIENCE));
    });
}

/// Members of a newer cluster, of one that has not decided yet, and one that does not report it.
#[test]
fn members_that_do_not_support_the_cluster_version_do_not_join() {
    runtime().block_on(async {
        let other = Pretender::begin().await;
        let own = "http://127.0.0.1:12380";
        let members = format!(
            r#"[{{"id":1,"peerURLs":["{own}"]}},{{"id":2,"name":"m2","peerURLs":["{}"]}}]"#,
            other.url
        );
        let cluster = format!("--initial-cluster=m1={own},m2={}", other.url);
        let flags = ["--name=m1", "--initial-cluster-state=existing", &cluster];
        for spoken in ["3.8.0", "2.3.0", "not_decided"] {
            other.says("/members", &members);
            other.says("/downgrade/enabled", "false");
            other.runs("3.8.0", spoken);
            for binary in [process::etcd(), process::basalt()] {
                let why = reason(binary.clone(), &flags);
                assert_eq!(why, "incompatible with current running cluster", "{binary:?} {spoken}");
            }
        }
    });
}
