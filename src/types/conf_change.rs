//! Changes of the membership as etcd writes them into the log.

use bytes::Bytes;

use super::MemberId;

/// What a change does; etcd's numbers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum ConfChangeKind {
    /// A member with a vote comes in, or a learner gets one.
    AddVoter = 0,
    /// A member goes for good.
    Remove = 1,
    /// A member is reached elsewhere; raft has nothing to do with it.
    Update = 2,
    /// A member without a vote comes in.
    AddLearner = 3,
}

/// etcd's `raftpb.ConfChange`.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct ConfChange {
    /// The id of the request that waits for it.
    #[prost(uint64, tag = "1")]
    pub request: u64,
    /// What it does.
    #[prost(enumeration = "ConfChangeKind", tag = "2")]
    pub kind: i32,
    /// To whom.
    #[prost(uint64, tag = "3")]
    pub member: MemberId,
    /// The member as JSON.
    #[prost(bytes = "bytes", tag = "4")]
    pub context: Bytes,
}
