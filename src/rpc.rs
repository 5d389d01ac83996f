//! One file per etcd service: message in, handle call, message out. What can be refused by looking at the
//! request alone is refused here; everything else is asked of the [`Desk`].

mod auth;
mod budget;
mod call;
mod cluster;
mod concurrency;
mod deadline;
mod election;
mod health;
mod kv;
mod lease;
mod lock;
mod maintenance;
mod range;
mod reflection;
mod watch;

use std::convert::Infallible;
use std::future::{Future, ready};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use basalt_proto::etcdserverpb::alarm_request::AlarmAction;
use basalt_proto::etcdserverpb::{AlarmRequest, AlarmType, InternalRaftRequest, ResponseHeader};
use basalt_proto::server::etcdserverpb::auth_server::AuthServer;
use basalt_proto::server::etcdserverpb::cluster_server::ClusterServer;
use basalt_proto::server::etcdserverpb::kv_server::KvServer;
use basalt_proto::server::etcdserverpb::lease_server::LeaseServer;
use basalt_proto::server::etcdserverpb::maintenance_server::MaintenanceServer;
use basalt_proto::server::etcdserverpb::watch_server::WatchServer;
use basalt_proto::server::health::health_server::HealthServer;
use basalt_proto::server::reflection::server_reflection_server::ServerReflectionServer;
use basalt_proto::server::v3electionpb::election_server::ElectionServer;
use basalt_proto::server::v3lockpb::lock_server::LockServer;
use futures_lite::future::or;
use futures_lite::stream::unfold;
use futures_lite::{Stream, StreamExt as _};
use hyper::header::HeaderMap;
use tonic::body::Body;
use tonic::metadata::MetadataMap;
use tonic::{Code, Status};
use tower_service::Service as _;

use self::call::{Call, Received};
use self::deadline::{Deadline, in_time, late};
use crate::actors::Desk;
use crate::io::fatal;
use crate::metrics::{self, Kind, Method};
use crate::types::limits::GRPC_OVERHEAD_BYTES;
use crate::types::{Error, Refusal};

pub use self::call::{Outgoing, Source};

/// All services of one executor. Cheap to clone.
#[derive(Clone)]
pub struct Services {
    desk: Desk,
    receive_max: usize,
    slow: Duration,
    kv: KvServer<kv::Kv>,
    watch: WatchServer<watch::Watch>,
    lease: LeaseServer<lease::Lease>,
    cluster: ClusterServer<cluster::Cluster>,
    maintenance: MaintenanceServer<maintenance::Maintenance>,
    auth: AuthServer<auth::Auth>,
    lock: LockServer<lock::Lock>,
    election: ElectionServer<election::Election>,
    health: HealthServer<health::Health>,
    reflection: ServerReflectionServer<reflection::Reflection>,
}

/// What comes of a request; the shape is hyper's.
type Answer = Pin<Box<dyn Future<Output = Result<hyper::Response<Outgoing>, Infallible>>>>;

impl Services {
    /// All services, asking this desk.
    pub fn new(desk: &Desk, slow: Duration) -> Self {
        let receive_max = desk.node().max_request_bytes + GRPC_OVERHEAD_BYTES;
        macro_rules! sized {
            ($server:ident, $service:expr) => {
                $server::new($service)
                    .max_decoding_message_size(receive_max)
                    .max_encoding_message_size(i32::MAX as usize)
            };
        }
        Self {
            receive_max,
            slow,
            kv: sized!(KvServer, kv::Kv(desk.clone())),
            watch: sized!(WatchServer, watch::Watch(desk.hub().clone())),
            lease: sized!(LeaseServer, lease::Lease(desk.clone())),
            cluster: sized!(ClusterServer, cluster::Cluster(desk.clone())),
            maintenance: sized!(MaintenanceServer, maintenance::Maintenance(desk.clone())),
            auth: sized!(AuthServer, auth::Auth(desk.clone())),
            lock: sized!(LockServer, lock::Lock(desk.clone())),
            election: sized!(ElectionServer, election::Election(desk.clone())),
            health: HealthServer::new(health::Health),
            reflection: ServerReflectionServer::new(reflection::Reflection),
            desk: desk.clone(),
        }
    }

