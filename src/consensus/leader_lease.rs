//! The leader lease: how long a leader may answer reads without a round of heartbeats (Raft thesis, 6.4.1).
//!
//! ```text
//!  leader    round starts ──────────── lease for reads ──────────────► margin ►
//!                 └─► heartbeat ─┐   ┌─► response, with the vote lease
//!  follower                    received ── votes only for a candidate named by the leader ──►
//! ```
//!
//! A member that answers a heartbeat does not vote for some time after it **received** it: its vote lease. A leader of
//! a later term needs the votes of a quorum, and each quorum has a member in common with the one whose vote leases the
//! leader holds. So until the earliest of these ends, no other leader can have committed anything, and this leader's
//! commit index covers all acknowledged writes.
//!
//! The leader does not know when its heartbeat was received, only that it was after it **started** the round: so the
//! lease counts from there, never from the response. Clocks are never compared, but their rates must not differ by more
//! than [`DRIFT_PERCENT`]. [`LeaderLease::begin`], [`LeaderLease::end`] and [`LeaderLease::forfeit`] end a lease at once.
//!
//! Leases of clients ([`crate::types::LeaseId`]) are unrelated.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;

use crate::types::MemberId;
use crate::types::limits::READ_ROUNDS_MAX;

/// The part of a vote lease that the leader does not use, because clocks run at different rates. Two clocks that are
/// off by 5 % in opposite directions are still within it; quartz is off by 0.01 %.
pub const DRIFT_PERCENT: u32 = 10;

/// The vote lease of a member that does not vote for `ticks` of this length. The first tick may come at once.
pub fn vote_lease(ticks: usize, tick: Duration) -> Duration {
    tick * u32::try_from(ticks.saturating_sub(1)).unwrap_or(u32::MAX)
}

/// A round of heartbeats that were sent with a context of their own.
struct HeartbeatRound {
    context: Bytes,
    started: Duration,
}

/// Times up to which another voter, or a quorum, has given its vote lease.
#[derive(Clone, Copy, Default)]
struct VoteLease {
    /// Time at which it should be renewed.
    renew: Duration,
    /// Time at which it ends.
    end: Duration,
}

/// The leader's lease. All times are of one clock, which runs on during suspend.
pub(super) struct LeaderLease {
    /// False if leases are turned off.
    on: bool,
    /// Number of other voters that form a quorum together with the leader; `None` while there is no lease.
    others_needed: Option<usize>,
    /// True after a leadership transfer began: a new leader may be elected with this one's consent.
    forfeited: bool,
    /// The other voters, and their vote leases.
    voters: BTreeMap<MemberId, VoteLease>,
    /// Rounds in progress, oldest first.
    rounds: VecDeque<HeartbeatRound>,
    /// Start of the newest round.
    newest: Option<Duration>,
    /// The vote lease of a quorum.
    quorum: VoteLease,
}

impl LeaderLease {
    /// No lease; none is ever obtained if it is not `on`.
    pub(super) fn new(on: bool) -> Self {
        Self {
            on,
            others_needed: None,
            forfeited: false,
            voters: BTreeMap::new(),
            rounds: VecDeque::new(),
            newest: None,
            quorum: VoteLease::default(),
        }
    }

    /// This member becomes leader, with these voters.
    pub(super) fn begin(&mut self, own: MemberId, voters: &[MemberId]) {
        self.end();
        self.change(own, voters);
    }

    /// The voters change. Discards all rounds that started before: quorums of two configurations intersect across one
    /// single-step change, but not across two. raft makes one change at a time.
    pub(super) fn change(&mut self, own: MemberId, voters: &[MemberId]) {
        let others = voters.iter().filter(|voter| **voter != own);
        self.voters = others.map(|voter| (*voter, VoteLease::default())).collect();
        self.rounds.clear();
        (self.newest, self.quorum) = (None, VoteLease::default());
        let counts = self.on && !self.forfeited && voters.contains(&own);
        // A sole voter needs no lease.
        self.others_needed = (counts && voters.len() > 1).then_some(voters.len() / 2);
    }

    /// This member is no longer leader, or is leader of another term.
    pub(super) fn end(&mut self) {
        *self = Self::new(self.on);
    }

