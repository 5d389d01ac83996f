//! What the actors do around the pure rooms, without waiting: each turn takes what there is, calls, performs.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;

use super::bugs::Bug;
use super::clients::{Answer, takes_space};
use super::cluster::{Cluster, Event, Turn, brief};
use super::member::{ACKS, CONTROL, Live, Task, WORK, Write, open_machine};
use super::plan::{Ask, MS, Micros, Point, SECOND};
use super::store::Store;
use crate::consensus::wire::set_snapshot;
use crate::consensus::{Input, Message, MessageType, Output, Role};
use crate::machine::{Effect, Published, standing};
use crate::mvcc;
use crate::snapshot::bolt::Reader;
use crate::snapshot::{self, Export, Turn as Step};
use crate::store::Memory;
use crate::types::limits::APPENDS_MAILBOX;
use crate::types::{ConfChange, DiskSpace, Entry, LogIndex, MemberId, Term};
use crate::wal::Record;
use crate::watch;

/// States are compared at indexes that can be divided by this.
const DIGEST_EVERY: u64 = 32;
/// Log records looked at in a slice of compaction.
const COMPACT_SLICE: usize = 7;

fn mark_of(record: &Record) -> Option<LogIndex> {
    match record {
        Record::Mark { index, .. } => Some(*index),
        Record::Entry(_) | Record::Metadata { .. } | Record::HardState(_) => None,
    }
}

fn is_append(input: &Input) -> bool {
    matches!(input, Input::Step(message) if message.get_msg_type() == MessageType::MsgAppend)
}

fn change_of(effect: &Effect) -> Option<ConfChange> {
    match effect {
        Effect::ConfChanged(change) => Some(change.clone()),
        Effect::LeaseGranted(_) | Effect::LeaseRevoked(_) | Effect::Compacted => None,
    }
}

impl Cluster {
    pub(super) fn turn(&mut self, id: MemberId, turn: Turn) {
        match turn {
            Turn::Tick => self.tick(id),
            Turn::Leases => self.leases(id),
            Turn::Round => self.round(id),
            Turn::Written => self.written(id),
            Turn::Apply => self.apply(id),
            Turn::Synced => self.synced(id),
            Turn::Hub => self.hub_turn(id),
        }
    }

    pub(super) fn live(&mut self, id: MemberId) -> &mut Live {
        self.member(id).live.as_mut().expect("its turn comes only while it runs")
    }

    fn next_turn(&mut self, id: MemberId, after: Micros, turn: Turn) {
        let boot = self.live(id).boot;
        self.after(after, Event::Member(id, boot, turn));
    }

    /// True time that a member's clock takes for so long.
    fn true_time(&self, id: MemberId, time: Micros) -> Micros {
        time * 1000 / (950 + self.drift(id))
    }

    fn drift(&self, id: MemberId) -> u64 {
        let drift = &self.plan.knobs.drift;
        drift[(id as usize - 1) % drift.len()]
    }

    /// What a member's clock says.
    fn clock(&mut self, id: MemberId) -> Duration {
        let (now, drift) = (self.now, self.drift(id));
        self.live(id).clock(now, drift)
    }

    fn now_ms(&mut self, id: MemberId) -> u64 {
        self.clock(id).as_millis() as u64
    }

    /// Consensus has something to do.
    pub(super) fn wake(&mut self, id: MemberId) {
        let member = self.member(id);
        let delay = member.random.skewed(1, 500);
        if let Some(live) = member.live.as_mut()
            && !std::mem::replace(&mut live.round_due, true)
        {
            self.next_turn(id, delay, Turn::Round);
        }
    }

    fn tick(&mut self, id: MemberId) {
        let now = self.now;
        let (until, space) = self.member(id).full_disk;
        let space = if now < until { space } else { DiskSpace::Enough };
        let live = self.live(id);
        if live.disk != space {
            live.disk = space;
            live.lanes[CONTROL].push_back(Input::Disk(space));
        }
        live.lanes[CONTROL].push_back(Input::Tick);
        if live.role.leader.is_some() && !live.driver.is_transferring() {
            let homeless = live.homeless.drain(..).map(|payload| Input::Propose(vec![payload]));
            live.lanes[WORK].extend(homeless);
        }
        let now_ms = self.now_ms(id);
        self.tell_hub(id, watch::Input::Tick { now_ms });
        let time = self.true_time(id, self.plan.knobs.tick);
        self.next_turn(id, time, Turn::Tick);
        self.round_soon(id);
    }

