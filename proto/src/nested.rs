//! Operations of transactions and their responses: the two messages that clients nest to any depth, for an operation
//! may be a transaction.
//!
//! prost decodes at most 100 nested messages and counts from the outermost one, so a transaction that can be decoded on its
//! own could be too deep as a part of a log entry. Here a nested transaction is decoded as if it were the outermost message,
//! and only transactions are counted, up to [`DEPTH_MAX`]. So the limit is the same whatever contains the transaction: bytes
//! that are decoded once are decoded everywhere. The other messages are flat, and prost's limit still holds for them.

use std::cell::Cell;

use bytes::{Buf, BufMut};
use prost::encoding::{DecodeContext, WireType};
use prost::{DecodeError, Message};

/// Maximum depth of nested transactions, the outermost one not counted. Go's protobuf reads some 5,000; but the recursion
/// over them here takes stack for each, in a thread of 2 MiB, and encoding takes time by the square of the depth.
pub const DEPTH_MAX: usize = 256;

/// Error text of a message with more of them.
pub const TOO_DEEP: &str = "too many transactions in each other";

/// The field of both messages that holds a transaction.
const TXN: u32 = 4;

thread_local! {
    /// Depth of the transaction that this thread is decoding.
    static DEPTH: Cell<usize> = const { Cell::new(0) };
}

/// One more level, until it is dropped.
struct Level;

impl Level {
    fn enter() -> Result<Self, DecodeError> {
        if DEPTH.get() == DEPTH_MAX {
            #[allow(deprecated, reason = "prost offers no other way to say what is wrong")]
            return Err(DecodeError::new(TOO_DEEP));
        }
        DEPTH.set(DEPTH.get() + 1);
        Ok(Self)
    }
}

impl Drop for Level {
    fn drop(&mut self) {
        DEPTH.set(DEPTH.get() - 1);
    }
}

/// True if bytes could not be decoded because of [`DEPTH_MAX`].
pub fn is_too_deep(error: &DecodeError) -> bool {
    error.to_string().contains(TOO_DEEP)
}

macro_rules! operation {
    ($message:ident $module:ident $choice:ident) => {
        impl Message for $message {
            fn encode_raw(&self, buf: &mut impl BufMut) {
                if let Some(choice) = &self.$module {
                    choice.encode(buf);
                }
            }

            fn merge_field(
                &mut self,
                tag: u32,
                wire_type: WireType,
                buf: &mut impl Buf,
                context: DecodeContext,
            ) -> Result<(), DecodeError> {
                let located = |mut error: DecodeError| {
                    error.push(stringify!($message), stringify!($module));
                    error
                };
                match tag {
                    TXN => {
                        let _level = Level::enter()?;
                        let context = DecodeContext::default();
                        $choice::merge(&mut self.$module, tag, wire_type, buf, context)
                    }
                    1..TXN => $choice::merge(&mut self.$module, tag, wire_type, buf, context)
                        .map_err(located),
                    _ => prost::encoding::skip_field(wire_type, tag, buf, context),
                }
            }

            fn encoded_len(&self) -> usize {
                self.$module.as_ref().map_or(0, $choice::encoded_len)
            }

            fn clear(&mut self) {
                self.$module = None;
            }
        }
    };
}

/// `etcdserverpb.RequestOp`.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct RequestOp {
    /// The operation.
    pub request: Option<request_op::Request>,
}

/// The variants of [`RequestOp`].
pub mod request_op {
    use crate::etcdserverpb::{DeleteRangeRequest, PutRequest, RangeRequest, TxnRequest};

    /// The operation.
    #[derive(Clone, PartialEq, prost::Oneof)]
    pub enum Request {
        #[prost(message, tag = "1")]
        RequestRange(RangeRequest),
        #[prost(message, tag = "2")]
        RequestPut(PutRequest),
        #[prost(message, tag = "3")]
        RequestDeleteRange(DeleteRangeRequest),
        #[prost(message, tag = "4")]
        RequestTxn(TxnRequest),
    }
}

/// `etcdserverpb.ResponseOp`.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct ResponseOp {
    /// The result of the operation.
    pub response: Option<response_op::Response>,
}

/// The variants of [`ResponseOp`].
pub mod response_op {
    use crate::etcdserverpb::{DeleteRangeResponse, PutResponse, RangeResponse, TxnResponse};

