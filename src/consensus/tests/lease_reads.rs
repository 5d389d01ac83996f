//! Reads under the leader lease, and members that keep their vote leases.

use super::*;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// A member with a vote lease of 900 ms, from ten ticks of 100 ms.
fn start(id: MemberId, restored: Restored) -> Node {
    let config = Config { vote_lease: vote_lease(10, ms(100)), ..config(id, 1) };
    let mut node = Node::open(id, 1, restored.clone());
    node.driver = Driver::new(config, &restored).expect("the log makes sense");
    node
}

fn three() -> [Node; 3] {
    let conf_state = ConfState { voters: vec![1, 2, 3], ..ConfState::default() };
    [1, 2, 3]
        .map(|id| start(id, Restored { conf_state: conf_state.clone(), ..Restored::default() }))
}

/// Three members, the first of which leads, and has a lease for a read at this time.
fn promised(at: u64) -> [Node; 3] {
    let mut nodes = three();
    elect(&mut nodes);
    nodes[0].now = ms(at);
    nodes[0].on(Input::ReadIndex(1));
    assert_eq!(nodes[0].reads, [], "the others are asked");
    exchange(&mut nodes);
    assert_eq!(nodes[0].reads, [(1, 1)]);
    nodes
}

/// True if a leader answers a read at this time without a round of heartbeats.
fn lease_reads(node: &mut Node, at: u64) -> bool {
    node.now = ms(at);
    node.reads.clear();
    node.sent.clear();
    node.on(Input::ReadIndex(at));
    let answered = !node.reads.is_empty();
    assert!(answered || !node.sent.is_empty(), "a read is lost");
    answered
}

fn vote_request(from: MemberId, to: MemberId, term: Term, index: LogIndex) -> Message {
    let mut message = Message { from, to, term, index, log_term: 1, ..Message::default() };
    message.set_msg_type(MessageType::MsgRequestVote);
    message
}

fn grants(node: &mut Node, message: Message) -> bool {
    node.sent.clear();
    node.on(Input::Step(Box::new(message)));
    node.settle();
    let vote = |it: &Message| it.get_msg_type() == MessageType::MsgRequestVoteResponse;
    node.sent.iter().any(|it| vote(it) && !it.reject)
}

#[test]
fn a_leader_reads_alone_as_long_as_it_was_promised_and_no_longer() {
    let mut nodes = promised(1000);
    assert!(lease_reads(&mut nodes[0], 1404));
    assert!(nodes[0].sent.is_empty(), "nobody is asked");
    assert!(lease_reads(&mut nodes[0], 1405));
    let asks = |node: &Node| node.sent.iter().any(|it| !it.context.is_empty());
    assert!(asks(&nodes[0]), "half of it is over");
    assert!(lease_reads(&mut nodes[0], 1410));
    assert!(!asks(&nodes[0]), "one round at a time");
    // The heartbeats of that round are lost.
    assert!(lease_reads(&mut nodes[0], 1809));
    assert!(!lease_reads(&mut nodes[0], 1810));
    assert_eq!(nodes[0].driver.lease_reads(), 4);
    exchange(&mut nodes);
    assert_eq!(nodes[0].reads, [(1810, 1)], "a round is answered as ever");
    assert!(lease_reads(&mut nodes[0], 2619));
}

#[test]
fn a_renewal_that_is_answered_prolongs_it_and_is_nobodys_read() {
    let mut nodes = promised(1000);
    assert!(lease_reads(&mut nodes[0], 1500));
    exchange(&mut nodes);
    assert_eq!(nodes[0].reads.len(), 1);
    assert!(lease_reads(&mut nodes[0], 2309) && !lease_reads(&mut nodes[0], 2310));
}

#[test]
fn reads_of_followers_are_answered_under_the_lease() {
    let mut nodes = promised(1000);
    nodes[0].now = ms(1100);
    nodes[1].on(Input::ReadIndex(7));
    let asked: Vec<_> = nodes[1].sent.drain(..).collect();
    asked.into_iter().for_each(|it| nodes[0].on(Input::Step(Box::new(it))));
    let sent: Vec<_> = nodes[0].sent.drain(..).collect();
    let kinds: Vec<_> = sent.iter().map(Message::get_msg_type).collect();
    assert_eq!(kinds, [MessageType::MsgReadIndexResp]);
    sent.into_iter().for_each(|it| nodes[1].on(Input::Step(Box::new(it))));
    assert_eq!(nodes[1].reads, [(7, 1)]);
    // The reads of followers start rounds that count.
    nodes[0].now = ms(5000);
    nodes[1].on(Input::ReadIndex(8));
    exchange(&mut nodes);
    assert!(lease_reads(&mut nodes[0], 5809) && !lease_reads(&mut nodes[0], 5810));
}

#[test]
fn a_read_under_way_is_answered_though_others_need_not_wait() {
    let mut nodes = three();
    elect(&mut nodes);
    nodes[0].on(Input::ReadIndex(1));
    let first: Vec<_> = nodes[0].sent.drain(..).collect();
    nodes[0].on(Input::ReadIndex(2));
    exchange(&mut nodes);
    assert_eq!(nodes[0].reads.len(), 2, "the second round answers both");
    nodes[0].on(Input::ReadIndex(3));
    assert_eq!(nodes[0].reads.len(), 3);
    for message in first {
        nodes[message.to as usize - 1].on(Input::Step(Box::new(message)));
    }
    exchange(&mut nodes);
    assert_eq!(nodes[0].reads.len(), 3, "each once");
}

