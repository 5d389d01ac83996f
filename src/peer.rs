//! The protocol between members: frames on a plain connection, and the handshake. Never reads or writes a socket.
//!
//! ```text
//!  dialer ─► MAGIC, Hello ─► listener: the right cluster and member? ─► Welcome, or Refused and close
//!         ─► Raft, Question, Answer, Ping …                             ◄─ the same, if it knows no URL of the dialer
//!
//!  frame    length u32 · crc32c u32 · kind u8 · payload        little-endian; the crc covers kind and payload
//! ```
//!
//! Each member dials each other one twice and sends on the connections that it dialed: heartbeats, votes and reads on
//! the urgent one never wait behind appends on the bulk one. A member never dials a URL that it knows from a hello
//! alone: messages to a member that it does not know yet are sent back on that member's urgent connection. A connection
//! on which no byte arrived for a time is closed; a ping is sent when there is nothing else, so that an idle one stays
//! open. A snapshot has a connection of its own, on which the listener confirms at the end that it is complete. Input
//! that does not begin with [`MAGIC`] is HTTP.

mod frame;
#[cfg(test)]
mod tests;

use bytes::Bytes;

pub use self::frame::{Damage, Decoder, Frame, Kind, encode, message};
use crate::types::{FeatureLevel, MemberId};

/// First bytes of a connection between members; no HTTP method begins with them.
pub const MAGIC: &[u8; 8] = b"BASALT/1";

/// The kind of traffic on a connection.
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

/// First frame of a dialer: its identity, and the member and lane that it wants.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Hello {
    /// The dialer's cluster.
    #[prost(uint64, tag = "1")]
    pub cluster: u64,
    /// The dialer's id.
    #[prost(uint64, tag = "2")]
    pub from: MemberId,
    /// The id of the member that it wants to reach.
    #[prost(uint64, tag = "3")]
    pub to: MemberId,
    /// The kind of traffic, a number of [`Lane`].
    #[prost(enumeration = "Lane", tag = "4")]
    pub lane: i32,
    /// The dialer's peer URLs: the listener may not know the dialer yet.
    #[prost(string, repeated, tag = "5")]
    pub urls: Vec<String>,
    /// The feature level that the dialer supports; 0 from versions before there were levels.
    #[prost(uint32, tag = "6")]
    pub feature_level: u32,
    /// True if the dialer sends pings when it has nothing else to send, and reads messages on this connection.
    #[prost(bool, tag = "10")]
    pub pings: bool,
}

/// The listener accepts the connection.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Welcome {
    /// True if the listener reads pings.
    #[prost(bool, tag = "10")]
    pub pings: bool,
}

/// The reason why a connection is rejected.
#[derive(Clone, Copy, PartialEq, Eq, Debug, prost::Enumeration)]
#[repr(i32)]
pub enum RejectReason {
    /// A reason that this version does not know.
    Unknown = 0,
    /// Another cluster.
    OtherCluster = 1,
    /// The dialer wants to reach another member.
    OtherMember = 2,
    /// The dialer was removed from the cluster for good.
    Removed = 3,
    /// The cluster has agreed on a feature level that the dialer does not support.
    FeatureLevel = 4,
}

/// The listener rejects the connection.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Refused {
    /// The reason, a number of [`RejectReason`].
    #[prost(enumeration = "RejectReason", tag = "1")]
    pub reason: i32,
    /// The feature level of the cluster, for [`RejectReason::FeatureLevel`].
    #[prost(uint32, tag = "2")]
    pub feature_level: u32,
}

/// Checks a hello. `agreed` is the feature level of the cluster; `is_removed` is true for ids that may not return.
///
/// # Errors
/// The frame that rejects the connection, with its reason.
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

/// A question to another member; all but hashes are asked of the leader.
#[derive(Clone, PartialEq, Eq, prost::Oneof)]
pub enum PeerRequest {
    /// Renew the lease with this id.
    #[prost(int64, tag = "2")]
    Renew(i64),
    /// Time left of the lease with this id.
    #[prost(int64, tag = "3")]
    TimeToLive(i64),
    /// Time left of the lease with this id, and its keys.
    #[prost(int64, tag = "4")]
    TimeToLiveAndKeys(i64),
    /// Give the learner with this id a vote.
    #[prost(uint64, tag = "5")]
    Promote(u64),
    /// The hash of the keys up to this revision; of all of them for 0.
    #[prost(int64, tag = "6")]
    HashKv(i64),
}

/// A question with its number.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Question {
    /// A number of the asking member's choice; the answer repeats it.
    #[prost(uint64, tag = "1")]
    pub number: u64,
    /// The question itself.
    #[prost(oneof = "PeerRequest", tags = "2, 3, 4, 5, 6")]
    pub ask: Option<PeerRequest>,
}

/// The answer to a question.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Answer {
    /// The number of the question.
    #[prost(uint64, tag = "1")]
    pub number: u64,
    /// Text of the refusal; empty if it was not refused.
    #[prost(string, tag = "2")]
    pub refusal: String,
    /// Seconds left of the lease.
    #[prost(int64, tag = "3")]
    pub ttl: i64,
    /// Time to live that was granted, in seconds.
    #[prost(int64, tag = "4")]
    pub granted: i64,
    /// The keys of the lease.
    #[prost(bytes = "bytes", repeated, tag = "5")]
    pub keys: Vec<Bytes>,
    /// The hash of the keys.
    #[prost(uint32, tag = "6")]
    pub hash: u32,
    /// The compaction revision that the hash covers.
    #[prost(int64, tag = "7")]
    pub compact_revision: i64,
    /// The revision up to which it was computed.
    #[prost(int64, tag = "8")]
    pub hash_revision: i64,
    /// The member's newest revision.
    #[prost(int64, tag = "9")]
    pub revision: i64,
}
