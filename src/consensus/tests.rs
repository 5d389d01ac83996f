//! Members stepped by hand: outputs before and after the disk write.

mod disks;
mod lease_reads;
mod network;
mod wire;

use super::*;
use crate::types::EntryKind;
use crate::types::limits::{CATCH_UP_ENTRIES_BYTES_MAX, UNCOMMITTED_BYTES_MAX};
use crate::wal::{Record, Replay};

/// A member with its disk, stepped by hand.
struct Node {
    driver: Driver,
    now: Duration,
    restored: Restored,
    pending: Vec<(ReadyNumber, Option<HardState>, Vec<Entry>)>,
    committed: Vec<Entry>,
    sent: Vec<Message>,
    reads: Vec<(u64, LogIndex)>,
    role: Role,
    /// The members short of space while no quorum has enough, as last reported.
    full: Vec<MemberId>,
}

fn config(id: MemberId, boot_nonce: u64) -> Config {
    Config {
        id,
        election_ticks: 10,
        heartbeat_ticks: 1,
        pre_vote: true,
        seed: id * 7919 + boot_nonce,
        boot_nonce,
        catch_up_entries: 100,
        catch_up_bytes_max: CATCH_UP_ENTRIES_BYTES_MAX,
        uncommitted_bytes_max: UNCOMMITTED_BYTES_MAX,
        logger: None,
        vote_lease: Duration::ZERO,
    }
}

impl Node {
    fn new(id: MemberId, voters: &[MemberId]) -> Self {
        let conf_state = ConfState { voters: voters.to_vec(), ..ConfState::default() };
        Self::open(id, 1, Restored { conf_state, ..Restored::default() })
    }

    fn open(id: MemberId, nonce: u64, restored: Restored) -> Self {
        let driver = Driver::new(config(id, nonce), &restored).expect("the log makes sense");
        Self {
            driver,
            now: Duration::ZERO,
            restored,
            pending: Vec::new(),
            committed: Vec::new(),
            sent: Vec::new(),
            reads: Vec::new(),
            role: Role::default(),
            full: Vec::new(),
        }
    }

    fn on(&mut self, input: Input) {
        self.driver.on(self.now, input);
        self.perform();
    }

    fn perform(&mut self) {
        let mut out = Vec::new();
        self.driver.drain(&mut out);
        for output in out {
            match output {
                Output::Send(messages) => self.sent.extend(messages),
                Output::Persist { number, hard_state, entries } => {
                    self.pending.push((number, hard_state, entries));
                }
                Output::Commit(entries) => {
                    let last = entries.last().expect("a commit is never empty").index;
                    self.committed.extend(entries);
                    self.on(Input::Applied(last));
                }
                Output::ReadAt { read, index } => self.reads.push((read, index)),
                Output::ProposalsDropped(_) | Output::ConfChangeDropped(_) => (),
                Output::Full(members) => self.full = members,
                Output::Install { index, .. } => panic!("a snapshot of {index} out of nowhere"),
                Output::Role(role) => self.role = role,
            }
        }
    }

    /// The disk completes all writes.
    fn sync(&mut self) {
        for (number, hard_state, entries) in std::mem::take(&mut self.pending) {
            if let Some(state) = hard_state {
                self.restored.hard_state = state;
            }
            for entry in entries {
                let at = (entry.index - self.restored.log_start_index - 1) as usize;
                self.restored.entries.truncate(at);
                self.restored.entries.push(entry);
            }
            self.on(Input::Persisted(number));
        }
    }

    fn settle(&mut self) {
        while !self.pending.is_empty() {
            self.sync();
        }
    }
}

fn payloads(node: &Node) -> Vec<&[u8]> {
    let normal = node.committed.iter().filter(|entry| entry.kind == EntryKind::Normal);
    normal.map(|entry| entry.data.as_ref()).filter(|data| !data.is_empty()).collect()
}

