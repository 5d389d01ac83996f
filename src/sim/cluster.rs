//! The simulated cluster: one queue of events in the order of simulated time, and the handling of each.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use super::bugs::Bug;
use bytes::Bytes;

use super::checks::Checks;
use super::clients::{Answer, Clients};
use super::member::Member;
use super::outcome::Outcome;
use super::plan::{ClientOp, CrashPoint, Fault, LEADER, MS, Micros, Operation, Plan, SECOND, Wire};
use super::random::Random;
use super::watchers::Watcher;
use crate::consensus::{Message, MessageType};
use crate::replica::{Input, Lane};
use crate::types::MemberId;

/// Upper bound of the time in which a cluster without faults becomes quiet.
const REST_MAX: Micros = 120 * SECOND;

/// Upper bound of the members of a run, including those that were removed.
pub(super) const MEMBERS_MAX: u64 = 9;

/// An event of one member, since one of its starts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum MemberEvent {
    Tick,
    Leases,
    Round,
    Written,
    Apply,
    Synced,
    Hub,
}

pub(super) enum Event {
    Member(MemberId, u64, MemberEvent),
    Deliver(Box<Message>),
    /// From a member since one of its starts: a message and the state that it announces.
    Snapshot(MemberId, u64, Box<Message>, Bytes),
    Restart(MemberId),
    Fault(usize),
    ClientOp(usize),
    Answer(usize, Box<Answer>),
    Timeout(usize),
    Watch(usize),
    Take(usize),
    Heal,
    Look,
}

struct Due(Micros, u64, Event);

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        self.1 == other.1
    }
}
impl Eq for Due {}
impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Due {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.0, self.1).cmp(&(other.0, other.1))
    }
}

/// A partition of the network.
struct Cut {
    side: Vec<MemberId>,
    one_way: bool,
    until: Micros,
}

pub(super) struct Cluster {
    pub(super) plan: Plan,
    pub(super) bug: Option<Bug>,
    pub(super) now: Micros,
    pub(super) members: Vec<Member>,
    pub(super) checks: Checks,
    pub(super) clients: Clients,
    pub(super) watchers: Vec<Watcher>,
    pub(super) random: Random,
    links: Vec<Random>,
    queue: BinaryHeap<Reverse<Due>>,
    sequence: u64,
    cuts: Vec<Cut>,
    noise: (Micros, Wire),
    healed: bool,
    last_asks: Vec<usize>,
    /// Start of each round of heartbeats, for a planted bug.
    rounds: BTreeMap<Bytes, Micros>,
    pub(super) outcome: Outcome,
    /// Receiver of the trace, if any.
    pub(super) trace: Option<fn(String)>,
}

impl Cluster {
    pub(super) fn new(plan: Plan, bug: Option<Bug>, trace: Option<fn(String)>) -> Self {
        let (seed, count) = (plan.seed, plan.parameters.members);
        let members = (1..=count).map(|id| Member::new(id, seed, &plan.parameters)).collect();
        Self {
            bug,
            now: 0,
            members,
            checks: Checks::new(count),
            clients: Clients::new(&plan),
            watchers: plan.watches.iter().map(|watch| Watcher::new(*watch)).collect(),
            random: Random::new(seed, "world", 0),
            links: (0..MEMBERS_MAX * MEMBERS_MAX)
                .map(|link| Random::new(seed, "link", link))
                .collect(),
            queue: BinaryHeap::new(),
            sequence: 0,
            cuts: Vec::new(),
            noise: (0, plan.parameters.wire),
            healed: false,
            last_asks: Vec::new(),
            rounds: BTreeMap::new(),
            outcome: Outcome::default(),
            trace,
            plan,
        }
    }

