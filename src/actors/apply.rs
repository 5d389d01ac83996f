//! Hosts [`crate::machine`], the single writer of the replicated state. One per member.
//!
//! Committed entries become batches: applied, committed to the store at once, published, and only then
//! answered, so that whoever has an answer finds it in the published state. Between batches it lets others
//! run and does a slice of compaction.

use std::cell::Cell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use basalt_proto::mvccpb;
use bytes::Bytes;
use futures_lite::future::yield_now;
use prost::Message as _;

use super::desk::{self, Delivery};
use super::peer::Peers;
use super::slow_apply::warn_if_slow;
use super::state::{Shared, State};
use super::{consensus, lease, wal, watch};
use crate::cluster::Version;
use crate::io::clock::Moment;
use crate::io::{DiskMonitor, Incoming, LsmEngine, LsmView, blocking, clock, spawn};
use crate::machine::{Applied, Effect, Machine, Published};
use crate::metrics;
use crate::mvcc::{Event, ReadView};
use crate::store::Engine as _;
use crate::types::{Entry, EntryKind, Fault, LeaseId, LogIndex, MemberId, Refusal};

/// Messages from consensus that may wait.
pub const MAILBOX: usize = 1024;

/// Entries in one batch: enough to share the cost of a commit, few enough that heartbeats, which share this
/// executor on small machines, never wait long.
const BATCH_ENTRIES_MAX: usize = 1024;

/// How often the store's files are looked at when nothing is applied.
const REFRESH: Duration = Duration::from_millis(500);
/// How long to wait for a store whose flushes and merges are behind, before it is asked again.
const BEHIND: Duration = Duration::from_millis(2);
/// How long to wait until a store that cannot be written is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// Between two cuts of the log: each syncs the store, which under full load costs a third of the throughput if it
/// happens every 10,000 entries, and for some milliseconds everyone waits.
const CUT_PAUSE: Duration = Duration::from_secs(4);
/// The same while the log lacks room for another segment.
const CUT_PAUSE_FULL: Duration = Duration::from_millis(500);
/// Bytes of entries after which the log is cut in any case: of large values the pause alone would let it grow to
/// gigabytes.
const CUT_BYTES: usize = 256 << 20;

/// Log records looked at in one slice of compaction.
const COMPACT_SLICE: usize = 250;

/// What the actor can be asked.
pub enum Msg {
    /// Answered by [`consensus::Msg::Applied`]. Consensus waits if the mailbox is full.
    Commit(Vec<Entry>),
    /// Answered by a [`Delivery`] once `index` is applied. Consensus waits if the mailbox is full.
    ReadAt {
        /// Whom to answer.
        executor: usize,
        /// The executor's number of the round.
        round: u64,
        /// What must be applied.
        index: LogIndex,
    },
    /// Another member's state replaces this one's; answered when it is published.
    Install(Box<Prepared>, flume::Sender<()>),
    /// Answers with a lease's keys. The session waits if the mailbox is full.
    LeaseKeys(LeaseId, flume::Sender<Vec<Bytes>>),
    /// Answers when no compaction is under way. The session waits if the mailbox is full.
    CompactionDone(flume::Sender<()>),
    /// Publishes again if the store's files changed, so that those go that only an older view reads; answered then.
    /// Skipped by the clock if the mailbox is full.
    Refresh(Option<flume::Sender<()>>),
    /// Answers with the engine that the store is in. The session waits if the mailbox is full.
    Engine(flume::Sender<LsmEngine>),
    /// The member stops: makes durable what is applied, and answers then.
    Close(flume::Sender<()>),
}

/// Another member's state, in a store of its own.
pub struct Prepared {
    /// Opened on that store.
    pub machine: Machine<LsmEngine>,
    /// Where it is.
    pub incoming: Incoming,
}

/// Cheap to clone.
#[derive(Clone)]
pub struct Handle(flume::Sender<Msg>);

impl Handle {
    pub(super) async fn commit(&self, entries: Vec<Entry>) {
        drop(self.0.send_async(Msg::Commit(entries)).await);
    }

    pub(super) async fn read_at(&self, executor: usize, round: u64, index: LogIndex) {
        drop(self.0.send_async(Msg::ReadAt { executor, round, index }).await);
    }

    pub(super) async fn install(&self, prepared: Box<Prepared>) {
        let (sender, done) = flume::bounded(1);
        if self.0.send_async(Msg::Install(prepared, sender)).await.is_ok() {
            let _ = done.recv_async().await;
        }
    }

