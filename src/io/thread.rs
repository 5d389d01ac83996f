//! Plain threads beside the executors, for what blocks and hosts nothing.

use std::thread::JoinHandle;

use rustix::process::{getpid, setpriority_process};
use rustix::thread::{gettid, sched_getaffinity, sched_setaffinity};

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

/// Starts a thread that steps back behind others, and with it the threads that it starts: of a core that others
/// want, too, it gets a third of their share with `nice` 5 and a tenth with 10, and all of it if nobody else does.
/// Below zero it goes before others, if the process has the right to that (root has, and `CAP_SYS_NICE`).
///
/// # Errors
/// The kernel has no thread left.
pub(super) fn start_nice<T: Send + 'static>(
    name: &str,
    nice: i32,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>, Fault> {
    start(name, move || {
        // Where this is not allowed, it has as much haste as others.
        let _ = setpriority_process(Some(gettid()), nice);
        work()
    })
}

/// How far a thread steps back that works for nobody who waits at this moment.
const NICE: i32 = 10;

/// Runs long work on a thread of its own that gives way to all others.
///
/// # Errors
/// The kernel has no thread left.
pub async fn aside<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Fault> {
    let results = ahead(name, 1, {
        let mut work = Some(work);
        move || work.take().map(|work| work())
    })?;
    results.recv_async().await.map_err(|_| Fault::new("a thread ended without a result"))
}

/// Makes things on a thread that gives way to all others, `count` of them ahead of who takes them. It ends when
/// there are no more, or nobody takes them.
///
/// # Errors
/// The kernel has no thread left.
pub(super) fn ahead<T: Send + 'static>(
    name: &str,
    count: usize,
    mut make: impl FnMut() -> Option<T> + Send + 'static,
) -> Result<flume::Receiver<T>, Fault> {
    let (made, taken) = flume::bounded(count);
    start_nice(name, NICE, move || {
        while let Some(thing) = make() {
            if made.send(thing).is_err() {
                return;
            }
        }
    })?;
    Ok(taken)
}
