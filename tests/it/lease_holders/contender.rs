//! Processes of third-party clients that contend, and the thread that reads the output of each.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use super::MOMENT;
use super::judge::{Answer, Judge};
use crate::compare::runtime;
use crate::process::{Logs, reference, spawn_with};
use crate::wire::Wire;

/// The client libraries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Client {
    Go,
    Node,
    Python,
    Java,
}

impl Client {
    pub(super) const ALL: [Self; 4] = [Self::Go, Self::Node, Self::Python, Self::Java];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Go => "go",
            Self::Node => "node",
            Self::Python => "python",
            Self::Java => "java",
        }
    }

    /// The command line of this client: kind and name of the contest, and the endpoints.
    fn command(self, kind: &str, name: &str, ttl: u64, endpoints: &str) -> Command {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let (target, clients) = (root.join("target"), root.join("tests/clients"));
        let ttl = ttl.to_string();
        let mut command = match self {
            Self::Go => {
                let mut command = Command::new(reference("go-client"));
                command.args(["-hold", kind, "-name", name, "-ttl", &ttl, "-endpoint", endpoints]);
                return command;
            }
            Self::Node => {
                let mut command = Command::new("node");
                command.env("NODE_PATH", target.join("node/node_modules"));
                command.arg(clients.join("node/hold.js"));
                command
            }
            Self::Python => {
                let mut command = Command::new(target.join("python/bin/python"));
                command.arg(clients.join("python/hold.py"));
                command
            }
            Self::Java => {
                let jars = format!("{0}/classes:{0}/lib/*", target.join("java").display());
                let mut command = Command::new("java");
                // Short-lived processes, many on few cores: compile little, use a simple collector.
                command.args(["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xmx128m"]);
                command.args(["-cp", &jars, "Hold"]);
                command
            }
        };
        command.args([kind, name, &ttl, endpoints]);
        command
    }
}

/// One lock or election, and the faults found in it.
pub(super) struct Contest {
    /// `lock` or `election`.
    pub(super) kind: &'static str,
    pub(super) name: &'static str,
    pub(super) judge: Judge,
    pub(super) fault: Option<String>,
}

/// One process.
pub(super) struct Contender {
    pub(super) who: usize,
    pub(super) client: Client,
    contest: Arc<Mutex<Contest>>,
    child: Child,
    errors: Logs,
}

impl Contender {
    pub(super) fn start(
        who: usize,
        client: Client,
        contest: &Arc<Mutex<Contest>>,
        ttl: u64,
        endpoints: &str,
    ) -> Self {
        let command = {
            let contest = contest.lock().unwrap();
            client.command(contest.kind, contest.name, ttl, endpoints)
        };
        let mut child = spawn_with(command, [Stdio::piped(), Stdio::piped(), Stdio::piped()]);
        let errors = Logs::default();
        errors.read(child.stderr.take().expect("piped"));
        let says = BufReader::new(child.stdout.take().expect("piped"));
        let mut answers = child.stdin.take().expect("piped");
        let heard = Arc::clone(contest);
        let asked = endpoints.split(',').next().expect("one at least").to_owned();
        std::thread::spawn(move || {
            for line in says.lines().map_while(Result::ok) {
                let mut contest = heard.lock().unwrap();
                let is_there = |revision| is_there(&asked, revision);
                let word: &[u8] = match contest.judge.hear(who, line.trim(), is_there) {
                    Ok(Answer::Go) => b"go\n",
                    Ok(Answer::Stop) => b"stop\n",
                    Ok(Answer::Silence) => continue,
                    Err(fault) => {
                        let (name, heard) = (contest.name, contest.judge.heard());
                        let fault = format!("{name}, {client:?}: {fault}\n{heard}");
                        contest.fault.get_or_insert(fault);
                        return;
                    }
                };
                drop(contest);
                // It may have been killed meanwhile.
                let _ = answers.write_all(word);
            }
        });
        Self { who, client, contest: Arc::clone(contest), child, errors }
    }

    /// kill -9. Its earlier lines, even if not read yet, come before those of the next holder.
    pub(super) fn kill(&mut self) {
        self.end();
        self.contest.lock().unwrap().judge.died(self.who);
    }

    fn end(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Its exit code and standard error, if it ended by itself.
    pub(super) fn ended(&mut self) -> Option<(Option<i32>, String)> {
        let status = self.child.try_wait().expect("our own child can be awaited")?;
        Some((status.code(), self.errors.tail()))
    }

    /// Waits for its end, for this many moments.
    pub(super) fn wait(&mut self, moments: u32) -> Result<(), String> {
        let who = format!("{:?} {}", self.client, self.who);
        for _ in 0..moments {
            match self.ended() {
                Some((Some(0), _)) => return Ok(()),
                Some((code, errors)) => return Err(format!("{who} ends with {code:?}: {errors}")),
                None => std::thread::sleep(MOMENT),
            }
        }
        Err(format!("{who} waits for ever: {}", self.errors.tail()))
    }
}

/// True if the store has a key with this create revision; waits until the store answers.
fn is_there(endpoint: &str, revision: i64) -> bool {
    runtime().block_on(async {
        let wire = Wire::new(endpoint);
        loop {
            if let Ok(all) = wire.everything(0).await {
                return all.kvs.iter().any(|kv| kv.create_revision == revision);
            }
            tokio::time::sleep(MOMENT).await;
        }
    })
}

impl Drop for Contender {
    fn drop(&mut self) {
        self.end();
    }
}
