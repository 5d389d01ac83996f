//! Draws transactions, and requests that are broken on the wire.

use basalt_proto::etcdserverpb::{
    Compare, RangeRequest, RequestOp, TxnRequest, compare, request_op,
};
use bytes::Bytes;
use prost::Message;
use rand::Rng;
use rand::seq::IndexedRandom;

use super::MAX_TXN_OPS;
use super::generate::Generator;
use super::request::Call;
use crate::wire;

impl Generator {
    pub(super) fn txn_root(&mut self) -> TxnRequest {
        match self.rng.random_range(0..200) {
            0 => TxnRequest::default(),
            1 | 2 => self.txn_with_many_ops(),
            3 => self.txn_nested_deeply(),
            // The three shapes that Kubernetes sends.
            4..40 => self.txn_of_kubernetes(),
            _ => self.txn(3),
        }
    }

    fn txn(&mut self, depth: u32) -> TxnRequest {
        let compares = self.rng.random_range(0..4);
        let (success, failure) = (self.rng.random_range(0..5), self.rng.random_range(0..4));
        TxnRequest {
            compare: (0..compares).map(|_| self.compare()).collect(),
            success: (0..success).map(|_| self.op(depth)).collect(),
            failure: (0..failure).map(|_| self.op(depth)).collect(),
        }
    }

    fn op(&mut self, depth: u32) -> RequestOp {
        use request_op::Request::{RequestDeleteRange, RequestPut, RequestRange, RequestTxn};
        let request = match self.rng.random_range(0..100) {
            0 => None,
            1..40 => Some(RequestPut(self.put())),
            40..55 => Some(RequestDeleteRange(self.delete())),
            55..85 => Some(RequestRange(self.range_in_txn())),
            _ if depth == 0 => Some(RequestRange(self.range_in_txn())),
            _ => Some(RequestTxn(self.txn(depth - 1))),
        };
        RequestOp { request }
    }

    /// Mostly at the newest revision, where they see the transaction's own writes.
    fn range_in_txn(&mut self) -> RangeRequest {
        let range = self.range();
        let newest = self.chance(70);
        RangeRequest { revision: if newest { 0 } else { range.revision }, ..range }
    }

    fn compare(&mut self) -> Compare {
        use compare::TargetUnion::{CreateRevision, Lease, ModRevision, Value, Version};
        let key = self.key();
        let target = self.enumeration(5);
        // At times the value of another field than the one to compare.
        let given = if self.chance(4) { self.enumeration(5) } else { target };
        let target_union = match given {
            0 => Some(Version(self.rng.random_range(-1..4))),
            1 => Some(CreateRevision(self.zero_or_revision())),
            2 => Some(ModRevision(self.zero_or_revision())),
            3 => Some(Value(self.put().value)),
            4 => Some(Lease(self.lease())),
            _ => None,
        };
        let range_end = if self.chance(80) { Bytes::new() } else { self.range_end(&key) };
        Compare { result: self.enumeration(4), target, key, range_end, target_union }
    }

    fn zero_or_revision(&mut self) -> i64 {
        if self.chance(40) { 0 } else { self.revision_near() }
    }

    fn txn_of_kubernetes(&mut self) -> TxnRequest {
        use request_op::Request::{RequestDeleteRange, RequestPut, RequestRange};
        let key = self.key();
        let revision = self.zero_or_revision();
        let compare = Compare {
            result: compare::CompareResult::Equal.into(),
            target: compare::CompareTarget::Mod.into(),
            key: key.clone(),
            target_union: Some(compare::TargetUnion::ModRevision(revision)),
            ..Default::default()
        };
        let op = |request| RequestOp { request: Some(request) };
        let mut put = self.put();
        put.key = key.clone();
        let mut delete = self.delete();
        (delete.key, delete.range_end) = (key.clone(), Bytes::new());
        let write = if self.chance(70) { RequestPut(put) } else { RequestDeleteRange(delete) };
        let range = RangeRequest { key, ..Default::default() };
        let with_else = self.chance(80);
        TxnRequest {
            compare: vec![compare],
            success: vec![op(write)],
            failure: with_else.then(|| op(RequestRange(range))).into_iter().collect(),
        }
    }

    /// Around the limit, in one of the three lists or spread over two levels.
    fn txn_with_many_ops(&mut self) -> TxnRequest {
        let count = MAX_TXN_OPS - 1 + self.rng.random_range(0..3);
        let ops = (0..count).map(|_| self.op(0)).collect();
        match self.rng.random_range(0..4) {
            0 => TxnRequest {
                compare: (0..count).map(|_| self.compare()).collect(),
                ..Default::default()
            },
            1 => TxnRequest { success: ops, ..Default::default() },
            2 => TxnRequest { failure: ops, ..Default::default() },
            _ => TxnRequest {
                success: vec![RequestOp {
                    request: Some(request_op::Request::RequestTxn(TxnRequest {
                        success: ops,
                        ..Default::default()
                    })),
                }],
                ..Default::default()
            },
        }
    }

    fn txn_nested_deeply(&mut self) -> TxnRequest {
        let depth = self.rng.random_range(4..MAX_TXN_OPS + 4);
        let mut txn = self.txn(0);
        for _ in 0..depth {
            let op = RequestOp { request: Some(request_op::Request::RequestTxn(txn)) };
            txn = TxnRequest { success: vec![op], ..Default::default() };
        }
        txn
    }

    /// A request that a well-behaved client never sends.
    pub(super) fn garbage(&mut self) -> Call {
        let paths =
            [wire::RANGE, wire::PUT, wire::DELETE_RANGE, wire::TXN, wire::LEASE_TIME_TO_LIVE];
        let path = *paths.choose(&mut self.rng).expect("not empty");
        match self.rng.random_range(0..40) {
            0 | 1 => return Call::Put(self.huge()),
            2 => return Call::Garbage("/etcdserverpb.KV/Nothing", Bytes::new()),
            3 => return Call::Garbage("/nobody.Knows/This", Bytes::new()),
            4 => return Call::Garbage(path, Bytes::new()),
            _ => (),
        }
        let mut bytes = match path {
            wire::RANGE => self.range().encode_to_vec(),
            wire::PUT => self.put().encode_to_vec(),
            wire::DELETE_RANGE => self.delete().encode_to_vec(),
            wire::TXN => self.txn(1).encode_to_vec(),
            _ => Vec::new(),
        };
        match self.rng.random_range(0..4) {
            0 => bytes.truncate(self.rng.random_range(0..=bytes.len())),
            1 => bytes = (0..self.rng.random_range(1..20)).map(|_| self.rng.random()).collect(),
            // An unknown field, which must be skipped.
            2 => bytes.extend([0xf8, 0x7f, 0x01]),
            _ => {
                for _ in 0..self.rng.random_range(1..4) {
                    let end = bytes.len();
                    if end > 0 {
                        bytes[self.rng.random_range(0..end)] = self.rng.random();
                    }
                }
            }
        }
        Call::Garbage(path, bytes.into())
    }
}
