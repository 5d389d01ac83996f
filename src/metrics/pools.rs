//! Metrics of the thread pools for blocking work.

use super::cells::{Gauge, Histogram};
use super::text::Writer;

/// Metrics of one pool.
#[derive(Debug)]
pub struct PoolCells {
    /// Threads; 0 until the first job.
    pub threads: Gauge,
    /// Jobs that wait for a thread.
    pub queued: Gauge,
    /// Seconds that jobs waited for a thread.
    pub waited: Histogram,
}

/// Names in the order of the page.
const NAMES: [&str; 7] = ["cpu", "dns", "durable", "exports", "hashes", "reads", "stats"];

static CELLS: [PoolCells; NAMES.len()] = [const {
    PoolCells {
        threads: Gauge::new(),
        queued: Gauge::new(),
        waited: Histogram::new(0.0001, 4.0, 10),
    }
}; NAMES.len()];

/// The metrics of a pool.
///
/// # Panics
/// There is no pool of this name.
pub fn pool(name: &str) -> &'static PoolCells {
    let at = NAMES.iter().position(|known| *known == name);
    &CELLS[at.expect("a pool of this name")]
}

pub(super) fn write(out: &mut Writer) {
    let label = |name: &str| format!("pool=\"{name}\"");
    let all = || NAMES.into_iter().zip(&CELLS);
    let queued = all().map(|(name, cells)| (label(name), cells.queued.get() as f64));
    let help = "The number of jobs that wait for a thread of the pool.";
    out.family("basalt_pool_queue_length", "gauge", help, queued);
    let threads = all().map(|(name, cells)| (label(name), cells.threads.get() as f64));
    out.family("basalt_pool_threads", "gauge", "The number of threads of the pool.", threads);
    let waited = all().map(|(name, cells)| (label(name), cells.waited.counts()));
    let help = "The time that jobs waited for a thread of the pool, in seconds.";
    out.histogram("basalt_pool_wait_duration_seconds", help, waited);
}