    pub(super) async fn lease_keys(&self, id: LeaseId) -> Result<Vec<Bytes>, Refusal> {
        let (sender, answer) = flume::bounded(1);
        self.0.send_async(Msg::LeaseKeys(id, sender)).await.map_err(|_| Refusal::Stopped)?;
        answer.recv_async().await.map_err(|_| Refusal::Stopped)
    }

    /// The engine that the store is in now; none if the member stops.
    pub(super) async fn engine(&self) -> Option<LsmEngine> {
        let (sender, answer) = flume::bounded(1);
        self.0.send_async(Msg::Engine(sender)).await.ok()?;
        answer.recv_async().await.ok()
    }

    /// Publishes the store as it is on disk now.
    pub(super) async fn refresh(&self) {
        let (sender, answer) = flume::bounded(1);
        if self.0.send_async(Msg::Refresh(Some(sender))).await.is_ok() {
            let _ = answer.recv_async().await;
        }
    }

    /// Makes durable what is applied, so that the next start need not apply it again.
    pub async fn close(&self) {
        let (sender, answer) = flume::bounded(1);
        if self.0.send_async(Msg::Close(sender)).await.is_ok() {
            let _ = answer.recv_async().await;
        }
    }

    pub(super) async fn compaction_done(&self) {
        let (sender, answer) = flume::bounded(1);
        if self.0.send_async(Msg::CompactionDone(sender)).await.is_ok() {
            let _ = answer.recv_async().await;
        }
    }
}

/// The actor's mailbox.
pub fn mailbox() -> (Handle, flume::Receiver<Msg>) {
    let (sender, receiver) = flume::bounded(MAILBOX);
    (Handle(sender), receiver)
}

/// Has the state published again now and then, for when nothing is applied.
pub async fn refreshes(apply: Handle) {
    loop {
        clock::sleep(REFRESH).await;
        if let Err(flume::TrySendError::Disconnected(_)) = apply.0.try_send(Msg::Refresh(None)) {
            return;
        }
    }
}

/// Who hears of what.
pub struct Outlets {
    /// Hears what is applied.
    pub consensus: consensus::Handle,
    /// Hears who is a member.
    pub peers: Peers,
    /// Hears how far the log may be cut.
    pub wal: wal::Handle,
    /// Hears of leases.
    pub lease: lease::Handle,
    /// One hub per executor.
    pub hubs: Vec<watch::Handle>,
    /// One desk per executor.
    pub desks: Vec<flume::Sender<Delivery>>,
    /// The executor this actor runs on.
    pub here: usize,
    /// Part of the ids of requests made since this start.
    pub boot_nonce: u32,
    /// `--snapshot-count`: applied entries after which the log is cut.
    pub snapshot_count: u64,
    /// The room on the disk of the store.
    pub disk: DiskMonitor,
}

struct Actor {
    machine: Machine<LsmEngine>,
    outlets: Outlets,
    shared: Arc<Shared>,
    deliveries: Vec<Delivery>,
    /// Reads of an index that is not applied yet.
    reads: VecDeque<(LogIndex, usize, u64)>,
    compacting: bool,
    /// When compaction was asked for; none while the member looks whether there is something left of its last
    /// life.
    compacting_since: Option<Moment>,
    compaction_waiters: Vec<flume::Sender<()>>,
    /// Log records that compaction looked at since its last pause, and when that began.
    compacted_since_pause: usize,
    compaction_paused: Option<Moment>,
    /// Where the log was last cut.
    mark: LogIndex,
    /// Bytes of the entries since then.
    uncut_bytes: usize,
    /// When that was; none before the first time.
    cut_at: Option<Moment>,
    /// Whether a cut is under way.
    cutting: Rc<Cell<bool>>,
    /// The store's bytes on disk and its files, as published last.
    disk_bytes: u64,
    changes: u64,
}

/// Serves until all handles are gone.
///
/// # Errors
/// The store failed, or an entry makes no sense: this member must stop.
pub async fn run(
    machine: Machine<LsmEngine>,
    inbox: flume::Receiver<Msg>,
    outlets: Outlets,
    shared: Arc<Shared>,
) -> Result<(), Fault> {
    let deliveries = outlets.desks.iter().map(|_| Delivery::default()).collect();
    let mark = machine.applied();
    let (disk_bytes, changes) = (machine.engine().disk_bytes(), machine.engine().changes());
    machine.engine().note_usage(machine.usage().logical);
    outlets.disk.owe(machine.engine().unflushed());
    let mut actor = Actor {
        machine,
        outlets,
        shared,
        deliveries,
        reads: VecDeque::new(),
        compacting: true,
        compacting_since: None,
        compaction_waiters: Vec::new(),
        compacted_since_pause: 0,
        compaction_paused: None,
        mark,
        uncut_bytes: 0,
        cut_at: None,
        cutting: Rc::default(),
        disk_bytes,
        changes,
    };
    loop {
        let msg = match inbox.try_recv() {
            Ok(msg) => msg,
            Err(_) if actor.compacting => match actor.compaction_pause() {
                None => {
                    actor.compact().await?;
                    continue;
                }
                Some(pause) => match clock::deadline(pause, inbox.recv_async()).await {
                    None => continue,
                    Some(Ok(msg)) => msg,
                    Some(Err(flume::RecvError::Disconnected)) => return Ok(()),
                },
            },
            Err(_) => match inbox.recv_async().await {
                Ok(msg) => msg,
                Err(flume::RecvError::Disconnected) => return Ok(()),
            },
        };
        actor.on(msg, &inbox).await?;
    }
}