    /// Runs to the end. Panics when a check fails.
    pub(super) fn run(mut self) -> Outcome {
        self.say(|| format!("{:?}", self.plan.parameters));
        for id in 1..=self.plan.parameters.members {
            self.start(id);
        }
        let at = |at: Micros| (at < Micros::MAX).then_some(at);
        let faults = self.plan.faults.iter().map(|(when, _)| at(*when)).enumerate();
        let faults: Vec<_> = faults.map(|(number, at)| (at, Event::Fault(number))).collect();
        let asks = self.plan.operations.iter().map(|ask| at(ask.at)).enumerate();
        let asks: Vec<_> = asks.map(|(number, at)| (at, Event::ClientOp(number))).collect();
        let watches = self.plan.watches.iter().map(|watch| at(watch.at)).enumerate();
        let watches: Vec<_> = watches.map(|(number, at)| (at, Event::Watch(number))).collect();
        for (at, event) in faults.into_iter().chain(asks).chain(watches) {
            if let Some(at) = at {
                self.at(at, event);
            }
        }
        self.at(self.plan.lasts, Event::Heal);
        while let Some(Reverse(Due(at, _, event))) = self.queue.pop() {
            assert!(at >= self.now, "time goes on");
            self.now = at;
            self.outcome.steps += 1;
            if self.happen(event) {
                break;
            }
        }
        self.clients.check_linearizable(&self.checks);
        let live = self.members.iter().filter_map(|member| member.live.as_ref());
        self.outcome.lease_reads += live.map(|live| live.replica.lease_reads()).sum::<u64>();
        self.outcome.lasted_us = self.now;
        self.outcome.entries = self.checks.committed();
        (self.outcome.asked, self.outcome.answered) = self.clients.counts();
        self.outcome.watched = self.watchers.iter().map(|watcher| watcher.seen).sum();
        self.outcome
    }

    /// Adds a line to the trace.
    pub(super) fn say(&self, what: impl FnOnce() -> String) {
        if let Some(trace) = self.trace {
            trace(format!("{:>12.6}s  {}", self.now as f64 / 1e6, what()));
        }
    }

    pub(super) fn at(&mut self, at: Micros, event: Event) {
        self.sequence += 1;
        self.queue.push(Reverse(Due(at, self.sequence, event)));
    }

    pub(super) fn after(&mut self, time: Micros, event: Event) {
        self.at(self.now + time, event);
    }

    pub(super) fn member(&mut self, id: MemberId) -> &mut Member {
        &mut self.members[id as usize - 1]
    }

    /// Adds a number to the digest of the run.
    pub(super) fn note(&mut self, number: u64) {
        self.outcome.story =
            (self.outcome.story ^ number ^ self.now).wrapping_mul(0x0100_0000_01b3).rotate_left(23);
    }

    /// Handles one event. `true` at the end of the run.
    fn happen(&mut self, event: Event) -> bool {
        match event {
            Event::Member(id, boot, event) => {
                let now = self.now;
                let member = self.member(id);
                if member.live.as_ref().is_none_or(|live| live.boot != boot) {
                    return false;
                }
                if member.paused_until > now {
                    let until = member.paused_until;
                    self.at(until, Event::Member(id, boot, event));
                    return false;
                }
                self.turn(id, event);
            }
            Event::Deliver(message) => self.deliver(message),
            Event::Snapshot(id, boot, message, file) => self.snapshot(id, boot, message, file),
            Event::Restart(id) => self.start(id),
            Event::Fault(number) => self.fault(number),
            Event::ClientOp(number) => self.ask(number),
            Event::Answer(number, answer) => {
                self.say(|| format!("request {number} is answered: {answer:?}"));
                self.clients.answer(number, *answer, self.now, &mut self.checks);
            }
            Event::Timeout(number) => self.clients.give_up(number),
            Event::Watch(number) => self.watch(number),
            Event::Take(number) => self.take(number),
            Event::Heal => self.heal(),
            Event::Look => {
                let Some(why) = self.unsettled() else { return true };
                self.retire();
                self.repeat_requests();
                assert!(self.now < self.plan.lasts + REST_MAX, "no rest without faults: {why}");
                self.after(SECOND / 2, Event::Look);
            }
        }
        false
    }

    fn wire(&self) -> Wire {
        if self.now < self.noise.0 { self.noise.1 } else { self.plan.parameters.wire }
    }

