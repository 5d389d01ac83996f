//! Disk space of the members, and the leader's reaction to a lack of it.
//!
//! ```text
//!  member ── answer to a heartbeat: "my disk is low" ──► leader
//!  leader ── heartbeat: "no quorum has enough space; short of it are …" ──► members
//! ```
//!
//! A leader short of space transfers leadership to a voter with enough. While no quorum of voters has enough, all members
//! refuse requests that take space: NOSPACE. None of this is in the log: it ends as soon as there is space again.
//!
//! Both are sent in `log_term`, which raft does not use in these messages; members of versions without this feature
//! send 0, which means enough space.

use std::collections::BTreeMap;

use raft::eraftpb::Message;

use crate::types::{DiskSpace, MemberId};

/// Value in a voter's response whose disk is low.
const LOW: u64 = 1;

/// The disk space of this member, and of the others as far as known.
#[derive(Debug, Default)]
pub(super) struct Disks {
    own: DiskSpace,
    /// True for members whose disk is low, as reported to this leader in its term.
    others: BTreeMap<MemberId, bool>,
    /// Ticks before the next leadership transfer.
    pause: usize,
    /// The members short of space while no quorum has enough; else empty.
    full: Vec<MemberId>,
    /// True if a change of `full` is not reported yet.
    changed: bool,
}

impl Disks {
    /// Sets the level of this member's disk.
    pub(super) fn set_own(&mut self, space: DiskSpace) {
        self.own = space;
    }

    /// This member becomes leader: reports to earlier leaders may be outdated.
    pub(super) fn begin(&mut self) {
        self.others.clear();
        self.pause = 0;
    }

    /// Records the report in a response to this leader.
    pub(super) fn answered(&mut self, message: &Message) {
        self.others.insert(message.from, message.log_term == LOW);
    }

    /// Adds the report of this member to its response.
    pub(super) fn add_answer(&self, message: &mut Message) {
        message.log_term = if self.own == DiskSpace::Enough { 0 } else { LOW };
    }

    /// Adds the members short of space to a heartbeat of this leader.
    pub(super) fn add_full(&self, message: &mut Message, voters: &[MemberId]) {
        let bits = sorted(voters).into_iter().zip(0..u64::BITS);
        let lacking = bits.filter(|(voter, _)| self.full.contains(voter));
        message.log_term = lacking.fold(0, |mask, (_, bit)| mask | 1 << bit);
    }

    /// Records the members short of space from the leader's heartbeat.
    pub(super) fn heard(&mut self, message: &Message, voters: &[MemberId]) {
        let bits = sorted(voters).into_iter().zip(0..u64::BITS);
        let lacking = bits.filter(|(_, bit)| message.log_term >> bit & 1 == 1);
        self.set_full(lacking.map(|(voter, _)| voter).collect());
    }

    /// A tick of the leader `own`, with the members that are reachable. Returns the member to which it should transfer
    /// leadership, if any, out of `candidates`: those whose logs are close to its own, the best one first.
    pub(super) fn tick(
        &mut self,
        own: MemberId,
        voters: &[MemberId],
        reaches: impl Fn(MemberId) -> bool,
        mut candidates: impl Iterator<Item = MemberId>,
    ) -> Option<MemberId> {
        self.pause = self.pause.saturating_sub(1);
        let quorum = voters.len() / 2 + 1;
        let is_known = |id: MemberId| id == own || self.others.contains_key(&id);
        // A new leader waits for responses: until then the space of the others is unknown.
        if voters.iter().filter(|id| is_known(**id)).count() < quorum {
            return None;
        }
        let is_low = |id: MemberId| match id == own {
            true => self.own != DiskSpace::Enough,
            false => self.others.get(&id).copied().unwrap_or_default(),
        };
        let has_room = |id: MemberId| !is_low(id) && (id == own || reaches(id));
        let lacking: Vec<_> = voters.iter().copied().filter(|id| is_low(*id)).collect();
        let enough = voters.iter().filter(|id| has_room(**id)).count() >= quorum;
        let to = candidates
            .find(|id| *id != own && voters.contains(id) && is_known(*id) && has_room(*id));
        let hands_over = is_low(own) && enough && self.pause == 0;
        self.set_full(if enough { Vec::new() } else { lacking });
        to.filter(|_| hands_over)
    }

    /// A leadership transfer starts; the next one waits for so many ticks, in case this one fails.
    pub(super) fn rest(&mut self, ticks: usize) {
        self.pause = ticks;
    }

    /// The members short of space while no quorum has enough, if that changed since the last call.
    pub(super) fn take_change(&mut self) -> Option<Vec<MemberId>> {
        std::mem::take(&mut self.changed).then(|| self.full.clone())
    }

