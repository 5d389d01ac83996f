//! Locks and elections between processes, `etcdctl` and `basaltctl` mixed: one holds, the others
//! wait, and the next in line holds when the holder ends or is killed.

use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::process::{self, Finished, Logs, Server, reference, run, spawn};
use crate::transcripts::server;

/// Time for a program to start, send a request and get the response.
const PATIENCE: Duration = Duration::from_secs(20);
/// Time to live of an election's session, in etcdctl too.
const SESSION: Duration = Duration::from_secs(60);

#[test]
fn a_lock_goes_to_who_waits_when_its_holder_ends() {
    let server = server();
    let mut first = Running::start(&process::basaltctl(), &server, &["lock", "l"]);
    first.says("l/");
    let mut second = Running::start(&reference("etcdctl"), &server, &["lock", "l"]);
    waits(&server, "l/", 2);
    let mut third = Running::start(&process::basaltctl(), &server, &["lock", "l"]);
    waits(&server, "l/", 3);
    assert!(second.is_silent() && third.is_silent(), "two hold the lock");
    assert_eq!(first.stop(Signal::INT), Some(0));
    second.says("l/");
    assert!(third.is_silent(), "two hold the lock");
    assert_eq!(second.stop(Signal::TERM), Some(0));
    third.says("l/");
    // A waiting program that ends leaves no key behind.
    let mut fourth = Running::start(&process::basaltctl(), &server, &["lock", "l"]);
    waits(&server, "l/", 2);
    assert_eq!(fourth.stop(Signal::INT), Some(1));
    assert!(fourth.errors.all().contains("Error: context canceled"), "{}", fourth.errors.all());
    waits(&server, "l/", 1);
}

#[test]
fn a_lock_goes_to_who_waits_when_its_holder_is_killed() {
    let server = server();
    for (holder, heir) in [
        (process::basaltctl(), reference("etcdctl")),
        (reference("etcdctl"), process::basaltctl()),
        (process::basaltctl(), process::basaltctl()),
    ] {
        let mut first = Running::start(&holder, &server, &["lock", "l", "--ttl", "2"]);
        first.says("l/");
        let mut second = Running::start(&heir, &server, &["lock", "l", "--ttl", "2"]);
        waits(&server, "l/", 2);
        // Longer than the lease's time to live: it is kept alive, and so is that of the waiting program.
        std::thread::sleep(Duration::from_secs(4));
        assert!(second.is_silent(), "two hold the lock");
        first.stop(Signal::KILL);
        let killed = Instant::now();
        second.says("l/");
        let took = killed.elapsed();
        assert!(took > Duration::from_millis(500), "the lease had longer to live: {took:?}");
        assert_eq!(second.stop(Signal::INT), Some(0));
    }
}

#[test]
fn a_lock_is_held_for_a_command() {
    let server = server();
    let environment = "test $ETCD_LOCK_REV -gt 1 && echo ${ETCD_LOCK_KEY%/*}";
    let told = ctl(&server, &["lock", "c", "--", "sh", "-c", environment]);
    assert_eq!((told.stdout.as_str(), told.code), ("c", Some(0)), "{}", told.stderr);
    for (script, code, words) in [
        ("exit 7", 7, "Error: exit status 7"),
        ("exit 200", 200, "Error: exit status 200"),
        ("kill -9 $$", 255, "Error: signal: killed"),
        ("kill -15 $$", 255, "Error: signal: terminated"),
    ] {
        let line = ["lock", "c", "--", "sh", "-c", script];
        let theirs = run(asking(&reference("etcdctl"), &server, &line), PATIENCE);
        let ours = ctl(&server, &line);
        assert_eq!((ours.code, ours.stderr.as_str()), (Some(code), words));
        assert_eq!((theirs.code, theirs.stderr), (ours.code, ours.stderr));
    }
    // The command ends before the lock is released, and one holds after the other.
    let busy = "echo begin >>$LOG; sleep 0.3; echo end >>$LOG";
    let scratch = process::Scratch::new();
    let log = scratch.path().join("log");
    let programs = [process::basaltctl(), reference("etcdctl"), process::basaltctl()];
    let running = programs.map(|program| {
        let mut command = asking(&program, &server, &["lock", "c", "--", "sh", "-c", busy]);
        command.env("LOG", &log);
        Running::of(command)
    });
    for mut one in running {
        assert_eq!(one.wait(), Some(0), "{}", one.errors.all());
    }
    let told = std::fs::read_to_string(&log).expect("written");
    assert_eq!(told, "begin\nend\n".repeat(3));
}

