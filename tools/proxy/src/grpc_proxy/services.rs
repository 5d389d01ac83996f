//! Which part of the proxy serves which RPC. Those that no part has to know go to a member as they are.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use basalt_proto::etcdserverpb::{LeaseRevokeRequest, LeaseTimeToLiveResponse};
use basalt_proto::rpc::{self, Rpc, Streaming as Stream_, Unary};
use bytes::Bytes;
use hyper::Request as HttpRequest;
use hyper::Response as HttpResponse;
use hyper::body::Incoming;
use hyper::header::CONTENT_TYPE;
use tonic::body::Body;
use tonic::codec::CompressionEncoding;
use tonic::codegen::tokio_stream::{self, Stream};
use tonic::server::{Grpc, ServerStreamingService, StreamingService, UnaryService};
use tonic::{Code, Request, Response, Status, Streaming};

use super::caller::Caller;
use super::cluster::Cluster;
use super::codec::{Raw, decode, encode, in_gos_words};
use super::concurrency;
use super::kv::Kv;
use super::lease::KeepAlives;
use super::metrics::Metrics;
use super::namespace::Namespace;
use super::pages::Pages;
use super::upstream::{Upstream, of_stream};
use super::watch::Watches;
use crate::info;
use crate::limits::REQUEST_BYTES_MAX;

/// All parts.
pub(super) struct Services {
    pub(super) upstream: Arc<Upstream>,
    pub(super) namespace: Namespace,
    pub(super) metrics: Arc<Metrics>,
    pub(super) kv: Arc<Kv>,
    pub(super) watches: Watches,
    pub(super) keep_alives: KeepAlives,
    pub(super) cluster: Arc<Cluster>,
    pub(super) pages: Pages,
    pub(super) log_calls: bool,
}

type Answers = Pin<Box<dyn Stream<Item = Result<Bytes, Status>> + Send>>;
type Answering<T> = Pin<Box<dyn Future<Output = Result<Response<T>, Status>> + Send>>;

impl Services {
    /// Answers one request, of gRPC or for a page.
    pub(super) async fn answer(
        self: Arc<Self>,
        peer: Arc<str>,
        request: HttpRequest<Incoming>,
    ) -> HttpResponse<Body> {
        let kind = request.headers().get(CONTENT_TYPE).map(|it| it.as_bytes());
        if !kind.is_some_and(|it| it.starts_with(b"application/grpc")) {
            return self.pages.answer(&request).await;
        }
        let path = request.uri().path();
        let Some(rpc) = Rpc::find(path).filter(|it| is_served(*it)) else {
            return unknown(path).into_http();
        };
        let call = Call { services: self, rpc, peer };
        let mut grpc = Grpc::new(Raw)
            .max_decoding_message_size(REQUEST_BYTES_MAX)
            .max_encoding_message_size(usize::MAX)
            .accept_compressed(CompressionEncoding::Gzip);
        call.began();
        let response = match rpc {
            Rpc::Unary(_) => grpc.unary(call, request).await,
            Rpc::Streaming(Stream_::Watch | Stream_::LeaseKeepAlive) => {
                grpc.streaming(call, request).await
            }
            Rpc::Streaming(_) => grpc.server_streaming(call, request).await,
        };
        reworded(response)
    }

