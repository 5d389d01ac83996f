//! [`Engine`] on lsm-tree: a log-structured merge tree without a log of its own. The raft log is the one durable log.
//!
//! ```text
//!  commit ─► memtable ─(16 MiB)─► sealed ─flush─► tables of level 0 ─merge─► … ─merge─► tables of the last level
//!               └──────────────── read together, as of one sequence number ───────────────┘
//! ```
//!
//! All spaces are key ranges of one tree, so that a flush makes whole batches durable, of all spaces at once. Batches that
//! were not flushed are lost when the process ends: the store is at an earlier batch then, and its applied index determines
//! from where the raft log is applied again. [`LsmEngine::persist`] flushes; the raft log is truncated after that.
//!
//! Executors read and write [`layers`], and take no lock that is held while the disk works.
//!
//! Two threads maintain the tree ([`upkeep`]): one flushes, one merges tables, which removes obsolete versions
//! ([`policy`] decides when). A flush or merge that fails, for lack of space for example, is tried again; nothing is
//! lost by that, since memtables stay in memory and merges replace their input only when they are complete.

mod layers;
mod loader;
mod policy;
#[cfg(test)]
mod tests;
mod upkeep;
mod write_back;

use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use bytes::Bytes;
use lsm_tree::config::{
    BlockSizePolicy, BloomConstructionPolicy, CompressionPolicy, FilterPolicy, FilterPolicyEntry,
    RestartIntervalPolicy,
};
use lsm_tree::{
    AbstractTree as _, AnyTree, Cache, CompressionType, Config, DescriptorTable, InternalValue,
    Memtable, SeqNo, SequenceNumberCounter, Slice, ValueType,
};

use self::layers::{Bounds, Layers, Newest, Tables};
pub use self::loader::{Loader, LoaderView};
use self::policy::MergePolicy;
use self::upkeep::{Control, PaceFactory, Upkeep};
use super::durable::sync_dir;
use super::memory::{block_cache_bytes, memtable_bytes};
use crate::io::descriptors;
use crate::io::removal::delete_in_background;
use crate::store::{Batch, Engine, Pair, Space, View};
use crate::types::Fault;
use crate::types::limits::{KEY_BYTES_MAX, SEALED_MEMTABLES_MAX};

/// Runs of level 0 above which commits wait: each is searched for each key that is read.
const LEVEL_0_RUNS_MAX: usize = 24;
/// Versions that a flush or merge leaves out, if there are newer ones: those with smaller sequence numbers. All, since views
/// keep the tables that they read.
const OBSOLETE_BELOW: SeqNo = SeqNo::MAX;
/// Reported size of an empty store: as etcd's. etcdctl divides by the size.
const EMPTY_BYTES: u64 = 20 << 10;

/// The store on disk. Clones share it; only one may commit and make views.
#[derive(Clone)]
pub struct LsmEngine {
    /// Dropped before the tree.
    upkeep: Arc<Upkeep>,
    store: Arc<Store>,
}

/// A snapshot of [`LsmEngine`].
#[derive(Clone)]
pub struct LsmView {
    /// Dropped before the store's directory.
    layers: Arc<Layers>,
    /// Batches with smaller sequence numbers are visible.
    number: u64,
    /// Keeps the directory.
    _store: Arc<Store>,
}

/// State shared by threads and views.
struct Store {
    /// Read by executors.
    layers: ArcSwap<Layers>,
    /// Locked while the tables of `layers` are exchanged; never by executors.
    listing: Mutex<()>,
    /// Replaced layers, until no view reads them: freed by a thread, where no caller waits.
    retired: Mutex<Vec<Retired>>,
    /// The tables, on disk; its own memtables stay empty.
    tree: AnyTree,
    memtable_bytes: u64,
    /// The sequence number: one for each batch, and one for each change of the tree's files.
    sequence: SequenceNumberCounter,
    /// Locked while a batch is written to the memtable, and while memtables are exchanged: so each memtable holds whole
    /// batches. True if the active memtable holds the first part of a batch, and nothing that is committed.
    staging: Mutex<bool>,
    /// Number of merges; locked during a merge.
    merges: Mutex<u64>,
    control: Arc<Control>,
    counters: Counters,
    /// Dropped after the tree.
    home: StoreDir,
}