    /// What came may be looked at alone, or together with what comes next.
    pub(super) fn round_soon(&mut self, id: MemberId) {
        let member = self.member(id);
        let waits = member.random.chance(250);
        if waits || member.live.as_ref().is_some_and(|live| live.round_due) {
            self.wake(id);
        } else {
            self.round(id);
        }
    }

    /// All that waits becomes one batch, and what comes out is performed.
    fn round(&mut self, id: MemberId) {
        let (now, bug) = (self.clock(id), self.bug);
        let live = self.live(id);
        let now = if bug == Some(Bug::ClockBeforeMailbox) { live.round_ended } else { now };
        live.round_due = false;
        let holds = live.holds_appends();
        let came_before = if holds { VecDeque::new() } else { std::mem::take(&mut live.held) };
        came_before.into_iter().for_each(|input| live.driver.on(now, input));
        for lane in [ACKS, CONTROL, WORK] {
            while let Some(input) = live.lanes[lane].pop_front() {
                if !(holds && is_append(&input)) {
                    live.driver.on(now, input);
                } else if live.held.len() < APPENDS_MAILBOX {
                    live.held.push_back(input);
                }
            }
        }
        if let Some((message, file)) = live.arrived.take() {
            live.prepared = Some(file);
            live.driver.on(now, Input::Step(message));
        }
        let mut out = Vec::new();
        live.driver.drain(&mut out);
        let mut beginning = None;
        for output in out {
            if self.member(id).live.is_none() {
                return;
            }
            self.perform(id, output, &mut beginning);
        }
        if self.member(id).live.is_some() {
            let now = self.clock(id);
            let live = self.live(id);
            // Not installed: raft did not want it.
            (live.prepared, live.round_ended) = (None, now);
        }
    }

