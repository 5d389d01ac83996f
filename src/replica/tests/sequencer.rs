//! The consensus side: order, deferral and back-pressure.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;

use crate::consensus::wire::{is_proposal, proposals_of};
use crate::consensus::{Config, Driver, Message, MessageType, Restored};
use crate::replica::{Input, Inputs, Lane, Output, Replica};
use crate::types::limits::{
    CATCH_UP_ENTRIES_BYTES_MAX, DEFERRED_BYTES_MAX, UNAPPLIED_ENTRIES_MAX, UNCOMMITTED_BYTES_MAX,
    WAL_ROOM_BYTES_MIN,
};
use crate::types::{ConfState, DiskSpace, Entry, HardState};
use crate::wal::Record;

const NOW: Duration = Duration::from_secs(1);

/// One of `voters` members, whose log starts after their first entries.
fn replica(voters: u64) -> Replica<&'static str> {
    let config = Config {
        id: 1,
        election_ticks: 10,
        heartbeat_ticks: 1,
        pre_vote: false,
        seed: 1,
        boot_nonce: 1,
        catch_up_entries: 100,
        catch_up_bytes_max: CATCH_UP_ENTRIES_BYTES_MAX,
        uncommitted_bytes_max: UNCOMMITTED_BYTES_MAX,
        vote_lease: Duration::ZERO,
        logger: None,
    };
    let restored = Restored {
        hard_state: HardState { term: 1, vote: 0, commit: voters },
        conf_state: ConfState { voters: (1..=voters).collect(), ..ConfState::default() },
        log_start_index: voters,
        log_start_term: 1,
        applied: voters,
        ..Restored::default()
    };
    let driver = Driver::new(config, &restored).expect("it begins");
    Replica::new(driver, Duration::from_millis(100), DEFERRED_BYTES_MAX)
}

