//! `--namespace`: a prefix that every key has at the members and none has at the clients.

use basalt_proto::etcdserverpb::request_op::Request;
use basalt_proto::etcdserverpb::response_op::Response;
use basalt_proto::etcdserverpb::{
    Compare, DeleteRangeRequest, DeleteRangeResponse, LeaseTimeToLiveResponse, PutRequest,
    PutResponse, RangeRequest, RangeResponse, RequestOp, ResponseOp, TxnRequest, TxnResponse,
};
use basalt_proto::mvccpb::KeyValue;
use bytes::Bytes;

/// The end of a range that goes on to the last key.
const TO_THE_END: &[u8] = &[0];

/// The prefix; empty if there is none.
#[derive(Clone, Debug)]
pub(super) struct Namespace(Bytes);

impl Namespace {
    pub(super) fn new(prefix: &str) -> Self {
        Self(Bytes::copy_from_slice(prefix.as_bytes()))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A key as the members have it.
    pub(super) fn key(&self, key: &Bytes) -> Bytes {
        match self.is_empty() {
            true => key.clone(),
            false => [&self.0[..], key].concat().into(),
        }
    }

    /// The end of a range as the members have it: the end of all keys is that of the prefix.
    fn end(&self, end: &Bytes) -> Bytes {
        match &end[..] {
            [] => Bytes::new(),
            TO_THE_END => prefix_end(&self.0),
            _ => self.key(end),
        }
    }

    /// A range as the members have it.
    pub(super) fn range(&self, key: &Bytes, end: &Bytes) -> (Bytes, Bytes) {
        match self.is_empty() {
            true => (key.clone(), end.clone()),
            false => (self.key(key), self.end(end)),
        }
    }

    /// A key as the clients have it. One of another namespace is never shown; it becomes empty.
    pub(super) fn strip(&self, key: &mut Bytes) {
        *key = match key.starts_with(&self.0) {
            true => key.slice(self.0.len()..),
            false => Bytes::new(),
        };
    }

    pub(super) fn strip_pair(&self, pair: Option<&mut KeyValue>) {
        if let Some(pair) = pair {
            self.strip(&mut pair.key);
        }
    }

    pub(super) fn of_range(&self, request: &mut RangeRequest) {
        (request.key, request.range_end) = self.range(&request.key, &request.range_end);
    }

    pub(super) fn of_put(&self, request: &mut PutRequest) {
        request.key = self.key(&request.key);
    }

    pub(super) fn of_delete(&self, request: &mut DeleteRangeRequest) {
        (request.key, request.range_end) = self.range(&request.key, &request.range_end);
    }

    pub(super) fn of_txn(&self, request: &mut TxnRequest) {
        for compare in &mut request.compare {
            let Compare { key, range_end, .. } = compare;
            (*key, *range_end) = self.range(key, range_end);
        }
        request.success.iter_mut().chain(&mut request.failure).for_each(|it| self.of_operation(it));
    }

    fn of_operation(&self, operation: &mut RequestOp) {
        match &mut operation.request {
            Some(Request::RequestRange(it)) => self.of_range(it),
            Some(Request::RequestPut(it)) => self.of_put(it),
            Some(Request::RequestDeleteRange(it)) => self.of_delete(it),
            Some(Request::RequestTxn(it)) => self.of_txn(it),
            None => {}
        }
    }

    pub(super) fn strip_range(&self, response: &mut RangeResponse) {
        response.kvs.iter_mut().for_each(|it| self.strip(&mut it.key));
    }

    pub(super) fn strip_put(&self, response: &mut PutResponse) {
        self.strip_pair(response.prev_kv.as_mut());
    }

    pub(super) fn strip_delete(&self, response: &mut DeleteRangeResponse) {
        response.prev_kvs.iter_mut().for_each(|it| self.strip(&mut it.key));
    }

    pub(super) fn strip_txn(&self, response: &mut TxnResponse) {
        response.responses.iter_mut().for_each(|it| self.strip_operation(it));
    }

    fn strip_operation(&self, operation: &mut ResponseOp) {
        match &mut operation.response {
            Some(Response::ResponseRange(it)) => self.strip_range(it),
            Some(Response::ResponsePut(it)) => self.strip_put(it),
            Some(Response::ResponseDeleteRange(it)) => self.strip_delete(it),
            Some(Response::ResponseTxn(it)) => self.strip_txn(it),
            None => {}
        }
    }

    /// The keys of a lease, those of this namespace alone.
    pub(super) fn strip_lease(&self, response: &mut LeaseTimeToLiveResponse) {
        response.keys.retain(|key| key.starts_with(&self.0));
        response.keys.iter_mut().for_each(|key| self.strip(key));
    }
}

/// The first key behind all with this prefix; the end of all keys if there is none.
fn prefix_end(prefix: &[u8]) -> Bytes {
    let kept = prefix.iter().rposition(|byte| *byte != u8::MAX);
    let Some(kept) = kept else { return Bytes::from_static(TO_THE_END) };
    let mut end = prefix.to_vec();
    // As etcd's client has it: what follows the incremented byte becomes zero instead of being left out.
    end[kept] += 1;
    end[kept + 1..].fill(0);
    end.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_stay_inside_the_prefix() {
        let range = |prefix: &str, key: &'static str, end: &'static [u8]| {
            Namespace::new(prefix).range(&Bytes::from(key), &Bytes::from_static(end))
        };
        assert_eq!(range("pfx/", "a", b""), ("pfx/a".into(), Bytes::new()));
        assert_eq!(range("pfx/", "abc", b"def"), ("pfx/abc".into(), "pfx/def".into()));
        assert_eq!(range("pfx/", "abc", b"\0"), ("pfx/abc".into(), "pfx0".into()));
        assert_eq!(range("", "abc", b"\0"), ("abc".into(), Bytes::from_static(b"\0")));
        assert_eq!(prefix_end(b"\xff\xff"), Bytes::from_static(b"\0"));
        assert_eq!(prefix_end(b"a\xff"), Bytes::from_static(b"b\0"));
    }

    #[test]
    fn transactions_are_prefixed_to_their_depth() {
        let put = PutRequest { key: "k".into(), ..PutRequest::default() };
        let operation = |request| RequestOp { request: Some(request) };
        let inner = TxnRequest {
            compare: vec![Compare { key: "c".into(), range_end: "d".into(), ..Compare::default() }],
            failure: vec![operation(Request::RequestPut(put))],
            ..TxnRequest::default()
        };
        let mut outer = TxnRequest {
            success: vec![operation(Request::RequestTxn(inner))],
            ..TxnRequest::default()
        };
        Namespace::new("n/").of_txn(&mut outer);
        let Some(Request::RequestTxn(inner)) = &outer.success[0].request else { panic!("a txn") };
        assert_eq!(
            (&inner.compare[0].key[..], &inner.compare[0].range_end[..]),
            (&b"n/c"[..], &b"n/d"[..])
        );
        let Some(Request::RequestPut(put)) = &inner.failure[0].request else { panic!("a put") };
        assert_eq!(put.key, "n/k");
    }

    #[test]
    fn keys_of_others_are_left_out() {
        let mut lease = LeaseTimeToLiveResponse {
            keys: vec!["n/a".into(), "other".into(), "n".into()],
            ..LeaseTimeToLiveResponse::default()
        };
        Namespace::new("n/").strip_lease(&mut lease);
        assert_eq!(lease.keys, [Bytes::from("a")]);
    }
}
