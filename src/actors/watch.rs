//! Hosts [`crate::watch`]: one hub per executor, shared by the actor below, which feeds it what apply sends
//! and reads history for it, and by the sessions of that executor, which hand in their clients' requests and
//! take what is for them.
//!
//! ```text
//!  apply ─events─► mailbox ─► actor ─► hub ─► one queue per stream ─► session ─► HTTP/2
//!                     └ full: `missed`  ▲ └─ history, a slice at a time      │
//!                                       └─ requests, credit ◄────────────────┘
//! ```
//!
//! Apply never waits: what does not fit into the mailbox is read from history. Hub and queues belong to the executor, so that
//! nothing here is locked and a session's request is a function call.

use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use basalt_proto::encoded::WatchResponse;
use basalt_proto::etcdserverpb::{ResponseHeader, WatchRequest};
use futures_lite::future::{or, yield_now};
use send_wrapper::SendWrapper;

use crate::io::clock;
use crate::metrics;
use crate::mvcc::Event;
use crate::types::limits::{GRPC_OVERHEAD_BYTES, HUB_MAILBOX};
use crate::types::{Fault, Refusal};
use crate::watch::{Config, Hub, Input, StreamOptions, Streams};
pub use crate::watch::{History, HubStats, Published};

/// How often progress notifications, lost leaders and the stats are looked at.
const TICK: Duration = Duration::from_millis(100);
/// Batches in a row before others get their turn.
const BATCHES_MAX: usize = 16;

/// What the actor can be asked.
pub enum Msg {
    /// What was applied. If the mailbox is full it is dropped, and read from history instead.
    Events {
        /// In order.
        events: Arc<[Event]>,
        /// The last revision among them.
        revision: i64,
    },
    /// Something was dropped. If the mailbox is full the actor looks anyway.
    Missed,
    /// All streams end with `etcdserver: server stopped`. The sender waits if the mailbox is full.
    Stop,
}

/// What the hub needs to know of the member. Every answer is immediate.
pub trait Source: Send + Sync + 'static {
    /// The header of this moment; its revision is filled in by the hub.
    fn header(&self) -> ResponseHeader;

    /// What readers see now. Never older than what an answered request did, or than a batch sent to a hub.
    fn published(&self) -> Published;

    /// Reads events from `from` on: whole revisions, at least one if there is one, until either bound is
    /// reached. None if `from` is compacted: [`History::published`] tells.
    ///
    /// # Errors
    /// The store failed.
    fn history(&self, from: i64, revisions_max: usize, bytes_max: usize) -> Result<History, Fault>;

    /// Whether this member knows a leader.
    fn has_leader(&self) -> bool;
}

/// Properties of a hub that do not change while the member runs.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// `--max-request-bytes`.
    pub max_request_bytes: usize,
    /// Bytes of unsent events past which each stream may hold its share only: [`crate::types::Budgets::watch_hub`].
    pub hub_bytes_max: usize,
    /// Of its streams.
    pub streams: StreamOptions,
}

/// Seen by apply, sessions and actor.
struct Shared {
    source: Arc<dyn Source>,
    /// A batch did not fit into the mailbox.
    missed: AtomicBool,
    /// The hub has watchers. Without any, batches are not sent, so that a put does not wake idle cores.
    listening: AtomicBool,
    streams: AtomicUsize,
    watchers: AtomicUsize,
    behind: AtomicUsize,
    bytes: AtomicUsize,
}

/// Cheap to clone. Events may come from anywhere; sessions belong to the hub's executor.
#[derive(Clone)]
pub struct Handle {
    inbox: flume::Sender<Msg>,
    shared: Arc<Shared>,
}

/// What [`start`] needs.
pub struct Mailbox {
    inbox: flume::Receiver<Msg>,
    shared: Arc<Shared>,
    options: Options,
    hub: Hub,
}

/// A hub's mailbox, to be made before apply publishes anything.
pub fn mailbox(source: Arc<dyn Source>, options: Options) -> (Handle, Mailbox) {
    let (sender, inbox) = flume::bounded(HUB_MAILBOX);
    let hub = Hub::new(
        Config {
            hub_bytes_max: options.hub_bytes_max,
            ..Config::new(options.max_request_bytes + GRPC_OVERHEAD_BYTES)
        },
        source.published().revision,
    );
    let shared = Arc::new(Shared {
        source,
        missed: AtomicBool::new(false),
        listening: AtomicBool::new(false),
        streams: AtomicUsize::new(0),
        watchers: AtomicUsize::new(0),
        behind: AtomicUsize::new(0),
        bytes: AtomicUsize::new(0),
    });
    let mailbox = Mailbox { inbox, shared: Arc::clone(&shared), options, hub };
    (Handle { inbox: sender, shared }, mailbox)
}