/// The state to publish: `read` and what the machine knows beside it.
pub fn state_of(
    machine: &Machine<LsmEngine>,
    read: ReadView<LsmView>,
    member_id: MemberId,
    disk_bytes: u64,
) -> State {
    let conf_state = machine.conf_state();
    let alone = conf_state.voters == [member_id] && conf_state.voters_outgoing.is_empty();
    State {
        read,
        alarms: machine.alarms(),
        members: machine.cluster().members().cloned().collect(),
        cluster_version: machine.cluster().version(),
        applied: machine.applied(),
        applied_term: machine.applied_term(),
        disk_bytes,
        sole_voter: alone,
    }
}

/// Says that the cluster speaks another version from now on.
fn tell_version(before: Option<Version>, now: Option<Version>) {
    if before == now {
        return;
    }
    let short = |version: Option<Version>| version.map(Version::short).unwrap_or_default();
    let (from, to) = (short(before), short(now));
    match before {
        None => tracing::info!(cluster_version = to, "set initial cluster version"),
        Some(_) => tracing::info!(from, to, "updated cluster version"),
    }
}

/// Counts what was done to keys.
fn count(events: &[Event]) {
    let deletes = events.iter().filter(|event| event.delete).count();
    metrics::DELETES.add(deletes as u64);
    metrics::PUTS.add((events.len() - deletes) as u64);
    // The changes of one transaction follow each other; the second one makes it count.
    let seconds = events.iter().filter(|event| event.revision.sub == 1).count();
    metrics::TXNS.add(seconds as u64);
    metrics::PUT_BYTES.add(events.iter().map(put_bytes).sum());
}

/// Bytes of a put's key and value.
fn put_bytes(event: &Event) -> i64 {
    if event.delete {
        return 0;
    }
    let kv = mvccpb::Event::decode(event.encoded.clone()).ok().and_then(|event| event.kv);
    kv.map_or(0, |kv| (kv.key.len() + kv.value.len()) as i64)
}

impl Actor {
    /// The state to publish.
    fn state(&mut self, read: ReadView<LsmView>) -> State {
        let engine = self.machine.engine();
        (self.disk_bytes, self.changes) = (engine.disk_bytes(), engine.changes());
        engine.note_usage(read.usage.logical);
        state_of(&self.machine, read, self.shared.node.member_id, self.disk_bytes)
    }

    async fn on(&mut self, msg: Msg, inbox: &flume::Receiver<Msg>) -> Result<(), Fault> {
        match msg {
            Msg::Commit(entries) => {
                let mut rest = &entries[..];
                while !rest.is_empty() {
                    while self.machine.engine().is_behind() {
                        clock::sleep(BEHIND).await;
                    }
                    let (batch, later) = rest.split_at(rest.len().min(BATCH_ENTRIES_MAX));
                    self.apply(batch).await?;
                    rest = later;
                    if !(rest.is_empty() && inbox.is_empty()) {
                        yield_now().await;
                    }
                }
            }
            Msg::ReadAt { executor, round, index } => {
                self.reads.push_back((index, executor, round));
                self.release_reads();
                self.deliver();
            }
            Msg::Install(prepared, done) => {
                self.install(*prepared).await?;
                let _ = done.try_send(());
            }
            Msg::LeaseKeys(id, answer) => drop(answer.try_send(self.machine.lease_keys(id))),
            Msg::CompactionDone(answer) if self.compacting => self.compaction_waiters.push(answer),
            Msg::CompactionDone(answer) => drop(answer.try_send(())),
            Msg::Refresh(answer) => {
                self.refresh()?;
                answer.map(|answer| answer.try_send(()));
            }
            Msg::Engine(answer) => drop(answer.try_send(self.machine.engine().clone())),
            Msg::Close(answer) => {
                let engine = self.machine.engine().clone();
                if let Err(fault) = blocking(move || engine.persist()).await {
                    // Nothing is lost: the next start applies it from the log.
                    tracing::warn!(error = %fault, "the store could not be written before the end");
                }
                let _ = answer.try_send(());
            }
        }
        Ok(())
    }

