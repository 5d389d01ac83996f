//! The table of RPCs: for each one the method of a service that answers it, its admission of learners, the permission
//! that it demands, the label of its duration, and its paths in the gateway.
//!
//! The rows are matches on [`Unary`] and [`Streaming`], which are generated from the descriptors: an RPC without a row
//! does not compile. Names, message types and kinds come from the descriptors alone.

use std::sync::Arc;

use basalt_proto::rpc::{Rpc, Streaming, Unary};
use basalt_proto::server::etcdserverpb::auth_server::Auth as _;
use basalt_proto::server::etcdserverpb::cluster_server::Cluster as _;
use basalt_proto::server::etcdserverpb::kv_server::{Kv as _, KvServer};
use basalt_proto::server::etcdserverpb::lease_server::{Lease as _, LeaseServer};
use basalt_proto::server::etcdserverpb::maintenance_server::{Maintenance as _, MaintenanceServer};
use basalt_proto::server::etcdserverpb::watch_server::WatchServer;
use basalt_proto::server::health::health_server::{Health as _, HealthServer};
use basalt_proto::server::reflection::server_reflection_server::ServerReflectionServer;
use basalt_proto::server::v3electionpb::election_server::{Election as _, ElectionServer};
use basalt_proto::server::v3lockpb::lock_server::Lock as _;
use bytes::Bytes;
use tonic::body::Body;
use tonic::codec::CompressionEncoding;
use tonic::{Response, Status};
use tower_service::Service as _;

use super::call::MeteredRequest;
use super::encode::{Encoded, encode};
use super::{CallHead, Inner, unary};
use crate::metrics::Timed;

/// Properties of an RPC beside its descriptor.
#[derive(Debug)]
pub struct Rule {
    /// The members that serve it.
    pub admission: Admission,
    /// The permission it demands while authentication is on.
    pub access: Access,
    /// The label of its duration.
    pub(super) timed: Option<Timed>,
    /// Paths of the gateway, all of them for POST.
    pub routes: &'static [&'static str],
}

/// The members that serve an RPC, and the checks before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Admission {
    /// Every member, without checks of the request's headers: gRPC's own services.
    Unchecked,
    /// Every member. Of KV.Range, a learner serves the serializable ones, which the service checks.
    Everyone,
    /// Members that vote; learners refuse.
    Voters,
}

/// The permission that an RPC demands while authentication is enabled. "Applied" ones are checked by every member when
/// the entry is applied, the others by the serving member before anything is proposed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// None, not even a user.
    Nothing,
    /// Any user.
    AnyUser,
    /// The role root.
    Root,
    /// The role root; applied.
    RootApplied,
    /// The role root, or the user named in the request; applied.
    RootOrSelf,
    /// The role root, or a role of the user; applied.
    RootOrOwnRole,
    /// Any user to list alarms, the role root to change them.
    Alarm,
    /// READ on the range, after the read index.
    Range,
    /// WRITE on the key and on all keys of its new lease, READ for the previous value; applied.
    Put,
    /// WRITE on the range, READ for the previous values; applied.
    DeleteRange,
    /// Those of its compares and of the operations of both branches; applied if it writes, else as [`Access::Range`].
    Txn,
    /// READ on the range of each watch that is created.
    Watch,
    /// Any user, and WRITE on all keys of the lease; applied.
    LeaseRevoke,
    /// WRITE on all keys of the lease, for each message.
    LeaseKeepAlive,
    /// Any user, and READ on all keys of the lease if they are requested.
    LeaseTimeToLive,
    /// READ on the keys of all leases.
    LeaseLeases,
    /// Those of the KV, lease and watch calls that the service makes in the caller's name.
    Composed,
}

