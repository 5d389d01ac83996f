//! Requested read indexes, and the executors that wait for each.

use std::collections::{BTreeMap, VecDeque};

use crate::types::limits::READS_WAITING_MAX;

/// An executor and its number of a batch of reads.
pub(super) type Reader = (usize, u64);

/// Numbers read indexes. While there is no leader, all batches share the one that is requested when there is one.
#[derive(Default)]
pub(super) struct ReadBatches {
    last: u64,
    readers: BTreeMap<u64, Reader>,
    /// The read index that waits for a leader.
    delayed: u64,
    /// Batches that share its answer.
    sharing: VecDeque<Reader>,
}

impl ReadBatches {
    /// Adds a batch. Returns the number of the read index to request; `None` if the batch shares the one that waits for
    /// a leader. `is_delayed` is true for a read index that waits so.
    pub(super) fn add(&mut self, reader: Reader, is_delayed: impl Fn(u64) -> bool) -> Option<u64> {
        if is_delayed(self.delayed) {
            if self.sharing.len() >= READS_WAITING_MAX {
                self.sharing.pop_front();
            }
            self.sharing.push_back(reader);
            return None;
        }
        self.last += 1;
        self.readers.insert(self.last, reader);
        Some(self.last)
    }

    /// The read index just requested waits for a leader: later batches may share it.
    pub(super) fn delay(&mut self, read: u64) {
        if self.sharing.is_empty() {
            self.delayed = read;
        }
    }

    /// All batches that this read index answers.
    pub(super) fn answered(&mut self, read: u64) -> impl Iterator<Item = Reader> + use<> {
        let sharing =
            if read == self.delayed { std::mem::take(&mut self.sharing) } else { VecDeque::new() };
        self.readers.remove(&read).into_iter().chain(sharing)
    }
}
