//! Mistakes that a host of the rooms, or the world around it, could make. Each must be found: that is what
//! shows that the checkers look.

/// A deliberate mistake.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Bug {
    /// A batch is called durable when it is handed to the disk.
    AckBeforePersist,
    /// Term and vote do not reach the disk.
    VoteNotPersisted,
    /// A read is served at what this member knows to be committed, without asking the others.
    StaleReadIndex,
    /// A read does not wait until its index is applied.
    ReadBeforeApplied,
    /// After a restart, what an entry replaced is still there behind it.
    WrongTruncation,
    /// The last write that the disk acknowledged is gone after a crash, and nobody minds.
    LostTailAccepted,
    /// The log is cut before the store is on disk.
    CutBeforeSync,
    /// After a crash the applied index is ahead of what was applied.
    AppliedIndexAhead,
    /// After a crash the applied index is behind what was applied: entries are applied again.
    DuplicateApply,
    /// Whose leadership ended goes on to end leases, and others pass that on to the leader.
    DeposedRevoke,
    /// A batch that finds the hub's mailbox full loses its last event.
    WatchBatchCut,
    /// A client that watches again repeats the last revision it has seen.
    WatchRepeats,
    /// Request ids begin anew with each start of a member.
    RepliesToStrangers,
    /// The wire delivers a forwarded proposal twice.
    ProposalRepeated,
    /// A member that starts again does not know that it promised not to vote.
    PromiseForgotten,
    /// What a member promises counts from the moment its answer arrives.
    PromiseFromAnswer,
    /// A member is told to take over, and the one that leads does not know.
    TransferUnseen,
    /// The clock is read before waiting for what the time is needed for.
    ClockBeforeMailbox,
}

impl Bug {
    /// All of them.
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
