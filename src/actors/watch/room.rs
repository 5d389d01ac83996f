//! What actor and sessions of one executor share: the hub and a queue for each stream.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};
use std::task::{Context, Poll, Waker};

use basalt_proto::encoded::WatchResponse;
use basalt_proto::etcdserverpb::WatchRequest;
use basalt_proto::etcdserverpb::watch_request::RequestUnion;
use slab::Slab;

use super::{Census, Options, PROGRESS_INTERVAL_MS_MIN, Published, Shared};
use crate::metrics;
use crate::types::Refusal;
use crate::watch::{Hub, Input, Output};

/// A queue that grew beyond this is given back when it is empty.
const QUEUE_KEPT: usize = 64;

/// `from`, `revisions_max`, `bytes_max` of a read that the hub wants.
pub(super) type Read = (i64, usize, usize);

/// What waits for one client.
#[derive(Default)]
struct Queue {
    /// With costs.
    responses: VecDeque<(WatchResponse, usize)>,
    waker: Option<Waker>,
    requires_leader: bool,
    /// Why the stream ends once its queue is empty.
    end: Option<Refusal>,
}

pub(super) struct Room {
    hub: Hub,
    shared: Arc<Shared>,
    options: Options,
    queues: Slab<Queue>,
    read: Option<Read>,
    /// The actor's.
    waker: Option<Waker>,
    /// Since when there has been no leader.
    leaderless_since_ms: Option<u64>,
    /// Scratch: empty between calls.
    out: Vec<Output>,
    /// To be woken when the room is left.
    wakers: Vec<Waker>,
    seed: u64,
}

thread_local! {
    static ROOM: RefCell<Option<Room>> = const { RefCell::new(None) };
}

/// Opens the room of this thread; there must be none yet.
pub(super) fn open(room: Room) {
    ROOM.with_borrow_mut(|place| {
        assert!(place.is_none(), "two hubs on one executor");
        *place = Some(room);
    });
}

/// Ends all streams and the room.
pub(super) fn shut(number: u64) {
    // Its sessions find no room any more, and so end.
    with(number, |room| {
        let queues = room.queues.iter_mut();
        room.wakers.extend(queues.filter_map(|(_, queue)| queue.waker.take()));
    });
    ROOM.set(None);
}

/// Looks into the room of this thread, if it is the right one; wakes whom that concerns afterwards.
pub(super) fn with<T>(number: u64, look: impl FnOnce(&mut Room) -> T) -> Option<T> {
    // A session may outlive its thread's storage.
    let looked = ROOM.try_with(|room| {
        let mut room = room.borrow_mut();
        let room = room.as_mut().filter(|room| room.shared.number == number)?;
        let seen = look(room);
        Some((seen, std::mem::take(&mut room.wakers)))
    });
    let (seen, wakers) = looked.ok().flatten()?;
    wakers.into_iter().for_each(Waker::wake);
    Some(seen)
}

impl Room {
    pub(super) fn new(hub: Hub, shared: Arc<Shared>, options: Options) -> Self {
        Self {
            hub,
            shared,
            options,
            queues: Slab::new(),
            read: None,
            waker: None,
            leaderless_since_ms: None,
            out: Vec::new(),
            wakers: Vec::new(),
            seed: options.seed,
        }
    }

    pub(super) fn open(&mut self, requires_leader: bool) -> u32 {
        let stream = self.queues.insert(Queue { requires_leader, ..Queue::default() }) as u32;
        let interval_ms = self.options.progress_interval_ms.max(PROGRESS_INTERVAL_MS_MIN);
        // Up to a tenth more, as in etcd, so that clients that came together are not told together.
        self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let jitter_ms = (self.seed >> 33) % (interval_ms / 10);
        self.tell(Input::Open { stream, progress_interval_ms: interval_ms + jitter_ms });
        stream
    }

    pub(super) fn close(&mut self, stream: u32) {
        if self.queues.try_remove(stream as usize).is_some() {
            self.tell(Input::Close(stream));
        }
    }

