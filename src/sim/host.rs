//! Hosts the replica as the actors do, without waiting: each event takes inputs, calls, performs.

mod apply;
mod log;
mod requests;
mod snapshots;
mod watches;

use std::time::Duration;

use bytes::Bytes;

use crate::consensus::{Message, MessageType, Role};
use crate::replica::{Input, Lane, LeaseKeeper, Output};
use crate::sim::bugs::Bug;
use crate::sim::cluster::{Cluster, Event, MemberEvent, brief};
use crate::sim::member::{EXECUTORS, Live, Task, Write};
use crate::sim::plan::{CrashPoint, Micros, SECOND};
use crate::types::{DiskSpace, LogIndex, MemberId};
use crate::wal::Record;

impl Cluster {
    pub(super) fn turn(&mut self, id: MemberId, event: MemberEvent) {
        match event {
            MemberEvent::Tick => self.tick(id),
            MemberEvent::Leases => self.leases(id),
            MemberEvent::Round => self.round(id),
            MemberEvent::Written => self.written(id),
            MemberEvent::Apply => self.apply(id),
            MemberEvent::Synced => self.synced(id),
            MemberEvent::Hub => self.hub_turn(id),
        }
    }

    pub(super) fn live(&mut self, id: MemberId) -> &mut Live {
        self.member(id).live.as_mut().expect("its turn comes only while it runs")
    }

    fn schedule(&mut self, id: MemberId, after: Micros, event: MemberEvent) {
        let boot = self.live(id).boot;
        self.after(after, Event::Member(id, boot, event));
    }

    /// True time of a period on a member's clock.
    fn true_time(&self, id: MemberId, time: Micros) -> Micros {
        time * 1000 / (950 + self.drift(id))
    }

    fn drift(&self, id: MemberId) -> u64 {
        let drift = &self.plan.parameters.drift;
        drift[(id as usize - 1) % drift.len()]
    }

    /// The time on a member's clock.
    fn clock(&mut self, id: MemberId) -> Duration {
        let (now, drift) = (self.now, self.drift(id));
        self.live(id).clock(now, drift)
    }

    fn now_ms(&mut self, id: MemberId) -> u64 {
        self.clock(id).as_millis() as u64
    }

    /// Schedules consensus.
    pub(super) fn wake(&mut self, id: MemberId) {
        let member = self.member(id);
        let delay = member.random.skewed(1, 500);
        if let Some(live) = member.live.as_mut()
            && !std::mem::replace(&mut live.round_due, true)
        {
            self.schedule(id, delay, MemberEvent::Round);
        }
    }

    fn tick(&mut self, id: MemberId) {
        let now = self.now;
        let (until, space) = self.member(id).full_disk;
        let space = if now < until { space } else { DiskSpace::Enough };
        self.live(id).mailbox.push(Lane::Control, Input::Tick(space));
        let now_ms = self.now_ms(id);
        let live = self.live(id);
        let has_leader = live.replica.role().leader.is_some();
        live.streams.tick(now_ms, has_leader);
        self.watched(id);
        let time = self.true_time(id, self.plan.parameters.tick);
        self.schedule(id, time, MemberEvent::Tick);
        self.round_soon(id);
    }

    /// Inputs may be handled alone, or together with later ones.
    pub(super) fn round_soon(&mut self, id: MemberId) {
        let member = self.member(id);
        let waits = member.random.chance(250);
        if waits || member.live.as_ref().is_some_and(|live| live.round_due) {
            self.wake(id);
        } else {
            self.round(id);
        }
    }

    /// Takes the waiting inputs, and performs the outputs.
    fn round(&mut self, id: MemberId) {
        self.hand_in(id);
        let (now, bug) = (self.clock(id), self.bug);
        let live = self.live(id);
        let now = if bug == Some(Bug::ClockBeforeMailbox) { live.round_ended } else { now };
        live.round_due = false;
        live.replica.take(&mut live.mailbox, || now);
        let mut out = Vec::new();
        live.replica.drain(now, &mut out);
        for output in out {
            if self.member(id).live.is_none() {
                return;
            }
            self.perform(id, output);
        }
        if self.member(id).live.is_some() {
            let now = self.clock(id);
            self.live(id).round_ended = now;
        }
    }

