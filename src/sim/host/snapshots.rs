//! Snapshots between members.

use bytes::Bytes;

use crate::consensus::Message;
use crate::consensus::wire::set_snapshot;
use crate::machine::applied_state;
use crate::replica::{Input, Lane};
use crate::sim::cluster::{Cluster, Event};
use crate::sim::member::open_machine;
use crate::sim::plan::{CrashPoint, MS, SECOND};
use crate::sim::store::Store;
use crate::snapshot::bolt::Reader;
use crate::snapshot::{self, Export, ExportStep, Scope};
use crate::store::Memory;
use crate::types::{LogIndex, MemberId, Term};

impl Cluster {
    /// Sends the state along with the message that announces it; it is newer than the snapshot that raft asked for.
    pub(super) fn send_snapshot(&mut self, id: MemberId, mut message: Message) {
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
        let mut export = Export::new(view, Scope::Member);
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

    /// A snapshot arrives, unless the receiver is down or partitioned by then.
    pub(in crate::sim) fn snapshot(
        &mut self,
        id: MemberId,
        boot: u64,
        message: Box<Message>,
        file: Bytes,
    ) {
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

    /// Replaces the state by another member's, when everything before is applied.
    pub(super) fn install(&mut self, id: MemberId, file: Bytes, index: LogIndex, term: Term) {
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
}
