//! Messages are decoded as they were encoded, whatever the encoder encoded before.

use protobuf::ProtobufEnum as _;
use raft::eraftpb::{self, MessageType};

use super::*;
use crate::consensus::wire::{
    Encoder, decode, proposals_of, retain_proposals, set_snapshot, snapshot_position,
};

/// The decoded form of messages that are encoded one after the other.
pub(super) fn carried(messages: Vec<Message>) -> Vec<Message> {
    let mut encoder = Encoder::default();
    let carry = |message: Message| {
        let (head, entries) = encoder.encode(&message);
        decode([head, entries.to_vec()].concat().into()).expect("it reads")
    };
    messages.into_iter().map(carry).collect()
}

fn message(kind: MessageType, to: MemberId, entries: &[(LogIndex, Term, &'static str)]) -> Message {
    let entry = |(index, term, data): &(LogIndex, Term, &'static str)| eraftpb::Entry {
        index: *index,
        term: *term,
        data: Bytes::from_static(data.as_bytes()),
        ..eraftpb::Entry::default()
    };
    let mut message = Message { from: 9, to, term: 3, commit: 7, ..Message::default() };
    message.set_msg_type(kind);
    message.set_entries(entries.iter().map(entry).collect::<Vec<_>>().into());
    message
}

#[test]
fn messages_encoded_in_sequence_are_decoded_unchanged() {
    use MessageType::{MsgAppend, MsgPropose, MsgReadIndexResp};
    let mut snapshot = message(MessageType::MsgSnapshot, 2, &[]);
    let conf_state = ConfState { voters: vec![1, 2], learners: vec![3], ..ConfState::default() };
    set_snapshot(&mut snapshot, 40, 2, &conf_state);
    assert_eq!(snapshot_position(&snapshot), (40, 2));
    let sent = vec![
        // Entries without an index: only the payloads differ.
        Message { term: 0, ..message(MsgPropose, 2, &[(0, 0, "a")]) },
        Message { term: 0, ..message(MsgPropose, 2, &[(0, 0, "b")]) },
        message(MsgReadIndexResp, 2, &[(0, 0, "one read")]),
        message(MsgReadIndexResp, 3, &[(0, 0, "another")]),
        message(MsgAppend, 2, &[(5, 1, "x"), (6, 2, "y")]),
        message(MsgAppend, 3, &[(5, 1, "x"), (6, 2, "y")]),
        message(MsgAppend, 4, &[(6, 2, "y")]),
        message(MessageType::MsgHeartbeat, 2, &[]),
        snapshot,
    ];
    assert_eq!(carried(sent.clone()), sent);
}

#[test]
fn half_a_message_is_none() {
    let (head, entries) =
        Encoder::default().encode(&message(MessageType::MsgAppend, 2, &[(1, 1, "x")]));
    let bytes = Bytes::from([head, entries.to_vec()].concat());
    for length in 0..bytes.len() {
        assert_eq!(decode(bytes.slice(..length)), None, "{length} bytes");
    }
    assert!(decode(bytes.clone()).is_some());
    assert_eq!(decode([&bytes[..], b"more"].concat().into()), None);
}

#[test]
fn invalid_entries_are_removed_from_proposals() {
    let entries = [(0, 0, "good"), (0, 0, "bad"), (0, 0, "good too")];
    let mut proposal = message(MessageType::MsgPropose, 2, &entries);
    let may_enter = |kind: EntryKind, data: &Bytes| kind == EntryKind::Normal && data != "bad";
    assert_eq!(retain_proposals(&mut proposal, may_enter), 1);
    assert_eq!(proposals_of(proposal).normal, ["good", "good too"]);
}

/// raft would step one without a term as its own, and a follower of term 3 become one of term 0.
#[test]
fn a_message_has_a_term_if_its_kind_has_one() {
    let read = |term: Term| {
        let kinds = (0..).map_while(MessageType::from_i32);
        let kinds = kinds.filter(move |kind| {
            let message = Message { term, ..message(*kind, 2, &[]) };
            let (head, entries) = Encoder::default().encode(&message);
            decode([head, entries.to_vec()].concat().into()).is_some()
        });
        kinds.collect::<Vec<_>>()
    };
    let without = [MessageType::MsgPropose, MessageType::MsgReadIndex];
    assert_eq!(read(0), without);
    let with = read(3);
    assert!(with.contains(&MessageType::MsgHeartbeat));
    assert!(without.iter().all(|kind| !with.contains(kind)));
}

#[test]
fn a_message_of_the_last_term_is_none() {
    for (term, is_read) in [(i64::MAX as u64, true), (1 << 63, false), (u64::MAX, false)] {
        let of_term = Message { term, ..message(MessageType::MsgHeartbeat, 2, &[]) };
        for message in [of_term, message(MessageType::MsgAppend, 2, &[(term, 3, "x")])] {
            let (head, entries) = Encoder::default().encode(&message);
            let read = decode([head, entries.to_vec()].concat().into());
            assert_eq!(read.is_some(), is_read, "{term}");
        }
    }
}
