//! Delivery of events: live ones to synced watchers, history to unsynced ones.

use basalt_proto::encoded::WatchResponse;
use basalt_proto::etcdserverpb::ResponseHeader;
use bytes::Bytes;

use super::answers::Answers;
use super::{Config, Hub, HubStats, Output, Side, Stream, StreamId, Watcher, WatcherId};
use crate::mvcc::Event;

/// The watchers that a delivery may reach.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum DeliveryScope {
    /// All synced watchers.
    Live,
    /// Queued watchers at positions in `from..next`, the revisions that were read.
    Read { from: i64, next: i64 },
}

impl Hub {
    /// Handles the next batch, or one that shows that batches are missing.
    pub(super) fn events(&mut self, events: &[Event], revision: i64, out: &mut Vec<Output>) {
        if revision <= self.revision {
            return; // Known from history already.
        }
        // Each revision has at least one event, so a batch that starts later leaves some out.
        let follows = events.first().is_some_and(|first| first.revision.main <= self.revision + 1);
        if follows {
            self.advance(events, revision, out);
        } else {
            self.known = self.known.max(revision);
        }
    }

    /// Brings all synced watchers to `revision`.
    pub(super) fn advance(&mut self, events: &[Event], revision: i64, out: &mut Vec<Output>) {
        let new = events.partition_point(|event| event.revision.main <= self.revision);
        let stuck = self.deliver(&events[new..], DeliveryScope::Live, out);
        self.revision = revision;
        for watcher in stuck {
            self.change_side(watcher, Side::Unsynced);
        }
        self.tell_progress(out);
    }

    /// Sends each watcher in the scope the events that match. Returns the watchers that could not be sent all of them:
    /// their position is the first revision that they still need.
    pub(super) fn deliver(
        &mut self,
        events: &[Event],
        scope: DeliveryScope,
        out: &mut Vec<Output>,
    ) -> Vec<WatcherId> {
        let side = match scope {
            DeliveryScope::Live => Side::Synced,
            DeliveryScope::Read { .. } => Side::Unsynced,
        };
        self.delivery += 1;
        let delivery = self.delivery;
        let mut stuck = Vec::new();
        // A stream that holds nothing gets one response even where memory is full: it must be short for that.
        let of_stream = fair_share(&self.config, &self.stats);
        let response_bytes_max = self.config.response_bytes_max.min(of_stream);
        let mut answers = Answers::new(events, Config { response_bytes_max, ..self.config });
        for selection in self.index.select(events, side) {
            answers.turn_to(selection.events);
            let members = self.index.take_members(selection.group, side);
            for id in &members {
                let watcher = &mut self.watchers[*id as usize];
                let Some(stream) = self.streams[watcher.stream as usize].as_mut() else { continue };
                let hub = &mut self.stats;
                let mut sender = Sender { config: &self.config, hub, delivery, stream, out };
                if !sender.offer(watcher, &mut answers, scope) {
                    stuck.push(*id);
                }
            }
            self.index.put_back(selection.group, side, members);
        }
        stuck
    }

    /// Sends a response regardless of the stream's limit: for the few kinds that must not be lost.
    pub(super) fn send(
        &mut self,
        stream: StreamId,
        response: WatchResponse,
        out: &mut Vec<Output>,
    ) {
        let cost = size_of::<WatchResponse>() + response.cancel_reason.len();
        self.stats.bytes += cost;
        if let Some(stream) = self.stream(stream) {
            stream.bytes += cost;
        }
        out.push(Output::Send { stream, response, cost });
    }

    /// HTTP/2 has encoded responses of the stream.
    pub(super) fn given(&mut self, id: StreamId, bytes: usize) {
        let Some(stream) = self.stream(id) else { return };
        stream.bytes += bytes;
        self.stats.bytes += bytes;
    }

    /// The stream took some of its responses, or sent some of their bytes.
    pub(super) fn sent(&mut self, id: StreamId, bytes: usize) {
        let limit = stream_limit(&self.config, &self.stats);
        let Some(stream) = self.stream(id) else { return };
        assert!(bytes <= stream.bytes, "stream {id} took {bytes} of {} bytes", stream.bytes);
        stream.bytes -= bytes;
        let resumes = stream.starved && stream.bytes <= limit / 2;
        self.stats.bytes -= bytes;
        if resumes {
            self.resume(id);
        }
    }
}