    pub(super) fn is_cut(&self, from: MemberId, to: MemberId) -> bool {
        self.cuts.iter().any(|cut| {
            let (from, to) = (cut.side.contains(&from), cut.side.contains(&to));
            self.now < cut.until && from != to && (from || !cut.one_way)
        })
    }

    /// Sends a message; most arrive.
    pub(super) fn send(&mut self, message: Message) {
        let (from, to) = (message.from, message.to);
        self.note(message.index ^ message.term << 32);
        let (wire, cut, healed) = (self.wire(), self.is_cut(from, to), self.healed);
        let link = &mut self.links[((from - 1) * MEMBERS_MAX + to - 1) as usize];
        let delay = link.skewed(100, wire.delay_max);
        let (lost, again) = (link.chance(wire.loss_permille), link.chance(wire.repeat_permille));
        let later = link.skewed(100, wire.delay_max * 4);
        let is_proposal = message.get_msg_type() == MessageType::MsgPropose;
        if cut || (lost && !healed) {
            self.say(|| format!("{from} -> {to} lost: {}", brief(&message)));
            if reports_loss(later)
                && let Some(live) = self.member(from).live.as_mut()
            {
                if cut && is_proposal {
                    // The connection has ended before the message is sent.
                    live.replica.undeliverable(vec![message]);
                }
                live.mailbox.push(Lane::Control, Input::Unreachable(to));
            }
            return;
        }
        // A proposal that arrives twice would be applied twice: connections do not repeat messages, so only others are.
        let repeats = again && !healed && !is_proposal;
        if repeats || self.bug == Some(Bug::ProposalRepeated) && is_proposal {
            self.after(later, Event::Deliver(Box::new(message.clone())));
        }
        self.after(delay, Event::Deliver(Box::new(message)));
    }

    fn deliver(&mut self, mut message: Box<Message>) {
        let (from, to, now) = (message.from, message.to, self.now);
        if self.is_cut(from, to) {
            return;
        }
        if self.bug == Some(Bug::PromiseFromAnswer) {
            self.extend_vote_lease(&mut message);
        }
        let member = self.member(to);
        let is_paused = member.paused_until > now;
        if let Some(live) = member.live.as_mut() {
            live.mailbox.deliver(message);
            if is_paused {
                self.wake(to);
            } else {
                self.round_soon(to);
            }
        }
    }

    /// Adds the time since the start of a round of heartbeats to the vote lease in its response.
    fn extend_vote_lease(&mut self, message: &mut Message) {
        let now = self.now;
        let kind = message.get_msg_type();
        if message.context.is_empty() {
            return;
        }
        let began = *self.rounds.entry(message.context.clone()).or_insert(now);
        if kind == MessageType::MsgHeartbeatResponse && message.reject_hint > 0 {
            message.reject_hint += (now - began) / MS;
        }
    }

    pub(super) fn start(&mut self, id: MemberId) {
        let (now, bug, parameters) = (self.now, self.bug, self.plan.parameters.clone());
        let member = self.member(id);
        if member.live.is_some() || member.gone {
            return;
        }
        member.paused_until = now;
        let found = member.start(now, &parameters, bug);
        let boot = member.boots;
        let ticks = member.random.between(1, 100) * MS;
        for (before, entry) in found.iter().zip(found.iter().skip(1)) {
            self.checks.appended(id, entry, before.term);
        }
        self.say(|| format!("{id} starts"));
        if self.live(id).applier.machine().cluster().is_removed(id) {
            return self.leave(id);
        }
        self.after(ticks, Event::Member(id, boot, MemberEvent::Tick));
        self.after(ticks, Event::Member(id, boot, MemberEvent::Leases));
        self.after(0, Event::Member(id, boot, MemberEvent::Apply));
        self.wake(id);
    }