    /// A leadership transfer begins. The named member may campaign at once, and others vote for it in spite of their
    /// vote leases. The message that names it may arrive late, even after the transfer was given up: so there is no
    /// lease for the rest of the term.
    pub(super) fn forfeit(&mut self) {
        self.end();
        self.forfeited = true;
    }

    /// A round starts. The oldest one is dropped if there are too many.
    pub(super) fn started(&mut self, now: Duration, context: Bytes) {
        if self.others_needed.is_none() {
            return;
        }
        if self.rounds.len() >= READ_ROUNDS_MAX {
            self.rounds.pop_front();
        }
        self.rounds.push_back(HeartbeatRound { context, started: now });
        self.newest = Some(now);
    }

    /// A member answered a heartbeat of this term with its vote lease.
    pub(super) fn answered(&mut self, from: MemberId, context: &[u8], promise: Duration) {
        let Some(needed) = self.others_needed else { return };
        let Some(voter) = self.voters.get_mut(&from) else { return };
        let of_it = |round: &&HeartbeatRound| round.context == context;
        let Some(round) = self.rounds.iter().rev().find(of_it) else { return };
        let counted = promise.saturating_mul(100 - DRIFT_PERCENT) / 100;
        let end = round.started.saturating_add(counted);
        if end <= voter.end {
            return;
        }
        *voter = VoteLease { renew: round.started.saturating_add(counted / 2), end };
        let mut promised: Vec<_> = self.voters.values().copied().collect();
        // As many voters as are needed gave at least this vote lease.
        promised.sort_unstable_by_key(|promised| std::cmp::Reverse(promised.end));
        self.quorum = promised[needed - 1];
    }

    /// True if a read may be answered now, at the present commit index.
    pub(super) fn holds(&self, now: Duration) -> bool {
        self.others_needed.is_some() && now < self.quorum.end
    }

