//! Linearizable reads in raft.
//!
//! raft-rs identifies them by the bytes of their context and silently drops those it cannot serve: without a leader,
//! before the leader's first commit in its term, and at a change of leader. So each attempt gets a context that never
//! repeats across members, restarts and attempts (a repeated one would be answered with the index of the earlier
//! attempt: a stale read), and attempts that stay unanswered are repeated.

use std::collections::BTreeMap;

use crate::types::MemberId;

/// Ticks after which an unanswered attempt is given up and repeated; etcd too waits 500 ms.
const RETRY_TICKS: u32 = 5;

struct Waiting {
    /// The host's number of the read.
    read: u64,
    ticks: u32,
}

pub(super) struct Reads {
    id: MemberId,
    boot_nonce: u64,
    attempts: u64,
    waiting: BTreeMap<u64, Waiting>,
}

impl Reads {
    pub(super) fn new(id: MemberId, boot_nonce: u64) -> Self {
        Self { id, boot_nonce, attempts: 0, waiting: BTreeMap::new() }
    }

    /// The context of a new attempt.
    pub(super) fn attempt(&mut self, read: u64) -> Vec<u8> {
        let context = self.context();
        self.waiting.insert(self.attempts, Waiting { read, ticks: 0 });
        context
    }

    /// A context whose answer belongs to no read.
    pub(super) fn context(&mut self) -> Vec<u8> {
        self.attempts += 1;
        let parts = [self.id, self.boot_nonce, self.attempts];
        parts.iter().flat_map(|part| part.to_be_bytes()).collect()
    }

    /// The read of an answered context, unless that attempt was given up.
    pub(super) fn answered(&mut self, context: &[u8]) -> Option<u64> {
        let (mine, attempt) = context.split_at_checked(16)?;
        let (id, nonce) = mine.split_at(8);
        if id != self.id.to_be_bytes() || nonce != self.boot_nonce.to_be_bytes() {
            return None;
        }
        let attempt = u64::from_be_bytes(attempt.try_into().ok()?);
        self.waiting.remove(&attempt).map(|waiting| waiting.read)
    }

    /// Gives up all attempts and returns their reads, to be attempted again.
    pub(super) fn abandon(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.waiting).into_values().map(|waiting| waiting.read).collect()
    }

    /// Gives up the attempts that have waited too long.
    pub(super) fn tick(&mut self) -> Vec<u64> {
        self.waiting.values_mut().for_each(|waiting| waiting.ticks += 1);
        let late = self.waiting.extract_if(.., |_, waiting| waiting.ticks >= RETRY_TICKS);
        late.map(|(_, waiting)| waiting.read).collect()
    }
}
