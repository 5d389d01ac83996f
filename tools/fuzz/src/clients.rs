//! Bytes from clients: frames and messages of gRPC, JSON, websockets.

use std::io::Cursor;
use std::sync::LazyLock;

use basalt::command::Command;
use basalt::json::{Schema, Spelling, Values};
use basalt::machine::check_payload;
use basalt::rpc::door;
use basalt::types::{EntryKind, FeatureLevel};
use basalt_proto::DESCRIPTORS;
use basalt_proto::etcdserverpb::{
    CompactionRequest, DeleteRangeRequest, LeaseGrantRequest, PutRequest, RangeRequest, TxnRequest,
    WatchRequest,
};
use basalt_proto::grpc_frame::{Head, MessageCounter};
use basalt_proto::rpc::METHODS;
use bytes::Bytes;
use prost::Message;
use tungstenite::protocol::{Role, WebSocket, WebSocketConfig};

use super::{choice, pieces};

static SCHEMA: LazyLock<Schema> =
    LazyLock::new(|| Schema::new(&Message::decode(DESCRIPTORS).expect("made by the build")));

const OPERATIONS_MAX: usize = 128;

/// The frames of one stream.
pub(crate) fn grpc(bytes: &[u8]) {
    let whole = MessageCounter::default().count(bytes);
    let mut counter = MessageCounter::default();
    let counted: u64 = pieces(bytes).map(|piece| counter.count(piece)).sum();
    assert_eq!(counted, whole, "the pieces of a stream say nothing about its messages");
    if let Some(head) = Head::read(bytes) {
        let again = Head::from_bytes(head.to_bytes());
        assert_eq!((again.flag, again.length), (head.flag, head.length));
    }
}

/// A request's message, as each kind of request. One that passes is proposed, and every member must read it.
pub(crate) fn requests(bytes: &[u8]) {
    let (which, message) = choice(bytes);
    let message = Bytes::copy_from_slice(message);
    let command = match which % 8 {
        0 => read::<PutRequest>(message).and_then(|put| door::put(put).ok()),
        1 => read::<DeleteRangeRequest>(message).and_then(|delete| door::delete_range(delete).ok()),
        2 => match read::<TxnRequest>(message).map(|txn| door::txn(txn, OPERATIONS_MAX)) {
            Some(Ok(door::Txn::Write(txn))) => Some(Command::Txn(txn)),
            Some(Ok(door::Txn::Read(_)) | Err(_)) | None => None,
        },
        3 => read::<CompactionRequest>(message).map(door::compaction),
        4 => read::<LeaseGrantRequest>(message).and_then(|it| door::lease_grant(it, 2).ok()),
        5 => read::<RangeRequest>(message).and(None),
        6 => read::<WatchRequest>(message).and(None),
        _ => {
            as_json(which, &message);
            None
        }
    };
    let Some(command) = command else { return };
    let payload = command.to_payload(1);
    assert_eq!(check_payload(EntryKind::Normal, &payload, FeatureLevel::NEWEST), Ok(()));
    let (_, again) = Command::decode(payload).expect("it was admitted");
    assert_eq!(again, command);
}

fn read<Q: Message + Default>(message: Bytes) -> Option<Q> {
    door::read(message).ok()
}

/// Prints bytes of any RPC's message as JSON; JSON that is printed is read again.
fn as_json(which: usize, message: &[u8]) {
    let method = &METHODS[which % METHODS.len()];
    let id = SCHEMA.find(method.input).expect("it is described");
    let mut text = String::new();
    if SCHEMA.print(id, message, Spelling::Html, &mut text).is_err() {
        return;
    }
    let mut values = Values::default();
    values.push(text.as_bytes());
    let value = values.last().expect("printed JSON is JSON").expect("one value");
    let _ = SCHEMA.encode(id, &value);
}

/// Text for the gateway, in pieces. A message that is read is printed and read again.
pub(crate) fn json(bytes: &[u8]) {
    let (which, text) = choice(bytes);
    let method = &METHODS[which % METHODS.len()];
    let id = SCHEMA.find(method.input).expect("it is described");
    let mut values = Values::default();
    for piece in pieces(text) {
        values.push(piece);
        loop {
            match values.take() {
                Ok(None) => break,
                Err(_) => return,
                Ok(Some(value)) => {
                    let Ok(message) = SCHEMA.encode(id, &value) else { continue };
                    let mut printed = String::new();
                    let outcome = SCHEMA.print(id, &message, Spelling::Html, &mut printed);
                    outcome.expect("an encoded message is printed");
                    let mut again = Values::default();
                    again.push(printed.as_bytes());
                    let value = again.last().expect("printed JSON is JSON").expect("one value");
                    // Fields are encoded in the order of the text, and printed in that of the schema.
                    let message = SCHEMA.encode(id, &value).expect("it was printed");
                    let mut once_more = String::new();
                    let outcome = SCHEMA.print(id, &message, Spelling::Html, &mut once_more);
                    outcome.expect("an encoded message is printed");
                    assert_eq!(once_more, printed);
                }
            }
        }
    }
    let _ = values.last();
}

/// Frames of a websocket, with the bounds of the server's own.
pub(crate) fn websocket(bytes: &[u8]) {
    const MESSAGE_BYTES_MAX: usize = 1 << 20;
    let config = WebSocketConfig::default()
        .max_message_size(Some(MESSAGE_BYTES_MAX))
        .max_frame_size(Some(MESSAGE_BYTES_MAX));
    let stream = Cursor::new(bytes.to_vec());
    let mut socket = WebSocket::from_raw_socket(stream, Role::Server, Some(config));
    while let Ok(message) = socket.read() {
        assert!(message.len() <= MESSAGE_BYTES_MAX);
    }
}
