//! The driver: inputs in, outputs out, raft-rs in between.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use raft::eraftpb::{self, Message, MessageType};
use raft::{ProgressState, RawNode, ReadOnlyOption, SnapshotStatus, StateRole};

use super::disks::Disks;
use super::leader_lease::LeaderLease;
use super::log::Log;
use super::reads::Reads;
use super::{Config, Input, Output, Progress, ReadyNumber, Restored, Role, convert};
use crate::types::{
    ConfChange, ConfChangeKind, ConfState, EntryKind, Fault, HardState, LogIndex, MemberId,
};

/// raft's largest append message in bytes, unless it has a single entry.
const MESSAGE_BYTES_MAX: u64 = 256 << 10;
/// Append messages in flight to one member.
const APPENDS_IN_FLIGHT_MAX: usize = 256;
/// Bytes of committed entries handed out at once.
const COMMIT_BYTES_MAX: u64 = 16 << 20;

/// Messages held back until a batch is durable.
struct Held {
    number: ReadyNumber,
    messages: Vec<Message>,
}

/// One member's consensus.
pub struct Driver {
    config: Config,
    node: RawNode<Log>,
    reads: Reads,
    /// The lease for reads without a round of heartbeats, while this member leads.
    leader_lease: LeaderLease,
    /// Number of reads answered under the lease, this member's and others'.
    lease_reads: u64,
    /// Ticks for which this member votes only for a candidate that the leader named (leadership transfer).
    vote_lease_ticks: usize,
    /// Members that answered within an election timeout, and the remaining ticks of that state. raft resets its own
    /// flags at intervals, and they are wrong until the next heartbeats are answered.
    recently_active: BTreeMap<MemberId, usize>,
    /// Disk space of the members.
    disks: Disks,
    /// Reads that raft would drop now, since there is no leader that has committed in its term.
    reads_delayed: Vec<u64>,
    held: VecDeque<Held>,
    /// The last batch handed to the disk, and the last durable one.
    handed: ReadyNumber,
    persisted: ReadyNumber,
    /// The last hard state handed to the disk.
    hard_state: HardState,
    role: Role,
    dropped: Vec<Bytes>,
    conf_changes_dropped: Vec<Bytes>,
    /// A snapshot that is being installed: the batch that makes it durable, and its index.
    installing: Option<(ReadyNumber, LogIndex)>,
    random: u64,
}

impl Driver {
    /// A member that continues from the state on disk.
    ///
    /// # Errors
    /// The state on disk is inconsistent for raft.
    pub fn new(config: Config, restored: &Restored) -> Result<Self, Fault> {
        let raft = raft::Config {
            id: config.id,
            election_tick: config.election_ticks,
            heartbeat_tick: config.heartbeat_ticks,
            applied: restored.applied.max(restored.log_start_index),
            max_size_per_msg: MESSAGE_BYTES_MAX,
            max_inflight_msgs: APPENDS_IN_FLIGHT_MAX,
            check_quorum: true,
            pre_vote: config.pre_vote,
            max_uncommitted_size: config.uncommitted_bytes_max as u64,
            max_committed_size_per_ready: COMMIT_BYTES_MAX,
            ..raft::Config::default()
        };
        let log = Log::new(restored);
        if raft.applied > log.last() {
            return Err(Fault::new(format!(
                "the store holds entries up to {} but the write-ahead log ends at {}",
                raft.applied,
                log.last()
            )));
        }
        // raft would panic without a message about the log.
        if restored.hard_state.commit > log.last() {
            return Err(Fault::new(format!(
                "entries up to {} are known to be committed but the write-ahead log ends at {}",
                restored.hard_state.commit,
                log.last()
            )));
        }
        let silent = || slog::Logger::root(slog::Discard, slog::o!());
        let logger = config.logger.clone().unwrap_or_else(silent);
        let node = RawNode::new(&raft, log, &logger)
            .map_err(|error| Fault::new(format!("raft cannot start from the log: {error}")))?;
        let reads = Reads::new(config.id, config.boot_nonce);
        let mut driver = Self {
            node,
            reads,
            leader_lease: LeaderLease::new(!config.vote_lease.is_zero()),
            lease_reads: 0,
            vote_lease_ticks: if is_sole_voter(config.id, restored) {
                0
            } else {
                restored.vote_lease_ticks
            },
            recently_active: BTreeMap::new(),
            disks: Disks::default(),
            reads_delayed: Vec::new(),
            held: VecDeque::new(),
            handed: 0,
            persisted: 0,
            hard_state: restored.hard_state,
            role: Role::default(),
            dropped: Vec::new(),
            conf_changes_dropped: Vec::new(),
            installing: None,
            random: config.seed | 1,
            config,
        };
        driver.draw_election_timeout();
        Ok(driver)
    }