    /// The power of a member fails, for so long.
    pub(super) fn crash(&mut self, id: MemberId, lasts: Micros) {
        let bug = self.bug;
        let member = self.member(id);
        member.armed = None;
        let Some(live) = member.live.take() else { return };
        let torn = member.disk.crash(&mut member.random, bug);
        let mut random = member.random.clone();
        member.store.crash(&mut random, bug);
        member.random = random;
        self.outcome.crashes += 1;
        self.outcome.lease_reads += live.replica.lease_reads();
        self.outcome.torn += u64::from(torn);
        self.say(|| format!("{id} loses power{}", if torn { ", a write is torn" } else { "" }));
        for number in 0..self.watchers.len() {
            if self.watchers[number].at.is_some_and(|(member, ..)| member == id) {
                self.watchers[number].at = None;
                self.after(100 * MS, Event::Watch(number));
            }
        }
        self.after(lasts, Event::Restart(id));
    }

    /// A member reaches a point at which a crash may be planned. True if it has crashed.
    pub(super) fn reaches(&mut self, id: MemberId, point: CrashPoint) -> bool {
        match self.member(id).armed {
            Some((armed, lasts)) if armed == point => {
                self.say(|| format!("{id} comes to {point:?}"));
                self.crash(id, lasts);
                true
            }
            Some(_) | None => false,
        }
    }

    fn fault(&mut self, number: usize) {
        let fault = self.plan.faults[number].1.clone();
        self.say(|| format!("{fault:?}"));
        self.outcome.faults += 1;
        let now = self.now;
        match fault {
            Fault::Partition { mut side, one_way, lasts } => {
                side.iter_mut().for_each(|id| *id = self.who(*id));
                self.cuts.push(Cut { side, one_way, until: now + lasts });
            }
            Fault::Crash { member, lasts } => self.crash(self.who(member), lasts),
            Fault::CrashAt { member, point, lasts } => {
                let member = self.who(member);
                self.member(member).armed = Some((point, lasts));
            }
            Fault::Blackout { lasts } => {
                for id in 1..=self.members.len() as u64 {
                    self.crash(id, lasts);
                }
            }
            Fault::Grow => self.grow(),
            Fault::Promote => self.promote(),
            Fault::Shrink { member } => self.shrink(self.who(member)),
            Fault::Pause { member, lasts } => {
                let member = self.who(member);
                self.member(member).paused_until = now + lasts;
            }
            Fault::SlowDisk { member, times, lasts } => {
                let member = self.who(member);
                self.member(member).slow = (now + lasts, times);
            }
            Fault::FullDisk { member, space, lasts } => {
                let member = self.who(member);
                self.member(member).full_disk = (now + lasts, space);
            }
            Fault::Noise { wire, lasts } => self.noise = (now + lasts, wire),
            Fault::Campaign { member } => self.control(self.who(member), Input::Campaign),
            Fault::Transfer { member, to } => self.transfer(self.who(member), to),
        }
    }

    /// The member that a fault affects.
    pub(super) fn who(&self, member: MemberId) -> MemberId {
        let leads = |it: &&Member| it.live.as_ref().is_some_and(|live| live.replica.role().leads);
        let newest = |it: &&Member| it.live.as_ref().map(|live| live.replica.role().term);
        let leader = self.members.iter().filter(leads).max_by_key(newest);
        if member == LEADER { leader.map_or(1, |leader| leader.id) } else { member }
    }

    fn transfer(&mut self, id: MemberId, to: MemberId) {
        let role = self.member(id).live.as_ref().map(|live| live.replica.role());
        match role.filter(|role| role.leads && id != to && self.bug == Some(Bug::TransferUnseen)) {
            None => self.control(id, Input::Transfer(to)),
            Some(role) => {
                let mut message = Message { from: id, to, term: role.term, ..Message::default() };
                message.set_msg_type(MessageType::MsgTimeoutNow);
                self.control(to, Input::Peer(Box::new(message)));
            }
        }
    }

    fn control(&mut self, id: MemberId, input: Input<Bytes>) {
        if let Some(live) = self.member(id).live.as_mut() {
            live.mailbox.push(Lane::Control, input);
            self.wake(id);
        }
    }

