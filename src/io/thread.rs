//! Plain threads beside the executors, for what blocks and hosts nothing.

use std::task::Poll;
use std::thread::JoinHandle;

use rustix::process::{getpid, getpriority_process};
use rustix::thread::{CpuSet, gettid, sched_getaffinity, sched_setaffinity};

use crate::types::Fault;

/// Nanoseconds that a thread may run until it is somebody else's turn: the most that the kernel allows.
const LONGEST_SLICE: u64 = 100_000_000;
/// What all threads have that asked for nothing.
const USUAL_SLICE: u64 = 0;

/// Starts a thread on any core that the process may use, with the usual time slices. Without this, one that a pinned
/// executor starts would share that executor's core.
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
        if let Ok(nice) = getpriority_process(Some(gettid())) {
            schedule(nice, USUAL_SLICE);
        }
        work()
    };
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(unpinned)
        .map_err(|error| Fault::new(format!("the thread {name:?} cannot start: {error}")))
}

/// Binds the calling thread to a core.
///
/// # Errors
/// The machine does not have it, or the process may not use it.
pub(super) fn pin(core: usize) -> rustix::io::Result<()> {
    if core >= CpuSet::MAX_CPU {
        return Err(rustix::io::Errno::INVAL);
    }
    let mut cores = CpuSet::new();
    cores.set(core);
    sched_setaffinity(None, &cores)
}

/// Starts a thread that steps back behind others, and with it the threads that it starts: of a core that others
/// want, too, it gets a third of their share with `nice` 5 and a tenth with 10, and all of it if nobody else does.
/// Whoever wakes up goes before it at once, instead of waiting for the end of its time slice (Linux 6.12 and later).
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
        schedule(nice, if nice > 0 { LONGEST_SLICE } else { USUAL_SLICE });
        work()
    })
}

/// How this thread gets its turns. Of two threads that wake up the one with the shorter slices interrupts the other
/// (EEVDF's `PREEMPT_SHORT`; `sched_setattr(2)`); older kernels have slices of one length. Where this is not allowed,
/// it is as it was.
#[allow(unsafe_code, reason = "neither std nor rustix has this call")]
fn schedule(nice: i32, slice: u64) {
    let attributes = libc::sched_attr {
        size: size_of::<libc::sched_attr>() as u32,
        sched_policy: libc::SCHED_OTHER as u32,
        sched_flags: 0,
        sched_nice: nice,
        sched_priority: 0,
        sched_runtime: slice,
        sched_deadline: 0,
        sched_period: 0,
    };
    // SAFETY: the kernel reads as many bytes as the first field says, and writes none.
    let _ = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) };
}

/// How far a thread steps back that works for nobody who waits at this moment.
const NICE: i32 = 10;

/// Runs long work on a thread of its own that gives way to all others.
///
/// # Errors
/// The kernel has no thread left.
pub async fn spawn_blocking<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Fault> {
    let results = ahead(name, 1, {
        let mut work = Some(work);
        move || Poll::Ready(work.take().map(|work| work()))
    })?;
    results.recv_async().await.map_err(|_| Fault::new("a thread ended without a result"))
}

/// Makes things on a thread that gives way to all others, `count` of them ahead of who takes them. It ends when
/// there are no more, or nobody takes them; `make` gives `Pending` now and then, so that this is noticed in the
/// middle of long work, too.
///
/// # Errors
/// The kernel has no thread left.
pub(super) fn ahead<T: Send + 'static>(
    name: &str,
    count: usize,
    mut make: impl FnMut() -> Poll<Option<T>> + Send + 'static,
) -> Result<flume::Receiver<T>, Fault> {
    let (made, taken) = flume::bounded(count);
    start_nice(name, NICE, move || {
        while !made.is_disconnected() {
            match make() {
                Poll::Pending => (),
                Poll::Ready(Some(thing)) => drop(made.send(thing)),
                Poll::Ready(None) => return,
            }
        }
    })?;
    Ok(taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_ends_in_the_middle_of_its_work_when_nobody_takes_it() {
        let (alive, ended) = flume::bounded::<()>(1);
        let made = ahead("test", 1, move || {
            let _ = &alive;
            Poll::<Option<()>>::Pending
        });
        drop(made.expect("a thread"));
        let ended = ended.recv_timeout(std::time::Duration::from_secs(30));
        assert_eq!(ended, Err(flume::RecvTimeoutError::Disconnected));
    }
}
