//! [`Engine`] on fjall: log-structured, compressed, never synced per write. The raft log is what is durable;
//! after a loss of power the store may be back at any earlier batch, whole.

mod caretaker;
mod cause;
mod loader;
mod room;
#[cfg(test)]
mod tests;
mod write_back;

use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use fjall::compaction::Leveled;
use fjall::compaction::filter::Factory;
use fjall::config::CompressionPolicy;
use fjall::{
    CompressionType, Database, Keyspace, KeyspaceCreateOptions, PersistMode, Readable, Slice,
    Snapshot,
};

use self::caretaker::Caretaker;
pub use self::loader::{Loader, LoaderView};
use self::room::MergeRoom;
use crate::io::removal::remove_gently;
use crate::io::thread;
use crate::store::{Batch, Engine, Pair, Space, View};
use crate::types::Fault;

/// Bytes of a memtable: while it is flushed the next one fills, so that four of them can be in memory. Larger
/// ones make rarer flushes; this keeps a busy member in less memory than etcd, and puts are no slower.
const MEMTABLE_BYTES: u64 = 8 << 20;
/// Bytes of a table: what fjall does when a merge is done it does under the lock of all reads and writes, and that
/// is less for a smaller one. 64 MiB, its default, let everyone wait for up to a quarter of a second.
const TABLE_BYTES: u64 = 8 << 20;
/// Runs of tables that overlap, past which they are merged.
const RUNS_MAX: u8 = 4;
/// Bytes of fjall's journals on disk before it forces a flush. Rotating one stalls writers, so rarely.
const JOURNAL_BYTES_MAX: u64 = 256 << 20;
/// Bytes of blocks that are kept in memory, beside what the kernel keeps.
const BLOCK_CACHE_BYTES: u64 = 96 << 20;

/// How far fjall's threads, which flush and merge, and the caretaker step back behind those who serve: on full
/// cores that takes a quarter off the slowest answers. Not further, or memtables would pile up.
const NICE: i32 = 5;

/// What an empty store takes, about.
const STORE_BYTES_MIN: u64 = 4096;

/// Where each space is: `kv` and `log` have a keyspace of their own, the small ones share one and are told
/// apart by their first byte.
struct Keyspaces {
    kv: Keyspace,
    log: Keyspace,
    small: Keyspace,
    /// Dropped after the others.
    home: Home,
}

/// Where the store is; taken away with the last of those who read it, if it was abandoned.
struct Home {
    path: PathBuf,
    abandoned: AtomicBool,
}

impl Drop for Home {
    fn drop(&mut self) {
        if self.abandoned.load(Ordering::Relaxed) {
            // What is left when the process ends is taken away by the next start.
            remove_gently(std::mem::take(&mut self.path));
        }
    }
}

impl Keyspaces {
    fn of(&self, space: Space) -> (&Keyspace, Option<u8>) {
        match space {
            Space::Kv => (&self.kv, None),
            Space::Log => (&self.log, None),
            Space::Meta
            | Space::Lease
            | Space::Members
            | Space::MembersRemoved
            | Space::Alarm
            | Space::Cluster
            | Space::Auth
            | Space::AuthUsers
            | Space::AuthRoles => (&self.small, Some(space as u8)),
        }
    }
}

/// The store on disk. Clones share it; only one may commit.
#[derive(Clone)]
pub struct FjallEngine {
    /// Gone first: merges that wait for room on the disk end then.
    _open: Arc<()>,
    /// Gone before what it takes care of.
    caretaker: Arc<Caretaker>,
    database: Database,
    keyspaces: Arc<Keyspaces>,
    /// Bytes in memtables.
    unflushed: Arc<AtomicU64>,
}

/// [`FjallEngine`] at one moment.
#[derive(Clone)]
pub struct FjallView {
    snapshot: Snapshot,
    keyspaces: Arc<Keyspaces>,
}

fn fault(what: &str) -> impl Fn(fjall::Error) -> Fault + '_ {
    move |error| Fault::new(format!("the store cannot {what}: {}", cause::of(&error)))
}

impl FjallEngine {
    /// Opens the store in a directory, or makes one. Blocks.
    ///
    /// # Errors
    /// The directory cannot be used, or what is in it is damaged.
    pub fn open(path: &Path) -> Result<Self, Fault> {
        Self::open_merging(path, RUNS_MAX)
    }

    /// The same for a store that is only passing, in which next to nothing is worth being merged.
    fn open_unmerged(path: &Path) -> Result<Self, Fault> {
        Self::open_merging(path, u8::MAX)
    }

    fn open_merging(path: &Path, runs_max: u8) -> Result<Self, Fault> {
        let path = path.to_owned();
        // Its threads are as nice as who starts them.
        let opening = thread::start_nice("store", NICE, move || Self::start(&path, runs_max))?;
        opening.join().map_err(|_| Fault::new("the thread that opens the store panicked"))?
    }

