//! The store in memory, on a disk that may have kept any of the batches since the last sync.

use std::cell::RefCell;
use std::rc::Rc;

use bytes::Bytes;

use super::bugs::Bug;
use super::random::Random;
use crate::store::{Batch, Engine, Memory, MemoryView, Space};
use crate::types::Fault;

#[derive(Default)]
struct Disk {
    /// The state that readers see.
    now: Memory,
    /// The durable state.
    synced: Memory,
    /// Batches since the last sync, in order.
    since: Vec<Batch>,
    /// Staged writes of the next batch.
    staged: Batch,
    /// Number of those batches in the sync in progress.
    syncing: usize,
}

/// A handle, cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Store(Rc<RefCell<Disk>>);

impl Engine for Store {
    type View = MemoryView;

    fn view(&self) -> MemoryView {
        self.0.borrow().now.view()
    }

    fn commit(&mut self, batch: Batch) -> Result<(), Fault> {
        let mut disk = self.0.borrow_mut();
        let mut whole = std::mem::take(&mut disk.staged);
        whole.writes.extend(batch.writes.iter().cloned());
        disk.since.push(whole);
        disk.now.commit(batch)
    }

    fn stage(&mut self, batch: Batch) -> Result<(), Fault> {
        let mut disk = self.0.borrow_mut();
        disk.staged.writes.extend(batch.writes.iter().cloned());
        disk.now.commit(batch)
    }

    fn disk_bytes(&self) -> u64 {
        self.0.borrow().now.disk_bytes()
    }
}

impl Store {
    /// A store with synced content.
    pub(super) fn holding(memory: Memory) -> Self {
        let (synced, since) = (memory.clone(), Vec::new());
        Self(Rc::new(RefCell::new(Disk { now: memory, synced, since, ..Disk::default() })))
    }

    /// Syncs the store.
    pub(super) fn sync(&self) {
        self.begin_sync();
        self.finish_sync();
    }

    pub(super) fn begin_sync(&self) {
        let mut disk = self.0.borrow_mut();
        disk.syncing = disk.since.len();
    }

    pub(super) fn finish_sync(&self) {
        let disk = &mut *self.0.borrow_mut();
        for batch in disk.since.drain(..std::mem::take(&mut disk.syncing)) {
            disk.synced.commit(batch).expect("memory takes everything");
        }
    }

    /// The power fails: any number of batches since the last sync are kept, whole and in order.
    pub(super) fn crash(&self, random: &mut Random, bug: Option<Bug>) {
        let disk = &mut *self.0.borrow_mut();
        let all = disk.since.len();
        let kept = match random.below(4) {
            0 => all,
            1 => 0,
            _ => random.below(all as u64 + 1) as usize,
        };
        let apart = bug.filter(|_| kept > 0);
        disk.syncing = 0;
        disk.staged = Batch::default();
        for (at, batch) in std::mem::take(&mut disk.since).into_iter().enumerate() {
            let is_position = |key: &Bytes| matches!(&key[..], b"consistent_index" | b"term");
            let mut writes = batch.writes;
            match apart {
                Some(Bug::AppliedIndexAhead) if at == kept => {
                    writes.retain(|(space, key, _)| *space == Space::Meta && is_position(key));
                }
                Some(Bug::DuplicateApply) if at + 1 == kept => {
                    writes.retain(|(space, key, _)| !(*space == Space::Meta && is_position(key)));
                }
                _ if at >= kept => break,
                _ => (),
            }
            disk.synced.commit(Batch { writes }).expect("memory takes everything");
        }
        disk.now = disk.synced.clone();
    }
}
