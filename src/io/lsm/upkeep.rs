//! The threads that flush and merge, and free unused memory and files.
//!
//! The last reference to memtables and tables frees memory and removes files: 100 ms for 64 MiB of small records. So a thread
//! here keeps a reference to layers that were replaced, and drops it when no view has one.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use lsm_tree::AbstractTree as _;
use lsm_tree::compaction::filter::Context;
use lsm_tree::compaction::{CompactionFilter, Factory, ItemAccessor, Leveled, Verdict};

use super::policy::{Facts, LEVEL_0_TABLES, Merge, MergePolicy, TABLE_BYTES, push_down_ratios};
use super::write_back::WriteBack;
use super::{OBSOLETE_BELOW, Store, error_text, lock};
use crate::io::clock::Instant;
use crate::io::disk;
use crate::io::rate_limiter::RateLimiter;
use crate::io::thread;
use crate::metrics;
use crate::types::{DiskBounds, Fault};

/// Nice value of the threads: on full cores that takes a quarter off the slowest responses. With a higher one
/// memtables would pile up.
pub(super) const NICE: i32 = 5;
/// Pause before a failed flush or merge is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// Interval between two checks of the store when nothing happens.
const LOOK: Duration = Duration::from_millis(500);
/// Time in which batches that are being committed are published.
const SETTLE: Duration = Duration::from_millis(5);
/// Bytes that merges read in a second at most, unless commits have to wait for them.
const MERGE_BYTES_PER_SECOND: usize = 256 << 20;
/// Rate of committed bytes that counts as idle, and the seconds of it that make a quiet time.
const IDLE_BYTES_PER_SECOND: u64 = 512 << 10;
const IDLE_SECONDS: u64 = 3;
/// Batches since layers were replaced that are still read, above which they hold much.
const PINNED_BATCHES: u64 = 4096;

/// The threads' handle. Ends with the store.
pub(super) struct Upkeep {
    signal: Arc<Signal>,
    control: Arc<Control>,
    threads: Vec<JoinHandle<()>>,
}

/// Control of running merges.
#[derive(Default)]
pub(super) struct Control {
    /// The store is closed: a running merge ends, and its output is removed at the next start.
    stopping: AtomicBool,
    /// Merges run without a rate limit.
    unpaced: AtomicBool,
    /// There is no room for a merge: whoever commits would wait for one in vain.
    pub(super) no_room: AtomicBool,
}

/// Wake-ups of the threads.
#[derive(Default)]
struct Signal {
    state: Mutex<Asked>,
    flush: Condvar,
    merge: Condvar,
}

#[derive(Default)]
struct Asked {
    stopping: bool,
    flush: bool,
    /// Tables were added.
    flushed: bool,
    /// All tables are to be merged.
    merge_all: bool,
    /// Notified when that merge, or else another check of the store, is complete.
    waiting: Vec<flume::Sender<()>>,
}

impl Upkeep {
    /// Starts the threads; without a policy nothing is merged.
    ///
    /// # Errors
    /// No thread is left.
    pub(super) fn start(store: &Arc<Store>, policy: Option<MergePolicy>) -> Result<Self, Fault> {
        let signal = Arc::<Signal>::default();
        let write_back = WriteBack::start(&store.home.path, NICE)?;
        let flusher = Flusher { store: Arc::clone(store), signal: Arc::clone(&signal) };
        let flusher = thread::start_nice("store-flush", NICE, move || {
            flusher.run();
            // It is dropped by the thread that creates most tables.
            drop(write_back);
        })?;
        let mut threads = vec![flusher];
        if let Some(policy) = policy {
            let merger = Merger::new(Arc::clone(store), Arc::clone(&signal), policy);
            threads.push(thread::start_nice("store-merge", NICE, move || merger.run())?);
        }
        Ok(Self { signal, control: Arc::clone(&store.control), threads })
    }

    /// A memtable was sealed.
    pub(super) fn flush_soon(&self) {
        lock(&self.signal.state).flush = true;
        self.signal.flush.notify_one();
    }

