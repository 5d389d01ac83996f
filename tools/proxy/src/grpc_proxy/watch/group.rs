//! The task of a group: its watch at a member, and what comes of it.

use std::sync::Arc;

use basalt_proto::etcdserverpb::watch_request::RequestUnion;
use basalt_proto::etcdserverpb::{
    WatchCreateRequest, WatchProgressRequest, WatchRequest, WatchResponse,
};
use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::{Interval, interval, sleep, timeout};
use tonic::{Code, Status, Streaming};

use super::Shared;
use super::receiver::Receiver;
use super::table::{NO_WATCH, NewGroup, Range};
use crate::grpc_proxy::caller::Caller;
use crate::grpc_proxy::codec::{decode, encode};
use crate::grpc_proxy::outbox::Pushed;
use crate::grpc_proxy::upstream::{Requests, of_stream};
use crate::limits::{PROGRESS_RETRY, REOPEN_BACKOFF, REOPEN_BACKOFF_MAX, SLOW_WATCHER_WAIT};

const METHOD: &str = "/etcdserverpb.Watch/Watch";
/// Requests on their way to the member: the one that creates, and one for progress.
const REQUESTS_MAX: usize = 2;

/// Why a watch at a member is over.
enum Over {
    /// The group has no receivers any more.
    Group,
    /// The stream broke, or a member said that another may do better.
    Stream(Status),
    /// The member refuses the watch to the one in whose name it was made.
    Refused(WatchResponse),
    /// The member canceled it for everybody.
    Canceled(WatchResponse),
}

/// The requests of a watch for progress, repeated until one is answered: etcd drops those that come while the watch
/// catches up.
struct AskedProgress {
    requests: mpsc::Sender<Bytes>,
    waits: bool,
    again: Interval,
}

impl AskedProgress {
    fn new(requests: mpsc::Sender<Bytes>) -> Self {
        Self { requests, waits: false, again: interval(PROGRESS_RETRY) }
    }

    fn ask(&mut self) {
        let progress = RequestUnion::ProgressRequest(WatchProgressRequest {});
        // Without room one is on its way.
        let _ = self.requests.try_send(request(progress));
        self.waits = true;
        self.again.reset();
    }

    /// Ends when it is time to ask again.
    async fn unanswered(&mut self) {
        if !self.waits {
            std::future::pending::<()>().await;
        }
        self.again.tick().await;
    }
}

/// Runs a group to its end.
pub(super) async fn run(shared: Arc<Shared>, range: Range, group: NewGroup) {
    let mut task = Task { shared, range, group };
    let mut backoff = REOPEN_BACKOFF;
    while let Some((next, first)) = task.shared.table.opening(&task.range, task.group.number) {
        let mut has_opened = false;
        match task.watch(next, &first, &mut has_opened).await {
            Over::Group => break,
            Over::Stream(status) => {
                if task.range.requires_leader && status.message() == "etcdserver: no leader" {
                    for receiver in task.end() {
                        receiver.outbox.end(Err(status.clone()));
                    }
                    break;
                }
                backoff =
                    if has_opened { REOPEN_BACKOFF } else { REOPEN_BACKOFF_MAX.min(backoff * 2) };
                sleep(backoff).await;
            }
            Over::Refused(response) => task.refuse(first.token.as_ref(), &response).await,
            Over::Canceled(response) => {
                for receiver in task.end() {
                    cancel(&receiver, &response).await;
                }
                break;
            }
        }
    }
}

struct Task {
    shared: Arc<Shared>,
    range: Range,
    group: NewGroup,
}

impl Task {
    fn end(&self) -> Vec<Arc<Receiver>> {
        self.shared.table.end(&self.range, self.group.number)
    }

    /// Cancels the receivers with this token; the others go on in another's name.
    async fn refuse(&self, token: Option<&String>, response: &WatchResponse) {
        let table = &self.shared.table;
        for receiver in table.receivers(&self.range, self.group.number) {
            if receiver.token.as_ref() == token {
                table.leave(&self.range, receiver.number);
                cancel(&receiver, response).await;
            }
        }
    }