    /// All faults end, and clients read every key once more from every member.
    fn heal(&mut self) {
        self.say(|| "all faults end".to_owned());
        self.healed = true;
        self.cuts.clear();
        self.noise = (0, self.plan.parameters.wire);
        self.retire();
        let there = self.members.iter().filter(|member| !member.gone);
        let ids: Vec<_> = there.map(|member| member.id).collect();
        for id in &ids {
            let now = self.now;
            let member = self.member(*id);
            (member.slow, member.armed) = ((0, 1), None);
            member.full_disk.0 = 0;
            member.paused_until = member.paused_until.min(now);
            self.start(*id);
        }
        let member = *self.random.pick(&ids);
        let (at, timeout) = (self.now + 20 * SECOND, 10 * SECOND);
        let keys = self.plan.parameters.keys;
        let space = [(at - SECOND, member, ClientOp::Alarm { on: false })];
        let puts = (0..keys).map(|key| (at, member, ClientOp::Put { key }));
        let gets = ids.iter().flat_map(|id| (0..keys).map(move |key| (*id, ClientOp::Get { key })));
        let gets = gets.map(|(member, ask)| (at + SECOND, member, ask));
        for (at, member, ask) in space.into_iter().chain(puts).chain(gets).collect::<Vec<_>>() {
            let number = self.clients.add(Operation { at, member, timeout, ask });
            self.last_asks.push(number);
            self.at(at, Event::ClientOp(number));
        }
        self.at(at + 2 * SECOND, Event::Look);
    }

    /// Repeats unanswered requests: an answer is lost when its member loses power, and when another member's snapshot
    /// replaced the entry.
    fn repeat_requests(&mut self) {
        for place in 0..self.last_asks.len() {
            let number = self.last_asks[place];
            if self.clients.was_in_vain(number) {
                let asked = self.clients.operation(number);
                // A change of members may have been in progress when the faults ended.
                let stays = |it: &&Member| {
                    !it.gone && (it.id == asked.member || self.is_gone(asked.member))
                };
                let member = self.members.iter().find(stays).map_or(asked.member, |it| it.id);
                let operation = Operation { at: self.now, member, ..asked };
                let again = self.clients.add(operation);
                self.last_asks[place] = again;
                self.at(self.now, Event::ClientOp(again));
            }
        }
    }

    fn is_gone(&self, id: MemberId) -> bool {
        self.members[id as usize - 1].gone
    }

    /// The reason why the cluster is not quiet yet.
    fn unsettled(&self) -> Option<String> {
        for member in self.members.iter().filter(|member| !member.gone) {
            let Some(live) = member.live.as_ref() else { return Some("one is down".to_owned()) };
            let (applied, committed) = (live.applier.machine().applied(), self.checks.committed());
            if applied < committed || !live.tasks.is_empty() {
                return Some(format!("{} has applied {applied} of {committed}", member.id));
            }
            if let Some(grant) = live.applier.machine().leases().next() {
                return Some(format!("{grant:?} lives on at {}", member.id));
            }
        }
        if let Some(number) = self.last_asks.iter().find(|it| !self.clients.was_answered(**it)) {
            let ask = self.clients.operation(*number);
            return Some(format!("request {number} waits: {ask:?}"));
        }
        if !self.clients.are_quiet() {
            return Some("clients wait".to_owned());
        }
        let watching = self.watchers.iter().filter(|watcher| watcher.watch.at < Micros::MAX);
        let behind = watching.filter(|watcher| !watcher.is_done(&self.checks)).count();
        (behind > 0).then(|| format!("{behind} watchers have not seen all"))
    }

    pub(super) fn is_healed(&self) -> bool {
        self.healed
    }
}

/// True if the sender is notified of the loss of its message.
fn reports_loss(drawn: u64) -> bool {
    drawn.is_multiple_of(2)
}

/// A short form of a message.
pub(super) fn brief(message: &Message) -> String {
    let entries = message.get_entries().len();
    let (kind, reject) = (message.get_msg_type(), if message.reject { " no" } else { "" });
    format!(
        "{kind:?} term {} index {} (term {}) commit {} entries {entries}{reject}",
        message.term, message.index, message.log_term, message.commit
    )
}
