//! Hosts the replica as the actors do, without waiting: each turn takes what there is, calls, performs.

use std::task::{Poll, Waker};
use std::time::Duration;

use bytes::Bytes;

use super::bugs::Bug;
use super::clients::{Answer, takes_space};
use super::cluster::{Cluster, Event, MemberEvent, brief};
use super::member::{EXECUTORS, Live, Task, Write, open_machine};
use super::plan::{ClientOp, CrashPoint, MS, Micros, SECOND};
use super::store::Store;
use crate::consensus::wire::set_snapshot;
use crate::consensus::{Message, MessageType, Role};
use crate::machine::{Effect, Published, Reply, applied_state};
use crate::mvcc;
use crate::replica::{
    ApplierOutput, Delivery, Input, Lane, LeaseChange, LeaseKeeper, LogStart, Output, Progress,
};
use crate::snapshot::bolt::Reader;
use crate::snapshot::{self, Export, ExportStep};
use crate::store::{Memory, MemoryView};
use crate::types::{DiskSpace, Entry, LogIndex, MemberId, Refusal, Term};
use crate::wal::Record;
use crate::watch::{self, HistoryRead};

/// The time that a request may wait in a member.
const REQUEST_TIMEOUT_MS: u64 = 7000;
/// States are compared at indexes that can be divided by this.
const DIGEST_EVERY: u64 = 32;
fn log_start_of(record: &Record) -> Option<LogIndex> {
    match record {
        Record::LogStart { index, .. } => Some(*index),
        Record::Entry(_) | Record::Metadata { .. } | Record::HardState(_) => None,
    }
}

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

    /// True time that a member's clock takes for so long.
    fn true_time(&self, id: MemberId, time: Micros) -> Micros {
        time * 1000 / (950 + self.drift(id))
    }

    fn drift(&self, id: MemberId) -> u64 {
        let drift = &self.plan.parameters.drift;
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

    /// Takes the inputs that wait, and performs the outputs.
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

    /// Each executor hands in a bundle of requests.
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

    /// The state goes along with the message that announces it; it is newer than what raft asked for.
    fn send_snapshot(&mut self, id: MemberId, mut message: Message) {
        let to = message.to;
        let live = self.live(id);
        if !live.transferring.insert(to) {
            live.mailbox.push(Lane::Control, Input::SnapshotSent(to, false));
            return self.wake(id);
        }
        let view = live.read.view.clone();
        let (index, term, conf_state) = applied_state(&view).expect("memory reads");
        set_snapshot(&mut message, index, term, &conf_state);
        let (boot, mut file) = (live.boot, Vec::new());
        let mut export = Export::new(view);
        loop {
            match export.step(1 << 20).expect("memory reads") {
                ExportStep::Working => (),
                ExportStep::Chunk(chunk) => file.extend_from_slice(&chunk),
                ExportStep::Done => break,
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
                live.mailbox.push(Lane::Control, Input::Snapshot(message, file));
                self.wake(to);
                true
            }
            None => false,
        };
        self.say(|| format!("{id} -> {to}: a snapshot, which arrives: {arrives}"));
        if let Some(live) = self.member(id).live.as_mut().filter(|live| live.boot == boot) {
            live.transferring.remove(&to);
            live.mailbox.push(Lane::Control, Input::SnapshotSent(to, arrives));
            self.wake(id);
        }
    }

    /// Goes on from another member's state, when everything before is applied.
    fn install(&mut self, id: MemberId, file: Bytes, index: LogIndex, term: Term) {
        while !self.live(id).tasks.is_empty() {
            self.apply_next(id);
            if self.member(id).live.is_none() {
                return;
            }
        }
        let mut memory = Memory::default();
        let reader = Reader::open(file).expect("a snapshot is a file");
        snapshot::install(&reader, &mut memory).expect("memory takes it");
        let store = Store::holding(memory);
        let machine = open_machine(&store).expect("a snapshot is a state");
        assert_eq!(machine.position(), (index, term), "a snapshot holds what was announced");
        let mut out = Vec::new();
        self.live(id).applier.install(machine, &mut out).expect("a newer state");
        let member = self.member(id);
        (member.store, member.snapshot) = (store, Some((index, term)));
        self.say(|| format!("{id} holds the snapshot of {index}"));
        if self.reaches(id, CrashPoint::Installed) {
            return;
        }
        self.perform_applied(id, out);
        self.apply_soon(id);
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

    /// The lease keeper, told who leads as the actor tells it before each message.
    fn keeper(&mut self, id: MemberId) -> (&mut LeaseKeeper, u64) {
        let now_ms = self.now_ms(id);
        let live = self.live(id);
        live.keeper.set_leadership(live.leads, now_ms);
        (&mut live.keeper, now_ms)
    }

    /// Gives the disk something to do, if it has nothing.
    fn write(&mut self, id: MemberId) {
        let (now, disk_max) = (self.now, self.plan.parameters.disk_max);
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
        self.schedule(id, time, MemberEvent::Written);
        self.reaches(id, CrashPoint::Writing);
    }

    fn written(&mut self, id: MemberId) {
        let member = self.member(id);
        let Some(live) = member.live.as_mut() else { return };
        let Some(write) = live.writing.take() else { return };
        member.disk.finish(&mut live.log);
        let new = member.note_durable(&write.records);
        new.into_iter().for_each(|(entry, before)| self.checks.appended(id, entry, before));
        self.say(|| format!("{id} wrote {:?}", write.number));
        if self.reaches(id, CrashPoint::Written) {
            return;
        }
        if let Some(number) = write.number {
            self.live(id).mailbox.push(Lane::Acks, Input::Persisted(number));
            self.wake(id);
        }
        self.write(id);
    }

    fn apply_soon(&mut self, id: MemberId) {
        let apply_max = self.plan.parameters.apply_max;
        let member = self.member(id);
        let time = member.random.skewed(20, apply_max);
        let Some(live) = member.live.as_mut() else { return };
        if !std::mem::replace(&mut live.apply_due, true) {
            self.schedule(id, time, MemberEvent::Apply);
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
        let (bug, now) = (self.bug, self.clock(id));
        let live = self.live(id);
        let mut out = Vec::new();
        let steps = matches!(live.tasks.front(), Some(Task::Step(_)));
        if !steps && live.applier.is_compaction_due(now, live.tasks.is_empty()) {
            live.applier.compact(now, &mut out).expect("memory takes it");
            self.perform_applied(id, out);
            self.reaches(id, CrashPoint::Compacting);
            return true;
        }
        match live.tasks.pop_front() {
            Some(Task::Commit(entries)) => self.apply_some(id, entries),
            Some(Task::Step(entry)) => self.apply_step(id, entry),
            Some(Task::ReadAt { executor, batch, index }) => {
                let index = if bug == Some(Bug::ReadBeforeApplied) { 0 } else { index };
                live.applier.read_at(executor, batch, index, &mut out);
                self.perform_applied(id, out);
            }
            None => {
                // A pause of compaction ends without another event.
                if live.applier.is_compacting() {
                    self.after_pause(id);
                }
                return false;
            }
        }
        true
    }

    fn after_pause(&mut self, id: MemberId) {
        let now = self.clock(id);
        let live = self.live(id);
        let pause = live.applier.compaction_due_in(now).unwrap_or_default();
        let pause = self.true_time(id, pause.as_micros() as Micros + 1);
        if !std::mem::replace(&mut self.live(id).apply_due, true) {
            self.schedule(id, pause, MemberEvent::Apply);
        }
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
        let mut entries = entries.into_iter();
        while let Some(entry) = entries.next() {
            if entry.index > self.checks.committed() {
                let copies = self.members.iter().filter(|member| member.holds(&entry)).count();
                self.checks.copies(entry.index, copies);
            }
            self.checks.commit(id, &entry);
            let is_new = entry.index > self.live(id).applier.machine().applied();
            let mut seen = None;
            let progress = self.live(id).applier.begin(&entry, |applied| {
                seen = Some((applied.reply.clone(), applied.effects.clone()));
            });
            if progress.expect("an entry makes sense") == Progress::Large {
                // The entries before it are answered first, those behind it wait.
                let tasks = &mut self.live(id).tasks;
                tasks.push_front(Task::Commit(entries.collect()));
                tasks.push_front(Task::Step(entry));
                break;
            }
            self.saw(id, entry.index, seen.filter(|_| is_new));
        }
        self.commit_batch(id);
    }

    /// One step of a large entry, and all reads that wait.
    fn apply_step(&mut self, id: MemberId, entry: Entry) {
        let records = self.member(id).random.between(1, 4) as usize;
        let mut seen = None;
        let live = self.live(id);
        let mut out = Vec::new();
        live.tasks.retain(|task| {
            if let Task::ReadAt { executor, batch, index } = *task {
                live.applier.read_at(executor, batch, index, &mut out);
            }
            !matches!(task, Task::ReadAt { .. })
        });
        let progress = live.applier.step(records, |applied| {
            seen = Some((applied.reply.clone(), applied.effects.clone()));
        });
        let progress = progress.expect("memory takes it");
        self.perform_applied(id, out);
        if progress == Progress::Large {
            self.live(id).tasks.push_front(Task::Step(entry));
            self.reaches(id, CrashPoint::Stepping);
            return;
        }
        self.saw(id, entry.index, seen);
        self.commit_batch(id);
    }

    /// Checks what came of an entry that this member applied.
    fn saw(
        &mut self,
        id: MemberId,
        index: LogIndex,
        seen: Option<(Result<Reply, Refusal>, Vec<Effect>)>,
    ) {
        if let Some((reply, effects)) = seen
            && self.checks.applied(id, index, &reply)
        {
            effects.iter().for_each(|effect| self.first_effect(id, effect));
        }
    }

    fn commit_batch(&mut self, id: MemberId) {
        let (now, mut out) = (self.clock(id), Vec::new());
        self.live(id).applier.commit(now, false, &mut out).expect("memory takes it");
        let last = self.live(id).applier.machine().applied();
        self.say(|| format!("{id} applied up to {last}"));
        self.perform_applied(id, out);
        let Some(live) = self.member(id).live.as_ref() else { return };
        let is_removed = live.applier.machine().cluster().is_removed(id);
        if last.is_multiple_of(DIGEST_EVERY) {
            let digest = live.digest();
            self.checks.state(id, last, digest);
        }
        if is_removed {
            self.leave(id);
        }
    }

    /// Performs the applier's outputs in order, until the member loses its power.
    fn perform_applied(&mut self, id: MemberId, out: Vec<ApplierOutput<MemoryView>>) {
        for output in out {
            match output {
                ApplierOutput::Persist => self.member(id).store.sync(),
                ApplierOutput::Publish(published) => {
                    self.publish(id, published);
                    if self.reaches(id, CrashPoint::Applied) {
                        return;
                    }
                }
                ApplierOutput::Lease(change) => {
                    let (keeper, now_ms) = self.keeper(id);
                    match change {
                        LeaseChange::Granted(grant) => keeper.granted(grant, now_ms),
                        LeaseChange::Revoked(lease) => keeper.revoked(lease),
                    }
                }
                ApplierOutput::Replaced(leases) => {
                    let (keeper, now_ms) = self.keeper(id);
                    keeper.replaced(leases, now_ms);
                    self.live(id).missed = true;
                    self.hub_soon(id);
                }
                ApplierOutput::Applied { index, conf_changes } => {
                    let live = self.live(id);
                    live.mailbox.push(Lane::Acks, Input::Applied { index, conf_changes });
                    self.wake(id);
                }
                ApplierOutput::Deliver(executor, delivery) => {
                    self.deliver_to(id, executor, delivery)
                }
                ApplierOutput::TruncateLog(start) => {
                    if self.truncate_log(id, start) {
                        return;
                    }
                }
                ApplierOutput::MembersChanged
                | ApplierOutput::CompactionBegun
                | ApplierOutput::Compacted => (),
            }
        }
    }

    /// Answers for the clients of one executor.
    fn deliver_to(&mut self, id: MemberId, executor: usize, delivery: Delivery) {
        let requests: Vec<_> = delivery.replies.iter().map(|(request, _)| *request).collect();
        let batches = delivery.reads.clone();
        self.live(id).pending[executor].deliver(delivery);
        requests.into_iter().for_each(|request| self.take_reply(id, executor, request));
        batches.into_iter().for_each(|batch| self.take_reads(id, executor, batch));
    }

    /// A client takes the answer to its request, if there is one.
    fn take_reply(&mut self, id: MemberId, executor: usize, request: u64) {
        let live = self.live(id);
        let Some(number) = live.waiting.get(&request).copied() else { return };
        let pending = &mut live.pending[executor];
        let Poll::Ready(reply) = pending.poll_reply(request, Waker::noop()) else { return };
        pending.release(request);
        live.waiting.remove(&request);
        match reply {
            // The request may still be applied.
            Err(Refusal::Timeout) => self.clients.give_up(number),
            reply => self.answer(id, number, Answer::Applied(reply)),
        }
    }

    /// Clients read, if their batch has its read index, or hear that there is none.
    fn take_reads(&mut self, id: MemberId, executor: usize, batch: u64) {
        let live = self.live(id);
        let pending = &mut live.pending[executor];
        let Poll::Ready(ready) = pending.poll_read(batch, Waker::noop()) else { return };
        for number in live.reading.remove(&(executor, batch)).unwrap_or_default() {
            self.live(id).pending[executor].leave_read(batch);
            match ready {
                Ok(()) => self.read(id, number),
                Err(_) => self.answer(id, number, Answer::Failed),
            }
        }
    }

    /// Answers clients that have waited too long.
    fn sweep(&mut self, id: MemberId) {
        let (now_ms, timeout_ms) = (self.now_ms(id), REQUEST_TIMEOUT_MS);
        let live = self.live(id);
        for pending in &mut live.pending {
            pending.sweep(now_ms, timeout_ms, |_| Refusal::Timeout);
        }
        let requests: Vec<_> = live.waiting.keys().copied().collect();
        let batches: Vec<_> = live.reading.keys().copied().collect();
        for request in requests {
            self.take_reply(id, (request >> 24) as usize & 0xff, request);
        }
        batches.into_iter().for_each(|(executor, batch)| self.take_reads(id, executor, batch));
    }

    /// Shows the new state to everybody.
    fn publish(&mut self, id: MemberId, published: Published<MemoryView>) {
        let Published { read, events, left_out_events, changes: _ } = published;
        assert!(!left_out_events, "no batch here is too large for its events");
        let live = self.live(id);
        assert!(read.revision >= live.read.revision, "the revision goes back");
        let (revision, compacted) = (read.revision, read.compacted);
        live.read = read;
        self.checks.compacted = self.checks.compacted.max(compacted);
        self.checks.events(id, &events);
        if events.is_empty() {
            return;
        }
        let (mailbox, bug) = (self.plan.parameters.hub_mailbox, self.bug);
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
                let state = self.live(id).applier.machine().conf_state().clone();
                self.say(|| format!("{change:?}: now {state:?}"));
                self.checks.members_changed(state);
            }
            Effect::Compacted => (),
        }
    }

    /// Syncs the store beside the work, to let the log below go. `true` if the member loses its power.
    fn truncate_log(&mut self, id: MemberId, start: LogStart) -> bool {
        let (now, bug) = (self.now, self.bug);
        let disk_max = self.plan.parameters.disk_max;
        let member = self.member(id);
        if bug != Some(Bug::CutBeforeSync) {
            member.store.begin_sync();
        }
        let time = 5 * member.disk_time(now, disk_max);
        self.live(id).truncating = Some(start);
        self.schedule(id, time, MemberEvent::Synced);
        self.reaches(id, CrashPoint::Syncing)
    }

    fn synced(&mut self, id: MemberId) {
        self.member(id).store.finish_sync();
        if self.reaches(id, CrashPoint::Synced) {
            return;
        }
        let live = self.live(id);
        live.applier.truncated();
        let Some(start) = live.truncating.take() else { return };
        let LogStart { index, term, conf_state } = start;
        if index < live.log_start_index {
            // A snapshot was faster.
            return;
        }
        live.log_start_index = index;
        let log_start = Record::LogStart { index, term, conf_state };
        live.to_write.push_back(Write { number: None, records: vec![log_start] });
        self.say(|| format!("{id} truncates its log at {index}"));
        self.write(id);
    }

    /// Looks for leases whose time is up, and for requests that waited too long.
    fn leases(&mut self, id: MemberId) {
        let bug = self.bug;
        let (keeper, now_ms) = self.keeper(id);
        if let Some((term, proposals)) = keeper.due(now_ms) {
            self.say(|| format!("{id} finds {} leases due", proposals.len()));
            let input = match bug {
                // A member that does not lead passes proposals on.
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

    /// A client's request arrives at its member.
    pub(super) fn ask(&mut self, number: usize) {
        let operation = self.clients.operation(number);
        let (id, now) = (operation.member, self.now);
        if self.clients.ask(number, now) {
            self.say(|| format!("request {number} to {id}: {:?}", operation.ask));
            self.after(operation.timeout, Event::Timeout(number));
        }
        let member = self.member(id);
        if member.paused_until > now {
            let until = member.paused_until;
            return self.at(until, Event::ClientOp(number));
        }
        let Some(live) = member.live.as_mut() else {
            return self.answer(id, number, Answer::Failed);
        };
        if live.replica.lacks_space() && takes_space(operation.ask) {
            return self.answer(id, number, Answer::Failed);
        }
        let renews = matches!(operation.ask, ClientOp::KeepAlive { .. });
        let here = matches!(operation.ask, ClientOp::GetSerializable { .. });
        if renews && live.leads.is_none() {
            return self.pass_on(id, number);
        }
        if here {
            return self.read(id, number);
        }
        let executor = number % EXECUTORS;
        let pending = &mut live.pending[executor];
        if operation.ask.is_read() {
            let batch = pending.join_read();
            live.reading.entry((executor, batch)).or_default().push(number);
            return self.wake(id);
        }
        let Poll::Ready(request) = pending.poll_acquire(&mut None, Waker::noop()) else {
            return self.answer(id, number, Answer::Failed);
        };
        let payload = self.clients.payload(number, request).expect("a write has a payload");
        let live = self.live(id);
        live.pending[executor].propose(payload);
        live.waiting.insert(request, number);
        self.wake(id);
    }

    /// Who does not lead passes a renewal on to who does, as far as it knows.
    fn pass_on(&mut self, id: MemberId, number: usize) {
        let leader = self.live(id).replica.role().leader.filter(|leader| *leader != id);
        let Some(leader) = leader else { return self.answer(id, number, Answer::Failed) };
        self.clients.move_to(number, leader);
        let time = self.member(id).random.skewed(100, 5 * MS);
        self.after(time, Event::ClientOp(number));
    }

    /// Answers from what is published here and now.
    fn read(&mut self, id: MemberId, number: usize) {
        let ask = self.clients.operation(number).ask;
        let answer = if let ClientOp::KeepAlive { lease } = ask {
            let (keeper, now_ms) = self.keeper(id);
            let renewed = keeper.renew(lease, now_ms);
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
            self.schedule(id, time, MemberEvent::Hub);
        }
    }

    /// The hub takes a batch, or the history it asked for, or learns that it missed a batch.
    fn hub_turn(&mut self, id: MemberId) {
        let history_first = self.member(id).random.chance(500);
        let live = self.live(id);
        live.hub_due = false;
        let published = live.published();
        let mut read = if history_first { live.streams.take_read() } else { None };
        let batch = if read.is_some() { None } else { live.batches.pop_front() };
        read = read.or_else(|| if batch.is_some() { None } else { live.streams.take_read() });
        let input = if let Some((events, revision)) = batch {
            watch::Input::Events { events, revision }
        } else if let Some(HistoryRead { from, revisions_max, bytes_max }) = read {
            let history = live.read.history(from, revisions_max, bytes_max);
            let history = history.unwrap_or(mvcc::History { events: Vec::new(), next: from });
            let mvcc::History { events, next } = history;
            watch::Input::History(watch::History { from, events, next, published })
        } else if std::mem::take(&mut live.missed) {
            watch::Input::Resync(published)
        } else {
            return;
        };
        live.streams.on(input);
        self.watched(id);
        self.hub_soon(id);
    }

    /// After a call of the streams: clients take their responses, and the hub reads history if it asked for some.
    pub(super) fn watched(&mut self, id: MemberId) {
        let live = self.live(id);
        drop(live.streams.take_wakers());
        let wants_read = live.streams.poll_read(Waker::noop()).is_ready();
        let waiting = live.watching.iter().filter(|(stream, _)| live.streams.waiting(**stream) > 0);
        let clients: Vec<_> = waiting.map(|(_, client)| *client).collect();
        clients.into_iter().for_each(|client| self.take_soon(client));
        if wants_read {
            self.hub_soon(id);
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
        let stream = live.streams.open(false);
        live.watching.insert(stream, client);
        let (boot, published) = (live.boot, live.published());
        self.watchers[client].at = Some((id, boot, stream));
        self.say(|| format!("client {client} watches at {id} from {}", request.start_revision));
        self.live(id).streams.on(watch::Input::Create { stream, request, published });
        self.watched(id);
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
        let Poll::Ready(Ok(response)) = live.streams.poll_next(number, Waker::noop()) else {
            return;
        };
        let more = live.streams.waiting(number) > 0;
        let published = live.published();
        self.watched(id);
        let next = self.watchers[client].take(&response, &self.checks);
        let leaves = !healed && self.random.chance(20);
        if leaves || next == super::watchers::Next::Again {
            let live = self.live(id);
            live.streams.close(number);
            live.watching.remove(&number);
            self.watched(id);
            self.watchers[client].at = None;
            return self.after(10 * MS, Event::Watch(client));
        }
        if self.random.chance(100) {
            self.live(id).streams.on(watch::Input::Progress { stream: number, published });
            self.watched(id);
        }
        if more {
            self.take_soon(client);
        }
    }
}
