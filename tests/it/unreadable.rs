//! Data directories whose log holds an entry that cannot be applied, by an earlier version that accepted it, or by this one.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::path::Path;

use basalt::cluster::{cluster_id, member_id};
use basalt::consensus::wire::Encoder;
use basalt::consensus::{Message, MessageType};
use basalt::io::{begin_log, prepare_data_dir};
use basalt::peer::{self, Decoder, Hello, Kind, Lane, MAGIC};
use basalt::types::limits::{KEY_BYTES_MAX, NESTED_TXNS_MAX};
use basalt::types::{ConfState, Entry, EntryKind, FeatureLevel, HardState};
use basalt::wal::Record;
use basalt_proto::etcdserverpb::{
    InternalRaftRequest, PutRequest, RequestHeader, RequestOp, TxnRequest, request_op::Request,
};
use bytes::Bytes;
use prost::Message as _;

use crate::compare::runtime;
use crate::process::{self, Finished, PATIENCE, Scratch, Server, Setup, run};
use crate::wire::Wire;

/// The member of [`Setup::new`].
const PEER_URL: &str = "http://127.0.0.1:12380";
const NAME: &str = "pillar";
/// The first entry after the one that adds the member.
const FIRST: u64 = 2;
const TERM: u64 = 2;

fn put(key: impl Into<Bytes>, value: &'static str) -> InternalRaftRequest {
    let put = PutRequest { key: key.into(), value: value.into(), ..Default::default() };
    InternalRaftRequest { put: Some(put), ..Default::default() }
}

/// A put inside this many transactions, as earlier versions accepted 49 of them.
fn nested(key: &'static str, depth: usize) -> InternalRaftRequest {
    let put = PutRequest { key: key.into(), value: "nested".into(), ..Default::default() };
    let mut txn = TxnRequest {
        success: vec![RequestOp { request: Some(Request::RequestPut(put)) }],
        ..Default::default()
    };
    for _ in 0..depth {
        let success = vec![RequestOp { request: Some(Request::RequestTxn(txn)) }];
        txn = TxnRequest { success, ..Default::default() };
    }
    InternalRaftRequest { txn: Some(txn), ..Default::default() }
}

fn encoded(requests: Vec<InternalRaftRequest>) -> Vec<Bytes> {
    let with_id = |(id, request)| {
        let header = Some(RequestHeader { id, ..Default::default() });
        Bytes::from(InternalRaftRequest { header, ..request }.encode_to_vec())
    };
    (1..).zip(requests).map(with_id).collect()
}

/// A member that was killed with these entries in its log and nothing in its store.
fn died_with(payloads: Vec<Bytes>) -> Server {
    let server = Server::new(Setup::new(process::basalt()));
    let id = member_id(&[PEER_URL.to_owned()], "etcd-cluster", None);
    let conf_state = ConfState { voters: vec![id], ..ConfState::default() };
    let commit = FIRST + payloads.len() as u64 - 1;
    let mut records = vec![
        Record::Metadata { cluster_id: cluster_id(&[id]), member_id: id },
        Record::LogStart { index: FIRST - 1, term: 1, conf_state },
    ];
    let entry =
        |(index, data)| Record::Entry(Entry { index, term: TERM, kind: EntryKind::Normal, data });
    records.extend((FIRST..).zip(payloads).map(entry));
    records.push(Record::HardState(HardState { term: TERM, vote: id, commit }));
    let wal = server.data_dir().join("member/wal");
    prepare_data_dir(&wal).unwrap();
    begin_log(&wal, &records).unwrap();
    server
}

fn utl(arguments: &[&str]) -> Finished {
    let mut command = std::process::Command::new(process::basaltutl());
    command.args(arguments);
    run(command, PATIENCE)
}

fn text(path: &Path) -> String {
    path.to_str().expect("a path is text").to_owned()
}

async fn keys(server: &Server) -> Vec<String> {
    let all = Wire::new(&server.endpoint()).everything(0).await.unwrap().kvs;
    all.iter().map(|kv| String::from_utf8_lossy(&kv.key).into_owned()).collect()
}

#[test]
fn a_member_that_ended_at_a_deep_transaction_or_a_long_key_starts_again() {
    let long = Bytes::from(vec![b'k'; KEY_BYTES_MAX + 1]);
    let mut server = died_with(encoded(vec![
        put("a", "before"),
        nested("b", 49),
        nested("c", NESTED_TXNS_MAX),
        put(long, "which no store holds"),
        put("d", "after"),
    ]));
    server.start();
    runtime().block_on(async {
        assert_eq!(keys(&server).await, ["a", "b", "c", "d"]);
    });
    let data_dir = text(&server.data_dir());
    let told = utl(&["verify", "--data-dir", &data_dir]);
    assert!(told.stderr.contains("another process uses the data directory"), "{}", told.stderr);
    server.kill();
    let told = utl(&["verify", "--data-dir", &data_dir]);
    assert_eq!(told.code, Some(0), "{}{}", told.stdout, told.stderr);
    assert!(told.stdout.ends_with("every entry that is left can be applied"), "{}", told.stdout);
}