    /// Handles an input. Outputs are returned by [`Driver::drain`], so that the results of all waiting inputs are
    /// joined in one batch.
    ///
    /// `now` is the time of a clock that runs on during suspend. It must be read after the input was taken from its
    /// queue: a process that was stopped between the two would otherwise answer a read with a stale time, while other
    /// members have elected a new leader. A stop after the clock was read does no harm: the committed state of that
    /// moment was not yet replaced, and the read was requested before it.
    pub fn on(&mut self, now: Duration, input: Input) {
        let before = (self.node.raft.term, self.node.raft.state);
        match input {
            // A campaign looks for configuration changes among committed entries that are not applied, and raft counts
            // a snapshot as applied only when it is durable: until then this member does not campaign.
            Input::Tick | Input::Campaign if self.installing.is_some() => (),
            Input::Campaign if self.vote_lease_ticks > 0 => (),
            Input::Tick => self.tick(now),
            Input::Propose(payloads) => {
                if !self.propose(&payloads) {
                    self.dropped.extend(payloads);
                }
            }
            Input::ReadIndex(read) => self.read_index(now, read),
            Input::Step(message) => self.step(now, *message),
            Input::Persisted(number) => {
                self.persisted = self.persisted.max(number);
                self.node.on_persist_ready(number);
                if let Some((_, index)) = self.installing.take_if(|(last, _)| *last <= number) {
                    self.applied(index);
                }
            }
            Input::Applied(index) => self.applied(index),
            Input::ProposeConfChange(payload) => self.propose_conf_change(payload),
            Input::ProposeAsLeader(term, payloads) => {
                // A dropped proposal is abandoned: the next leader must not propose it.
                if self.node.raft.state == StateRole::Leader && self.node.raft.term == term {
                    self.propose(&payloads);
                }
            }
            Input::ConfChange(change) => self.conf_change(&change),
            Input::SnapshotSent(member, arrived) => {
                let status = if arrived { SnapshotStatus::Finish } else { SnapshotStatus::Failure };
                self.node.report_snapshot(member, status);
            }
            Input::Campaign => drop(self.node.campaign()),
            Input::Transfer(member) => self.node.transfer_leader(member),
            Input::Unreachable(member) => self.node.report_unreachable(member),
            Input::Disk(space) => self.disks.set_own(space),
        }
        if (self.node.raft.term, self.node.raft.state) != before {
            self.draw_election_timeout();
            self.leader_lease.end();
            if self.node.raft.state == StateRole::Leader {
                self.leader_lease.begin(self.config.id, &self.conf_state().voters);
                self.disks.begin();
            }
        }
        if self.node.raft.lead_transferee.is_some() {
            self.leader_lease.forfeit();
        }
    }

    /// Appends all pending outputs.
    pub fn drain(&mut self, out: &mut Vec<Output>) {
        if !self.dropped.is_empty() {
            out.push(Output::ProposalsDropped(std::mem::take(&mut self.dropped)));
        }
        let changes = std::mem::take(&mut self.conf_changes_dropped);
        out.extend(changes.into_iter().map(Output::ConfChangeDropped));
        loop {
            while self.node.has_ready() {
                self.ready(out);
            }
            self.report_role(out);
            if !self.node.has_ready() {
                break;
            }
        }
        out.extend(self.disks.take_change().map(Output::Full));
        while self.held.front().is_some_and(|held| held.number <= self.persisted) {
            out.extend(self.held.pop_front().map(|held| Output::Send(held.messages)));
        }
    }

    /// Number of reads that this member answered as leader under its lease, its own and other members'.
    pub fn lease_reads(&self) -> u64 {
        self.lease_reads
    }