/// Layers that were replaced.
struct Retired {
    layers: Arc<Layers>,
    /// The sequence number at that time.
    number: u64,
}

#[derive(Default)]
struct Counters {
    /// Bytes committed since the start.
    committed: AtomicU64,
    /// Bytes of keys and values that are kept, as last set by the owner.
    usage: AtomicU64,
    /// Bytes of the tables on disk, including those that only old views read.
    disk: AtomicU64,
    /// Bytes of the memtables that are not flushed, and of the sealed ones among them.
    unflushed: Arc<AtomicU64>,
    sealed: AtomicU64,
    /// Incremented when the tree's files changed so that a new view reads fewer of them.
    changes: AtomicU64,
}

/// Directory of the store; removed with its last user, if it was abandoned.
struct StoreDir {
    path: PathBuf,
    abandoned: AtomicBool,
}

impl Drop for StoreDir {
    fn drop(&mut self) {
        if self.abandoned.load(Ordering::Relaxed) {
            // A rest is removed by the next start if the process ends first.
            delete_in_background(std::mem::take(&mut self.path));
        }
    }
}

fn fault(what: &str) -> impl Fn(lsm_tree::Error) -> Fault + '_ {
    move |error| Fault::new(format!("the store cannot {what}: {}", error_text(&error)))
}

/// The text of a tree's error: the system's own, where it is one of those.
fn error_text(error: &lsm_tree::Error) -> String {
    match std::error::Error::source(error) {
        Some(cause) => cause.to_string(),
        None => error.to_string(),
    }
}

/// Poisoning is ignored: no thread continues after a panic with one of these locks held.
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
        // Level 0 is searched for every key.
        .filter_policy(FilterPolicy::new([
            bloom(BloomConstructionPolicy::FalsePositiveRate(0.0001)),
            bloom(BloomConstructionPolicy::BitsPerKey(10.0)),
        ]))
        .with_compaction_filter_factory(Some(Arc::new(PaceFactory::new(control))))
}

impl LsmEngine {
    /// Opens the store in a directory, or creates one. Blocks.
    ///
    /// # Errors
    /// The directory cannot be used, or its content is damaged.
    pub fn open(path: &Path) -> Result<Self, Fault> {
        Self::open_with(path, memtable_bytes(), Some(MergePolicy::default()))
    }

    /// The same with memtables of so many bytes: small ones are flushed, and their tables merged, after few batches.
    ///
    /// # Errors
    /// As [`LsmEngine::open`].
    pub fn open_with_memtables(path: &Path, bytes: u64) -> Result<Self, Fault> {
        Self::open_with(path, bytes, Some(MergePolicy::default()))
    }

    /// The same for a temporary store, in which merges would not pay off.
    fn open_unmerged(path: &Path) -> Result<Self, Fault> {
        Self::open_with(path, memtable_bytes(), None)
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
        // A process that was killed may have renamed a version and not synced its directory. The log is truncated up to what
        // is read here.
        sync_dir(path).map_err(|error| fault("open")(error.into()))?;
        // Views are made at the next sequence number, and the first is never 0.
        sequence.fetch_max(tree.get_highest_persisted_seqno().map_or(1, |newest| newest + 1));
        let counters = Counters { disk: AtomicU64::new(tree.disk_space()), ..Counters::default() };
        let home = StoreDir { path: path.to_owned(), abandoned: AtomicBool::new(false) };
        let store = Arc::new(Store {
            layers: ArcSwap::from_pointee(Layers::new(tables(&tree))),
            listing: Mutex::default(),
            retired: Mutex::default(),
            tree,
            memtable_bytes,
            sequence,
            staging: Mutex::default(),
            merges: Mutex::default(),
            control,
            counters,
            home,
        });
        let upkeep = Arc::new(Upkeep::start(&store, policy)?);
        Ok(Self { upkeep, store })
    }

