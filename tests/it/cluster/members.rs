//! Several members of one cluster, and etcdctl as their client.

use std::sync::Arc;
use std::time::{Duration, Instant};

use basalt_proto::etcdserverpb::{StatusRequest, StatusResponse};

use super::proxy::Links;
use crate::process::{Finished, PATIENCE, Server, Setup};
use crate::secured::Secured;
use crate::wire::{self, Wire};

/// Members that were founded together, and members added later, in the order of their addition.
pub(crate) struct Members(pub(crate) Vec<Server>);

impl Members {
    /// Starts a new cluster of `count` members and waits until all of them serve.
    pub(crate) fn found(setup: &Setup, count: usize) -> Self {
        Self::found_with((0..count).map(|_| setup.clone()))
    }

    /// The same with settings of its own for each.
    pub(crate) fn found_with(setups: impl Iterator<Item = Setup>) -> Self {
        let mut members = Self(setups.map(Server::new).collect());
        members.begin();
        members
    }

    /// The same with proxies between them that the test controls.
    pub(super) fn found_apart(setup: &Setup, count: usize) -> (Self, Links) {
        let mut members = Self((0..count).map(|_| Server::new(setup.clone())).collect());
        let ports: Vec<_> = members.0.iter().map(|server| server.peer_port).collect();
        let links = Links::between(&ports, setup.scheme());
        for (at, server) in members.0.iter_mut().enumerate() {
            server.reached_at = Some(links.url(at).to_owned());
        }
        members.begin();
        (members, links)
    }

    fn begin(&mut self) {
        let cluster = self.cluster();
        for at in 0..self.0.len() {
            self.name(at, &cluster, "new");
            self.0[at].launch();
        }
        (0..self.0.len()).for_each(|at| self.wait_ready(at));
        if let Some(secured) = self.0[0].secured() {
            secured.enable_auth(&self.0[0]);
        }
    }

    /// `--initial-cluster` with all members.
    pub(super) fn cluster(&self) -> String {
        let member = |(at, server): (usize, &Server)| format!("m{}={}", at + 1, server.peer_url());
        self.0.iter().enumerate().map(member).collect::<Vec<_>>().join(",")
    }

    /// Sets a member's name, and the initial cluster.
    pub(super) fn name(&mut self, at: usize, cluster: &str, state: &str) {
        let server = &mut self.0[at];
        let (peer_url, endpoint) = (server.peer_url(), server.endpoint());
        server.set("name", &format!("m{}", at + 1));
        server.set("initial-advertise-peer-urls", &peer_url);
        server.set("advertise-client-urls", &endpoint);
        server.set("initial-cluster", cluster);
        server.set("initial-cluster-state", state);
    }

    pub(super) fn wait_ready(&self, at: usize) {
        let server = &self.0[at];
        assert!(server.wait_ready(PATIENCE), "m{} is not ready:\n{}", at + 1, server.logs.tail());
    }

    /// Starts a member that was down, and waits until it serves.
    pub(crate) fn restart(&mut self, at: usize) {
        self.0[at].launch();
        self.wait_ready(at);
    }

    pub(crate) fn wire(&self, at: usize) -> Wire {
        self.0[at].wire()
    }

    pub(super) async fn status(&self, at: usize) -> Option<StatusResponse> {
        status_of(self.wire(at)).await
    }

    /// The number of the leader, as soon as a running member claims to be it.
    pub(crate) async fn leader(&self) -> usize {
        self.leader_by(|wire| wire).await
    }

    /// The same, asked in the name of whoever has this token.
    pub(crate) async fn leader_with_token(&self, token: &str) -> usize {
        self.leader_by(|wire| wire.with_token(token)).await
    }

    pub(super) fn secured(&self) -> Option<&Arc<Secured>> {
        self.0[0].secured()
    }

    async fn leader_by(&self, asked: impl Fn(Wire) -> Wire) -> usize {
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            for at in (0..self.0.len()).filter(|at| self.0[*at].is_running()) {
                if let Some(status) = status_of(asked(self.wire(at))).await
                    && status.header.as_ref().is_some_and(|it| it.member_id == status.leader)
                {
                    return at;
                }
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("nobody leads:\n{}", self.0[0].logs.tail());
    }

    /// Asks one member with the real etcdctl.
    pub(super) fn ctl(&self, at: usize, arguments: &[&str]) -> Finished {
        self.0[at].ctl(arguments, PATIENCE)
    }

    /// The same, which must succeed; returns its output.
    pub(super) fn told(&self, at: usize, arguments: &[&str]) -> String {
        let told = self.ctl(at, arguments);
        assert_eq!(told.code, Some(0), "etcdctl {arguments:?}\n{}\n{}", told.stdout, told.stderr);
        told.stdout
    }

    /// Name, or peer URL of a member that has none yet, and id of each member.
    pub(super) fn ids(&self, at: usize) -> Vec<(String, String)> {
        let list = self.told(at, &["member", "list"]);
        let member = |line: &str| {
            let parts: Vec<_> = line.split(", ").collect();
            let name = if parts[2].is_empty() { parts[3] } else { parts[2] };
            (name.to_owned(), parts[0].to_owned())
        };
        list.lines().map(member).collect()
    }

    pub(super) fn id(&self, at: usize, name: &str) -> String {
        let ids = self.ids(at);
        let found = ids.iter().find(|(known, _)| known == name);
        found.unwrap_or_else(|| panic!("{name} is not among {ids:?}")).1.clone()
    }

    /// Waits until all running members have the same state, revision for revision.
    pub(super) async fn agree(&self) {
        let until = Instant::now() + PATIENCE;
        loop {
            let mut found = Vec::new();
            for at in (0..self.0.len()).filter(|at| self.0[*at].is_running()) {
                let hash = self.wire(at).hash_kv(0).await.expect("a member hashes");
                found.push((hash.header.unwrap_or_default().revision, hash.hash));
            }
            if found.windows(2).all(|pair| pair[0] == pair[1]) {
                return;
            }
            assert!(Instant::now() < until, "members differ: {found:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

async fn status_of(wire: Wire) -> Option<StatusResponse> {
    let asked = wire.ask(wire::STATUS, &StatusRequest {});
    tokio::time::timeout(Duration::from_secs(2), asked).await.ok()?.ok()
}
