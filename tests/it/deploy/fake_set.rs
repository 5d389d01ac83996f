//! The part of Kubernetes that pods of a StatefulSet see: stable names (here addresses), volumes that stay with them, a
//! signal at their end, and the API server's word for how many they shall be. Pods are started, told to end, and lose their
//! volumes as by the controller of the set.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::{sleep, spawn};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};
use serde_json::Value;

use crate::ports;
use crate::process::{self, Finished, Logs, PATIENCE, Scratch, reference, run};

/// The pod's `terminationGracePeriodSeconds`.
const GRACE: Duration = Duration::from_secs(30);
const TOKEN: &str = "the account's token";
const PATH: &str = "/apis/apps/v1/namespaces/there/statefulsets/basalt/scale";

/// A member as etcdctl lists it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Listed {
    pub(super) id: u64,
    pub(super) name: String,
    pub(super) is_learner: bool,
}

struct Running {
    child: Child,
    logs: Logs,
}

pub(super) struct FakeSet {
    scratch: Scratch,
    net: String,
    client_port: u16,
    peer_port: u16,
    state_port: u16,
    scheme: &'static str,
    /// Flags of all pods, beside those of every test.
    flags: Vec<String>,
    /// Flags of etcdctl.
    credentials: Vec<String>,
    api: String,
    replicas: Arc<AtomicU32>,
    pods: BTreeMap<u32, Running>,
}

impl FakeSet {
    pub(super) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = std::process::id() * 8 + NEXT.fetch_add(1, Ordering::Relaxed);
        let scratch = Scratch::new();
        let account = scratch.path().join("account");
        fs::create_dir(&account).unwrap();
        fs::write(account.join("token"), format!("{TOKEN}\n")).unwrap();
        fs::write(account.join("namespace"), "there").unwrap();
        let replicas = Arc::new(AtomicU32::new(0));
        Self {
            net: format!("127.{}.{}.1", 64 + number % 128, number / 128 % 250),
            client_port: ports::free(),
            peer_port: ports::free(),
            state_port: ports::free(),
            scheme: "http",
            flags: Vec::new(),
            credentials: Vec::new(),
            api: api_server(&replicas),
            replicas,
            pods: BTreeMap::new(),
            scratch,
        }
    }

    /// The same over TLS.
    pub(super) fn secured(mut self, flags: Vec<String>, credentials: Vec<String>) -> Self {
        (self.scheme, self.flags, self.credentials) = ("https", flags, credentials);
        self
    }

    pub(super) fn credentials_are(&mut self, credentials: Vec<String>) {
        self.credentials = credentials;
    }

    /// The API server refuses everyone from now on.
    pub(super) fn forget_account(&self) {
        fs::write(self.scratch.path().join("account/token"), "another").unwrap();
    }

    /// The address of a pod.
    pub(super) fn address(&self, ordinal: u32) -> String {
        format!("{}{ordinal}", self.net)
    }

    pub(super) fn peer_url(&self, ordinal: u32) -> String {
        format!("{}://{}:{}", self.scheme, self.address(ordinal), self.peer_port)
    }

    fn client_url(&self, ordinal: u32) -> String {
        format!("{}://{}:{}", self.scheme, self.address(ordinal), self.client_port)
    }

    fn volume(&self, ordinal: u32) -> PathBuf {
        self.scratch.path().join(format!("basalt-{ordinal}"))
    }

    /// The command of the container.
    fn command(&self, ordinal: u32) -> Command {
        let Self { net, client_port, peer_port, state_port, scheme, .. } = self;
        let mut command = Command::new(process::basalt());
        command.arg("pod").args([
            format!("--name=basalt-{ordinal}"),
            format!("--data-dir={}", self.volume(ordinal).display()),
            format!("--listen-client-urls={}", self.client_url(ordinal)),
            format!("--listen-peer-urls={}", self.peer_url(ordinal)),
            format!("--pod-client-url={scheme}://{net}{{ordinal}}:{client_port}"),
            format!("--pod-peer-url={scheme}://{net}{{ordinal}}:{peer_port}"),
            format!("--pod-listen={net}{{ordinal}}:{state_port}"),
            format!("--pod-api={}", self.api),
            format!("--pod-account={}", self.scratch.path().join("account").display()),
            "--heartbeat-interval=50".to_owned(),
            "--election-timeout=500".to_owned(),
        ]);
        command.args(&self.flags).current_dir(self.scratch.path());
        command
    }

    pub(super) fn start(&mut self, ordinal: u32) {
        fs::create_dir_all(self.volume(ordinal)).unwrap();
        let mut child = process::spawn(self.command(ordinal));
        let logs = Logs::default();
        Logs::default().read(child.stdout.take().unwrap());
        logs.read(child.stderr.take().unwrap());
        let before = self.pods.insert(ordinal, Running { child, logs });
        assert!(before.is_none(), "it runs already");
    }

    /// Sends a signal to a pod, which is the supervising process.
    fn signal(&self, ordinal: u32, signal: Signal) {
        let pid = i32::try_from(self.pods[&ordinal].child.id()).unwrap();
        rustix::process::kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
    }

    /// Waits for the end of a pod; it may take its grace period.
    fn ended(&mut self, ordinal: u32) {
        let mut pod = self.pods.remove(&ordinal).expect("it runs");
        let until = Instant::now() + GRACE;
        while pod.child.try_wait().unwrap().is_none() {
            assert!(Instant::now() < until, "basalt-{ordinal} does not end:\n{}", pod.logs.tail());
            sleep(Duration::from_millis(10));
        }
    }

    /// A pod that is deleted, by a drain or a rolling update: it comes again.
    pub(super) fn restart(&mut self, ordinal: u32) {
        self.signal(ordinal, Signal::TERM);
        self.ended(ordinal);
        self.start(ordinal);
    }

    /// A pod whose machine loses power. The kernel ends the member after the pod, here as in a container.
    pub(super) fn crash(&mut self, ordinal: u32) {
        let pid = self.pods[&ordinal].child.id();
        let member = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
        self.signal(ordinal, Signal::KILL);
        self.ended(ordinal);
        for member in member.unwrap_or_default().split_whitespace() {
            while PathBuf::from("/proc").join(member).exists() {
                sleep(Duration::from_millis(5));
            }
        }
    }

    pub(super) fn lose_volume(&self, ordinal: u32) {
        assert!(!self.pods.contains_key(&ordinal), "it runs");
        fs::remove_dir_all(self.volume(ordinal)).unwrap();
    }

    /// Tells the API's word alone; the controller does nothing.
    pub(super) fn set_replicas(&self, replicas: u32) {
        self.replicas.store(replicas, Ordering::Relaxed);
    }

    /// `kubectl scale`, and what the controller does, with all pods at once. Volumes are kept.
    pub(super) fn scale(&mut self, replicas: u32) {
        self.set_replicas(replicas);
        let away: Vec<u32> = self.pods.keys().copied().filter(|it| *it >= replicas).collect();
        away.iter().for_each(|ordinal| self.signal(*ordinal, Signal::TERM));
        away.into_iter().for_each(|ordinal| self.ended(ordinal));
        for ordinal in 0..replicas {
            if !self.pods.contains_key(&ordinal) {
                self.start(ordinal);
            }
        }
    }

    pub(super) fn logs(&self, ordinal: u32) -> &Logs {
        &self.pods[&ordinal].logs
    }

    /// Asks with the real etcdctl, through one pod or through all that run.
    pub(super) fn ctl(&self, through: Option<u32>, arguments: &[&str]) -> Finished {
        let running: Vec<u32> =
            through.map_or_else(|| self.pods.keys().copied().collect(), |it| vec![it]);
        let endpoints: Vec<_> = running.iter().map(|it| self.client_url(*it)).collect();
        let mut command = Command::new(reference("etcdctl"));
        command.args(arguments).arg(format!("--endpoints={}", endpoints.join(",")));
        command.args(&self.credentials);
        run(command, PATIENCE)
    }

    /// The same until it succeeds.
    pub(super) fn told(&self, through: Option<u32>, arguments: &[&str]) -> String {
        let until = Instant::now() + PATIENCE;
        loop {
            let told = self.ctl(through, arguments);
            if told.code == Some(0) {
                return told.stdout;
            }
            assert!(Instant::now() < until, "{arguments:?}: {}\n{}", told.stderr, self.tails());
            sleep(Duration::from_millis(100));
        }
    }

    pub(super) fn members(&self) -> Vec<Listed> {
        let told = self.told(None, &["member", "list", "-w", "json"]);
        let told: Value = serde_json::from_str(&told).unwrap();
        let members = told["members"].as_array().unwrap().iter().map(|member| Listed {
            id: member["ID"].as_u64().unwrap(),
            name: member["name"].as_str().unwrap_or_default().to_owned(),
            is_learner: member["isLearner"] == true,
        });
        let mut members: Vec<_> = members.collect();
        members.sort_by(|left, right| left.name.cmp(&right.name));
        members
    }

    /// Waits until the members are the pods below this ordinal, all of them voters, and each serves.
    pub(super) fn settles(&self, count: u32) -> Vec<Listed> {
        let until = Instant::now() + PATIENCE;
        let names: Vec<_> = (0..count).map(|ordinal| format!("basalt-{ordinal}")).collect();
        loop {
            let members = self.members();
            let is_so = members.iter().map(|it| &it.name).eq(&names)
                && members.iter().all(|it| !it.is_learner);
            if is_so {
                for ordinal in 0..count {
                    self.told(Some(ordinal), &["get", "settled"]);
                }
                return members;
            }
            assert!(Instant::now() < until, "{members:?}\n{}", self.tails());
            sleep(Duration::from_millis(100));
        }
    }

    pub(super) fn tails(&self) -> String {
        let tails = self
            .pods
            .iter()
            .map(|(ordinal, pod)| format!("--- basalt-{ordinal}\n{}\n", pod.logs.tail()));
        tails.collect()
    }
}

