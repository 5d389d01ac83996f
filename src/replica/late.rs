//! The error of a request that was not applied in time. etcd chooses it by its knowledge of leaders and connections
//! (`server/etcdserver/v3_server.go`, `parseProposeCtxErr`).

use crate::types::{MemberId, Refusal};

/// Changes of the leader known to this member. Times are in ms; 0 means never.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LeaderHistory {
    /// The leader; 0 if none is known.
    pub leader: MemberId,
    /// Time at which a leader was last found.
    pub found_ms: u64,
    /// Time at which the leader was last lost.
    pub lost_ms: u64,
    /// The election timeout.
    pub election_ms: u64,
}

/// The error of a request that was made at `since_ms`. `voters` are the members with a vote, this one, `own`, included;
/// `active_since_ms` is the time since which another member is connected, 0 if it is not.
pub fn late_refusal(
    since_ms: u64,
    history: &LeaderHistory,
    own: MemberId,
    members: &[MemberId],
    active_since_ms: impl Fn(MemberId) -> u64,
) -> Refusal {
    // The proposal never left this member: etcd's raft blocks such proposals, and returns the context's error.
    if history.leader == 0 && history.lost_ms <= since_ms {
        return Refusal::RawDeadlineExceeded;
    }
    let lost_ms = history.found_ms.saturating_sub(2 * history.election_ms);
    if lost_ms < since_ms && since_ms < history.found_ms {
        return Refusal::TimeoutDueToLeaderFail;
    }
    let is_connected = |id: MemberId| {
        let active_ms = active_since_ms(id);
        id == own || (active_ms > 0 && active_ms < since_ms)
    };
    let reaches = match history.leader {
        0 => true,
        leader if leader == own => {
            members.iter().filter(|id| is_connected(**id)).count() > members.len() / 2
        }
        leader => is_connected(leader),
    };
    if reaches { Refusal::Timeout } else { Refusal::TimeoutDueToConnectionLost }
}
