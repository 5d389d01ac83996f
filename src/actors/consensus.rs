//! Hosts [`crate::consensus`]: everything that waits becomes one batch, and what comes out is performed.
//! One per member. Never touches the disk or the store itself, so that neither can delay a heartbeat.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use futures_lite::future::or;

use super::mailbox::consensus::{Inbox, Msg};
use super::mailbox::{apply, wal};
use super::state::Shared;
use crate::consensus::wire::{Proposals, proposals_of};
use crate::consensus::{Driver, Input, Message, Output, Role};
use crate::io::{DiskMonitor, clock};
use crate::metrics;
use crate::types::limits::{
    APPENDS_UNAPPLIED_MAX, CONF_CHANGES_WAITING_MAX, READS_WAITING_MAX, UNAPPLIED_ENTRIES_MAX,
    WAL_ROOM_BYTES_LOW, WAL_ROOM_BYTES_MIN,
};
use crate::types::{DiskSpace, MemberId};
use crate::wal::Record;

/// Who hears of what.
pub struct Outlets {
    /// What must become durable.
    pub wal: wal::Handle,
    /// What is committed.
    pub apply: apply::Handle,
    /// Who leads.
    pub on_role: Box<dyn Fn(Role)>,
    /// Messages to other members; gives back proposals that cannot leave.
    pub on_send: Box<dyn Fn(Vec<Message>) -> Vec<Message>>,
    /// The room on this member's disk.
    pub disk: DiskMonitor,
}

struct Actor {
    driver: Driver,
    outlets: Outlets,
    shared: Arc<Shared>,
    reads: BTreeMap<u64, (usize, u64)>,
    reads_made: u64,
    /// Rounds that share the answer of a read that waits for a leader.
    reads_waiting: VecDeque<(usize, u64)>,
    /// That read.
    read_waited_for: u64,
    /// Proposals that found no leader; made again when there is one, as etcd's wait for one.
    homeless: VecDeque<Bytes>,
    conf_changes_homeless: VecDeque<Bytes>,
    /// The store of the snapshot that was stepped in last.
    prepared: Option<Box<apply::Prepared>>,
    role: Role,
    /// Bytes of proposals and appends taken in since the log was last given anything.
    taken_bytes: u64,
}

/// Serves until all handles are gone.
pub async fn run(driver: Driver, inbox: Inbox, outlets: Outlets, shared: Arc<Shared>) {
    let mut actor = Actor {
        driver,
        outlets,
        shared,
        reads: BTreeMap::new(),
        reads_made: 0,
        reads_waiting: VecDeque::new(),
        read_waited_for: 0,
        homeless: VecDeque::new(),
        conf_changes_homeless: VecDeque::new(),
        prepared: None,
        role: Role::default(),
        taken_bytes: 0,
    };
    let mut out = Vec::new();
    loop {
        let Some(first) = actor.next(&inbox).await else { return };
        actor.take(first);
        for lane in [&inbox.acks, &inbox.control] {
            lane.try_iter().for_each(|msg| actor.take(msg));
        }
        while !actor.lags()
            && let Ok(msg) = inbox.appends.try_recv()
        {
            actor.take(msg);
        }
        while !actor.is_behind()
            && let Ok(msg) = inbox.work.try_recv()
        {
            actor.take(msg);
        }
        actor.driver.drain(&mut out);
        let mut beginning = None;
        for output in out.drain(..) {
            actor.perform(output, &mut beginning).await;
        }
        // Not installed: raft did not want it.
        actor.prepared = None;
        actor.taken_bytes = 0;
        actor.shared.set_progress(actor.driver.progress());
    }
}

impl Actor {
    async fn next(&self, inbox: &Inbox) -> Option<Msg> {
        let vital = or(inbox.acks.recv_async(), inbox.control.recv_async());
        let appends = async {
            if self.lags() {
                return std::future::pending().await;
            }
            inbox.appends.recv_async().await
        };
        let vital = or(vital, appends);
        if self.is_behind() {
            return vital.await.ok();
        }
        or(vital, inbox.work.recv_async()).await.ok()
    }

