//! [`Engine`] on lsm-tree: a log-structured merge tree without a log of its own. The raft log is the one durable log.
//!
//! ```text
//!  commit ─► memtable ─(16 MiB)─► sealed ─flush─► tables of level 0 ─merge─► … ─merge─► tables of the last level
//!               └──────────────── read together, as of one sequence number ───────────────┘
//! ```
//!
//! All spaces are key ranges of one tree, so that a flush makes whole batches durable, of all spaces at once. What was
//! not flushed when the process ends is gone: the store is back at an earlier batch, whole, and its applied index says
//! from where the raft log is applied again. [`LsmEngine::persist`] flushes; the raft log is truncated after that.
//!
//! Two threads keep the tree in order ([`upkeep`]): one flushes, one merges tables, which removes what nobody can read
//! ([`policy`] decides when). If a flush or merge fails, for want of room for example, it is tried again; nothing is
//! lost by that, since memtables stay in memory and merges replace their input only when they are whole.

mod loader;
mod pins;
mod policy;
#[cfg(test)]
mod tests;
mod upkeep;
mod write_back;

use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use lsm_tree::config::{
    BlockSizePolicy, BloomConstructionPolicy, CompressionPolicy, FilterPolicy, FilterPolicyEntry,
    RestartIntervalPolicy,
};
use lsm_tree::{
    AbstractTree as _, AnyTree, Cache, CompressionType, Config, DescriptorTable, Guard as _,
    InternalValue, Memtable, SequenceNumberCounter, Slice, ValueType,
};

pub use self::loader::{Loader, LoaderView};
use self::pins::{Pin, Pins};
use self::policy::MergePolicy;
use self::upkeep::{Control, PaceFactory, Upkeep};
use super::memory::block_cache_bytes;
use crate::io::descriptors;
use crate::io::removal::delete_in_background;
use crate::store::{Batch, Engine, Pair, Space, View};
use crate::types::Fault;
use crate::types::limits::KEY_BYTES_MAX;

/// Bytes of a memtable: while it is flushed the next one fills. After a crash as much is applied again from the log.
const MEMTABLE_BYTES: u64 = 16 << 20;
/// Sealed memtables that wait for their flush before who commits has to wait.
const SEALED_MAX: usize = 4;
/// Runs of level 0 before who commits has to wait: each is asked for each key that is read.
const LEVEL_0_RUNS_MAX: usize = 24;
/// What an empty store takes: as etcd's. etcdctl divides by the size.
const EMPTY_BYTES: u64 = 20 << 10;

/// The store on disk. Clones share it; only one may commit and make views.
#[derive(Clone)]
pub struct LsmEngine {
    /// Ends before the tree does.
    upkeep: Arc<Upkeep>,
    store: Arc<Store>,
}

/// [`LsmEngine`] at one moment.
#[derive(Clone)]
pub struct LsmView {
    store: Arc<Store>,
    pin: Arc<Pin>,
}

/// What threads and views share.
struct Store {
    tree: AnyTree,
    memtable_bytes: u64,
    /// One for each batch, and one for each change of the tree's files.
    sequence: SequenceNumberCounter,
    pins: Pins,
    /// Held while a batch goes into the memtable, and while memtables are exchanged: one of them holds whole batches.
    /// Whether the active memtable holds the first part of a batch, and nothing that is committed.
    staging: Mutex<bool>,
    /// How many merges were made; held while one is.
    merges: Mutex<u64>,
    /// Sealed memtables, until they are flushed and nobody reads them: freed where nobody waits.
    retired: Mutex<Vec<Arc<Memtable>>>,
    control: Arc<Control>,
    counters: Counters,
    /// Dropped after the tree.
    home: Home,
}

#[derive(Default)]
struct Counters {
    /// Bytes committed since the start.
    committed: AtomicU64,
    /// Bytes of keys and values that are kept, as the owner last said.
    usage: AtomicU64,
    /// Bytes of the tables on disk, those that only old views read included.
    disk: AtomicU64,
    /// Bytes of the memtables that are not flushed, and of those the sealed ones.
    unflushed: Arc<AtomicU64>,
    sealed: AtomicU64,
    /// Rises when the tree's files changed so that a new view sees fewer of them.
    changes: AtomicU64,
}

