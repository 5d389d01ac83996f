//! `etcdserverpb.Cluster`.

use std::sync::Arc;

use basalt_proto::etcdserverpb::{
    Member, MemberAddRequest, MemberAddResponse, MemberListRequest, MemberListResponse,
    MemberPromoteRequest, MemberPromoteResponse, MemberRemoveRequest, MemberRemoveResponse,
    MemberUpdateRequest, MemberUpdateResponse, ResponseHeader,
};
use basalt_proto::rpc::{Rpc, Unary};
use basalt_proto::server::etcdserverpb::cluster_server;
use hyper::http::request::Parts;
use prost::Message as _;
use tonic::{Request, Response, Status, async_trait};

use super::credentials::Credentials;
use super::policy::{Policy, PolicyClient};
use super::{header, status};
use crate::actors::ReplicaClient;
use crate::auth::Permissions;
use crate::cluster;
use crate::io::clock;
use crate::types::{MemberId, Refusal};

#[derive(Clone)]
pub(super) struct Cluster(pub(super) ReplicaClient);

fn member(member: &cluster::Member) -> Member {
    Member {
        id: member.id,
        name: member.name.clone(),
        peer_ur_ls: member.peer_urls.clone(),
        client_ur_ls: member.client_urls.clone(),
        is_learner: member.is_learner,
    }
}

/// Time in which members must have been connected without interruption to count as healthy, in ms; etcd's.
const HEALTH_MS: u64 = 5000;

impl Cluster {
    /// The header of a response about members, which has no revision, and the members.
    fn answer(&self) -> (Option<ResponseHeader>, Vec<Member>) {
        let mut header = header(&self.0);
        header.iter_mut().for_each(|header| header.revision = 0);
        (header, self.0.state().members.iter().map(member).collect())
    }

    /// Number of voters that have been connected for a while, and of all voters.
    fn connected(&self) -> (usize, usize) {
        let state = self.0.state();
        let voters: Vec<_> = state.members.iter().filter(|member| !member.is_learner).collect();
        let peers = self.0.peers();
        let is_connected = |voter: &&&cluster::Member| peers.is_connected(voter.id, HEALTH_MS);
        (voters.iter().filter(is_connected).count(), voters.len())
    }

    fn check_add(&self, learner: bool) -> Result<(), Refusal> {
        if !self.0.node().strict_reconfig {
            return Ok(());
        }
        if !learner && !cluster::is_ready_to_add(&self.0.state().members) {
            return Err(Refusal::MemberNotEnoughStarted);
        }
        let (connected, voters) = self.connected();
        // The new member counts as one that is down; a single member may always get a second one.
        let quorum = voters.div_ceil(2) + 1;
        if voters > 1 && connected < quorum { Err(Refusal::Unhealthy) } else { Ok(()) }
    }

    fn check_remove(&self, id: MemberId) -> Result<(), Refusal> {
        let state = self.0.state();
        let is_learner = state.members.iter().any(|member| member.id == id && member.is_learner);
        if !self.0.node().strict_reconfig || is_learner {
            return Ok(());
        }
        if !cluster::is_ready_to_remove(&state.members, id) {
            return Err(Refusal::MemberNotEnoughStarted);
        }
        // A member that is down is not among the connected ones.
        if !self.0.peers().is_connected(id, 0) {
            return Ok(());
        }
        let (connected, voters) = self.connected();
        let left = connected.saturating_sub(1);
        if left < 1 + (voters - 1) / 2 { Err(Refusal::Unhealthy) } else { Ok(()) }
    }
}

/// Validates peer URLs as etcd does: `scheme://host:port`, at least one.
fn check_urls(urls: &[String]) -> Result<(), Refusal> {
    let is_fine = |url: &String| {
        url.split_once("://").is_some_and(|(scheme, rest)| {
            let port = rest.rsplit_once(':').map(|(_, port)| port.parse::<u16>());
            match scheme {
                "http" | "https" => matches!(port, Some(Ok(_))),
                "unix" | "unixs" => !rest.is_empty(),
                _ => false,
            }
        })
    };
    if urls.is_empty() || !urls.iter().all(is_fine) { Err(Refusal::MemberBadURLs) } else { Ok(()) }
}