    /// The most bytes that a message of a client may have.
    pub fn receive_max(&self) -> usize {
        self.receive_max
    }

    /// Answers one gRPC request of a client at `peer`.
    pub fn call(&self, request: hyper::Request<Source>, peer: &Arc<str>) -> Answer {
        let Some(method) = Method::find(request.uri().path()) else {
            let refused = unknown(request.uri().path()).into_http::<Body>().map(Outgoing::plain);
            return Box::pin(ready(Ok(refused)));
        };
        let deadline = match Deadline::of(request.headers()) {
            Ok(deadline) => deadline,
            Err((code, status)) => {
                let mut refused = status.into_http().map(Outgoing::plain);
                *refused.status_mut() = code;
                return Box::pin(ready(Ok(refused)));
            }
        };
        let (call, receive_max) =
            (Call::begin(method, Arc::clone(peer), self.slow), self.receive_max);
        if let Err(refusal) = self.admit(method, request.headers()) {
            let refused = call.answered(status(refusal).into_http(), receive_max);
            return Box::pin(ready(Ok(refused)));
        }
        let request = request.map(|body| Received::new(body, method));
        let answer = match method.service {
            "etcdserverpb.KV" => self.kv.clone().call(request),
            "etcdserverpb.Watch" => self.watch.clone().call(request),
            "etcdserverpb.Lease" => self.lease.clone().call(request),
            "etcdserverpb.Cluster" => self.cluster.clone().call(request),
            "etcdserverpb.Maintenance" => self.maintenance.clone().call(request),
            "etcdserverpb.Auth" => self.auth.clone().call(request),
            "v3lockpb.Lock" => self.lock.clone().call(request),
            "v3electionpb.Election" => self.election.clone().call(request),
            "grpc.health.v1.Health" => self.health.clone().call(request),
            _ => self.reflection.clone().call(request),
        };
        let Some(deadline) = deadline else {
            return Box::pin(async move {
                answer.await.map(|response| call.answered(response, receive_max))
            });
        };
        Box::pin(async move {
            let Some((answered, left)) = in_time(answer, deadline).await else {
                return Ok(call.answered(late().into_http(), receive_max));
            };
            answered.map(|it| call.answered(it, receive_max).map(|body| body.until(left)))
        })
    }

    /// What is looked at before any service, in etcd's order: learners, the client's version, its wish for a
    /// leader.
    fn admit(&self, method: &Method, headers: &HeaderMap) -> Result<(), Refusal> {
        if method.service.starts_with("grpc.") {
            return Ok(());
        }
        if !is_for_learners(method) {
            refuse_learner(&self.desk)?;
        }
        let version = match headers.get("client-api-version").map(|value| value.as_bytes()) {
            None => "unknown",
            Some(bytes) => {
                std::str::from_utf8(bytes).map_err(|_| Refusal::InvalidClientAPIVersion)?
            }
        };
        let kind = if method.kind == Kind::Unary { "unary" } else { "stream" };
        metrics::client_request(kind, version);
        let header = headers.get("hasleader").map(|value| value.as_bytes());
        if wants_leader(header) && self.desk.status().leader == 0 {
            return Err(Refusal::NoLeader);
        }
        Ok(())
    }
}

/// Whether this member has no vote.
pub fn is_learner(desk: &Desk) -> bool {
    let (id, state) = (desk.node().member_id, desk.state());
    !state.sole_voter && state.members.iter().any(|member| member.id == id && member.is_learner)
}

/// Refuses what a learner does not serve.
fn refuse_learner(desk: &Desk) -> Result<(), Refusal> {
    if is_learner(desk) { Err(Refusal::NotSupportedForLearner) } else { Ok(()) }
}

