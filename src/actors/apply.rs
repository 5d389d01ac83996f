//! Hosts [`Applier`], the single writer of the replicated state. One per member.
//!
//! Committed entries become batches: applied, committed to the store at once, and then performed in the applier's order.
//! Between batches others run, and a compaction gets its slice.

use std::cell::Cell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures_lite::future::yield_now;

use super::client::Pending;
use super::mailbox::apply::{Handle, Msg, Prepared};
use super::mailbox::peer::Peers;
use super::mailbox::{consensus, lease, wal};
use super::slow_apply::warn_if_slow;
use super::state::{Shared, State};
use super::watch;
use crate::cluster::Version;
use crate::io::clock::Instant;
use crate::io::{DiskMonitor, LsmEngine, LsmView, Pool, clock, spawn};
use crate::machine::{Applied, Machine, Published};
use crate::metrics;
use crate::mvcc::{Changes, ReadView};
use crate::replica::{Applier, ApplierOutput as Output, Delivery, LeaseChange, LogStart, Progress};
use crate::store::Engine as _;
use crate::types::limits::APPLY_STEP_RECORDS;
use crate::types::{Entry, Fault, MemberId};

/// How long entries are applied before others run.
const SLICE: Duration = Duration::from_micros(500);

/// How often the store's files are looked at when nothing is applied.
const REFRESH: Duration = Duration::from_millis(500);
/// How long to wait for a store whose flushes and merges are behind, before it is asked again.
const BEHIND: Duration = Duration::from_millis(2);
/// How long to wait until a store that cannot be written is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// Has the state published again now and then, for when nothing is applied.
pub async fn refreshes(apply: Handle) {
    while apply.try_refresh() {
        clock::sleep(REFRESH).await;
    }
}

/// The actors that perform outputs.
pub struct Outputs {
    /// Learns what is applied.
    pub consensus: consensus::Handle,
    /// Learns who is a member.
    pub peers: Peers,
    /// Truncates the log.
    pub wal: wal::Handle,
    /// Learns of leases.
    pub lease: lease::Handle,
    /// One hub per executor.
    pub hubs: Vec<watch::Handle>,
    /// Answers for each executor.
    pub deliveries: Vec<flume::Sender<Delivery>>,
    /// The executor this actor runs on, and its requests.
    pub here: (usize, Pending),
    /// The room on the disk of the store.
    pub disk: DiskMonitor,
}

struct Actor {
    applier: Applier<LsmEngine>,
    outputs: Outputs,
    shared: Arc<Shared>,
    /// When compaction was asked for; none while one that an earlier run left is looked for.
    compacting_since: Option<Instant>,
    compaction_waiters: Vec<flume::Sender<()>>,
    /// Taken from the mailbox while a large entry was applied. Consensus and sessions bound it, by the entries that they let
    /// be committed and not applied, and by their own number.
    later: VecDeque<Msg>,
    /// Whether a truncation of the log has ended.
    truncated: Rc<Cell<bool>>,
    /// The store's bytes on disk and its files, as published last.
    disk_bytes: u64,
    changes: u64,
    /// Scratch: empty between calls.
    out: Vec<Output<LsmView>>,
}

