//! Hosts [`crate::consensus`]: everything that waits becomes one batch, and what comes out is performed.
//! One per member. Never touches the disk or the store itself, so that neither can delay a heartbeat.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use futures_lite::future::or;

use super::state::Shared;
use super::{apply, wal};
use crate::consensus::{Driver, Input, Message, Output, ReadyNumber, Role};
use crate::metrics;
use crate::types::limits::{CONSENSUS_MAILBOX, READIES_IN_FLIGHT_MAX, UNAPPLIED_ENTRIES_MAX};
use crate::types::{Entry, LogIndex};
use crate::wal::Record;

/// What the actor can be asked.
pub enum Msg {
    /// What the sessions of one executor handed in. They wait if the mailbox is full.
    Work {
        /// Whom to tell of the read.
        executor: usize,
        /// Encoded `InternalRaftRequest`s.
        proposals: Vec<Bytes>,
        /// The executor's number of a read round.
        read: Option<u64>,
    },
    /// From another member; dropped if the mailbox is full, raft sends again.
    Peer(Box<Message>),
    /// A tick of time. Skipped if the mailbox is full: the member is overloaded, not dead.
    Tick,
    /// The disk has all batches up to this one. Has its own mailbox, as long as batches in flight.
    Persisted(ReadyNumber),
    /// The state machine holds everything up to here.
    Applied {
        /// Up to and including this entry.
        index: LogIndex,
        /// Configuration changes among what was applied, in order.
        conf_changes: Vec<Entry>,
    },
    /// Stand for election at once.
    Campaign,
}

/// Cheap to clone.
#[derive(Clone)]
pub struct Handle {
    acks: flume::Sender<Msg>,
    control: flume::Sender<Msg>,
    work: flume::Sender<Msg>,
}

impl Handle {
    /// Hands in the work of one executor; waits while the mailbox is full. `false` when the member is
    /// going down.
    pub async fn work(&self, executor: usize, proposals: Vec<Bytes>, read: Option<u64>) -> bool {
        self.work.send_async(Msg::Work { executor, proposals, read }).await.is_ok()
    }

    /// Hands in proposals whose answers nobody waits for, unless the mailbox is full.
    pub fn try_work(&self, executor: usize, proposals: Vec<Bytes>) {
        drop(self.work.try_send(Msg::Work { executor, proposals, read: None }));
    }

    /// A message of another member.
    pub fn peer(&self, message: Box<Message>) {
        drop(self.control.try_send(Msg::Peer(message)));
    }

    /// A tick of time. `false` when the member is going down.
    pub fn tick(&self) -> bool {
        !matches!(self.control.try_send(Msg::Tick), Err(flume::TrySendError::Disconnected(_)))
    }

    /// Stand for election at once.
    pub fn campaign(&self) {
        drop(self.control.try_send(Msg::Campaign));
    }

    pub(super) fn persisted(&self, number: ReadyNumber) {
        self.ack(Msg::Persisted(number));
    }

    pub(super) fn applied(&self, index: LogIndex, conf_changes: Vec<Entry>) {
        self.ack(Msg::Applied { index, conf_changes });
    }

    fn ack(&self, msg: Msg) {
        let full = matches!(self.acks.try_send(msg), Err(flume::TrySendError::Full(_)));
        assert!(!full, "more acknowledgements than batches in flight");
    }
}

/// The actor's mailbox, in three lanes: acknowledgements, then time and peers, then clients.
pub struct Inbox {
    acks: flume::Receiver<Msg>,
    control: flume::Receiver<Msg>,
    work: flume::Receiver<Msg>,
}

/// Acknowledgements that can be under way: one per batch at the disk and one per batch at apply.
const ACKS: usize = READIES_IN_FLIGHT_MAX + apply::MAILBOX + 2;

/// The actor's mailbox.
pub fn mailbox() -> (Handle, Inbox) {
    let (acks_in, acks) = flume::bounded(ACKS);
    let (control_in, control) = flume::bounded(CONSENSUS_MAILBOX);
    let (work_in, work) = flume::bounded(CONSENSUS_MAILBOX);
    let handle = Handle { acks: acks_in, control: control_in, work: work_in };
    (handle, Inbox { acks, control, work })
}

/// Who hears of what.
pub struct Outlets {
    /// What must become durable.
    pub wal: wal::Handle,
    /// What is committed.
    pub apply: apply::Handle,
    /// Who leads.
    pub on_role: Box<dyn Fn(Role)>,
    /// Messages to other members.
    pub on_send: Box<dyn Fn(Vec<Message>)>,
}