    /// `beginning` is what the log begins with after a snapshot, to be written with the same batch.
    fn perform(&mut self, id: MemberId, output: Output, beginning: &mut Option<Record>) {
        match output {
            Output::Send(messages) => messages.into_iter().for_each(|it| self.sends(id, it)),
            Output::Persist { number, hard_state, entries } => {
                let hard_state = hard_state.filter(|_| self.bug != Some(Bug::VoteNotPersisted));
                let records = entries.into_iter().map(Record::Entry);
                let records = beginning.take().into_iter().chain(records);
                let records: Vec<_> = records.chain(hard_state.map(Record::HardState)).collect();
                if self.bug == Some(Bug::AckBeforePersist) {
                    self.live(id).lanes[ACKS].push_back(Input::Persisted(number));
                    self.wake(id);
                }
                let live = self.live(id);
                live.marked = records.iter().filter_map(mark_of).fold(live.marked, u64::max);
                live.to_write.push_back(Write { number: Some(number), records });
                self.write(id);
            }
            Output::Install { index, term, conf_state } => {
                self.install(id, index, term);
                *beginning = Some(Record::Mark { index, term, conf_state });
            }
            // Whoever asked may ask again.
            Output::ConfChangeDropped(_) => (),
            Output::Commit(entries) => {
                self.live(id).tasks.push_back(Task::Commit(entries));
                self.apply_soon(id);
            }
            Output::ReadAt { read, index } => {
                self.live(id).tasks.push_back(Task::ReadAt(read, index));
                self.apply_soon(id);
            }
            Output::ProposalsDropped(proposals) => self.live(id).homeless.extend(proposals),
            Output::Role(role) => self.role(id, role),
            Output::Full(members) => self.live(id).full = members,
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

    /// The state goes along with the message that announces it; it is newer than what raft asked for.
    fn send_snapshot(&mut self, id: MemberId, mut message: Message) {
        let to = message.to;
        let live = self.live(id);
        if !live.transferring.insert(to) {
            live.lanes[CONTROL].push_back(Input::SnapshotSent(to, false));
            return self.wake(id);
        }
        let view = live.read.view.clone();
        let (index, term, conf_state) = standing(&view).expect("memory reads");
        set_snapshot(&mut message, index, term, &conf_state);
        let (boot, mut file) = (live.boot, Vec::new());
        let mut export = Export::new(view);
        loop {
            match export.turn(1 << 20).expect("memory reads") {
                Step::Working => (),
                Step::Chunk(chunk) => file.extend_from_slice(&chunk),
                Step::Done => break,
            }
        }
        let time = self.member(id).random.skewed(MS, 2 * SECOND);
        self.outcome.snapshots += 1;
        self.after(time, Event::Snapshot(id, boot, Box::new(message), file.into()));
    }

    /// It arrives, unless something is in the way at the end of its way.
    pub(super) fn snapshot(&mut self, id: MemberId, boot: u64, message: Box<Message>, file: Bytes) {
        let (to, now) = (message.to, self.now);
        let cut = self.is_cut(id, to) || self.is_cut(to, id);
        let receiver = self.member(to);
        let is_there = !cut && receiver.paused_until <= now;
        let arrives = match receiver.live.as_mut().filter(|_| is_there) {
            Some(live) => {
                live.arrived.get_or_insert((message, file));
                self.wake(to);
                true
            }
            None => false,
        };
        self.say(|| format!("{id} -> {to}: a snapshot, which arrives: {arrives}"));
        if let Some(live) = self.member(id).live.as_mut().filter(|live| live.boot == boot) {
            live.transferring.remove(&to);
            live.lanes[CONTROL].push_back(Input::SnapshotSent(to, arrives));
            self.wake(id);
        }
    }

    /// Goes on from another member's state, when everything before is applied.
    fn install(&mut self, id: MemberId, index: LogIndex, term: Term) {
        while !self.live(id).tasks.is_empty() {
            self.apply_next(id);
            if self.member(id).live.is_none() {
                return;
            }
        }
        let file = self.live(id).prepared.take().expect("raft takes a snapshot that came");
        let mut memory = Memory::default();
        let reader = Reader::open(file).expect("a snapshot is a file");
        snapshot::install(&reader, &mut memory).expect("memory takes it");
        let store = Store::holding(memory);
        let mut machine = open_machine(&store).expect("a snapshot is a state");
        assert_eq!(machine.position(), (index, term), "a snapshot holds what was announced");
        let applied = self.live(id).machine.applied();
        assert!(index > applied, "a snapshot of {index} takes member {id} back from {applied}");
        let read = machine.commit().expect("memory takes it").read;
        let member = self.member(id);
        (member.store, member.snapshot) = (store, Some((index, term)));
        self.say(|| format!("{id} holds the snapshot of {index}"));
        if self.reaches(id, Point::Installed) {
            return;
        }
        let now_ms = self.now_ms(id);
        let live = self.live(id);
        (live.mark, live.compacting, live.missed) = (index, true, true);
        assert!(read.revision >= live.read.revision, "the revision goes back");
        (live.machine, live.read) = (machine, read);
        live.expiry.by_expiry().into_iter().for_each(|lease| live.expiry.revoked(lease));
        live.machine.leases().for_each(|grant| live.expiry.granted(grant, now_ms));
        self.hub_soon(id);
        self.apply_soon(id);
        self.release_reads(id);
    }

    fn role(&mut self, id: MemberId, role: Role) {
        self.say(|| format!("{id}: {role:?}"));
        self.note(role.term << 8 | role.leader.unwrap_or_default());
        if let Some(leader) = if role.leads { Some(id) } else { role.leader } {
            self.checks.leader(role.term, leader);
        }
        let bug = self.bug;
        let now_ms = self.now_ms(id);
        let live = self.live(id);
        live.role = role;
        let leads = if role.leads { role.term } else { 0 };
        if leads != live.leads && (leads > 0 || bug != Some(Bug::DeposedRevoke)) {
            // Who led in between may have renewed what this member does not know of.
            live.expiry.demote(now_ms);
            if leads > 0 {
                live.expiry.promote(now_ms);
            }
            live.leads = leads;
        }
        if role.leader.is_some() && !live.homeless.is_empty() {
            let homeless = std::mem::take(&mut live.homeless);
            live.lanes[WORK].push_front(Input::Propose(homeless));
            self.wake(id);
        }
        if role.leads {
            self.reaches(id, Point::Elected);
        }
    }

    /// Gives the disk something to do, if it has nothing.
    fn write(&mut self, id: MemberId) {
        let (now, disk_max) = (self.now, self.plan.knobs.disk_max);
        let member = self.member(id);
        let Some(live) = member.live.as_mut() else { return };
        if live.writing.is_some() || live.to_write.is_empty() {
            return;
        }
        let mut joined = Write { number: None, records: Vec::new() };
        for write in live.to_write.drain(..) {
            joined.number = write.number.or(joined.number);
            joined.records.extend(write.records);
        }
        member.disk.append(&mut live.log, &joined.records);
        live.writing = Some(joined);
        let time = member.disk_time(now, disk_max);
        self.next_turn(id, time, Turn::Written);
        self.reaches(id, Point::Writing);
    }

    fn written(&mut self, id: MemberId) {
        let member = self.member(id);
        let Some(live) = member.live.as_mut() else { return };
        let Some(write) = live.writing.take() else { return };
        member.disk.finish(&mut live.log);
        let new = member.note_durable(&write.records);
        new.into_iter().for_each(|(entry, before)| self.checks.appended(id, entry, before));
        self.say(|| format!("{id} wrote {:?}", write.number));
        if self.reaches(id, Point::Written) {
            return;
        }
        if let Some(number) = write.number {
            self.live(id).lanes[ACKS].push_back(Input::Persisted(number));
            self.wake(id);
        }
        self.write(id);
    }

    fn apply_soon(&mut self, id: MemberId) {
        let apply_max = self.plan.knobs.apply_max;
        let member = self.member(id);
        let time = member.random.skewed(20, apply_max);
        let Some(live) = member.live.as_mut() else { return };
        if !std::mem::replace(&mut live.apply_due, true) {
            self.next_turn(id, time, Turn::Apply);
        }
    }

    fn apply(&mut self, id: MemberId) {
        self.live(id).apply_due = false;
        if self.apply_next(id) && self.member(id).live.is_some() {
            self.apply_soon(id);
        }
    }

    /// Does what is next. `false` if there is nothing.
    fn apply_next(&mut self, id: MemberId) -> bool {
        let live = self.live(id);
        match live.tasks.pop_front() {
            Some(Task::Commit(entries)) => self.apply_some(id, entries),
            Some(Task::ReadAt(read, index)) => {
                live.reads.push((index, read));
                self.release_reads(id);
            }
            None if live.compacting => {
                live.compacting = !live.machine.compact_step(COMPACT_SLICE).expect("memory reads");
                self.publish(id);
                self.reaches(id, Point::Compacting);
            }
            None => return false,
        }
        true
    }

    /// Applies the first of these entries as one batch.
    fn apply_some(&mut self, id: MemberId, mut entries: Vec<Entry>) {
        let most = self.member(id).random.between(1, 30) as usize;
        let first = entries.first().map_or(0, |entry| entry.index);
        let to_digest = (DIGEST_EVERY - first % DIGEST_EVERY) as usize + 1;
        let rest = entries.split_off(entries.len().min(most).min(to_digest));
        if !rest.is_empty() {
            self.live(id).tasks.push_front(Task::Commit(rest));
        }
        let (mut effects, mut answers) = (Vec::new(), Vec::new());
        for entry in &entries {
            if entry.index > self.checks.committed() {
                let copies = self.members.iter().filter(|member| member.holds(entry)).count();
                self.checks.copies(entry.index, copies);
            }
            self.checks.commit(id, entry);
            let live = self.live(id);
            let before = live.machine.applied();
            let applied = live.machine.apply(entry).expect("an entry makes sense");
            if entry.index <= before {
                continue;
            }
            let waiting = live.waiting.remove(&applied.request);
            let is_first = self.checks.applied(id, entry.index, &applied.reply);
            if is_first {
                applied.effects.iter().for_each(|effect| self.first_effect(id, effect));
            }
            effects.extend(applied.effects);
            answers.extend(waiting.map(|number| (number, Answer::Applied(applied.reply))));
        }
        let changes: Vec<_> = effects.iter().filter_map(change_of).collect();
        self.publish(id);
        if !changes.is_empty() {
            self.member(id).store.sync();
        }
        let last = self.live(id).machine.applied();
        self.say(|| format!("{id} applied up to {last}"));
        if self.reaches(id, Point::Applied) {
            return;
        }
        effects.into_iter().for_each(|effect| self.effect(id, &effect));
        answers.into_iter().for_each(|(number, answer)| self.answer(id, number, answer));
        self.release_reads(id);
        let is_removed = self.live(id).machine.cluster().is_removed(id);
        let acks = &mut self.live(id).lanes[ACKS];
        acks.extend(changes.into_iter().map(Input::ConfChange));
        acks.push_back(Input::Applied(last));
        self.wake(id);
        if last.is_multiple_of(DIGEST_EVERY) {
            let digest = self.live(id).digest();
            self.checks.state(id, last, digest);
        }
        if is_removed {
            self.leave(id);
        } else {
            self.cut_log(id);
        }
    }

    /// Commits what was applied and shows it to everybody.
    fn publish(&mut self, id: MemberId) {
        let live = self.live(id);
        let Published { read, events } = live.machine.commit().expect("memory takes it");
        assert!(read.revision >= live.read.revision, "the revision goes back");
        let (revision, compacted) = (read.revision, read.compacted);
        live.read = read;
        self.checks.compacted = self.checks.compacted.max(compacted);
        self.checks.events(id, &events);
        if events.is_empty() {
            return;
        }
        let (mailbox, bug) = (self.plan.knobs.hub_mailbox, self.bug);
        let live = self.live(id);
        if live.batches.len() < mailbox {
            live.batches.push_back((events, revision));
        } else if bug == Some(Bug::WatchBatchCut) && events.len() > 1 {
            live.batches.push_back((events[..events.len() - 1].into(), revision));
        } else {
            live.missed = true;
        }
        self.hub_soon(id);
    }

    /// What follows from an entry that nobody applied before.
    fn first_effect(&mut self, id: MemberId, effect: &Effect) {
        match effect {
            Effect::LeaseGranted(grant) => self.checks.lease_granted(grant.id),
            Effect::LeaseRevoked(id) => self.checks.lease_ended(*id, self.now),
            Effect::ConfChanged(change) => {
                let state = self.live(id).machine.conf_state().clone();
                self.say(|| format!("{change:?}: now {state:?}"));
                self.checks.members_changed(state);
            }
            Effect::Compacted => (),
        }
    }

    fn effect(&mut self, id: MemberId, effect: &Effect) {
        let now_ms = self.now_ms(id);
        let live = self.live(id);
        match effect {
            Effect::LeaseGranted(grant) => live.expiry.granted(*grant, now_ms),
            Effect::LeaseRevoked(id) => live.expiry.revoked(*id),
            Effect::Compacted => live.compacting = true,
            Effect::ConfChanged(_) => (),
        }
    }

    /// Syncs the store beside the work, to let the log below go.
    fn cut_log(&mut self, id: MemberId) {
        let (now, count, bug) = (self.now, self.plan.knobs.snapshot_count, self.bug);
        let disk_max = self.plan.knobs.disk_max;
        let live = self.live(id);
        let (index, term) = live.machine.position();
        if index < live.mark + count || live.cutting.is_some() {
            return;
        }
        live.mark = index;
        let conf_state = live.machine.conf_state().clone();
        let member = self.member(id);
        if bug != Some(Bug::CutBeforeSync) {
            member.store.begin_sync();
        }
        let time = 5 * member.disk_time(now, disk_max);
        self.live(id).cutting = Some(Record::Mark { index, term, conf_state });
        self.next_turn(id, time, Turn::Synced);
        self.reaches(id, Point::Syncing);
    }

    fn synced(&mut self, id: MemberId) {
        self.member(id).store.finish_sync();
        if self.reaches(id, Point::Synced) {
            return;
        }
        let live = self.live(id);
        let Some(mark) = live.cutting.take() else { return };
        let index = mark_of(&mark).unwrap_or_default();
        if index < live.marked {
            // A snapshot was faster.
            return;
        }
        live.marked = index;
        live.to_write.push_back(Write { number: None, records: vec![mark] });
        self.say(|| format!("{id} cuts its log at {index}"));
        self.write(id);
    }

    /// Looks for leases whose time is up.
    fn leases(&mut self, id: MemberId) {
        let now_ms = self.now_ms(id);
        let bug = self.bug;
        let live = self.live(id);
        let due = live.expiry.due(now_ms, 500);
        if !due.is_empty() {
            let revokes = due.iter().map(|grant| grant.expire().to_payload(0));
            let term = live.leads;
            let input = match bug {
                // Who does not lead passes proposals on.
                Some(Bug::DeposedRevoke) => Input::Propose(revokes.collect()),
                _ => Input::ProposeAsLeader(term, revokes.collect()),
            };
            live.lanes[WORK].push_back(input);
            self.say(|| format!("{id} finds leases due: {due:?}"));
            self.wake(id);
        }
        let time = self.true_time(id, SECOND / 2);
        self.next_turn(id, time, Turn::Leases);
    }

    /// A client's request arrives at its member.
    pub(super) fn ask(&mut self, number: usize) {
        let operation = self.clients.operation(number);
        let (id, bug, now) = (operation.member, self.bug, self.now);
        if self.clients.ask(number, now) {
            self.say(|| format!("request {number} to {id}: {:?}", operation.ask));
            self.after(operation.timeout, Event::Timeout(number));
        }
        let member = self.member(id);
        if member.paused_until > now {
            let until = member.paused_until;
            return self.at(until, Event::Ask(number));
        }
        let Some(live) = member.live.as_mut() else {
            return self.answer(id, number, Answer::Failed);
        };
        if live.lacks_room() && takes_space(operation.ask) {
            return self.answer(id, number, Answer::Failed);
        }
        live.asked += 1;
        let request = match bug {
            Some(Bug::RepliesToStrangers) => id << 32 | live.asked,
            _ => number as u64 + 1,
        };
        if let Some(payload) = self.clients.payload(number, request) {
            let live = self.live(id);
            live.waiting.insert(request, number);
            live.lanes[WORK].push_back(Input::Propose(vec![payload]));
            return self.wake(id);
        }
        let live = self.live(id);
        let renews = matches!(operation.ask, Ask::KeepAlive { .. });
        let here = matches!(operation.ask, Ask::GetSerializable { .. });
        if renews && live.leads == 0 {
            self.pass_on(id, number);
        } else if here {
            self.read(id, number);
        } else if bug == Some(Bug::StaleReadIndex) {
            let index = live.driver.progress().committed;
            live.tasks.push_back(Task::ReadAt(number as u64, index));
            self.apply_soon(id);
        } else {
            live.lanes[WORK].push_back(Input::ReadIndex(number as u64));
            self.wake(id);
        }
    }

    /// Who does not lead passes a renewal on to who does, as far as it knows.
    fn pass_on(&mut self, id: MemberId, number: usize) {
        let leader = self.live(id).role.leader.filter(|leader| *leader != id);
        let Some(leader) = leader else { return self.answer(id, number, Answer::Failed) };
        self.clients.move_to(number, leader);
        let time = self.member(id).random.skewed(100, 5 * MS);
        self.after(time, Event::Ask(number));
    }

    fn release_reads(&mut self, id: MemberId) {
        let bug = self.bug;
        let live = self.live(id);
        let applied = live.machine.applied();
        let is_ready = |index: u64| index <= applied || bug == Some(Bug::ReadBeforeApplied);
        let (ready, waiting) = live.reads.drain(..).partition(|(index, _)| is_ready(*index));
        live.reads = waiting;
        let ready: Vec<_> = ready;
        ready.into_iter().for_each(|(_, read)| self.read(id, read as usize));
    }

    /// Answers from what is published here and now.
    fn read(&mut self, id: MemberId, number: usize) {
        let now_ms = self.now_ms(id);
        let ask = self.clients.operation(number).ask;
        let answer = if let Ask::KeepAlive { lease } = ask {
            let live = self.live(id);
            let renewed = if live.leads > 0 { live.expiry.renew(lease, now_ms) } else { None };
            renewed.map_or(Answer::Failed, Answer::Renewed)
        } else {
            let range = self.clients.range(number);
            let read = &self.live(id).read;
            let response = read.range(&range).expect("the newest revision can be read");
            Answer::Read(response, read.revision)
        };
        self.answer(id, number, answer);
    }

    fn answer(&mut self, id: MemberId, number: usize, answer: Answer) {
        let time = self.member(id).random.skewed(50, 5 * MS);
        self.after(time, Event::Answer(number, Box::new(answer)));
    }

    fn hub_soon(&mut self, id: MemberId) {
        let member = self.member(id);
        let time = member.random.skewed(10, 20 * MS);
        let Some(live) = member.live.as_mut() else { return };
        if !std::mem::replace(&mut live.hub_due, true) {
            self.next_turn(id, time, Turn::Hub);
        }
    }

    /// The hub takes a batch, or what it wanted to read, or hears that it missed something.
    fn hub_turn(&mut self, id: MemberId) {
        let history_first = self.member(id).random.chance(500);
        let live = self.live(id);
        live.hub_due = false;
        let published = live.published();
        let batch =
            if history_first && live.history.is_some() { None } else { live.batches.pop_front() };
        let input = if let Some((events, revision)) = batch {
            watch::Input::Events { events, revision }
        } else if let Some((from, revisions_max, bytes_max)) = live.history.take() {
            let history = live.read.history(from, revisions_max, bytes_max);
            let history = history.unwrap_or(mvcc::History { events: Vec::new(), next: from });
            let mvcc::History { events, next } = history;
            watch::Input::History(watch::History { from, events, next, published })
        } else if std::mem::take(&mut live.missed) {
            watch::Input::Resync(published)
        } else {
            return;
        };
        self.tell_hub(id, input);
        self.hub_soon(id);
    }

    pub(super) fn tell_hub(&mut self, id: MemberId, input: watch::Input) {
        let mut out = Vec::new();
        self.live(id).hub.on(input, &mut out);
        for output in out {
            match output {
                watch::Output::Send { stream, response, cost } => {
                    let Some(stream) = self.live(id).streams.get_mut(&stream) else { continue };
                    stream.responses.push_back((response, cost));
                    let client = stream.client;
                    self.take_soon(client);
                }
                watch::Output::ReadHistory { from, revisions_max, bytes_max } => {
                    self.live(id).history = Some((from, revisions_max, bytes_max));
                    self.hub_soon(id);
                }
            }
        }
    }

    fn take_soon(&mut self, client: usize) {
        let slowest = if self.is_healed() { 2 * MS } else { self.watchers[client].watch.slowness };
        let time = self.random.skewed(100, slowest);
        if !std::mem::replace(&mut self.watchers[client].taking, true) {
            self.after(time, Event::Take(client));
        }
    }

    /// A client begins to watch somewhere, or goes on to.
    pub(super) fn watch(&mut self, client: usize) {
        if self.watchers[client].at.is_some() {
            return;
        }
        let id = self.random.between(1, self.members.len() as u64);
        let (bug, now) = (self.bug, self.now);
        if self.member(id).live.is_none() || self.member(id).paused_until > now {
            return self.after(200 * MS, Event::Watch(client));
        }
        let request = self.watchers[client].create(bug, &self.checks);
        let live = self.live(id);
        let stream = (0..).find(|number| !live.streams.contains_key(number)).unwrap_or_default();
        live.streams.insert(stream, super::member::Stream { client, ..Default::default() });
        let (boot, published) = (live.boot, live.published());
        self.watchers[client].at = Some((id, boot, stream));
        self.say(|| format!("client {client} watches at {id} from {}", request.start_revision));
        self.tell_hub(id, watch::Input::Open { stream, progress_interval_ms: 700 });
        self.tell_hub(id, watch::Input::Create { stream, request, published });
    }

    /// A client reads one answer.
    pub(super) fn take(&mut self, client: usize) {
        self.watchers[client].taking = false;
        let Some((id, boot, number)) = self.watchers[client].at else { return };
        let (now, healed) = (self.now, self.is_healed());
        let member = self.member(id);
        if member.paused_until > now {
            return self.take_soon(client);
        }
        let Some(live) = member.live.as_mut().filter(|live| live.boot == boot) else { return };
        let Some(stream) = live.streams.get_mut(&number) else { return };
        let Some((response, bytes)) = stream.responses.pop_front() else { return };
        let more = !stream.responses.is_empty();
        let published = live.published();
        self.tell_hub(id, watch::Input::Sent { stream: number, bytes });
        let next = self.watchers[client].take(&response, &self.checks);
        let leaves = !healed && self.random.chance(20);
        if leaves || next == super::watchers::Next::Again {
            self.tell_hub(id, watch::Input::Close(number));
            self.live(id).streams.remove(&number);
            self.watchers[client].at = None;
            return self.after(10 * MS, Event::Watch(client));
        }
        if self.random.chance(100) {
            self.tell_hub(id, watch::Input::Progress { stream: number, published });
        }
        if more {
            self.take_soon(client);
        }
    }
}
