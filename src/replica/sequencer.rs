//! Hosts [`Driver`]: puts requests in order, and holds back what has to wait.

use std::time::Duration;

use super::deferred::DeferredProposals;
use super::input::{Input, Inputs, Lane, Output};
use super::read_batches::ReadBatches;
use crate::consensus::wire::proposals_of;
use crate::consensus::{self, Driver, Message, Progress, Role};
use crate::types::limits::{
    APPENDS_UNAPPLIED_MAX, UNAPPLIED_ENTRIES_MAX, WAL_ROOM_BYTES_LOW, WAL_ROOM_BYTES_MIN,
};
use crate::types::{DiskSpace, LogIndex, MemberId};
use crate::wal::Record;

/// The consensus side of one member. `S` is the host's form of a received snapshot.
pub struct Replica<S> {
    driver: Driver,
    reads: ReadBatches,
    deferred: DeferredProposals,
    /// The snapshot that was stepped in since the last [`Replica::drain`].
    snapshot: Option<S>,
    /// Snapshots that came while one was being looked at.
    discarded: Vec<S>,
    role: Role,
    disk: DiskSpace,
    /// Members without room while no quorum has some; else empty.
    full: Vec<MemberId>,
    /// Bytes that the log can still take, if it has no room for another segment.
    log_room: Option<u64>,
    /// Bytes of proposals and appends taken in since the last [`Replica::drain`].
    taken_bytes: u64,
    /// Scratch: empty between calls.
    out: Vec<consensus::Output>,
}

impl<S> Replica<S> {
    /// A member that begins or goes on.
    pub fn new(driver: Driver) -> Self {
        Self {
            driver,
            reads: ReadBatches::default(),
            deferred: DeferredProposals::default(),
            snapshot: None,
            discarded: Vec::new(),
            role: Role::default(),
            disk: DiskSpace::Enough,
            full: Vec::new(),
            log_room: None,
            taken_bytes: 0,
            out: Vec::new(),
        }
    }

    /// Takes all inputs that wait, as far as there is room for them, in the order of [`Lane`]. `now` reads the clock for
    /// each input after it was taken: see [`Driver::on`].
    pub fn take(&mut self, inputs: &mut impl Inputs<S>, mut now: impl FnMut() -> Duration) {
        for lane in [Lane::Acks, Lane::Control] {
            while let Some(input) = inputs.pop(lane) {
                self.on(now(), input);
            }
        }
        while self.accepts_appends()
            && let Some(input) = inputs.pop(Lane::Appends)
        {
            self.on(now(), input);
        }
        while self.accepts_requests()
            && let Some(input) = inputs.pop(Lane::Requests)
        {
            self.on(now(), input);
        }
    }

    /// Whether appends may come in. They wait while apply has too much to do, while the log lacks room, and while this
    /// member's disk is full and others have room: the leader goes on with those.
    pub fn accepts_appends(&self) -> bool {
        let progress = self.driver.progress();
        let is_full = self.disk == DiskSpace::Exhausted && self.full.is_empty();
        progress.committed - progress.applied <= APPENDS_UNAPPLIED_MAX
            && (self.role.leads || !is_full)
            && !self.fills_log()
    }

    /// Whether clients' requests may come in. They wait while so much is not applied, or found no leader, that more would
    /// only fill memory, and while the log lacks room.
    pub fn accepts_requests(&self) -> bool {
        let progress = self.driver.progress();
        progress.last - progress.applied <= UNAPPLIED_ENTRIES_MAX as u64
            && !self.deferred.is_full()
            && !self.fills_log()
    }

    /// Whether the log has no room for another segment, and none left in this one.
    fn fills_log(&self) -> bool {
        self.log_room.is_some_and(|left| left < WAL_ROOM_BYTES_MIN + self.taken_bytes)
    }

    /// Notes the bytes that the log can still take behind all that was handed to it; `None` while it has another segment.
    pub fn set_log_room(&mut self, left: Option<u64>) {
        self.log_room = left;
    }

