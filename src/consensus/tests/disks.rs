//! A leader whose disk is full, and the reports of disk space to all members.

use super::*;

/// Three members, the first of which leads, whose disks are as given.
fn three(spaces: [DiskSpace; 3]) -> [Node; 3] {
    let mut nodes = [1, 2, 3].map(|id| Node::new(id, &[1, 2, 3]));
    elect(&mut nodes);
    for (node, space) in nodes.iter_mut().zip(spaces) {
        node.on(Input::Disk(space));
    }
    ticks(&mut nodes);
    nodes
}

/// Ticks for answers to a heartbeat, for a transfer, and for a heartbeat of the next leader.
fn ticks(nodes: &mut [Node]) {
    for _ in 0..5 {
        nodes.iter_mut().for_each(|node| node.on(Input::Tick));
        exchange(nodes);
    }
}

fn leader(nodes: &[Node]) -> MemberId {
    let leaders: Vec<_> = nodes.iter().filter(|node| node.role.leads).collect();
    assert_eq!(leaders.len(), 1);
    leaders[0].driver.config_id()
}

use DiskSpace::{Enough, Exhausted, Low};

#[test]
fn a_leader_on_a_full_disk_hands_over_to_one_with_room() {
    for (spaces, expected) in [
        ([Enough, Enough, Enough], 1),
        ([Enough, Low, Enough], 1),
        ([Low, Enough, Enough], 3),
        ([Exhausted, Enough, Enough], 3),
    ] {
        let mut nodes = three(spaces);
        assert_eq!(leader(&nodes), expected, "{spaces:?}");
        assert!(nodes.iter().all(|node| node.full.is_empty()), "a quorum has room: {spaces:?}");
        // The leader keeps its leadership.
        (0..10).for_each(|_| ticks(&mut nodes));
        assert_eq!(leader(&nodes), expected, "{spaces:?}");
    }
}

#[test]
fn without_a_quorum_with_room_nobody_hands_over_and_all_learn_of_it() {
    for (spaces, full) in [
        ([Low, Low, Enough], vec![1, 2]),
        ([Low, Enough, Exhausted], vec![1, 3]),
        ([Enough, Low, Low], vec![2, 3]),
        ([Low, Low, Low], vec![1, 2, 3]),
    ] {
        let mut nodes = three(spaces);
        assert_eq!(leader(&nodes), 1, "{spaces:?}");
        assert!(nodes.iter().all(|node| node.full == full), "{spaces:?}");
        nodes.iter_mut().for_each(|node| node.on(Input::Disk(Enough)));
        ticks(&mut nodes);
        assert!(nodes.iter().all(|node| node.full.is_empty()), "{spaces:?}");
        assert_eq!(leader(&nodes), 1);
    }
}

#[test]
fn a_sole_voter_learns_at_once_that_it_has_no_room() {
    let mut node = Node::new(1, &[1]);
    node.on(Input::Campaign);
    node.settle();
    node.on(Input::Disk(Low));
    node.on(Input::Tick);
    assert_eq!(node.full, [1]);
    node.on(Input::Disk(Enough));
    node.on(Input::Tick);
    assert!(node.full.is_empty());
}
