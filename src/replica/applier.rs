//! Hosts [`Machine`]: applies committed entries in batches and orders the notifications about them.
//!
//! A batch is committed to the store, then published, then acknowledged to raft, then answered: a client that has an
//! answer finds its effect in the published state, and one that was notified of a membership change may request the
//! next one at once.

use std::collections::VecDeque;
use std::time::Duration;

use super::pending::{Delivery, executor_of};
use super::truncation::{AppliedLog, LogStart, LogTruncation};
use crate::auth::Change;
use crate::lease::Grant;
use crate::machine::{Applied, Effect, Machine, Published};
use crate::store::Engine;
use crate::types::{ConfChange, Entry, EntryKind, Fault, LeaseId, LogIndex};

/// Entries applied during a compaction before its next slice: without a slice a member under constant load would never
/// compact, and with one after every small batch compaction would take most of the time.
const COMPACT_AFTER_ENTRIES: usize = 256;

/// A change of the leases, for [`super::LeaseKeeper`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LeaseChange {
    /// A lease was granted.
    Granted(Grant),
    /// A lease was revoked or expired.
    Revoked(LeaseId),
}

/// Work for the host, to be performed in the order given.
pub enum Output<V> {
    /// Make the committed state durable before anything else: after a restart raft must know these members, and
    /// replaying the log would configure them too late.
    Persist,
    /// Publish the new state to readers and the events to watchers.
    Publish(Published<V>),
    /// Forward the change to the lease keeper.
    Lease(LeaseChange),
    /// Replace all leases of the lease keeper after a snapshot, and make watchers read from history.
    Replaced(Vec<Grant>),
    /// Say that users or roles are not what they were.
    AuthChanged(Change),
    /// Update the peers from the membership.
    MembersChanged,
    /// Answer [`super::Input::Applied`].
    Applied {
        /// The last applied entry.
        index: LogIndex,
        /// Configuration changes among the entries.
        conf_changes: Vec<ConfChange>,
    },
    /// Send these answers to an executor.
    Deliver(usize, Delivery),
    /// Make the store durable, then truncate the log up to this entry, then call [`Applier::truncated`].
    TruncateLog(LogStart),
    /// A compaction was requested and begins.
    CompactionBegun,
    /// No compaction is in progress any more.
    Compacted,
}

/// Progress of an entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Progress {
    /// The entry is applied.
    Done,
    /// It needs [`Applier::step`].
    Large,
}

/// Properties of a member that do not change while it runs.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Number of executors with requests.
    pub executors: usize,
    /// Part of the ids of requests made since this start.
    pub boot_nonce: u32,
    /// `--snapshot-count`: applied entries after which the log is truncated.
    pub snapshot_count: u64,
    /// Log records looked at in one slice of compaction.
    pub slice_records: usize,
    /// `--compaction-batch-limit`: log records after which compaction pauses.
    pub compaction_batch: usize,
    /// `--compaction-sleep-interval`: that pause.
    pub compaction_pause: Duration,
}

/// A read that waits until its index is applied.
struct WaitingRead {
    index: LogIndex,
    executor: usize,
    batch: u64,
}

/// The apply side of one member.
pub struct Applier<E: Engine> {
    machine: Machine<E>,
    settings: Settings,
    /// Answers of the current batch, by executor.
    deliveries: Vec<Delivery>,
    reads: VecDeque<WaitingRead>,
    effects: Vec<Effect>,
    /// Bytes of the entries of the current batch.
    bytes: usize,
    has_conf_changes: bool,
    compacting: bool,
    /// Entries since the last slice of compaction.
    since_slice: usize,
    /// Log records looked at since the last pause of compaction, and the end of that pause.
    since_pause: usize,
    resumes_at: Duration,
    truncation: LogTruncation,
}