/// Upper bound for a stream's unsent bytes, given those of all streams. Where the memory of all of them is full, it is divided
/// by their number, so that ten thousand slow clients do not hold a share each that is meant for a thousand.
pub(super) fn stream_limit(config: &Config, hub: &HubStats) -> usize {
    if hub.bytes < config.hub_bytes_max {
        config.stream_bytes_max
    } else {
        config.stream_bytes_share.min(fair_share(config, hub)).max(1)
    }
}

/// The memory of all streams, divided by their number.
fn fair_share(config: &Config, hub: &HubStats) -> usize {
    config.hub_bytes_max / hub.streams.max(1)
}

/// True if a stream has capacity for another response; one without is marked as starved.
pub(super) fn has_room(config: &Config, hub: &HubStats, stream: &mut Stream) -> bool {
    stream.starved |= stream.bytes >= stream_limit(config, hub);
    !stream.starved
}

/// Sends to one stream.
struct Sender<'a> {
    config: &'a Config,
    hub: &'a mut HubStats,
    delivery: u64,
    stream: &'a mut Stream,
    out: &'a mut Vec<Output>,
}

impl Sender<'_> {
    /// Sends a watcher its events; returns `false` if some of them must wait.
    fn offer(
        &mut self,
        watcher: &mut Watcher,
        answers: &mut Answers<'_>,
        scope: DeliveryScope,
    ) -> bool {
        if let DeliveryScope::Read { from, next } = scope
            && !(watcher.queued && (from..next).contains(&watcher.next))
        {
            return true;
        }
        let mut chunks =
            answers.chunks(watcher.filter, watcher.fragment, watcher.next).iter().peekable();
        while let Some(chunk) = chunks.next() {
            if !has_room(self.config, self.hub, self.stream) {
                watcher.next = chunk.first;
                return false;
            }
            // The last response of a read has the revision up to which history was read, as etcd's has.
            let revision = match scope {
                DeliveryScope::Read { next, .. } if chunks.peek().is_none() => next - 1,
                DeliveryScope::Read { .. } | DeliveryScope::Live => chunk.last,
            };
            watcher.idle = false;
            let last = chunk.bodies.len() - 1;
            for (at, body) in chunk.bodies.iter().enumerate() {
                self.send(watcher, revision, body, at < last);
            }
        }
        true
    }

    fn send(&mut self, watcher: &Watcher, revision: i64, body: &Bytes, fragment: bool) {
        let response = WatchResponse {
            header: header(revision),
            watch_id: watcher.id,
            fragment,
            events: body.clone(),
            ..WatchResponse::default()
        };
        let last_body = (self.delivery, body.as_ptr() as usize);
        let is_shared = std::mem::replace(&mut self.stream.last_body, last_body) == last_body;
        let cost = size_of::<WatchResponse>() + if is_shared { 0 } else { body.len() };
        self.hub.bytes += cost;
        self.stream.bytes += cost;
        self.out.push(Output::Send { stream: watcher.stream, response, cost });
    }
}

/// A header with the fields that the hub knows.
pub(super) fn header(revision: i64) -> Option<ResponseHeader> {
    Some(ResponseHeader { revision, ..ResponseHeader::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_streams_share_the_memory_of_all() {
        let config = Config {
            hub_bytes_max: 1000,
            stream_bytes_max: 400,
            stream_bytes_share: 50,
            ..Config::new(1)
        };
        let limit = |streams, bytes| {
            stream_limit(&config, &HubStats { streams, bytes, ..HubStats::default() })
        };
        assert_eq!((limit(1, 999), limit(5000, 999)), (400, 400), "there is room for all");
        assert_eq!((limit(0, 1000), limit(20, 1000)), (50, 50));
        assert_eq!((limit(100, 1000), limit(5000, 1000)), (10, 1));
    }
}
