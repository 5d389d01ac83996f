//! The error of a late request.

use crate::replica::{LeaderHistory, late_refusal};
use crate::types::Refusal;

const OWN: u64 = 1;
const MEMBERS: [u64; 3] = [1, 2, 3];

fn refusal(since_ms: u64, history: LeaderHistory, active_since_ms: [u64; 4]) -> Refusal {
    late_refusal(since_ms, &history, OWN, &MEMBERS, |id| active_since_ms[id as usize])
}

#[test]
fn without_a_leader_the_request_never_left() {
    let history = LeaderHistory { leader: 0, found_ms: 10, lost_ms: 500, election_ms: 100 };
    assert_eq!(refusal(500, history, [0; 4]), Refusal::RawDeadlineExceeded);
    assert_eq!(refusal(499, history, [0; 4]), Refusal::Timeout, "it may have left before");
}

#[test]
fn a_leader_that_was_lost_meanwhile_is_the_reason() {
    let history = LeaderHistory { leader: 2, found_ms: 1000, lost_ms: 900, election_ms: 100 };
    let active = [0, 0, 1, 1];
    for (since_ms, expected) in [
        (800, Refusal::Timeout),
        (801, Refusal::TimeoutDueToLeaderFail),
        (999, Refusal::TimeoutDueToLeaderFail),
        (1000, Refusal::Timeout),
    ] {
        assert_eq!(refusal(since_ms, history, active), expected, "since {since_ms}");
    }
}

#[test]
fn a_member_that_cannot_reach_the_leader_says_so() {
    let history = LeaderHistory { leader: 2, found_ms: 10, lost_ms: 0, election_ms: 1 };
    assert_eq!(refusal(500, history, [0, 0, 400, 0]), Refusal::Timeout);
    for active_ms in [0, 500, 600] {
        let refused = refusal(500, history, [0, 0, active_ms, 400]);
        assert_eq!(refused, Refusal::TimeoutDueToConnectionLost, "active since {active_ms}");
    }
}

#[test]
fn a_leader_that_cannot_reach_a_quorum_says_so() {
    let history = LeaderHistory { leader: OWN, found_ms: 10, lost_ms: 0, election_ms: 1 };
    assert_eq!(refusal(500, history, [0, 0, 400, 0]), Refusal::Timeout, "two of three");
    assert_eq!(refusal(500, history, [0; 4]), Refusal::TimeoutDueToConnectionLost, "one of three");
}