/// Completes disk writes at once, and returns the other outputs.
fn drain(replica: &mut Replica<&'static str>) -> Vec<Output<&'static str>> {
    let mut all = Vec::new();
    loop {
        let mut out = Vec::new();
        replica.drain(NOW, &mut out);
        let numbers: Vec<_> = out
            .iter()
            .filter_map(|output| {
                if let Output::Persist { number, .. } = output { Some(*number) } else { None }
            })
            .collect();
        all.extend(out);
        if numbers.is_empty() {
            return all;
        }
        numbers.into_iter().for_each(|number| replica.on(NOW, Input::Persisted(number)));
    }
}

fn requests(proposals: &[&'static [u8]], read: Option<u64>) -> Input<&'static str> {
    let proposals = proposals.iter().map(|it| Bytes::from_static(it)).collect();
    Input::Requests { executor: 4, proposals, read }
}

/// Payloads of the committed entries that have one.
fn committed(out: &[Output<&'static str>]) -> Vec<Bytes> {
    let entries = out.iter().filter_map(|output| {
        if let Output::Commit(entries) = output { Some(entries) } else { None }
    });
    let data = entries.flatten().map(|entry: &Entry| entry.data.clone());
    data.filter(|data| !data.is_empty()).collect()
}

fn reads(out: &[Output<&'static str>]) -> Vec<(usize, u64)> {
    let read = |output: &Output<&'static str>| {
        let Output::ReadAt { executor, batch, .. } = output else { return None };
        Some((*executor, *batch))
    };
    out.iter().filter_map(read).collect()
}

#[test]
fn proposals_without_a_leader_are_made_when_there_is_one_in_their_order() {
    let mut replica = replica(1);
    replica.on(NOW, requests(&[b"one", b"two"], None));
    replica.on(NOW, requests(&[b"three"], None));
    assert_eq!(committed(&drain(&mut replica)), Vec::<Bytes>::new());
    replica.on(NOW, Input::Campaign);
    let out = drain(&mut replica);
    assert_eq!(committed(&out), ["one", "two", "three"], "without another input");
    replica.on(NOW, Input::Tick(DiskSpace::Enough));
    assert_eq!(committed(&drain(&mut replica)), Vec::<Bytes>::new(), "once");
}

#[test]
fn reads_without_a_leader_share_one_read_index() {
    let mut replica = replica(1);
    for batch in 1..=3 {
        replica.on(NOW, requests(&[], Some(batch)));
    }
    assert_eq!(reads(&drain(&mut replica)), []);
    replica.on(NOW, Input::Campaign);
    // The leader answers once it has committed an entry of its own term.
    assert_eq!(reads(&drain(&mut replica)), [(4, 1), (4, 2), (4, 3)]);
    replica.on(NOW, requests(&[], Some(4)));
    assert_eq!(reads(&drain(&mut replica)), [(4, 4)]);
}

/// Proposals among the messages to be sent.
fn forwarded(out: Vec<Output<&'static str>>) -> Vec<Message> {
    let sent = out.into_iter().filter_map(|output| {
        if let Output::Send(messages) = output { Some(messages) } else { None }
    });
    sent.flatten().filter(is_proposal).collect()
}

#[test]
fn proposals_that_could_not_be_sent_are_made_again() {
    let mut replica = replica(3);
    let mut heartbeat = Message { from: 2, to: 1, term: 2, ..Message::default() };
    heartbeat.set_msg_type(MessageType::MsgHeartbeat);
    replica.on(NOW, Input::Peer(Box::new(heartbeat)));
    replica.on(NOW, requests(&[b"x"], None));
    let messages = forwarded(drain(&mut replica));
    assert_eq!(messages.len(), 1, "a follower passes it on");
    replica.undeliverable(messages);
    replica.on(NOW, Input::Tick(DiskSpace::Enough));
    let again = forwarded(drain(&mut replica)).into_iter().map(|it| proposals_of(it).normal);
    assert_eq!(again.collect::<Vec<_>>(), [["x"]]);
}

#[test]
fn only_the_leader_of_the_term_makes_its_own_requests() {
    let mut replica = replica(1);
    replica.on(NOW, Input::Campaign);
    drain(&mut replica);
    let term = replica.role().term;
    replica.on(NOW, Input::LeaderRequests(term - 1, vec![Bytes::from_static(b"old")]));
    replica.on(NOW, Input::LeaderRequests(term, vec![Bytes::from_static(b"new")]));
    assert_eq!(committed(&drain(&mut replica)), ["new"]);
}

#[derive(Default)]
struct Mailbox([VecDeque<Input<&'static str>>; 4]);

impl Mailbox {
    fn push(&mut self, lane: Lane, input: Input<&'static str>) {
        self.0[lane as usize].push_back(input);
    }
}

impl Inputs<&'static str> for Mailbox {
    fn pop(&mut self, lane: Lane) -> Option<Input<&'static str>> {
        self.0[lane as usize].pop_front()
    }
}

#[test]
fn clients_wait_while_too_much_is_not_applied() {
    let mut replica = replica(1);
    replica.on(NOW, Input::Campaign);
    drain(&mut replica);
    let mut mailbox = Mailbox::default();
    for _ in 0..UNAPPLIED_ENTRIES_MAX + 10 {
        mailbox.push(Lane::Requests, requests(&[b"x"], None));
    }
    replica.take(&mut mailbox, || NOW);
    let index = replica.progress().last;
    drain(&mut replica);
    assert!(!replica.accepts_requests());
    let left = mailbox.0[Lane::Requests as usize].len();
    assert!((1..=10).contains(&left), "{left} wait");
    mailbox.push(Lane::Acks, Input::Applied { index, conf_changes: Vec::new() });
    replica.take(&mut mailbox, || NOW);
    assert_eq!(mailbox.0[Lane::Requests as usize].len(), 0, "an acknowledgement makes room");
}

#[test]
fn a_log_without_room_takes_no_more_than_fits() {
    let mut replica = replica(1);
    replica.on(NOW, Input::Campaign);
    drain(&mut replica);
    replica.set_log_room(Some(WAL_ROOM_BYTES_MIN + 2));
    let mut mailbox = Mailbox::default();
    for _ in 0..5 {
        mailbox.push(Lane::Requests, requests(&[b"x"], None));
    }
    replica.take(&mut mailbox, || NOW);
    assert_eq!(mailbox.0[Lane::Requests as usize].len(), 2);
    replica.set_log_room(None);
    drain(&mut replica);
    replica.take(&mut mailbox, || NOW);
    assert_eq!(mailbox.0[Lane::Requests as usize].len(), 0);
}

#[test]
fn a_follower_with_a_full_disk_takes_no_appends() {
    let mut replica = replica(3);
    assert!(replica.accepts_appends());
    replica.on(NOW, Input::Tick(DiskSpace::Exhausted));
    drain(&mut replica);
    assert!(!replica.accepts_appends());
    assert!(replica.lacks_space());
    replica.on(NOW, Input::Tick(DiskSpace::Enough));
    assert!(replica.accepts_appends());
}

/// A message of the leader of term 2 that announces a snapshot.
fn snapshot_message(index: u64) -> Box<Message> {
    let mut message = Message { from: 2, to: 1, term: 2, ..Message::default() };
    message.set_msg_type(MessageType::MsgSnapshot);
    let conf_state = ConfState { voters: vec![1, 2, 3], ..ConfState::default() };
    crate::consensus::wire::set_snapshot(&mut message, index, 2, &conf_state);
    Box::new(message)
}

#[test]
fn a_snapshot_is_installed_once_and_the_log_begins_behind_it() {
    let mut replica = replica(3);
    replica.on(NOW, Input::Snapshot(snapshot_message(50), "taken"));
    replica.on(NOW, Input::Snapshot(snapshot_message(60), "second"));
    let out = drain(&mut replica);
    let place = |found: fn(&Output<&'static str>) -> bool| out.iter().position(found);
    let install = place(|it| matches!(it, Output::Install { snapshot: "taken", index: 50, .. }));
    let persist = place(|it| {
        let Output::Persist { records, .. } = it else { return false };
        matches!(records[0], Record::LogStart { index: 50, .. })
    });
    let discard = place(|it| matches!(it, Output::Discard("second")));
    assert!(install.is_some() && install < persist, "the state before the log's beginning");
    assert!(discard.is_some());
}

#[test]
fn a_snapshot_that_raft_does_not_need_is_discarded() {
    let mut replica = replica(3);
    replica.on(NOW, Input::Snapshot(snapshot_message(2), "old"));
    let out = drain(&mut replica);
    assert!(out.iter().any(|it| matches!(it, Output::Discard("old"))));
    assert!(!out.iter().any(|it| matches!(it, Output::Install { .. })));
}
