//! Requests to the members, as a client of theirs.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use basalt_proto::etcdserverpb::{
    AuthenticateRequest, AuthenticateResponse, Member, MemberAddRequest, MemberAddResponse,
    MemberListRequest, MemberListResponse, MemberPromoteRequest, MemberPromoteResponse,
    MemberRemoveRequest, MemberRemoveResponse, MoveLeaderRequest, MoveLeaderResponse,
    StatusRequest, StatusResponse,
};
use dial::tls::{self, Security};
use dial::{Dialer, KeepAlive};
use prost::Message;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;

use crate::limits::{CALL_TIME_MAX, LIST_TIME_MAX};

const LIST: &str = "/etcdserverpb.Cluster/MemberList";
const ADD: &str = "/etcdserverpb.Cluster/MemberAdd";
const REMOVE: &str = "/etcdserverpb.Cluster/MemberRemove";
const PROMOTE: &str = "/etcdserverpb.Cluster/MemberPromote";
const STATUS: &str = "/etcdserverpb.Maintenance/Status";
const MOVE: &str = "/etcdserverpb.Maintenance/MoveLeader";
const AUTHENTICATE: &str = "/etcdserverpb.Auth/Authenticate";

/// A user and the file of the password, which is read at each login.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Login {
    pub(crate) user: String,
    pub(crate) password_file: String,
}

/// A client of the members. Makes a connection for each request, with the certificates of that time.
#[derive(Clone)]
pub(crate) struct Members {
    security: Security,
    login: Option<Login>,
    token: Arc<Mutex<Option<String>>>,
}

impl Members {
    pub(crate) fn new(security: Security, login: Option<Login>) -> Self {
        Self { security, login, token: Arc::default() }
    }

    #[cfg(test)]
    pub(crate) fn files(&self) -> [String; 3] {
        let Security { cacert, cert, key, .. } = &self.security;
        [cacert, cert, key].map(String::clone)
    }

    /// All members, as a quorum knows them now: the first answer from any of these endpoints.
    ///
    /// # Errors
    /// The last reason why nobody answers.
    pub(crate) async fn list(&self, endpoints: Vec<String>) -> Result<Vec<Member>, String> {
        let mut asked = JoinSet::new();
        for endpoint in endpoints {
            let members = self.clone();
            asked.spawn(async move {
                let request = MemberListRequest { linearizable: true };
                let answer = members.call(&endpoint, LIST, request, LIST_TIME_MAX).await;
                answer.map(|it: MemberListResponse| it.members).map_err(|why| (endpoint, why))
            });
        }
        let mut last = "there is no other pod".to_owned();
        while let Some(outcome) = asked.join_next().await {
            match outcome {
                Ok(Ok(members)) if !members.is_empty() => return Ok(members),
                Ok(Err((endpoint, why))) => last = format!("{endpoint}: {why}"),
                Ok(Ok(_)) | Err(_) => {}
            }
        }
        Err(last)
    }

    /// Adds a learner; returns all members.
    ///
    /// # Errors
    /// The last refusal.
    pub(crate) async fn add_learner(
        &self,
        endpoints: &[String],
        peer_url: &str,
    ) -> Result<Vec<Member>, String> {
        let request = MemberAddRequest { peer_ur_ls: vec![peer_url.to_owned()], is_learner: true };
        let answer: MemberAddResponse = self.any(endpoints, ADD, request).await?;
        Ok(answer.members)
    }

    /// Removes a member; one that is gone is as good.
    ///
    /// # Errors
    /// The last refusal.
    pub(crate) async fn remove(&self, endpoints: &[String], id: u64) -> Result<(), String> {
        let request = MemberRemoveRequest { id };
        match self.any::<_, MemberRemoveResponse>(endpoints, REMOVE, request).await {
            Err(why) if !why.contains("member not found") => Err(why),
            _ => Ok(()),
        }
    }

    /// # Errors
    /// The last refusal; above all, that the learner is not in sync yet.
    pub(crate) async fn promote(&self, endpoints: &[String], id: u64) -> Result<(), String> {
        let request = MemberPromoteRequest { id };
        self.any::<_, MemberPromoteResponse>(endpoints, PROMOTE, request).await.map(drop)
    }

