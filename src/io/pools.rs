//! Threads for blocking work, in named pools: a slow name server delays no snapshot, and a client's large range
//! delays no fsync.
//!
//! ```text
//!  executor ─run─► queue of the pool (bounded) ─► one of its threads ─result─► executor
//!                   └ full: the caller waits, in order of arrival, and its executor continues
//! ```
//!
//! A pool starts its threads with its first job and keeps them. They run on any core of the process.

use std::sync::OnceLock;
use std::time::Duration;

use super::clock::Instant;
use super::{placement, thread};
use crate::metrics;
use crate::types::limits::{
    CPU_THREADS_MAX, DNS_THREADS, DURABLE_THREADS, EXPORTS_THREADS, HASHES_THREADS, POOL_QUEUE_MAX,
    POOL_SLICE_MS, READS_THREADS_MAX,
};

/// How far the threads step back that work for nobody who waits at this moment.
const NICE: i32 = 10;

/// A pool of threads, named by its work. Work of one pool runs in no particular order, but one caller that waits for
/// each result runs its own in order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pool {
    /// Looks up names of hosts: up to half a minute each while a name server is silent.
    Dns,
    /// Makes data durable: fsync, flushes of the store, renames, writes to files other than the log.
    Durable,
    /// Reads many keys for clients: ranges that are sorted, transactions of ranges.
    Reads,
    /// Computes for long: large messages from and to JSON.
    Cpu,
    /// Makes the files of snapshots.
    Exports,
    /// Hashes the store.
    Hashes,
    /// Reads `/proc` for metrics, which are asked for when everything else is stuck.
    Stats,
}

/// All of them, by number.
static POOLS: [OnceLock<flume::Sender<Job>>; 7] = [const { OnceLock::new() }; 7];

struct Job {
    since: Instant,
    work: Box<dyn FnOnce() + Send>,
}

impl Pool {
    /// Runs work on a thread of this pool and waits for the result. The work runs even if the caller is dropped first,
    /// and then the result is dropped.
    ///
    /// # Panics
    /// If the work does.
    pub async fn run<T: Send + 'static>(self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let (done, result) = flume::bounded(1);
        self.queue(move || drop(done.send(work()))).await;
        result.recv_async().await.expect("the work is done")
    }

    /// Runs work on a thread of this pool, unless the caller was dropped before: jobs of thousands of cancelled
    /// requests would delay others, and keep their memory.
    ///
    /// # Panics
    /// If the work does.
    pub async fn run_if_wanted<T: Send + 'static>(
        self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> T {
        let (done, result) = flume::bounded(1);
        self.queue(move || {
            if !done.is_disconnected() {
                drop(done.send(work()));
            }
        })
        .await;
        result.recv_async().await.expect("the work is done")
    }

    /// Runs work on a thread of this pool if its queue has room; dropped otherwise.
    pub(super) fn try_run(self, work: impl FnOnce() + Send + 'static) {
        let job = self.job(work);
        drop(self.jobs().try_send(job));
    }

    /// Runs work that takes long, one slice of [`POOL_SLICE_MS`] after the other, until a step of it gives a result: between
    /// two slices others get their turn, and a caller that is gone ends it. Each step should be much shorter than a slice.
    ///
    /// # Panics
    /// If a step does.
    pub async fn run_in_slices<S: Send + 'static, T: Send + 'static>(
        self,
        mut state: S,
        mut step: impl FnMut(&mut S) -> Option<T> + Send + 'static,
    ) -> T {
        loop {
            let slice = move || {
                let result = slice(|| step(&mut state));
                (state, step, result)
            };
            let result;
            (state, step, result) = self.run_if_wanted(slice).await;
            if let Some(result) = result {
                return result;
            }
        }
    }

    async fn queue(self, work: impl FnOnce() + Send + 'static) {
        let job = self.job(work);
        // The threads hold the other end for as long as the process lives.
        drop(self.jobs().send_async(job).await);
    }

    fn job(self, work: impl FnOnce() + Send + 'static) -> Job {
        let queued = Queued::new(self);
        let work = move || {
            drop(queued);
            work();
        };
        Job { since: Instant::now(), work: Box::new(work) }
    }

    fn jobs(self) -> &'static flume::Sender<Job> {
        POOLS[self as usize].get_or_init(|| {
            let (jobs, queue) = flume::bounded(POOL_QUEUE_MAX);
            for _ in 0..self.threads() {
                let queue = queue.clone();
                let serve = move || self.serve(&queue);
                let started = match self.gives_way() {
                    true => thread::start_nice(self.name(), NICE, serve),
                    false => thread::start(self.name(), serve),
                };
                assert!(started.is_ok(), "the threads of the pool {} cannot start", self.name());
            }
            metrics::pool(self.name()).threads.set(self.threads() as i64);
            jobs
        })
    }

    fn serve(self, queue: &flume::Receiver<Job>) {
        while let Ok(job) = queue.recv() {
            metrics::pool(self.name()).waited.observe(job.since.elapsed().as_secs_f64());
            (job.work)();
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Dns => "dns",
            Self::Durable => "durable",
            Self::Reads => "reads",
            Self::Cpu => "cpu",
            Self::Exports => "exports",
            Self::Hashes => "hashes",
            Self::Stats => "stats",
        }
    }

    fn threads(self) -> usize {
        match self {
            Self::Dns => DNS_THREADS,
            Self::Durable => DURABLE_THREADS,
            Self::Reads => placement::usable_cores().clamp(1, READS_THREADS_MAX),
            Self::Cpu => placement::usable_cores().clamp(1, CPU_THREADS_MAX),
            Self::Exports => EXPORTS_THREADS,
            Self::Hashes => HASHES_THREADS,
            Self::Stats => 1,
        }
    }

    /// True if its threads yield to all others.
    const fn gives_way(self) -> bool {
        match self {
            Self::Exports | Self::Hashes => true,
            Self::Dns | Self::Durable | Self::Reads | Self::Cpu | Self::Stats => false,
        }
    }
}

