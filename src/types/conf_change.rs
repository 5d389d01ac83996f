//! Changes of the membership as etcd writes them into the log.

use bytes::Bytes;

use super::MemberId;

/// The kind of a change; etcd's numbers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum ConfChangeKind {
    /// Adds a member with a vote, or gives a learner its vote.
    AddVoter = 0,
    /// Removes a member for good.
    Remove = 1,
    /// Changes the URLs of a member; raft's configuration stays as it is.
    Update = 2,
    /// Adds a member without a vote.
    AddLearner = 3,
}

/// etcd's `raftpb.ConfChange`, with the kind in a field of its own: raft-rs reads field 2 of the proposal, and refuses
/// numbers that it does not know.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct ConfChange {
    /// The id of the request that waits for the change.
    #[prost(uint64, tag = "1")]
    pub request: u64,
    /// The kind, a number of [`ConfChangeKind`].
    #[prost(enumeration = "ConfChangeKind", tag = "5")]
    pub kind: i32,
    /// The member to which it applies.
    #[prost(uint64, tag = "3")]
    pub member: MemberId,
    /// The member as JSON.
    #[prost(bytes = "bytes", tag = "4")]
    pub context: Bytes,
}