    async fn unary(&self, rpc: Rpc, caller: &Caller, message: Bytes) -> Result<Bytes, Status> {
        let Rpc::Unary(unary) = rpc else { return Err(Status::internal("not a unary call")) };
        match unary {
            Unary::KVRange => self.kv.range(caller, message).await,
            Unary::KVPut => self.kv.put(caller, message).await,
            Unary::KVDeleteRange => self.kv.delete(caller, message).await,
            Unary::KVTxn => self.kv.txn(caller, message).await,
            Unary::KVCompact => self.kv.compact(caller, message).await,
            Unary::LeaseRevoke => self.revoke(caller, message).await,
            Unary::LeaseTimeToLive => self.time_to_live(caller, message).await,
            Unary::ClusterMemberList => match self.cluster.members() {
                Some(members) => Ok(members),
                None => self.pass_on(rpc, caller, message).await,
            },
            // The permissions of users may have changed.
            Unary::AuthDisable
            | Unary::AuthEnable
            | Unary::AuthRoleAdd
            | Unary::AuthRoleDelete
            | Unary::AuthRoleGrantPermission
            | Unary::AuthRoleRevokePermission
            | Unary::AuthUserAdd
            | Unary::AuthUserChangePassword
            | Unary::AuthUserDelete
            | Unary::AuthUserGrantRole
            | Unary::AuthUserRevokeRole => {
                let answer = self.pass_on(rpc, caller, message).await;
                self.kv.forget();
                answer
            }
            Unary::AuthRoleGet
            | Unary::AuthRoleList
            | Unary::AuthStatus
            | Unary::AuthUserGet
            | Unary::AuthUserList
            | Unary::Authenticate
            | Unary::ClusterMemberAdd
            | Unary::ClusterMemberPromote
            | Unary::ClusterMemberRemove
            | Unary::ClusterMemberUpdate
            | Unary::ElectionCampaign
            | Unary::ElectionLeader
            | Unary::ElectionProclaim
            | Unary::ElectionResign
            | Unary::LeaseGrant
            | Unary::LeaseLeases
            | Unary::Lock
            | Unary::LockUnlock
            | Unary::MaintenanceAlarm
            | Unary::MaintenanceDefragment
            | Unary::MaintenanceDowngrade
            | Unary::MaintenanceHash
            | Unary::MaintenanceHashKV
            | Unary::MaintenanceMoveLeader
            | Unary::MaintenanceStatus => self.pass_on(rpc, caller, message).await,
            // As by etcd's proxy.
            Unary::HealthCheck | Unary::HealthList => Err(unknown(rpc.method().path)),
        }
    }

    async fn revoke(&self, caller: &Caller, message: Bytes) -> Result<Bytes, Status> {
        let request: LeaseRevokeRequest = decode(message.clone())?;
        let answer = self.pass_on(Rpc::Unary(Unary::LeaseRevoke), caller, message).await;
        self.keep_alives.forget(request.id);
        // Its keys are gone, whichever they were.
        self.kv.forget();
        answer
    }

    async fn time_to_live(&self, caller: &Caller, message: Bytes) -> Result<Bytes, Status> {
        let answer = self.pass_on(Rpc::Unary(Unary::LeaseTimeToLive), caller, message).await?;
        if self.namespace.is_empty() {
            return Ok(answer);
        }
        let mut response: LeaseTimeToLiveResponse = decode(answer)?;
        self.namespace.strip_lease(&mut response);
        Ok(encode(&response))
    }

    async fn pass_on(&self, rpc: Rpc, caller: &Caller, message: Bytes) -> Result<Bytes, Status> {
        let message = concurrency::to_member(&self.namespace, rpc, message)?;
        let answer = self.upstream.unary(rpc.method().path, caller, message).await?;
        concurrency::to_client(&self.namespace, rpc, answer)
    }

    async fn server_stream(
        &self,
        rpc: Rpc,
        caller: &Caller,
        message: Bytes,
    ) -> Result<Answers, Status> {
        if rpc == Rpc::Streaming(Stream_::KVRangeStream) {
            return Err(Status::unimplemented("RangeStream is not supported by the gRPC proxy"));
        }
        let message = concurrency::to_member(&self.namespace, rpc, message)?;
        let requests = tokio_stream::once(message);
        let answers = self.upstream.stream(rpc.method().path, caller, requests).await?;
        Ok(Box::pin(PassedOn { answers, namespace: self.namespace.clone(), rpc }))
    }
}

/// Responses of a member's stream.
struct PassedOn {
    answers: Streaming<Bytes>,
    namespace: Namespace,
    rpc: Rpc,
}

impl Stream for PassedOn {
    type Item = Result<Bytes, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let next = Pin::new(&mut self.answers).poll_next(context);
        next.map(|it| {
            it.map(|it| match it {
                Ok(message) => concurrency::to_client(&self.namespace, self.rpc, message),
                Err(status) => Err(of_stream(status)),
            })
        })
    }
}

