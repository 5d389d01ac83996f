//! Starts real server processes, reads their logs, and removes them: whatever a test
//! does, no process and no file stays behind.
//!
//! ```text
//! test ── Setup ──► spawner thread ──► setpriv --pdeathsig KILL <server>     killed with us
//!                                          │ stderr
//!                                          ▼
//!                        reader thread ──► Logs ── wait_for("ready to serve client requests")
//! ```

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Condvar, Mutex, OnceLock};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, Signal};

use crate::ports;
use crate::secured::{ROOT, Secured};
use crate::wire::Wire;

/// Long enough for a debug build on a machine that builds something else at the same time.
const READY_SECONDS_MAX: u64 = 30;
/// How long a test waits for what must come, in a debug build on a machine that does something else too.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// Long enough to compile one small crate.
const BUILD_WAIT: Duration = Duration::from_secs(600);
const START_ATTEMPTS_MAX: u32 = 3;
const READY: &str = "ready to serve client requests";
/// Open files for a thousand connections and both of their ends.
const OPEN_FILES: u64 = 16_384;

/// The server under test: Basalt, or the program that `BASALT_BIN` names.
pub(crate) fn basalt() -> PathBuf {
    std::env::var_os("BASALT_BIN")
        .map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_basalt")), PathBuf::from)
}

/// The real etcd to compare with, as `tools/setup` built it, or the program that `ETCD_BIN` names.
pub(crate) fn etcd() -> PathBuf {
    std::env::var_os("ETCD_BIN").map_or_else(|| reference("etcd"), PathBuf::from)
}

/// True if the program is a real etcd, put in Basalt's place by `BASALT_BIN`.
pub(crate) fn is_etcd(binary: &Path) -> bool {
    let mut command = Command::new(binary);
    command.arg("--version");
    let told = run(command, Duration::from_secs(10)).stdout;
    told.contains("etcd Version") && !told.to_lowercase().contains("basalt")
}

/// A program that `tools/setup` built below `target/reference`.
pub(crate) fn reference(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/reference").join(name);
    assert!(path.exists(), "{} is missing: run tools/setup", path.display());
    path
}

/// Our client, a program of another package.
pub(crate) fn basaltctl() -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| built("basaltctl")).clone()
}

/// Our tool for files, a program of another package.
pub(crate) fn basaltutl() -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| built("basaltutl")).clone()
}

/// Our load generator, a program of another package.
pub(crate) fn basalt_bench() -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| built("basalt-bench")).clone()
}

/// Runs a server without io_uring and privileges, a program of another package.
pub(crate) fn sandbox() -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| built("sandbox")).clone()
}

/// A program of the present source, built if it is not: Cargo builds only those of our own package for us.
fn built(name: &str) -> PathBuf {
    let beside = Path::new(env!("CARGO_BIN_EXE_basalt")).parent().expect("it is in a directory");
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--quiet", "-p", name]).current_dir(env!("CARGO_MANIFEST_DIR"));
    if beside.ends_with("release") {
        cargo.arg("--release");
    }
    let told = run(cargo, BUILD_WAIT);
    assert_eq!(told.code, Some(0), "{name} does not build:\n{}", told.stderr);
    beside.join(name)
}