    /// Each executor sends a bundle of requests.
    fn hand_in(&mut self, id: MemberId) {
        let (now_ms, bug) = (self.now_ms(id), self.bug);
        let live = self.live(id);
        for executor in 0..EXECUTORS {
            let (proposals, mut read) = live.pending[executor].take_bundle(now_ms);
            if let Some(batch) = read.filter(|_| bug == Some(Bug::StaleReadIndex)) {
                let index = live.replica.progress().committed;
                live.tasks.push_back(Task::ReadAt { executor, batch, index });
                read = None;
            }
            if !proposals.is_empty() || read.is_some() {
                live.mailbox.push(Lane::Requests, Input::Requests { executor, proposals, read });
            }
        }
        if !live.tasks.is_empty() {
            self.apply_soon(id);
        }
    }

    fn perform(&mut self, id: MemberId, output: Output<Bytes>) {
        match output {
            Output::Send(messages) => messages.into_iter().for_each(|it| self.sends(id, it)),
            Output::HeartbeatLate { .. } => (),
            Output::Persist { number, mut records } => {
                if self.bug == Some(Bug::VoteNotPersisted) {
                    records.retain(|record| !matches!(record, Record::HardState(_)));
                }
                if self.bug == Some(Bug::AckBeforePersist) {
                    self.live(id).mailbox.push(Lane::Acks, Input::Persisted(number));
                    self.wake(id);
                }
                let live = self.live(id);
                live.log_start_index =
                    records.iter().filter_map(log_start_of).fold(live.log_start_index, u64::max);
                live.to_write.push_back(Write { number: Some(number), records });
                self.write(id);
            }
            Output::Install { snapshot, index, term } => self.install(id, snapshot, index, term),
            Output::Discard(_) => (),
            Output::Commit(entries) => {
                self.live(id).tasks.push_back(Task::Commit(entries));
                self.apply_soon(id);
            }
            Output::ReadAt { executor, batch, index } => {
                self.live(id).tasks.push_back(Task::ReadAt { executor, batch, index });
                self.apply_soon(id);
            }
            Output::RoleChanged { now, .. } => self.role(id, now),
            Output::QuorumFull(_) => (),
        }
    }

    fn sends(&mut self, id: MemberId, message: Message) {
        self.say(|| format!("{id} -> {}: {}", message.to, brief(&message)));
        let is_vote = message.get_msg_type() == MessageType::MsgRequestVoteResponse;
        if is_vote && !message.reject {
            self.checks.vote(id, message.term, message.to);
        }
        if message.get_msg_type() == MessageType::MsgSnapshot {
            self.send_snapshot(id, message);
        } else {
            self.send(message);
        }
    }

    fn role(&mut self, id: MemberId, role: Role) {
        self.say(|| format!("{id}: {role:?}"));
        self.note(role.term << 8 | role.leader.unwrap_or_default());
        if let Some(leader) = if role.leads { Some(id) } else { role.leader } {
            self.checks.leader(role.term, leader);
        }
        let bug = self.bug;
        let live = self.live(id);
        if role.leads || bug != Some(Bug::DeposedRevoke) {
            live.leads = role.leads.then_some(role.term);
        }
        if role.leads {
            self.reaches(id, CrashPoint::Elected);
        }
    }

    /// The lease keeper, with its leadership updated as the actor does before each message.
    fn keeper(&mut self, id: MemberId) -> (&mut LeaseKeeper, u64) {
        let now_ms = self.now_ms(id);
        let live = self.live(id);
        live.keeper.set_leadership(live.leads, now_ms);
        (&mut live.keeper, now_ms)
    }

    /// Checks for expired leases, and for requests that waited too long.
    fn leases(&mut self, id: MemberId) {
        let bug = self.bug;
        let (keeper, now_ms) = self.keeper(id);
        if let Some((term, proposals)) = keeper.due(now_ms) {
            self.say(|| format!("{id} finds {} leases due", proposals.len()));
            let input = match bug {
                // A member that does not lead forwards proposals.
                Some(Bug::DeposedRevoke) => Input::Requests { executor: 0, proposals, read: None },
                _ => Input::LeaderRequests(term, proposals),
            };
            self.live(id).mailbox.push(Lane::Requests, input);
            self.wake(id);
        }
        self.sweep(id);
        let time = self.true_time(id, SECOND / 2);
        self.schedule(id, time, MemberEvent::Leases);
    }
}

/// The index in a log start.
fn log_start_of(record: &Record) -> Option<LogIndex> {
    match record {
        Record::LogStart { index, .. } => Some(*index),
        Record::Entry(_) | Record::Metadata { .. } | Record::HardState(_) => None,
    }
}
