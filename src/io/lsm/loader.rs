//! Fills an empty store with more data than fits into memory, in any order, and writes each byte three times at most.
//!
//! ```text
//!  commit ─┬─ log: ascending anyway ──────► tables of the store
//!          ├─ kv and superseded: each
//!           │  batch is sorted ────────────► runs in a store of their own, which also serves reads
//!          └─ the small spaces ───────────► the store                            │
//!  finish ─────────────────────────────────────────────────────────────── merged once ──► tables of the store
//! ```
//!
//! Through memtables each byte would be written ten times, mostly by merges of `kv`, whose keys come in the order in
//! which they were written; others on the same disk would wait for that. (Bulk loading by external merge sort.)

use std::ops::Bound;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use lsm_tree::Slice;

use super::{LsmEngine, LsmView, fault, prefixed};
use crate::io::rate_limiter::RateLimiter;
use crate::store::{Batch, Engine, Pair, Space, View};
use crate::types::Fault;

/// Suffix of the store's directory for that of the runs.
const RUNS: &str = "-runs";

/// The spaces whose pairs come unordered.
const SORTED: [Space; 2] = [Space::Kv, Space::Superseded];

/// An empty store that is being filled. Commit large batches to it, each from an [`Overlay`](crate::store::Overlay),
/// and the pairs of [`Space::Log`] in ascending order. Blocks: for plain threads only.
pub struct Loader {
    store: LsmEngine,
    /// The runs; their content is merged into the store's `kv` and `superseded`.
    runs: LsmEngine,
    /// Directory of the runs.
    scratch: PathBuf,
    limiter: Option<RateLimiter>,
}

impl Loader {
    /// Creates a store in a directory that does not exist yet.
    ///
    /// # Errors
    /// The directory cannot be used.
    pub fn begin(path: &Path) -> Result<Self, Fault> {
        let mut scratch = path.as_os_str().to_owned();
        scratch.push(RUNS);
        let scratch = PathBuf::from(scratch);
        let (store, runs) = (LsmEngine::open(path)?, LsmEngine::open_unmerged(&scratch)?);
        Ok(Self { store, runs, scratch, limiter: None })
    }

    /// The same for a disk that is shared: limited to so many bytes in a second. The runs are removed in the
    /// background afterwards.
    ///
    /// # Errors
    /// The directory cannot be used.
    pub fn begin_paced(path: &Path, bytes_per_second: usize) -> Result<Self, Fault> {
        let paced =
            Self { limiter: Some(RateLimiter::new(bytes_per_second)), ..Self::begin(path)? };
        paced.runs.abandon();
        Ok(paced)
    }

    /// The store, durable.
    ///
    /// # Errors
    /// The disk failed.
    pub fn finish(mut self) -> Result<LsmEngine, Fault> {
        let merged = self.runs.view();
        // In the order of their keys, as the tree has them.
        for space in SORTED {
            let all = merged.scan(space, Bound::Unbounded, Bound::Unbounded);
            let pairs = all.map(|pair| pair.map(|(key, value)| (key, Some(value))));
            ingest(&self.store, space, pairs, &mut self.limiter)?;
        }
        self.store.persist()?;
        drop((merged, self.runs));
        if self.limiter.is_none() {
            let left = std::fs::remove_dir_all(&self.scratch);
            left.map_err(|error| Fault::new(format!("cannot remove the store's runs: {error}")))?;
        }
        Ok(self.store)
    }
}

/// Writes pairs, ascending, as tables.
fn ingest(
    to: &LsmEngine,
    space: Space,
    pairs: impl Iterator<Item = Result<(Bytes, Option<Bytes>), Fault>>,
    limiter: &mut Option<RateLimiter>,
) -> Result<(), Fault> {
    let mut pairs = pairs.peekable();
    if pairs.peek().is_none() {
        return Ok(());
    }
    let mut tables = to.store.tree.ingestion().map_err(fault("load"))?;
    for pair in pairs {
        let (key, value) = pair?;
        if let Some(limiter) = limiter {
            limiter.keep(key.len() + value.as_ref().map_or(0, Bytes::len));
        }
        match value {
            Some(value) => tables.write(prefixed(space, &key), Slice::from(value)),
            None if space.is_written_once() => tables.write_weak_tombstone(prefixed(space, &key)),
            None => tables.write_tombstone(prefixed(space, &key)),
        }
        .map_err(fault("load"))?;
    }
    tables.finish().map_err(fault("load"))?;
    to.store.list_tables(&[]);
    Ok(())
}

impl Engine for Loader {
    type View = LoaderView;

    fn view(&self) -> LoaderView {
        LoaderView { runs: self.runs.view(), store: self.store.view() }
    }

    fn commit(&mut self, batch: Batch) -> Result<(), Fault> {
        let mut rest = batch.writes;
        let mut of = |space| {
            let writes = rest.extract_if(.., |write| write.0 == space);
            writes.map(|(_, key, value)| Ok((key, value))).collect::<Vec<_>>().into_iter()
        };
        for space in SORTED {
            let pairs = of(space);
            ingest(&self.runs, space, pairs, &mut self.limiter)?;
        }
        let log = of(Space::Log);
        ingest(&self.store, Space::Log, log, &mut self.limiter)?;
        self.store.commit(Batch { writes: rest })
    }

    fn stage(&mut self, batch: Batch) -> Result<(), Fault> {
        // The directory is complete only after the load.
        self.commit(batch)
    }

    fn disk_bytes(&self) -> u64 {
        self.store.disk_bytes() + self.runs.disk_bytes()
    }
}

/// A snapshot of [`Loader`].
#[derive(Clone)]
pub struct LoaderView {
    runs: LsmView,
    store: LsmView,
}

impl LoaderView {
    fn of(&self, space: Space) -> &LsmView {
        if SORTED.contains(&space) { &self.runs } else { &self.store }
    }
}

impl View for LoaderView {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, Fault> {
        self.of(space).get(space, key)
    }

    fn scan<'a>(
        &'a self,
        space: Space,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
    ) -> impl DoubleEndedIterator<Item = Result<Pair, Fault>> + 'a {
        self.of(space).scan(space, from, to)
    }
}
