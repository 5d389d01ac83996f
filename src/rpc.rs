//! One file per etcd service: it decodes a request, calls the [`ReplicaClient`], and encodes the response. A request
//! that is invalid by itself is refused here; every other decision is the replica's. Streams are served by tonic, unary
//! calls by `unary`.

mod auth;
mod body;
mod budget;
mod call;
mod cluster;
mod concurrency;
mod credentials;
mod deadline;
pub mod door;
mod election;
mod encode;
mod go_errors;
mod health;
mod incomplete;
mod kv;
mod lease;
mod lock;
mod login;
mod maintenance;
mod policy;
mod range;
mod reflection;
mod table;
pub mod timeout;
mod unary;
mod watch;

use std::convert::Infallible;
use std::future::{Future, ready};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use basalt_proto::etcdserverpb::alarm_request::AlarmAction;
use basalt_proto::etcdserverpb::{AlarmRequest, AlarmType, ResponseHeader};
use basalt_proto::rpc::{Kind, Rpc, Streaming, Unary, is_service};
use bytes::Bytes;
use futures_lite::future::or;
use futures_lite::stream::unfold;
use futures_lite::{Stream, StreamExt as _};
use hyper::header::{HeaderMap, HeaderName};
use hyper::http::request::Parts;
use tonic::metadata::MetadataMap;
use tonic::{Code, Status};

use self::body::ResponseBody;
use self::call::{Call, MeteredRequest};
use self::credentials::TOKEN_HEADERS;
use self::deadline::{Deadline, in_time};
use self::incomplete::IncompleteRequests;
use self::login::ClientAddress;
use self::policy::{Observed, PolicyClient};
use crate::actors::ReplicaClient;
use crate::command::Command;
use crate::io::{PeerCertificate, clock, fatal};
use crate::metrics;
use crate::types::limits::GRPC_OVERHEAD_BYTES;
use crate::types::{Error, Refusal};

pub use self::budget::set_response_bytes_max;
pub use self::call::{MeteredResponse, Source};
pub use self::cluster::promote_by_http;
pub use self::credentials::FROM_GATEWAY;
pub use self::incomplete::IncompleteBytes;
pub use self::policy::{Audit, Policy};
pub use self::table::{Access, Admission, Rule, rule};

/// Headers of a request: the API version of the client, and its wish that a member without a leader refuses.
const API_VERSION: HeaderName = HeaderName::from_static("client-api-version");
const HAS_LEADER: HeaderName = HeaderName::from_static("hasleader");

/// All services of one executor. Cheap to clone.
#[derive(Clone)]
pub struct Services(Rc<Inner>);

struct Inner {
    replica: ReplicaClient,
    policy: Rc<PolicyClient>,
    receive_max: usize,
    incomplete: Arc<IncompleteRequests>,
    slow: Duration,
    kv: Arc<kv::Kv>,
    watch: Arc<watch::Watch>,
    lease: Arc<lease::Lease>,
    cluster: cluster::Cluster,
    maintenance: Arc<maintenance::Maintenance>,
    auth: auth::Auth,
    lock: lock::Lock,
    election: Arc<election::Election>,
    health: Arc<health::Health>,
    reflection: Arc<reflection::Reflection>,
}

/// The future of a response; the shape is hyper's.
type Answer = Pin<Box<dyn Future<Output = Result<hyper::Response<MeteredResponse>, Infallible>>>>;

impl Services {
    /// All services, as clients of this replica.
    pub fn new(replica: &ReplicaClient, slow: Duration, policy: &Arc<Policy>) -> Self {
        Self(Rc::new(Inner {
            policy: PolicyClient::new(policy, replica),
            receive_max: replica.node().max_request_bytes + GRPC_OVERHEAD_BYTES,
            incomplete: Arc::new(IncompleteRequests::new(
                replica.node().budgets.requests_incomplete,
            )),
            slow,
            kv: Arc::new(kv::Kv(replica.clone())),
            watch: Arc::new(watch::Watch::new(replica)),
            lease: Arc::new(lease::Lease(replica.clone())),
            cluster: cluster::Cluster(replica.clone()),
            maintenance: Arc::new(maintenance::Maintenance(replica.clone())),
            auth: auth::Auth(replica.clone()),
            lock: lock::Lock(replica.clone()),
            election: Arc::new(election::Election(replica.clone())),
            health: Arc::new(health::Health),
            reflection: Arc::new(reflection::Reflection),
            replica: replica.clone(),
        }))
    }

    /// Upper bound of the bytes of a client's message.
    pub fn receive_max(&self) -> usize {
        self.0.receive_max
    }

    /// Counts the bytes of one request of this executor that is not complete yet.
    pub fn incomplete(&self) -> IncompleteBytes {
        IncompleteBytes::new(&self.0.incomplete)
    }

