//! Operations of transactions and their responses: the two messages that clients nest to any depth, for an operation
//! may be a transaction.
//!
//! prost decodes at most 100 nested messages and counts from the outermost one, so a transaction that can be decoded on its
//! own could be too deep as a part of a log entry. Here a nested transaction is decoded as if it were the outermost message,
//! and only transactions are counted, up to [`DEPTH_MAX`]. So the limit is the same whatever contains the transaction: bytes
//! that are decoded once are decoded everywhere. The other messages are flat, and prost's limit still holds for them.

use std::cell::Cell;

use bytes::{Buf, BufMut};
use prost::encoding::{DecodeContext, WireType, bool};
use prost::{DecodeError, Message};

use crate::backward::{Backward, Nests};
use crate::encoded::{self, Response as EncodedResponse, ResponseOp as EncodedResponseOp};
use crate::etcdserverpb::{TxnRequest, TxnResponse};

/// Maximum depth of nested transactions, the outermost one not counted. Go's protobuf reads some 5,000; but the recursion
/// over them here takes stack for each, in a thread of 2 MiB.
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
    ($message:ident $module:ident $choice:ident $txn:ident) => {
        impl $message {
            /// Writes a field with it before the content.
            fn prepend_to(&self, tag: u32, buffer: &mut Backward) {
                let end = buffer.len();
                match &self.$module {
                    Some($choice::$txn(txn)) => {
                        txn.prepend_to(buffer);
                        buffer.head(TXN, end);
                    }
                    Some(choice) => {
                        buffer.prepend(choice.encoded_len(), |room| choice.encode(room));
                    }
                    None => (),
                }
                buffer.head(tag, end);
            }
        }

        impl Message for $message {
            fn encode_raw(&self, buf: &mut impl BufMut) {
                match &self.$module {
                    Some($choice::$txn(txn)) => txn.encode_field(TXN, buf),
                    Some(choice) => choice.encode(buf),
                    None => (),
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

operation!(RequestOp request Request RequestTxn);
operation!(ResponseOp response Response ResponseTxn);
operation!(EncodedResponseOp response EncodedResponse ResponseTxn);

impl Nests for TxnRequest {
    fn prepend_to(&self, buffer: &mut Backward) {
        let Self { compare, success, failure } = self;
        failure.iter().rev().for_each(|operation| operation.prepend_to(3, buffer));
        success.iter().rev().for_each(|operation| operation.prepend_to(2, buffer));
        compare.iter().rev().for_each(|compare| buffer.message(1, compare));
    }
}

/// For both forms of the response: their fields have the same names.
macro_rules! response {
    ($response:ty) => {
        impl Nests for $response {
            fn prepend_to(&self, buffer: &mut Backward) {
                let Self { header, succeeded, responses } = self;
                responses.iter().rev().for_each(|response| response.prepend_to(3, buffer));
                if *succeeded {
                    buffer.prepend(bool::encoded_len(2, succeeded), |room| {
                        bool::encode(2, succeeded, room);
                    });
                }
                header.iter().for_each(|header| buffer.message(1, header));
            }
        }
    };
}

response!(TxnResponse);
response!(encoded::TxnResponse);

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
    fn a_transaction_is_encoded_as_by_prost() {
        /// The same messages as prost encodes them.
        #[derive(Clone, PartialEq, prost::Message)]
        struct Txn {
            #[prost(message, repeated, tag = "1")]
            compare: Vec<Compare>,
            #[prost(message, repeated, tag = "2")]
            success: Vec<Operation>,
            #[prost(message, repeated, tag = "3")]
            failure: Vec<Operation>,
        }
        #[derive(Clone, PartialEq, prost::Message)]
        struct Operation {
            #[prost(message, tag = "2", optional)]
            put: Option<PutRequest>,
            #[prost(message, tag = "4", optional)]
            txn: Option<Box<Txn>>,
        }
        fn plain(txn: &TxnRequest) -> Txn {
            let operation = |it: &RequestOp| match &it.request {
                Some(Request::RequestTxn(txn)) => {
                    Operation { txn: Some(Box::new(plain(txn))), put: None }
                }
                Some(Request::RequestPut(put)) => Operation { put: Some(put.clone()), txn: None },
                _ => Operation::default(),
            };
            Txn {
                compare: txn.compare.clone(),
                success: txn.success.iter().map(operation).collect(),
                failure: txn.failure.iter().map(operation).collect(),
            }
        }
        for depth in [0, 1, 2, 30, DEPTH_MAX] {
            let mut txn = nested(depth);
            let long = PutRequest { value: vec![7; 40_000].into(), ..Default::default() };
            txn.success.push(RequestOp { request: Some(Request::RequestPut(long)) });
            txn.success.push(RequestOp::default());
            txn.failure.extend(txn.success.clone());
            let bytes = txn.encode_to_vec();
            assert!(bytes == plain(&txn).encode_to_vec(), "{depth}");
            assert_eq!(bytes.len(), txn.encoded_len());
        }
        let mut header = TxnResponse { succeeded: true, ..Default::default() };
        header.header.get_or_insert_default().revision = 300;
        let mut answer = header.clone();
        for _ in 0..DEPTH_MAX {
            let response = Some(Response::ResponseTxn(answer));
            let responses = vec![ResponseOp { response }, ResponseOp::default()];
            answer = TxnResponse { responses, ..header.clone() };
        }
        let bytes = answer.encode_to_vec();
        let encoded = encoded::TxnResponse::decode(&bytes[..]).expect("the same fields");
        assert!(encoded.encode_to_vec() == bytes);
        assert_eq!(TxnResponse::decode(&bytes[..]), Ok(answer));
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