impl<E: Engine> Applier<E> {
    /// Continues from the machine's state. A compaction that an earlier run left unfinished is resumed.
    pub fn new(machine: Machine<E>, settings: &Settings, log: AppliedLog) -> Self {
        Self {
            truncation: LogTruncation::new(settings.snapshot_count, log),
            machine,
            settings: *settings,
            deliveries: (0..settings.executors).map(|_| Delivery::default()).collect(),
            reads: VecDeque::new(),
            effects: Vec::new(),
            bytes: 0,
            has_conf_changes: false,
            compacting: true,
            since_slice: 0,
            since_pause: 0,
            resumes_at: Duration::ZERO,
        }
    }

    /// The state machine.
    pub fn machine(&self) -> &Machine<E> {
        &self.machine
    }

    /// Applies the next entry of the current batch, and passes its result to `observe`. Nothing is visible to readers
    /// before [`Applier::commit`]. [`Progress::Large`] if it takes steps, of which none is made: the batch should be
    /// committed first, so that the entries before it need not wait.
    ///
    /// # Errors
    /// The store failed, or the entry is invalid: this member must stop.
    pub fn begin(
        &mut self,
        entry: &Entry,
        observe: impl FnOnce(&Applied),
    ) -> Result<Progress, Fault> {
        let applied = self.machine.begin(entry)?;
        self.bytes += entry.data.len();
        self.since_slice += 1;
        self.truncation.applied(entry.data.len());
        self.has_conf_changes |= entry.kind != EntryKind::Normal;
        if applied.is_none() {
            for read in &self.reads {
                self.deliveries[read.executor].indexed.push(read.batch);
            }
        }
        Ok(self.progress(applied, observe))
    }

    /// Performs one step of a large entry. Between steps reads may be added; no other call is allowed.
    ///
    /// # Errors
    /// As [`Applier::begin`].
    pub fn step(
        &mut self,
        records: usize,
        observe: impl FnOnce(&Applied),
    ) -> Result<Progress, Fault> {
        let applied = self.machine.step(records)?;
        Ok(self.progress(applied, observe))
    }

    fn progress(&mut self, applied: Option<Applied>, observe: impl FnOnce(&Applied)) -> Progress {
        let Some(applied) = applied else { return Progress::Large };
        observe(&applied);
        self.effects.extend(applied.effects);
        let executor = executor_of(applied.request, self.settings.boot_nonce);
        if let Some(delivery) = executor.and_then(|it| self.deliveries.get_mut(it)) {
            delivery.replies.push((applied.request, applied.reply));
        }
        Progress::Done
    }

    /// Bytes of the entries of the current batch.
    pub fn batch_bytes(&self) -> usize {
        self.bytes
    }