macro_rules! rpcs {
    (
        unary { $($unary:ident $service:ident.$method:ident $at:ident $needs:ident $timed:expr, [$($path:literal)*];)* }
        streaming { $($stream:ident $streams:ident $server:ident $on:ident $wants:ident [$($route:literal)*];)* }
    ) => {
        /// The row of an RPC.
        pub fn rule(rpc: Rpc) -> &'static Rule {
            match rpc {
                Rpc::Unary(rpc) => match rpc {
                    $(Unary::$unary => const { &Rule {
                        admission: Admission::$at,
                        access: Access::$needs,
                        timed: $timed,
                        routes: &[$(concat!("/v3/", $path)),*],
                    } },)*
                },
                Rpc::Streaming(rpc) => match rpc {
                    $(Streaming::$stream => const { &Rule {
                        admission: Admission::$on,
                        access: Access::$wants,
                        timed: None,
                        routes: &[$(concat!("/v3/", $route)),*],
                    } },)*
                },
            }
        }

        impl Inner {
            /// Calls the method of a service.
            pub(super) async fn unary(
                &self,
                rpc: Unary,
                head: Option<Box<CallHead>>,
                message: Bytes,
            ) -> Result<Response<Encoded>, Status> {
                match rpc {
                    $(Unary::$unary => {
                        let request = unary::decode(head, message)?;
                        let answer = self.$service.$method(request).await?;
                        encode(answer).await
                    })*
                }
            }

            /// Passes a streaming call to the server of its service, which is tonic's.
            pub(super) async fn streaming(
                &self,
                rpc: Streaming,
                request: hyper::Request<MeteredRequest>,
            ) -> hyper::Response<Body> {
                let served = match rpc {
                    $(Streaming::$stream => {
                        $server::from_arc(Arc::clone(&self.$streams))
                            .accept_compressed(CompressionEncoding::Gzip)
                            .max_decoding_message_size(self.receive_max)
                            .max_encoding_message_size(i32::MAX as usize)
                            .call(request)
                            .await
                    })*
                };
                match served {
                    Ok(response) => response,
                    Err(never) => match never {},
                }
            }
        }

        #[cfg(test)]
        fn servers() -> Vec<(Streaming, &'static str)> {
            use tonic::server::NamedService;
            fn name<S: NamedService>(_: impl Fn(&Inner) -> S) -> &'static str {
                S::NAME
            }
            vec![$((
                Streaming::$stream,
                name(|inner: &Inner| $server::from_arc(Arc::clone(&inner.$streams))),
            ),)*]
        }
    };
}

