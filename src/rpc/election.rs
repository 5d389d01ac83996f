//! `v3electionpb.Election`: the owner of the oldest key is the leader, and the key's value is the leader's proclamation.

use std::pin::Pin;

use basalt_proto::etcdserverpb::ResponseHeader;
use basalt_proto::server::v3electionpb::election_server;
use basalt_proto::v3electionpb::{
    CampaignRequest, CampaignResponse, LeaderKey, LeaderRequest, LeaderResponse, ProclaimRequest,
    ProclaimResponse, ResignRequest, ResignResponse,
};
use bytes::Bytes;
use futures_lite::Stream;
use futures_lite::stream::unfold;
use tonic::{Request, Response, Status, async_trait};

use super::concurrency::{
    Caller, Events, Waiter, delete, end_of, get, is_deletion, key_of, oldest, outliving, prefix,
    put,
};
use crate::actors::ReplicaClient;

/// etcd's text.
const NOT_LEADER: &str = "election: not leader";
const NO_LEADER: &str = "election: no leader";
const LEADER_MISSING: &str = "\"leader\" field must be provided";

#[derive(Clone)]
pub(super) struct Election(pub(super) ReplicaClient);

/// Changes the key's value, if it is still the key that was created at this revision.
async fn proclaim(
    caller: &Caller,
    key: &Bytes,
    revision: i64,
    value: Bytes,
    lease: i64,
) -> Result<Option<ResponseHeader>, Status> {
    let then = vec![put(key, value, lease)];
    let done = caller.if_created(key, revision, then, Vec::new()).await?;
    match done.succeeded {
        true => Ok(done.header),
        false => Err(Status::unknown(NOT_LEADER)),
    }
}

/// Deletes the key, if it is still the key that was created at this revision.
async fn resign(
    caller: &Caller,
    key: &Bytes,
    revision: i64,
) -> Result<Option<ResponseHeader>, Status> {
    let done = caller.if_created(key, revision, vec![delete(key)], Vec::new()).await?;
    Ok(done.header)
}

/// A candidate in the queue.
struct Candidate {
    caller: Caller,
    prefix: Bytes,
    header: Option<ResponseHeader>,
    leader: LeaderKey,
    /// True if this call created its key, false for an earlier one with the same lease.
    is_new: bool,
}

impl Candidate {
    async fn enter(caller: Caller, request: CampaignRequest) -> Result<Self, Status> {
        let CampaignRequest { name, lease, value } = request;
        let lease = caller.session(lease).await?;
        let prefix = prefix(&name);
        let key = key_of(&prefix, lease);
        let then = vec![put(&key, value.clone(), lease)];
        let queued = caller.if_created(&key, 0, then, vec![get(&key)]).await?;
        let mut rev = queued.header.map_or(0, |header| header.revision);
        if let Some(Some(own)) = queued.found.first() {
            rev = own.create_revision;
            if own.value != value
                && let Err(error) = proclaim(&caller, &key, rev, value, lease).await
            {
                drop(resign(&caller, &key, rev).await);
                return Err(error);
            }
        }
        let leader = LeaderKey { name, key, rev, lease };
        Ok(Self { caller, prefix, header: queued.header, leader, is_new: queued.succeeded })
    }

    async fn wait(&self) -> Result<(), Status> {
        self.caller.wait_for_older(&self.prefix, self.leader.rev - 1).await
    }

    async fn leave(&self) {
        drop(resign(&self.caller, &self.leader.key, self.leader.rev).await);
    }
}

/// Handles a call of `Campaign`, whose key is deleted if the caller does not take the answer.
async fn campaign(caller: Caller, request: CampaignRequest, waiter: Waiter<CampaignResponse>) {
    let candidate = match Candidate::enter(caller, request).await {
        Ok(candidate) => candidate,
        Err(error) => {
            waiter.answer(Err(error)).await;
            return;
        }
    };
    let Some(elected) = waiter.or_gone(candidate.wait()).await else {
        return candidate.leave().await;
    };
    let leader = Some(candidate.leader.clone());
    let answer = elected.map(|()| CampaignResponse { header: candidate.header, leader });
    if !waiter.answer(answer).await && candidate.is_new {
        candidate.leave().await;
    }
}