/// A directory of its own below `target/tmp`, removed when dropped.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        static SWEPT: OnceLock<()> = OnceLock::new();
        let root = Path::new(env!("CARGO_TARGET_TMPDIR"));
        SWEPT.get_or_init(|| sweep(root));
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = root.join(format!("it-{}-{number}", std::process::id()));
        fs::create_dir_all(&path).expect("scratch directory can be made");
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Removes the directories of killed test processes.
fn sweep(root: &Path) {
    for entry in fs::read_dir(root).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(pid) = name.strip_prefix("it-").and_then(|it| it.split('-').next()) else {
            continue;
        };
        if !Path::new("/proc").join(pid).exists() {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Lines a process wrote so far.
#[derive(Clone, Default)]
pub(crate) struct Logs(Arc<(Mutex<(Vec<String>, bool)>, Condvar)>);

impl Logs {
    pub(crate) fn read(&self, from: impl Read + Send + 'static) {
        let logs = self.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(from).split(b'\n').map_while(Result::ok) {
                logs.0.0.lock().unwrap().0.push(String::from_utf8_lossy(&line).into_owned());
                logs.0.1.notify_all();
            }
            logs.0.0.lock().unwrap().1 = true;
            logs.0.1.notify_all();
        });
    }

    /// The first line with `text`, if it came before `wait` passed or the process closed its stderr.
    pub(crate) fn line(&self, text: &str, wait: Duration) -> Option<String> {
        let until = Instant::now() + wait;
        let mut state = self.0.0.lock().unwrap();
        loop {
            if let Some(line) = state.0.iter().find(|line| line.contains(text)) {
                return Some(line.clone());
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || state.1 {
                return None;
            }
            state = self.0.1.wait_timeout(state, left).unwrap().0;
        }
    }

    /// True if there is such a [`line`](Self::line).
    pub(crate) fn wait_for(&self, text: &str, wait: Duration) -> bool {
        self.line(text, wait).is_some()
    }

    /// True if any line so far has `text`, in any case. A line can be read later than the answer that the process gave after it.
    pub(crate) fn mentions(&self, text: &str) -> bool {
        let state = self.0.0.lock().unwrap();
        state.0.iter().any(|line| line.to_lowercase().contains(text))
    }

    /// Everything, once the process has closed its stderr or two seconds have passed.
    pub(crate) fn all(&self) -> String {
        let state = self.0.0.lock().unwrap();
        let wait = Duration::from_secs(2);
        let (state, _) = self.0.1.wait_timeout_while(state, wait, |it| !it.1).unwrap();
        state.0.join("\n")
    }

    /// The last lines, for the message of a failed test.
    pub(crate) fn tail(&self) -> String {
        let state = self.0.0.lock().unwrap();
        state.0[state.0.len().saturating_sub(25)..].join("\n")
    }
}

/// The settings of a server. Two servers with equal settings have the same member and cluster id,
/// because the advertised addresses are fixed text; they are never dialed.
#[derive(Clone)]
pub(crate) struct Setup {
    pub(crate) binary: PathBuf,
    /// Certificates and users, if clients and other members need them.
    secured: Option<Arc<Secured>>,
    flags: BTreeMap<String, String>,
    environment: BTreeMap<String, String>,
}

impl Setup {
    pub(crate) fn new(binary: PathBuf) -> Self {
        let (flags, environment) = (BTreeMap::new(), BTreeMap::new());
        let setup = Self { binary, secured: None, flags, environment };
        setup
            .flag("name", "pillar")
            .flag("initial-advertise-peer-urls", "http://127.0.0.1:12380")
            .flag("initial-cluster", "pillar=http://127.0.0.1:12380")
            .flag("advertise-client-urls", "http://127.0.0.1:12379")
            .flag("heartbeat-interval", "20")
            .flag("election-timeout", "200")
    }

    pub(crate) fn flag(mut self, name: &str, value: &str) -> Self {
        self.flags.insert(name.to_owned(), value.to_owned());
        self
    }

    /// Demands these certificates, and users once auth is enabled.
    pub(crate) fn secured(self, by: &Arc<Secured>) -> Self {
        let setup = by.flags(self);
        Self { secured: Some(Arc::clone(by)), ..setup }.told_own_url()
    }

    /// Advertises an URL of the right scheme; nobody dials it.
    fn told_own_url(self) -> Self {
        let url = format!("{}://127.0.0.1:12379", self.scheme());
        self.flag("advertise-client-urls", &url)
    }

    /// The scheme of all URLs.
    pub(crate) fn scheme(&self) -> &'static str {
        if self.secured.is_some() { "https" } else { "http" }
    }

    /// Replaces the program.
    pub(crate) fn program(self, binary: PathBuf) -> Self {
        Self { binary, ..self }
    }

    /// A variable of the environment of the process.
    pub(crate) fn variable(mut self, name: &str, value: &str) -> Self {
        self.environment.insert(name.to_owned(), value.to_owned());
        self
    }

    /// Starts in a new directory and waits until clients are served.
    pub(crate) fn start(&self) -> Server {
        let mut server = Server::new(self.clone());
        server.start();
        server
    }
}

/// One member with its data directory; started and stopped as often as the test likes.
pub(crate) struct Server {
    setup: Setup,
    scratch: Scratch,
    pub(crate) port: u16,
    pub(crate) peer_port: u16,
    /// Address at which other members reach it, if there is a proxy between.
    pub(crate) reached_at: Option<String>,
    child: Option<Child>,
    pub(crate) logs: Logs,
}