    /// True if the lease should be renewed: more than the first part of it has passed, and no recent renewal is in flight.
    pub(super) fn wants_round(&self, now: Duration) -> bool {
        let VoteLease { renew, end } = self.quorum;
        let pause = end.saturating_sub(renew) / 4;
        now >= renew && self.newest.is_none_or(|newest| now >= newest + pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// A vote lease of 1000 ms counts as 900.
    fn alone(voters: &[MemberId]) -> LeaderLease {
        let mut alone = LeaderLease::new(true);
        alone.begin(1, voters);
        alone
    }

    fn round(alone: &mut LeaderLease, at: u64, name: &'static str) {
        alone.started(ms(at), Bytes::from_static(name.as_bytes()));
    }

    #[test]
    fn it_counts_from_the_start_of_a_round_and_not_from_its_answer() {
        let mut alone = alone(&[1, 2, 3]);
        round(&mut alone, 100, "a");
        assert!(!alone.holds(ms(100)), "nobody has answered");
        alone.answered(2, b"a", ms(1000));
        assert!(alone.holds(ms(999)) && !alone.holds(ms(1000)));
        round(&mut alone, 500, "b");
        alone.answered(3, b"a", ms(1000));
        assert!(!alone.holds(ms(1000)), "an old round adds nothing");
        alone.answered(3, b"b", ms(1000));
        assert!(alone.holds(ms(1399)) && !alone.holds(ms(1400)));
        alone.answered(2, b"a", ms(1000));
        assert!(alone.holds(ms(1399)), "a late answer takes nothing away");
    }

    #[test]
    fn a_quorum_counts_and_not_the_one_who_promised_most() {
        let mut alone = alone(&[1, 2, 3, 4, 5]);
        round(&mut alone, 0, "a");
        alone.answered(2, b"a", ms(1000));
        assert!(!alone.holds(ms(1)), "two of five");
        alone.answered(2, b"a", ms(1000));
        assert!(!alone.holds(ms(1)), "the same one again");
        alone.answered(9, b"a", ms(1000));
        assert!(!alone.holds(ms(1)), "that is no voter");
        alone.answered(3, b"a", ms(500));
        assert!(alone.holds(ms(449)) && !alone.holds(ms(450)), "as long as the shorter promise");
        alone.answered(4, b"a", ms(1000));
        assert!(alone.holds(ms(899)) && !alone.holds(ms(900)));
        alone.answered(5, b"a", Duration::MAX);
        assert!(!alone.holds(ms(900)), "as long as the shorter promise");
        alone.answered(4, b"a", Duration::MAX);
        assert!(alone.holds(ms(900)), "who can wait longer may say so");
    }

    #[test]
    fn response_without_a_vote_lease_adds_nothing() {
        let mut alone = alone(&[1, 2, 3]);
        round(&mut alone, 0, "a");
        alone.answered(2, b"a", ms(0));
        assert!(!alone.holds(ms(0)));
        alone.answered(3, b"unknown", ms(1000));
        assert!(!alone.holds(ms(0)));
        let mut none = LeaderLease::new(false);
        none.begin(1, &[1, 2, 3]);
        round(&mut none, 0, "a");
        none.answered(2, b"a", ms(1000));
        assert!(!none.holds(ms(0)), "it is off");
    }

    #[test]
    fn a_change_of_voters_needs_new_rounds() {
        let mut alone = alone(&[1, 2, 3]);
        round(&mut alone, 0, "a");
        alone.answered(2, b"a", ms(1000));
        round(&mut alone, 10, "b");
        alone.change(1, &[1, 2, 3, 4]);
        assert!(!alone.holds(ms(20)));
        alone.answered(2, b"b", ms(1000));
        alone.answered(3, b"b", ms(1000));
        assert!(!alone.holds(ms(20)), "that round was started before");
        round(&mut alone, 30, "c");
        alone.answered(2, b"c", ms(1000));
        assert!(!alone.holds(ms(40)), "two of four");
        alone.answered(4, b"c", ms(1000));
        assert!(alone.holds(ms(40)));
        alone.change(1, &[2, 3, 4]);
        round(&mut alone, 50, "d");
        for voter in [2, 3, 4] {
            alone.answered(voter, b"d", ms(1000));
        }
        assert!(!alone.holds(ms(60)), "it has no vote itself");
        alone.change(1, &[1]);
        assert!(!alone.holds(ms(60)), "it need not ask anybody");
    }

    #[test]
    fn a_handover_ends_it_for_the_term() {
        let mut alone = alone(&[1, 2, 3]);
        round(&mut alone, 0, "a");
        alone.answered(2, b"a", ms(1000));
        alone.forfeit();
        assert!(!alone.holds(ms(1)));
        round(&mut alone, 2, "b");
        alone.answered(2, b"b", ms(1000));
        alone.change(1, &[1, 2, 3, 4]);
        round(&mut alone, 3, "c");
        alone.answered(2, b"c", ms(1000));
        alone.answered(3, b"c", ms(1000));
        assert!(!alone.holds(ms(4)));
        alone.end();
        alone.begin(1, &[1, 2, 3]);
        round(&mut alone, 5, "d");
        alone.answered(2, b"d", ms(1000));
        assert!(alone.holds(ms(6)), "another term");
    }

    #[test]
    fn it_is_renewed_in_time_and_by_one_round_after_the_other() {
        let mut alone = alone(&[1, 2, 3]);
        round(&mut alone, 0, "a");
        alone.answered(2, b"a", ms(1000));
        assert!(!alone.wants_round(ms(449)));
        assert!(alone.wants_round(ms(450)));
        round(&mut alone, 450, "b");
        assert!(!alone.wants_round(ms(500)), "one is under way");
        assert!(alone.wants_round(ms(563)), "it seems to be lost");
        alone.answered(3, b"b", ms(1000));
        assert!(!alone.wants_round(ms(899)));
        assert!(alone.holds(ms(1349)));
    }

    #[test]
    fn rounds_that_nobody_answers_are_forgotten() {
        let mut alone = alone(&[1, 2, 3]);
        round(&mut alone, 0, "first");
        for at in 0..READ_ROUNDS_MAX as u64 {
            round(&mut alone, at, "next");
        }
        assert_eq!(alone.rounds.len(), READ_ROUNDS_MAX);
        alone.answered(2, b"first", ms(1000));
        assert!(!alone.holds(ms(0)));
    }

    #[test]
    fn the_first_tick_of_a_promise_may_come_at_once() {
        assert_eq!(vote_lease(10, ms(100)), ms(900));
        assert_eq!(vote_lease(0, ms(100)), ms(0));
    }
}