    /// Handles one gRPC request of a client at `peer`.
    pub fn call(&self, request: hyper::Request<Source>, peer: &Arc<str>) -> Answer {
        let Some(rpc) = Rpc::find(request.uri().path()) else {
            let refused = MeteredResponse::refusal(unknown(request.uri().path()));
            return Box::pin(ready(Ok(refused)));
        };
        if rule(rpc).admission == Admission::Voters && is_learner(&self.0.replica) {
            let (services, peer) = (self.clone(), Arc::clone(peer));
            return Box::pin(async move {
                catch_up_promotion(&services.0.replica).await;
                services.serve(rpc, request, &peer).await
            });
        }
        self.serve(rpc, request, peer)
    }

    fn serve(&self, rpc: Rpc, request: hyper::Request<Source>, peer: &Arc<str>) -> Answer {
        let mut deadline = match Deadline::of(request.headers()) {
            Ok(deadline) => deadline,
            Err((code, status)) => {
                let mut refused = MeteredResponse::refusal(status);
                *refused.status_mut() = code;
                return Box::pin(ready(Ok(refused)));
            }
        };
        let (inner, receive_max) = (Rc::clone(&self.0), self.0.receive_max);
        let call = Call::begin(rpc, rule(rpc).timed, Arc::clone(peer), inner.slow);
        if let Err(refusal) = inner.admit(rpc, request.headers()) {
            let refused = status(refusal).into_http().map(ResponseBody::Stream);
            return Box::pin(ready(Ok(call.answered(refused, receive_max))));
        }
        let request = request.map(|body| MeteredRequest::new(body, rpc, self.incomplete()));
        let (head, mut body) = request.into_parts();
        let mut observed = inner.policy.observe(rpc, &head, peer);
        let rpc = match rpc {
            Rpc::Unary(rpc) => rpc,
            Rpc::Streaming(rpc) => {
                let mut request = hyper::Request::from_parts(head, body);
                if rpc == Streaming::Watch
                    && let Some(observer) = inner.policy.observer(peer)
                {
                    request.extensions_mut().insert(observer);
                }
                return Box::pin(async move {
                    let answer = {
                        let answer = pin!(inner.answer_stream(rpc, request, &mut observed));
                        in_time(answer, &mut deadline).await
                    };
                    let call = call.observed(observed);
                    Ok(call.answered(answer, receive_max).map(|body| body.until(deadline)))
                });
            }
        };
        let address = (rpc == Unary::Authenticate).then(|| ClientAddress(Arc::clone(peer)));
        let head = CallHead::of(&head, address);
        // Values moved into a future within this one would be stored twice.
        Box::pin(async move {
            let answer = {
                let answer = pin!(unary::answer(&inner, rpc, head, &mut body, &mut observed));
                in_time(answer, &mut deadline).await
            };
            if let Some(mut observed) = observed {
                // It is over already, unless there was not time enough.
                observed.finish(Code::DeadlineExceeded as i32).await;
            }
            Ok(call.answered(answer, receive_max).map(|body| body.until(deadline)))
        })
    }
}

/// The parts of the head of a request that services read. Clients with many requests under way send the
/// headers of all before the first body, and thousands of requests that wait with all of them do not fit into a
/// processor's cache.
#[derive(Debug, Default)]
struct CallHead {
    headers: HeaderMap,
    certificate: Option<Arc<PeerCertificate>>,
    /// Of a login.
    address: Option<ClientAddress>,
}

impl CallHead {
    /// Seldom anything.
    fn of(head: &Parts, address: Option<ClientAddress>) -> Option<Box<Self>> {
        // Three look-ups would cost more than one pass.
        let is_kept = |name: &HeaderName| *name == unary::ENCODING || TOKEN_HEADERS.contains(name);
        let kept = head.headers.iter().filter(|(name, _)| is_kept(name));
        let headers: HeaderMap = kept.map(|(name, value)| (name.clone(), value.clone())).collect();
        let certificate = credentials::certificate(&head.headers, &head.extensions);
        let is_empty = headers.is_empty() && certificate.is_none() && address.is_none();
        (!is_empty).then(|| Box::new(Self { headers, certificate, address }))
    }
}

impl Inner {
    /// Answers a call with a stream. Its message is read first where somebody asks for what it is about; a client that sends a
    /// stream, too, says that in many messages.
    async fn answer_stream(
        &self,
        rpc: Streaming,
        request: hyper::Request<MeteredRequest>,
        observed: &mut Option<Box<Observed>>,
    ) -> hyper::Response<ResponseBody> {
        let is_single = Rpc::Streaming(rpc).method().kind == Kind::ServerStream;
        let admitted = async {
            let Some(observed) = observed else { return Ok(request) };
            let (request, message) = match is_single {
                true => unary::read_ahead(self, request).await?,
                false => (request, Bytes::new()),
            };
            observed.admit(&message).map_err(status)?;
            Ok(request)
        };
        let request = match admitted.await {
            Ok(request) => request,
            Err(refusal) => return Status::into_http(refusal).map(ResponseBody::Stream),
        };
        self.streaming(rpc, request).await.map(ResponseBody::Stream)
    }