    /// Merges everything, or else frees unused memory and files; returns a receiver of the notification when
    /// that is complete.
    pub(super) fn ask(&self, merge_all: bool) -> flume::Receiver<()> {
        let (done, over) = flume::bounded(1);
        let mut state = lock(&self.signal.state);
        state.merge_all |= merge_all;
        state.waiting.push(done);
        drop(state);
        self.signal.merge.notify_one();
        over
    }
}

impl Drop for Upkeep {
    fn drop(&mut self) {
        self.control.stopping.store(true, Ordering::Relaxed);
        lock(&self.signal.state).stopping = true;
        self.signal.flush.notify_all();
        self.signal.merge.notify_all();
        for thread in self.threads.drain(..) {
            // A panic has been reported by the thread itself.
            let _ = thread.join();
        }
    }
}

impl Signal {
    /// Waits until there is something to take, or some time passed; `None` when the store is closed.
    fn wait<T>(
        &self,
        on: &Condvar,
        timeout: Duration,
        mut take: impl FnMut(&mut Asked) -> Option<T>,
    ) -> Option<Option<T>> {
        let mut state = lock(&self.state);
        if let Some(taken) = take(&mut state) {
            return (!state.stopping).then_some(Some(taken));
        }
        if !state.stopping {
            let waited = on.wait_timeout(state, timeout);
            (state, _) = waited.unwrap_or_else(std::sync::PoisonError::into_inner);
        }
        let taken = take(&mut state);
        (!state.stopping).then_some(taken)
    }
}

struct Flusher {
    store: Arc<Store>,
    signal: Arc<Signal>,
}

impl Flusher {
    fn run(&self) {
        let mut pause = LOOK;
        let mut failing = false;
        while let Some(asked) = self
            .signal
            .wait(&self.signal.flush, pause, |state| std::mem::take(&mut state.flush).then_some(()))
        {
            pause = LOOK;
            if asked.is_some() || failing || !self.store.layers.load().sealed.is_empty() {
                match self.flush() {
                    Ok(()) => failing = false,
                    Err(error) => {
                        if !failing {
                            tracing::error!(
                                error = error_text(&error),
                                "the store cannot flush to its disk; it is tried again"
                            );
                        }
                        (failing, pause) = (true, RETRY);
                    }
                }
            }
            self.store.free_retired();
        }
    }

    fn flush(&self) -> lsm_tree::Result<()> {
        self.store.flush()?;
        self.store.measure_tables();
        lock(&self.signal.state).flushed = true;
        self.signal.merge.notify_one();
        Ok(())
    }
}

impl Store {
    /// Frees replaced layers that are not read any more, and removes the files that only they had.
    fn free_retired(&self) {
        let mut retired = lock(&self.retired);
        let (kept, freed): (Vec<_>, Vec<_>) =
            retired.drain(..).partition(|it| Arc::strong_count(&it.layers) > 1);
        *retired = kept;
        drop(retired);
        drop(freed);
    }

    /// Number of batches since layers were replaced that are still read.
    fn batches_retired(&self) -> u64 {
        let retired = lock(&self.retired);
        let oldest = retired.iter().find(|it| Arc::strong_count(&it.layers) > 1);
        oldest.map_or(0, |oldest| self.sequence.get() - oldest.number)
    }

    /// Counts the disk space of the tables, including those that only old views read.
    fn measure_tables(&self) {
        let tables = std::fs::read_dir(self.home.path.join("tables")).into_iter().flatten();
        let sizes = tables.flatten().filter_map(|table| table.metadata().ok()).map(|it| it.len());
        self.counters.disk.store(sizes.sum(), Ordering::Relaxed);
    }
}

struct Merger {
    store: Arc<Store>,
    signal: Arc<Signal>,
    policy: MergePolicy,
    /// Bytes committed as of the last check, and for how long little was.
    committed: u64,
    looked: Instant,
    idle: Duration,
    failing: bool,
}

