//! One stream of a client: its requests, one after the other.

use std::collections::HashMap;
use std::sync::Arc;

use basalt_proto::etcdserverpb::watch_request::RequestUnion;
use basalt_proto::etcdserverpb::{ResponseHeader, WatchCreateRequest, WatchRequest, WatchResponse};
use bytes::Bytes;
use tonic::{Code, Status, Streaming};

use super::receiver::Receiver;
use super::table::{NO_WATCH, Progress, Range, progress};
use super::{Shared, group};
use crate::grpc_proxy::caller::Caller;
use crate::grpc_proxy::codec::{decode, encode};
use crate::grpc_proxy::outbox::Outbox;

/// The stream.
pub(super) struct Session {
    shared: Arc<Shared>,
    caller: Caller,
    outbox: Outbox,
    watchers: HashMap<i64, (Range, Arc<Receiver>)>,
    next_id: i64,
    /// The last header that is known.
    header: ResponseHeader,
}

impl Session {
    pub(super) fn new(shared: Arc<Shared>, caller: Caller, outbox: Outbox) -> Self {
        Self {
            shared,
            caller: caller.without_time(),
            outbox,
            watchers: HashMap::new(),
            next_id: 0,
            header: ResponseHeader::default(),
        }
    }

    /// Until the client or the stream ends.
    pub(super) async fn run(mut self, mut requests: Streaming<Bytes>) {
        while !self.outbox.has_ended() {
            let next = tokio::select! {
                next = requests.message() => next,
                () = self.outbox.ended() => break,
            };
            let Ok(Some(message)) = next else { break };
            if let Err(status) = self.on(message).await {
                self.outbox.end(Err(status));
            }
        }
        for (range, receiver) in self.watchers.values() {
            receiver.cancel();
            self.shared.table.leave(range, receiver.number);
        }
        self.outbox.end(Ok(()));
    }

    async fn on(&mut self, message: Bytes) -> Result<(), Status> {
        let request: WatchRequest = decode(message)?;
        match request.request_union {
            Some(RequestUnion::CreateRequest(request)) => self.create(request).await?,
            Some(RequestUnion::CancelRequest(request)) => self.cancel(request.watch_id).await,
            Some(RequestUnion::ProgressRequest(_)) => self.ask_progress().await,
            None => {}
        }
        Ok(())
    }

    async fn create(&mut self, request: WatchCreateRequest) -> Result<(), Status> {
        if request.start_revision < 0 {
            let reason = "etcdserver: mvcc: required revision has been compacted";
            return self.refuse(reason).await;
        }
        if !is_range(&request.key, &request.range_end) {
            return self.refuse("mvcc: watcher range is empty").await;
        }
        let checked = self.shared.kv.check(&self.caller, &request.key, &request.range_end).await;
        match checked {
            Ok(header) => self.header = header,
            // The client opens the stream again, at another proxy perhaps.
            Err(status) if matches!(status.code(), Code::Unavailable | Code::DeadlineExceeded) => {
                return Err(status);
            }
            Err(status) => return self.refuse(status.message()).await,
        }
        let watch_id = match request.watch_id {
            0 => self.free_id(),
            given if self.watchers.contains_key(&given) => {
                let reason = "mvcc: duplicate watch ID provided on the WatchStream";
                return self.refuse(reason).await;
            }
            given => given,
        };
        self.outbox.drained_if_full().await;
        self.add(watch_id, &request);
        Ok(())
    }

    fn free_id(&mut self) -> i64 {
        while self.watchers.contains_key(&self.next_id) {
            self.next_id += 1;
        }
        self.next_id += 1;
        self.next_id - 1
    }

    fn add(&mut self, watch_id: i64, request: &WatchCreateRequest) {
        // A watch from now on begins behind what its caller could have read.
        let next = match request.start_revision {
            0 => self.header.revision + 1,
            given => given,
        };
        let range = Range {
            key: request.key.clone(),
            end: request.range_end.clone(),
            requires_leader: self.caller.requires_leader,
        };
        let table = &self.shared.table;
        let (token, outbox) = (self.caller.token.clone(), self.outbox.clone());
        let receiver = Receiver::new(table.number(), watch_id, next, token, outbox, request);
        let receiver = Arc::new(receiver);
        self.shared.debug("grpcproxy/watch.go:275", "create watcher", &range.key, watch_id);
        let created = WatchResponse {
            header: Some(self.header),
            watch_id,
            created: true,
            ..WatchResponse::default()
        };
        let new = table.join(&range, Arc::clone(&receiver), next, || {
            self.outbox.push_past_bound(encode(&created));
        });
        if let Some(new) = new {
            tokio::spawn(group::run(Arc::clone(&self.shared), range.clone(), new));
        }
        self.watchers.insert(watch_id, (range, receiver));
    }

    async fn refuse(&self, reason: &str) -> Result<(), Status> {
        let response = WatchResponse {
            header: Some(ResponseHeader::default()),
            watch_id: NO_WATCH,
            created: true,
            canceled: true,
            cancel_reason: reason.to_owned(),
            ..WatchResponse::default()
        };
        self.outbox.send(encode(&response)).await;
        Ok(())
    }

    async fn cancel(&mut self, watch_id: i64) {
        let Some((range, receiver)) = self.watchers.remove(&watch_id) else { return };
        receiver.cancel();
        self.shared.table.leave(&range, receiver.number);
        self.shared.debug("grpcproxy/watch.go:278", "cancel watcher", &range.key, watch_id);
        let response = WatchResponse {
            header: Some(self.header),
            watch_id,
            canceled: true,
            ..WatchResponse::default()
        };
        self.outbox.send(encode(&response)).await;
    }

    async fn ask_progress(&mut self) {
        if self.watchers.is_empty() {
            if self.header.revision > 0 {
                self.outbox.send(progress(self.header)).await;
            }
            return;
        }
        let watchers = self.watchers.values();
        let receivers: Vec<(Range, u64)> =
            watchers.map(|(range, receiver)| (range.clone(), receiver.number)).collect();
        let outbox = self.outbox.clone();
        self.shared.table.ask_progress(&receivers, |groups| Progress::new(outbox, groups));
    }
}

fn is_range(key: &[u8], end: &[u8]) -> bool {
    end.is_empty() || end == [0] || end > key
}
