//! Changes of the batch being applied: events for watchers, up to a limit, and counts for metrics.

use super::Event;
use crate::types::Revision;
use crate::types::limits::BATCH_EVENTS_BYTES_MAX;

/// Counts of the changes of a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Keys that were put.
    pub puts: i64,
    /// Keys that were deleted.
    pub deletes: i64,
    /// Transactions of more than one change.
    pub txns: i64,
    /// Bytes of the keys and values that were put.
    pub put_bytes: i64,
    /// Versions of keys, tombstones included, that compaction removed.
    pub compacted: u64,
}

impl Changes {
    pub(super) fn note(&mut self, revision: Revision, delete: bool) {
        *if delete { &mut self.deletes } else { &mut self.puts } += 1;
        // The changes of one transaction follow each other; the second one marks it as a transaction.
        self.txns += i64::from(revision.sub == 1);
    }
}

/// The events of a batch, in order, unless they are too many to be kept.
#[derive(Default)]
pub(super) struct Events {
    kept: Vec<Event>,
    bytes: usize,
}

impl Events {
    /// True if events are still kept.
    pub(super) fn wants_more(&self) -> bool {
        self.bytes <= BATCH_EVENTS_BYTES_MAX
    }

    pub(super) fn push(&mut self, event: Event) {
        let prev_bytes = event.prev.as_ref().map_or(0, bytes::Bytes::len);
        self.bytes += size_of::<Event>() + event.encoded.len() + prev_bytes;
        self.kept.push(event);
        if !self.wants_more() {
            self.kept = Vec::new();
        }
    }

    pub(super) fn take(&mut self) -> Vec<Event> {
        std::mem::take(self).kept
    }
}