    /// The leader that the member at this endpoint knows.
    pub(crate) async fn leader(&self, endpoint: &str) -> Option<u64> {
        let answer = self.call(endpoint, STATUS, StatusRequest {}, LIST_TIME_MAX).await;
        answer.ok().map(|it: StatusResponse| it.leader)
    }

    /// Transfers the leadership of the member at this endpoint.
    ///
    /// # Errors
    /// Its refusal.
    pub(crate) async fn move_leader(&self, endpoint: &str, target_id: u64) -> Result<(), String> {
        let request = MoveLeaderRequest { target_id };
        let moved = self.call::<_, MoveLeaderResponse>(endpoint, MOVE, request, CALL_TIME_MAX);
        moved.await.map(drop)
    }

    /// Asks one endpoint after the other until one does it.
    async fn any<Q, A>(
        &self,
        endpoints: &[String],
        method: &'static str,
        request: Q,
    ) -> Result<A, String>
    where
        Q: Message + Clone + 'static,
        A: Message + Default + 'static,
    {
        let mut last = "no member is known".to_owned();
        for endpoint in endpoints {
            match self.call(endpoint, method, request.clone(), CALL_TIME_MAX).await {
                Ok(answer) => return Ok(answer),
                Err(why) => last = format!("{endpoint}: {why}"),
            }
        }
        Err(last)
    }

    async fn call<Q, A>(
        &self,
        endpoint: &str,
        method: &'static str,
        request: Q,
        time: Duration,
    ) -> Result<A, String>
    where
        Q: Message + Clone + 'static,
        A: Message + Default + 'static,
    {
        let calling = async {
            let channel = self.channel(endpoint).await?;
            let first = self.with_token(&channel, method, request.clone()).await;
            let refused = match first {
                Ok(answer) => return Ok(answer),
                Err(status) => status,
            };
            let is_stale = refused.code() == Code::Unauthenticated
                || refused.message().contains("revision of auth store is old");
            if self.login.is_none() || !is_stale {
                return Err(refused.message().to_owned());
            }
            *self.token() = None;
            let again = self.with_token(&channel, method, request).await;
            again.map_err(|status| status.message().to_owned())
        };
        timeout(time, calling).await.unwrap_or_else(|_| Err("no answer in time".to_owned()))
    }

    async fn channel(&self, endpoint: &str) -> Result<Channel, String> {
        let configured = tls::config(&self.security)?;
        let dialer = Dialer::new(endpoint, configured, tls::default);
        Ok(dialer.link(KeepAlive::default(), endpoint).await?.channel)
    }

    async fn with_token<Q, A>(
        &self,
        channel: &Channel,
        method: &'static str,
        request: Q,
    ) -> Result<A, Status>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        let mut request = Request::new(request);
        if let Some(token) = self.log_in(channel).await? {
            let token = token.parse().map_err(|_| Status::internal("the token is not ASCII"))?;
            request.metadata_mut().insert("token", token);
        }
        unary(channel, method, request).await
    }

    /// The token of the user, if there is a user and authentication is on.
    async fn log_in(&self, channel: &Channel) -> Result<Option<String>, Status> {
        let Some(login) = &self.login else { return Ok(None) };
        if let Some(token) = self.token().clone() {
            return Ok(Some(token));
        }
        let file = &login.password_file;
        let password = std::fs::read_to_string(file);
        let unread = |error| Status::failed_precondition(format!("{file}: {error}"));
        let password = password.map_err(unread)?.lines().next().unwrap_or_default().to_owned();
        let request = AuthenticateRequest { name: login.user.clone(), password };
        match unary::<_, AuthenticateResponse>(channel, AUTHENTICATE, Request::new(request)).await {
            Ok(answer) => {
                *self.token() = Some(answer.token.clone());
                Ok(Some(answer.token))
            }
            Err(it) if it.message().contains("authentication is not enabled") => Ok(None),
            Err(status) => Err(status),
        }
    }

    fn token(&self) -> std::sync::MutexGuard<'_, Option<String>> {
        self.token.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

async fn unary<Q, A>(
    channel: &Channel,
    method: &'static str,
    request: Request<Q>,
) -> Result<A, Status>
where
    Q: Message + 'static,
    A: Message + Default + 'static,
{
    let mut grpc = Grpc::new(channel.clone());
    grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
    let path = PathAndQuery::from_static(method);
    grpc.unary(request, path, ProstCodec::default()).await.map(tonic::Response::into_inner)
}