/// Delivers messages and completes disk writes until there are no more.
fn exchange(nodes: &mut [Node]) {
    loop {
        let mut moved = false;
        for node in nodes.iter_mut() {
            moved |= !node.pending.is_empty();
            node.settle();
        }
        let messages: Vec<_> = nodes.iter_mut().flat_map(|node| node.sent.drain(..)).collect();
        moved |= !messages.is_empty();
        for message in messages {
            let to = nodes.iter_mut().find(|node| node.driver.config_id() == message.to);
            to.expect("it is sent to a member").on(Input::Step(Box::new(message)));
        }
        if !moved {
            return;
        }
    }
}

fn elect(nodes: &mut [Node]) {
    nodes[0].on(Input::Campaign);
    exchange(nodes);
    assert!(nodes[0].role.leads);
}

#[test]
fn a_sole_voter_commits_what_is_on_disk_and_nothing_else() {
    let mut node = Node::new(1, &[1]);
    node.on(Input::Campaign);
    node.settle();
    assert!(node.role.leads);
    node.on(Input::Propose(vec![Bytes::from_static(b"a"), Bytes::from_static(b"b")]));
    assert_eq!(payloads(&node), Vec::<&[u8]>::new(), "nothing commits before the disk");
    node.settle();
    assert_eq!(payloads(&node), [b"a", b"b"]);
}

#[test]
fn proposals_without_a_leader_come_back() {
    let mut node = Node::new(1, &[1, 2, 3]);
    node.driver.on(Duration::ZERO, Input::Propose(vec![Bytes::from_static(b"a")]));
    let mut out = Vec::new();
    node.driver.drain(&mut out);
    assert_eq!(out, [Output::ProposalsDropped(vec![Bytes::from_static(b"a")])]);
}

#[test]
fn a_read_waits_for_the_first_commit_of_the_term() {
    let mut node = Node::new(1, &[1]);
    node.on(Input::ReadIndex(7));
    node.on(Input::Campaign);
    assert_eq!(node.reads, []);
    node.settle();
    assert_eq!(node.reads, [(7, 1)], "answered at the leader's first entry");
}

#[test]
fn durable_entries_are_committed_again_after_a_restart() {
    let mut node = Node::new(1, &[1]);
    node.on(Input::Campaign);
    node.settle();
    node.on(Input::Propose(vec![Bytes::from_static(b"a")]));
    node.settle();
    // The next proposal reaches the disk, but the member stops before the write is acknowledged.
    node.on(Input::Propose(vec![Bytes::from_static(b"b")]));
    let (_, _, entries) = node.pending.remove(0);
    node.restored.entries.extend(entries);
    node.restored.applied = 2;
    let mut node = Node::open(1, 2, node.restored);
    node.on(Input::Campaign);
    node.settle();
    assert_eq!(payloads(&node), [b"b"], "what was applied is not handed out again");
}

#[test]
fn a_store_ahead_of_the_log_is_refused() {
    let restored = Restored { applied: 5, ..Restored::default() };
    assert!(Driver::new(config(1, 1), &restored).is_err());
}

#[test]
fn three_members_agree_and_a_follower_reads() {
    let mut nodes: Vec<_> = (1..=3).map(|id| Node::new(id, &[1, 2, 3])).collect();
    elect(&mut nodes);
    nodes[0].on(Input::Propose(vec![Bytes::from_static(b"a")]));
    exchange(&mut nodes);
    nodes[1].on(Input::ReadIndex(1));
    exchange(&mut nodes);
    assert_eq!(nodes[1].reads, [(1, 2)]);
    nodes[0].on(Input::Tick);
    exchange(&mut nodes);
    for node in &nodes {
        assert_eq!(payloads(node), [b"a"]);
    }
}

