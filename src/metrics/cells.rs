//! Counters that many cores add to. Each core adds to a cell of its own, on a cache line of its own; only a reader
//! looks at all of them.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

/// Shards of one number. With more cores than shards, some cores share.
const SHARDS: usize = 8;

#[repr(align(64))]
#[derive(Debug)]
struct Shard<const N: usize>([AtomicU64; N]);

/// `N` numbers for each shard. Relaxed ordering throughout: nothing else is ordered by them.
#[derive(Debug)]
pub(super) struct Sharded<const N: usize>([Shard<N>; SHARDS]);

thread_local! {
    static HERE: Cell<usize> = const { Cell::new(usize::MAX) };
}

/// This thread's shard.
fn here() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    HERE.with(|here| {
        if here.get() == usize::MAX {
            here.set(NEXT.fetch_add(1, Relaxed) % SHARDS);
        }
        here.get()
    })
}

impl<const N: usize> Sharded<N> {
    pub(super) const fn new() -> Self {
        Self([const { Shard([const { AtomicU64::new(0) }; N]) }; SHARDS])
    }

    pub(super) fn add(&self, at: usize, more: u64) {
        self.0[here()].0[at].fetch_add(more, Relaxed);
    }

    /// The sum over all shards, modulo 2^64: a gauge that went up on one core can go down on another.
    pub(super) fn sum(&self, at: usize) -> u64 {
        let cells = self.0.iter().map(|shard| shard.0[at].load(Relaxed));
        cells.fold(0, u64::wrapping_add)
    }
}

/// A number that only grows.
#[derive(Debug)]
pub struct Counter(Sharded<1>);

impl Counter {
    /// A counter at zero.
    pub const fn new() -> Self {
        Self(Sharded::new())
    }

    /// Adds.
    pub fn add(&self, more: u64) {
        self.0.add(0, more);
    }

    /// Its value.
    pub fn get(&self) -> u64 {
        self.0.sum(0)
    }
}

impl Default for Counter {
    fn default() -> Self {
        Self::new()
    }
}

/// A number that grows and shrinks.
#[derive(Debug)]
pub struct Gauge(Sharded<1>);

impl Gauge {
    /// A gauge at zero.
    pub const fn new() -> Self {
        Self(Sharded::new())
    }

    /// Replaces the value. Concurrent calls may leave a mixture of both: only one thread may set a gauge.
    pub fn set(&self, value: i64) {
        self.add(value.wrapping_sub(self.get()));
    }

    /// Adds to the value, or subtracts from it.
    pub fn add(&self, more: i64) {
        self.0.add(0, more as u64);
    }

    /// Its value.
    pub fn get(&self) -> i64 {
        self.0.sum(0) as i64
    }
}

impl Default for Gauge {
    fn default() -> Self {
        Self::new()
    }
}

/// Upper bound for the buckets of a histogram, the last one for everything larger; the sum is stored behind them.
const BUCKETS_MAX: usize = 25;
/// The sum is stored in billionths of the unit.
const BILLION: f64 = 1e9;

/// Counts of values by bucket. Bounds grow by a constant factor, as all of etcd's do.
#[derive(Debug)]
pub struct Histogram {
    start: f64,
    factor: f64,
    count: usize,
    cells: Sharded<{ BUCKETS_MAX + 1 }>,
}

/// A snapshot of a histogram.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Counts {
    /// Upper bounds and how many values were not above them; the last bound is infinite.
    pub(super) buckets: Vec<(f64, u64)>,
    pub(super) sum: f64,
}

impl Histogram {
    /// Empty, with `count` bounds from `start` on.
    ///
    /// # Panics
    /// At compile time, for too many bounds.
    pub const fn new(start: f64, factor: f64, count: usize) -> Self {
        assert!(count < BUCKETS_MAX, "too many buckets");
        Self { start, factor, count, cells: Sharded::new() }
    }

    /// Counts a value; for times, in seconds.
    pub fn observe(&self, value: f64) {
        let (mut at, mut bound) = (0, self.start);
        while at < self.count && value > bound {
            (at, bound) = (at + 1, bound * self.factor);
        }
        self.cells.add(at, 1);
        self.cells.add(BUCKETS_MAX, (value.max(0.0) * BILLION) as u64);
    }

    pub(super) fn counts(&self) -> Counts {
        let (mut below, mut bound) = (0, self.start);
        let mut buckets = Vec::with_capacity(self.count + 1);
        for at in 0..=self.count {
            below += self.cells.sum(at);
            buckets.push((if at == self.count { f64::INFINITY } else { bound }, below));
            bound *= self.factor;
        }
        Counts { buckets, sum: self.cells.sum(BUCKETS_MAX) as f64 / BILLION }
    }

    /// True if no value was counted yet.
    pub(super) fn is_empty(&self) -> bool {
        (0..=self.count).all(|at| self.cells.sum(at) == 0)
    }
}
