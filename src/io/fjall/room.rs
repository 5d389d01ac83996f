//! Merges wait while the disk has no room for what they write: one that failed would end the store. A merge keeps what
//! it read until it is done, so that it takes as much room again as all of that.
//!
//! fjall asks a filter about each pair that it merges; this one keeps them all, and waits. The thread that merges is
//! the one that flushes too. While it waits memtables grow instead; nothing is applied any more before they could
//! take more memory than there is room on the disk.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use fjall::compaction::filter::{
    CompactionFilter, CompactionFilterResult, Context, Factory, ItemAccessor, Verdict,
};

use crate::io::disk;
use crate::types::DiskBounds;

/// Bytes that are merged between two looks at the disk.
const LOOK_BYTES: usize = 1 << 20;
/// Before the next look of a merge that waits.
const WAIT: Duration = Duration::from_millis(100);

/// Makes merges of a store wait for room. Clones share it.
#[derive(Clone)]
pub(super) struct MergeRoom {
    dir: PathBuf,
    /// Gone when the store is being closed, which waits for merges.
    open: Weak<()>,
    /// Bytes that wait to be flushed, by the same thread.
    unflushed: Arc<AtomicU64>,
}

impl MergeRoom {
    /// For the store in a directory, which has the other end of `open`.
    pub(super) fn new(dir: &Path, open: &Arc<()>, unflushed: &Arc<AtomicU64>) -> Self {
        let (open, unflushed) = (Arc::downgrade(open), Arc::clone(unflushed));
        Self { dir: dir.to_owned(), open, unflushed }
    }

    #[allow(clippy::disallowed_methods, reason = "on a thread of fjall's, which hosts nothing")]
    fn wait(&self) {
        let mut waits = false;
        let fits = |room: disk::Room| {
            let owed = self.unflushed.load(Ordering::Relaxed);
            room.free >= DiskBounds::of_disk(room.total).reserve + owed
        };
        while self.open.strong_count() > 0 && !disk::room(&self.dir).is_none_or(fits) {
            if !std::mem::replace(&mut waits, true) {
                tracing::warn!(dir = %self.dir.display(), "a merge waits for room on the disk");
            }
            std::thread::sleep(WAIT);
        }
    }
}

impl Factory for MergeRoom {
    fn name(&self) -> &str {
        "room"
    }

    fn make_filter(&self, _: &Context) -> Box<dyn CompactionFilter> {
        Box::new(Merge { room: self.clone(), unlooked: 0 })
    }
}

/// One merge.
struct Merge {
    room: MergeRoom,
    /// Bytes since the last look.
    unlooked: usize,
}

impl CompactionFilter for Merge {
    fn filter_item(&mut self, item: ItemAccessor<'_>, _: &Context) -> CompactionFilterResult {
        self.unlooked += item.key().len() + item.value()?.len();
        if self.unlooked >= LOOK_BYTES {
            self.unlooked = 0;
            self.room.wait();
        }
        Ok(Verdict::Keep)
    }
}
