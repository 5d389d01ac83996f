//! Requests as bytes, and random changes of their bytes.

use basalt::command::Command;
use basalt::types::limits::{KEY_BYTES_MAX, NESTED_TXNS_MAX};
use basalt_proto::etcdserverpb::alarm_request::AlarmAction;
use basalt_proto::etcdserverpb::{
    AlarmMember, AlarmRequest, CompactionRequest, Compare, DeleteRangeRequest, InternalRaftRequest,
    LeaseExpireRequest, LeaseGrantRequest, LeaseRevokeRequest, PutRequest, RangeRequest, RequestOp,
    TxnRequest, compare::TargetUnion, request_op::Request,
};
use basalt_proto::membershippb::{
    Attributes, ClusterMemberAttrSetRequest, ClusterVersionSetRequest,
};
use bytes::Bytes;
use prost::Message as _;
use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};

/// A request's method, and its bytes.
pub(super) enum Raw {
    Put(Bytes),
    DeleteRange(Bytes),
    Txn(Bytes),
    Compact(Bytes),
    LeaseGrant(Bytes),
    LeaseRevoke(Bytes),
}

/// Disarms an alarm.
pub(super) fn put_out(alarm: &AlarmMember) -> Command {
    let (member_id, alarm) = (alarm.member_id, alarm.alarm);
    Command::Alarm(AlarmRequest { action: AlarmAction::Deactivate as i32, member_id, alarm })
}

pub(super) struct Generator {
    random: SmallRng,
    /// The newest revision, as far as it is known.
    pub(super) revision: i64,
    /// Granted leases.
    pub(super) leases: Vec<i64>,
}

impl Generator {
    pub(super) fn new(seed: u64) -> Self {
        Self { random: SmallRng::seed_from_u64(seed), revision: 1, leases: Vec::new() }
    }

    pub(super) fn chance(&mut self, percent: u32) -> bool {
        self.random.random_range(0..100) < percent
    }

    pub(super) fn number(&mut self, min: u64, max: u64) -> u64 {
        self.random.random_range(min..=max)
    }

    /// `--max-txn-ops`.
    pub(super) fn operations_max(&mut self) -> usize {
        if self.chance(30) { 128 } else { 2 * NESTED_TXNS_MAX }
    }

    pub(super) fn request(&mut self) -> Raw {
        match self.number(0, 99) {
            0..30 => {
                let put = self.put().encode_to_vec();
                Raw::Put(self.changed(put))
            }
            30..45 => {
                let delete = self.delete().encode_to_vec();
                Raw::DeleteRange(self.changed(delete))
            }
            45..85 => {
                let txn = self.txn();
                Raw::Txn(self.changed(txn.encode_to_vec()))
            }
            85..90 => {
                let revision = if self.chance(70) { self.revision - 20 } else { self.any() };
                let request = CompactionRequest { revision, physical: self.chance(50) };
                Raw::Compact(self.changed(request.encode_to_vec()))
            }
            90..95 => {
                let id = if self.chance(90) { self.number(1, 40) as i64 } else { self.any() };
                let request = LeaseGrantRequest { ttl: self.any(), id };
                Raw::LeaseGrant(self.changed(request.encode_to_vec()))
            }
            _ => {
                let request = LeaseRevokeRequest { id: self.lease() };
                Raw::LeaseRevoke(self.changed(request.encode_to_vec()))
            }
        }
    }

    /// A proposal of another member: one of these with a byte or two changed, or one without a client.
    pub(super) fn wild(&mut self, payloads: &[Bytes]) -> Option<Bytes> {
        match self.number(0, 9) {
            0..6 => None,
            6 | 7 => payloads.first().map(|payload| self.damaged(payload.to_vec()).into()),
            _ => {
                let request = self.internal().encode_to_vec();
                Some(if self.chance(50) { self.damaged(request).into() } else { request.into() })
            }
        }
    }

    fn internal(&mut self) -> InternalRaftRequest {
        let mut request = InternalRaftRequest::default();
        match self.number(0, 5) {
            0 => {
                let (action, alarm) = (self.number(0, 3) as i32, self.number(0, 3) as i32);
                request.alarm = Some(AlarmRequest { action, member_id: self.number(0, 12), alarm });
            }
            1 => {
                let expire =
                    LeaseExpireRequest { id: self.lease(), granted_at: self.number(1, 99) };
                request.lease_expire = Some(expire);
            }
            2 => {
                let (name, urls) = ("n\u{e9}".to_owned(), vec!["http://[::1]:1".to_owned()]);
                request.cluster_member_attr_set = Some(ClusterMemberAttrSetRequest {
                    member_id: self.number(8, 12),
                    member_attributes: Some(Attributes { name, client_urls: urls }),
                });
            }
            3 => {
                let versions = ["3.6.0", "3.7.0", "3.7", "4.0.0", "", "x"];
                let ver = versions[self.number(0, 5) as usize].to_owned();
                request.cluster_version_set = Some(ClusterVersionSetRequest { ver });
            }
            4 => request.put = Some(PutRequest { key: Bytes::new(), ..self.put() }),
            _ => {
                request.txn = Some(self.txn());
                request.delete_range = Some(self.delete());
            }
        }
        request
    }

    /// One in four is not what a client would send.
    fn changed(&mut self, bytes: Vec<u8>) -> Bytes {
        if self.chance(75) { bytes.into() } else { self.damaged(bytes).into() }
    }

