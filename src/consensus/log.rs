//! The part of the raft log that is in memory: everything above the applied index, and a bounded window
//! below it for members that lag a little.

use std::collections::VecDeque;

use raft::eraftpb;
use raft::{GetEntriesContext, RaftState, Storage, StorageError};

use super::{Restored, convert};
use crate::types::{ConfState, LogIndex, Term};

/// Consecutive entries, and the position of the one before the first.
pub(super) struct Log {
    hard_state: eraftpb::HardState,
    conf_state: eraftpb::ConfState,
    before: LogIndex,
    before_term: Term,
    entries: VecDeque<eraftpb::Entry>,
}

impl Log {
    pub(super) fn new(restored: &Restored) -> Self {
        // raft aborts when more is applied than committed. What is applied was committed; the commit
        // index on disk may lag, since it is only written along with other things.
        let mut hard_state = convert::hard_state_to_raft(restored.hard_state);
        hard_state.commit = hard_state.commit.max(restored.applied).max(restored.mark_index);
        // A log that begins with a snapshot may know of a later term than what was on disk before it.
        hard_state.term = hard_state.term.max(restored.mark_term);
        Self {
            hard_state,
            conf_state: convert::conf_state_to_raft(&restored.conf_state),
            before: restored.mark_index,
            before_term: restored.mark_term,
            entries: restored.entries.iter().map(convert::entry_to_raft).collect(),
        }
    }

    /// Index of the newest entry.
    pub(super) fn last(&self) -> LogIndex {
        self.before + self.entries.len() as u64
    }

    /// Appends; an index that exists already replaces the log from there on.
    pub(super) fn append(&mut self, entries: &[eraftpb::Entry]) {
        let Some(first) = entries.first() else { return };
        assert!(first.index > self.before, "append at {} below {}", first.index, self.before);
        assert!(first.index <= self.last() + 1, "append at {} leaves a gap", first.index);
        self.entries.truncate((first.index - self.before - 1) as usize);
        self.entries.extend(entries.iter().cloned());
    }

    /// Forgets entries up to and including `index`.
    pub(super) fn forget(&mut self, index: LogIndex) {
        let count = index.min(self.last()).saturating_sub(self.before) as usize;
        if let Some(entry) = count.checked_sub(1).and_then(|at| self.entries.get(at)) {
            (self.before, self.before_term) = (entry.index, entry.term);
            self.entries.drain(..count);
        }
    }

    /// Begins anew after a snapshot.
    pub(super) fn restore(&mut self, index: LogIndex, term: Term, conf_state: &ConfState) {
        self.entries.clear();
        (self.before, self.before_term) = (index, term);
        self.set_conf_state(conf_state);
    }

    pub(super) fn set_conf_state(&mut self, conf_state: &ConfState) {
        self.conf_state = convert::conf_state_to_raft(conf_state);
    }

    pub(super) fn conf_state(&self) -> &eraftpb::ConfState {
        &self.conf_state
    }
}

impl Storage for Log {
    fn initial_state(&self) -> raft::Result<RaftState> {
        Ok(RaftState::new(self.hard_state.clone(), self.conf_state.clone()))
    }

    fn entries(
        &self,
        low: LogIndex,
        high: LogIndex,
        max_size: impl Into<Option<u64>>,
        _context: GetEntriesContext,
    ) -> raft::Result<Vec<eraftpb::Entry>> {
        if low <= self.before {
            return Err(raft::Error::Store(StorageError::Compacted));
        }
        let wanted = self.entries.range((low - self.before - 1) as usize..);
        let mut taken: Vec<_> = wanted.take((high - low) as usize).cloned().collect();
        raft::util::limit_size(&mut taken, max_size.into());
        Ok(taken)
    }

    fn term(&self, index: LogIndex) -> raft::Result<Term> {
        if index == self.before {
            return Ok(self.before_term);
        }
        if index < self.before {
            return Err(raft::Error::Store(StorageError::Compacted));
        }
        let entry = self.entries.get((index - self.before - 1) as usize);
        entry.map(|entry| entry.term).ok_or(raft::Error::Store(StorageError::Unavailable))
    }

    fn first_index(&self) -> raft::Result<LogIndex> {
        Ok(self.before + 1)
    }

    fn last_index(&self) -> raft::Result<LogIndex> {
        Ok(self.last())
    }

    /// Only where the log begins: the state that is sent along, of a later moment, replaces it on its way.
    fn snapshot(&self, request_index: LogIndex, _to: u64) -> raft::Result<eraftpb::Snapshot> {
        if self.before == 0 || request_index > self.before {
            return Err(raft::Error::Store(StorageError::SnapshotTemporarilyUnavailable));
        }
        let mut snapshot = eraftpb::Snapshot::default();
        let metadata = snapshot.mut_metadata();
        (metadata.index, metadata.term) = (self.before, self.before_term);
        metadata.set_conf_state(self.conf_state.clone());
        Ok(snapshot)
    }
}