/// Makes steps until one gives a result or the slice is over.
pub(super) fn slice<T>(mut step: impl FnMut() -> Option<T>) -> Option<T> {
    let began = Instant::now();
    loop {
        let result = step();
        if result.is_some() || began.elapsed() >= Duration::from_millis(POOL_SLICE_MS) {
            return result;
        }
    }
}

/// Counts a job from its request until it starts, or is given up.
struct Queued(Pool);

impl Queued {
    fn new(pool: Pool) -> Self {
        metrics::pool(pool.name()).queued.add(1);
        Self(pool)
    }
}

impl Drop for Queued {
    fn drop(&mut self) {
        metrics::pool(self.0.name()).queued.add(-1);
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Context, Poll, Waker};

    use super::*;

    fn poll<T>(future: std::pin::Pin<&mut impl Future<Output = T>>) -> Poll<T> {
        future.poll(&mut Context::from_waker(Waker::noop()))
    }

    /// Makes all threads of a pool wait until the sender is dropped.
    fn occupy(pool: Pool) -> flume::Sender<()> {
        let (release, released) = flume::bounded::<()>(0);
        let (began, begun) = flume::unbounded();
        for _ in 0..pool.threads() {
            let (released, began) = (released.clone(), began.clone());
            let work = move || {
                let _ = began.send(());
                let _ = released.recv();
            };
            assert_eq!(poll(pin!(pool.run(work)).as_mut()), Poll::Pending);
        }
        (0..pool.threads()).for_each(|_| begun.recv().expect("it begins"));
        release
    }

    #[test]
    #[allow(clippy::disallowed_methods, reason = "a pool's thread")]
    fn long_work_is_done_in_slices_between_which_others_get_their_turn() {
        const STEP: Duration = Duration::from_millis(1);
        let (gone, witness) = (Arc::new(()), Arc::new(AtomicUsize::new(0)));
        let endless = {
            let (gone, witness) = (Arc::clone(&gone), Arc::clone(&witness));
            Pool::Hashes.run_in_slices(gone, move |_| {
                std::thread::sleep(STEP);
                witness.fetch_add(1, Ordering::Relaxed);
                None::<()>
            })
        };
        let short = Pool::Hashes.run_in_slices(0, |count| {
            std::thread::sleep(STEP);
            *count += 1;
            (*count == 30).then_some(*count)
        });
        let endless = async {
            endless.await;
            0
        };
        let first = futures_lite::future::block_on(futures_lite::future::or(endless, short));
        assert_eq!(first, 30);
        assert!(witness.load(Ordering::Relaxed) > 2, "both had their turns");
        // The endless one ends with its caller.
        while Arc::strong_count(&gone) > 1 {
            std::thread::yield_now();
        }
    }

    /// One test for what fills pools: they belong to the whole process.
    #[test]
    fn pools_are_bounded_apart_and_drop_what_nobody_waits_for() {
        let release = occupy(Pool::Dns);
        // Other pools are not delayed.
        assert_eq!(futures_lite::future::block_on(Pool::Durable.run(|| 7)), 7);

        let (witness, ran) = (Arc::new(()), Arc::new(AtomicUsize::new(0)));
        let mut queued: Vec<_> = (0..POOL_QUEUE_MAX + 3)
            .map(|_| {
                let (witness, ran) = (Arc::clone(&witness), Arc::clone(&ran));
                Box::pin(Pool::Dns.run_if_wanted(move || {
                    drop(witness);
                    ran.fetch_add(1, Ordering::Relaxed);
                }))
            })
            .collect();
        queued.iter_mut().for_each(|job| assert_eq!(poll(job.as_mut()), Poll::Pending));
        let queue = Pool::Dns.jobs();
        assert!(queue.is_full());
        assert_eq!(Arc::strong_count(&witness), 1 + queued.len());
        // Three wait outside of the queue; when they are dropped, nothing is left of them.
        queued.truncate(POOL_QUEUE_MAX);
        assert_eq!(Arc::strong_count(&witness), 1 + POOL_QUEUE_MAX);

        drop(queued);
        drop(release);
        while !queue.is_empty() {
            std::thread::yield_now();
        }
        // Every thread of the pool has skipped the others when it serves one of these.
        drop(occupy(Pool::Dns));
        assert_eq!(ran.load(Ordering::Relaxed), 0);
        let page = metrics::text(&metrics::Gauges::default());
        let length = "basalt_pool_queue_length{pool=\"dns\"} 0\n";
        assert!(page.contains(length), "{page}");
        let threads = format!("basalt_pool_threads{{pool=\"dns\"}} {DNS_THREADS}\n");
        assert!(page.contains(&threads), "{page}");
    }
}