struct Actor {
    driver: Driver,
    outlets: Outlets,
    shared: Arc<Shared>,
    reads: BTreeMap<u64, (usize, u64)>,
    reads_made: u64,
    /// Proposals that found no leader; made again when there is one, as etcd's wait for one.
    homeless: VecDeque<Bytes>,
    role: Role,
}

/// Serves until all handles are gone.
pub async fn run(driver: Driver, inbox: Inbox, outlets: Outlets, shared: Arc<Shared>) {
    let mut actor = Actor {
        driver,
        outlets,
        shared,
        reads: BTreeMap::new(),
        reads_made: 0,
        homeless: VecDeque::new(),
        role: Role::default(),
    };
    let mut out = Vec::new();
    loop {
        let Some(first) = actor.next(&inbox).await else { return };
        actor.take(first);
        for lane in [&inbox.acks, &inbox.control] {
            lane.try_iter().for_each(|msg| actor.take(msg));
        }
        while !actor.is_behind()
            && let Ok(msg) = inbox.work.try_recv()
        {
            actor.take(msg);
        }
        actor.driver.drain(&mut out);
        for output in out.drain(..) {
            actor.perform(output).await;
        }
        actor.shared.set_progress(actor.driver.progress());
    }
}

impl Actor {
    async fn next(&self, inbox: &Inbox) -> Option<Msg> {
        let vital = or(inbox.acks.recv_async(), inbox.control.recv_async());
        if self.is_behind() {
            return vital.await.ok();
        }
        or(vital, inbox.work.recv_async()).await.ok()
    }

    /// Whether clients should wait: so much is in the log and not applied, or found no leader, that taking
    /// more would only fill memory.
    fn is_behind(&self) -> bool {
        let progress = self.driver.progress();
        progress.last - progress.applied > UNAPPLIED_ENTRIES_MAX as u64
            || self.homeless.len() > UNAPPLIED_ENTRIES_MAX
    }

    fn take(&mut self, msg: Msg) {
        match msg {
            Msg::Work { executor, proposals, read } => {
                if !proposals.is_empty() {
                    self.driver.on(Input::Propose(proposals));
                }
                if let Some(round) = read {
                    self.reads_made += 1;
                    self.reads.insert(self.reads_made, (executor, round));
                    self.driver.on(Input::ReadIndex(self.reads_made));
                }
            }
            Msg::Peer(message) => self.driver.on(Input::Step(message)),
            Msg::Tick => {
                self.driver.on(Input::Tick);
                self.propose_homeless();
            }
            Msg::Persisted(number) => self.driver.on(Input::Persisted(number)),
            Msg::Applied { index, conf_changes } => {
                for entry in conf_changes {
                    self.driver.on(Input::ConfChange(entry));
                }
                self.driver.on(Input::Applied(index));
            }
            Msg::Campaign => self.driver.on(Input::Campaign),
        }
    }

    async fn perform(&mut self, output: Output) {
        match output {
            Output::Send(messages) => (self.outlets.on_send)(messages),
            Output::Persist { number, hard_state, entries } => {
                let records = entries.into_iter().map(Record::Entry);
                let records = records.chain(hard_state.map(Record::HardState)).collect();
                self.outlets.wal.persist(number, records).await;
            }
            Output::Commit(entries) => self.outlets.apply.commit(entries).await,
            Output::ReadAt { read, index } => {
                if let Some((executor, round)) = self.reads.remove(&read) {
                    self.outlets.apply.read_at(executor, round, index).await;
                }
            }
            Output::ProposalsDropped(proposals) => self.homeless.extend(proposals),
            Output::Role(role) => self.on_role(role),
        }
    }

    fn on_role(&mut self, role: Role) {
        if role.leader.is_some_and(|leader| self.role.leader != Some(leader)) {
            metrics::LEADER_CHANGES.add(1);
        }
        self.role = role;
        self.shared.set_role(role);
        (self.outlets.on_role)(role);
        self.propose_homeless();
    }

    /// A leader refuses too: while it hands over, and while too much is on its way. Those are made again with
    /// the next tick, one by one, so that each goes as soon as it fits.
    fn propose_homeless(&mut self) {
        if self.role.leader.is_some() {
            for proposal in std::mem::take(&mut self.homeless) {
                self.driver.on(Input::Propose(vec![proposal]));
            }
        }
    }
}
