//! Plain threads beside the executors, for blocking work.

use std::task::Poll;
use std::thread::JoinHandle;

use rustix::process::{getpid, getpriority_process};
use rustix::thread::{CpuSet, gettid, sched_getaffinity, sched_setaffinity};

use crate::types::Fault;

/// Time slice in nanoseconds for throughput: the longest that the kernel allows.
const LONGEST_SLICE: u64 = 100_000_000;
/// Value for the default time slice.
const USUAL_SLICE: u64 = 0;

/// Starts a thread on any core that the process may use, with the default time slice. Otherwise a thread started by a
/// pinned executor would share that executor's core.
///
/// # Errors
/// The kernel has no thread left.
pub(super) fn start<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>, Fault> {
    let unpinned = move || {
        // The process's first thread is never pinned. If this is not allowed, the affinity is not changed.
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

/// Starts a thread with a nice value, which threads started by it inherit: of a busy core it gets a third of another
/// thread's share with `nice` 5 and a tenth with 10, and all of an idle one. A thread that wakes up preempts it at
/// once, instead of at the end of its time slice (Linux 6.12 and later). A negative value gives it precedence over
/// others, if the process has the right to that (root has, and `CAP_SYS_NICE`).
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

/// Sets nice value and time slice of this thread. Of two threads, one that wakes up with the shorter slice preempts the
/// other (EEVDF's `PREEMPT_SHORT`; `sched_setattr(2)`); older kernels have slices of one length. If this is not
/// allowed, nothing is changed.
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
    // SAFETY: the kernel reads the number of bytes in the first field, and writes none.
    let _ = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) };
}

/// Nice value of threads for which no request waits.
const NICE: i32 = 10;

/// Runs long work on a thread of its own with low priority.
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

/// Runs `make` repeatedly on a thread with low priority, with up to `count` results queued. The thread ends when there are
/// no more, or the receiver is dropped; `make` returns `Pending` at times, so that this is noticed during long work, too.
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