/// Serves until all handles are gone.
///
/// # Errors
/// The store failed, or an entry makes no sense: this member must stop.
pub async fn run(
    applier: Applier<LsmEngine>,
    inbox: flume::Receiver<Msg>,
    outputs: Outputs,
    shared: Arc<Shared>,
) -> Result<(), Fault> {
    let machine = applier.machine();
    let (disk_bytes, changes) = (machine.engine().disk_bytes(), machine.engine().changes());
    machine.engine().note_usage(machine.usage().logical);
    outputs.disk.owe(machine.engine().unflushed());
    let mut actor = Actor {
        applier,
        outputs,
        shared,
        compacting_since: None,
        compaction_waiters: Vec::new(),
        later: VecDeque::new(),
        truncated: Rc::default(),
        disk_bytes,
        changes,
        out: Vec::new(),
    };
    loop {
        let is_idle = actor.later.is_empty() && inbox.is_empty();
        if actor.applier.is_compaction_due(clock::since_boot(), is_idle) {
            actor.compact().await?;
        }
        let msg = match actor.later.pop_front().map_or_else(|| inbox.try_recv(), Ok) {
            Ok(msg) => Some(Ok(msg)),
            Err(_) => match actor.applier.compaction_due_in(clock::since_boot()) {
                None => Some(inbox.recv_async().await),
                Some(Duration::ZERO) => None,
                Some(wait) => clock::deadline(wait, inbox.recv_async()).await,
            },
        };
        let msg = match msg {
            Some(Ok(msg)) => msg,
            Some(Err(flume::RecvError::Disconnected)) => return Ok(()),
            None => continue,
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
        feature_level: machine.cluster().feature_level(),
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

/// Counts changes of keys.
fn count(changes: Changes) {
    metrics::DELETES.add(changes.deletes as u64);
    metrics::PUTS.add(changes.puts as u64);
    metrics::TXNS.add(changes.txns as u64);
    metrics::PUT_BYTES.add(changes.put_bytes);
}

/// Counts an entry that was applied since `began`, which moves on, and logs one that took longer than `slow`.
fn observe(applied: &Applied, slow: Duration, began: &mut Instant) {
    let ended = Instant::now();
    let took = ended.since(*began);
    if let Some(operation) = applied.operation {
        metrics::applied(operation, applied.reply.is_ok(), took.as_secs_f64());
        warn_if_slow(took, slow, "", operation.name());
    }
    *began = ended;
}

impl Actor {
    async fn on(&mut self, msg: Msg, inbox: &flume::Receiver<Msg>) -> Result<(), Fault> {
        match msg {
            Msg::Commit(entries) => self.apply_all(&entries, inbox).await?,
            Msg::ReadAt { executor, batch, index } => {
                self.applier.read_at(executor, batch, index, &mut self.out);
                self.perform().await;
            }
            Msg::Install(prepared, done) => {
                self.install(*prepared).await?;
                let _ = done.try_send(());
            }
            Msg::LeaseKeys(id, answer) => {
                drop(answer.try_send(self.applier.machine().lease_keys(id)));
            }
            Msg::CompactionDone(answer) if self.applier.is_compacting() => {
                self.compaction_waiters.push(answer);
            }
            Msg::CompactionDone(answer) => drop(answer.try_send(())),
            Msg::Refresh(answer) => {
                self.refresh()?;
                answer.map(|answer| answer.try_send(()));
            }
            Msg::Engine(answer) => drop(answer.try_send(self.engine())),
            Msg::Close(answer) => {
                let engine = self.engine();
                if let Err(fault) = Pool::Durable.run(move || engine.persist()).await {
                    // Nothing is lost: the next start applies it from the log.
                    tracing::warn!(error = %fault, "the store could not be written before the end");
                }
                let _ = answer.try_send(());
            }
        }
        Ok(())
    }

    fn engine(&self) -> LsmEngine {
        self.applier.machine().engine().clone()
    }

    async fn apply_all(
        &mut self,
        entries: &[Entry],
        inbox: &flume::Receiver<Msg>,
    ) -> Result<(), Fault> {
        if self.truncated.take() {
            self.applier.truncated();
        }
        self.pause_if_behind().await;
        let mut slice = Instant::now();
        let mut now = slice;
        let slow = self.shared.node.slow_apply;
        for entry in entries {
            if self.applier.begin(entry, |it| observe(it, slow, &mut now))? == Progress::Large {
                self.apply_large(inbox).await?;
                now = Instant::now();
            }
            if now.since(slice) >= SLICE {
                self.commit().await?;
                yield_now().await;
                self.pause_if_behind().await;
                slice = Instant::now();
                now = slice;
            }
        }
        self.commit().await
    }

    /// An entry that takes steps. The entries before it are answered first. Nothing but reads is taken from the mailbox
    /// before it is committed: anything else would find half of it.
    async fn apply_large(&mut self, inbox: &flume::Receiver<Msg>) -> Result<(), Fault> {
        self.commit().await?;
        self.pause_if_behind().await;
        let slow = self.shared.node.slow_apply;
        let mut began = Instant::now();
        let mut slice = began;
        while self.applier.step(APPLY_STEP_RECORDS, |it| observe(it, slow, &mut began))?
            == Progress::Large
        {
            if slice.elapsed() >= SLICE {
                self.take_reads(inbox).await;
                yield_now().await;
                slice = Instant::now();
            }
        }
        self.commit().await
    }

    /// Takes the reads that wait in the mailbox, so that it has room: consensus must never wait for a large entry.
    async fn take_reads(&mut self, inbox: &flume::Receiver<Msg>) {
        for msg in inbox.try_iter() {
            match msg {
                Msg::ReadAt { executor, batch, index } => {
                    self.applier.read_at(executor, batch, index, &mut self.out);
                }
                Msg::Refresh(None) => (),
                msg @ (Msg::Commit(_)
                | Msg::Install(..)
                | Msg::LeaseKeys(..)
                | Msg::CompactionDone(_)
                | Msg::Refresh(Some(_))
                | Msg::Engine(_)
                | Msg::Close(_)) => self.later.push_back(msg),
            }
        }
        self.perform().await;
    }

    /// Lets others run for as long as the store's flushes and merges are behind.
    async fn pause_if_behind(&self) {
        while self.applier.machine().engine().is_behind() {
            clock::sleep(BEHIND).await;
        }
    }

    /// Commits what was applied, and performs what follows from it.
    async fn commit(&mut self) -> Result<(), Fault> {
        let began = Instant::now();
        self.outputs.disk.wait_for(self.applier.batch_bytes() as u64).await;
        let log_is_full = self.outputs.wal.room_left().is_some();
        self.applier.commit(clock::since_boot(), log_is_full, &mut self.out)?;
        metrics::STORE_COMMIT.observe(began.elapsed().as_secs_f64());
        self.perform().await;
        Ok(())
    }

    async fn perform(&mut self) {
        let mut out = std::mem::take(&mut self.out);
        for output in out.drain(..) {
            match output {
                Output::Persist => self.persist().await,
                Output::Publish(published) => self.publish(published),
                Output::Lease(change) => {
                    count_lease(&change);
                    self.outputs.lease.changed(change).await;
                }
                Output::Replaced(leases) => {
                    self.outputs.lease.replaced(leases).await;
                    self.outputs.hubs.iter().for_each(watch::Handle::resync);
                }
                Output::MembersChanged => {
                    self.outputs.peers.update(self.applier.machine().cluster());
                }
                Output::Applied { index, conf_changes } => {
                    self.outputs.consensus.applied(index, conf_changes);
                }
                Output::Deliver(executor, delivery) => self.deliver(executor, delivery),
                Output::TruncateLog(start) => self.truncate_log(start),
                Output::CompactionBegun => {
                    self.compacting_since.get_or_insert_with(Instant::now);
                }
                Output::Compacted => self.compacted(),
            }
        }
        self.out = out;
    }

    /// Makes durable what is applied, however long the disk has no room for it.
    async fn persist(&self) {
        loop {
            let engine = self.engine();
            let Err(fault) = Pool::Durable.run(move || engine.persist()).await else { return };
            tracing::error!(error = %fault, "the members' change waits for the store");
            clock::sleep(RETRY).await;
        }
    }

    fn publish(&mut self, published: Published<LsmView>) {
        count(published.changes);
        let revision = published.read.revision;
        let state = self.state(published.read);
        let before = self.shared.state();
        tell_version(before.cluster_version, state.cluster_version);
        if before.feature_level != state.feature_level {
            let (from, to) = (before.feature_level.number(), state.feature_level.number());
            tracing::info!(from, to, "raised the feature level of the cluster");
        }
        self.shared.publish(state);
        for hub in &self.outputs.hubs {
            if published.left_out_events {
                hub.left_out();
            } else {
                hub.events(&published.events, revision);
            }
        }
    }

    /// The state to publish.
    fn state(&mut self, read: ReadView<LsmView>) -> State {
        let machine = self.applier.machine();
        let engine = machine.engine();
        (self.disk_bytes, self.changes) = (engine.disk_bytes(), engine.changes());
        engine.note_usage(read.usage.logical);
        state_of(machine, read, self.shared.node.member_id, self.disk_bytes)
    }

    /// To this executor directly, to the others as one message.
    fn deliver(&self, executor: usize, delivery: Delivery) {
        let (here, pending) = &self.outputs.here;
        if executor == *here {
            return pending.borrow_mut().deliver(delivery);
        }
        let sent = self.outputs.deliveries[executor].try_send(delivery);
        assert!(!matches!(sent, Err(flume::TrySendError::Full(_))), "more answers than requests");
    }

    /// Publishes again if the store's files changed: the view that is published now keeps old ones.
    fn refresh(&mut self) -> Result<(), Fault> {
        let engine = self.applier.machine().engine();
        if (engine.disk_bytes(), engine.changes()) == (self.disk_bytes, self.changes) {
            return Ok(());
        }
        let published = self.applier.refresh()?;
        self.publish(published);
        Ok(())
    }

    /// Goes on from another member's state.
    async fn install(&mut self, prepared: Prepared) -> Result<(), Fault> {
        let Prepared { machine, incoming } = prepared;
        let (index, term) = machine.position();
        let engine = machine.engine().clone();
        metrics::SNAPSHOTS_APPLYING.add(1);
        let old = self.applier.install(machine, &mut self.out)?;
        Pool::Durable.run(move || incoming.install(index, term)).await?;
        self.outputs.disk.owe(engine.unflushed());
        old.engine().abandon();
        // Closing a store waits for its threads.
        spawn(Pool::Durable.run(move || drop(old)));
        self.perform().await;
        metrics::SNAPSHOTS_APPLYING.add(-1);
        tracing::info!(index, term, "applied snapshot");
        Ok(())
    }

    /// One slice, as a batch of its own.
    async fn compact(&mut self) -> Result<(), Fault> {
        let began = Instant::now();
        self.applier.compact(clock::since_boot(), &mut self.out)?;
        if self.compacting_since.is_some() {
            metrics::COMPACTION_SLICE.observe(milliseconds(began));
        }
        self.perform().await;
        yield_now().await;
        Ok(())
    }

    fn compacted(&mut self) {
        if let Some(since) = self.compacting_since.take() {
            metrics::COMPACTION.observe(milliseconds(since));
            metrics::COMPACTION_LAST.set(clock::unix_time().as_secs() as i64);
        }
        for waiter in self.compaction_waiters.drain(..) {
            let _ = waiter.try_send(());
        }
    }

    /// Lets the log go that the store holds on disk, beside the work.
    fn truncate_log(&self, start: LogStart) {
        let (engine, wal) = (self.engine(), self.outputs.wal.clone());
        let truncated = Rc::clone(&self.truncated);
        spawn(async move {
            match Pool::Durable.run(move || engine.persist()).await {
                Ok(()) => wal.log_start(start.index, start.term, start.conf_state).await,
                // The log keeps what the store does not hold; the next time may do better.
                Err(fault) => tracing::error!(error = %fault, "the log cannot be truncated"),
            }
            truncated.set(true);
        });
    }
}

fn count_lease(change: &LeaseChange) {
    match change {
        LeaseChange::Granted(grant) => {
            metrics::LEASES_GRANTED.add(1);
            metrics::LEASE_TTLS.observe(grant.ttl as f64);
        }
        LeaseChange::Revoked(_) => metrics::LEASES_REVOKED.add(1),
    }
}

fn milliseconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1000.0
}
