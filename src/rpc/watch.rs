//! `etcdserverpb.Watch`: requests of the client are passed to the hub of this executor, its responses to the client.
//!
//! One stream does both: it reads requests when it is polled for responses, so that requests of a client that does not
//! read are not read either, and when HTTP/2 drops it the hub removes its watches.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use basalt_proto::encoded::WatchResponse;
use basalt_proto::etcdserverpb::watch_request::RequestUnion;
use basalt_proto::etcdserverpb::{WatchCreateRequest, WatchRequest};
use basalt_proto::rpc::{Rpc, Streaming};
use basalt_proto::server::etcdserverpb::watch_server;
use futures_lite::Stream;
use prost::Message as _;
use tonic::{Code, Request, Response, Status, async_trait};

use super::credentials::Credentials;
use super::policy::Observer;
use super::{status, wants_leader};
use crate::actors::ReplicaClient;
use crate::actors::watch::{Session, Sessions};
use crate::auth::{Action, Permissions, Principal};
use crate::types::Refusal;

/// Requests read in a row before the task yields.
const REQUESTS_MAX: usize = 64;
/// Responses in a row before requests are read: a client may want to cancel a watch with too many events.
const RESPONSES_MAX: usize = 32;
/// Queued responses above which no more requests are read.
const WAITING_MAX: usize = 1024;

/// The service, for the sessions of one executor.
#[derive(Clone)]
pub(super) struct Watch {
    sessions: Sessions,
    /// Knows who may watch what; none where everybody may.
    replica: Option<ReplicaClient>,
}

impl Watch {
    /// With the permissions of this member.
    pub(super) fn new(replica: &ReplicaClient) -> Self {
        Self { sessions: replica.watches().clone(), replica: Some(replica.clone()) }
    }
}

#[async_trait]
impl watch_server::Watch for Watch {
    type WatchStream = Responses<tonic::Streaming<WatchRequest>>;

    async fn watch(
        &self,
        request: Request<tonic::Streaming<WatchRequest>>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let requires_leader = wants_leader(request.metadata().get("hasleader").map(AsRef::as_ref));
        let session = self.sessions.open(requires_leader).map_err(status)?;
        let observer = request.extensions().get::<Observer>().cloned();
        let credentials = Credentials::of(&request);
        let guard = self.replica.clone().map(|replica| Guard { replica, credentials, observer });
        let may_stall = session.may_stall();
        let mut response = Response::new(Responses::new(session, request.into_inner(), guard));
        response.extensions_mut().insert(may_stall);
        Ok(response)
    }
}

/// A watch to create, and whether it may be.
type Checked = Pin<Box<dyn Future<Output = (WatchRequest, Result<(), Refusal>)> + Send>>;

/// The identity that opened a stream, which is checked for each watch. A created watch continues, even without its user.
#[derive(Clone)]
pub(super) struct Guard {
    replica: ReplicaClient,
    credentials: Credentials,
    observer: Option<Observer>,
}

impl Guard {
    /// Writes down that a watch was asked for, if anybody reads it.
    fn note(&self, request: &WatchRequest, outcome: Result<(), Refusal>) {
        let (Some(observer), Some(RequestUnion::CreateRequest(_))) =
            (&self.observer, &request.request_union)
        else {
            return;
        };
        let message = request.encode_to_vec();
        let asked = (Rpc::Streaming(Streaming::Watch), &message[..]);
        let code = outcome.err().map_or(0, |refusal| refusal.code() as i32);
        observer.note(&self.credentials, asked, code);
    }

    /// True if a request must be checked. One with a negative revision is refused for that.
    fn is_needed(&self, request: &WatchRequest) -> bool {
        let Some(RequestUnion::CreateRequest(create)) = &request.request_union else {
            return false;
        };
        let is_checked = |it: &Permissions| it.is_enabled() || it.is_held_back();
        create.start_revision >= 0 && self.replica.with_permissions(is_checked)
    }

    fn check(self, request: WatchRequest) -> Checked {
        Box::pin(async move {
            let outcome = match &request.request_union {
                Some(RequestUnion::CreateRequest(create)) => self.may_create(create).await,
                Some(RequestUnion::CancelRequest(_) | RequestUnion::ProgressRequest(_)) | None => {
                    Ok(())
                }
            };
            (request, outcome)
        })
    }

    async fn may_create(&self, create: &WatchCreateRequest) -> Result<(), Refusal> {
        may_watch(&self.credentials, &self.replica, &create.key, &create.range_end).await
    }
}