impl Handle {
    /// Tells the hub what was applied, after it was published. Never waits.
    pub fn events(&self, events: &Arc<[Event]>, revision: i64) {
        if events.is_empty() {
            return;
        }
        // Either this sees the first watcher, or its creation saw what was just published.
        fence(Ordering::SeqCst);
        if !self.shared.listening.load(Ordering::Relaxed) {
            return;
        }
        let msg = Msg::Events { events: Arc::clone(events), revision };
        if let Err(flume::TrySendError::Full(_)) = self.inbox.try_send(msg) {
            self.resync();
        }
    }

    /// More happened at the published revision than is kept: watchers read it from history, if there are any.
    pub fn left_out(&self) {
        // As in `events`.
        fence(Ordering::SeqCst);
        if self.shared.listening.load(Ordering::Relaxed) {
            self.resync();
        }
    }

    /// A snapshot replaced the store: all watchers read what they have not been sent. Never waits.
    pub fn resync(&self) {
        self.shared.missed.store(true, Ordering::Release);
        // The actor may have emptied its mailbox before the flag was up: wake it. If the mailbox is
        // full the actor is awake.
        drop(self.inbox.try_send(Msg::Missed));
    }

    /// Ends all streams, and the actor.
    pub async fn stop(&self) {
        drop(self.inbox.send_async(Msg::Stop).await);
    }

    /// How many there were at the last tick, for metrics.
    pub fn stats(&self) -> HubStats {
        let read = |number: &AtomicUsize| number.load(Ordering::Relaxed);
        HubStats {
            streams: read(&self.shared.streams),
            watchers: read(&self.shared.watchers),
            behind: read(&self.shared.behind),
            bytes: read(&self.shared.bytes),
        }
    }
}

/// The streams of this executor. Cheap to clone.
#[derive(Clone)]
pub struct Sessions {
    streams: SendWrapper<Rc<RefCell<Streams>>>,
    shared: Arc<Shared>,
}

impl Sessions {
    /// Opens a stream. One that requires a leader ends with `etcdserver: no leader` when there has been none for too long.
    ///
    /// # Errors
    /// There is no leader.
    pub fn open(&self, requires_leader: bool) -> Result<Session, Refusal> {
        if requires_leader && !self.shared.source.has_leader() {
            return Err(Refusal::NoLeader);
        }
        let stream = self.with(|streams| streams.open(requires_leader));
        Ok(Session { sessions: self.clone(), stream })
    }

    /// Calls, and wakes sessions afterwards.
    fn with<T>(&self, call: impl FnOnce(&mut Streams) -> T) -> T {
        let mut streams = self.streams.borrow_mut();
        let result = call(&mut streams);
        let wakers = streams.take_wakers();
        if streams.stats().watchers == 0 {
            self.shared.listening.store(false, Ordering::Relaxed);
        }
        drop(streams);
        wakers.into_iter().for_each(Waker::wake);
        result
    }

    /// The published state of now. All batches that follow are sent to the hub, unless it has no watchers afterwards.
    fn listen(&self) -> Published {
        if !self.shared.listening.swap(true, Ordering::Relaxed) {
            fence(Ordering::SeqCst);
        }
        self.shared.source.published()
    }

    fn tick(&self) {
        let has_leader = self.shared.source.has_leader();
        self.with(|streams| streams.tick(clock::now_ms(), has_leader));
        self.count(self.streams.borrow().stats());
    }

    /// Updates the gauges. Those of the process are sums over its hubs, so that each adds its own change.
    fn count(&self, stats: HubStats) {
        let shared = &self.shared;
        for (number, now, total) in [
            (&shared.streams, stats.streams, &metrics::WATCH_STREAMS),
            (&shared.watchers, stats.watchers, &metrics::WATCHERS),
            (&shared.behind, stats.behind, &metrics::WATCHERS_SLOW),
        ] {
            let before = number.swap(now, Ordering::Relaxed);
            total.add(now as i64 - before as i64);
        }
        shared.bytes.store(stats.bytes, Ordering::Relaxed);
    }
}