/// What a learner serves; of ranges only the serializable ones, which the service itself looks at.
fn is_for_learners(method: &Method) -> bool {
    matches!(
        (method.service, method.name),
        ("etcdserverpb.Maintenance", "Status" | "Snapshot") | ("etcdserverpb.KV", "Range")
    )
}

/// What grpc-go says of a path it does not serve.
fn unknown(path: &str) -> Status {
    let Some((service, method)) = path.strip_prefix('/').and_then(|path| path.rsplit_once('/'))
    else {
        return Status::unimplemented(format!("malformed method name: \"{path}\""));
    };
    match Method::is_service(service) {
        true => Status::unimplemented(format!("unknown method {method} for service {service}")),
        false => Status::unimplemented(format!("unknown service {service}")),
    }
}

/// A stream of answers.
type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Ends the answers when the client wants a leader and there has been none for too long.
fn while_led<T: Send + 'static>(
    desk: &Desk,
    metadata: &MetadataMap,
    answers: impl Stream<Item = Result<T, Status>> + Send + 'static,
) -> Answers<T> {
    let answers: Answers<T> = Box::pin(answers);
    if !wants_leader(metadata.get("hasleader").map(AsRef::as_ref)) {
        return answers;
    }
    let beginning = Some((answers, desk.clone()));
    Box::pin(unfold(beginning, |state| async {
        let (mut answers, desk) = state?;
        let leaderless = async {
            desk.leaderless().await;
            Err(status(Refusal::NoLeader))
        };
        match or(async { Ok(answers.next().await) }, leaderless).await {
            Ok(answer) => Some((answer?, Some((answers, desk)))),
            Err(refused) => Some((Err(refused), None)),
        }
    }))
}

/// Whether a client wants no answers but those of a member that knows a leader.
fn wants_leader(header: Option<&[u8]>) -> bool {
    header == Some(b"true")
}

/// A refusal as gRPC sends it.
fn status(refusal: Refusal) -> Status {
    Status::new(Code::from_i32(refusal.code() as i32), refusal.text())
}

/// A refusal goes to the client; a fault stops this member.
fn refused(error: Error) -> Status {
    match error {
        Error::Refused(refusal) => status(refusal),
        Error::Faulty(fault) => fatal(&fault),
    }
}

/// Completes a response's header: who answers, in which term, and the newest revision if there is none yet.
fn complete(desk: &Desk, header: &mut Option<ResponseHeader>) {
    let header = header.get_or_insert_default();
    header.cluster_id = desk.node().cluster_id;
    header.member_id = desk.node().member_id;
    header.raft_term = desk.status().term;
    if header.revision == 0 {
        header.revision = desk.state().read.revision;
    }
}

/// A complete header with the newest revision.
fn header(desk: &Desk) -> Option<ResponseHeader> {
    let mut header = None;
    complete(desk, &mut header);
    header
}

/// A service that a later version brings.
fn not_yet(what: &str) -> Status {
    Status::unimplemented(format!("basalt does not serve {what} yet"))
}

/// An answer of another kind than was asked for: the log was applied by other rules.
fn mismatch() -> Status {
    Status::internal("the reply is of another kind than the request")
}

/// Refuses what would take the store over its quota, and raises the alarm.
async fn check_quota(desk: &Desk, cost: u64) -> Result<(), Status> {
    let (node, state) = (desk.node(), desk.state());
    if cost == 0 || node.quota_bytes == 0 || state.disk_bytes + cost < node.quota_bytes {
        return Ok(());
    }
    let alarm = AlarmRequest {
        action: AlarmAction::Activate as i32,
        member_id: node.member_id,
        alarm: AlarmType::Nospace as i32,
    };
    let raised = state
        .alarms
        .iter()
        .any(|it| it.member_id == node.member_id && it.alarm() == AlarmType::Nospace);
    if !raised {
        let request = InternalRaftRequest { alarm: Some(alarm), ..InternalRaftRequest::default() };
        // Whether it can be raised or not, there is no room.
        drop(desk.propose(request).await);
    }
    Err(status(Refusal::NoSpace))
}