    /// Positions of the log.
    pub fn progress(&self) -> Progress {
        let log = &self.node.raft.raft_log;
        Progress { committed: log.committed, last: log.last_index(), applied: log.applied }
    }

    /// True if a read waits for a leader: its attempt starts later, and later reads may share the answer.
    pub fn is_delayed(&self, read: u64) -> bool {
        self.reads_delayed.contains(&read)
    }

    /// The configuration as raft sees it now.
    pub fn conf_state(&self) -> ConfState {
        convert::conf_state_from_raft(self.node.store().conf_state())
    }

    /// The index up to which a member's log is known to match that of this leader; `None` if this member does not lead
    /// or there is no such member.
    pub fn matched(&self, member: MemberId) -> Option<LogIndex> {
        let raft = &self.node.raft;
        let leads = raft.state == StateRole::Leader;
        raft.prs().get(member).filter(|_| leads).map(|progress| progress.matched)
    }

    /// True if a leadership transfer is in progress.
    pub fn is_transferring(&self) -> bool {
        self.node.raft.lead_transferee.is_some()
    }

    /// This member's id.
    pub fn config_id(&self) -> crate::types::MemberId {
        self.config.id
    }

    /// This member's role, as last reported.
    pub fn role(&self) -> Role {
        self.role
    }

    fn tick(&mut self, now: Duration) {
        self.vote_lease_ticks = self.vote_lease_ticks.saturating_sub(1);
        self.recently_active.retain(|_, ticks| {
            *ticks -= 1;
            *ticks > 0
        });
        self.node.tick();
        for read in self.reads.tick() {
            self.read_index(now, read);
        }
        self.tick_disks();
    }

    /// A leader short of disk space transfers leadership to a member with enough, if there is one.
    fn tick_disks(&mut self) {
        let raft = &self.node.raft;
        if raft.state != StateRole::Leader {
            return;
        }
        let logs = raft.prs().iter().filter(|(_, log)| log.state == ProgressState::Replicate);
        let mut candidates: Vec<_> = logs.map(|(id, log)| (log.matched, *id)).collect();
        candidates.sort_unstable_by(|one, other| other.cmp(one));
        let candidates = candidates.into_iter().map(|(_, id)| id);
        let voters = &self.node.store().conf_state().voters;
        let reaches = |id| self.recently_active.contains_key(&id);
        let to = self.disks.tick(self.config.id, voters, reaches, candidates);
        if let Some(to) = to.filter(|_| !self.is_transferring()) {
            self.disks.rest(2 * self.config.election_ticks);
            self.node.transfer_leader(to);
        }
    }

    /// Returns `false` if raft accepts none of them.
    fn propose(&mut self, payloads: &[Bytes]) -> bool {
        let entry =
            |payload: &Bytes| eraftpb::Entry { data: payload.clone(), ..Default::default() };
        let mut message = Message { from: self.config.id, ..Message::default() };
        message.set_msg_type(MessageType::MsgPropose);
        message.set_entries(payloads.iter().map(entry).collect::<Vec<_>>().into());
        self.node.raft.step(message).is_ok()
    }

    fn read_index(&mut self, now: Duration, read: u64) {
        if let Some(context) = self.attempt(read) {
            self.read(now, context.clone().into(), |node| node.read_index(context));
        }
    }

    /// The context of an attempt; `None` if raft would drop it, and then the read is delayed.
    fn attempt(&mut self, read: u64) -> Option<Vec<u8>> {
        let raft = &self.node.raft;
        let hopeless = match raft.state {
            StateRole::Leader => !raft.commit_to_current_term(),
            StateRole::Follower => raft.leader_id == raft::INVALID_ID,
            StateRole::Candidate | StateRole::PreCandidate => true,
        };
        if hopeless {
            self.reads_delayed.push(read);
            return None;
        }
        Some(self.reads.attempt(read))
    }