// etcd's annotations name the paths; `KV.RangeStream` has none there either.
rpcs! {
    unary {
        KVRange kv.range Everyone Range Some(Timed::Range), ["kv/range"];
        KVPut kv.put Voters Put Some(Timed::Put), ["kv/put"];
        KVDeleteRange kv.delete_range Voters DeleteRange Some(Timed::DeleteRange), ["kv/deleterange"];
        KVTxn kv.txn Voters Txn Some(Timed::Txn), ["kv/txn"];
        KVCompact kv.compact Voters Root Some(Timed::Compaction), ["kv/compaction"];

        LeaseGrant lease.lease_grant Voters AnyUser Some(Timed::LeaseGrant), ["lease/grant"];
        LeaseRevoke lease.lease_revoke Voters LeaseRevoke Some(Timed::LeaseRevoke), ["lease/revoke" "kv/lease/revoke"];
        LeaseTimeToLive lease.lease_time_to_live Voters LeaseTimeToLive None,
            ["lease/timetolive" "kv/lease/timetolive"];
        LeaseLeases lease.lease_leases Voters LeaseLeases None, ["lease/leases" "kv/lease/leases"];

        ClusterMemberAdd cluster.member_add Voters Root None, ["cluster/member/add"];
        ClusterMemberRemove cluster.member_remove Voters Root None, ["cluster/member/remove"];
        ClusterMemberUpdate cluster.member_update Voters Root None, ["cluster/member/update"];
        ClusterMemberList cluster.member_list Voters AnyUser None, ["cluster/member/list"];
        ClusterMemberPromote cluster.member_promote Voters Root None, ["cluster/member/promote"];

        MaintenanceAlarm maintenance.alarm Voters Alarm Some(Timed::Alarm), ["maintenance/alarm"];
        MaintenanceStatus maintenance.status Everyone AnyUser None, ["maintenance/status"];
        MaintenanceDefragment maintenance.defragment Voters Root None, ["maintenance/defragment"];
        MaintenanceHash maintenance.hash Voters Root None, ["maintenance/hash"];
        MaintenanceHashKV maintenance.hash_kv Voters Root None, ["maintenance/hashkv"];
        MaintenanceMoveLeader maintenance.move_leader Voters Root None, ["maintenance/transfer-leadership"];
        MaintenanceDowngrade maintenance.downgrade Voters Root None, ["maintenance/downgrade"];

        AuthEnable auth.auth_enable Voters RootApplied None, ["auth/enable"];
        AuthDisable auth.auth_disable Voters RootApplied None, ["auth/disable"];
        AuthStatus auth.auth_status Voters Nothing None, ["auth/status"];
        Authenticate auth.authenticate Voters Nothing None, ["auth/authenticate"];
        AuthUserAdd auth.user_add Voters RootApplied None, ["auth/user/add"];
        AuthUserGet auth.user_get Voters RootOrSelf None, ["auth/user/get"];
        AuthUserList auth.user_list Voters RootApplied None, ["auth/user/list"];
        AuthUserDelete auth.user_delete Voters RootApplied None, ["auth/user/delete"];
        AuthUserChangePassword auth.user_change_password Voters RootApplied None, ["auth/user/changepw"];
        AuthUserGrantRole auth.user_grant_role Voters RootApplied None, ["auth/user/grant"];
        AuthUserRevokeRole auth.user_revoke_role Voters RootApplied None, ["auth/user/revoke"];
        AuthRoleAdd auth.role_add Voters RootApplied None, ["auth/role/add"];
        AuthRoleGet auth.role_get Voters RootOrOwnRole None, ["auth/role/get"];
        AuthRoleList auth.role_list Voters RootApplied None, ["auth/role/list"];
        AuthRoleDelete auth.role_delete Voters RootApplied None, ["auth/role/delete"];
        AuthRoleGrantPermission auth.role_grant_permission Voters RootApplied None, ["auth/role/grant"];
        AuthRoleRevokePermission auth.role_revoke_permission Voters RootApplied None, ["auth/role/revoke"];

        Lock lock.lock Voters Composed None, ["lock/lock"];
        LockUnlock lock.unlock Voters Composed None, ["lock/unlock"];

        ElectionCampaign election.campaign Voters Composed None, ["election/campaign"];
        ElectionLeader election.leader Voters Composed None, ["election/leader"];
        ElectionProclaim election.proclaim Voters Composed None, ["election/proclaim"];
        ElectionResign election.resign Voters Composed None, ["election/resign"];

        HealthCheck health.check Unchecked Nothing None, [];
        HealthList health.list Unchecked Nothing None, [];
    }
    streaming {
        KVRangeStream kv KvServer Voters Range [];
        Watch watch WatchServer Voters Watch ["watch"];
        LeaseKeepAlive lease LeaseServer Voters LeaseKeepAlive ["lease/keepalive"];
        MaintenanceSnapshot maintenance MaintenanceServer Everyone Root ["maintenance/snapshot"];
        ElectionObserve election ElectionServer Voters Composed ["election/observe"];
        HealthWatch health HealthServer Unchecked Nothing [];
        ServerReflectionInfo reflection ServerReflectionServer Unchecked Nothing [];
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use basalt_proto::rpc::METHODS;

    use super::*;

    #[test]
    fn streams_are_served_by_their_own_service() {
        for (rpc, server) in servers() {
            assert_eq!(Rpc::Streaming(rpc).method().service, server, "{rpc:?}");
        }
    }

    #[test]
    fn every_path_of_the_gateway_is_one_rpcs() {
        let paths: Vec<_> = METHODS.iter().flat_map(|it| rule(it.rpc).routes).collect();
        assert_eq!(paths.iter().collect::<BTreeSet<_>>().len(), paths.len());
    }

    /// Lists the RPCs that are served without a user, or by a learner.
    #[test]
    fn few_rpcs_are_open() {
        let named = |holds: fn(&Rule) -> bool| -> Vec<_> {
            METHODS.iter().filter(|it| holds(rule(it.rpc))).map(|it| it.path).collect()
        };
        let standard = [
            "/grpc.health.v1.Health/Check",
            "/grpc.health.v1.Health/List",
            "/grpc.health.v1.Health/Watch",
            "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        ];
        assert_eq!(named(|rule| rule.admission == Admission::Unchecked), standard);
        let authentication = ["/etcdserverpb.Auth/AuthStatus", "/etcdserverpb.Auth/Authenticate"];
        let nothing = [&authentication[..], &standard].concat();
        assert_eq!(named(|rule| rule.access == Access::Nothing), nothing);
        let learners = [
            "/etcdserverpb.KV/Range",
            "/etcdserverpb.Maintenance/Snapshot",
            "/etcdserverpb.Maintenance/Status",
        ];
        assert_eq!(named(|rule| rule.admission == Admission::Everyone), learners);
    }
}
