//! One watcher of a client, as a member of a group.

use std::sync::Mutex;

use basalt_proto::etcdserverpb::watch_create_request::FilterType;
use basalt_proto::etcdserverpb::{WatchCreateRequest, WatchResponse};
use basalt_proto::mvccpb::Event;
use basalt_proto::mvccpb::event::EventType;

use crate::grpc_proxy::codec::encode;
use crate::grpc_proxy::outbox::{Outbox, Pushed};

/// A watcher.
pub(super) struct Receiver {
    /// Unique in the proxy.
    pub(super) number: u64,
    /// Unique in its stream.
    pub(super) watch_id: i64,
    pub(super) token: Option<String>,
    pub(super) outbox: Outbox,
    wants_progress: bool,
    wants_previous: bool,
    filters: Vec<i32>,
    /// The least revision of the next event; none when it has been canceled.
    next: Mutex<Option<i64>>,
}

impl Receiver {
    pub(super) fn new(
        number: u64,
        watch_id: i64,
        next: i64,
        token: Option<String>,
        outbox: Outbox,
        request: &WatchCreateRequest,
    ) -> Self {
        Self {
            number,
            watch_id,
            token,
            outbox,
            wants_progress: request.progress_notify,
            wants_previous: request.prev_kv,
            filters: request.filters.clone(),
            next: Mutex::new(Some(next)),
        }
    }

    /// Nothing is sent any more.
    pub(super) fn cancel(&self) {
        *self.next.lock().expect("no holder panics") = None;
    }

    /// Sends what the watcher has not seen and wants to see.
    pub(super) fn offer(&self, response: &WatchResponse) -> Pushed {
        let mut next = self.next.lock().expect("no holder panics");
        let Some(from) = *next else { return Pushed::Ended };
        let is_progress = response.events.is_empty() && !response.canceled;
        if is_progress && !self.wants_progress {
            return Pushed::Taken;
        }
        let revision = |event: &Event| event.kv.as_ref().map_or(0, |it| it.mod_revision);
        let wanted = |event: &&Event| {
            revision(event) >= from && !self.filters.iter().any(|it| filtered(*it, event))
        };
        let events: Vec<Event> = response.events.iter().filter(wanted).cloned().collect();
        let last = response.events.iter().map(revision).max().unwrap_or_default();
        let pushed = match events.is_empty() && !is_progress && !response.canceled {
            true => Pushed::Taken,
            false => self.push(response, events),
        };
        if pushed == Pushed::Taken {
            *next = Some(from.max(last + 1));
        }
        pushed
    }

    fn push(&self, response: &WatchResponse, mut events: Vec<Event>) -> Pushed {
        if !self.wants_previous {
            events.iter_mut().for_each(|it| it.prev_kv = None);
        }
        self.outbox.push(encode(&WatchResponse {
            header: response.header,
            watch_id: self.watch_id,
            canceled: response.canceled,
            compact_revision: response.compact_revision,
            cancel_reason: response.cancel_reason.clone(),
            events,
            ..WatchResponse::default()
        }))
    }
}

fn filtered(filter: i32, event: &Event) -> bool {
    let kind = match FilterType::try_from(filter) {
        Ok(FilterType::Noput) => EventType::Put,
        Ok(FilterType::Nodelete) => EventType::Delete,
        Err(_) => return false,
    };
    event.r#type == kind as i32
}

#[cfg(test)]
pub(super) mod tests {
    use std::pin::Pin;

    use basalt_proto::etcdserverpb::ResponseHeader;
    use basalt_proto::mvccpb::KeyValue;
    use tonic::codegen::tokio_stream::Stream as _;

    use super::*;
    use crate::grpc_proxy::codec::decode;
    use crate::grpc_proxy::outbox::Responses;

    /// A response with a put at each of these revisions.
    pub(crate) fn puts(revisions: &[i64]) -> WatchResponse {
        let event = |revision: &i64| Event {
            r#type: EventType::Put as i32,
            kv: Some(KeyValue { key: "k".into(), mod_revision: *revision, ..KeyValue::default() }),
            prev_kv: Some(KeyValue::default()),
        };
        let revision = revisions.last().copied().unwrap_or_default();
        WatchResponse {
            header: Some(ResponseHeader { revision, ..ResponseHeader::default() }),
            events: revisions.iter().map(event).collect(),
            ..WatchResponse::default()
        }
    }

    /// The next response that waits.
    pub(crate) async fn next(responses: &mut Responses) -> Option<WatchResponse> {
        let next =
            std::future::poll_fn(|context| match Pin::new(&mut *responses).poll_next(context) {
                std::task::Poll::Pending => std::task::Poll::Ready(None),
                ready => ready,
            });
        next.await.map(|it| decode(it.expect("a response")).expect("a message"))
    }

    #[tokio::test]
    async fn a_watcher_sees_each_event_once() {
        let (outbox, mut responses) = Outbox::new();
        let request = WatchCreateRequest::default();
        let watcher = Receiver::new(1, 7, 5, None, outbox, &request);
        assert_eq!(watcher.offer(&puts(&[3, 4, 5, 5, 6])), Pushed::Taken);
        assert_eq!(watcher.offer(&puts(&[6])), Pushed::Taken);
        assert_eq!(watcher.offer(&puts(&[])), Pushed::Taken, "no progress was asked for");
        assert_eq!(watcher.offer(&puts(&[7])), Pushed::Taken);
        let first = next(&mut responses).await.expect("events");
        assert_eq!((first.watch_id, first.events.len()), (7, 3));
        assert!(first.events.iter().all(|it| it.prev_kv.is_none()));
        assert_eq!(next(&mut responses).await.expect("an event").events.len(), 1);
        assert_eq!(next(&mut responses).await, None);
        watcher.cancel();
        assert_eq!(watcher.offer(&puts(&[8])), Pushed::Ended);
    }

    #[tokio::test]
    async fn filtered_events_count_as_seen() {
        let (outbox, mut responses) = Outbox::new();
        let filters = vec![FilterType::Noput as i32];
        let request = WatchCreateRequest { filters, ..WatchCreateRequest::default() };
        let watcher = Receiver::new(1, 0, 1, None, outbox, &request);
        assert_eq!(watcher.offer(&puts(&[2])), Pushed::Taken);
        assert_eq!(next(&mut responses).await, None);
        assert_eq!(*watcher.next.lock().expect("no holder panics"), Some(3));
    }
}
