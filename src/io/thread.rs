//! Plain threads beside the executors, for what blocks and hosts nothing.

use std::thread::JoinHandle;

use rustix::process::getpid;
use rustix::thread::{sched_getaffinity, sched_setaffinity};

use crate::types::Fault;

/// Starts a thread on any core that the process may use. Without this, one that a pinned executor starts would
/// share that executor's core.
///
/// # Errors
/// The kernel has no thread left.
pub(super) fn start<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>, Fault> {
    let unpinned = move || {
        // The process's first thread is never pinned. Where this is not allowed, it is as it was.
        let cores = sched_getaffinity(Some(getpid()));
        let _ = cores.and_then(|cores| sched_setaffinity(None, &cores));
        work()
    };
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(unpinned)
        .map_err(|error| Fault::new(format!("the thread {name:?} cannot start: {error}")))
}
