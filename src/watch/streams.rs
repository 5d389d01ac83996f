//! The streams of one executor: its [`Hub`], and a queue of responses for each stream.
//!
//! ```text
//!  Events, History ─► hub ─► one queue for each stream ─poll_next─► session
//!       requests, credit ▲                                             │
//!                        └─────────────────────────────────────────────┘
//! ```
//!
//! Responses that a client does not take stay in its queue, without credit, and make its watchers unsynced. There is no
//! other back-pressure.

use std::collections::VecDeque;
use std::task::{Poll, Waker};

use basalt_proto::encoded::WatchResponse;
use basalt_proto::etcdserverpb::WatchRequest;
use basalt_proto::etcdserverpb::watch_request::RequestUnion;
use slab::Slab;

use super::{Hub, HubStats, Input, Output, Published, StreamId};
use crate::types::Refusal;

/// Capacity above which an empty queue is freed: that of its first allocation.
const QUEUE_KEPT: usize = 4;

/// etcd raises shorter progress intervals to this.
const PROGRESS_INTERVAL_MS_MIN: u64 = 100;

/// Options of streams that do not change while the member runs.
#[derive(Clone, Copy, Debug)]
pub struct StreamOptions {
    /// `--watch-progress-notify-interval`.
    pub progress_interval_ms: u64,
    /// Streams that require a leader end after this long without one: three election timeouts.
    pub no_leader_ms_max: u64,
    /// Seed of the jitter of progress notifications.
    pub seed: u64,
}

/// A read of history requested by the hub.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HistoryRead {
    /// The first revision.
    pub from: i64,
    /// Revisions at most.
    pub revisions_max: usize,
    /// Bytes of events at most, unless a single revision has more.
    pub bytes_max: usize,
}

/// A queued response.
struct Queued {
    response: WatchResponse,
    /// Bytes for which it counts.
    cost: usize,
    events: usize,
}

/// A response for a client.
#[derive(Clone, PartialEq, Debug)]
pub struct Taken {
    /// The response; its header contains the revision only.
    pub response: WatchResponse,
    /// Number of events in it.
    pub events: usize,
}

/// Responses that wait for one client.
#[derive(Default)]
struct Queue {
    responses: VecDeque<Queued>,
    /// Bytes of the responses taken since there was none to take: HTTP/2 gets them together then.
    taken: usize,
    /// Encoded bytes in HTTP/2.
    given: usize,
    waker: Option<Waker>,
    requires_leader: bool,
    /// The error with which the stream ends once its queue is empty.
    end: Option<Refusal>,
}

/// All streams of one executor. Calls that may wake sessions collect their wakers for [`Streams::take_wakers`], since a
/// waker may call back.
pub struct Streams {
    hub: Hub,
    options: StreamOptions,
    queues: Slab<Queue>,
    read: Option<HistoryRead>,
    /// The waker of the actor that reads history.
    reader: Option<Waker>,
    /// To be woken by the next stream.
    ticker: Option<Waker>,
    /// Since when there has been no leader.
    leaderless_since_ms: Option<u64>,
    has_ended: bool,
    /// Number of events in all queues.
    pending_events: usize,
    wakers: Vec<Waker>,
    /// Scratch: empty between calls.
    out: Vec<Output>,
    seed: u64,
}

impl Streams {
    /// No streams.
    pub fn new(hub: Hub, options: StreamOptions) -> Self {
        Self {
            hub,
            options,
            queues: Slab::new(),
            read: None,
            reader: None,
            ticker: None,
            leaderless_since_ms: None,
            has_ended: false,
            pending_events: 0,
            wakers: Vec::new(),
            out: Vec::new(),
            seed: options.seed,
        }
    }

    /// Opens a stream. One that requires a leader ends with `etcdserver: no leader` when there has been none for too long.
    pub fn open(&mut self, requires_leader: bool) -> StreamId {
        let stream = self.queues.insert(Queue { requires_leader, ..Queue::default() }) as StreamId;
        let interval_ms = self.options.progress_interval_ms.max(PROGRESS_INTERVAL_MS_MIN);
        // Up to a tenth more, as in etcd, so that clients that connected together are not notified together.
        self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let jitter_ms = (self.seed >> 33) % (interval_ms / 10);
        self.on(Input::Open { stream, progress_interval_ms: interval_ms + jitter_ms });
        self.wakers.extend(self.ticker.take());
        stream
    }