    /// Commits the current batch. `now` and `log_is_full` determine if the log is truncated.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn commit(
        &mut self,
        now: Duration,
        log_is_full: bool,
        out: &mut Vec<Output<E::View>>,
    ) -> Result<(), Fault> {
        let published = self.machine.commit()?;
        self.bytes = 0;
        if std::mem::take(&mut self.has_conf_changes) {
            out.push(Output::Persist);
        }
        out.push(Output::Publish(published));
        let mut conf_changes = Vec::new();
        for effect in self.effects.drain(..) {
            match effect {
                Effect::LeaseGranted(grant) => {
                    out.push(Output::Lease(LeaseChange::Granted(grant)));
                }
                Effect::LeaseRevoked(id) => out.push(Output::Lease(LeaseChange::Revoked(id))),
                Effect::ConfChanged(change) => conf_changes.push(change),
                Effect::AuthChanged(change) => out.push(Output::AuthChanged(change)),
                Effect::Compacted => {
                    self.compacting = true;
                    out.push(Output::CompactionBegun);
                }
            }
        }
        if !conf_changes.is_empty() {
            out.push(Output::MembersChanged);
        }
        let index = self.machine.applied();
        out.push(Output::Applied { index, conf_changes });
        self.release_reads();
        self.deliver(out);
        self.truncate_log(now, log_is_full, out);
        Ok(())
    }

    /// Truncates the log if that is due. Called without a commit too: a log that is full takes no entries, so that nothing
    /// more may be applied until a truncation that failed is tried again.
    pub fn truncate_log(
        &mut self,
        now: Duration,
        log_is_full: bool,
        out: &mut Vec<Output<E::View>>,
    ) {
        let index = self.machine.applied();
        if self.truncation.begin(index, now, log_is_full) {
            let (term, conf_state) =
                (self.machine.applied_term(), self.machine.conf_state().clone());
            out.push(Output::TruncateLog(LogStart { index, term, conf_state }));
        }
    }

    /// A truncation is over; one that failed is tried again.
    pub fn truncated(&mut self, is_truncated: bool) {
        self.truncation.finish(is_truncated);
    }

    /// A batch of reads may be served once `index` is applied.
    pub fn read_at(
        &mut self,
        executor: usize,
        batch: u64,
        index: LogIndex,
        out: &mut Vec<Output<E::View>>,
    ) {
        let delivery = &mut self.deliveries[executor];
        if index <= self.machine.applied() {
            delivery.reads.push(batch);
        } else {
            self.reads.push_back(WaitingRead { index, executor, batch });
            if !self.machine.is_in_steps() {
                return;
            }
            delivery.indexed.push(batch);
        }
        self.deliver(out);
    }

    fn release_reads(&mut self) {
        let applied = self.machine.applied();
        let deliveries = &mut self.deliveries;
        self.reads.retain(|read| {
            if read.index <= applied {
                deliveries[read.executor].reads.push(read.batch);
            }
            read.index > applied
        });
    }

    fn deliver(&mut self, out: &mut Vec<Output<E::View>>) {
        let waiting = self.deliveries.iter_mut().enumerate().filter(|(_, it)| !it.is_empty());
        out.extend(waiting.map(|(executor, it)| Output::Deliver(executor, std::mem::take(it))));
    }

    /// Replaces the state by that of another member; returns the previous machine. Readers of the old store
    /// are not affected.
    ///
    /// # Errors
    /// The snapshot is older than the applied state, or its store failed.
    pub fn install(
        &mut self,
        machine: Machine<E>,
        out: &mut Vec<Output<E::View>>,
    ) -> Result<Machine<E>, Fault> {
        let (index, applied) = (machine.applied(), self.machine.applied());
        if index <= applied {
            return Err(Fault::new(format!(
                "a snapshot of {index} would take this member back from {applied}"
            )));
        }
        let old = std::mem::replace(&mut self.machine, machine);
        self.truncation.restart(index);
        self.compacting = true;
        out.push(Output::Publish(self.machine.commit()?));
        out.push(Output::Replaced(self.machine.leases().collect()));
        out.push(Output::MembersChanged);
        self.release_reads();
        self.deliver(out);
        Ok(old)
    }

    /// True if a compaction is in progress.
    pub fn is_compacting(&self) -> bool {
        self.compacting
    }

    /// True if the next slice of compaction is due. `is_idle`: no messages wait.
    pub fn is_compaction_due(&self, now: Duration, is_idle: bool) -> bool {
        let waited = is_idle || self.since_slice >= COMPACT_AFTER_ENTRIES;
        self.compacting && waited && now >= self.resumes_at
    }

    /// Time until the next slice is due if there is no other work; `None` if no compaction is in progress.
    pub fn compaction_due_in(&self, now: Duration) -> Option<Duration> {
        self.compacting.then(|| self.resumes_at.saturating_sub(now))
    }

    /// Does one slice of compaction, as a batch of its own.
    ///
    /// # Errors
    /// The store failed.
    pub fn compact(&mut self, now: Duration, out: &mut Vec<Output<E::View>>) -> Result<(), Fault> {
        let batch = self.settings.compaction_batch;
        let records = self.settings.slice_records.min(batch);
        self.since_slice = 0;
        let is_done = self.machine.compact_step(records)?;
        self.since_pause += records;
        if self.since_pause >= batch {
            (self.since_pause, self.resumes_at) = (0, now + self.settings.compaction_pause);
        }
        out.push(Output::Publish(self.machine.commit()?));
        if is_done {
            self.compacting = false;
            out.push(Output::Compacted);
        }
        Ok(())
    }

    /// The present state, to be published again: the store's files changed.
    ///
    /// # Errors
    /// The store failed.
    pub fn refresh(&mut self) -> Result<Published<E::View>, Fault> {
        self.machine.commit()
    }
}