    fn set_full(&mut self, full: Vec<MemberId>) {
        if self.full != full {
            self.full = full;
            self.changed = true;
        }
    }
}

fn sorted(voters: &[MemberId]) -> Vec<MemberId> {
    let mut voters = voters.to_vec();
    voters.sort_unstable();
    voters
}

#[cfg(test)]
mod tests {
    use super::*;

    const VOTERS: [MemberId; 3] = [1, 2, 3];

    /// Leader 1, and the reports of the others: true if low.
    fn leader(own: DiskSpace, others: &[(MemberId, bool)]) -> Disks {
        let mut disks = Disks::default();
        disks.begin();
        disks.set_own(own);
        for (from, low) in others {
            let log_term = u64::from(*low);
            disks.answered(&Message { from: *from, log_term, ..Message::default() });
        }
        disks
    }

    fn tick(disks: &mut Disks) -> Option<MemberId> {
        disks.tick(1, &VOTERS, |_| true, [3, 2].into_iter())
    }

    #[test]
    fn a_leader_without_room_hands_over_to_a_voter_that_has_some() {
        use DiskSpace::{Enough, Exhausted, Low};
        for (own, others, to, full) in [
            (Enough, vec![(2, false), (3, false)], None, vec![]),
            (Low, vec![(2, false), (3, false)], Some(3), vec![]),
            (Exhausted, vec![(2, false), (3, false)], Some(3), vec![]),
            (Enough, vec![(2, true), (3, false)], None, vec![]),
            // The member with enough space has no quorum with the remaining ones.
            (Low, vec![(2, false), (3, true)], None, vec![1, 3]),
            (Low, vec![(2, true), (3, true)], None, vec![1, 2, 3]),
            (Enough, vec![(2, true), (3, true)], None, vec![2, 3]),
        ] {
            let mut disks = leader(own, &others);
            assert_eq!(tick(&mut disks), to, "{own:?} {others:?}");
            assert_eq!(disks.take_change().unwrap_or_default(), full, "{own:?} {others:?}");
            assert_eq!(disks.take_change(), None);
        }
    }

    #[test]
    fn a_new_leader_waits_for_answers() {
        let mut disks = leader(DiskSpace::Low, &[]);
        assert_eq!((tick(&mut disks), disks.take_change()), (None, None));
        let mut disks = leader(DiskSpace::Low, &[(2, false)]);
        assert_eq!(tick(&mut disks), Some(2), "the other one did not say anything yet");
    }

    #[test]
    fn a_handover_that_came_to_nothing_is_tried_again_later() {
        let mut disks = leader(DiskSpace::Low, &[(2, false), (3, false)]);
        disks.rest(3);
        let tried: Vec<_> = (0..4).map(|_| tick(&mut disks)).collect();
        assert_eq!(tried, [None, None, Some(3), Some(3)]);
    }

    #[test]
    fn unreachable_member_counts_as_short_of_space() {
        let mut disks = leader(DiskSpace::Low, &[(2, false), (3, false)]);
        let to = disks.tick(1, &VOTERS, |id| id == 2, [3, 2].into_iter());
        assert_eq!((to, disks.take_change()), (None, Some(vec![1])));
        // No disk is low: the lack of a quorum is reported elsewhere.
        let mut disks = leader(DiskSpace::Enough, &[(2, false), (3, false)]);
        disks.tick(1, &VOTERS, |_| false, [3, 2].into_iter());
        assert_eq!(disks.take_change(), None);
    }

    #[test]
    fn a_sole_voter_without_room_leaves_no_quorum() {
        let mut disks = leader(DiskSpace::Low, &[]);
        assert_eq!(disks.tick(1, &[1], |_| true, std::iter::empty()), None);
        assert_eq!(disks.take_change(), Some(vec![1]));
        disks.set_own(DiskSpace::Enough);
        disks.tick(1, &[1], |_| true, std::iter::empty());
        assert_eq!(disks.take_change(), Some(vec![]));
    }

    #[test]
    fn members_learn_who_has_no_room() {
        let mut disks = leader(DiskSpace::Low, &[(2, false), (3, true)]);
        tick(&mut disks);
        let (mut heartbeat, mut member) = (Message::default(), Disks::default());
        disks.add_full(&mut heartbeat, &[3, 1, 2]);
        member.heard(&heartbeat, &VOTERS);
        assert_eq!(member.take_change(), Some(vec![1, 3]));
        member.heard(&Message::default(), &VOTERS);
        assert_eq!(member.take_change(), Some(vec![]));
    }
}