    /// Ready while there are streams: without any, no ticks are needed, except one before the next is opened.
    pub fn poll_used(&mut self, waker: &Waker) -> Poll<()> {
        if self.queues.is_empty() {
            self.ticker = Some(waker.clone());
            return Poll::Pending;
        }
        Poll::Ready(())
    }

    /// True if there is no stream.
    pub fn is_empty(&self) -> bool {
        self.queues.is_empty()
    }

    /// The client disconnected.
    pub fn close(&mut self, stream: StreamId) {
        if let Some(queue) = self.queues.try_remove(stream as usize) {
            self.pending_events -= queue.responses.iter().map(|it| it.events).sum::<usize>();
            self.on(Input::Close(stream));
        }
    }

    /// Handles a client's request. `published` must be read after the events before it were sent here. Unknown requests
    /// are ignored, as etcd does.
    pub fn request(&mut self, stream: StreamId, request: WatchRequest, published: Published) {
        let Some(request) = request.request_union else { return };
        self.on(match request {
            RequestUnion::CreateRequest(request) => Input::Create { stream, request, published },
            RequestUnion::CancelRequest(request) => {
                Input::Cancel { stream, watch_id: request.watch_id, published }
            }
            RequestUnion::ProgressRequest(_) => Input::Progress { stream, published },
        });
    }

    /// Number of queued responses.
    pub fn waiting(&self, stream: StreamId) -> usize {
        self.queues.get(stream as usize).map_or(0, |queue| queue.responses.len())
    }

    /// The next response. Pending also while HTTP/2 holds a window of encoded bytes; [`Streams::sent`] wakes the caller then.
    ///
    /// # Errors
    /// The stream has ended: the member stops, or there is no leader.
    pub fn poll_next(&mut self, stream: StreamId, waker: &Waker) -> Poll<Result<Taken, Refusal>> {
        if self.has_ended {
            return Poll::Ready(Err(Refusal::Stopped));
        }
        let window = self.hub.window();
        let Some(queue) = self.queues.get_mut(stream as usize) else {
            return Poll::Ready(Err(Refusal::WatchCanceled));
        };
        let unsent = queue.given + queue.taken;
        if unsent >= window && !queue.responses.is_empty() {
            if queue.given == 0 {
                // Those that were taken may have left otherwise than by HTTP/2.
                waker.wake_by_ref();
            }
            queue.taken = 0;
            queue.waker = Some(waker.clone());
            return Poll::Pending;
        }
        let Some(Queued { response, cost, events }) = queue.responses.pop_front() else {
            if let Some(refusal) = queue.end {
                return Poll::Ready(Err(refusal));
            }
            if queue.responses.capacity() > QUEUE_KEPT {
                queue.responses = VecDeque::new();
            }
            queue.taken = 0;
            queue.waker = Some(waker.clone());
            return Poll::Pending;
        };
        queue.taken += size_of::<WatchResponse>() + response.events.len();
        self.pending_events -= events;
        self.on(Input::Sent { stream, bytes: cost });
        Poll::Ready(Ok(Taken { response, events }))
    }

    /// HTTP/2 has encoded responses that it cannot send yet.
    pub fn given(&mut self, stream: StreamId, bytes: usize) {
        let Some(queue) = self.queues.get_mut(stream as usize) else { return };
        queue.given += bytes;
        queue.taken = 0;
        self.on(Input::Given { stream, bytes });
    }

    /// HTTP/2 has sent some of these bytes, or given them up.
    pub fn sent(&mut self, stream: StreamId, bytes: usize) {
        let Some(queue) = self.queues.get_mut(stream as usize) else { return };
        queue.given -= bytes;
        if !queue.responses.is_empty() {
            self.wakers.extend(queue.waker.take());
        }
        self.on(Input::Sent { stream, bytes });
    }

    /// Ready when the hub requests a read of history.
    pub fn poll_read(&mut self, waker: &Waker) -> Poll<()> {
        if self.read.is_some() || self.has_ended {
            return Poll::Ready(());
        }
        self.reader = Some(waker.clone());
        Poll::Pending
    }

    /// Takes the requested read; answered by [`Input::History`].
    pub fn take_read(&mut self) -> Option<HistoryRead> {
        self.read.take()
    }

