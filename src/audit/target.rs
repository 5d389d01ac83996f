//! Keys, names and ids in a request.

use basalt_proto::rpc::{Rpc, Streaming, Unary};
use serde_json::{Map, Value};

use super::text::text_of;
use super::wire::{Field, Fields, bytes, number};
use crate::types::limits::AUDIT_OPERATIONS_MAX;

/// Keys, names and ids in a request.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Target {
    /// Ranges of keys, those of operations of a transaction each by itself.
    pub ranges: Vec<Range>,
    /// Operations of a transaction that are not among them.
    pub more: usize,
    /// Users, roles, locks, addresses: what they are, and how they are called.
    pub names: Vec<(&'static str, Vec<u8>)>,
    /// Ids and revisions.
    pub numbers: Vec<(&'static str, u64)>,
}

/// A range of keys and what is done with it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Range {
    /// `put`, `delete`, `range`.
    pub operation: &'static str,
    /// The first key.
    pub key: Vec<u8>,
    /// As in etcd's requests.
    pub range_end: Vec<u8>,
}

/// Fields of `etcdserverpb` messages.
const FIRST: u32 = 1;
const SECOND: u32 = 2;
const THIRD: u32 = 3;

impl Target {
    /// Of an encoded request of this RPC. Fields that do not read are left out.
    pub fn of(rpc: Rpc, message: &[u8]) -> Self {
        let mut target = Self::default();
        match rpc {
            Rpc::Unary(rpc) => target.read_unary(rpc, message),
            Rpc::Streaming(rpc) => target.read_streaming(rpc, message),
        }
        target
    }

    #[allow(clippy::too_many_lines, reason = "a row for each RPC")]
    fn read_unary(&mut self, rpc: Unary, message: &[u8]) {
        match rpc {
            Unary::KVRange => self.range("range", message),
            Unary::KVPut => self.put(message),
            Unary::KVDeleteRange => self.range("delete", message),
            Unary::KVTxn => self.txn(message),
            Unary::KVCompact => self.number("compact-revision", message, FIRST),
            Unary::LeaseGrant => {
                self.number("ttl", message, FIRST);
                self.number("lease", message, SECOND);
            }
            Unary::LeaseRevoke | Unary::LeaseTimeToLive => self.number("lease", message, FIRST),
            Unary::ClusterMemberAdd => self.name("peer-url", message, FIRST),
            Unary::ClusterMemberRemove | Unary::ClusterMemberPromote => {
                self.number("member", message, FIRST);
            }
            Unary::ClusterMemberUpdate => {
                self.number("member", message, FIRST);
                self.name("peer-url", message, SECOND);
            }
            Unary::MaintenanceAlarm => {
                self.number("action", message, FIRST);
                self.number("member", message, SECOND);
            }
            Unary::MaintenanceMoveLeader => self.number("member", message, FIRST),
            Unary::Authenticate
            | Unary::AuthUserAdd
            | Unary::AuthUserGet
            | Unary::AuthUserDelete
            | Unary::AuthUserChangePassword => self.name("name", message, FIRST),
            Unary::AuthUserGrantRole | Unary::AuthUserRevokeRole => {
                self.name("name", message, FIRST);
                self.name("role", message, SECOND);
            }
            Unary::AuthRoleAdd | Unary::AuthRoleGet | Unary::AuthRoleDelete => {
                self.name("role", message, FIRST);
            }
            Unary::AuthRoleGrantPermission => {
                self.name("role", message, FIRST);
                let permission = bytes(message, SECOND);
                self.number("permission", permission, FIRST);
                self.push("grant", bytes(permission, SECOND), bytes(permission, THIRD));
            }
            Unary::AuthRoleRevokePermission => {
                self.name("role", message, FIRST);
                self.push("revoke", bytes(message, SECOND), bytes(message, THIRD));
            }
            Unary::Lock => {
                self.name("name", message, FIRST);
                self.number("lease", message, SECOND);
            }
            Unary::LockUnlock => self.name("key", message, FIRST),
            Unary::ElectionCampaign => {
                self.name("name", message, FIRST);
                self.number("lease", message, SECOND);
            }
            Unary::ElectionLeader => self.name("name", message, FIRST),
            // Both begin with what says which office it is.
            Unary::ElectionProclaim | Unary::ElectionResign => {
                self.name("name", bytes(message, FIRST), FIRST);
            }
            Unary::LeaseLeases
            | Unary::ClusterMemberList
            | Unary::MaintenanceStatus
            | Unary::MaintenanceDefragment
            | Unary::MaintenanceHash
            | Unary::MaintenanceHashKV
            | Unary::MaintenanceDowngrade
            | Unary::AuthEnable
            | Unary::AuthDisable
            | Unary::AuthStatus
            | Unary::AuthUserList
            | Unary::AuthRoleList
            | Unary::HealthCheck
            | Unary::HealthList => (),
        }
    }