/// A call of an RPC.
#[derive(Clone)]
struct Call {
    services: Arc<Services>,
    rpc: Rpc,
    peer: Arc<str>,
}

impl Call {
    fn began(&self) {
        self.services.metrics.began(self.rpc.method());
    }

    fn ended(&self, code: Code) {
        self.services.metrics.ended(self.rpc.method(), code);
        if self.services.log_calls {
            let method = self.rpc.method();
            info("proxy/services.rs", "finished call")
                .text("grpc.service", method.service)
                .text("grpc.method", method.name)
                .text("peer.address", &self.peer)
                .text("grpc.code", code.description())
                .write();
        }
    }
}

impl UnaryService<Bytes> for Call {
    type Response = Bytes;
    type Future = Answering<Bytes>;

    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        let call = self.clone();
        Box::pin(async move {
            let caller = Caller::of(request.metadata());
            let answer =
                Box::pin(call.services.unary(call.rpc, &caller, request.into_inner())).await;
            call.ended(answer.as_ref().map_or_else(Status::code, |_| Code::Ok));
            answer.map(Response::new)
        })
    }
}

impl ServerStreamingService<Bytes> for Call {
    type Response = Bytes;
    type ResponseStream = CountedResponses;
    type Future = Answering<CountedResponses>;

    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        let call = self.clone();
        Box::pin(async move {
            let caller = Caller::of(request.metadata());
            match call.services.server_stream(call.rpc, &caller, request.into_inner()).await {
                Ok(answers) => {
                    Ok(Response::new(CountedResponses { answers, call, code: Code::Cancelled }))
                }
                Err(status) => {
                    call.ended(status.code());
                    Err(status)
                }
            }
        })
    }
}

impl StreamingService<Bytes> for Call {
    type Response = Bytes;
    type ResponseStream = CountedResponses;
    type Future = Answering<CountedResponses>;

    fn call(&mut self, request: Request<Streaming<Bytes>>) -> Self::Future {
        let call = self.clone();
        Box::pin(async move {
            let caller = Caller::of(request.metadata());
            let requests = request.into_inner();
            let answers: Answers = match call.rpc {
                Rpc::Streaming(Stream_::Watch) => {
                    Box::pin(call.services.watches.serve(caller, requests))
                }
                Rpc::Streaming(_) | Rpc::Unary(_) => {
                    Box::pin(call.services.keep_alives.serve(caller, requests))
                }
            };
            Ok(Response::new(CountedResponses { answers, call, code: Code::Cancelled }))
        })
    }
}

/// Responses, whose end is counted: it is canceled if the client ends it.
struct CountedResponses {
    answers: Answers,
    call: Call,
    code: Code,
}

impl Stream for CountedResponses {
    type Item = Result<Bytes, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let next = self.answers.as_mut().poll_next(context);
        match &next {
            Poll::Ready(None) => self.code = Code::Ok,
            Poll::Ready(Some(Err(status))) => self.code = status.code(),
            Poll::Ready(Some(Ok(_))) | Poll::Pending => {}
        }
        next
    }
}

impl Drop for CountedResponses {
    fn drop(&mut self) {
        self.call.ended(self.code);
    }
}

/// The services that etcd's proxy registers.
fn is_served(rpc: Rpc) -> bool {
    !matches!(rpc.method().service, "grpc.health.v1.Health" | "grpc.reflection.v1.ServerReflection")
}

/// In grpc-go's words.
fn unknown(path: &str) -> Status {
    let (service, method) = path.trim_start_matches('/').rsplit_once('/').unwrap_or(("", path));
    Status::unimplemented(match rpc::is_service(service) && !service.starts_with("grpc.") {
        true => format!("unknown method {method} for service {service}"),
        false => format!("unknown service {service}"),
    })
}

/// tonic's own refusals in grpc-go's words.
fn reworded(response: HttpResponse<Body>) -> HttpResponse<Body> {
    let Some(status) = Status::from_header_map(response.headers()) else { return response };
    let code = status.code();
    let reworded = in_gos_words(status);
    match reworded.code() == code {
        true => response,
        false => reworded.into_http(),
    }
}