/// Where the store is; removed with the last of those who read it, if it was abandoned.
struct Home {
    path: PathBuf,
    abandoned: AtomicBool,
}

impl Drop for Home {
    fn drop(&mut self) {
        if self.abandoned.load(Ordering::Relaxed) {
            // What is left when the process ends is removed by the next start.
            delete_in_background(std::mem::take(&mut self.path));
        }
    }
}

fn fault(what: &str) -> impl Fn(lsm_tree::Error) -> Fault + '_ {
    move |error| Fault::new(format!("the store cannot {what}: {}", told(&error)))
}

/// An error of the tree in words: the system's own, where it is one of those.
fn told(error: &lsm_tree::Error) -> String {
    match std::error::Error::source(error) {
        Some(cause) => cause.to_string(),
        None => error.to_string(),
    }
}

/// Nothing that holds one of these locks panics in between and goes on.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn config(path: &Path, sequence: &SequenceNumberCounter, control: &Arc<Control>) -> Config {
    let bloom = |policy| FilterPolicyEntry::Bloom(policy);
    Config::new(path, sequence.clone(), SequenceNumberCounter::default())
        .use_cache(Arc::new(Cache::with_capacity_bytes(block_cache_bytes())))
        .use_descriptor_table(Some(Arc::new(DescriptorTable::new(descriptors::of_store()))))
        .data_block_compression_policy(CompressionPolicy::all(CompressionType::Lz4))
        .data_block_size_policy(BlockSizePolicy::all(4 << 10))
        .data_block_restart_interval_policy(RestartIntervalPolicy::new([10, 16]))
        // Level 0 is asked for every key.
        .filter_policy(FilterPolicy::new([
            bloom(BloomConstructionPolicy::FalsePositiveRate(0.0001)),
            bloom(BloomConstructionPolicy::BitsPerKey(10.0)),
        ]))
        .with_compaction_filter_factory(Some(Arc::new(PaceFactory::new(control))))
}

impl LsmEngine {
    /// Opens the store in a directory, or makes one. Blocks.
    ///
    /// # Errors
    /// The directory cannot be used, or what is in it is damaged.
    pub fn open(path: &Path) -> Result<Self, Fault> {
        Self::open_with(path, MEMTABLE_BYTES, Some(MergePolicy::default()))
    }

    /// The same with memtables of so many bytes: small ones are flushed, and their tables merged, after few batches.
    ///
    /// # Errors
    /// As [`LsmEngine::open`].
    pub fn open_with_memtables(path: &Path, bytes: u64) -> Result<Self, Fault> {
        Self::open_with(path, bytes, Some(MergePolicy::default()))
    }

    /// The same for a store that is only passing, in which nothing is worth being merged.
    fn open_unmerged(path: &Path) -> Result<Self, Fault> {
        Self::open_with(path, MEMTABLE_BYTES, None)
    }

    fn open_with(
        path: &Path,
        memtable_bytes: u64,
        policy: Option<MergePolicy>,
    ) -> Result<Self, Fault> {
        if path.join("keyspaces").exists() {
            return Err(Fault::new(format!(
                "the store in {} was made by a version of Basalt before this one: save a snapshot with that version, and \
                 restore it",
                path.display()
            )));
        }
        let (sequence, control) = (SequenceNumberCounter::new(1), Arc::default());
        let tree = config(path, &sequence, &control).open().map_err(fault("open"))?;
        // Views are made at the number that comes next, and the first is never 0.
        sequence.fetch_max(tree.get_highest_persisted_seqno().map_or(1, |newest| newest + 1));
        let counters = Counters { disk: AtomicU64::new(tree.disk_space()), ..Counters::default() };
        let home = Home { path: path.to_owned(), abandoned: AtomicBool::new(false) };
        let store = Arc::new(Store {
            tree,
            memtable_bytes,
            sequence,
            pins: Pins::default(),
            staging: Mutex::default(),
            merges: Mutex::default(),
            retired: Mutex::default(),
            control,
            counters,
            home,
        });
        let upkeep = Arc::new(Upkeep::start(&store, policy)?);
        Ok(Self { upkeep, store })
    }

