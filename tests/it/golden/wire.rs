//! Frames and messages between members.

use basalt::consensus::wire::{Encoder, decode};
use basalt::consensus::{Message, MessageType};
use basalt::peer::{
    Answer, Decoder, Frame, Hello, Kind, Lane, MAGIC, PeerRequest, Question, Refused, RejectReason,
    Welcome, encode, message,
};
use bytes::Bytes;

use super::Golden;

fn hello() -> Hello {
    Hello {
        cluster: 0xcdf8_1819_4e3a_8c32,
        from: 1,
        to: 2,
        lane: Lane::Bulk as i32,
        urls: vec!["http://one:2380".into()],
        feature_level: 2,
        pings: false,
    }
}

fn answer() -> Answer {
    Answer {
        number: 300,
        refusal: "etcdserver: not leader".into(),
        ttl: 60,
        granted: 90,
        keys: vec!["a".into(), "b".into()],
        hash: u32::MAX,
        compact_revision: 7,
        hash_revision: 8,
        revision: 9,
    }
}

fn questions() -> [(&'static str, PeerRequest); 5] {
    [
        ("question: renew", PeerRequest::Renew(5)),
        ("question: time to live", PeerRequest::TimeToLive(5)),
        ("question: time to live and keys", PeerRequest::TimeToLiveAndKeys(5)),
        ("question: promote", PeerRequest::Promote(31)),
        ("question: hash", PeerRequest::HashKv(0)),
    ]
}

/// The frame that was kept.
fn frame(bytes: &[u8]) -> Frame {
    let mut decoder = Decoder::default();
    decoder.take(bytes);
    decoder.next_frame().expect("no damage").expect("a whole frame")
}

#[test]
fn frames_between_members_keep_their_bytes() {
    let refused = Refused { reason: RejectReason::FeatureLevel as i32, feature_level: 3 };
    let mut golden = Golden::default();
    golden.add("beginning of a connection", MAGIC);
    golden.add("hello", message(Kind::Hello, &hello()));
    golden.add(
        "hello of the first feature level",
        message(Kind::Hello, &Hello { feature_level: 0, ..hello() }),
    );
    golden.add(
        "hello of a member that sends pings",
        message(Kind::Hello, &Hello { pings: true, ..hello() }),
    );
    golden.add("welcome", message(Kind::Welcome, &()));
    golden.add(
        "welcome of a member that reads pings",
        message(Kind::Welcome, &Welcome { pings: true }),
    );
    golden.add("ping", encode(Kind::Ping, &[], &[]));
    golden.add("refused", message(Kind::Refused, &refused));
    for (name, ask) in questions() {
        let question = Question { number: 300, ask: Some(ask) };
        golden.add(name, message(Kind::Question, &question));
    }
    golden.add("answer", message(Kind::Answer, &answer()));
    golden.add("chunk", encode(Kind::Chunk, b"bytes of a snapshot", &[]));
    golden.add("end", message(Kind::End, &()));
    golden.add("arrived", message(Kind::Arrived, &()));
    let kept = golden.check("peer.hex");
    assert_eq!(frame(&kept["hello"]).read(Kind::Hello), Some(hello()));
    let old = frame(&kept["hello of the first feature level"]).read(Kind::Hello);
    assert_eq!(old, Some(Hello { feature_level: 0, ..hello() }));
    assert_eq!(frame(&kept["refused"]).read(Kind::Refused), Some(refused));
    for (name, ask) in questions() {
        let read = frame(&kept[name]).read(Kind::Question);
        assert_eq!(read, Some(Question { number: 300, ask: Some(ask) }), "{name}");
    }
    assert_eq!(frame(&kept["answer"]).read(Kind::Answer), Some(answer()));
    let chunk = Frame { kind: Kind::Chunk, payload: Bytes::from_static(b"bytes of a snapshot") };
    assert_eq!(frame(&kept["chunk"]), chunk);
    for (name, kind) in [("welcome", Kind::Welcome), ("end", Kind::End), ("arrived", Kind::Arrived)]
    {
        assert_eq!(frame(&kept[name]), Frame { kind, payload: Bytes::new() });
    }
}

/// A message with all fields, of this kind.
fn raft(kind: MessageType) -> Message {
    let mut raft = Message {
        to: 2,
        from: 0x1234_5678_9abc_def0,
        term: 300,
        log_term: 299,
        index: 70_000,
        commit: 69_999,
        commit_term: 298,
        reject: true,
        reject_hint: 69_000,
        request_snapshot: 11,
        deprecated_priority: 12,
        priority: -258,
        context: Bytes::from_static(b"context"),
        ..Message::default()
    };
    raft.set_msg_type(kind);
    raft
}

fn messages() -> Vec<(&'static str, Message)> {
    let mut append = raft(MessageType::MsgAppend);
    for (index, data) in [(70_001, &b""[..]), (70_002, b"payload")] {
        let entry = append.entries.push_default();
        (entry.index, entry.term, entry.data) = (index, 300, Bytes::from_static(data));
    }
    let mut snapshot = raft(MessageType::MsgSnapshot);
    let metadata = snapshot.mut_snapshot().mut_metadata();
    (metadata.index, metadata.term) = (70_000, 299);
    let state = metadata.mut_conf_state();
    (state.voters, state.learners) = (vec![1, 2], vec![3]);
    (state.voters_outgoing, state.learners_next, state.auto_leave) = (vec![4], vec![5], true);
    vec![
        ("append", append),
        ("snapshot", snapshot),
        ("heartbeat", raft(MessageType::MsgHeartbeat)),
        ("heartbeat response", raft(MessageType::MsgHeartbeatResponse)),
        ("append response", raft(MessageType::MsgAppendResponse)),
        ("vote", raft(MessageType::MsgRequestVote)),
        ("vote response", raft(MessageType::MsgRequestVoteResponse)),
        ("pre-vote", raft(MessageType::MsgRequestPreVote)),
        ("pre-vote response", raft(MessageType::MsgRequestPreVoteResponse)),
        ("proposal", raft(MessageType::MsgPropose)),
        ("proposal without a term", Message { term: 0, ..raft(MessageType::MsgPropose) }),
        ("timeout now", raft(MessageType::MsgTimeoutNow)),
        ("transfer leader", raft(MessageType::MsgTransferLeader)),
        ("read index", raft(MessageType::MsgReadIndex)),
        ("read index without a term", Message { term: 0, ..raft(MessageType::MsgReadIndex) }),
        ("read index response", raft(MessageType::MsgReadIndexResp)),
    ]
}

#[test]
fn raft_messages_keep_their_bytes() {
    let mut golden = Golden::default();
    for (name, message) in messages() {
        let (head, entries) = Encoder::default().encode(&message);
        golden.add(name, [&head[..], &entries].concat());
    }
    let kept = golden.check("raft.hex");
    let without_term = [MessageType::MsgPropose, MessageType::MsgReadIndex];
    for (name, message) in messages() {
        // Members have sent these without a term only.
        let is_sent = without_term.contains(&message.get_msg_type()) == (message.term == 0);
        let read = decode(kept[name].clone().into());
        assert_eq!(read, is_sent.then_some(message), "{name}");
    }
}
