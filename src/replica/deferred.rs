//! Proposals that found no leader, or that the leader refused. etcd's raft blocks their callers; raft-rs returns them.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::consensus::wire::Proposals;
use crate::types::limits::{CONF_CHANGES_WAITING_MAX, UNAPPLIED_ENTRIES_MAX};

/// Proposals to be proposed again.
pub(super) struct DeferredProposals {
    normal: VecDeque<Bytes>,
    bytes: usize,
    bytes_max: usize,
    conf_changes: VecDeque<Bytes>,
}

impl DeferredProposals {
    /// None yet; it is full above so many bytes.
    pub(super) fn new(bytes_max: usize) -> Self {
        let (normal, conf_changes) = (VecDeque::new(), VecDeque::new());
        Self { normal, bytes: 0, bytes_max, conf_changes }
    }

    /// Adds proposals that raft returned. They were counted when they were accepted, so that they always fit.
    pub(super) fn extend(&mut self, proposals: Vec<Bytes>) {
        self.bytes += proposals.iter().map(Bytes::len).sum::<usize>();
        self.normal.extend(proposals);
    }

    /// Adds a change of the membership, unless too many wait: its client gets a timeout.
    pub(super) fn push_conf_change(&mut self, payload: Bytes) {
        if self.conf_changes.len() < CONF_CHANGES_WAITING_MAX {
            self.conf_changes.push_back(payload);
        }
    }

    /// Adds the proposals of a message that could not be sent.
    pub(super) fn extend_from(&mut self, proposals: Proposals) {
        self.extend(proposals.normal);
        proposals.conf_changes.into_iter().for_each(|payload| self.push_conf_change(payload));
    }

    /// True if clients should wait before they send more.
    pub(super) fn is_full(&self) -> bool {
        self.normal.len() > UNAPPLIED_ENTRIES_MAX || self.bytes > self.bytes_max
    }

    /// Takes all, in the order in which they were added.
    pub(super) fn take(&mut self) -> Proposals {
        self.bytes = 0;
        Proposals {
            normal: std::mem::take(&mut self.normal).into(),
            conf_changes: std::mem::take(&mut self.conf_changes).into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_wait_when_as_many_bytes_wait_as_memory_allows() {
        let mut deferred = DeferredProposals::new(10);
        deferred.extend(vec![Bytes::from_static(&[0; 10])]);
        assert!(!deferred.is_full());
        deferred.extend(vec![Bytes::from_static(&[0; 1])]);
        assert!(deferred.is_full());
        assert_eq!(deferred.take().normal.len(), 2);
        assert!(!deferred.is_full());
    }
}
