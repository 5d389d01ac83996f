//! Bugs that a host of the rooms, or their environment, could have. Each must be found: that shows that the checks work.

/// A planted bug.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Bug {
    /// A batch is acknowledged as durable when it is handed to the disk.
    AckBeforePersist,
    /// Term and vote do not reach the disk.
    VoteNotPersisted,
    /// A read is served at the local commit index, without a round of heartbeats.
    StaleReadIndex,
    /// A read does not wait until its index is applied.
    ReadBeforeApplied,
    /// After a restart, replaced entries are still in the log behind the entry that replaced them.
    WrongTruncation,
    /// The last acknowledged write is lost after a crash, without an error.
    LostTailAccepted,
    /// The log is truncated before the store is on disk.
    CutBeforeSync,
    /// After a crash the stored applied index is higher than the last applied entry.
    AppliedIndexAhead,
    /// After a crash the stored applied index is lower than the last applied entry: entries are applied again.
    DuplicateApply,
    /// A deposed leader continues to revoke leases, and followers forward that to the leader.
    DeposedRevoke,
    /// A batch that finds the hub's mailbox full loses its last event.
    WatchBatchCut,
    /// A client that watches again repeats the last revision it has seen.
    WatchRepeats,
    /// Request ids start again with each start of a member.
    RepliesToStrangers,
    /// The network delivers a forwarded proposal twice.
    ProposalRepeated,
    /// A member that restarts does not keep its vote lease.
    PromiseForgotten,
    /// The leader counts a vote lease from the arrival of the response.
    PromiseFromAnswer,
    /// A leadership transfer starts without the leader's knowledge.
    TransferUnseen,
    /// The clock is read before the wait for the input for which the time is needed.
    ClockBeforeMailbox,
}

impl Bug {
    /// All bugs.
    pub const ALL: [Self; 18] = [
        Self::AckBeforePersist,
        Self::VoteNotPersisted,
        Self::StaleReadIndex,
        Self::ReadBeforeApplied,
        Self::WrongTruncation,
        Self::LostTailAccepted,
        Self::CutBeforeSync,
        Self::AppliedIndexAhead,
        Self::DuplicateApply,
        Self::DeposedRevoke,
        Self::WatchBatchCut,
        Self::WatchRepeats,
        Self::RepliesToStrangers,
        Self::ProposalRepeated,
        Self::PromiseForgotten,
        Self::PromiseFromAnswer,
        Self::TransferUnseen,
        Self::ClockBeforeMailbox,
    ];
}
