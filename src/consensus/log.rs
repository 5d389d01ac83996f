//! The part of the raft log that is in memory: everything above the applied index, and a bounded window below it for
//! followers that lag a little.

use std::collections::VecDeque;

use raft::eraftpb;
use raft::{GetEntriesContext, RaftState, Storage, StorageError};

use super::{Restored, convert};
use crate::types::{ConfState, LogIndex, Term};

/// Consecutive entries, and the position of the entry before the first.
pub(super) struct Log {
    hard_state: eraftpb::HardState,
    conf_state: eraftpb::ConfState,
    before: LogIndex,
    before_term: Term,
    entries: VecDeque<eraftpb::Entry>,
    /// Bytes of all entries.
    bytes: usize,
}

/// Bytes of an entry.
fn bytes(entry: &eraftpb::Entry) -> usize {
    size_of::<eraftpb::Entry>() + entry.data.len()
}

impl Log {
    pub(super) fn new(restored: &Restored) -> Self {
        // raft aborts when more is applied than committed. Applied entries were committed; the commit index on disk may
        // lag, since it is only written together with other records.
        let mut hard_state = convert::hard_state_to_raft(restored.hard_state);
        hard_state.commit = hard_state.commit.max(restored.applied).max(restored.log_start_index);
        // A log that begins with a snapshot may have a later term than the hard state before it.
        hard_state.term = hard_state.term.max(restored.log_start_term);
        let entries: VecDeque<_> = restored.entries.iter().map(convert::entry_to_raft).collect();
        Self {
            hard_state,
            conf_state: convert::conf_state_to_raft(&restored.conf_state),
            before: restored.log_start_index,
            before_term: restored.log_start_term,
            bytes: entries.iter().map(bytes).sum(),
            entries,
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
        let kept = (first.index - self.before - 1) as usize;
        self.bytes -= self.entries.drain(kept..).map(|entry| bytes(&entry)).sum::<usize>();
        self.bytes += entries.iter().map(bytes).sum::<usize>();
        self.entries.extend(entries.iter().cloned());
    }

    /// Drops entries up to and including `index`, and further ones up to `applied` as long as they take more
    /// than `bytes_max`.
    pub(super) fn forget(&mut self, index: LogIndex, applied: LogIndex, bytes_max: usize) {
        while let Some(first) = self.entries.front()
            && (first.index <= index || (first.index <= applied && self.bytes > bytes_max))
        {
            (self.before, self.before_term) = (first.index, first.term);
            self.bytes -= bytes(first);
            self.entries.pop_front();
        }
    }

    /// Restarts the log after a snapshot.
    pub(super) fn restore(&mut self, index: LogIndex, term: Term, conf_state: &ConfState) {
        self.entries.clear();
        self.bytes = 0;
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
        let max = max_size.into();
        let wanted =
            self.entries.range((low - self.before - 1) as usize..).take((high - low) as usize);
        // A bounded number: a follower far behind asks again and again.
        let mut payloads = 0;
        let may_fit = wanted.take_while(|entry| {
            let fits = max.is_none_or(|max| payloads <= max);
            payloads += entry.data.len() as u64;
            fits
        });
        let mut taken = may_fit.cloned().collect();
        raft::util::limit_size(&mut taken, max);
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

    /// The position of the log start only: the state, and its position of a later moment, are added when the
    /// message is sent.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_entries_are_given_as_fit_and_one_at_least() {
        let mut log = Log::new(&Restored::default());
        let lengths = [3000, 10, 0, 500, 499, 10, 2000, 1, 1, 0];
        let entries = (1..).zip(lengths).map(|(index, length)| eraftpb::Entry {
            index,
            data: vec![7; length].into(),
            ..eraftpb::Entry::default()
        });
        log.append(&entries.collect::<Vec<_>>());
        for (low, max) in
            (1..=10).flat_map(|low| [0, 1, 300, 530, 3000, 9000].map(|max| (low, max)))
        {
            let context = GetEntriesContext::empty(false);
            let mut expected: Vec<_> = log.entries.range(low as usize - 1..).cloned().collect();
            raft::util::limit_size(&mut expected, Some(max));
            let given = log.entries(low, 11, Some(max), context).expect("they are there");
            assert_eq!(given, expected, "from {low}, {max} bytes");
            assert!(!given.is_empty());
        }
        let all = log.entries(1, 11, None, GetEntriesContext::empty(false));
        assert_eq!(all.expect("they are there").len(), lengths.len());
    }
}