    /// Takes one input. Nothing comes out before [`Replica::drain`].
    pub fn on(&mut self, now: Duration, input: Input<S>) {
        match input {
            Input::Requests { executor, proposals, read } => {
                self.taken_bytes += proposals.iter().map(|it| it.len() as u64).sum::<u64>();
                if !proposals.is_empty() {
                    self.driver.on(now, consensus::Input::Propose(proposals));
                }
                if let Some(batch) = read {
                    self.read_index(now, executor, batch);
                }
            }
            Input::LeaderRequests(term, proposals) => {
                self.driver.on(now, consensus::Input::ProposeAsLeader(term, proposals));
            }
            Input::ConfChange(payload) => {
                self.driver.on(now, consensus::Input::ProposeConfChange(payload));
            }
            Input::Peer(message) => {
                self.taken_bytes +=
                    message.entries.iter().map(|it| it.data.len() as u64).sum::<u64>();
                self.driver.on(now, consensus::Input::Step(message));
            }
            Input::Unreachable(member) => {
                self.driver.on(now, consensus::Input::Unreachable(member));
            }
            Input::SnapshotSent(member, arrived) => {
                self.driver.on(now, consensus::Input::SnapshotSent(member, arrived));
            }
            Input::Snapshot(message, snapshot) => self.on_snapshot(now, message, snapshot),
            Input::Transfer(member) => self.driver.on(now, consensus::Input::Transfer(member)),
            Input::Tick(disk) => {
                self.note_disk(now, disk);
                self.driver.on(now, consensus::Input::Tick);
                self.propose_deferred(now);
            }
            Input::Persisted(number) => self.driver.on(now, consensus::Input::Persisted(number)),
            Input::Applied { index, conf_changes } => {
                for change in conf_changes {
                    self.driver.on(now, consensus::Input::ConfChange(change));
                }
                self.driver.on(now, consensus::Input::Applied(index));
            }
            Input::Campaign => self.driver.on(now, consensus::Input::Campaign),
        }
    }

    /// One snapshot at a time: raft names the one it takes only by its place in the log, so that a second one in the same
    /// round counts as lost.
    fn on_snapshot(&mut self, now: Duration, message: Box<Message>, snapshot: S) {
        if self.snapshot.is_some() {
            return self.discarded.push(snapshot);
        }
        self.snapshot = Some(snapshot);
        self.driver.on(now, consensus::Input::Step(message));
    }

    /// A log without room for another segment makes the disk full, whatever is free.
    fn note_disk(&mut self, now: Duration, disk: DiskSpace) {
        let log = match self.log_room {
            None | Some(WAL_ROOM_BYTES_LOW..) => DiskSpace::Enough,
            Some(WAL_ROOM_BYTES_MIN..) => DiskSpace::Low,
            Some(_) => DiskSpace::Exhausted,
        };
        let space = disk.max(log);
        if space != self.disk {
            self.disk = space;
            self.driver.on(now, consensus::Input::Disk(space));
        }
    }

    fn read_index(&mut self, now: Duration, executor: usize, batch: u64) {
        let driver = &mut self.driver;
        let read = self.reads.add((executor, batch), |read| driver.is_delayed(read));
        let Some(read) = read else { return };
        driver.on(now, consensus::Input::ReadIndex(read));
        if driver.is_delayed(read) {
            self.reads.delay(read);
        }
    }

    /// Proposes again what found no leader, if there is one now. A leader refuses too while it hands over and while too
    /// much is uncommitted, so that each proposal is made alone and goes as soon as it fits.
    fn propose_deferred(&mut self, now: Duration) {
        if self.role.leader.is_none() || self.driver.is_transferring() {
            return;
        }
        let proposals = self.deferred.take();
        for proposal in proposals.normal {
            self.driver.on(now, consensus::Input::Propose(vec![proposal]));
        }
        for payload in proposals.conf_changes {
            self.driver.on(now, consensus::Input::ProposeConfChange(payload));
        }
    }