impl Server {
    pub(crate) fn new(setup: Setup) -> Self {
        let (port, peer_port) = (ports::free(), ports::free());
        let scratch = Scratch::new();
        let (reached_at, child, logs) = (None, None, Logs::default());
        Self { setup, scratch, port, peer_port, reached_at, child, logs }
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("{}://127.0.0.1:{}", self.setup.scheme(), self.port)
    }

    /// Certificates and users, if it demands them.
    pub(crate) fn secured(&self) -> Option<&Arc<Secured>> {
        self.setup.secured.as_ref()
    }

    /// A connection to it: root's, if it knows users.
    pub(crate) fn wire(&self) -> Wire {
        match self.secured() {
            Some(secured) => secured.wire(&self.endpoint(), ROOT),
            None => Wire::new(&self.endpoint()),
        }
    }

    /// The output of etcdctl, as root if it knows users.
    pub(crate) fn ctl(&self, arguments: &[&str], wait: Duration) -> Finished {
        let mut command = Command::new(reference("etcdctl"));
        command.args(arguments).arg("--endpoints").arg(self.endpoint());
        if let Some(secured) = self.secured() {
            command.args(secured.client_flags(ROOT));
        }
        run(command, wait)
    }

    /// URL at which other members reach it.
    pub(crate) fn peer_url(&self) -> String {
        let own = || format!("{}://127.0.0.1:{}", self.setup.scheme(), self.peer_port);
        self.reached_at.clone().unwrap_or_else(own)
    }

    /// Changes a flag for the next start.
    pub(crate) fn set(&mut self, name: &str, value: &str) {
        self.setup.flags.insert(name.to_owned(), value.to_owned());
    }

    /// Changes the program for the next start.
    pub(crate) fn set_program(&mut self, binary: PathBuf) {
        self.setup.binary = binary;
    }

    /// Sets or removes an environment variable for the next start.
    pub(crate) fn set_variable(&mut self, name: &str, value: Option<&str>) {
        let environment = &mut self.setup.environment;
        match value {
            Some(value) => environment.insert(name.to_owned(), value.to_owned()),
            None => environment.remove(name),
        };
    }

    pub(crate) fn is_running(&self) -> bool {
        self.child.is_some()
    }

    pub(crate) fn data_dir(&self) -> PathBuf {
        self.scratch.path().join("data")
    }

    /// The directory whose content a power loss may set back.
    pub(crate) fn store_dir(&self) -> PathBuf {
        let store = self.data_dir().join("member/store");
        match store.exists() {
            true => store,
            false => self.data_dir().join("member/snap"),
        }
    }

    /// Files of the write-ahead log, oldest first.
    pub(crate) fn wal_files(&self) -> Vec<PathBuf> {
        let mut files: Vec<_> = fs::read_dir(self.data_dir().join("member/wal"))
            .expect("the WAL directory exists")
            .map(|entry| entry.expect("entry is readable").path())
            .filter(|path| path.extension().is_some_and(|it| it == "wal"))
            .collect();
        files.sort();
        files
    }

    /// True if this is a real etcd put in Basalt's place by `BASALT_BIN`: its disk format and its
    /// texts about it are its own.
    pub(crate) fn is_etcd(&self) -> bool {
        self.data_dir().join("member/snap/db").exists()
    }

    pub(crate) fn start(&mut self) {
        for _ in 0..START_ATTEMPTS_MAX {
            self.launch();
            if self.wait_ready(Duration::from_secs(READY_SECONDS_MAX)) {
                return;
            }
            self.kill();
            if !self.logs.all().to_lowercase().contains("address already in use") {
                break;
            }
            // Another process has taken a port meanwhile.
            (self.port, self.peer_port) = (ports::free(), ports::free());
        }
        panic!("{} is not ready:\n{}", self.setup.binary.display(), self.logs.tail());
    }

    /// Starts without waiting.
    pub(crate) fn launch(&mut self) {
        assert!(self.child.is_none(), "already running");
        let mut child = spawn(self.command());
        self.logs = Logs::default();
        // No output is expected there, but a full pipe would stop the server.
        Logs::default().read(child.stdout.take().expect("stdout is piped"));
        self.logs.read(child.stderr.take().expect("stderr is piped"));
        self.child = Some(child);
    }

    pub(crate) fn wait_ready(&self, wait: Duration) -> bool {
        self.logs.wait_for(READY, wait)
    }

