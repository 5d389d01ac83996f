//! `basalt pod`: runs a member as a pod of a StatefulSet. It shares nothing with the member but the binary.
//!
//! ```text
//!  run ─► cli ─► Pod ─┬─ states   tells other pods if this one has data
//!                     ├─ join     until the member may start: listed, added, replaced, founded
//!                     ├─ child    the member's process
//!                     ├─ keeper   while it runs: promotion, members without a pod
//!                     └─ leave    at a signal: removed if the set shall not have this pod any more
//!  members: requests to members       kubernetes: the size of the set       limits: every bound
//! ```
//!
//! Membership follows the size of the set and the list of members, never signals alone: a pod that is restarted or drained
//! gets the same signal as one that is scaled away.

mod child;
mod cli;
mod join;
mod keeper;
mod kubernetes;
mod leave;
mod limits;
mod log;
mod members;
mod names;
mod states;

use std::process::ExitStatus;

use basalt_proto::etcdserverpb::Member as Listed;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::sleep;

use self::child::Child;
use self::kubernetes::Api;
use self::limits::{JOIN_PAUSE, STARTS_MAX};
use self::members::Members;
use self::names::{Names, Ordinal};

pub use self::cli::{Parsed, Values, parse};
pub use self::states::DataDirs;

/// The first word of the command line that means this program.
pub const WORD: &str = "pod";

/// The exit code of Go's flag package.
const MISUSE: u8 = 2;

/// Facts from the flags of the member.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Member {
    /// `--name`.
    pub name: String,
    pub dirs: DataDirs,
    /// `--trusted-ca-file`.
    pub ca: String,
    /// `--client-cert-file`, or `--cert-file`.
    pub certificate: String,
    pub key: String,
}

/// One pod of the set.
pub(crate) struct Pod {
    ordinal: Ordinal,
    /// Pods below this ordinal found the cluster.
    founders: Ordinal,
    names: Names,
    listen: String,
    members: Members,
    api: Option<Api>,
    dirs: DataDirs,
    /// Flags of the member.
    flags: Vec<String>,
}

impl Pod {
    fn own_name(&self) -> String {
        self.names.name(self.ordinal)
    }

    fn own_url(&self) -> String {
        self.names.peer_url(self.ordinal)
    }

    /// The member that has the URL of this pod.
    fn own<'a>(&self, members: &'a [Listed]) -> Option<&'a Listed> {
        members.iter().find(|member| member.peer_ur_ls.contains(&self.own_url()))
    }

    /// The number of pods that the set shall have; `None` without an API server.
    async fn replicas(&self) -> Option<Result<u32, String>> {
        Some(self.api.as_ref()?.replicas().await)
    }

    /// The highest ordinal of a pod that may have data.
    async fn last_ordinal(&self) -> Ordinal {
        let replicas = match self.replicas().await {
            Some(Ok(replicas)) => replicas,
            _ => 0,
        };
        (replicas.max(self.founders) - 1).max(self.ordinal)
    }

    /// Client URLs of all other pods.
    async fn others(&self) -> Vec<String> {
        let all = (0..=self.last_ordinal().await).filter(|it| *it != self.ordinal);
        all.map(|it| self.names.client_url(it)).collect()
    }

    /// Client URLs of all pods, this one too.
    async fn all(&self) -> Vec<String> {
        let mut all = self.others().await;
        all.push(self.names.client_url(self.ordinal));
        all
    }
}

/// Runs the pod; returns the exit code.
pub fn run(values: &Values, member: Member, flags: Vec<String>) -> u8 {
    let pod = match cli::pod(values, member, flags) {
        Ok(pod) => pod,
        Err(text) => {
            eprintln!("{text}");
            return MISUSE;
        }
    };
    // One thread: the member ends with the thread that started it.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let outcome = match runtime {
        Ok(runtime) => runtime.block_on(Box::pin(live(&pod))),
        Err(error) => Err(error.to_string()),
    };
    outcome.unwrap_or_else(|why| {
        log::error("lib", "the pod cannot go on").text("error", &why).write();
        1
    })
}

async fn live(pod: &Pod) -> Result<u8, String> {
    let text = |error: std::io::Error| error.to_string();
    let mut terminate = signal(SignalKind::terminate()).map_err(text)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(text)?;
    let listener = TcpListener::bind(&pod.listen).await;
    let listener = listener.map_err(|error| format!("--pod-listen={}: {error}", pod.listen))?;
    tokio::spawn(states::serve(listener, pod.dirs.clone()));
    let mut member = None;
    let stopped = async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    let ended = tokio::select! {
        ended = be_member(pod, &mut member) => Some(ended),
        () = stopped => None,
    };
    if let Some(ended) = ended {
        return ended;
    }
    log::info("lib", "received signal; shutting down").write();
    pod.leave_if_scaled_away().await;
    match &mut member {
        Some(child) => child.end().await.map(|_| 0),
        None => Ok(0),
    }
}

/// Joins and runs the member, again if it was removed or could not begin. Returns the exit code of a member that ended.
async fn be_member(pod: &Pod, running: &mut Option<Child>) -> Result<u8, String> {
    let mut starts = 0;
    loop {
        let start = pod.prepare().await?;
        let child = running.insert(Child::start(pod, &start)?);
        let status: Result<ExitStatus, String> = tokio::select! {
            status = child.wait() => status,
            () = pod.keep() => child.end().await,
        };
        *running = None;
        let (status, has_log) = (status?, pod.dirs.has_log());
        starts = if has_log { 0 } else { starts + 1 };
        let is_removed = has_log && is_removed(pod).await;
        let may_repeat = !has_log && starts < STARTS_MAX && status.code() != Some(MISUSE.into());
        if !is_removed && !may_repeat {
            return Ok(child::code(status));
        }
        sleep(JOIN_PAUSE).await;
    }
}

/// True if a quorum does not list this pod.
async fn is_removed(pod: &Pod) -> bool {
    let members = pod.members.list(pod.others().await).await;
    members.is_ok_and(|members| pod.own(&members).is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(crate) fn member(name: &str) -> Member {
        let dirs = DataDirs { data: "/nowhere".into(), log: None };
        let none = String::new;
        Member { name: name.into(), dirs, ca: none(), certificate: none(), key: none() }
    }

    /// A pod of three founders, without an API server.
    pub(crate) fn pod(name: &str) -> Pod {
        let words = ["--pod-peer-url=http://{pod}:2380", "--pod-client-url=http://{pod}:2379"];
        let Parsed::Run(values, flags) = parse(&words.map(str::to_owned)) else {
            panic!("it runs")
        };
        let pod = cli::pod(&values, member(name), flags).expect("the flags are right");
        Pod { api: None, ..pod }
    }
}