    /// Publishes again if the store's files changed: the view that is published now keeps old ones.
    fn refresh(&mut self) -> Result<(), Fault> {
        let engine = self.machine.engine();
        if (engine.disk_bytes(), engine.changes()) == (self.disk_bytes, self.changes) {
            return Ok(());
        }
        let read = self.machine.commit()?.read;
        let state = self.state(read);
        self.shared.publish(state);
        Ok(())
    }

    async fn apply(&mut self, entries: &[Entry]) -> Result<(), Fault> {
        let mut effects = Vec::new();
        let has_changes = entries.iter().any(|entry| entry.kind != EntryKind::Normal);
        let mut began = Moment::now();
        for entry in entries {
            self.uncut_bytes += entry.data.len();
            let applied = self.machine.apply(entry)?;
            let ended = Moment::now();
            let took = ended.since(began);
            metrics::applied(applied.operation, applied.reply.is_ok(), took.as_secs_f64());
            warn_if_slow(took, self.shared.node.slow_apply, "", applied.operation);
            self.answer(applied, &mut effects);
            began = ended;
        }
        let bytes: usize = entries.iter().map(|entry| entry.data.len()).sum();
        self.outlets.disk.wait_for(bytes as u64).await;
        let published = self.machine.commit()?;
        metrics::STORE_COMMIT.observe(began.elapsed().as_secs_f64());
        count(&published.events);
        if has_changes {
            // After a restart raft must know these members, or it could lead where it is not enough: the log
            // alone would tell it too late.
            self.persist().await;
        }
        self.publish(published);
        let mut conf_changes = Vec::new();
        for effect in effects {
            if let Effect::ConfChanged(change) = effect {
                conf_changes.push(change);
            } else {
                self.perform(effect).await;
            }
        }
        if !conf_changes.is_empty() {
            self.outlets.peers.update(self.machine.cluster());
        }
        // Before the answers: whoever hears that the members changed may ask for the next change at once.
        self.outlets.consensus.applied(self.machine.applied(), conf_changes);
        self.release_reads();
        self.deliver();
        self.cut_log();
        Ok(())
    }

    /// Makes durable what is applied, however long the disk has no room for it.
    async fn persist(&self) {
        loop {
            let engine = self.machine.engine().clone();
            let Err(fault) = blocking(move || engine.persist()).await else { return };
            tracing::error!(error = %fault, "the members' change waits for the store");
            clock::sleep(RETRY).await;
        }
    }

    fn answer(&mut self, applied: Applied, effects: &mut Vec<Effect>) {
        effects.extend(applied.effects);
        let executor = desk::executor_of(applied.request, self.outlets.boot_nonce);
        if let Some(delivery) = executor.and_then(|executor| self.deliveries.get_mut(executor)) {
            delivery.replies.push((applied.request, applied.reply));
        }
    }

    fn publish(&mut self, published: Published<LsmView>) {
        let revision = published.read.revision;
        let state = self.state(published.read);
        tell_version(self.shared.state().cluster_version, state.cluster_version);
        self.shared.publish(state);
        for hub in &self.outlets.hubs {
            hub.events(&published.events, revision);
        }
    }

