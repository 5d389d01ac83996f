//! Which method is served under which path.

use hyper::Uri;
use tonic::Status;

use crate::json::{MessageId, Operation, Schema};
use crate::metrics::{Kind, Method};

macro_rules! routes {
    ($($service:literal { $($path:literal $name:literal)* })*) => {
        /// Path, service, method. `RangeStream` has none in etcd either.
        const ROUTES: &[(&str, &str, &str)] =
            &[$($((concat!("/v3/", $path), $service, $name),)*)*];
    };
}

routes! {
    "etcdserverpb.KV" {
        "kv/range" "Range" "kv/put" "Put" "kv/deleterange" "DeleteRange" "kv/txn" "Txn"
        "kv/compaction" "Compact"
    }
    "etcdserverpb.Watch" { "watch" "Watch" }
    "etcdserverpb.Lease" {
        "lease/grant" "LeaseGrant" "lease/revoke" "LeaseRevoke" "kv/lease/revoke" "LeaseRevoke"
        "lease/keepalive" "LeaseKeepAlive" "lease/timetolive" "LeaseTimeToLive"
        "kv/lease/timetolive" "LeaseTimeToLive" "lease/leases" "LeaseLeases"
        "kv/lease/leases" "LeaseLeases"
    }
    "etcdserverpb.Cluster" {
        "cluster/member/add" "MemberAdd" "cluster/member/remove" "MemberRemove"
        "cluster/member/update" "MemberUpdate" "cluster/member/list" "MemberList"
        "cluster/member/promote" "MemberPromote"
    }
    "etcdserverpb.Maintenance" {
        "maintenance/alarm" "Alarm" "maintenance/status" "Status"
        "maintenance/defragment" "Defragment" "maintenance/hash" "Hash"
        "maintenance/hashkv" "HashKV" "maintenance/snapshot" "Snapshot"
        "maintenance/transfer-leadership" "MoveLeader" "maintenance/downgrade" "Downgrade"
    }
    "etcdserverpb.Auth" {
        "auth/enable" "AuthEnable" "auth/disable" "AuthDisable" "auth/status" "AuthStatus"
        "auth/authenticate" "Authenticate" "auth/user/add" "UserAdd" "auth/user/get" "UserGet"
        "auth/user/list" "UserList" "auth/user/delete" "UserDelete"
        "auth/user/changepw" "UserChangePassword" "auth/user/grant" "UserGrantRole"
        "auth/user/revoke" "UserRevokeRole" "auth/role/add" "RoleAdd" "auth/role/get" "RoleGet"
        "auth/role/list" "RoleList" "auth/role/delete" "RoleDelete"
        "auth/role/grant" "RoleGrantPermission" "auth/role/revoke" "RoleRevokePermission"
    }
    "v3lockpb.Lock" { "lock/lock" "Lock" "lock/unlock" "Unlock" }
    "v3electionpb.Election" {
        "election/campaign" "Campaign" "election/proclaim" "Proclaim" "election/leader" "Leader"
        "election/observe" "Observe" "election/resign" "Resign"
    }
}

/// A method that a path stands for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Route {
    pub(super) method: &'static Method,
}

impl Route {
    /// What is served under a path.
    pub(super) fn find(path: &str) -> Option<Self> {
        let (_, service, name) = ROUTES.iter().find(|(it, ..)| *it == path)?;
        Method::find(&format!("/{service}/{name}")).map(|method| Self { method })
    }

    /// The path of the method itself.
    pub(super) fn uri(self) -> Uri {
        // Made of names: it cannot fail.
        format!("/{}/{}", self.method.service, self.method.name).parse().unwrap_or_default()
    }

    /// What the method takes and gives.
    pub(super) fn types(self, schema: &Schema) -> Result<(MessageId, MessageId), Status> {
        let types = schema.method(self.method.service, self.method.name);
        types.ok_or_else(|| Status::internal("the method has no descriptor"))
    }
}

/// All of them, to be described.
pub(super) fn operations() -> Vec<Operation> {
    let described = |(path, service, method): &(&'static str, &'static str, &'static str)| {
        let kind = Method::find(&format!("/{service}/{method}")).map(|method| method.kind);
        let streams = kind.is_some_and(|kind| kind != Kind::Unary);
        Operation { path, service, method, streams }
    };
    ROUTES.iter().map(described).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route_leads_to_a_method() {
        for (path, ..) in ROUTES {
            let route = Route::find(path).expect(path);
            assert!(route.types(&super::super::SCHEMA).is_ok(), "{path}");
            assert!(Method::find(route.uri().path()).is_some(), "{path}");
        }
        assert!(Route::find("/v3/kv/rangestream").is_none());
    }
}