    fn read_streaming(&mut self, rpc: Streaming, message: &[u8]) {
        match rpc {
            Streaming::KVRangeStream => self.range("range", message),
            Streaming::Watch => {
                let create = bytes(message, FIRST);
                if !create.is_empty() {
                    self.range("watch", create);
                }
            }
            Streaming::LeaseKeepAlive => self.number("lease", message, FIRST),
            Streaming::ElectionObserve => self.name("name", message, FIRST),
            Streaming::MaintenanceSnapshot
            | Streaming::HealthWatch
            | Streaming::ServerReflectionInfo => (),
        }
    }

    fn range(&mut self, operation: &'static str, message: &[u8]) {
        self.push(operation, bytes(message, FIRST), bytes(message, SECOND));
    }

    /// The second field of a put is the value.
    fn put(&mut self, message: &[u8]) {
        self.push("put", bytes(message, FIRST), b"");
    }

    /// Operations on success and on failure; compares are not what it does.
    fn txn(&mut self, message: &[u8]) {
        // Transactions in each other are few deep: whoever nests them deeper is refused before.
        let mut nested = vec![message];
        while let Some(message) = nested.pop() {
            for (number, field) in Fields(message) {
                let (SECOND | THIRD, Field::Bytes(operation)) = (number, field) else { continue };
                match Fields(operation).last() {
                    Some((1, Field::Bytes(range))) => self.range("range", range),
                    Some((2, Field::Bytes(put))) => self.put(put),
                    Some((3, Field::Bytes(delete))) => self.range("delete", delete),
                    Some((4, Field::Bytes(txn))) => nested.push(txn),
                    Some(_) | None => (),
                }
            }
        }
    }

    fn push(&mut self, operation: &'static str, key: &[u8], range_end: &[u8]) {
        if self.ranges.len() >= AUDIT_OPERATIONS_MAX {
            self.more += 1;
            return;
        }
        let (key, range_end) = (key.to_vec(), range_end.to_vec());
        self.ranges.push(Range { operation, key, range_end });
    }

    fn name(&mut self, what: &'static str, message: &[u8], field: u32) {
        self.names.push((what, bytes(message, field).to_vec()));
    }

    fn number(&mut self, what: &'static str, message: &[u8], field: u32) {
        self.numbers.push((what, number(message, field)));
    }

    /// Tells if one of the ranges has a key that begins so.
    pub(super) fn touches(&self, prefix: &[u8]) -> bool {
        self.ranges.iter().any(|range| range.touches(prefix))
    }

    pub(super) fn describe(&self, put: &mut impl FnMut(&str, Value)) {
        for (what, name) in &self.names {
            let (what, name) = text_of(what, name);
            put(&what, name);
        }
        for (what, number) in &self.numbers {
            put(what, (*number).into());
        }
        match self.ranges.as_slice() {
            [] => (),
            [only] if self.more == 0 => only.describe(put),
            several => {
                let described = several.iter().map(|range| {
                    let mut fields = Map::new();
                    fields.insert("op".to_owned(), range.operation.into());
                    range
                        .describe(&mut |name: &str, value| drop(fields.insert(name.into(), value)));
                    Value::Object(fields)
                });
                put("ops", described.collect());
                if self.more > 0 {
                    put("more-ops", self.more.into());
                }
            }
        }
    }
}

impl Range {
    fn touches(&self, prefix: &[u8]) -> bool {
        if self.range_end.is_empty() {
            return self.key.starts_with(prefix);
        }
        // The first key of the range that could begin so.
        let first = self.key.as_slice().max(prefix);
        let is_before_end = self.range_end == [0] || first < self.range_end.as_slice();
        is_before_end && first.starts_with(prefix)
    }

    fn describe(&self, put: &mut impl FnMut(&str, Value)) {
        for (what, bytes) in [("key", &self.key), ("range-end", &self.range_end)] {
            if what == "key" || !bytes.is_empty() {
                let (what, text) = text_of(what, bytes);
                put(&what, text);
            }
        }
    }
}