    async fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::LeaseGranted(grant) => {
                metrics::LEASES_GRANTED.add(1);
                metrics::LEASE_TTLS.observe(grant.ttl as f64);
                self.outlets.lease.granted(grant).await;
            }
            Effect::LeaseRevoked(id) => {
                metrics::LEASES_REVOKED.add(1);
                self.outlets.lease.revoked(id).await;
            }
            Effect::Compacted => {
                self.compacting = true;
                self.compacting_since.get_or_insert_with(Moment::now);
            }
            Effect::ConfChanged(_) => (),
        }
    }

    /// Goes on from another member's state. Who reads the old store may go on doing so.
    async fn install(&mut self, prepared: Prepared) -> Result<(), Fault> {
        let Prepared { machine, incoming } = prepared;
        let (index, term) = machine.position();
        if index <= self.machine.applied() {
            return Err(Fault::new("a snapshot would take this member back"));
        }
        metrics::SNAPSHOTS_APPLYING.add(1);
        blocking(move || incoming.install(index, term)).await?;
        let old = std::mem::replace(&mut self.machine, machine);
        self.outlets.disk.owe(self.machine.engine().unflushed());
        old.engine().abandon();
        // Closing a store waits for its threads.
        spawn(blocking(move || drop(old)));
        (self.mark, self.uncut_bytes, self.compacting) = (index, 0, true);
        let read = self.machine.commit()?.read;
        let state = self.state(read);
        self.shared.publish(state);
        self.outlets.lease.replaced(self.machine.leases().collect()).await;
        self.outlets.hubs.iter().for_each(watch::Handle::resync);
        self.outlets.peers.update(self.machine.cluster());
        metrics::SNAPSHOTS_APPLYING.add(-1);
        tracing::info!(index, term, "applied snapshot");
        self.release_reads();
        self.deliver();
        Ok(())
    }

    fn release_reads(&mut self) {
        let applied = self.machine.applied();
        let deliveries = &mut self.deliveries;
        self.reads.retain(|(index, executor, round)| {
            if *index <= applied {
                deliveries[*executor].reads.push(*round);
            }
            *index > applied
        });
    }

    /// Hands the answers out: to this executor directly, to the others as one message each.
    fn deliver(&mut self) {
        for (executor, delivery) in self.deliveries.iter_mut().enumerate() {
            if delivery.is_empty() {
                continue;
            }
            let delivery = std::mem::take(delivery);
            if executor == self.outlets.here {
                desk::deliver_here(delivery);
            } else {
                let sent = self.outlets.desks[executor].try_send(delivery);
                assert!(
                    !matches!(sent, Err(flume::TrySendError::Full(_))),
                    "more answers than requests"
                );
            }
        }
    }

    /// The rest of the pause between two batches of compaction (`--compaction-sleep-interval`), if there is one.
    fn compaction_pause(&self) -> Option<Duration> {
        let pause = self.shared.node.compaction_sleep;
        let left = pause.checked_sub(self.compaction_paused?.elapsed())?;
        (!left.is_zero()).then_some(left)
    }

    /// One slice, as a batch of its own.
    async fn compact(&mut self) -> Result<(), Fault> {
        let began = Moment::now();
        let batch = self.shared.node.compaction_batch;
        let slice = COMPACT_SLICE.min(batch);
        let done = self.machine.compact_step(slice)?;
        self.compacted_since_pause += slice;
        if self.compacted_since_pause >= batch {
            (self.compacted_since_pause, self.compaction_paused) = (0, Some(began));
        }
        let published = self.machine.commit()?;
        self.publish(published);
        let milliseconds = |since: Moment| since.elapsed().as_secs_f64() * 1000.0;
        if self.compacting_since.is_some() {
            metrics::COMPACTION_SLICE.observe(milliseconds(began));
        }
        if done {
            if let Some(since) = self.compacting_since.take() {
                metrics::COMPACTION.observe(milliseconds(since));
                metrics::COMPACTION_LAST.set(clock::unix_time().as_secs() as i64);
            }
            self.compacting = false;
            self.compaction_waiters.drain(..).for_each(|waiter| {
                let _ = waiter.try_send(());
            });
        }
        yield_now().await;
        Ok(())
    }

    /// Lets the log go that the store holds on disk, one cut at a time, with a pause between, and beside the
    /// work: what is applied is read before the store is synced, never after.
    fn cut_log(&mut self) {
        let index = self.machine.applied();
        let rested = self.cut_at.is_none_or(|cut_at| cut_at.elapsed() >= CUT_PAUSE);
        let is_due = rested && index - self.mark >= self.outlets.snapshot_count;
        // There is no room for another segment of the log: one of those that are there may be free after this.
        let is_needed = self.outlets.wal.room_left().is_some() && index > self.mark;
        let is_needed = is_needed && self.cut_at.is_none_or(|at| at.elapsed() >= CUT_PAUSE_FULL);
        if self.cutting.get() || !(is_due || is_needed || self.uncut_bytes >= CUT_BYTES) {
            return;
        }
        (self.mark, self.uncut_bytes, self.cut_at) = (index, 0, Some(Moment::now()));
        self.cutting.set(true);
        let (term, conf_state) = (self.machine.applied_term(), self.machine.conf_state().clone());
        let (engine, wal) = (self.machine.engine().clone(), self.outlets.wal.clone());
        let cutting = Rc::clone(&self.cutting);
        spawn(async move {
            match blocking(move || engine.persist()).await {
                Ok(()) => wal.mark(index, term, conf_state).await,
                // The log keeps what the store does not hold; the next time may do better.
                Err(fault) => tracing::error!(error = %fault, "the log cannot be cut"),
            }
            cutting.set(false);
        });
    }
}
