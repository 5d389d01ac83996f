//! `etcdserverpb.Watch`: requests of the client are passed to the hub of this executor, its responses to the client.
//!
//! One stream does both: it reads requests when it is polled for responses, so that requests of a client that does not
//! read are not read either, and when HTTP/2 drops it the hub removes its watches.

use std::pin::Pin;
use std::task::{Context, Poll};

use basalt_proto::encoded::WatchResponse;
use basalt_proto::etcdserverpb::WatchRequest;
use basalt_proto::server::etcdserverpb::watch_server;
use futures_lite::Stream;
use tonic::{Code, Request, Response, Status, Streaming, async_trait};

use super::{status, wants_leader};
use crate::actors::watch::{Session, Sessions};
use crate::types::Refusal;

/// Requests read in a row before the task yields.
const REQUESTS_MAX: usize = 64;
/// Responses in a row before requests are read: a client may want to cancel a watch with too many events.
const RESPONSES_MAX: usize = 32;
/// Queued responses above which no more requests are read.
const WAITING_MAX: usize = 1024;

/// The service, for the sessions of one executor.
#[derive(Clone)]
pub(super) struct Watch(pub(super) Sessions);

#[async_trait]
impl watch_server::Watch for Watch {
    type WatchStream = Responses<Streaming<WatchRequest>>;

    async fn watch(
        &self,
        request: Request<Streaming<WatchRequest>>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let requires_leader = wants_leader(request.metadata().get("hasleader").map(AsRef::as_ref));
        let session = self.0.open(requires_leader).map_err(status)?;
        Ok(Response::new(Responses::new(session, request.into_inner())))
    }
}

/// The responses to a client. Ends when the member stops or loses its leader, not when the client ends its requests:
/// etcd's gateway, for one, sends its requests and closes its side.
pub(super) struct Responses<S> {
    session: Option<Session>,
    requests: Option<S>,
    /// Responses since requests were last read.
    responses: usize,
}

impl<S> Responses<S> {
    /// The responses to these requests.
    pub(super) fn new(session: Session, requests: S) -> Self {
        Self { session: Some(session), requests: Some(requests), responses: 0 }
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
            match Pin::new(&mut *requests).poll_next(context) {
                Poll::Ready(Some(Ok(request))) => session.request(request),
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
        if this.responses < RESPONSES_MAX
            && let Poll::Ready(taken) = this.take(context)
        {
            return Poll::Ready(taken);
        }
        let heard = this.poll_requests(context);
        if let Poll::Ready(Err(error)) = heard {
            let canceled = error.code() == Code::Cancelled;
            return this.end(if canceled { status(Refusal::WatchCanceled) } else { error });
        }
        if let Poll::Ready(taken) = this.take(context) {
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