#[test]
fn follower_forwards_proposals_in_its_own_name_and_drops_reads_of_others() {
    let mut nodes = [1, 2, 3].map(|id| Node::new(id, &[1, 2, 3]));
    elect(&mut nodes);
    nodes[1].sent.clear();
    for kind in [MessageType::MsgReadIndex, MessageType::MsgPropose] {
        let entry = raft::eraftpb::Entry { data: Bytes::from_static(b"x"), ..Default::default() };
        let mut asked =
            Message { from: 3, to: 2, entries: vec![entry].into(), ..Message::default() };
        asked.set_msg_type(kind);
        nodes[1].on(Input::Step(Box::new(asked)));
    }
    let sent: Vec<_> = nodes[1].sent.iter().map(|it| (it.get_msg_type(), it.from, it.to)).collect();
    assert_eq!(sent, [(MessageType::MsgPropose, 2, 1)]);
    exchange(&mut nodes);
    assert!(nodes.iter().all(|node| payloads(node) == [b"x"]));
}

#[test]
fn entries_written_during_a_snapshot_are_sent_from_the_log() {
    let mut nodes = [1, 2, 3].map(|id| Node::new(id, &[1, 2, 3]));
    elect(&mut nodes);
    let [leader, follower, _] = &mut nodes;
    let mut write = |leader: &mut Node, times: usize| -> Vec<Message> {
        let mut to_lost = Vec::new();
        for _ in 0..times {
            leader.on(Input::Tick);
            leader.on(Input::Propose(vec![Bytes::from_static(b"x")]));
            for _ in 0..4 {
                leader.settle();
                follower.settle();
                for message in std::mem::take(&mut leader.sent) {
                    match message.to {
                        2 => follower.on(Input::Step(Box::new(message))),
                        _ => to_lost.push(message),
                    }
                }
                follower.settle();
                for message in std::mem::take(&mut follower.sent) {
                    leader.on(Input::Step(Box::new(message)));
                }
            }
        }
        to_lost
    };
    // More entries than are kept for followers that lag a little.
    leader.on(Input::Unreachable(3));
    write(leader, 150);
    let says = |kind: MessageType, index: LogIndex, term: Term| {
        let mut message = Message { from: 3, to: 1, term, index, ..Message::default() };
        message.set_msg_type(kind);
        Input::Step(Box::new(message))
    };
    let term = leader.role.term;
    leader.on(says(MessageType::MsgHeartbeatResponse, 0, term));
    let sent = write(leader, 1);
    let snapshot = sent.iter().find(|it| it.get_msg_type() == MessageType::MsgSnapshot);
    let index = snapshot.expect("the log is not enough").get_snapshot().get_metadata().index;
    write(leader, 150);
    leader.on(Input::SnapshotSent(3, true));
    leader.on(says(MessageType::MsgAppendResponse, index, term));
    let sent = write(leader, 1);
    let next = sent.first().expect("it gets something");
    assert_eq!(next.get_msg_type(), MessageType::MsgAppend);
    assert_eq!((next.index, next.entries[0].index), (index, index + 1));
    // It continues, and then many messages are lost, but not heartbeat responses.
    leader.on(says(MessageType::MsgAppendResponse, index + 1, term));
    for _ in 0..50 {
        write(leader, 4);
        leader.on(says(MessageType::MsgHeartbeatResponse, 0, term));
    }
    leader.sent.clear();
    let (rejected, hint) = (index + 100, index + 1);
    let mut refused = Message { from: 3, to: 1, term, index: rejected, ..Message::default() };
    (refused.reject, refused.reject_hint) = (true, hint);
    refused.set_msg_type(MessageType::MsgAppendResponse);
    leader.on(Input::Step(Box::new(refused)));
    let next = leader.sent.iter().find(|it| it.to == 3).expect("it gets what it lacks");
    assert_eq!(next.get_msg_type(), MessageType::MsgAppend);
    assert_eq!((next.index, next.entries[0].index), (index + 1, index + 2));
}