/// Checks that these keys may be watched. An empty key stands for the first one.
///
/// # Errors
/// They may not.
pub(super) async fn may_watch(
    credentials: &Credentials,
    replica: &ReplicaClient,
    key: &[u8],
    range_end: &[u8],
) -> Result<(), Refusal> {
    let key = if key.is_empty() { b"\0" } else { key };
    let check = |permissions: &Permissions, who: Option<Principal<'_>>| {
        permissions.check_range(who, Action::Read, key, range_end)
    };
    credentials.require(replica, check).await.map(drop)
}

/// The cancel reason of a watch that is not created. etcd distinguishes few reasons.
fn reason(refusal: Refusal) -> String {
    let is_told = [Refusal::InvalidAuthToken, Refusal::AuthOldRevision, Refusal::UserEmpty];
    let refusal = if is_told.contains(&refusal) { refusal } else { Refusal::PermissionDenied };
    let code = Code::from_i32(refusal.code() as i32);
    format!("rpc error: code = {code:?} desc = {refusal}")
}

/// The responses to a client. Ends when the member stops or loses its leader, not when the client ends its requests:
/// etcd's gateway, for one, sends its requests and closes its side.
pub(super) struct Responses<S> {
    session: Option<Session>,
    requests: Option<S>,
    guard: Option<Guard>,
    /// A watch whose creation is being checked. No more requests are read meanwhile: they keep their order.
    checked: Option<Checked>,
    /// Responses since requests were last read.
    responses: usize,
}

impl<S> Responses<S> {
    /// The responses to these requests.
    fn new(session: Session, requests: S, guard: Option<Guard>) -> Self {
        let (session, requests) = (Some(session), Some(requests));
        Self { session, requests, guard, checked: None, responses: 0 }
    }

    fn take(&mut self, context: &Context<'_>) -> Poll<Option<Result<WatchResponse, Status>>> {
        let Some(session) = &self.session else { return Poll::Ready(None) };
        match session.poll_next(context) {
            Poll::Ready(Ok(response)) => {
                self.responses += 1;
                Poll::Ready(Some(Ok(response)))
            }
            Poll::Ready(Err(refusal)) => self.end(status(refusal)),
            Poll::Pending => Poll::Pending,
        }
    }

    fn end(&mut self, status: Status) -> Poll<Option<Result<WatchResponse, Status>>> {
        self.session = None;
        self.requests = None;
        Poll::Ready(Some(Err(status)))
    }
}

impl<S: Stream<Item = Result<WatchRequest, Status>> + Unpin> Responses<S> {
    /// Reads requests: ready when more may be read at once.
    fn poll_requests(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Status>> {
        self.responses = 0;
        let (Some(session), Some(requests)) = (&self.session, &mut self.requests) else {
            return Poll::Pending;
        };
        for _ in 0..REQUESTS_MAX {
            if session.waiting() > WAITING_MAX {
                break;
            }
            if let Some(checked) = &mut self.checked {
                let (request, outcome) = ready!(checked.as_mut().poll(context));
                self.checked = None;
                if let Some(guard) = &self.guard {
                    guard.note(&request, outcome);
                }
                match outcome {
                    Ok(()) => session.request(request),
                    Err(refusal) => session.refuse(reason(refusal)),
                }
                continue;
            }
            match Pin::new(&mut *requests).poll_next(context) {
                Poll::Ready(Some(Ok(request))) => match self.guard.as_ref() {
                    Some(guard) if guard.is_needed(&request) => {
                        self.checked = Some(guard.clone().check(request));
                    }
                    Some(guard) => {
                        guard.note(&request, Ok(()));
                        session.request(request);
                    }
                    None => session.request(request),
                },
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(error)),
                Poll::Ready(None) => {
                    self.requests = None;
                    return Poll::Pending;
                }
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: Stream<Item = Result<WatchRequest, Status>> + Unpin> Stream for Responses<S> {
    type Item = Result<WatchResponse, Status>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        let mut is_full = false;
        if this.responses < RESPONSES_MAX {
            if let Poll::Ready(taken) = this.take(context) {
                return Poll::Ready(taken);
            }
            // Those that wait all the same wait for HTTP/2, which is given the ones taken before when this is pending.
            is_full = this.session.as_ref().is_some_and(|session| session.waiting() > 0);
        }
        let heard = this.poll_requests(context);
        if let Poll::Ready(Err(error)) = heard {
            let canceled = error.code() == Code::Cancelled;
            return this.end(if canceled { status(Refusal::WatchCanceled) } else { error });
        }
        if !is_full && let Poll::Ready(taken) = this.take(context) {
            return Poll::Ready(taken);
        }
        if heard.is_ready() {
            // These requests have no response: continue after other tasks.
            context.waker().wake_by_ref();
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests;