    /// Another store replaced this one: its files are removed after their last use.
    pub fn abandon(&self) {
        self.store.home.abandoned.store(true, Ordering::Relaxed);
    }

    /// Makes everything committed so far durable. Blocks for long: not for executors.
    ///
    /// # Errors
    /// The disk failed or is full; the committed batches are still in memory, and it can be tried again.
    pub fn persist(&self) -> Result<(), Fault> {
        self.store.seal();
        self.store.flush().map_err(fault("write to its disk"))
    }

    /// Sets the bytes of keys and values that are kept, as far as the owner knows: larger tables contain garbage.
    pub fn note_usage(&self, bytes: u64) {
        self.store.counters.usage.store(bytes, Ordering::Relaxed);
    }

    /// Counter of bytes that were committed and take disk space when they are flushed.
    pub fn unflushed(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.store.counters.unflushed)
    }

    /// True if commits have to wait, so that flushes and merges keep up.
    pub fn is_behind(&self) -> bool {
        let layers = self.store.layers.load();
        let may_merge = || !self.store.control.no_room.load(Ordering::Relaxed);
        layers.sealed.len() >= SEALED_MEMTABLES_MAX
            || (layers.tables.level_0_runs() >= LEVEL_0_RUNS_MAX && may_merge())
    }

    /// A number that changes when a new view would release files that older ones hold.
    pub fn changes(&self) -> u64 {
        self.store.counters.changes.load(Ordering::Relaxed)
    }

    /// Requests a merge of everything now; returns a receiver of the notification when it is complete.
    pub fn defragment(&self) -> flume::Receiver<()> {
        self.upkeep.ask(true)
    }

    /// Requests the removal of the files that no view reads any more; returns a receiver of the notification when
    /// it is complete.
    pub fn let_go(&self) -> flume::Receiver<()> {
        self.upkeep.ask(false)
    }
}

impl Store {
    /// Seals the memtable; a new one takes further batches.
    fn seal(&self) {
        let staging = lock(&self.staging);
        if !*staging {
            self.rotate();
        }
    }

    /// Called with `staging` locked.
    fn rotate(&self) {
        let size = self.layers.load().active.size();
        if size > 0 {
            // The counter first: a flush subtracts from it.
            self.counters.sealed.fetch_add(size, Ordering::Relaxed);
            self.replace_layers(Layers::rotated);
        }
    }

    fn replace_layers(&self, next: impl Fn(&Layers) -> Layers) {
        let layers = self.layers.rcu(|layers| next(layers));
        let retired = Retired { layers, number: self.sequence.get() };
        lock(&self.retired).push(retired);
    }

    /// Lists the tree's tables, to which these memtables were written.
    fn list_tables(&self, flushed: &[Arc<Memtable>]) {
        let _listing = lock(&self.listing);
        let tables = Arc::new(tables(&self.tree));
        self.replace_layers(|layers| layers.flushed(flushed, &tables));
    }

    /// Writes a batch into the active memtable. Called with `staging` locked. Gives the size of the memtable.
    fn insert(&self, batch: Batch) -> u64 {
        let memtable = &self.layers.load().active;
        let number = self.sequence.next();
        let mut bytes = 0;
        for (space, key, value) in batch.writes {
            let key = prefixed(space, &key);
            bytes += key.len() + value.as_ref().map_or(0, Bytes::len);
            memtable.insert(match value {
                Some(value) => InternalValue::from_components(key, value, number, ValueType::Value),
                // The tombstone and the one value under it are removed together, by whichever merge reads both.
                None if space.is_written_once() => InternalValue::new_weak_tombstone(key, number),
                None => InternalValue::new_tombstone(key, number),
            });
        }
        self.counters.committed.fetch_add(bytes as u64, Ordering::Relaxed);
        self.count_unflushed(memtable.size());
        memtable.size()
    }

