//! One watch that outlives its connections: when one breaks, it goes on at the next revision.

use std::time::Duration;

use basalt_proto::etcdserverpb::watch_request::RequestUnion;
use basalt_proto::etcdserverpb::{
    ResponseHeader, WatchCreateRequest, WatchProgressRequest, WatchRequest, WatchResponse,
};
use tokio::sync::mpsc;
use tokio::time::sleep;
use tonic::codegen::tokio_stream::Stream;
use tonic::{Code, Streaming};

use crate::client::Client;
use crate::client::error::{Refusal, reason};

const METHOD: &str = "/etcdserverpb.Watch/Watch";
/// Pause before a broken watch is made again.
const BACKOFF: Duration = Duration::from_millis(100);
/// Capacity of the channel of requests to the stream.
const ORDERS_MAX: usize = 16;

/// One response of a watch.
pub(crate) struct Told {
    pub(crate) response: WatchResponse,
    /// The reason of its end, if it has ended.
    pub(crate) ended: Option<String>,
}

/// A running watch.
pub(crate) struct Watch<'a> {
    client: &'a Client,
    create: WatchCreateRequest,
    leader: bool,
    open: Option<(mpsc::Sender<WatchRequest>, Streaming<WatchResponse>)>,
    over: bool,
}

impl<'a> Watch<'a> {
    /// With `leader`, a member without a leader ends the watch.
    pub(crate) fn new(client: &'a Client, create: WatchCreateRequest, leader: bool) -> Self {
        Self { client, create, leader, open: None, over: false }
    }

    /// Requests the revision up to which all events were sent.
    pub(crate) async fn ask_progress(&self) {
        if let Some((orders, _)) = &self.open {
            let union = RequestUnion::ProgressRequest(WatchProgressRequest {});
            let _ = orders.send(WatchRequest { request_union: Some(union) }).await;
        }
    }

    /// The next response, or `None` when the watch has ended.
    pub(crate) async fn next(&mut self) -> Option<Told> {
        while !self.over {
            let response = match self.receive().await {
                Ok(Some(response)) => response,
                Ok(None) => continue,
                Err(refusal) => return Some(self.end(WatchResponse::default(), refusal.text())),
            };
            if let Some(told) = self.tell(response) {
                return Some(told);
            }
        }
        None
    }

    fn tell(&mut self, mut response: WatchResponse) -> Option<Told> {
        if response.canceled {
            let stillborn = response.created || response.watch_id == -1;
            let text = match (response.compact_revision, response.cancel_reason.as_str()) {
                (1.., _) => "etcdserver: mvcc: required revision has been compacted".to_owned(),
                (_, "") => "etcdserver: mvcc: required revision is a future revision".to_owned(),
                (_, why) if stillborn => why.to_owned(),
                (_, why) => reason(Code::FailedPrecondition, why),
            };
            if stillborn && response.compact_revision == 0 {
                let header = Some(ResponseHeader::default());
                response = WatchResponse { header, ..WatchResponse::default() };
                return Some(self.end(response, text));
            }
            return Some(self.end(response, text));
        }
        // The revision at which a new connection resumes: no event may be missed in between.
        let seen = response.header.unwrap_or_default().revision;
        if let Some(kv) = response.events.last().and_then(|it| it.kv.as_ref()) {
            self.create.start_revision = kv.mod_revision + 1;
        } else if self.create.start_revision == 0 || !response.created {
            self.create.start_revision = self.create.start_revision.max(seen + 1);
        }
        if response.created {
            return None;
        }
        Some(Told { response, ended: None })
    }

    fn end(&mut self, response: WatchResponse, why: String) -> Told {
        self.over = true;
        let response = WatchResponse { canceled: true, ..response };
        Told { response, ended: Some(why) }
    }

    /// `None` if the connection broke and another has to be made.
    async fn receive(&mut self) -> Result<Option<WatchResponse>, Refusal> {
        if self.open.is_none() {
            match Box::pin(self.establish()).await {
                Ok(open) => self.open = Some(open),
                Err(refusal) => return self.broken(refusal).await,
            }
        }
        let Some((_, answers)) = &mut self.open else { return Ok(None) };
        match answers.message().await {
            Ok(Some(response)) => Ok(Some(response)),
            Ok(None) => self.broken(Refusal::of(tonic::Status::unavailable("EOF"))).await,
            Err(status) => self.broken(Refusal::of(status)).await,
        }
    }

    async fn broken(&mut self, refusal: Refusal) -> Result<Option<WatchResponse>, Refusal> {
        self.open = None;
        let lost_leader = refusal.status.message() == "etcdserver: no leader" && self.leader;
        let code = refusal.status.code();
        if lost_leader || !matches!(code, Code::Unavailable | Code::Internal | Code::Unknown) {
            return Err(refusal);
        }
        self.client.forget_link();
        sleep(BACKOFF).await;
        Ok(None)
    }

    async fn establish(
        &self,
    ) -> Result<(mpsc::Sender<WatchRequest>, Streaming<WatchResponse>), Refusal> {
        let (orders, inbox) = mpsc::channel(ORDERS_MAX);
        let union = RequestUnion::CreateRequest(self.create.clone());
        let request = WatchRequest { request_union: Some(union) };
        self.client.may_send(&request).map_err(Refusal::of)?;
        let _ = orders.send(request).await;
        let answers = self.client.conversation(METHOD, Inbox(inbox), self.leader).await?;
        Ok((orders, answers))
    }
}

/// A channel's receiving end as a stream of requests.
pub(crate) struct Inbox<T>(pub(crate) mpsc::Receiver<T>);

impl<T> Stream for Inbox<T> {
    type Item = T;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<T>> {
        self.0.poll_recv(context)
    }
}
