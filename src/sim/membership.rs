//! Members that join, get a vote, and are removed.

use prost::Message as _;

use super::cluster::{Cluster, MEMBERS_MAX};
use super::member::{Member, described};
use super::plan::LEADER;
use crate::cluster;
use crate::replica::{Input, Lane};
use crate::types::{ConfChange, MemberId};

impl Cluster {
    /// Another member joins; it runs from now on, even if the others refuse it.
    pub(super) fn grow(&mut self) {
        let id = self.members.len() as u64 + 1;
        if id > MEMBERS_MAX {
            return;
        }
        self.members.push(Member::new(id, self.plan.seed, &self.plan.parameters));
        let learner = cluster::Member { is_learner: true, ..described(id) };
        self.change(cluster::add(0, &learner, 1));
        self.start(id);
    }

    /// Promotes learners that the leader knows to have nearly all entries.
    pub(super) fn promote(&mut self) {
        let leader = self.who(LEADER);
        let learners = self.checks.members().learners.clone();
        let Some(live) = self.member(leader).live.as_ref() else { return };
        let is_close = |id: &MemberId| {
            let matched = live.replica.matched(*id);
            matched.is_some_and(|(matched, last)| cluster::is_caught_up(matched, last))
        };
        let learners: Vec<_> = learners.into_iter().filter(is_close).collect();
        learners.into_iter().for_each(|id| self.change(cluster::promote(0, id)));
    }

    /// A member is removed, unless few are left.
    pub(super) fn shrink(&mut self, id: MemberId) {
        let members = self.checks.members();
        let is_voter = members.voters.contains(&id);
        if !is_voter || members.voters.len() > 2 {
            self.change(cluster::remove(0, id));
        }
    }

    fn change(&mut self, change: ConfChange) {
        let leader = self.who(LEADER);
        if let Some(live) = self.member(leader).live.as_mut() {
            let payload = change.encode_to_vec().into();
            live.mailbox.push(Lane::Requests, Input::ConfChange(payload));
            self.wake(leader);
        }
    }

    /// A member learns that it was removed: it stops for good.
    pub(super) fn leave(&mut self, id: MemberId) {
        self.say(|| format!("{id} was removed"));
        self.crash(id, 0);
        self.member(id).gone = true;
    }

    /// Stops members that do not belong to the cluster: some that were removed cannot learn of it any more, and some
    /// were never added.
    pub(super) fn retire(&mut self) {
        let members = self.checks.members().clone();
        for id in 1..=self.members.len() as u64 {
            let is_there = members.voters.contains(&id) || members.learners.contains(&id);
            if !is_there && !self.member(id).gone {
                self.leave(id);
            }
        }
    }
}
