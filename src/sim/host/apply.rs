//! Application of committed entries, and its outputs.

use crate::machine::{Effect, Published, Reply};
use crate::replica::{ApplierOutput, Input, Lane, LeaseChange, Progress};
use crate::sim::bugs::Bug;
use crate::sim::cluster::{Cluster, MemberEvent};
use crate::sim::member::Task;
use crate::sim::plan::{CrashPoint, Micros};
use crate::store::MemoryView;
use crate::types::{Entry, LogIndex, MemberId, Refusal};

/// States are compared at indexes divisible by this.
const DIGEST_EVERY: u64 = 32;

impl Cluster {
    pub(super) fn apply_soon(&mut self, id: MemberId) {
        let apply_max = self.plan.parameters.apply_max;
        let member = self.member(id);
        let time = member.random.skewed(20, apply_max);
        let Some(live) = member.live.as_mut() else { return };
        if !std::mem::replace(&mut live.apply_due, true) {
            self.schedule(id, time, MemberEvent::Apply);
        }
    }

    pub(super) fn apply(&mut self, id: MemberId) {
        self.live(id).apply_due = false;
        if self.apply_next(id) && self.member(id).live.is_some() {
            self.apply_soon(id);
        }
    }

    /// Runs the next task of apply. `false` if there is none.
    pub(super) fn apply_next(&mut self, id: MemberId) -> bool {
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

    /// Performs one step of a large entry, and takes all waiting reads.
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

    /// Checks the result of an entry that this member applied.
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

    /// Performs the applier's outputs in order, until the member loses power.
    pub(super) fn perform_applied(&mut self, id: MemberId, out: Vec<ApplierOutput<MemoryView>>) {
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
                ApplierOutput::AuthChanged(_)
                | ApplierOutput::MembersChanged
                | ApplierOutput::CompactionBegun
                | ApplierOutput::Compacted => (),
            }
        }
    }

    /// Publishes the new state.
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

    /// The first effect of an entry on any member.
    fn first_effect(&mut self, id: MemberId, effect: &Effect) {
        match effect {
            Effect::LeaseGranted(grant) => self.checks.lease_granted(grant.id),
            Effect::LeaseRevoked(id) => self.checks.lease_ended(*id, self.now),
            Effect::ConfChanged(change) => {
                let state = self.live(id).applier.machine().conf_state().clone();
                self.say(|| format!("{change:?}: now {state:?}"));
                self.checks.members_changed(state);
            }
            Effect::Compacted | Effect::AuthChanged(_) => (),
        }
    }
}