impl Drop for FakeSet {
    fn drop(&mut self) {
        for pod in self.pods.values_mut() {
            let _ = pod.child.kill();
            let _ = pod.child.wait();
        }
    }
}

/// Answers with the size of the set, to those who show the account's token.
fn api_server(replicas: &Arc<AtomicU32>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let replicas = Arc::clone(replicas);
    spawn(move || {
        for stream in listener.incoming().flatten() {
            let _ = answer(stream, replicas.load(Ordering::Relaxed));
        }
    });
    url
}

fn answer(mut stream: TcpStream, replicas: u32) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let lines = BufReader::new(stream.try_clone()?).lines().map_while(Result::ok);
    let head: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
    let shows_token = head
        .iter()
        .any(|line| line.eq_ignore_ascii_case(&format!("authorization: Bearer {TOKEN}")));
    let is_asked = head.first().is_some_and(|line| *line == format!("GET {PATH} HTTP/1.1"));
    let (status, body) = match shows_token && is_asked {
        // A set of none has no such field.
        true if replicas == 0 => ("200 OK", r#"{"kind":"Scale","spec":{}}"#.to_owned()),
        true => (
            "200 OK",
            format!(
                r#"{{"kind":"Scale","spec":{{"replicas":{replicas}}},"status":{{"replicas":9}}}}"#
            ),
        ),
        false => ("403 Forbidden", r#"{"kind":"Status"}"#.to_owned()),
    };
    write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}
