//! Requests and responses as bytes: what each request costs before and after anything is done for it.

use std::hint::black_box;

use basalt::command::Command;
use basalt_proto::encoded::RangeResponse;
use basalt_proto::etcdserverpb::{PutRequest, RangeRequest, ResponseHeader};
use basalt_proto::mvccpb::KeyValue;
use bytes::Bytes;
use prost::Message;

use super::Operation;

const VALUE_BYTES: usize = 256;

pub(crate) fn put_request(key: u64) -> PutRequest {
    let key = format!("/registry/pods/default/pod-{key:08}");
    PutRequest { key: key.into(), value: vec![b'v'; VALUE_BYTES].into(), ..PutRequest::default() }
}

/// The payload of an entry, from a request.
pub(crate) fn encode_put() -> Operation {
    let command = Command::Put(put_request(1));
    Box::new(move || drop(black_box(black_box(&command).to_payload(7))))
}

/// The request, from the bytes of a gRPC message, and the command, from those of an entry.
pub(crate) fn decode_put() -> Operation {
    let message = Bytes::from(put_request(1).encode_to_vec());
    let payload = Command::Put(put_request(1)).to_payload(7);
    Box::new(move || {
        black_box(PutRequest::decode(black_box(message.clone())).expect("a put"));
        black_box(Command::decode(black_box(payload.clone())).expect("a command"));
    })
}

pub(crate) fn decode_range() -> Operation {
    let request = RangeRequest { key: put_request(1).key, ..RangeRequest::default() };
    let message = Bytes::from(request.encode_to_vec());
    Box::new(move || {
        black_box(RangeRequest::decode(black_box(message.clone())).expect("a range"));
    })
}

/// A response with one key, whose record is encoded already.
pub(crate) fn encode_range_response() -> Operation {
    let PutRequest { key, value, .. } = put_request(1);
    let kv = KeyValue { key, value, version: 1, mod_revision: 2, create_revision: 2, lease: 0 };
    let kvs = vec![Bytes::from(kv.encode_to_vec())];
    let header = Some(ResponseHeader { revision: 9, ..ResponseHeader::default() });
    let response = RangeResponse { header, kvs: kvs.into(), more: false, count: 1 };
    let mut bytes = Vec::with_capacity(1024);
    Box::new(move || {
        bytes.clear();
        black_box(&response).encode(&mut bytes).expect("there is room");
        black_box(&bytes);
    })
}