/// Another member that proposes malformed entries.
fn propose(server: &Server, payloads: &[&'static [u8]]) {
    let own = member_id(&[PEER_URL.to_owned()], "etcd-cluster", None);
    let (cluster, from) = (cluster_id(&[own]), own + 1);
    let hello = Hello {
        cluster,
        from,
        to: own,
        lane: Lane::Bulk as i32,
        urls: Vec::new(),
        feature_level: FeatureLevel::NEWEST.number(),
        pings: false,
    };
    let mut stream = TcpStream::connect(("127.0.0.1", server.peer_port)).unwrap();
    stream.write_all(MAGIC).unwrap();
    stream.write_all(&peer::message(Kind::Hello, &hello)).unwrap();
    let (mut decoder, mut buffer) = (Decoder::default(), [0; 64]);
    let welcome = loop {
        if let Some(frame) = decoder.next_frame().unwrap() {
            break frame;
        }
        let count = stream.read(&mut buffer).unwrap();
        assert!(count > 0, "the connection was closed");
        decoder.take(&buffer[..count]);
    };
    assert_eq!(welcome.kind, Kind::Welcome);
    let mut proposal = Message { from, to: own, ..Message::default() };
    proposal.set_msg_type(MessageType::MsgPropose);
    for payload in payloads {
        proposal.entries.push_default().data = Bytes::from_static(payload);
    }
    let (head, rest) = Encoder::default().encode(&proposal);
    stream.write_all(&peer::encode(Kind::Raft, &head, &rest)).unwrap();
    stream.write_all(&rest).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    // Until the end of the stream.
    let _ = stream.read(&mut buffer);
}

#[test]
fn a_leader_refuses_proposals_that_it_could_not_apply() {
    let mut server = Setup::new(process::basalt()).start();
    propose(&server, &[b"\xff", b"\xf8\x7f\x01"]);
    propose(&server, &[]);
    runtime().block_on(async {
        let wire = Wire::new(&server.endpoint());
        wire.put("a", "still here").await.unwrap();
        assert_eq!(keys(&server).await, ["a"]);
    });
    assert!(server.logs.wait_for("dropped proposals that cannot be applied", PATIENCE));
    server.kill();
    server.start();
    runtime().block_on(async { assert_eq!(keys(&server).await, ["a"]) });
}

#[test]
fn an_entry_that_cannot_be_applied_is_named_and_all_before_it_can_be_saved() {
    let mut payloads = encoded(vec![put("a", "1"), nested("b", 60), put("lost", "3")]);
    payloads.insert(2, Bytes::from_static(b"\x1a\xff\xff"));
    let mut server = died_with(payloads);
    server.launch();
    assert!(server.wait_exit(PATIENCE).is_some_and(|status| !status.success()));
    let logs = server.logs.all();
    assert!(logs.contains("entry 4 of the log cannot be applied: it does not read"), "{logs}");
    assert!(logs.contains("basaltutl verify --data-dir"), "{logs}");
    server.kill();
    let (scratch, data_dir) = (Scratch::new(), text(&server.data_dir()));
    let file = text(&scratch.path().join("saved.db"));
    for _ in 0..2 {
        let told = utl(&["verify", "--data-dir", &data_dir]);
        assert_eq!(told.code, Some(1), "{}{}", told.stdout, told.stderr);
        let named = "entry 4 of term 2, a request of 3 bytes, cannot be applied: it does not read";
        assert!(told.stdout.contains(named), "{}", told.stdout);
        let way_out = format!("basaltutl snapshot save backup.db --data-dir {data_dir}");
        assert!(told.stdout.contains(&way_out), "{}", told.stdout);
        // Saving does not change the result of a later check.
        let told = utl(&["snapshot", "save", &file, "--data-dir", &data_dir]);
        assert_eq!(told.code, Some(0), "{}{}", told.stdout, told.stderr);
        assert!(told.stdout.contains("everything up to entry 3"), "{}", told.stdout);
    }
    let mut second = Server::new(Setup::new(process::basalt()));
    let told = utl(&[
        "snapshot",
        "restore",
        &file,
        "--data-dir",
        &text(&second.data_dir()),
        "--name",
        NAME,
        "--initial-cluster",
        &format!("{NAME}={PEER_URL}"),
        "--initial-advertise-peer-urls",
        PEER_URL,
    ]);
    assert_eq!(told.code, Some(0), "{}{}", told.stdout, told.stderr);
    second.start();
    runtime().block_on(async {
        assert_eq!(keys(&second).await, ["a", "b"]);
        let wire = Wire::new(&second.endpoint());
        wire.put("c", "goes on").await.unwrap();
    });
    assert!(fs::exists(&file).unwrap());
}