#[async_trait]
impl election_server::Election for Election {
    async fn campaign(
        &self,
        request: Request<CampaignRequest>,
    ) -> Result<Response<CampaignResponse>, Status> {
        let (caller, request) = Caller::of(&self.0, request);
        outliving(|waiter| campaign(caller, request, waiter)).await.map(Response::new)
    }

    async fn proclaim(
        &self,
        request: Request<ProclaimRequest>,
    ) -> Result<Response<ProclaimResponse>, Status> {
        let (caller, ProclaimRequest { leader, value }) = Caller::of(&self.0, request);
        let leader = leader.ok_or_else(|| Status::unknown(LEADER_MISSING))?;
        let lease = caller.session(leader.lease).await?;
        let header = proclaim(&caller, &leader.key, leader.rev, value, lease).await?;
        Ok(Response::new(ProclaimResponse { header }))
    }

    async fn leader(
        &self,
        request: Request<LeaderRequest>,
    ) -> Result<Response<LeaderResponse>, Status> {
        let (caller, LeaderRequest { name }) = Caller::of(&self.0, request);
        let found = caller.find(oldest(&prefix(&name))).await?;
        match found.first {
            Some(kv) => Ok(Response::new(LeaderResponse { header: found.header, kv: Some(kv) })),
            None => Err(Status::unknown(NO_LEADER)),
        }
    }

    type ObserveStream = Pin<Box<dyn Stream<Item = Result<LeaderResponse, Status>> + Send>>;

    async fn observe(
        &self,
        request: Request<LeaderRequest>,
    ) -> Result<Response<Self::ObserveStream>, Status> {
        let (caller, LeaderRequest { name }) = Caller::of(&self.0, request);
        let observer = Observer { caller, prefix: prefix(&name), followed: None };
        // An error ends the stream without a status of its own, as in etcd.
        let stream = unfold(observer, |mut observer| async move {
            observer.next().await.ok().map(|response| (Ok(response), observer))
        });
        Ok(Response::new(Box::pin(stream)))
    }

    async fn resign(
        &self,
        request: Request<ResignRequest>,
    ) -> Result<Response<ResignResponse>, Status> {
        let (caller, ResignRequest { leader }) = Caller::of(&self.0, request);
        let leader = leader.ok_or_else(|| Status::unknown(LEADER_MISSING))?;
        caller.session(leader.lease).await?;
        let header = resign(&caller, &leader.key, leader.rev).await?;
        Ok(Response::new(ResignResponse { header }))
    }
}

/// Observes the leaders one after the other, and their proclamations.
struct Observer {
    caller: Caller,
    prefix: Bytes,
    /// Events of the key of the last reported leader.
    followed: Option<Events>,
}

impl Observer {
    /// The next proclamation of a leader.
    async fn next(&mut self) -> Result<LeaderResponse, Status> {
        if let Some(events) = &mut self.followed {
            let event = events.next().await?;
            if !is_deletion(&event) {
                return Ok(LeaderResponse { header: events.header, kv: event.kv });
            }
            self.followed = None;
        }
        let found = self.caller.find(oldest(&self.prefix)).await?;
        let response = match found.first {
            Some(kv) => LeaderResponse { header: found.header, kv: Some(kv) },
            None => self.first_put(found.header).await?,
        };
        let key = response.kv.as_ref().map(|kv| kv.key.clone()).unwrap_or_default();
        let revision = response.header.map_or(0, |header| header.revision);
        self.followed = Some(self.caller.watch(key, Bytes::new(), revision + 1).await?);
        Ok(response)
    }

    /// Waits for a candidate.
    async fn first_put(&self, seen: Option<ResponseHeader>) -> Result<LeaderResponse, Status> {
        let revision = seen.map_or(0, |header| header.revision);
        let (prefix, end) = (self.prefix.clone(), end_of(&self.prefix));
        let mut events = self.caller.watch(prefix, end, revision).await?;
        loop {
            let event = events.next().await?;
            if is_deletion(&event) {
                continue;
            }
            let mut header = events.header;
            // Later events in the same response are reported next.
            if let (Some(header), Some(kv)) = (&mut header, &event.kv) {
                header.revision = kv.mod_revision;
            }
            return Ok(LeaderResponse { header, kv: event.kv });
        }
    }
}