impl Merger {
    fn new(store: Arc<Store>, signal: Arc<Signal>, policy: MergePolicy) -> Self {
        let looked = Instant::now();
        Self { store, signal, policy, committed: 0, looked, idle: Duration::ZERO, failing: false }
    }

    fn run(mut self) {
        loop {
            let pause = if self.failing { RETRY } else { LOOK };
            let asked = self.signal.wait(&self.signal.merge, pause, |state| {
                let flushed = std::mem::take(&mut state.flushed);
                let waiting = std::mem::take(&mut state.waiting);
                let merge_all = std::mem::take(&mut state.merge_all);
                (flushed || !waiting.is_empty()).then_some((merge_all, waiting))
            });
            let Some(asked) = asked else { return };
            self.measure_load();
            let (merge_all, waiting) = asked.unwrap_or_default();
            match self.merge(merge_all) {
                Ok(()) => self.failing = false,
                Err(error) => {
                    if !self.failing && !self.is_stopping() {
                        tracing::error!(
                            error = error_text(&error),
                            "the store cannot merge its tables; it is tried again"
                        );
                    }
                    self.failing = true;
                }
            }
            self.store.free_retired();
            self.store.measure_tables();
            for done in waiting {
                // The caller may be gone.
                let _ = done.try_send(());
            }
        }
    }

    fn is_stopping(&self) -> bool {
        self.store.control.stopping.load(Ordering::Relaxed)
    }

    /// Measures the rate of commits.
    fn measure_load(&mut self) {
        let (now, committed) =
            (Instant::now(), self.store.counters.committed.load(Ordering::Relaxed));
        let time = now.since(self.looked);
        if time < LOOK / 2 {
            return;
        }
        let few = (IDLE_BYTES_PER_SECOND as f64 * time.as_secs_f64()) as u64;
        let is_few = committed - self.committed <= few;
        self.idle = if is_few { self.idle + time } else { Duration::ZERO };
        (self.looked, self.committed) = (now, committed);
    }

    fn facts(&self, is_asked: bool) -> Facts {
        let version = self.store.tree.current_version();
        let mut levels = [0; 7];
        for (level, bytes) in version.iter_levels().zip(&mut levels) {
            *bytes = level.size();
        }
        Facts {
            level_0_tables: version.l0().table_count(),
            levels,
            usage: self.store.counters.usage.load(Ordering::Relaxed),
            is_idle: self.idle >= Duration::from_secs(IDLE_SECONDS),
            is_pinned: self.store.batches_retired() > PINNED_BATCHES,
            is_asked,
            room: self.room(),
        }
    }

    /// Bytes that a merge may take: what is free, but for what flushes and the requests under way need and what must be
    /// there to apply with.
    fn room(&self) -> u64 {
        let Some(room) = disk::room(&self.store.home.path) else { return u64::MAX };
        let kept = DiskBounds::of_disk(room.total).apply_min();
        let unflushed = self.store.counters.unflushed.load(Ordering::Relaxed);
        room.free.saturating_sub(kept + unflushed + disk::claimed_by_requests())
    }

    /// Merges until there is nothing to do.
    fn merge(&mut self, mut is_asked: bool) -> lsm_tree::Result<()> {
        while !self.is_stopping() {
            let facts = self.facts(is_asked);
            let merge = self.policy.next(&facts);
            let is_stuck = merge == Merge::None && self.policy.lacks_room(&facts);
            self.store.control.no_room.store(is_stuck, Ordering::Relaxed);
            let before = self.store.tree.current_version().id();
            // Under load garbage and tables grow as fast as the disk writes them.
            let hurry =
                merge == Merge::All || facts.level_0_tables > 2 * usize::from(LEVEL_0_TABLES);
            self.store.control.unpaced.store(hurry && !facts.is_idle, Ordering::Relaxed);
            let (began, next_table) = (Instant::now(), self.store.tree.next_table_id());
            if let Err(error) = self.perform(merge, &facts) {
                // No flush creates tables meanwhile.
                let _flushing = self.store.tree.get_flush_lock();
                self.store.remove_unfinished(next_table);
                return Err(error);
            }
            is_asked = false;
            let changed = self.store.tree.current_version().id() != before;
            if changed {
                self.store.list_tables(&[]);
                self.store.counters.changes.fetch_add(1, Ordering::Relaxed);
                self.settle();
                self.store.free_retired();
                tracing::debug!(
                    ?merge,
                    ?facts,
                    took_ms = began.elapsed().as_millis() as u64,
                    "merged tables"
                );
                self.store.measure_tables();
            } else {
                self.policy.nothing_changed(merge, &facts);
                if merge != Merge::PushDown {
                    return Ok(());
                }
            }
            if merge == Merge::All && !facts.is_pinned {
                self.policy.merged_all(facts.usage, self.facts(false).levels[6]);
            }
        }
        Ok(())
    }