    /// The result of the operation.
    #[derive(Clone, PartialEq, prost::Oneof)]
    pub enum Response {
        #[prost(message, tag = "1")]
        ResponseRange(RangeResponse),
        #[prost(message, tag = "2")]
        ResponsePut(PutResponse),
        #[prost(message, tag = "3")]
        ResponseDeleteRange(DeleteRangeResponse),
        #[prost(message, tag = "4")]
        ResponseTxn(TxnResponse),
    }
}

use request_op::Request;
use response_op::Response;

operation!(RequestOp request Request);
operation!(ResponseOp response Response);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::etcdserverpb::{
        Compare, InternalRaftRequest, PutRequest, TxnRequest, TxnResponse, compare,
    };

    /// A put inside this many transactions, without counting the outermost one.
    fn nested(depth: usize) -> TxnRequest {
        let put = PutRequest { key: "k".into(), value: "v".into(), ..Default::default() };
        let holds =
            Compare { target_union: Some(compare::TargetUnion::Version(7)), ..Default::default() };
        let mut request = Request::RequestPut(put);
        for _ in 0..depth {
            let success = vec![RequestOp { request: Some(request) }];
            let compare = vec![holds.clone()];
            request = Request::RequestTxn(TxnRequest { compare, success, failure: Vec::new() });
        }
        TxnRequest { failure: vec![RequestOp { request: Some(request) }], ..Default::default() }
    }

    fn answered(depth: usize) -> TxnResponse {
        let mut answer = TxnResponse::default();
        for _ in 0..depth {
            let response = Some(Response::ResponseTxn(answer));
            answer = TxnResponse { responses: vec![ResponseOp { response }], ..Default::default() };
        }
        answer
    }

    #[test]
    fn the_limit_is_the_same_whatever_holds_a_transaction() {
        for depth in [0, 1, 48, 49, 50, 51, 99, 100, 200, DEPTH_MAX] {
            let txn = nested(depth);
            assert_eq!(TxnRequest::decode(&txn.encode_to_vec()[..]), Ok(txn.clone()), "{depth}");
            let entry = InternalRaftRequest { txn: Some(txn), ..Default::default() };
            let bytes = entry.encode_to_vec();
            assert_eq!(InternalRaftRequest::decode(&bytes[..]), Ok(entry), "{depth}");
            let answer = answered(depth);
            assert_eq!(TxnResponse::decode(&answer.encode_to_vec()[..]), Ok(answer), "{depth}");
        }
        for depth in [DEPTH_MAX + 1, DEPTH_MAX + 2, 2 * DEPTH_MAX] {
            let txn = nested(depth);
            let error = TxnRequest::decode(&txn.encode_to_vec()[..]).expect_err("too deep");
            assert!(is_too_deep(&error), "{error}");
            let entry = InternalRaftRequest { txn: Some(txn), ..Default::default() };
            let error =
                InternalRaftRequest::decode(&entry.encode_to_vec()[..]).expect_err("too deep");
            assert!(is_too_deep(&error), "{error}");
            assert!(TxnResponse::decode(&answered(depth).encode_to_vec()[..]).is_err());
        }
        // A failed decode leaves no state behind for the next one.
        assert!(TxnRequest::decode(&nested(DEPTH_MAX).encode_to_vec()[..]).is_ok());
    }

    #[test]
    fn groups_that_nobody_knows_are_read_over_up_to_the_limit_of_prost() {
        let groups = |depth: usize| [vec![0x7b; depth], vec![0x7c; depth]].concat();
        assert_eq!(RequestOp::decode(&groups(50)[..]), Ok(RequestOp::default()));
        assert!(RequestOp::decode(&groups(1 << 20)[..]).is_err());
    }

    #[test]
    fn a_message_that_is_there_twice_is_merged_as_by_protobuf() {
        let put = |key: &'static str| PutRequest { key: key.into(), ..Default::default() };
        let first = RequestOp { request: Some(Request::RequestPut(put("a"))) };
        let value = PutRequest { value: "v".into(), ..Default::default() };
        let second = RequestOp { request: Some(Request::RequestPut(value)) };
        let both = [first.encode_to_vec(), second.encode_to_vec()].concat();
        let merged = PutRequest { value: "v".into(), ..put("a") };
        let merged = RequestOp { request: Some(Request::RequestPut(merged)) };
        assert_eq!(RequestOp::decode(&both[..]), Ok(merged));
        let other = RequestOp { request: Some(Request::RequestTxn(TxnRequest::default())) };
        let both = [first.encode_to_vec(), other.encode_to_vec()].concat();
        assert_eq!(RequestOp::decode(&both[..]), Ok(other));
        assert!(RequestOp::decode(&[0x20, 1][..]).is_err(), "a number where a transaction belongs");
    }
}