    /// The command line, for tests that run it themselves.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(&self.setup.binary);
        let mut flags = self.setup.flags.clone();
        let listen = [
            ("data-dir", self.data_dir().display().to_string()),
            ("listen-client-urls", self.endpoint()),
            ("listen-peer-urls", format!("{}://127.0.0.1:{}", self.setup.scheme(), self.peer_port)),
        ];
        for (name, value) in listen {
            flags.entry(name.to_owned()).or_insert(value);
        }
        command.args(flags.iter().map(|(name, value)| format!("--{name}={value}")));
        command.envs(&self.setup.environment).current_dir(self.scratch.path());
        command
    }

    pub(crate) fn pid(&self) -> i32 {
        let child = self.child.as_ref().expect("is running");
        i32::try_from(child.id()).expect("a pid is small")
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.pid()).expect("a pid is not zero");
        rustix::process::kill_process(pid, signal).expect("our own child can be signalled");
    }

    /// kill -9; buffered writes of the process are lost, the kernel's page cache stays.
    pub(crate) fn kill(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        let _ = child.kill();
        let _ = child.wait();
    }

    /// The exit status if the process ends by itself within `wait`.
    pub(crate) fn wait_exit(&mut self, wait: Duration) -> Option<ExitStatus> {
        let until = Instant::now() + wait;
        let child = self.child.as_mut().expect("is running");
        while Instant::now() < until {
            if let Some(status) = child.try_wait().expect("our own child can be awaited") {
                return Some(status);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        None
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The output of a program that ended by itself, or was killed after `wait`.
pub(crate) struct Finished {
    /// `None` if it had to be killed.
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Runs a program to its end.
pub(crate) fn run(command: Command, wait: Duration) -> Finished {
    let mut child = spawn(command);
    let (stdout, stderr) = (Logs::default(), Logs::default());
    stdout.read(child.stdout.take().expect("piped"));
    stderr.read(child.stderr.take().expect("piped"));
    let until = Instant::now() + wait;
    let code = loop {
        if let Some(status) = child.try_wait().expect("our own child can be awaited") {
            break status.code();
        }
        if Instant::now() > until {
            let _ = child.kill();
            let _ = child.wait();
            break None;
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    Finished { code, stdout: stdout.all(), stderr: stderr.all() }
}

/// Starts a child that the kernel kills when this process ends, however it ends.
///
/// The kernel observes the *thread* that forked, so one thread that lives as long as the process
/// starts all children.
pub(crate) fn spawn(command: Command) -> Child {
    spawn_with(command, [Stdio::null(), Stdio::piped(), Stdio::piped()])
}

/// The same with given standard input, output and error.
pub(crate) fn spawn_with(command: Command, standard: [Stdio; 3]) -> Child {
    type Order = (Command, Sender<std::io::Result<Child>>);
    static SPAWNER: OnceLock<Mutex<Sender<Order>>> = OnceLock::new();
    let orders = SPAWNER.get_or_init(|| {
        raise_open_files();
        let (orders, inbox) = channel::<Order>();
        std::thread::spawn(move || {
            for (mut command, answer) in inbox {
                let _ = answer.send(command.spawn());
            }
        });
        Mutex::new(orders)
    });
    let program = command.get_program().to_owned();
    let (answer, outcome) = channel();
    orders
        .lock()
        .unwrap()
        .send((bound_to_us(command, standard), answer))
        .expect("the spawner lives");
    let spawned = outcome.recv().expect("the spawner answers");
    spawned.unwrap_or_else(|error| panic!("cannot start {}: {error}", program.display()))
}

/// The same command behind `setpriv --pdeathsig`.
fn bound_to_us(command: Command, [stdin, stdout, stderr]: [Stdio; 3]) -> Command {
    let mut bound = Command::new("setpriv");
    bound.args(["--pdeathsig", "KILL", "--"]).arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => bound.env(name, value),
            None => bound.env_remove(name),
        };
    }
    if let Some(dir) = command.get_current_dir() {
        bound.current_dir(dir);
    }
    bound.stdin(stdin).stdout(stdout).stderr(stderr);
    bound
}

/// Raises our own limit of open files as far as it goes; children inherit it.
fn raise_open_files() {
    let now = rustix::process::getrlimit(Resource::Nofile);
    let most = now.maximum.unwrap_or(OPEN_FILES);
    let wanted = Rlimit {
        current: Some(most.min(OPEN_FILES).max(now.current.unwrap_or(0))),
        maximum: now.maximum,
    };
    let _ = rustix::process::setrlimit(Resource::Nofile, wanted);
}