    /// Steps a read: raft answers it at once under the lease, and otherwise starts a round of heartbeats.
    ///
    /// With `LeaseBased`, raft-rs answers at once regardless of time, and ignores the responses to rounds in progress.
    /// So the option is set for this one step only.
    fn read(&mut self, now: Duration, context: Bytes, step: impl FnOnce(&mut RawNode<Log>)) {
        if self.node.raft.state != StateRole::Leader {
            return step(&mut self.node);
        }
        if !self.leader_lease.holds(now) {
            self.leader_lease.started(now, context);
            return step(&mut self.node);
        }
        self.node.raft.read_only.option = ReadOnlyOption::LeaseBased;
        step(&mut self.node);
        self.node.raft.read_only.option = ReadOnlyOption::Safe;
        self.lease_reads += 1;
        if self.leader_lease.wants_round(now) {
            let context = self.reads.context();
            self.leader_lease.started(now, context.clone().into());
            self.node.read_index(context);
        }
    }

    fn applied(&mut self, index: u64) {
        self.node.advance_apply_to(index);
        let conf_state = self.node.store().conf_state();
        let alone = conf_state.voters.len() == 1 && conf_state.learners.is_empty();
        let window = if alone { 0 } else { self.config.catch_up_entries };
        let oldest = index.saturating_sub(window);
        let oldest = self.still_needed().map_or(oldest, |needed| oldest.min(needed));
        let bytes_max = self.config.catch_up_bytes_max;
        self.node.mut_store().forget(oldest, index, bytes_max);
    }

    /// The index up to which a leader may drop entries from memory: the lowest one that its active followers have, or
    /// that a snapshot in flight covers. Dropping later ones would force a snapshot, and for a member that is receiving
    /// one, a second snapshot. `None` if this member does not lead.
    fn still_needed(&self) -> Option<LogIndex> {
        let raft = &self.node.raft;
        if raft.state != StateRole::Leader {
            return None;
        }
        let awaited = |(id, member): (&MemberId, &raft::Progress)| match member.state {
            ProgressState::Snapshot => Some(member.pending_snapshot),
            ProgressState::Probe => {
                self.recently_active.contains_key(id).then_some(member.next_idx - 1)
            }
            ProgressState::Replicate => {
                self.recently_active.contains_key(id).then_some(member.matched)
            }
        };
        raft.prs().iter().filter_map(awaited).min()
    }

    fn step(&mut self, now: Duration, message: Message) {
        let is_change =
            |entry: &eraftpb::Entry| entry.get_entry_type() != eraftpb::EntryType::EntryNormal;
        // raft would replace it by an empty entry, and its request would never be answered.
        if self.node.raft.has_pending_conf()
            && message.get_msg_type() == MessageType::MsgPropose
            && message.entries.iter().any(is_change)
        {
            self.conf_changes_dropped.extend(super::wire::proposals_of(message).conf_changes);
            return;
        }
        // raft would send it on to its leader, and panic: it has a term already. Whoever asked for it asks a leader again.
        if message.get_msg_type() == MessageType::MsgTransferLeader
            && self.node.raft.state != StateRole::Leader
        {
            return;
        }
        // For the same reason as with a tick; the old leader names this member again, or keeps its leadership.
        if self.installing.is_some() && message.get_msg_type() == MessageType::MsgTimeoutNow {
            return;
        }
        if self.vote_lease_ticks > 0 && asks_for_vote(&message) {
            return;
        }
        self.recently_active.insert(message.from, self.config.election_ticks);
        let kind = message.get_msg_type();
        if kind == MessageType::MsgHeartbeat {
            self.note_heartbeat(&message);
        } else if kind == MessageType::MsgHeartbeatResponse {
            self.note_vote_lease(&message);
        }
        let asked = message.entries.first().filter(|_| kind == MessageType::MsgReadIndex);
        match asked.map(|entry| entry.data.clone()) {
            Some(context) => self.read(now, context, |node| drop(node.step(message))),
            // A message that raft refuses (unknown sender, local type) is dropped.
            None => drop(self.node.step(message)),
        }
    }

    /// Starts this member's vote lease with its answer to a heartbeat. raft itself refuses votes for as long while
    /// it knows a leader; but it forgets the leader at a message of a later term, such as a late response to an
    /// earlier vote request.
    fn note_heartbeat(&mut self, message: &Message) {
        if message.term >= self.node.raft.term {
            self.disks.heard(message, &self.node.store().conf_state().voters);
        }
        if !self.config.vote_lease.is_zero() && message.term >= self.node.raft.term {
            self.vote_lease_ticks = self.vote_lease_ticks.max(self.config.election_ticks);
        }
    }