    /// Whether appends should wait: apply has too much to do, or there is no room for them on the disk while others
    /// have some.
    fn lags(&self) -> bool {
        let progress = self.driver.progress();
        let is_full = self.shared.disk() == DiskSpace::Exhausted && self.shared.quorum_has_room();
        progress.committed - progress.applied > APPENDS_UNAPPLIED_MAX
            || (is_full && !self.role.leads)
            || self.fills_log()
    }

    /// Whether the log, which has no room for another segment, has none left in this one.
    fn fills_log(&self) -> bool {
        let left = self.outlets.wal.room_left();
        left.is_some_and(|left| left < WAL_ROOM_BYTES_MIN + self.taken_bytes)
    }

    /// Whether clients should wait: so much is in the log and not applied, or found no leader, that taking
    /// more would only fill memory.
    fn is_behind(&self) -> bool {
        let progress = self.driver.progress();
        progress.last - progress.applied > UNAPPLIED_ENTRIES_MAX as u64
            || self.homeless.len() > UNAPPLIED_ENTRIES_MAX
            || self.fills_log()
    }

    /// Looks at the room on the disk. Where the log cannot have another segment, the disk is full whatever is free.
    fn look_at_disk(&mut self) {
        let log = match self.outlets.wal.room_left() {
            None | Some(WAL_ROOM_BYTES_LOW..) => DiskSpace::Enough,
            Some(WAL_ROOM_BYTES_MIN..) => DiskSpace::Low,
            Some(_) => DiskSpace::Exhausted,
        };
        let space = self.outlets.disk.space().max(log);
        if space != self.shared.disk() {
            self.shared.set_disk(space);
            self.on(Input::Disk(space));
        }
    }

    /// The clock is read only now, when what happened was taken from the mailbox: see [`Driver::on`].
    fn on(&mut self, input: Input) {
        self.driver.on(clock::since_boot(), input);
    }

    fn take(&mut self, msg: Msg) {
        match msg {
            Msg::Work { executor, proposals, read } => {
                self.taken_bytes += proposals.iter().map(Bytes::len).sum::<usize>() as u64;
                if !proposals.is_empty() {
                    self.on(Input::Propose(proposals));
                }
                if let Some(round) = read {
                    self.read(executor, round);
                }
            }
            Msg::OwnWork(term, proposals) => {
                self.on(Input::ProposeAsLeader(term, proposals));
            }
            Msg::ConfChange(payload) => self.on(Input::ProposeConfChange(payload)),
            Msg::Peer(message) => {
                let bytes = message.entries.iter().map(|entry| entry.data.len()).sum::<usize>();
                self.taken_bytes += bytes as u64;
                self.on(Input::Step(message));
            }
            Msg::Unreachable(member) => self.on(Input::Unreachable(member)),
            Msg::SnapshotSent(member, arrived) => {
                self.on(Input::SnapshotSent(member, arrived));
            }
            Msg::Snapshot(message, prepared) => {
                // Only one at a time: a second one in the same round is as good as lost.
                if self.prepared.is_none() {
                    self.prepared = Some(prepared);
                    self.on(Input::Step(message));
                }
            }
            Msg::Transfer(to) => self.on(Input::Transfer(to)),
            Msg::Matched(member, answer) => {
                let last = self.driver.progress().last;
                let matched = self.driver.matched(member).map(|matched| (matched, last));
                let _ = answer.try_send(matched);
            }
            Msg::Tick => {
                self.look_at_disk();
                self.on(Input::Tick);
                self.propose_homeless();
            }
            Msg::Persisted(number) => self.on(Input::Persisted(number)),
            Msg::Applied { index, conf_changes } => {
                for change in conf_changes {
                    self.on(Input::ConfChange(change));
                }
                self.on(Input::Applied(index));
            }
            Msg::Campaign => self.on(Input::Campaign),
        }
    }

    fn read(&mut self, executor: usize, round: u64) {
        if self.driver.is_delayed(self.read_waited_for) {
            if self.reads_waiting.len() >= READS_WAITING_MAX {
                self.reads_waiting.pop_front();
            }
            self.reads_waiting.push_back((executor, round));
            return;
        }
        self.reads_made += 1;
        self.reads.insert(self.reads_made, (executor, round));
        self.on(Input::ReadIndex(self.reads_made));
        if self.reads_waiting.is_empty() && self.driver.is_delayed(self.reads_made) {
            self.read_waited_for = self.reads_made;
        }
    }