    fn perform(&self, merge: Merge, facts: &Facts) -> lsm_tree::Result<()> {
        let tree = &self.store.tree;
        let level = Leveled::default().with_table_target_size(TABLE_BYTES);
        if merge == Merge::All {
            // Tombstones that are still in memory remove garbage too.
            self.store.seal();
            self.store.flush()?;
        }
        let mut merges = lock(&self.store.merges);
        *merges += 1;
        match merge {
            Merge::None => Ok(()),
            Merge::Level => {
                let level = level.with_l0_threshold(LEVEL_0_TABLES);
                tree.compact(Arc::new(level), OBSOLETE_BELOW)
            }
            Merge::PushDown => {
                let ratios = push_down_ratios(&facts.levels);
                let level = level.with_l0_threshold(1).with_level_ratio_policy(ratios);
                tree.compact(Arc::new(level), OBSOLETE_BELOW)
            }
            Merge::All => {
                metrics::DEFRAG_IN_FLIGHT.set(1);
                let began = Instant::now();
                let merged = tree.major_compact(TABLE_BYTES, OBSOLETE_BELOW);
                metrics::DEFRAG.observe(began.elapsed().as_secs_f64());
                metrics::DEFRAG_IN_FLIGHT.set(0);
                merged
            }
        }
    }

    /// Waits until the newest batch is published, so that the earlier tables can be released.
    #[allow(clippy::disallowed_methods, reason = "a thread of its own, which hosts nothing")]
    fn settle(&self) {
        std::thread::sleep(SETTLE);
    }
}

/// Limits the rate of merges, and ends them when the store is closed. The tree calls it for each pair that is merged.
pub(super) struct PaceFactory(Arc<Control>);

impl PaceFactory {
    pub(super) fn new(control: &Arc<Control>) -> Self {
        Self(Arc::clone(control))
    }
}

impl Factory for PaceFactory {
    fn name(&self) -> &str {
        "pace"
    }

    fn make_filter(&self, _: &Context) -> Box<dyn CompactionFilter> {
        let limiter = RateLimiter::new(MERGE_BYTES_PER_SECOND);
        Box::new(PaceFilter { control: Arc::clone(&self.0), limiter, bytes: 0 })
    }
}

struct PaceFilter {
    control: Arc<Control>,
    limiter: RateLimiter,
    /// Bytes since the rate was last limited.
    bytes: usize,
}

/// Bytes after which the clock is read.
const PACE_BYTES: usize = 256 << 10;

impl CompactionFilter for PaceFilter {
    fn filter_item(&mut self, item: ItemAccessor<'_>, _: &Context) -> lsm_tree::Result<Verdict> {
        self.bytes += item.key().len() + item.value()?.len();
        if self.bytes >= PACE_BYTES {
            if self.control.stopping.load(Ordering::Relaxed) {
                return Err(std::io::Error::from(std::io::ErrorKind::Interrupted).into());
            }
            if !self.control.unpaced.load(Ordering::Relaxed) {
                self.limiter.keep(self.bytes);
            }
            self.bytes = 0;
        }
        Ok(Verdict::Keep)
    }
}