#[async_trait]
impl cluster_server::Cluster for Cluster {
    async fn member_add(
        &self,
        request: Request<MemberAddRequest>,
    ) -> Result<Response<MemberAddResponse>, Status> {
        let credentials = Credentials::of(&request);
        let MemberAddRequest { mut peer_ur_ls, is_learner } = request.into_inner();
        check_urls(&peer_ur_ls).map_err(status)?;
        credentials.require_root(&self.0).await?;
        peer_ur_ls.sort();
        self.check_add(is_learner).map_err(status)?;
        let now_s = clock::unix_time().as_secs() as i64;
        let id = cluster::member_id(&peer_ur_ls, "", Some(now_s));
        let peer_urls = peer_ur_ls;
        let new = cluster::Member { id, peer_urls, is_learner, ..cluster::Member::default() };
        let learners_max = self.0.node().learners_max;
        let change = |request| cluster::add(request, &new, learners_max);
        self.0.change_members(change).await.map_err(status)?;
        let (header, members) = self.answer();
        Ok(Response::new(MemberAddResponse { header, member: Some(member(&new)), members }))
    }

    async fn member_remove(
        &self,
        request: Request<MemberRemoveRequest>,
    ) -> Result<Response<MemberRemoveResponse>, Status> {
        Credentials::of(&request).require_root(&self.0).await?;
        let id = request.into_inner().id;
        self.check_remove(id).map_err(status)?;
        self.0.change_members(|request| cluster::remove(request, id)).await.map_err(status)?;
        let (header, members) = self.answer();
        Ok(Response::new(MemberRemoveResponse { header, members }))
    }

    async fn member_update(
        &self,
        request: Request<MemberUpdateRequest>,
    ) -> Result<Response<MemberUpdateResponse>, Status> {
        Credentials::of(&request).require_root(&self.0).await?;
        let MemberUpdateRequest { id, peer_ur_ls } = request.into_inner();
        check_urls(&peer_ur_ls).map_err(status)?;
        let change = |request| cluster::update(request, id, peer_ur_ls);
        self.0.change_members(change).await.map_err(status)?;
        let (header, members) = self.answer();
        Ok(Response::new(MemberUpdateResponse { header, members }))
    }

    async fn member_list(
        &self,
        request: Request<MemberListRequest>,
    ) -> Result<Response<MemberListResponse>, Status> {
        let credentials = Credentials::of(&request);
        if request.into_inner().linearizable {
            self.0.read_index().await.map_err(status)?;
        }
        credentials.require_any_user(&self.0).await?;
        let (header, members) = self.answer();
        Ok(Response::new(MemberListResponse { header, members }))
    }

    async fn member_promote(
        &self,
        request: Request<MemberPromoteRequest>,
    ) -> Result<Response<MemberPromoteResponse>, Status> {
        // The leader takes this member's word for it, which must not be an old one.
        if !self.0.leads() {
            self.0.read_index().await.map_err(status)?;
        }
        Credentials::of(&request).require_root(&self.0).await?;
        self.0.promote(request.into_inner().id).await.map_err(status)?;
        // The leader has applied the change; so must the state that is returned.
        self.0.read_index().await.map_err(status)?;
        let (header, members) = self.answer();
        Ok(Response::new(MemberPromoteResponse { header, members }))
    }
}

/// A promotion that was asked for on the peer port over HTTP, as another member of an etcd cluster asks for it: in the name of
/// the token in the headers. Certificates of that port are members', not users'.
///
/// # Errors
/// It is not root's request, or the member cannot be promoted.
pub async fn promote_by_http(
    replica: &ReplicaClient,
    policy: &Arc<Policy>,
    (head, address): (&Parts, &Arc<str>),
    id: MemberId,
) -> Result<(), Refusal> {
    let rpc = Rpc::Unary(Unary::ClusterMemberPromote);
    let mut observed = PolicyClient::new(policy, replica).observe(rpc, head, address);
    let promoted = async {
        if let Some(observed) = &mut observed {
            observed.admit(&MemberPromoteRequest { id }.encode_to_vec().into())?;
        }
        let credentials = Credentials::new(&head.headers, &head.extensions);
        credentials.require(replica, Permissions::check_root).await?;
        replica.promote_here(id).await
    };
    let promoted = promoted.await;
    if let Some(observed) = &mut observed {
        observed.finish(promoted.as_ref().err().map_or(0, |refusal| refusal.code() as i32)).await;
    }
    promoted
}
