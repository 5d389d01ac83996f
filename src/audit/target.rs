//! Keys, names and ids in a request.

use basalt_proto::rpc::{Rpc, Streaming, Unary};

use super::text::JsonObject;
use super::wire::{Field, Fields, bytes, number, several};
use crate::types::limits::AUDIT_OPERATIONS_MAX;

/// Keys, names and ids in a request.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Target<'a> {
    /// Ranges of keys, those of operations of a transaction each by itself.
    pub ranges: Vec<Range<'a>>,
    /// Operations of a transaction that are not among them.
    pub more: usize,
    /// Users, roles, locks, addresses: what they are, and how they are called.
    pub names: Vec<(&'static str, &'a [u8])>,
    /// Ids and revisions.
    pub numbers: Vec<(&'static str, u64)>,
}

/// A range of keys and what is done with it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Range<'a> {
    /// `put`, `delete`, `range`.
    pub operation: &'static str,
    /// The first key.
    pub key: &'a [u8],
    /// As in etcd's requests.
    pub range_end: &'a [u8],
}

/// Bytes of the fields of most requests, at most.
const FIELDS_BYTES: usize = 128;

/// Fields of `etcdserverpb` messages.
const FIRST: u32 = 1;
const SECOND: u32 = 2;
const THIRD: u32 = 3;

impl<'a> Target<'a> {
    /// Of an encoded request of this RPC. Fields that do not read are left out.
    pub fn of(rpc: Rpc, message: &'a [u8]) -> Self {
        let mut target = Self::default();
        match rpc {
            Rpc::Unary(rpc) => target.read_unary(rpc, message),
            Rpc::Streaming(rpc) => target.read_streaming(rpc, message),
        }
        target
    }

    #[allow(clippy::too_many_lines, reason = "a row for each RPC")]
    fn read_unary(&mut self, rpc: Unary, message: &'a [u8]) {
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

    fn read_streaming(&mut self, rpc: Streaming, message: &'a [u8]) {
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

    fn range(&mut self, operation: &'static str, message: &'a [u8]) {
        let [key, range_end] = several(message, [FIRST, SECOND]);
        self.push(operation, key, range_end);
    }

    /// The second field of a put is the value.
    fn put(&mut self, message: &'a [u8]) {
        self.push("put", bytes(message, FIRST), b"");
    }

    /// Operations on success and on failure; compares are not what it does.
    fn txn(&mut self, message: &'a [u8]) {
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

    fn push(&mut self, operation: &'static str, key: &'a [u8], range_end: &'a [u8]) {
        if self.ranges.len() >= AUDIT_OPERATIONS_MAX {
            self.more += 1;
            return;
        }
        self.ranges.push(Range { operation, key, range_end });
    }

    fn name(&mut self, what: &'static str, message: &'a [u8], field: u32) {
        self.names.push((what, bytes(message, field)));
    }

    fn number(&mut self, what: &'static str, message: &'a [u8], field: u32) {
        self.numbers.push((what, number(message, field)));
    }

    /// Tells if one of the ranges has a key that begins so.
    pub(super) fn touches(&self, prefix: &[u8]) -> bool {
        self.ranges.iter().any(|range| range.touches(prefix))
    }

    /// The fields of a line that say it, as [`super::AuditRecord`] takes them.
    pub fn to_fields(&self) -> Vec<u8> {
        let mut fields = Vec::with_capacity(FIELDS_BYTES);
        self.describe(&mut JsonObject::go_on(&mut fields));
        fields
    }

    fn describe(&self, fields: &mut JsonObject<'_>) {
        for (what, name) in &self.names {
            fields.bytes(what, name);
        }
        for (what, number) in &self.numbers {
            fields.number(what, *number);
        }
        match self.ranges.as_slice() {
            [] => (),
            [only] if self.more == 0 => only.describe(fields),
            several => {
                let line = fields.value("ops");
                for (at, range) in several.iter().enumerate() {
                    line.push(if at == 0 { b'[' } else { b',' });
                    let mut fields = JsonObject::begin(line);
                    fields.word("op", range.operation);
                    range.describe(&mut fields);
                    fields.end();
                }
                line.push(b']');
                if self.more > 0 {
                    fields.number("more-ops", self.more as u64);
                }
            }
        }
    }
}

impl Range<'_> {
    fn touches(&self, prefix: &[u8]) -> bool {
        if self.range_end.is_empty() {
            return self.key.starts_with(prefix);
        }
        // The first key of the range that could begin so.
        let first = self.key.max(prefix);
        let is_before_end = self.range_end == [0] || first < self.range_end;
        is_before_end && first.starts_with(prefix)
    }

    fn describe(&self, fields: &mut JsonObject<'_>) {
        fields.bytes("key", self.key);
        if !self.range_end.is_empty() {
            fields.bytes("range-end", self.range_end);
        }
    }
}
