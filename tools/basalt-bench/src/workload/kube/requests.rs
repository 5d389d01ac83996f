//! The few kinds of requests that a kube-apiserver makes, as its etcd3 store makes them.

use basalt_proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use basalt_proto::etcdserverpb::request_op::Request;
use basalt_proto::etcdserverpb::{
    Compare, DeleteRangeRequest, LeaseGrantRequest, LeaseGrantResponse, PutRequest, RangeRequest,
    RequestOp, ResponseHeader, TxnRequest,
};
use bytes::Bytes;
use prost::Message;

use super::objects::Object;
use crate::keys::prefix_end;
use crate::paths;
use crate::walk::field;
use crate::workload::range::Answer;

/// Objects in a page of a list.
const PAGE: i64 = 500;

/// Creates an object that does not exist, or updates one at the known revision; else reads it.
pub(super) fn write(object: &Object, value: Bytes, lease: i64, body: &mut Vec<u8>) -> &'static str {
    let put = PutRequest { key: object.key.clone(), value, lease, ..PutRequest::default() };
    guarded(object, Request::RequestPut(put), body)
}

/// Deletes an object at the known revision; else reads it.
pub(super) fn delete(object: &Object, body: &mut Vec<u8>) -> &'static str {
    let delete = DeleteRangeRequest { key: object.key.clone(), ..DeleteRangeRequest::default() };
    guarded(object, Request::RequestDeleteRange(delete), body)
}

/// Reads an object.
pub(super) fn get(object: &Object, body: &mut Vec<u8>) -> &'static str {
    range(RangeRequest { key: object.key.clone(), ..RangeRequest::default() }, body)
}

/// Counts the keys with a prefix.
pub(super) fn count(prefix: &[u8], body: &mut Vec<u8>) -> &'static str {
    let (key, range_end) = (prefix.to_vec().into(), prefix_end(prefix).into());
    range(RangeRequest { key, range_end, count_only: true, ..RangeRequest::default() }, body)
}

/// A page of the keys with a prefix: the first, or the one that begins at this key and revision.
pub(super) fn list(prefix: &[u8], from: Option<(Bytes, i64)>, body: &mut Vec<u8>) -> &'static str {
    let (key, revision) = from.unwrap_or_else(|| (prefix.to_vec().into(), 0));
    let range_end = prefix_end(prefix).into();
    range(RangeRequest { key, range_end, revision, limit: PAGE, ..RangeRequest::default() }, body)
}

/// A lease of `ttl` seconds.
pub(super) fn grant(ttl: i64, body: &mut Vec<u8>) -> &'static str {
    let request = LeaseGrantRequest { ttl, ..LeaseGrantRequest::default() };
    request.encode(body).expect("a Vec takes everything");
    paths::LEASE_GRANT
}

/// The lease that was granted.
pub(super) fn granted(body: &[u8]) -> Result<i64, String> {
    LeaseGrantResponse::decode(body).map(|granted| granted.id).map_err(|error| error.to_string())
}

/// The revision of a transaction whose compare succeeded.
pub(super) fn committed(body: &[u8]) -> Result<i64, String> {
    let (revision, succeeded) = outcome(body).ok_or("an answer that does not decode")?;
    match succeeded {
        true => Ok(revision),
        false => Err("a conflict, though nobody else has this object".to_owned()),
    }
}

/// Where the next page begins and at which revision, if there is one.
pub(super) fn listed(body: &[u8]) -> Result<Option<(Bytes, i64)>, String> {
    let answer = Answer::walk(body, false).ok_or("an answer that does not decode")?;
    let next = || ([answer.last_key, b"\0"].concat().into(), answer.revision);
    Ok((answer.more && !answer.last_key.is_empty()).then(next))
}

/// Checks that the response holds an object.
pub(super) fn found(body: &[u8]) -> Result<(), String> {
    let answer = Answer::walk(body, false).ok_or("an answer that does not decode")?;
    match answer.keys {
        0 => Err("an object is gone that nobody deleted".to_owned()),
        _ => Ok(()),
    }
}

fn range(request: RangeRequest, body: &mut Vec<u8>) -> &'static str {
    request.encode(body).expect("a Vec takes everything");
    paths::RANGE
}

fn guarded(object: &Object, then: Request, body: &mut Vec<u8>) -> &'static str {
    let op = |request| RequestOp { request: Some(request) };
    let unchanged = Compare {
        result: CompareResult::Equal.into(),
        target: CompareTarget::Mod.into(),
        key: object.key.clone(),
        target_union: Some(TargetUnion::ModRevision(object.revision)),
        ..Compare::default()
    };
    let get = RangeRequest { key: object.key.clone(), ..RangeRequest::default() };
    let request = TxnRequest {
        compare: vec![unchanged],
        success: vec![op(then)],
        failure: vec![op(Request::RequestRange(get))],
    };
    request.encode(body).expect("a Vec takes everything");
    paths::TXN
}

/// Revision and success of a `TxnResponse`, without its responses.
fn outcome(mut body: &[u8]) -> Option<(i64, bool)> {
    let (mut revision, mut succeeded) = (0, false);
    while let Some((number, value)) = field(&mut body)? {
        match number {
            1 => revision = ResponseHeader::decode(value.bytes()?).ok()?.revision,
            2 => succeeded = value.number()? == 1,
            _ => {}
        }
    }
    Some((revision, succeeded))
}