#[test]
fn an_election_goes_to_the_next_when_its_leader_ends_or_is_killed() {
    let server = server();
    let ours = process::basaltctl();
    let watchers = [
        Running::start(&ours, &server, &["elect", "-l", "e"]),
        Running::start(&reference("etcdctl"), &server, &["elect", "-l", "e"]),
    ];
    let mut first = Running::start(&ours, &server, &["elect", "e", "first"]);
    first.says("first");
    let mut second = Running::start(&reference("etcdctl"), &server, &["elect", "e", "second"]);
    waits(&server, "e/", 2);
    let third = Running::start(&ours, &server, &["elect", "e", "third"]);
    waits(&server, "e/", 3);
    assert_eq!(first.stop(Signal::INT), Some(0));
    second.says("second");
    assert!(third.is_silent(), "two lead");
    second.stop(Signal::KILL);
    let killed = Instant::now();
    assert!(third.output.wait_for("third", SESSION + PATIENCE), "nobody leads");
    assert!(killed.elapsed() > SESSION / 2, "led while the dead one's lease lived");
    for mut watcher in watchers {
        watcher.says("third");
        assert_eq!(watcher.stop(Signal::INT), Some(0));
        let told = watcher.output.all();
        let leaders: Vec<_> = told.lines().filter(|line| !line.starts_with("e/")).collect();
        assert_eq!(leaders, ["first", "second", "third"]);
    }
}

/// One of the programs, with this server as its endpoint.
fn asking(program: &Path, server: &Server, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments).env("ETCDCTL_ENDPOINTS", format!("127.0.0.1:{}", server.port));
    command
}

fn ctl(server: &Server, arguments: &[&str]) -> Finished {
    run(asking(&process::basaltctl(), server, arguments), PATIENCE)
}

/// Waits until this many keys are in the queue.
fn waits(server: &Server, prefix: &str, count: usize) {
    let until = Instant::now() + PATIENCE;
    loop {
        let told = ctl(server, &["get", prefix, "--prefix", "--keys-only"]);
        let keys = told.stdout.lines().filter(|line| !line.is_empty()).count();
        if keys == count {
            return;
        }
        let why = &told.stderr;
        assert!(Instant::now() < until, "{keys} take part, not {count}: {why}");
    }
}

/// A process that holds, leads or waits.
struct Running {
    child: Child,
    output: Logs,
    errors: Logs,
}

impl Running {
    fn start(program: &Path, server: &Server, arguments: &[&str]) -> Self {
        Self::of(asking(program, server, arguments))
    }

    fn of(command: Command) -> Self {
        let mut child = spawn(command);
        let (output, errors) = (Logs::default(), Logs::default());
        output.read(child.stdout.take().expect("piped"));
        errors.read(child.stderr.take().expect("piped"));
        Self { child, output, errors }
    }

    fn says(&mut self, text: &str) {
        assert!(self.output.wait_for(text, PATIENCE), "no {text:?}: {}", self.errors.all());
    }

    fn is_silent(&self) -> bool {
        !self.output.mentions("")
    }

    /// Sends it a signal and waits for its end.
    fn stop(&mut self, signal: Signal) -> Option<i32> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        kill_process(pid.expect("a pid"), signal).expect("our own child can be signalled");
        self.wait()
    }

    fn wait(&mut self) -> Option<i32> {
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            if let Some(status) = self.child.try_wait().expect("our own child can be awaited") {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!("it goes on:\n{}\n{}", self.output.tail(), self.errors.tail());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