    /// Another store took this one's place: its files are removed when nobody reads them any more.
    pub fn abandon(&self) {
        self.store.home.abandoned.store(true, Ordering::Relaxed);
    }

    /// Makes everything committed so far durable. Blocks: call it where nothing waits.
    ///
    /// # Errors
    /// The disk failed or is full; what was committed is still there, and it can be tried again.
    pub fn persist(&self) -> Result<(), Fault> {
        self.store.seal();
        self.store.flush().map_err(fault("write to its disk"))
    }

    /// Bytes of keys and values that are kept, as far as its owner knows: what takes more than that is garbage.
    pub fn note_usage(&self, bytes: u64) {
        self.store.counters.usage.store(bytes, Ordering::Relaxed);
    }

    /// Bytes that were committed and take room on the disk when they are flushed, as counted now and at any later time.
    pub fn unflushed(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.store.counters.unflushed)
    }

    /// Whether whoever commits has to wait, so that flushes and merges keep up.
    pub fn is_behind(&self) -> bool {
        let tree = &self.store.tree;
        tree.sealed_memtable_count() >= SEALED_MAX || tree.l0_run_count() >= LEVEL_0_RUNS_MAX
    }

    /// A number that changes when a new view would let files go that older ones hold.
    pub fn changes(&self) -> u64 {
        self.store.counters.changes.load(Ordering::Relaxed)
    }

    /// Asks for a merge of everything, now instead of when it is due; gives what says when that is over.
    pub fn defragment(&self) -> flume::Receiver<()> {
        self.upkeep.ask(true)
    }

    /// Asks for the files that no view reads any more to be removed now; gives what says when that is over.
    pub fn let_go(&self) -> flume::Receiver<()> {
        self.upkeep.ask(false)
    }
}

impl Store {
    /// The memtable takes no more batches; the next one does.
    fn seal(&self) {
        let staging = lock(&self.staging);
        if !*staging {
            self.rotate();
        }
    }

    /// Called with `staging` locked.
    fn rotate(&self) {
        if let Some(sealed) = self.tree.rotate_memtable() {
            self.counters.sealed.fetch_add(sealed.size(), Ordering::Relaxed);
            lock(&self.retired).push(sealed);
        }
    }

    /// Writes a batch into the active memtable. Called with `staging` locked. Gives the size of the memtable.
    fn insert(&self, batch: Batch) -> u64 {
        let memtable = self.tree.active_memtable();
        let number = self.sequence.next();
        let mut bytes = 0;
        for (space, key, value) in batch.writes {
            let key = prefixed(space, &key);
            bytes += key.len() + value.as_ref().map_or(0, Bytes::len);
            memtable.insert(match value {
                Some(value) => InternalValue::from_components(key, value, number, ValueType::Value),
                // It and the one value that it hides go together, in whichever merge they meet.
                None if space.is_written_once() => InternalValue::new_weak_tombstone(key, number),
                None => InternalValue::new_tombstone(key, number),
            });
        }
        self.counters.committed.fetch_add(bytes as u64, Ordering::Relaxed);
        self.count_unflushed(memtable.size());
        memtable.size()
    }

    /// Writes sealed memtables to tables, which are durable then.
    fn flush(&self) -> lsm_tree::Result<()> {
        let flushing = self.tree.get_flush_lock();
        let merges = self.merges.try_lock().ok().map(|merges| *merges);
        let next_table = self.tree.next_table_id();
        let flushed = self.tree.flush(&flushing, self.watermark());
        if flushed.is_err()
            && let Ok(now) = self.merges.try_lock()
            && merges == Some(*now)
        {
            // Nobody else has made a table meanwhile.
            self.remove_unfinished(next_table);
        }
        if let Some(bytes) = flushed? {
            self.counters.sealed.fetch_sub(bytes, Ordering::Relaxed);
            self.count_unflushed(self.tree.active_memtable().size());
        }
        Ok(())
    }

