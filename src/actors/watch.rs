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
//! Apply never waits: what does not fit into the mailbox is read from history. Hub and queues are a
//! thread-local of the executor, so that nothing here is locked and a session's request is a function call; a
//! [`Session`] holds only numbers, which makes it `Send` as tonic wants it. What a client does not take
//! stays in its queue, uncredited, and makes its watchers fall behind: that is all the back-pressure there is.

mod room;

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};
use std::task::{Context, Poll};
use std::time::Duration;

use basalt_proto::encoded::WatchResponse;
use basalt_proto::etcdserverpb::{ResponseHeader, WatchRequest};
use futures_lite::future::{or, yield_now};

use self::room::Room;
use crate::io::clock;
use crate::mvcc::Event;
use crate::types::limits::{GRPC_OVERHEAD_BYTES, HUB_MAILBOX};
use crate::types::{Fault, Refusal};
pub use crate::watch::{Census, History, Published};
use crate::watch::{Config, Hub, Input};

/// How often progress notifications, lost leaders and the census are looked at.
const TICK: Duration = Duration::from_millis(100);
/// Batches in a row before others get their turn.
const BATCHES_MAX: usize = 16;
/// etcd raises shorter progress intervals to this.
const PROGRESS_INTERVAL_MS_MIN: u64 = 100;

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

/// What an operator can choose.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// `--max-request-bytes`.
    pub max_request_bytes: usize,
    /// `--watch-progress-notify-interval`.
    pub progress_interval_ms: u64,
    /// Streams that require a leader end after this long without one: three election timeouts.
    pub no_leader_ms_max: u64,
    /// Random, for the jitter of progress notifications.
    pub seed: u64,
}

/// Seen by apply, sessions and actor.
struct Shared {
    /// Which hub: a session used on a foreign executor must not find another one.
    number: u64,
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
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let (sender, inbox) = flume::bounded(HUB_MAILBOX);
    let hub = Hub::new(
        Config::new(options.max_request_bytes + GRPC_OVERHEAD_BYTES),
        source.published().revision,
    );
    let shared = Arc::new(Shared {
        number: NUMBER.fetch_add(1, Ordering::Relaxed),
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

    /// Opens a stream. To be called on the hub's executor. A stream that requires a leader ends with
    /// `etcdserver: no leader` when there has been none for too long.
    ///
    /// # Errors
    /// The hub does not run, or there is no leader.
    pub fn open(&self, requires_leader: bool) -> Result<Session, Refusal> {
        if requires_leader && !self.shared.source.has_leader() {
            return Err(Refusal::NoLeader);
        }
        let stream = room::with(self.shared.number, |room| room.open(requires_leader));
        let stream = stream.ok_or(Refusal::Stopped)?;
        Ok(Session { shared: Arc::clone(&self.shared), stream })
    }

    /// How many there were at the last tick, for metrics.
    pub fn census(&self) -> Census {
        let read = |number: &AtomicUsize| number.load(Ordering::Relaxed);
        Census {
            streams: read(&self.shared.streams),
            watchers: read(&self.shared.watchers),
            behind: read(&self.shared.behind),
            bytes: read(&self.shared.bytes),
        }
    }
}

/// One client's stream. Closed when dropped.
pub struct Session {
    shared: Arc<Shared>,
    stream: u32,
}

impl Session {
    /// Hands in what the client asks for. Unknown requests are ignored, as etcd does.
    pub fn request(&self, request: WatchRequest) {
        room::with(self.shared.number, |room| room.request(self.stream, request));
    }

    /// Tells the client that it may not create the watch that it wants.
    pub fn refuse(&self, reason: String) {
        room::with(self.shared.number, |room| room.refuse(self.stream, reason));
    }

    /// How many responses wait to be taken.
    pub fn waiting(&self) -> usize {
        room::with(self.shared.number, |room| room.waiting(self.stream)).unwrap_or(0)
    }

    /// The next response for the client, header and all.
    ///
    /// # Errors
    /// The stream is over: the hub stopped, or there is no leader.
    pub fn poll_next(&self, context: &Context<'_>) -> Poll<Result<WatchResponse, Refusal>> {
        room::with(self.shared.number, |room| room.poll_next(self.stream, context))
            .unwrap_or(Poll::Ready(Err(Refusal::Stopped)))
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        room::with(self.shared.number, |room| room.close(self.stream));
    }
}

/// Opens the hub on this executor, for sessions to find, and gives the actor to run there.
pub fn start(mailbox: Mailbox) -> impl Future<Output = Result<(), Fault>> {
    let Mailbox { inbox, shared, options, hub } = mailbox;
    room::open(Room::new(hub, Arc::clone(&shared), options));
    async move {
        let served = run(&inbox, &shared).await;
        room::shut(shared.number);
        served
    }
}

/// What ends a wait.
enum Woken {
    Told(Msg),
    /// The hub wants to read.
    Work,
    Tick,
    Stop,
}

/// Serves until told to stop.
async fn run(inbox: &flume::Receiver<Msg>, shared: &Shared) -> Result<(), Fault> {
    let number = shared.number;
    let mut tick = pin!(clock::sleep(TICK));
    loop {
        let told = async { inbox.recv_async().await.map_or(Woken::Stop, Woken::Told) };
        let work = async {
            poll_fn(|context| {
                room::with(number, |room| room.poll_work(context)).unwrap_or(Poll::Ready(()))
            })
            .await;
            Woken::Work
        };
        let time = async {
            tick.as_mut().await;
            Woken::Tick
        };
        match or(told, or(work, time)).await {
            Woken::Told(msg) => {
                // All that waits, up to a bound: load makes batches, idle makes none.
                let waiting = inbox.try_iter().take(BATCHES_MAX);
                if std::iter::once(msg).chain(waiting).any(|msg| is_last(msg, number)) {
                    return Ok(());
                }
            }
            Woken::Work => (),
            Woken::Tick => {
                room::with(number, |room| room.tick(clock::now_ms()));
                tick.set(clock::sleep(TICK));
            }
            Woken::Stop => return Ok(()),
        }
        if shared.missed.swap(false, Ordering::Acquire) {
            let published = shared.source.published();
            room::with(number, |room| room.tell(Input::Resync(published)));
        }
        if let Some((from, revisions_max, bytes_max)) =
            room::with(number, Room::take_read).flatten()
        {
            let history = shared.source.history(from, revisions_max, bytes_max)?;
            room::with(number, |room| room.tell(Input::History(history)));
        }
        yield_now().await;
    }
}

/// Does what a message says; `true` for the one to stop.
fn is_last(msg: Msg, number: u64) -> bool {
    match msg {
        Msg::Events { events, revision } => {
            room::with(number, |room| room.tell(Input::Events { events, revision }));
            false
        }
        Msg::Missed => false,
        Msg::Stop => true,
    }
}