    /// `beginning` is what the log begins with after a snapshot, to be written with the same batch.
    async fn perform(&mut self, output: Output, beginning: &mut Option<Record>) {
        match output {
            Output::Send(messages) => {
                let returned = (self.outlets.on_send)(messages);
                returned.into_iter().for_each(|message| self.keep(proposals_of(message)));
            }
            Output::Persist { number, hard_state, entries } => {
                let records = entries.into_iter().map(Record::Entry);
                let records = beginning.take().into_iter().chain(records);
                let records = records.chain(hard_state.map(Record::HardState)).collect();
                self.outlets.wal.persist(number, records).await;
            }
            Output::Install { index, term, conf_state } => {
                let prepared = self.prepared.take();
                assert!(prepared.is_some(), "raft takes a snapshot of {index} that did not come");
                // Waits: nothing may be appended or applied before the state is that of the snapshot.
                if let Some(prepared) = prepared {
                    self.outlets.apply.install(prepared).await;
                }
                *beginning = Some(Record::Mark { index, term, conf_state });
            }
            Output::Commit(entries) => self.outlets.apply.commit(entries).await,
            Output::ReadAt { read, index } => {
                if let Some((executor, round)) = self.reads.remove(&read) {
                    self.outlets.apply.read_at(executor, round, index).await;
                }
                if read == self.read_waited_for {
                    for (executor, round) in std::mem::take(&mut self.reads_waiting) {
                        self.outlets.apply.read_at(executor, round, index).await;
                    }
                }
            }
            Output::ProposalsDropped(proposals) => self.homeless.extend(proposals),
            Output::ConfChangeDropped(payload) => self.keep_conf_change(payload),
            Output::Role(role) => self.on_role(role),
            Output::Full(members) => self.on_full(members),
        }
    }

    /// From now on no quorum has room for what costs some, or one has again.
    fn on_full(&mut self, members: Vec<MemberId>) {
        let ids: Vec<_> = members.iter().map(|id| format!("{id:x}")).collect();
        if members.is_empty() {
            tracing::info!("enough members have room on their disks again: writes are taken");
        } else {
            tracing::warn!(members = ?ids, "too few members have room on their disks: writes are refused");
        }
        self.shared.set_full(members);
    }

    fn on_role(&mut self, role: Role) {
        if role.leader.is_some_and(|leader| self.role.leader != Some(leader)) {
            metrics::LEADER_CHANGES.add(1);
        }
        if role.leader != self.role.leader {
            let hex =
                |leader: Option<MemberId>| leader.map_or("none".to_owned(), |id| format!("{id:x}"));
            let (from, to) = (hex(self.role.leader), hex(role.leader));
            tracing::info!(from, to, term = role.term, "the leader changed");
        }
        self.role = role;
        self.shared.set_role(role);
        (self.outlets.on_role)(role);
        self.propose_homeless();
    }

    /// Proposes what found no leader, if there is one now. A leader refuses too: while it hands over, and while
    /// too much is on its way. Those are made again with the next tick, one by one, so that each goes as soon as
    /// it fits.
    fn propose_homeless(&mut self) {
        if self.role.leader.is_none() || self.driver.is_transferring() {
            return;
        }
        for proposal in std::mem::take(&mut self.homeless) {
            self.on(Input::Propose(vec![proposal]));
        }
        for payload in std::mem::take(&mut self.conf_changes_homeless) {
            self.on(Input::ProposeConfChange(payload));
        }
    }

    fn keep(&mut self, proposals: Proposals) {
        self.homeless.extend(proposals.normal);
        proposals.conf_changes.into_iter().for_each(|payload| self.keep_conf_change(payload));
    }

    /// Whoever waits for one that is forgotten hears that it took too long.
    fn keep_conf_change(&mut self, payload: Bytes) {
        if self.conf_changes_homeless.len() < CONF_CHANGES_WAITING_MAX {
            self.conf_changes_homeless.push_back(payload);
        }
    }
}