    /// Handles the passing of time: progress notifications, and streams that have been without a leader for too long.
    pub fn tick(&mut self, now_ms: u64, has_leader: bool) {
        self.on(Input::Tick { now_ms });
        if has_leader {
            self.leaderless_since_ms = None;
            return;
        }
        let since_ms = *self.leaderless_since_ms.get_or_insert(now_ms);
        if now_ms - since_ms < self.options.no_leader_ms_max {
            return;
        }
        for (_, queue) in self.queues.iter_mut().filter(|(_, queue)| queue.requires_leader) {
            queue.end = Some(Refusal::NoLeader);
            self.wakers.extend(queue.waker.take());
        }
    }

    /// Ends all streams: the member stops.
    pub fn end(&mut self) {
        self.has_ended = true;
        let queues = self.queues.iter_mut();
        self.wakers.extend(queues.filter_map(|(_, queue)| queue.waker.take()));
        self.wakers.extend(self.reader.take());
    }

    /// Passes an input to the hub, and queues the responses.
    pub fn on(&mut self, input: Input) {
        let mut out = std::mem::take(&mut self.out);
        self.hub.on(input, &mut out);
        for output in out.drain(..) {
            match output {
                Output::Send { stream, response, cost } => {
                    let Some(queue) = self.queues.get_mut(stream as usize) else { continue };
                    let events = response.events_count();
                    self.pending_events += events;
                    queue.responses.push_back(Queued { response, cost, events });
                    self.wakers.extend(queue.waker.take());
                }
                Output::ReadHistory { from, revisions_max, bytes_max } => {
                    self.read = Some(HistoryRead { from, revisions_max, bytes_max });
                    self.wakers.extend(self.reader.take());
                }
            }
        }
        self.out = out;
    }

    /// Wakers of sessions whose streams have responses, to be woken after the borrow of this value ends.
    pub fn take_wakers(&mut self) -> Vec<Waker> {
        std::mem::take(&mut self.wakers)
    }

    /// Counts of streams and watchers.
    pub fn stats(&self) -> HubStats {
        HubStats { events: self.pending_events, ..self.hub.stats() }
    }
}

#[cfg(test)]
mod tests {
    use basalt_proto::etcdserverpb::WatchCreateRequest;
    use bytes::Bytes;
    use prost::Message as _;

    use super::*;
    use crate::watch::Config;
    use crate::watch::fixture::Store;

    fn streams() -> Streams {
        let hub = Hub::new(Config::new(1000), 1);
        Streams::new(
            hub,
            StreamOptions { progress_interval_ms: 1000, no_leader_ms_max: 300, seed: 1 },
        )
    }

    #[test]
    fn only_streams_that_require_a_leader_end_without_one() {
        let mut streams = streams();
        let (indifferent, requiring) = (streams.open(false), streams.open(true));
        let waker = Waker::noop();
        assert!(streams.poll_next(requiring, waker).is_pending());
        for (now_ms, has_leader) in
            [(0, true), (100, false), (350, true), (400, false), (699, false)]
        {
            streams.tick(now_ms, has_leader);
            assert!(streams.poll_next(requiring, waker).is_pending(), "at {now_ms}");
        }
        streams.tick(700, false);
        assert_eq!(streams.take_wakers().len(), 1);
        let refused = Poll::Ready(Err(Refusal::NoLeader));
        assert!(streams.poll_next(requiring, waker) == refused);
        assert!(streams.poll_next(indifferent, waker).is_pending());
    }

    #[test]
    fn ticks_are_wanted_while_there_are_streams() {
        let mut streams = streams();
        let waker = Waker::noop();
        assert!(streams.is_empty() && streams.poll_used(waker).is_pending());
        let stream = streams.open(false);
        assert_eq!(streams.take_wakers().len(), 1);
        assert!(!streams.is_empty() && streams.poll_used(waker).is_ready());
        streams.close(stream);
        assert!(streams.poll_used(waker).is_pending());
    }

    #[test]
    fn events_are_pending_until_they_are_taken_or_the_client_is_gone() {
        let mut streams = streams();
        let open = [streams.open(false), streams.open(false)];
        let published = Published { revision: 1, compacted: -1 };
        for stream in open {
            let create = WatchCreateRequest { key: "k".into(), ..WatchCreateRequest::default() };
            let request_union = Some(RequestUnion::CreateRequest(create));
            streams.request(stream, WatchRequest { request_union }, published);
        }
        let mut store = Store::default();
        let events = [1, 2].map(|value| store.change(&[("k".to_owned(), Some(value.to_string()))]));
        streams.on(Input::Events { events: events.concat().into(), revision: 3 });
        assert_eq!(streams.stats().events, 4);
        while let Poll::Ready(Ok(_)) = streams.poll_next(open[0], Waker::noop()) {}
        assert_eq!(streams.stats().events, 2);
        streams.close(open[1]);
        assert_eq!(streams.stats().events, 0);
    }