#[test]
fn new_leader_needs_a_lease_of_its_own() {
    let mut nodes = promised(1000);
    nodes[0].on(Input::Transfer(2));
    exchange(&mut nodes);
    assert!(nodes[1].role.leads);
    assert!(!lease_reads(&mut nodes[1], 1100));
    exchange(&mut nodes);
    assert!(lease_reads(&mut nodes[1], 1200));
    nodes[1].on(Input::Transfer(1));
    exchange(&mut nodes);
    assert!(nodes[0].role.leads);
    assert!(!lease_reads(&mut nodes[0], 1300), "what it was promised was for another term");
}

#[test]
fn transfer_ends_the_lease() {
    let mut nodes = promised(1000);
    nodes[0].on(Input::Transfer(2));
    // The message that names the other one is in flight.
    nodes[0].sent.clear();
    assert!(!lease_reads(&mut nodes[0], 1100));
    for _ in 0..10 {
        nodes[0].on(Input::Tick);
        exchange(&mut nodes);
    }
    assert!(
        nodes[0].role.leads && !nodes[0].driver.is_transferring(),
        "the other one did not come"
    );
    assert!(!lease_reads(&mut nodes[0], 1200));
    exchange(&mut nodes);
    assert!(!lease_reads(&mut nodes[0], 1210), "it may still come");
}

#[test]
fn a_change_of_members_ends_it_until_the_next_round() {
    let mut nodes = promised(1000);
    let change = ConfChange { kind: 0, member: 4, ..ConfChange::default() };
    nodes[0].on(Input::ConfChange(change));
    assert!(!lease_reads(&mut nodes[0], 1010));
    nodes[0].sent.retain(|it| it.to < 4);
    exchange_with_three(&mut nodes);
    assert!(lease_reads(&mut nodes[0], 1020), "three of four");
}

/// The fourth member does not exist.
fn exchange_with_three(nodes: &mut [Node]) {
    let messages: Vec<_> = nodes[0].sent.drain(..).collect();
    for message in messages {
        let to = message.to as usize - 1;
        nodes[to].on(Input::Step(Box::new(message)));
        nodes[to].settle();
    }
    let answers: Vec<_> = nodes[1..].iter_mut().flat_map(|node| node.sent.drain(..)).collect();
    answers.into_iter().for_each(|it| nodes[0].on(Input::Step(Box::new(it))));
}

#[test]
fn a_member_without_the_flag_promises_nothing_and_takes_nothing() {
    let mut nodes: Vec<_> = (1..=3).map(|id| Node::new(id, &[1, 2, 3])).collect();
    elect(&mut nodes);
    assert!(!lease_reads(&mut nodes[0], 1000));
    exchange(&mut nodes);
    assert!(!lease_reads(&mut nodes[0], 1000));
    // A leader with leases turned on, among two members that give none.
    let mut nodes: Vec<_> = (1..=3).map(|id| Node::new(id, &[1, 2, 3])).collect();
    nodes[0] = three().into_iter().next().expect("the first one");
    elect(&mut nodes);
    assert!(!lease_reads(&mut nodes[0], 1000));
    exchange(&mut nodes);
    assert!(!lease_reads(&mut nodes[0], 1000));
}

#[test]
fn follower_refuses_votes_until_its_vote_lease_ends() {
    let mut nodes = promised(1000);
    let follower = &mut nodes[1];
    for tick in 0..10 {
        let late = vote_request(3, 2, 5, 10);
        assert!(!grants(follower, late), "after {tick} ticks");
        // It forgets the leader, but keeps its vote lease.
        let mut later = Message { from: 3, to: 2, term: 4, reject: true, ..Message::default() };
        later.set_msg_type(MessageType::MsgRequestPreVoteResponse);
        follower.on(Input::Step(Box::new(later)));
        follower.on(Input::Campaign);
        assert_eq!(follower.role.leader, None);
        assert!(
            !follower.sent.iter().any(|it| it.get_msg_type() == MessageType::MsgRequestPreVote)
        );
        follower.on(Input::Tick);
    }
    assert!(grants(follower, vote_request(3, 2, 5, 10)));
}

#[test]
fn transfer_target_gets_votes_at_once() {
    let mut nodes = promised(1000);
    let mut named = vote_request(3, 2, 2, 10);
    named.context = Bytes::from_static(raft::CAMPAIGN_TRANSFER);
    assert!(grants(&mut nodes[1], named));
}

#[test]
fn a_promise_of_an_earlier_life_is_kept() {
    let conf_state = ConfState { voters: vec![1, 2, 3], ..ConfState::default() };
    let restored = Restored { conf_state, vote_lease_ticks: 3, ..Restored::default() };
    // With leases turned on or off.
    for mut node in [start(2, restored.clone()), Node::open(2, 1, restored)] {
        for _ in 0..3 {
            assert!(!grants(&mut node, vote_request(3, 2, 5, 10)));
            node.on(Input::Tick);
        }
        assert!(grants(&mut node, vote_request(3, 2, 5, 10)));
    }
}

#[test]
fn sole_voter_need_not_wait_unless_a_change_is_in_its_log() {
    let conf_state = ConfState { voters: vec![1], ..ConfState::default() };
    let restored = Restored { conf_state, vote_lease_ticks: 3, ..Restored::default() };
    let mut node = start(1, restored.clone());
    node.on(Input::Campaign);
    node.settle();
    assert!(node.role.leads);
    let kind = EntryKind::ConfChange;
    let entries = vec![Entry { index: 1, term: 1, kind, data: Bytes::new() }];
    let hard_state = HardState { term: 1, ..HardState::default() };
    let mut node = start(1, Restored { entries, hard_state, ..restored });
    node.on(Input::Campaign);
    node.settle();
    assert!(!node.role.leads, "another one may lead by now");
}