    fn start(path: &Path, runs_max: u8) -> Result<Self, Fault> {
        cause::keep();
        let open = Arc::new(());
        let unflushed = Arc::new(AtomicU64::new(0));
        let filter: Arc<dyn Factory> = Arc::new(MergeRoom::new(path, &open, &unflushed));
        let builder = Database::builder(path)
            .with_compaction_filter_factories(Arc::new(move |_| Some(Arc::clone(&filter))))
            .cache_size(BLOCK_CACHE_BYTES)
            .max_journaling_size(JOURNAL_BYTES_MAX)
            .manual_journal_persist(true)
            .worker_threads(1);
        let database = builder.open().map_err(fault("open"))?;
        let keyspace = |name: &str| {
            let options = || {
                KeyspaceCreateOptions::default()
                    .max_memtable_size(MEMTABLE_BYTES)
                    .compaction_strategy(Arc::new(
                        Leveled::default()
                            .with_table_target_size(TABLE_BYTES)
                            .with_l0_threshold(runs_max),
                    ))
                    .data_block_compression_policy(CompressionPolicy::all(CompressionType::Lz4))
                    .manual_journal_persist(true)
            };
            database.keyspace(name, options).map_err(fault("open"))
        };
        let home = Home { path: path.to_owned(), abandoned: AtomicBool::new(false) };
        let (kv, log, small) = (keyspace("kv")?, keyspace("log")?, keyspace("small")?);
        let cared_for = [kv.clone(), log.clone(), small.clone()];
        let caretaker =
            Caretaker::start(path, database.clone(), cared_for, Arc::clone(&unflushed))?;
        let keyspaces = Arc::new(Keyspaces { kv, log, small, home });
        unflushed.store(database.write_buffer_size(), Ordering::Relaxed);
        Ok(Self { _open: open, database, keyspaces, caretaker: Arc::new(caretaker), unflushed })
    }

    /// Another store took this one's place: its files go when nobody reads them any more.
    pub fn abandon(&self) {
        self.keyspaces.home.abandoned.store(true, Ordering::Relaxed);
    }

    /// Bytes that were committed and take room on the disk a second time when they are flushed, as counted now and at
    /// any later time.
    pub fn unflushed(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.unflushed)
    }

    /// Makes everything committed so far durable. Blocks: call it where nothing waits.
    ///
    /// # Errors
    /// The disk failed.
    pub fn persist(&self) -> Result<(), Fault> {
        // fjall syncs while it keeps everyone from committing: most of it is written before, without that.
        for file in std::fs::read_dir(&self.keyspaces.home.path).into_iter().flatten().flatten() {
            if file.path().extension().is_some_and(|extension| extension == "jnl") {
                // Best effort: a journal may be gone by now, and the sync below is the one that counts.
                drop(std::fs::File::open(file.path()).and_then(|journal| journal.sync_data()));
            }
        }
        self.database.persist(PersistMode::SyncAll).map_err(fault("sync"))
    }
}

impl Engine for FjallEngine {
    type View = FjallView;

    fn view(&self) -> FjallView {
        FjallView { snapshot: self.database.snapshot(), keyspaces: Arc::clone(&self.keyspaces) }
    }

    fn commit(&mut self, batch: Batch) -> Result<(), Fault> {
        let mut writes =
            fjall::OwnedWriteBatch::with_capacity(self.database.clone(), batch.writes.len());
        for (space, key, value) in batch.writes {
            let (keyspace, prefix) = self.keyspaces.of(space);
            let key = prefixed(prefix, key);
            match value {
                Some(value) => writes.insert(keyspace, key, Slice::from(value)),
                None => writes.remove(keyspace, key),
            }
        }
        writes.durability(None).commit().map_err(fault("commit"))?;
        self.unflushed.store(self.database.write_buffer_size(), Ordering::Relaxed);
        self.caretaker.committed();
        Ok(())
    }

    fn disk_bytes(&self) -> u64 {
        // fjall does not count what it keeps of an empty store, and etcdctl divides by this.
        self.database.disk_space().unwrap_or(0).max(STORE_BYTES_MIN)
    }
}

fn prefixed(prefix: Option<u8>, key: Bytes) -> Slice {
    match prefix {
        None => Slice::from(key),
        Some(prefix) => [&[prefix], &key[..]].concat().into(),
    }
}

impl View for FjallView {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, Fault> {
        let (keyspace, prefix) = self.keyspaces.of(space);
        let found = match prefix {
            None => self.snapshot.get(keyspace, key),
            Some(prefix) => self.snapshot.get(keyspace, [&[prefix], key].concat()),
        };
        Ok(found.map_err(fault("read"))?.map(Bytes::from))
    }

    fn scan<'a>(
        &'a self,
        space: Space,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
    ) -> impl DoubleEndedIterator<Item = Result<Pair, Fault>> + 'a {
        let (keyspace, prefix) = self.keyspaces.of(space);
        let bounds = match prefix {
            None => (from.map(<[u8]>::to_vec), to.map(<[u8]>::to_vec)),
            Some(prefix) => {
                let within = |bound: Bound<&[u8]>| bound.map(|key| [&[prefix], key].concat());
                let open = |bound: &Bound<Vec<u8>>| matches!(bound, Bound::Unbounded);
                let (from, to) = (within(from), within(to));
                (
                    if open(&from) { Bound::Included(vec![prefix]) } else { from },
                    if open(&to) { Bound::Excluded(vec![prefix + 1]) } else { to },
                )
            }
        };
        let skip = usize::from(prefix.is_some());
        self.snapshot.range(keyspace, bounds).map(move |guard| {
            let (key, value) = guard.into_inner().map_err(fault("read"))?;
            Ok((Bytes::from(key).slice(skip..), Bytes::from(value)))
        })
    }
}