/// A leader that was asked to hand over has stepped down meanwhile, and knows the next one.
#[test]
fn a_transfer_of_leadership_that_came_too_late_is_dropped() {
    let mut follower = Node::new(2, &[1, 2, 3]);
    let from = |from, kind| {
        let mut message = Message { from, to: 2, term: 5, ..Message::default() };
        message.set_msg_type(kind);
        Input::Step(Box::new(message))
    };
    follower.on(from(1, MessageType::MsgHeartbeat));
    assert_eq!(follower.role.leader, Some(1));
    follower.settle();
    follower.sent.clear();
    follower.on(from(3, MessageType::MsgTransferLeader));
    assert_eq!(follower.sent, []);
}

#[test]
fn a_vote_is_not_sent_before_it_is_on_disk() {
    let mut nodes: Vec<_> = (1..=3).map(|id| Node::new(id, &[1, 2, 3])).collect();
    nodes[0].on(Input::Campaign);
    let pre_votes: Vec<_> = nodes[0].sent.drain(..).collect();
    for message in pre_votes {
        let to = message.to as usize - 1;
        nodes[to].on(Input::Step(Box::new(message)));
    }
    let answers: Vec<_> = nodes[1].sent.drain(..).collect();
    for message in answers {
        nodes[0].on(Input::Step(Box::new(message)));
    }
    assert_eq!(nodes[0].sent, [], "the request to vote waits for the own vote");
    nodes[0].settle();
    let request = nodes[0].sent.iter().find(|message| message.to == 2).expect("asks 2").clone();
    nodes[1].on(Input::Step(Box::new(request)));
    assert_eq!(nodes[1].sent, [], "the vote waits for the disk");
    nodes[1].settle();
    assert_eq!(nodes[1].sent.len(), 1);
}

/// A sole voter that leads, with its first entry on disk.
fn sole_leader() -> Node {
    let mut node = Node::new(1, &[1]);
    node.on(Input::Campaign);
    node.settle();
    assert!(node.role.leads);
    node
}

