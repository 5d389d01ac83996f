//! Proposals that found no leader, or that the leader refused. etcd's raft blocks their callers; raft-rs returns them.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::consensus::wire::Proposals;
use crate::types::limits::{CONF_CHANGES_WAITING_MAX, DEFERRED_BYTES_MAX, UNAPPLIED_ENTRIES_MAX};

/// Proposals to be proposed again.
#[derive(Default)]
pub(super) struct DeferredProposals {
    normal: VecDeque<Bytes>,
    bytes: usize,
    conf_changes: VecDeque<Bytes>,
}

impl DeferredProposals {
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
        self.normal.len() > UNAPPLIED_ENTRIES_MAX || self.bytes > DEFERRED_BYTES_MAX
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