    /// Takes all responses that a stream gives, as gRPC does before it passes them on: the number of bytes.
    fn take_all(streams: &mut Streams, stream: StreamId) -> usize {
        let mut bytes = 0;
        while let Poll::Ready(Ok(taken)) = streams.poll_next(stream, Waker::noop()) {
            bytes += taken.response.encoded_len();
        }
        bytes
    }

    /// Gives HTTP/2 all that the stream has for it: the number of bytes.
    fn give_all(streams: &mut Streams, stream: StreamId) -> usize {
        let mut sum = 0;
        loop {
            let bytes = take_all(streams, stream);
            if bytes == 0 {
                return sum;
            }
            streams.given(stream, bytes);
            sum += bytes;
        }
    }

    /// Streams with a watch of all keys each, whose clients take nothing, and so many values of 1 KiB written.
    fn with_values(config: Config, clients: usize, values: i64) -> (Streams, Vec<StreamId>) {
        let options = StreamOptions { progress_interval_ms: 1000, no_leader_ms_max: 300, seed: 1 };
        let mut streams = Streams::new(Hub::new(config, 1), options);
        let all = Bytes::from_static(b"\0");
        let create = WatchCreateRequest {
            key: all.clone(),
            range_end: all,
            ..WatchCreateRequest::default()
        };
        let request = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
        let open: Vec<_> = (0..clients).map(|_| streams.open(false)).collect();
        for stream in &open {
            streams.request(*stream, request.clone(), Published { revision: 1, compacted: -1 });
        }
        let mut store = Store::default();
        for revision in 2..2 + values {
            let events = store.change(&[("k".to_owned(), Some("v".repeat(1024)))]);
            streams.on(Input::Events { events: events.into(), revision });
        }
        (streams, open)
    }

    #[test]
    fn http2_holds_one_window_of_a_client_that_takes_nothing() {
        let config = Config::new(1 << 20);
        let (mut streams, open) = with_values(config, 1, 1000);
        let (stream, all) = (open[0], streams.stats().bytes);
        drop(streams.take_wakers());
        let (window, given) = (config.stream_bytes_share, give_all(&mut streams, stream));
        assert!((window..window + 1100).contains(&given), "{given}");
        assert!(streams.take_wakers().is_empty());
        let held = streams.stats().bytes;
        assert!(held.abs_diff(all) < all / 50, "what is in HTTP/2 counts: {held}, not {all}");
        // Sent, there is capacity for the next ones.
        streams.sent(stream, given);
        assert_eq!(streams.take_wakers().len(), 1);
        assert_eq!(streams.stats().bytes, held - given);
        assert!(give_all(&mut streams, stream) >= window);
        streams.close(stream);
        assert_eq!(streams.stats().bytes, 0);
    }

    #[test]
    fn the_window_is_small_where_memory_is_short() {
        let hub_bytes_max = 100_000;
        let config = Config { hub_bytes_max, ..Config::new(1 << 20) };
        let (mut streams, open) = with_values(config, 50, 1000);
        for stream in &open {
            let given = give_all(&mut streams, *stream);
            assert!((2000..4000).contains(&given), "of fifty streams each has a fiftieth: {given}");
        }
        let held = streams.stats().bytes;
        assert!(held < 2 * hub_bytes_max, "{held}");
    }

    #[test]
    fn responses_that_leave_otherwise_than_by_http2_have_no_window() {
        let (mut streams, open) = with_values(Config::new(1 << 20), 1, 1000);
        let taken: usize = (0..100).map(|_| take_all(&mut streams, open[0])).sum();
        assert!(taken > 1000 << 10, "{taken}");
        assert_eq!(streams.stats().events, 0);
    }

    #[test]
    fn all_streams_end_with_the_member() {
        let mut streams = streams();
        let stream = streams.open(false);
        assert!(streams.poll_next(stream, Waker::noop()).is_pending());
        streams.end();
        assert_eq!(streams.take_wakers().len(), 1);
        assert!(streams.poll_next(stream, Waker::noop()) == Poll::Ready(Err(Refusal::Stopped)));
    }
}
