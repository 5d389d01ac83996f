//! Hosts [`Applier`], the single writer of the replicated state. One per member.
//!
//! Committed entries become batches: applied, committed to the store at once, and then performed in the applier's
//! order. The task yields after each slice of a batch. Between batches a compaction runs its slice.

mod publish;
mod report;
mod store;

use std::cell::Cell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures_lite::future::yield_now;

pub use self::publish::{refreshes, state_of};
use super::auth_log::log_change;
use super::client::Pending;
use super::mailbox::apply::Msg;
use super::mailbox::peer::Peers;
use super::mailbox::{consensus, lease, wal};
use super::state::Shared;
use super::tokens::Tokens;
use super::watch;
use crate::auth::AuthInfo;
use crate::io::clock::Instant;
use crate::io::{DiskMonitor, LsmEngine, LsmView, Pool, clock};
use crate::metrics;
use crate::replica::{Applier, ApplierOutput as Output, Delivery, Progress};
use crate::store::Engine as _;
use crate::types::limits::{APPLY_BATCH_BYTES, APPLY_STEP_RECORDS};
use crate::types::{Entry, Fault, LeaseId};

/// Time for which entries are applied before the task yields.
const SLICE: Duration = Duration::from_micros(500);

/// Pause before the store is asked again if its flushes and merges are still behind.
const BEHIND: Duration = Duration::from_millis(2);

/// The actors that perform outputs.
pub struct Outputs {
    /// Receives acknowledgements.
    pub consensus: consensus::Handle,
    /// Receives changes of the members.
    pub peers: Peers,
    /// Truncates the log.
    pub wal: wal::Handle,
    /// Receives changes of leases.
    pub lease: lease::Handle,
    /// One hub per executor.
    pub hubs: Vec<watch::Handle>,
    /// The channel of answers of each executor.
    pub deliveries: Vec<flume::Sender<Delivery>>,
    /// The executor of this actor, and its requests.
    pub here: (usize, Pending),
    /// The monitor of the free space on the disk of the store.
    pub disk: DiskMonitor,
    /// The tokens of all users.
    pub tokens: Arc<Tokens>,
}

struct Actor {
    applier: Applier<LsmEngine>,
    outputs: Outputs,
    shared: Arc<Shared>,
    /// Time of the compaction request; `None` while a compaction left unfinished by a previous run is being resumed.
    compacting_since: Option<Instant>,
    compaction_waiters: Vec<flume::Sender<()>>,
    /// Messages received while a large entry was applied. Bounded by consensus, through the number of entries that are
    /// committed and not applied, and by the number of sessions.
    later: VecDeque<Msg>,
    /// The result of a truncation of the log that has ended: whether the log was truncated.
    truncated: Rc<Cell<Option<bool>>>,
    /// The store's bytes on disk and its files, as published last.
    disk_bytes: u64,
    changes: u64,
    /// Scratch: empty between calls.
    out: Vec<Output<LsmView>>,
}

/// Runs until all handles are dropped.
///
/// # Errors
/// The store failed, or an entry is invalid: this member must stop.
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
            Msg::CheckLeases { who, action, leases, answer } => {
                let (machine, who) = (self.applier.machine(), who.as_ref());
                let check = |lease: &LeaseId| {
                    machine.check_lease(who.map(AuthInfo::principal), action, *lease)
                };
                let _ = answer.try_send(leases.iter().try_for_each(check));
            }
            Msg::CompactionDone(answer) if self.applier.is_compacting() => {
                self.compaction_waiters.push(answer);
            }
            Msg::CompactionDone(answer) => drop(answer.try_send(())),
            Msg::Refresh(answer) => {
                self.refresh()?;
                answer.map(|answer| answer.try_send(()));
                self.truncate_if_due().await;
            }
            Msg::Engine(answer) => drop(answer.try_send(self.engine())),
            Msg::Close(answer) => {
                let engine = self.engine();
                if let Err(fault) = Pool::Durable.run(move || engine.persist()).await {
                    // Nothing is lost: the next start applies the entries from the log again.
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
        self.note_truncation();
        self.pause_if_behind().await;
        let mut slice = Instant::now();
        let mut now = slice;
        let slow = self.shared.node.slow_apply;
        for entry in entries {
            if self.applier.begin(entry, |it| report::observe(it, slow, &mut now))?
                == Progress::Large
            {
                self.apply_large(inbox).await?;
                now = Instant::now();
            }
            if now.since(slice) >= SLICE {
                // Not at each slice: each commit makes every executor load the published state.
                if self.applier.batch_bytes() >= APPLY_BATCH_BYTES {
                    self.commit().await?;
                }
                yield_now().await;
                self.pause_if_behind().await;
                slice = Instant::now();
                now = slice;
            }
        }
        self.commit().await
    }

    /// Applies an entry in steps. The entries before it are answered first. Nothing but reads is taken from the mailbox
    /// before it is committed: other messages would see a part of it.
    async fn apply_large(&mut self, inbox: &flume::Receiver<Msg>) -> Result<(), Fault> {
        self.commit().await?;
        self.pause_if_behind().await;
        let slow = self.shared.node.slow_apply;
        let mut began = Instant::now();
        let mut slice = began;
        while self.applier.step(APPLY_STEP_RECORDS, |it| report::observe(it, slow, &mut began))?
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

    /// Takes the waiting reads from the mailbox, to free its capacity: consensus must never wait for a large entry.
    async fn take_reads(&mut self, inbox: &flume::Receiver<Msg>) {
        for msg in inbox.try_iter() {
            if let Msg::ReadAt { executor, batch, index } = msg {
                self.applier.read_at(executor, batch, index, &mut self.out);
            } else if msg.waits_for_large_entry() {
                self.later.push_back(msg);
            }
        }
        self.perform().await;
    }

    /// Yields as long as the store's flushes and merges are behind.
    async fn pause_if_behind(&self) {
        while self.applier.machine().engine().is_behind() {
            clock::sleep(BEHIND).await;
        }
    }

    /// Commits the applied batch, and performs the outputs.
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
                    report::count_lease(&change);
                    self.outputs.lease.changed(change).await;
                }
                Output::Replaced(leases) => {
                    self.outputs.tokens.replace(Arc::clone(self.applier.machine().tokens()));
                    self.outputs.lease.replaced(leases).await;
                    self.outputs.hubs.iter().for_each(watch::Handle::resync);
                }
                Output::AuthChanged(change) => log_change(&change),
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

    /// One slice of compaction, as a batch of its own.
    async fn compact(&mut self) -> Result<(), Fault> {
        let began = Instant::now();
        self.applier.compact(clock::since_boot(), &mut self.out)?;
        if self.compacting_since.is_some() {
            metrics::COMPACTION_SLICE.observe(report::milliseconds(began));
        }
        self.perform().await;
        yield_now().await;
        Ok(())
    }

    fn compacted(&mut self) {
        if let Some(since) = self.compacting_since.take() {
            metrics::COMPACTION.observe(report::milliseconds(since));
            metrics::COMPACTION_LAST.set(clock::unix_time().as_secs() as i64);
        }
        for waiter in self.compaction_waiters.drain(..) {
            let _ = waiter.try_send(());
        }
    }
}
