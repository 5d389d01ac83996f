//! The member: this same program with the flags of a member, as a process of its own.

use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;

use rustix::process::{Pid, Signal, kill_process, set_parent_process_death_signal};
use tokio::process::Command;

use crate::Pod;
use crate::join::Start;

pub(crate) struct Child(tokio::process::Child);

impl Child {
    /// # Errors
    /// The process cannot be started.
    pub(crate) fn start(pod: &Pod, start: &Start) -> Result<Self, String> {
        let program = std::env::current_exe().map_err(|error| error.to_string())?;
        let mut command = Command::new(program);
        command.args(arguments(pod, start));
        end_with_parent(&mut command);
        command.spawn().map(Self).map_err(|error| format!("the member does not start: {error}"))
    }

    /// Waits for the end of the process.
    ///
    /// # Errors
    /// The process is not ours.
    pub(crate) async fn wait(&mut self) -> Result<ExitStatus, String> {
        self.0.wait().await.map_err(|error| error.to_string())
    }

    /// Asks the process to end, and waits.
    ///
    /// # Errors
    /// The process is not ours.
    pub(crate) async fn end(&mut self) -> Result<ExitStatus, String> {
        let pid = self.0.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        if let Some(pid) = pid {
            // It may have ended just now.
            let _ = kill_process(pid, Signal::TERM);
        }
        self.wait().await
    }
}

/// The exit code of a shell for a program that ended so.
pub(crate) fn code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}

/// The flags of the command line, and those about the cluster.
fn arguments(pod: &Pod, start: &Start) -> Vec<String> {
    let cluster = start.cluster.iter().map(|(name, url)| format!("{name}={url}"));
    let cluster = cluster.collect::<Vec<_>>().join(",");
    let state = if start.is_new { "new" } else { "existing" };
    let own = [
        format!("--initial-advertise-peer-urls={}", pod.own_url()),
        format!("--advertise-client-urls={}", pod.names.client_url(pod.ordinal)),
        format!("--initial-cluster={cluster}"),
        format!("--initial-cluster-state={state}"),
    ];
    pod.flags.iter().cloned().chain(own).collect()
}

/// A killed pod leaves no member behind. In a container the kernel does so by itself.
#[allow(unsafe_code, reason = "the call between fork and exec is a system call and nothing else")]
fn end_with_parent(command: &mut Command) {
    // SAFETY: it allocates nothing and takes no lock. The thread that starts the process lives as long as this program.
    unsafe {
        command.pre_exec(|| Ok(set_parent_process_death_signal(Some(Signal::KILL))?));
    }
}
