//! Hosts [`Driver`]: orders requests, and holds back those that have to wait.

use std::time::Duration;

use super::deferred::DeferredProposals;
use super::heartbeats::Heartbeats;
use super::input::{Input, Inputs, Lane, Output};
use super::read_batches::ReadBatches;
use crate::consensus::wire::proposals_of;
use crate::consensus::{self, Driver, Message, MessageType, Progress, Role};
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
    heartbeats: Heartbeats,
    /// The snapshot that was stepped in since the last [`Replica::drain`].
    snapshot: Option<S>,
    /// Snapshots that arrived while another one was pending.
    discarded: Vec<S>,
    role: Role,
    disk: DiskSpace,
    /// Members short of disk space while no quorum has enough; else empty.
    full: Vec<MemberId>,
    /// Bytes that still fit into the log, if the disk has no space for another segment.
    log_room: Option<u64>,
    /// Bytes of proposals and appends accepted since the last [`Replica::drain`].
    taken_bytes: u64,
    /// Scratch: empty between calls.
    out: Vec<consensus::Output>,
}

impl<S> Replica<S> {
    /// A member that starts or restarts. As leader it should send heartbeats at this interval. So many bytes of
    /// proposals may wait for a leader.
    pub fn new(driver: Driver, heartbeat: Duration, deferred_bytes_max: usize) -> Self {
        Self {
            driver,
            heartbeats: Heartbeats::new(heartbeat),
            reads: ReadBatches::default(),
            deferred: DeferredProposals::new(deferred_bytes_max),
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

    /// Takes all waiting inputs, as far as they are accepted, in the order of [`Lane`]. `now` reads the clock for each
    /// input after it was taken: see [`Driver::on`].
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

    /// True if appends are accepted. They wait while apply lags too far behind, while the log lacks space, and while
    /// this member's disk is full although a quorum has space: the leader continues with the others.
    pub fn accepts_appends(&self) -> bool {
        let progress = self.driver.progress();
        let is_full = self.disk == DiskSpace::Exhausted && self.full.is_empty();
        progress.committed - progress.applied <= APPENDS_UNAPPLIED_MAX
            && (self.role.leads || !is_full)
            && !self.fills_log()
    }

    /// True if clients' requests are accepted. They wait while so many entries are not applied, or so many proposals
    /// deferred, that more would only fill memory, and while the log lacks space.
    pub fn accepts_requests(&self) -> bool {
        let progress = self.driver.progress();
        progress.last - progress.applied <= UNAPPLIED_ENTRIES_MAX as u64
            && !self.deferred.is_full()
            && !self.fills_log()
    }

    /// True if the disk has no space for another segment, and the accepted inputs fill the present one.
    fn fills_log(&self) -> bool {
        self.log_room.is_some_and(|left| left < WAL_ROOM_BYTES_MIN + self.taken_bytes)
    }

    /// Records the bytes that the log can still take behind all batches handed to it; `None` while it has another segment.
    pub fn set_log_room(&mut self, left: Option<u64>) {
        self.log_room = left;
    }

    /// Handles one input. Outputs are returned by [`Replica::drain`].
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

    /// One snapshot at a time: raft identifies the one it accepts only by its index, so that a second one in the same
    /// round is reported as lost.
    fn on_snapshot(&mut self, now: Duration, message: Box<Message>, snapshot: S) {
        if self.snapshot.is_some() {
            return self.discarded.push(snapshot);
        }
        self.snapshot = Some(snapshot);
        self.driver.on(now, consensus::Input::Step(message));
    }

    /// A log without space for another segment makes the disk count as full, whatever else is free.
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

    /// Proposes deferred proposals again, if there is a leader now. A leader refuses too during a leadership transfer
    /// and while too much is uncommitted, so each proposal is made alone and accepted as soon as it fits.
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

    /// Appends all pending outputs, in order.
    pub fn drain(&mut self, now: Duration, out: &mut Vec<Output<S>>) {
        let mut log_start = None;
        let mut role_changed = true;
        // A new leader accepts deferred proposals, which creates further outputs.
        while std::mem::take(&mut role_changed) {
            let mut outputs = std::mem::take(&mut self.out);
            self.driver.drain(&mut outputs);
            for output in outputs.drain(..) {
                role_changed |= matches!(output, consensus::Output::Role(_));
                if let consensus::Output::Send(messages) = &output {
                    self.note_heartbeats(now, messages, out);
                }
                self.perform(output, &mut log_start, out);
            }
            self.out = outputs;
            if role_changed {
                self.propose_deferred(now);
            }
        }
        // raft did not accept it.
        out.extend(self.snapshot.take().map(Output::Discard));
        out.extend(self.discarded.drain(..).map(Output::Discard));
        self.taken_bytes = 0;
    }

    fn note_heartbeats(&mut self, now: Duration, messages: &[Message], out: &mut Vec<Output<S>>) {
        let heartbeats =
            messages.iter().filter(|it| it.get_msg_type() == MessageType::MsgHeartbeat);
        for message in heartbeats {
            if let Some(late) = self.heartbeats.note(message.to, now) {
                out.push(Output::HeartbeatLate { to: message.to, late });
            }
        }
    }

    /// Translates an output of the driver. `log_start` is the first record of the log after a snapshot; it is written
    /// with the same batch.
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
                if before.leads != now.leads || before.term != now.term {
                    self.heartbeats.restart();
                }
                Output::RoleChanged { before, now }
            }
            consensus::Output::Full(members) => {
                self.full.clone_from(&members);
                Output::QuorumFull(members)
            }
        });
    }

    /// Messages of [`Output::Send`] that could not be sent: their proposals are made again, since raft does
    /// not repeat those.
    pub fn undeliverable(&mut self, messages: Vec<Message>) {
        messages.into_iter().for_each(|it| self.deferred.extend_from(proposals_of(it)));
    }

    /// The index up to which a member's log matches this leader's, and the last index of this leader's log; `None` if
    /// this member does not lead or there is no such member.
    pub fn matched(&self, member: MemberId) -> Option<(LogIndex, LogIndex)> {
        self.driver.matched(member).map(|matched| (matched, self.driver.progress().last))
    }

    /// Positions of the log.
    pub fn progress(&self) -> Progress {
        self.driver.progress()
    }

    /// This member's role, as of the last [`Replica::drain`].
    pub fn role(&self) -> Role {
        self.role
    }

    /// The disk space of this member, its log included, as of the last tick.
    pub fn disk(&self) -> DiskSpace {
        self.disk
    }

    /// True if a request that takes space has to be refused: no quorum has enough, or this member could not apply it.
    pub fn lacks_space(&self) -> bool {
        self.disk == DiskSpace::Exhausted || !self.full.is_empty()
    }

    /// Number of reads that this member answered as leader under its lease, its own and other members'.
    pub fn lease_reads(&self) -> u64 {
        self.driver.lease_reads()
    }
}