    /// One watch at a member, to its end.
    async fn watch(&mut self, next: i64, first: &Receiver, has_opened: &mut bool) -> Over {
        let (requests, inbox) = mpsc::channel(REQUESTS_MAX);
        let (key, range_end) = self.shared.namespace.range(&self.range.key, &self.range.end);
        let create = WatchCreateRequest {
            key,
            range_end,
            start_revision: next,
            progress_notify: true,
            prev_kv: true,
            ..WatchCreateRequest::default()
        };
        // There is room for the first.
        let _ = requests.try_send(request(RequestUnion::CreateRequest(create)));
        let caller = Caller::of_stream(first.token.clone(), self.range.requires_leader);
        let opening = self.shared.upstream.stream(METHOD, &caller, Requests(inbox));
        let opened = tokio::select! {
            opened = opening => opened,
            () = self.left() => return Over::Group,
        };
        let mut responses = match opened {
            Ok(responses) => responses,
            Err(status) => return over(status),
        };
        let mut progress = AskedProgress::new(requests);
        loop {
            let next = tokio::select! {
                next = receive(&mut responses) => next,
                () = self.group.changed.notified() => {
                    match self.shared.table.wants_progress(&self.range, self.group.number) {
                        None => return Over::Group,
                        Some(true) => progress.ask(),
                        Some(false) => {}
                    }
                    continue;
                }
                () = progress.unanswered() => {
                    progress.ask();
                    continue;
                }
            };
            let response = match next {
                Ok(response) => response,
                Err(status) => return over(status),
            };
            if response.created && !response.canceled {
                *has_opened = true;
                let table = &self.shared.table;
                table.opened(&self.range, self.group.number);
                if table.wants_progress(&self.range, self.group.number) == Some(true) {
                    progress.ask();
                }
            } else if response.canceled {
                return match response.compact_revision == 0 && response.created {
                    true => Over::Refused(response),
                    false => Over::Canceled(response),
                };
            } else {
                progress.waits &= response.watch_id != NO_WATCH;
                self.distribute(response).await;
            }
            if self.shared.table.hand_over(&self.range, self.group.number) {
                return Over::Group;
            }
        }
    }

    /// Waits until the group has no receivers.
    async fn left(&self) {
        while self.shared.table.wants_progress(&self.range, self.group.number).is_some() {
            self.group.changed.notified().await;
        }
    }

    async fn distribute(&self, mut response: WatchResponse) {
        let table = &self.shared.table;
        let (range, number) = (&self.range, self.group.number);
        let header = response.header.unwrap_or_default();
        if response.watch_id == NO_WATCH {
            table.take_progress(range, number).iter().for_each(|it| it.reached(header));
            return;
        }
        for event in &mut response.events {
            self.shared.namespace.strip_pair(event.kv.as_mut());
            self.shared.namespace.strip_pair(event.prev_kv.as_mut());
        }
        // The revision of the header may be that of the store while older events are still to come.
        let last = response.events.iter().filter_map(|it| it.kv.as_ref());
        let last = last.map(|it| it.mod_revision).max().unwrap_or(header.revision);
        let receivers = table.advance(range, number, last + 1);
        for receiver in &receivers {
            self.give(receiver, &response).await;
        }
        if !response.events.is_empty() {
            table.count_coalesced(receivers.len().saturating_sub(1));
        }
    }

    /// A receiver that is alone holds back the member; one among others must not hold them back.
    async fn give(&self, receiver: &Receiver, response: &WatchResponse) {
        let mut has_waited = false;
        while receiver.offer(response) == Pushed::Full {
            let others = self.shared.table.receivers(&self.range, self.group.number).len() > 1;
            if others && has_waited {
                let text = "etcdserver: the client does not read its watch events fast enough";
                receiver.outbox.end(Err(Status::unavailable(text)));
                return;
            }
            has_waited = timeout(SLOW_WATCHER_WAIT, receiver.outbox.drained()).await.is_err();
        }
    }
}

async fn receive(responses: &mut Streaming<Bytes>) -> Result<WatchResponse, Status> {
    match responses.message().await {
        Ok(Some(message)) => decode(message),
        Ok(None) => Err(Status::unavailable("error reading from server: EOF")),
        Err(status) => Err(of_stream(status)),
    }
}

/// A stream that ended with an error: refusals end the watch, everything else is tried again.
fn over(status: Status) -> Over {
    match status.code() {
        Code::PermissionDenied | Code::Unauthenticated | Code::InvalidArgument => {
            Over::Refused(WatchResponse {
                canceled: true,
                cancel_reason: status.message().to_owned(),
                ..WatchResponse::default()
            })
        }
        Code::Ok
        | Code::Cancelled
        | Code::Unknown
        | Code::DeadlineExceeded
        | Code::NotFound
        | Code::AlreadyExists
        | Code::ResourceExhausted
        | Code::FailedPrecondition
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unimplemented
        | Code::Internal
        | Code::Unavailable
        | Code::DataLoss => Over::Stream(status),
    }
}

async fn cancel(receiver: &Receiver, response: &WatchResponse) {
    while receiver.offer(response) == Pushed::Full {
        receiver.outbox.drained().await;
    }
    receiver.cancel();
}

fn request(union: RequestUnion) -> Bytes {
    encode(&WatchRequest { request_union: Some(union) })
}