    /// Records the vote lease in a member's heartbeat response to this leader.
    fn note_vote_lease(&mut self, message: &Message) {
        let raft = &self.node.raft;
        if raft.state == StateRole::Leader && raft.term == message.term {
            let vote_lease = Duration::from_millis(message.reject_hint);
            self.leader_lease.answered(message.from, &message.context, vote_lease);
            self.disks.answered(message);
        }
    }

    fn propose_conf_change(&mut self, payload: Bytes) {
        if self.node.raft.state == StateRole::Leader && self.node.raft.has_pending_conf() {
            self.conf_changes_dropped.push(payload);
            return;
        }
        let mut entry = eraftpb::Entry { data: payload.clone(), ..Default::default() };
        entry.set_entry_type(eraftpb::EntryType::EntryConfChange);
        let mut message = Message { from: self.config.id, ..Message::default() };
        message.set_msg_type(MessageType::MsgPropose);
        message.set_entries(vec![entry].into());
        if self.node.raft.step(message).is_err() {
            self.conf_changes_dropped.push(payload);
        }
    }

    fn conf_change(&mut self, change: &ConfChange) {
        let kind = match change.kind() {
            ConfChangeKind::AddVoter => eraftpb::ConfChangeType::AddNode,
            ConfChangeKind::AddLearner => eraftpb::ConfChangeType::AddLearnerNode,
            ConfChangeKind::Remove => eraftpb::ConfChangeType::RemoveNode,
            // Only the URLs of a member: not part of raft's configuration.
            ConfChangeKind::Update => return,
        };
        let mut raft = eraftpb::ConfChange { node_id: change.member, ..Default::default() };
        raft.set_change_type(kind);
        // raft refuses a change that would leave no voter; the machine refuses it before.
        if let Ok(state) = self.node.apply_conf_change(&raft) {
            let state = convert::conf_state_from_raft(&state);
            self.node.mut_store().set_conf_state(&state);
            if self.node.raft.state == StateRole::Leader {
                self.leader_lease.change(self.config.id, &state.voters);
            }
        }
    }

    fn ready(&mut self, out: &mut Vec<Output>) {
        let mut ready = self.node.ready();
        for state in ready.take_read_states() {
            if let Some(read) = self.reads.answered(&state.request_ctx) {
                out.push(Output::ReadAt { read, index: state.index });
            }
        }
        let term_or_vote = ready
            .hs()
            .is_some_and(|hs| hs.term != self.hard_state.term || hs.vote != self.hard_state.vote);
        let committed = ready.take_committed_entries();
        // A changed commit index alone causes no write: it is written with the next batch.
        let snapshot = (!ready.snapshot().is_empty()).then(|| ready.snapshot().get_metadata());
        let persist = term_or_vote || !ready.entries().is_empty() || snapshot.is_some();
        if let Some(metadata) = snapshot {
            let (index, term) = (metadata.index, metadata.term);
            let conf_state = convert::conf_state_from_raft(metadata.get_conf_state());
            self.installing = Some((ready.number(), index));
            self.node.mut_store().restore(index, term, &conf_state);
            out.push(Output::Install { index, term, conf_state });
        }
        if persist {
            self.handed = ready.number();
        }
        self.part_messages(term_or_vote, &mut ready, out);
        if persist {
            self.node.mut_store().append(ready.entries());
            let hard_state = convert::hard_state_from_raft(&self.node.raft.hard_state());
            let changed = hard_state != self.hard_state;
            self.hard_state = hard_state;
            out.push(Output::Persist {
                number: ready.number(),
                hard_state: changed.then_some(hard_state),
                entries: ready.entries().iter().map(convert::entry_from_raft).collect(),
            });
        }
        self.node.advance_append_async(ready);
        if !committed.is_empty() {
            out.push(Output::Commit(committed.iter().map(convert::entry_from_raft).collect()));
        }
    }

