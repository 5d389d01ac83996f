//! How members talk: frames on a plain connection, and what the first one says.
//!
//! ```text
//!  dialer ─► MAGIC, Hello ─► listener: the right cluster and member? ─► Welcome, or Refused and the end
//!         ─► Raft, Question, Answer, Ping …                             ◄─ what it answers, if it knows no URL of ours
//!
//!  frame    length u32 · crc32c u32 · kind u8 · payload        little-endian; the crc covers kind and payload
//! ```
//!
//! Each member dials each other one twice and sends on what it dialed: heartbeats, votes and reads on
//! the urgent connection never wait behind appends on the other one. A member dials nobody whom only a hello named: what
//! it has to say to a member that it does not know yet goes back on the urgent connection of that one. A connection on
//! which no byte came for a time is over; so that one comes, a ping is sent when there is nothing else. A snapshot has a connection of its own,
//! on which the listener says at the end whether it has it. What does not begin with [`MAGIC`] is HTTP.

mod frame;
#[cfg(test)]
mod tests;

use bytes::Bytes;

pub use self::frame::{Damage, Decoder, Frame, Kind, encode, message};
use crate::types::{FeatureLevel, MemberId};

/// What a connection between members begins with; no HTTP method does.
pub const MAGIC: &[u8; 8] = b"BASALT/1";

/// What a connection carries.
#[derive(Clone, Copy, PartialEq, Eq, Debug, prost::Enumeration)]
#[repr(i32)]
pub enum Lane {
    /// Small messages that must not wait.
    Urgent = 0,
    /// Appends and forwarded proposals.
    Bulk = 1,
    /// One snapshot.
    Snapshot = 2,
}

/// Who dials whom, and what for.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Hello {
    /// The dialer's cluster.
    #[prost(uint64, tag = "1")]
    pub cluster: u64,
    /// The dialer.
    #[prost(uint64, tag = "2")]
    pub from: MemberId,
    /// Whom it thinks it reaches.
    #[prost(uint64, tag = "3")]
    pub to: MemberId,
    /// What the connection carries.
    #[prost(enumeration = "Lane", tag = "4")]
    pub lane: i32,
    /// Where the dialer is reached: the listener may not know it yet.
    #[prost(string, repeated, tag = "5")]
    pub urls: Vec<String>,
    /// The feature level that the dialer supports; 0 from versions before there were levels.
    #[prost(uint32, tag = "6")]
    pub feature_level: u32,
    /// Whether the dialer sends pings when it has nothing else to send, and reads what comes back.
    #[prost(bool, tag = "10")]
    pub pings: bool,
}

/// The listener takes the connection.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Welcome {
    /// Whether it reads pings.
    #[prost(bool, tag = "10")]
    pub pings: bool,
}

/// Why a connection is not taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug, prost::Enumeration)]
#[repr(i32)]
pub enum RejectReason {
    /// Something that this version does not know.
    Unknown = 0,
    /// Another cluster.
    OtherCluster = 1,
    /// The dialer wants somebody else.
    OtherMember = 2,
    /// The dialer was removed from the cluster for good.
    Removed = 3,
    /// The cluster has agreed on a feature level that the dialer does not support.
    FeatureLevel = 4,
}

/// A connection is not taken.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Refused {
    /// Why.
    #[prost(enumeration = "RejectReason", tag = "1")]
    pub reason: i32,
    /// The feature level of the cluster, for [`RejectReason::FeatureLevel`].
    #[prost(uint32, tag = "2")]
    pub feature_level: u32,
}

/// Checks what a dialer says. `agreed` is the feature level of the cluster; `is_removed` knows who may not come back.
///
/// # Errors
/// Why it is not let in.
pub fn check(
    hello: &Hello,
    cluster: u64,
    member: MemberId,
    agreed: FeatureLevel,
    is_removed: impl Fn(MemberId) -> bool,
) -> Result<Lane, RejectReason> {
    if hello.cluster != cluster {
        return Err(RejectReason::OtherCluster);
    }
    if is_removed(hello.from) {
        return Err(RejectReason::Removed);
    }
    if hello.to != member || hello.from == member {
        return Err(RejectReason::OtherMember);
    }
    if FeatureLevel::new(hello.feature_level) < agreed {
        return Err(RejectReason::FeatureLevel);
    }
    Lane::try_from(hello.lane).map_err(|_| RejectReason::Unknown)
}

/// What a member asks another one; all but hashes the one that leads.
#[derive(Clone, PartialEq, Eq, prost::Oneof)]
pub enum PeerRequest {
    /// Prolong this lease.
    #[prost(int64, tag = "2")]
    Renew(i64),
    /// What is left of this lease.
    #[prost(int64, tag = "3")]
    TimeToLive(i64),
    /// And its keys.
    #[prost(int64, tag = "4")]
    TimeToLiveAndKeys(i64),
    /// Give this learner a vote.
    #[prost(uint64, tag = "5")]
    Promote(u64),
    /// The hash of the keys up to this revision; of all of them for 0.
    #[prost(int64, tag = "6")]
    HashKv(i64),
}

/// A question, numbered by who asks.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Question {
    /// Comes back with the answer.
    #[prost(uint64, tag = "1")]
    pub number: u64,
    /// What.
    #[prost(oneof = "PeerRequest", tags = "2, 3, 4, 5, 6")]
    pub ask: Option<PeerRequest>,
}

/// What came of a question.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Answer {
    /// The question's.
    #[prost(uint64, tag = "1")]
    pub number: u64,
    /// Text of the refusal; empty if it was not refused.
    #[prost(string, tag = "2")]
    pub refusal: String,
    /// Seconds left of the lease.
    #[prost(int64, tag = "3")]
    pub ttl: i64,
    /// Seconds that it was granted.
    #[prost(int64, tag = "4")]
    pub granted: i64,
    /// Its keys.
    #[prost(bytes = "bytes", repeated, tag = "5")]
    pub keys: Vec<Bytes>,
    /// The hash that was asked for.
    #[prost(uint32, tag = "6")]
    pub hash: u32,
    /// The compaction that it takes into account.
    #[prost(int64, tag = "7")]
    pub compact_revision: i64,
    /// The revision up to which it was computed.
    #[prost(int64, tag = "8")]
    pub hash_revision: i64,
    /// The member's newest revision.
    #[prost(int64, tag = "9")]
    pub revision: i64,
}
