//! The log of a member: writes wait for its disk.

use crate::replica::{Input, Lane, LogStart};
use crate::sim::bugs::Bug;
use crate::sim::cluster::{Cluster, MemberEvent};
use crate::sim::member::Write;
use crate::sim::plan::CrashPoint;
use crate::types::MemberId;
use crate::wal::Record;

impl Cluster {
    /// Starts a write, unless the disk is busy.
    pub(super) fn write(&mut self, id: MemberId) {
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

    pub(super) fn written(&mut self, id: MemberId) {
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

    /// Syncs the store in the background, and truncates the log. `true` if the member loses power.
    pub(super) fn truncate_log(&mut self, id: MemberId, start: LogStart) -> bool {
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

    pub(super) fn synced(&mut self, id: MemberId) {
        self.member(id).store.finish_sync();
        if self.reaches(id, CrashPoint::Synced) {
            return;
        }
        let live = self.live(id);
        live.applier.truncated(true);
        let Some(start) = live.truncating.take() else { return };
        let LogStart { index, term, conf_state } = start;
        if index < live.log_start_index {
            // A snapshot has set a later log start already.
            return;
        }
        live.log_start_index = index;
        let log_start = Record::LogStart { index, term, conf_state };
        live.to_write.push_back(Write { number: None, records: vec![log_start] });
        self.say(|| format!("{id} truncates its log at {index}"));
        self.write(id);
    }
}