    /// Sends messages that need not wait for the disk, and holds back the others.
    ///
    /// A leader's messages may be sent at once (Raft thesis, 10.2.1), unless its term or vote is not durable yet, which
    /// happens to a sole voter with learners. A follower's message may be sent at once if it acknowledges nothing about
    /// log, term or vote, so that a slow disk delays no heartbeat.
    fn part_messages(
        &mut self,
        term_or_vote: bool,
        ready: &mut raft::Ready,
        out: &mut Vec<Output>,
    ) {
        let mut now = ready.take_messages();
        let mut later = ready.take_persisted_messages();
        if term_or_vote {
            later.append(&mut now);
        } else {
            now.extend(later.extract_if(.., grants_no_lease));
        }
        for messages in [&mut now, &mut later] {
            messages.retain_mut(|message| is_in_own_name(message, self.config.id));
            for message in messages.iter_mut() {
                add_vote_lease(message, self.config.vote_lease);
                self.add_disks(message);
            }
        }
        if !now.is_empty() {
            out.push(Output::Send(now));
        }
        if !later.is_empty() {
            self.held.push_back(Held { number: self.handed, messages: later });
        }
    }

    /// Adds the disk space of this member to a response, or the members short of space to a leader's heartbeat.
    fn add_disks(&self, message: &mut Message) {
        let kind = message.get_msg_type();
        if kind == MessageType::MsgHeartbeatResponse {
            self.disks.add_answer(message);
        } else if kind == MessageType::MsgHeartbeat {
            self.disks.add_full(message, &self.node.store().conf_state().voters);
        }
    }

    fn report_role(&mut self, out: &mut Vec<Output>) {
        let raft = &self.node.raft;
        let leader = (raft.leader_id != raft::INVALID_ID).then_some(raft.leader_id);
        let role = Role { leader, term: raft.term, leads: raft.state == StateRole::Leader };
        if role != self.role {
            self.role = role;
            out.push(Output::Role(role));
            // Earlier leaders dropped these attempts.
            self.reads_delayed.extend(self.reads.abandon());
        }
        if leader.is_some() {
            for read in std::mem::take(&mut self.reads_delayed) {
                // The time is not known here, and a new leader has no lease yet.
                if let Some(context) = self.attempt(read) {
                    self.node.read_index(context);
                }
            }
        }
    }

    /// Overwrites the election timeout, which raft-rs draws from a thread-local generator, by one drawn from the seed.
    fn draw_election_timeout(&mut self) {
        // xorshift64 (Marsaglia 2003): good enough for spreading timeouts.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let ticks = self.config.election_ticks;
        let drawn = ticks + (self.random % ticks as u64) as usize;
        self.node.raft.set_randomized_election_timeout(drawn);
    }
}

/// True if a message may be sent to other members: its sender is this member. A former leader forwards messages of
/// followers with the original sender's id, but a connection accepts messages of its own member only. Proposals are
/// changed to this member's id, since the proposer makes no difference to the leader. Other messages are dropped; their
/// sender repeats them.
fn is_in_own_name(message: &mut Message, own: MemberId) -> bool {
    if message.get_msg_type() == MessageType::MsgPropose {
        message.from = own;
    }
    message.from == own
}

/// True for a vote request of a candidate that was not named by a leader.
fn asks_for_vote(message: &Message) -> bool {
    let kind = message.get_msg_type();
    matches!(kind, MessageType::MsgRequestVote | MessageType::MsgRequestPreVote)
        && message.context != raft::CAMPAIGN_TRANSFER
}

/// Adds the vote lease to a heartbeat response, in a field that raft does not use there: so each response counts for
/// the lease that was given with it, also from members with other settings and from versions that give none.
fn add_vote_lease(message: &mut Message, vote_lease: Duration) {
    if message.get_msg_type() == MessageType::MsgHeartbeatResponse {
        message.reject_hint = vote_lease.as_millis() as u64;
    }
}

/// True if this member is the only voter and no change of that is in its log: it has given no vote lease to a leader.
fn is_sole_voter(id: MemberId, restored: &Restored) -> bool {
    let left = restored.entries.iter().filter(|entry| entry.index > restored.applied);
    restored.conf_state.voters == [id] && left.clone().all(|it| it.kind == EntryKind::Normal)
}

fn grants_no_lease(message: &mut Message) -> bool {
    let kind = message.get_msg_type();
    matches!(
        kind,
        MessageType::MsgHeartbeatResponse | MessageType::MsgReadIndex | MessageType::MsgPropose
    )
}