    /// The checks before any service, in etcd's order: learners, the client's version, its requirement of a leader.
    fn admit(&self, rpc: Rpc, headers: &HeaderMap) -> Result<(), Refusal> {
        match rule(rpc).admission {
            Admission::Unchecked => return Ok(()),
            Admission::Everyone => (),
            Admission::Voters => refuse_learner(&self.replica)?,
        }
        let version = match headers.get(API_VERSION).map(|value| value.as_bytes()) {
            None => "unknown",
            Some(bytes) => {
                std::str::from_utf8(bytes).map_err(|_| Refusal::InvalidClientAPIVersion)?
            }
        };
        let kind = match rpc {
            Rpc::Unary(_) => "unary",
            Rpc::Streaming(_) => "stream",
        };
        metrics::client_request(kind, version);
        let header = headers.get(HAS_LEADER).map(|value| value.as_bytes());
        if wants_leader(header) && self.replica.status().leader == 0 {
            return Err(Refusal::NoLeader);
        }
        Ok(())
    }
}

/// True if this member has no vote.
pub fn is_learner(replica: &ReplicaClient) -> bool {
    let (id, state) = (replica.node().member_id, replica.state());
    !state.sole_voter && state.members.iter().any(|member| member.id == id && member.is_learner)
}

/// Waits until this learner has applied all writes acknowledged before: a promotion that was answered must be in force
/// here before the next request is refused for the lack of a vote. Gives up after an election timeout.
async fn catch_up_promotion(replica: &ReplicaClient) {
    let patience = Duration::from_millis(replica.node().election_timeout_ms);
    clock::deadline(patience, replica.read_index()).await;
}

/// Refuses a request that a learner does not serve.
fn refuse_learner(replica: &ReplicaClient) -> Result<(), Refusal> {
    if is_learner(replica) { Err(Refusal::NotSupportedForLearner) } else { Ok(()) }
}

/// grpc-go's status for a path that is not served.
fn unknown(path: &str) -> Status {
    let Some((service, method)) = path.strip_prefix('/').and_then(|path| path.rsplit_once('/'))
    else {
        return Status::unimplemented(format!("malformed method name: \"{path}\""));
    };
    match is_service(service) {
        true => Status::unimplemented(format!("unknown method {method} for service {service}")),
        false => Status::unimplemented(format!("unknown service {service}")),
    }
}

/// A stream of responses.
type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Ends the stream if the client requires a leader and there has been none for too long.
fn require_leader<T: Send + 'static>(
    replica: &ReplicaClient,
    metadata: &MetadataMap,
    answers: impl Stream<Item = Result<T, Status>> + Send + 'static,
) -> Answers<T> {
    let answers: Answers<T> = Box::pin(answers);
    if !wants_leader(metadata.get("hasleader").map(AsRef::as_ref)) {
        return answers;
    }
    let beginning = Some((answers, replica.clone()));
    Box::pin(unfold(beginning, |state| async {
        let (mut answers, replica) = state?;
        let leaderless = async {
            replica.leaderless().await;
            Err(status(Refusal::NoLeader))
        };
        match or(async { Ok(answers.next().await) }, leaderless).await {
            Ok(answer) => Some((answer?, Some((answers, replica)))),
            Err(refused) => Some((Err(refused), None)),
        }
    }))
}

/// True if a client accepts responses only from a member that knows a leader.
fn wants_leader(header: Option<&[u8]>) -> bool {
    header == Some(b"true")
}

/// The gRPC status of a refusal.
fn status(refusal: Refusal) -> Status {
    Status::new(Code::from_i32(refusal.code() as i32), refusal.text())
}

/// A refusal becomes the client's status; a fault stops this member.
fn refused(error: Error) -> Status {
    match error {
        Error::Refused(refusal) => status(refusal),
        Error::Faulty(fault) => fatal(&fault),
    }
}

/// Completes a response's header: ids of cluster and member, term, and the newest revision if there is none yet.
fn complete(replica: &ReplicaClient, header: &mut Option<ResponseHeader>) {
    let header = header.get_or_insert_default();
    header.cluster_id = replica.node().cluster_id;
    header.member_id = replica.node().member_id;
    header.raft_term = replica.status().term;
    if header.revision == 0 {
        header.revision = replica.state().read.revision;
    }
}

/// A complete header with the newest revision.
fn header(replica: &ReplicaClient) -> Option<ResponseHeader> {
    let mut header = None;
    complete(replica, &mut header);
    header
}

/// The status of a service that is not implemented yet.
fn not_yet(what: &str) -> Status {
    Status::unimplemented(format!("basalt does not serve {what} yet"))
}

/// The status of a reply of another kind than the request's: the log was applied by other rules.
fn mismatch() -> Status {
    Status::internal("the reply is of another kind than the request")
}

/// Refuses a request that would exceed the store's quota, and raises the alarm.
async fn check_quota(replica: &ReplicaClient, cost: u64) -> Result<(), Status> {
    // No alarm is raised in the log: this state ends as soon as there is space.
    if cost > 0 && replica.lacks_room(cost) {
        return Err(status(Refusal::NoSpace));
    }
    let (node, state) = (replica.node(), replica.state());
    if cost == 0 || node.quota_bytes == 0 || state.read.usage.logical + cost < node.quota_bytes {
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
        // Refused even if the alarm cannot be raised.
        drop(replica.propose(Command::Alarm(alarm)).await);
    }
    Err(status(Refusal::NoSpace))
}
