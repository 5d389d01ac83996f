//! `etcdserverpb.Lease`.

use basalt_proto::etcdserverpb::{
    LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest, LeaseKeepAliveResponse,
    LeaseLeasesRequest, LeaseLeasesResponse, LeaseRevokeRequest, LeaseRevokeResponse, LeaseStatus,
    LeaseTimeToLiveRequest, LeaseTimeToLiveResponse,
};
use basalt_proto::server::etcdserverpb::lease_server;
use bytes::Bytes;
use futures_util::StreamExt as _;
use tonic::{Request, Response, Status, Streaming, async_trait};

use super::credentials::Credentials;
use super::{Answers, check_quota, complete, door, header, mismatch, require_leader, status};
use crate::actors::ReplicaClient;
use crate::auth::{Action, AttachedKeys, AuthInfo, Permissions};
use crate::command::{Command, LEASE_COST};
use crate::io::random_u64;
use crate::machine::Reply;
use crate::types::{LeaseId, Refusal};

/// Concurrent renewals of one stream: each of them may take a round trip to the leader, or one of the leader to a
/// quorum. With one at a time, a client of a follower could not keep thousands of leases alive.
const KEEP_ALIVES_IN_FLIGHT_MAX: usize = 256;

#[derive(Clone)]
pub(super) struct Lease(pub(super) ReplicaClient);

/// Checks all keys of these leases, unless there are none that could be refused.
async fn check_keys(
    replica: &ReplicaClient,
    who: Option<&AuthInfo>,
    action: Action,
    leases: &[LeaseId],
) -> Result<(), Refusal> {
    let principal = who.map(AuthInfo::principal);
    let may_all = replica.with_permissions(|permissions| {
        permissions.check_root(principal).is_ok() || permissions.covers_all(principal, action)
    });
    if may_all { Ok(()) } else { Box::pin(replica.check_leases(who, action, leases)).await }
}

/// The keys of a lease that are about to be told, in order.
struct Found<'a>(&'a [Bytes]);

impl AttachedKeys for Found<'_> {
    fn next(&self, _lease: LeaseId, from: &[u8]) -> Option<&[u8]> {
        self.0.get(self.0.partition_point(|key| key.as_ref() < from)).map(AsRef::as_ref)
    }
}

/// Checks that a user may read the keys that were found.
fn check_found(
    permissions: &Permissions,
    who: Option<&AuthInfo>,
    keys: &[Bytes],
) -> Result<(), Refusal> {
    permissions.check_lease(who.map(AuthInfo::principal), Action::Read, 0, &Found(keys))
}

#[async_trait]
impl lease_server::Lease for Lease {
    async fn lease_grant(
        &self,
        request: Request<LeaseGrantRequest>,
    ) -> Result<Response<LeaseGrantResponse>, Status> {
        let credentials = Credentials::of(&request);
        let mut grant = request.into_inner();
        check_quota(&self.0, LEASE_COST).await?;
        credentials.require_any_user(&self.0).await?;
        while grant.id == 0 {
            // Positive ids only, as etcd draws them.
            grant.id = (random_u64() >> 1) as i64;
        }
        door::room_for_lease(self.0.state().leases).map_err(status)?;
        let request = door::lease_grant(grant, self.0.node().lease_ttl_min).map_err(status)?;
        let Reply::LeaseGrant(mut response) = credentials.propose(&self.0, request).await? else {
            return Err(mismatch());
        };
        complete(&self.0, &mut response.header);
        Ok(Response::new(response))
    }

    async fn lease_revoke(
        &self,
        request: Request<LeaseRevokeRequest>,
    ) -> Result<Response<LeaseRevokeResponse>, Status> {
        let credentials = Credentials::of(&request);
        credentials.require_any_user(&self.0).await?;
        let request = Command::LeaseRevoke(request.into_inner());
        let Reply::LeaseRevoke { revision } = credentials.propose(&self.0, request).await? else {
            return Err(mismatch());
        };
        let mut response = LeaseRevokeResponse::default();
        response.header.get_or_insert_default().revision = revision;
        complete(&self.0, &mut response.header);
        Ok(Response::new(response))
    }

    type LeaseKeepAliveStream = Answers<LeaseKeepAliveResponse>;

    async fn lease_keep_alive(
        &self,
        request: Request<Streaming<LeaseKeepAliveRequest>>,
    ) -> Result<Response<Self::LeaseKeepAliveStream>, Status> {
        let replica = self.0.clone();
        let credentials = Credentials::of(&request);
        let (metadata, _, requests) = request.into_parts();
        let answers = requests.map(move |request| {
            let (replica, credentials) = (replica.clone(), credentials.clone());
            async move {
                let id = request?.id;
                let who = credentials.require_any_user(&replica).await?;
                check_keys(&replica, who.as_ref(), Action::Write, &[id]).await.map_err(status)?;
                // Read before the renewal, so that the revision is not newer than the lease.
                let header = header(&replica);
                let ttl = replica.keep_alive(id).await.map_err(status)?;
                Ok(LeaseKeepAliveResponse { header, id, ttl })
            }
        });
        // Responses keep the order of the requests.
        let answers = answers.buffered(KEEP_ALIVES_IN_FLIGHT_MAX);
        Ok(Response::new(require_leader(&self.0, &metadata, answers)))
    }

    async fn lease_time_to_live(
        &self,
        request: Request<LeaseTimeToLiveRequest>,
    ) -> Result<Response<LeaseTimeToLiveResponse>, Status> {
        let credentials = Credentials::of(&request);
        let LeaseTimeToLiveRequest { id, keys } = request.into_inner();
        let who = credentials.require_any_user(&self.0).await?;
        let found = self.0.time_to_live(id, keys).await.map_err(status)?;
        let checked = self.0.with_permissions(|it| check_found(it, who.as_ref(), &found.keys));
        checked.map_err(status)?;
        Ok(Response::new(LeaseTimeToLiveResponse {
            header: header(&self.0),
            id,
            ttl: found.ttl,
            granted_ttl: found.granted,
            keys: found.keys,
        }))
    }

    async fn lease_leases(
        &self,
        request: Request<LeaseLeasesRequest>,
    ) -> Result<Response<LeaseLeasesResponse>, Status> {
        let credentials = Credentials::of(&request);
        let who = credentials.require_any_user(&self.0).await?;
        let leases = self.0.leases().await.map_err(status)?;
        check_keys(&self.0, who.as_ref(), Action::Read, &leases).await.map_err(status)?;
        let leases = leases.into_iter().map(|id| LeaseStatus { id }).collect();
        Ok(Response::new(LeaseLeasesResponse { header: header(&self.0), leases }))
    }
}