    /// Removes tables with this number or a later one that are not part of the tree: what a flush or merge that failed
    /// had written. The tree does that only when it is opened. Nothing else may make tables meanwhile.
    fn remove_unfinished(&self, next_table: u64) {
        let version = self.tree.current_version();
        let tables = std::fs::read_dir(self.home.path.join("tables")).into_iter().flatten();
        for table in tables.flatten() {
            let number = table.file_name().to_str().and_then(|name| name.parse::<u64>().ok());
            let is_unfinished = number.is_some_and(|number| {
                number >= next_table && version.iter_tables().all(|table| table.id() != number)
            });
            if is_unfinished {
                // What stays is removed at the next start.
                let _ = std::fs::remove_file(table.path());
            }
        }
    }

    fn count_unflushed(&self, active: u64) {
        let sealed = self.counters.sealed.load(Ordering::Relaxed);
        self.counters.unflushed.store(sealed + active, Ordering::Relaxed);
    }

    /// Nobody reads versions that were replaced before this number.
    fn watermark(&self) -> u64 {
        // First what comes next: a view that is made meanwhile is pinned there or later.
        let next = self.sequence.get();
        self.pins.oldest().unwrap_or(next).min(next).saturating_sub(1)
    }
}

impl Engine for LsmEngine {
    type View = LsmView;

    fn view(&self) -> LsmView {
        let pin = Arc::new(self.store.pins.pin(self.store.sequence.get()));
        LsmView { store: Arc::clone(&self.store), pin }
    }

    fn commit(&mut self, batch: Batch) -> Result<(), Fault> {
        let store = &*self.store;
        let is_full = {
            let mut staging = lock(&store.staging);
            *staging = false;
            store.insert(batch) >= store.memtable_bytes
        };
        if is_full {
            store.seal();
            self.upkeep.flush_soon();
        }
        Ok(())
    }

    /// What is staged goes into a memtable of its own, which takes no flush before the commit. What was committed before is
    /// sealed, so that it can be made durable meanwhile.
    fn stage(&mut self, batch: Batch) -> Result<(), Fault> {
        let store = &*self.store;
        let mut staging = lock(&store.staging);
        let begins = !std::mem::replace(&mut *staging, true);
        if begins {
            store.rotate();
        }
        store.insert(batch);
        drop(staging);
        if begins {
            self.upkeep.flush_soon();
        }
        Ok(())
    }

    fn disk_bytes(&self) -> u64 {
        // What waits to be flushed is on the disk too, in the log.
        let unflushed = self.store.counters.unflushed.load(Ordering::Relaxed);
        EMPTY_BYTES + self.store.counters.disk.load(Ordering::Relaxed) + unflushed
    }
}

/// A key of the tree: its space, then the key.
fn prefixed(space: Space, key: &[u8]) -> Slice {
    Slice::fused(&[space as u8], key)
}

/// A bound of the tree. Longer keys than any that is stored are cut to where they would be.
fn bound(space: Space, bound: Bound<&[u8]>, is_start: bool) -> Bound<Slice> {
    let key = match bound {
        Bound::Included(key) | Bound::Excluded(key) => key,
        Bound::Unbounded if is_start => return Bound::Included(prefixed(space, &[])),
        Bound::Unbounded => return Bound::Excluded(Slice::from([space as u8 + 1])),
    };
    match (key.get(..KEY_BYTES_MAX), bound) {
        (Some(head), _) if head.len() < key.len() => match is_start {
            true => Bound::Excluded(prefixed(space, head)),
            false => Bound::Included(prefixed(space, head)),
        },
        (_, Bound::Included(_)) => Bound::Included(prefixed(space, key)),
        (_, _) => Bound::Excluded(prefixed(space, key)),
    }
}

impl View for LsmView {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, Fault> {
        if key.len() > KEY_BYTES_MAX {
            return Ok(None);
        }
        let found = self.store.tree.get(prefixed(space, key), self.pin.number());
        Ok(found.map_err(fault("read"))?.map(Bytes::from))
    }

    fn scan<'a>(
        &'a self,
        space: Space,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
    ) -> impl DoubleEndedIterator<Item = Result<Pair, Fault>> + 'a {
        let bounds = (bound(space, from, true), bound(space, to, false));
        self.store.tree.range(bounds, self.pin.number(), None).map(|guard| {
            let (key, value) = guard.into_inner().map_err(fault("read"))?;
            Ok((Bytes::from(key).slice(1..), Bytes::from(value)))
        })
    }
}