    /// Writes sealed memtables to tables; they are durable when this returns.
    fn flush(&self) -> lsm_tree::Result<()> {
        let _flushing = self.tree.get_flush_lock();
        let sealed = self.layers.load().sealed.clone();
        if sealed.is_empty() {
            return Ok(());
        }
        let merges = self.merges.try_lock().ok().map(|merges| *merges);
        let next_table = self.tree.next_table_id();
        let flushed = self.write_tables(&sealed);
        if flushed.is_err()
            && let Ok(now) = self.merges.try_lock()
            && merges == Some(*now)
        {
            // No other thread has created a table meanwhile.
            self.remove_unfinished(next_table);
        }
        flushed?;
        let bytes = sealed.iter().map(|memtable| memtable.size()).sum();
        self.counters.sealed.fetch_sub(bytes, Ordering::Relaxed);
        self.count_unflushed(self.layers.load().active.size());
        Ok(())
    }

    fn write_tables(&self, sealed: &[Arc<Memtable>]) -> lsm_tree::Result<()> {
        let (tables, _) = self.tree.flush_to_tables(Newest::of(sealed))?.unwrap_or_default();
        if !tables.is_empty() {
            self.tree.register_tables(&tables, None, None, &[], OBSOLETE_BELOW)?;
        }
        self.list_tables(sealed);
        Ok(())
    }

    /// Removes tables with this number or a later one that are not part of the tree: the output of a failed flush or
    /// merge. The tree does that only when it is opened. No other thread may create tables meanwhile.
    fn remove_unfinished(&self, next_table: u64) {
        let version = self.tree.current_version();
        let tables = std::fs::read_dir(self.home.path.join("tables")).into_iter().flatten();
        for table in tables.flatten() {
            let number = table.file_name().to_str().and_then(|name| name.parse::<u64>().ok());
            let is_unfinished = number.is_some_and(|number| {
                number >= next_table && version.iter_tables().all(|table| table.id() != number)
            });
            if is_unfinished {
                // Files that remain are removed at the next start.
                let _ = std::fs::remove_file(table.path());
            }
        }
    }

    fn count_unflushed(&self, active: u64) {
        let sealed = self.counters.sealed.load(Ordering::Relaxed);
        self.counters.unflushed.store(sealed + active, Ordering::Relaxed);
    }
}

impl Engine for LsmEngine {
    type View = LsmView;

    fn view(&self) -> LsmView {
        // Tables have the newest version of each key, as of when they were listed: so the number is taken after the list.
        let layers = self.store.layers.load_full();
        LsmView { layers, number: self.store.sequence.get(), _store: Arc::clone(&self.store) }
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

    /// Staged writes go into a memtable of their own, which is not flushed before the commit. Earlier batches are
    /// sealed, so that they can be made durable meanwhile.
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
        // Bytes that wait to be flushed are on the disk too, in the log.
        let unflushed = self.store.counters.unflushed.load(Ordering::Relaxed);
        EMPTY_BYTES + self.store.counters.disk.load(Ordering::Relaxed) + unflushed
    }
}

/// The tree's tables.
fn tables(tree: &AnyTree) -> Tables {
    let version = tree.current_version();
    let runs = version.iter_levels().flat_map(|level| level.iter()).map(|run| run.to_vec());
    Tables::new(runs.collect(), version.l0().run_count())
}

/// A key of the tree: its space, then the key.
fn prefixed(space: Space, key: &[u8]) -> Slice {
    Slice::fused(&[space as u8], key)
}

/// A bound of the tree. Keys longer than any stored one are truncated, without a change of their order.
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
        let found = self.layers.get(&prefixed(space, key), self.number);
        Ok(found.map_err(fault("read"))?.map(Bytes::from))
    }

    fn scan<'a>(
        &'a self,
        space: Space,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
    ) -> impl DoubleEndedIterator<Item = Result<Pair, Fault>> + 'a {
        let bounds: Bounds = (bound(space, from, true), bound(space, to, false));
        self.layers.scan(&bounds, self.number).map(|pair| {
            let pair = pair.map_err(fault("read"))?;
            Ok((Bytes::from(pair.key.user_key).slice(1..), Bytes::from(pair.value)))
        })
    }
}
