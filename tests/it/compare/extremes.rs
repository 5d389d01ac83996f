//! Comparisons at the limits: nested transactions and long keys.

use basalt::types::limits::{KEY_BYTES_MAX, NESTED_TXNS_MAX};
use basalt_proto::etcdserverpb::{
    Compare, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest, TxnResponse,
    compare, request_op::Request, response_op::Response,
};
use bytes::Bytes;
use prost::Message;
use prost::encoding::encode_varint;
use tonic::{Code, Status};

use super::{difference, runtime, setups};
use crate::process::Setup;
use crate::wire::{self, Wire};

/// Depth up to which the responses are compared one by one.
const DEPTH: usize = 200;
/// `--max-txn-ops` of etcd.
const DEFAULT_OPERATIONS: &str = "128";

/// The result of a transaction of some kind.
type Told = (usize, &'static str, Result<TxnResponse, (Code, String)>);

/// Runs a test against both servers, each started with this limit of operations in a transaction.
fn alike<T: PartialEq + std::fmt::Debug>(operations_max: &str, story: impl AsyncFn(Wire) -> T) {
    let (etcd, basalt) = setups();
    // Keys of some length must fit in.
    let start = |setup: Setup| {
        setup.flag("max-txn-ops", operations_max).flag("max-request-bytes", "1000000").start()
    };
    let (etcd, basalt) = (start(etcd), start(basalt));
    let told = runtime().block_on(async {
        let wires = (Wire::new(&etcd.endpoint()), Wire::new(&basalt.endpoint()));
        tokio::join!(story(wires.0), story(wires.1))
    });
    assert!(told.0 == told.1, "{}", difference(&told.0, &told.1));
}

/// An encoded transaction with the encoded one inside it. Not by types: some are deeper than types can be decoded.
fn around(inner: &[u8], with: &TxnRequest) -> Vec<u8> {
    let delimited = |tag: u8, bytes: &[u8]| {
        let mut out = vec![tag << 3 | 2];
        encode_varint(bytes.len() as u64, &mut out);
        out.extend_from_slice(bytes);
        out
    };
    let operation = delimited(4, inner);
    [with.encode_to_vec(), delimited(2, &operation)].concat()
}

fn operation(request: Request) -> RequestOp {
    RequestOp { request: Some(request) }
}

/// The innermost transaction.
fn leaf(kind: &str, depth: usize) -> TxnRequest {
    let key = Bytes::from("leaf");
    let request = match kind {
        "put" | "siblings" => Request::RequestPut(PutRequest {
            key,
            value: depth.to_string().into(),
            prev_kv: true,
            ..Default::default()
        }),
        "range" => Request::RequestRange(RangeRequest { key, ..Default::default() }),
        _ => Request::RequestDeleteRange(DeleteRangeRequest {
            key,
            prev_kv: true,
            ..Default::default()
        }),
    };
    TxnRequest { success: vec![operation(request)], ..Default::default() }
}

/// The operations of each level beside the next one.
fn beside(kind: &str, level: usize) -> TxnRequest {
    if kind != "siblings" {
        return TxnRequest::default();
    }
    let key = Bytes::from(format!("level/{level}"));
    let compare = Compare {
        result: compare::CompareResult::Greater.into(),
        key: key.clone(),
        target_union: Some(compare::TargetUnion::Version(-1)),
        ..Default::default()
    };
    let value = Bytes::from(level.to_string());
    let put = Request::RequestPut(PutRequest { key: key.clone(), value, ..Default::default() });
    let range = Request::RequestRange(RangeRequest { key, ..Default::default() });
    let success = vec![operation(put), operation(range)];
    TxnRequest { compare: vec![compare], success, ..Default::default() }
}

fn nested(kind: &str, depth: usize) -> Bytes {
    let mut bytes = leaf(kind, depth).encode_to_vec();
    for level in 0..depth {
        bytes = around(&bytes, &beside(kind, level));
    }
    bytes.into()
}

/// The response without the fields that belong to the process.
fn told(answer: Result<Bytes, Status>) -> Result<TxnResponse, (Code, String)> {
    let bytes = answer.map_err(|status| (status.code(), status.message().to_owned()))?;
    let mut answer = TxnResponse::decode(bytes).expect("a transaction's answer");
    answer.header.as_mut().expect("a header").raft_term = 0;
    Ok(answer)
}

async fn ask(wire: &Wire, kind: &'static str, depth: usize) -> Told {
    (depth, kind, told(wire.call(wire::TXN, nested(kind, depth)).await))
}

/// Number of nested transactions in a response.
fn depth_of(answer: &TxnResponse) -> usize {
    let mut depth = 0;
    let mut answer = answer;
    while let Some(Response::ResponseTxn(inner)) =
        answer.responses.last().and_then(|op| op.response.as_ref())
    {
        (depth, answer) = (depth + 1, inner);
    }
    depth
}

#[test]
fn transactions_in_each_other_answer_as_by_etcd() {
    alike("1000", async |wire| {
        let mut told = Vec::new();
        for depth in (1..=DEPTH).chain([NESTED_TXNS_MAX - 1, NESTED_TXNS_MAX]) {
            for kind in ["put", "range", "delete", "siblings"] {
                let answer = ask(&wire, kind, depth).await;
                let taken = answer.2.as_ref().map(depth_of);
                assert_eq!(taken, Ok(depth), "{kind} inside {depth} transactions");
                told.push(answer);
            }
        }
        let everything = wire.everything(0).await.unwrap();
        (told, everything.kvs, wire.hash_kv(0).await.unwrap().hash)
    });
}

#[test]
fn too_many_transactions_in_each_other_are_refused_as_by_etcd() {
    alike(DEFAULT_OPERATIONS, async |wire| {
        let mut told = Vec::new();
        for depth in (1..=DEPTH).chain([NESTED_TXNS_MAX, NESTED_TXNS_MAX + 1, 400, 1000, 4000]) {
            for kind in ["put", "range", "delete"] {
                told.push(ask(&wire, kind, depth).await);
            }
        }
        (told, wire.everything(0).await.unwrap().kvs)
    });
}

#[test]
fn reads_with_keys_longer_than_the_store_has_any_answer_as_by_etcd() {
    alike(DEFAULT_OPERATIONS, async |wire| {
        let long = |byte: u8, more: usize| Bytes::from(vec![byte; KEY_BYTES_MAX + more]);
        for (key, value) in
            [(long(b'k', 0), "longest"), (long(b'm', 0), "another"), ("l".into(), "short")]
        {
            let put = PutRequest { key, value: value.into(), ..Default::default() };
            wire.call(wire::PUT, put.encode_to_vec().into()).await.unwrap();
        }
        let mut told = Vec::new();
        let keys = [
            long(b'k', 0),
            long(b'k', 1),
            long(b'k', 9),
            long(b'l', 1),
            long(b'm', 0),
            long(b'm', 1),
        ];
        for key in &keys {
            for range_end in keys.iter().cloned().chain([Bytes::new(), "\0".into(), "z".into()]) {
                let range = Request::RequestRange(RangeRequest {
                    key: key.clone(),
                    range_end: range_end.clone(),
                    ..Default::default()
                });
                let count = Request::RequestRange(RangeRequest {
                    key: key.clone(),
                    range_end,
                    count_only: true,
                    ..Default::default()
                });
                let success = vec![operation(range), operation(count)];
                let txn = TxnRequest { success, ..Default::default() }.encode_to_vec();
                told.push(self::told(wire.call(wire::TXN, txn.into()).await));
            }
        }
        for key in keys.iter().filter(|key| key.len() > KEY_BYTES_MAX) {
            let delete = DeleteRangeRequest { key: key.clone(), ..Default::default() };
            let delete = Request::RequestDeleteRange(delete);
            let compare = Compare { key: key.clone(), ..Default::default() };
            let (compare, success) = (vec![compare], vec![operation(delete)]);
            let txn = TxnRequest { compare, success, ..Default::default() }.encode_to_vec();
            told.push(self::told(wire.call(wire::TXN, txn.into()).await));
        }
        told
    });
}