/// One client's stream. Closed when dropped.
pub struct Session {
    sessions: Sessions,
    stream: u32,
}

impl Session {
    /// Hands in a client's request. Unknown requests are ignored, as etcd does.
    pub fn request(&self, request: WatchRequest) {
        let published = self.sessions.listen();
        self.sessions.with(|streams| streams.request(self.stream, request, published));
    }

    /// Answers a client that may not create the watch that it wants.
    pub fn refuse(&self, reason: String) {
        let (stream, published) = (self.stream, self.sessions.listen());
        self.sessions.with(|streams| streams.on(Input::Refuse { stream, reason, published }));
    }

    /// Responses that wait to be taken.
    pub fn waiting(&self) -> usize {
        self.sessions.streams.borrow().waiting(self.stream)
    }

    /// The next response for the client, header and all.
    ///
    /// # Errors
    /// The stream is over: the member stops, or there is no leader.
    pub fn poll_next(&self, context: &Context<'_>) -> Poll<Result<WatchResponse, Refusal>> {
        let next = self.sessions.with(|streams| streams.poll_next(self.stream, context.waker()));
        next.map_ok(|mut response| {
            metrics::EVENTS.add(response.events_count() as u64);
            let revision = response.header.map_or(0, |header| header.revision);
            let header = self.sessions.shared.source.header();
            response.header = Some(ResponseHeader { revision, ..header });
            response
        })
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.sessions.with(|streams| streams.close(self.stream));
    }
}

/// Opens the hub on this executor: gives its streams, and the actor to run there.
pub fn start(mailbox: Mailbox) -> (Sessions, impl Future<Output = Result<(), Fault>>) {
    let Mailbox { inbox, shared, options, hub } = mailbox;
    let streams = Rc::new(RefCell::new(Streams::new(hub, options.streams)));
    let sessions = Sessions { streams: SendWrapper::new(streams), shared };
    let actor = {
        let sessions = sessions.clone();
        async move {
            let served = run(&inbox, &sessions).await;
            sessions.with(Streams::end);
            served
        }
    };
    (sessions, actor)
}

/// The reasons for which a wait ends.
enum Woken {
    Msg(Msg),
    /// The hub wants to read history.
    Read,
    Tick,
    Stop,
}

/// Serves until it is to stop.
async fn run(inbox: &flume::Receiver<Msg>, sessions: &Sessions) -> Result<(), Fault> {
    let shared = &sessions.shared;
    let mut tick = pin!(clock::sleep(TICK));
    loop {
        let msg = async { inbox.recv_async().await.map_or(Woken::Stop, Woken::Msg) };
        let read = async {
            poll_fn(|context| sessions.streams.borrow_mut().poll_read(context.waker())).await;
            Woken::Read
        };
        let time = async {
            tick.as_mut().await;
            Woken::Tick
        };
        match or(msg, or(read, time)).await {
            Woken::Msg(msg) => {
                // All that waits, up to a bound: load makes batches, idle makes none.
                let waiting = inbox.try_iter().take(BATCHES_MAX);
                if std::iter::once(msg).chain(waiting).any(|msg| is_last(msg, sessions)) {
                    return Ok(());
                }
            }
            Woken::Read => (),
            Woken::Tick => {
                sessions.tick();
                tick.set(clock::sleep(TICK));
            }
            Woken::Stop => return Ok(()),
        }
        if shared.missed.swap(false, Ordering::Acquire) {
            let published = shared.source.published();
            sessions.with(|streams| streams.on(Input::Resync(published)));
        }
        if let Some(read) = sessions.with(Streams::take_read) {
            let history = shared.source.history(read.from, read.revisions_max, read.bytes_max)?;
            sessions.with(|streams| streams.on(Input::History(history)));
        }
        yield_now().await;
    }
}

/// Takes a message; `true` for the one to stop.
fn is_last(msg: Msg, sessions: &Sessions) -> bool {
    match msg {
        Msg::Events { events, revision } => {
            sessions.with(|streams| streams.on(Input::Events { events, revision }));
            false
        }
        Msg::Missed => false,
        Msg::Stop => true,
    }
}