    pub(super) fn request(&mut self, stream: u32, request: WatchRequest) {
        let Some(request) = request.request_union else { return };
        let published = self.listen();
        self.tell(match request {
            RequestUnion::CreateRequest(request) => Input::Create { stream, request, published },
            RequestUnion::CancelRequest(request) => {
                Input::Cancel { stream, watch_id: request.watch_id, published }
            }
            RequestUnion::ProgressRequest(_) => Input::Progress { stream, published },
        });
    }

    pub(super) fn refuse(&mut self, stream: u32, reason: String) {
        let published = self.listen();
        self.tell(Input::Refuse { stream, reason, published });
    }

    /// What is published now. All that follows is sent to the hub, unless it has no watchers afterwards.
    fn listen(&self) -> Published {
        if !self.shared.listening.swap(true, Ordering::Relaxed) {
            fence(Ordering::SeqCst);
        }
        self.shared.source.published()
    }

    pub(super) fn waiting(&self, stream: u32) -> usize {
        self.queues.get(stream as usize).map_or(0, |queue| queue.responses.len())
    }

    pub(super) fn poll_next(
        &mut self,
        stream: u32,
        context: &Context<'_>,
    ) -> Poll<Result<WatchResponse, Refusal>> {
        let Some(queue) = self.queues.get_mut(stream as usize) else {
            return Poll::Ready(Err(Refusal::WatchCanceled));
        };
        let Some((mut response, cost)) = queue.responses.pop_front() else {
            if let Some(refusal) = queue.end {
                return Poll::Ready(Err(refusal));
            }
            if queue.responses.capacity() > QUEUE_KEPT {
                queue.responses = VecDeque::new();
            }
            queue.waker = Some(context.waker().clone());
            return Poll::Pending;
        };
        metrics::EVENTS.add(response.events_count() as u64);
        let revision = response.header.map_or(0, |header| header.revision);
        self.tell(Input::Sent { stream, bytes: cost });
        let mut header = self.shared.source.header();
        header.revision = revision;
        response.header = Some(header);
        Poll::Ready(Ok(response))
    }

    /// Ready when the hub wants to read.
    pub(super) fn poll_work(&mut self, context: &Context<'_>) -> Poll<()> {
        if self.read.is_some() {
            return Poll::Ready(());
        }
        self.waker = Some(context.waker().clone());
        Poll::Pending
    }

    pub(super) fn take_read(&mut self) -> Option<Read> {
        self.read.take()
    }

    pub(super) fn tick(&mut self, now_ms: u64) {
        self.tell(Input::Tick { now_ms });
        self.watch_leader(now_ms);
        self.count(self.hub.census());
    }

    /// Tells how many there are. The numbers of the process are those of all of its hubs, so each adds what
    /// has changed since it last looked.
    fn count(&self, census: Census) {
        let shared = &self.shared;
        for (number, now, total) in [
            (&shared.streams, census.streams, &metrics::WATCH_STREAMS),
            (&shared.watchers, census.watchers, &metrics::WATCHERS),
            (&shared.behind, census.behind, &metrics::WATCHERS_SLOW),
        ] {
            let before = number.swap(now, Ordering::Relaxed);
            total.add(now as i64 - before as i64);
        }
        shared.bytes.store(census.bytes, Ordering::Relaxed);
    }

    /// Ends streams that require a leader when there has been none for too long.
    fn watch_leader(&mut self, now_ms: u64) {
        if self.shared.source.has_leader() {
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

    /// Tells the hub, and does what it wants done.
    pub(super) fn tell(&mut self, input: Input) {
        let mut out = std::mem::take(&mut self.out);
        self.hub.on(input, &mut out);
        for output in out.drain(..) {
            match output {
                Output::Send { stream, response, cost } => {
                    let Some(queue) = self.queues.get_mut(stream as usize) else { continue };
                    queue.responses.push_back((response, cost));
                    self.wakers.extend(queue.waker.take());
                }
                Output::ReadHistory { from, revisions_max, bytes_max } => {
                    self.read = Some((from, revisions_max, bytes_max));
                    self.wakers.extend(self.waker.take());
                }
            }
        }
        self.out = out;
        if self.hub.census().watchers == 0 {
            self.shared.listening.store(false, Ordering::Relaxed);
        }
    }
}