    /// Everything there is to do now, in order.
    pub fn drain(&mut self, now: Duration, out: &mut Vec<Output<S>>) {
        let mut log_start = None;
        let mut role_changed = true;
        // A new leader takes deferred proposals, which makes more to do.
        while std::mem::take(&mut role_changed) {
            let mut outputs = std::mem::take(&mut self.out);
            self.driver.drain(&mut outputs);
            for output in outputs.drain(..) {
                role_changed |= matches!(output, consensus::Output::Role(_));
                self.perform(output, &mut log_start, out);
            }
            self.out = outputs;
            if role_changed {
                self.propose_deferred(now);
            }
        }
        // Raft did not want it.
        out.extend(self.snapshot.take().map(Output::Discard));
        out.extend(self.discarded.drain(..).map(Output::Discard));
        self.taken_bytes = 0;
    }

    /// `log_start` is the record with which the log begins after a snapshot; it is written with the same batch.
    fn perform(
        &mut self,
        output: consensus::Output,
        log_start: &mut Option<Record>,
        out: &mut Vec<Output<S>>,
    ) {
        out.push(match output {
            consensus::Output::Send(messages) => Output::Send(messages),
            consensus::Output::Persist { number, hard_state, entries } => {
                let records = entries.into_iter().map(Record::Entry);
                let records = log_start.take().into_iter().chain(records);
                let records = records.chain(hard_state.map(Record::HardState)).collect();
                Output::Persist { number, records }
            }
            consensus::Output::Install { index, term, conf_state } => {
                let snapshot = self.snapshot.take();
                assert!(snapshot.is_some(), "raft takes a snapshot of {index} that did not come");
                *log_start = Some(Record::LogStart { index, term, conf_state });
                let Some(snapshot) = snapshot else { return };
                Output::Install { snapshot, index, term }
            }
            consensus::Output::Commit(entries) => Output::Commit(entries),
            consensus::Output::ReadAt { read, index } => {
                let read_at = |(executor, batch)| Output::ReadAt { executor, batch, index };
                return out.extend(self.reads.answered(read).map(read_at));
            }
            consensus::Output::ProposalsDropped(proposals) => {
                return self.deferred.extend(proposals);
            }
            consensus::Output::ConfChangeDropped(payload) => {
                return self.deferred.push_conf_change(payload);
            }
            consensus::Output::Role(now) => {
                let before = std::mem::replace(&mut self.role, now);
                Output::RoleChanged { before, now }
            }
            consensus::Output::Full(members) => {
                self.full.clone_from(&members);
                Output::QuorumFull(members)
            }
        });
    }

    /// Messages of [`Output::Send`] that could not be sent: their proposals are made again, raft does not repeat those.
    pub fn undeliverable(&mut self, messages: Vec<Message>) {
        messages.into_iter().for_each(|it| self.deferred.extend_from(proposals_of(it)));
    }

    /// Up to where a member's log is that of this one, and where this one ends; `None` if this member does not lead or
    /// there is no such member.
    pub fn matched(&self, member: MemberId) -> Option<(LogIndex, LogIndex)> {
        self.driver.matched(member).map(|matched| (matched, self.driver.progress().last))
    }

    /// Where the log stands.
    pub fn progress(&self) -> Progress {
        self.driver.progress()
    }

    /// This member's part, as of the last [`Replica::drain`].
    pub fn role(&self) -> Role {
        self.role
    }

    /// The state of this member's disk, its log included, as of the last tick.
    pub fn disk(&self) -> DiskSpace {
        self.disk
    }

    /// Whether a request that takes space would find none: no quorum has any, or this member could not apply it.
    pub fn lacks_space(&self) -> bool {
        self.disk == DiskSpace::Exhausted || !self.full.is_empty()
    }

    /// Reads that this member answered as leader without asking the others, its own and theirs.
    pub fn lease_reads(&self) -> u64 {
        self.driver.lease_reads()
    }
}