    fn damaged(&mut self, mut bytes: Vec<u8>) -> Vec<u8> {
        let at = |random: &mut SmallRng, bytes: &Vec<u8>| random.random_range(0..=bytes.len());
        for _ in 0..self.number(1, 2) {
            let here = at(&mut self.random, &bytes);
            match self.number(0, 5) {
                0 => bytes.truncate(here),
                1 => bytes.extend([0xf8, 0x7f, 0x01]),
                2 => bytes.insert(here, self.random.random()),
                // Groups, an obsolete wire type, complete and truncated.
                3 => bytes
                    .extend([vec![0x7b; 40], vec![0x7c; self.number(39, 40) as usize]].concat()),
                _ => {
                    if let Some(byte) = bytes.get_mut(here) {
                        *byte = self.random.random();
                    }
                }
            }
        }
        bytes
    }

    fn any(&mut self) -> i64 {
        let edges = [0, 1, -1, i64::MAX, i64::MIN, 1 << 32, self.revision, self.revision + 1];
        edges[self.number(0, edges.len() as u64 - 1) as usize]
    }

    fn lease(&mut self) -> i64 {
        match self.leases.len() as u64 {
            0 => self.any(),
            count => {
                let at = self.number(0, count - 1) as usize;
                self.leases[at]
            }
        }
    }

    fn key(&mut self) -> Bytes {
        match self.number(0, 199) {
            0 => Bytes::new(),
            1 => vec![b'k'; KEY_BYTES_MAX - 1 + self.number(0, 3) as usize].into(),
            2 => Bytes::from_static(b"\0"),
            3 => vec![0xff; self.number(1, 3) as usize].into(),
            _ => format!("key/{:03}", self.number(0, 300)).into(),
        }
    }

    fn end(&mut self) -> Bytes {
        if self.chance(50) { Bytes::new() } else { self.key() }
    }

    fn put(&mut self) -> PutRequest {
        let key = self.key();
        let value = vec![self.random.random(); self.random.random_range(0..200)].into();
        let mut put = PutRequest { key, value, prev_kv: self.chance(20), ..Default::default() };
        if self.chance(15) {
            put.lease = self.lease();
        }
        if self.chance(5) {
            (put.ignore_value, put.value) = (true, Bytes::new());
        }
        if self.chance(5) {
            put.ignore_lease = true;
        }
        put
    }

    fn delete(&mut self) -> DeleteRangeRequest {
        let key = self.key();
        let range_end = if self.chance(90) { Bytes::new() } else { self.end() };
        DeleteRangeRequest { key, range_end, prev_kv: self.chance(30) }
    }

    fn range(&mut self) -> RangeRequest {
        let (key, range_end, limit) = (self.key(), self.end(), self.number(0, 9) as i64);
        let mut range = RangeRequest { key, range_end, limit, ..Default::default() };
        if self.chance(20) {
            (range.sort_order, range.sort_target) =
                (self.number(0, 3) as i32, self.number(0, 5) as i32);
        }
        if self.chance(20) {
            (range.revision, range.min_mod_revision) = (self.any(), self.any());
        }
        if self.chance(5) {
            range.limit = self.any();
        }
        range
    }

    fn compare(&mut self) -> Compare {
        let number = self.any();
        let target_union = match self.number(0, 5) {
            0 => Some(TargetUnion::Version(number)),
            1 => Some(TargetUnion::CreateRevision(number)),
            2 => Some(TargetUnion::ModRevision(number)),
            3 => Some(TargetUnion::Value(self.key())),
            4 => Some(TargetUnion::Lease(number)),
            _ => None,
        };
        let (result, target) = (self.number(0, 4) as i32, self.number(0, 5) as i32);
        Compare { result, target, key: self.key(), range_end: self.end(), target_union }
    }

    fn txn(&mut self) -> TxnRequest {
        let mut txn = self.flat_txn(2);
        // Mostly shallow, sometimes near the limit.
        let depth = match self.number(0, 99) {
            0..60 => 0,
            60..90 => self.number(1, 70),
            90..97 => self.number(70, NESTED_TXNS_MAX as u64),
            _ => self.number(NESTED_TXNS_MAX as u64 - 3, 2 * NESTED_TXNS_MAX as u64),
        };
        for _ in 0..depth {
            let nested = vec![RequestOp { request: Some(Request::RequestTxn(txn)) }];
            // The same one twice, but only where it stays small.
            let is_doubled = depth < 7 && self.chance(50);
            let failure = if is_doubled { nested.clone() } else { Vec::new() };
            let success = nested;
            let compare = if self.chance(10) { vec![self.compare()] } else { Vec::new() };
            txn = TxnRequest { compare, success, failure };
        }
        txn
    }

    fn flat_txn(&mut self, depth: u64) -> TxnRequest {
        let compare = (0..self.number(0, 2)).map(|_| self.compare()).collect();
        let success = (0..self.number(0, 3)).map(|_| self.operation(depth)).collect();
        let failure = (0..self.number(0, 2)).map(|_| self.operation(depth)).collect();
        TxnRequest { compare, success, failure }
    }

    fn operation(&mut self, depth: u64) -> RequestOp {
        let request = match self.number(0, 9) {
            0..3 => Some(Request::RequestRange(self.range())),
            3..6 => Some(Request::RequestPut(self.put())),
            6 | 7 => Some(Request::RequestDeleteRange(self.delete())),
            8 if depth > 0 => Some(Request::RequestTxn(self.flat_txn(depth - 1))),
            8 => Some(Request::RequestTxn(TxnRequest::default())),
            _ if self.chance(95) => Some(Request::RequestPut(self.put())),
            _ => None,
        };
        RequestOp { request }
    }
}