fn propose(node: &mut Node, payloads: &[&'static str]) {
    let payloads = payloads.iter().map(|payload| Bytes::from_static(payload.as_bytes()));
    node.driver.on(Duration::ZERO, Input::Propose(payloads.collect()));
}

#[test]
fn a_sole_voter_leads_after_a_timeout_by_itself() {
    let mut node = Node::new(1, &[1]);
    for _ in 0..20 {
        node.on(Input::Tick);
        node.settle();
    }
    assert_eq!(node.role, Role { leader: Some(1), term: 1, leads: true });
}

#[test]
fn all_that_waits_is_one_append() {
    let mut node = sole_leader();
    propose(&mut node, &["a", "b"]);
    node.driver.on(Duration::ZERO, Input::Tick);
    propose(&mut node, &["c"]);
    node.perform();
    let batches: Vec<_> = node.pending.iter().map(|(_, _, entries)| entries.len()).collect();
    assert_eq!(batches, [3]);
    node.settle();
    assert_eq!(payloads(&node), [b"a", b"b", b"c"]);
}

#[test]
fn of_two_batches_at_the_disk_the_first_commits_alone_and_the_second_for_both() {
    let mut node = sole_leader();
    for payload in ["a", "b"] {
        propose(&mut node, &[payload]);
        node.perform();
    }
    let numbers: Vec<_> = node.pending.drain(..).map(|(number, ..)| number).collect();
    let mut other = sole_leader();
    for payload in ["a", "b"] {
        propose(&mut other, &[payload]);
        other.perform();
    }
    node.on(Input::Persisted(numbers[0]));
    assert_eq!(payloads(&node), [b"a"]);
    node.on(Input::Persisted(numbers[1]));
    assert_eq!(payloads(&node), [b"a", b"b"]);
    other.on(Input::Persisted(numbers[1]));
    assert_eq!(payloads(&other), [b"a", b"b"], "one acknowledgement speaks for those before it");
}

#[test]
fn the_log_may_be_cut_while_entries_are_in_flight() {
    let mut node = sole_leader();
    propose(&mut node, &["a"]);
    node.perform();
    node.settle();
    // Applied entries are removed from memory while later ones are being written.
    propose(&mut node, &["b"]);
    node.perform();
    node.on(Input::Applied(2));
    propose(&mut node, &["c"]);
    node.perform();
    node.settle();
    assert_eq!(payloads(&node), [b"a", b"b", b"c"]);
    // The log start is written after all entries: those above it stay.
    let mut replay = Replay::default();
    let records = node.restored.entries.iter().cloned().map(Record::Entry);
    let conf_state = node.restored.conf_state.clone();
    let log_start = Record::LogStart { index: 3, term: 1, conf_state };
    let state = Record::HardState(node.restored.hard_state);
    for record in records.chain([state, log_start]) {
        replay.take(record).expect("it fits");
    }
    let replay = replay.finish().expect("nothing is missing");
    let restored = Restored {
        hard_state: replay.hard_state,
        conf_state: replay.conf_state,
        log_start_index: replay.log_start_index,
        log_start_term: replay.log_start_term,
        entries: replay.entries,
        applied: 3,
        vote_lease_ticks: 0,
    };
    let mut node = Node::open(1, 2, restored);
    node.on(Input::Campaign);
    node.settle();
    assert_eq!(payloads(&node), [b"c"]);
    assert_eq!(node.driver.progress().committed, 5, "and the new term's own entry");
}

#[test]
fn reads_are_answered_in_the_order_asked_at_what_was_committed_then() {
    let mut node = sole_leader();
    node.on(Input::ReadIndex(1));
    propose(&mut node, &["a"]);
    node.on(Input::ReadIndex(2));
    node.settle();
    node.on(Input::ReadIndex(3));
    assert_eq!(node.reads, [(1, 1), (2, 1), (3, 2)]);
}

#[test]
fn a_commit_beyond_the_log_is_refused() {
    let hard_state = HardState { term: 1, vote: 1, commit: 5 };
    let restored = Restored { hard_state, ..Restored::default() };
    let fault = Driver::new(config(1, 1), &restored).err().expect("entries are missing");
    assert!(fault.to_string().contains("ends at 0"), "{fault}");
}

#[test]
fn every_kind_of_change_of_members_enters_the_log_one_after_the_other() {
    use crate::types::ConfChangeKind::{AddLearner, AddVoter, Remove, Update};
    let mut node = Node::new(1, &[1]);
    node.on(Input::Campaign);
    node.settle();
    for (request, kind) in (1..).zip([AddLearner, Update, AddVoter, Remove]) {
        let change = ConfChange { request, kind: kind as i32, member: 2, context: Bytes::new() };
        let payload = Bytes::from(prost::Message::encode_to_vec(&change));
        node.driver.on(Duration::ZERO, Input::ProposeConfChange(payload.clone()));
        node.driver.on(Duration::ZERO, Input::ProposeConfChange(payload.clone()));
        let mut out = Vec::new();
        node.driver.drain(&mut out);
        let dropped = out.iter().filter(|it| **it == Output::ConfChangeDropped(payload.clone()));
        assert_eq!(dropped.count(), 1, "{kind:?}: one waits for the other to be applied");
        let last = node.driver.progress().last;
        for output in out {
            if let Output::Persist { number, .. } = output {
                node.driver.on(Duration::ZERO, Input::Persisted(number));
            }
        }
        node.driver.on(Duration::ZERO, Input::ConfChange(change));
        node.driver.on(Duration::ZERO, Input::Applied(last));
        node.perform();
        let conf_state = node.driver.conf_state();
        let (voters, learners) = (conf_state.voters, conf_state.learners);
        match kind {
            AddLearner | Update => assert_eq!((&voters[..], &learners[..]), (&[1][..], &[2][..])),
            AddVoter => assert_eq!((voters.len(), learners.len()), (2, 0)),
            Remove => assert_eq!((&voters[..], &learners[..]), (&[1][..], &[][..])),
        }
    }
}
