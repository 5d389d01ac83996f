//! Hosts [`crate::watch`]: one hub per executor, shared by the actor below, which passes it the events of apply and reads
//! history for it, and by the sessions of that executor, which pass their clients' requests to it and take responses.
//!
//! ```text
//!  apply ─events─► mailbox ─► actor ─► hub ─► one queue per stream ─► session ─► HTTP/2
//!                     └ full: `missed`  ▲ └─ history, a slice at a time      │
//!                                       └─ requests, credit ◄────────────────┘
//! ```
//!
//! Apply never waits: events that do not fit into the mailbox are read from history. Hub and queues belong to the
//! executor, so that nothing here is locked and a session's request is a function call.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use basalt_proto::encoded::WatchResponse;
use basalt_proto::etcdserverpb::{ResponseHeader, WatchRequest};
use futures_lite::future::{or, yield_now};
use send_wrapper::SendWrapper;

pub use super::mailbox::watch::{Handle, Mailbox, Options, Source, mailbox};
use super::mailbox::watch::{Msg, Shared};
use crate::io::{MayStall, UnsentBytes, clock};
use crate::metrics;
use crate::types::{Fault, Refusal};
pub use crate::watch::{History, HubStats, Published};
use crate::watch::{Input, Streams, Taken};

/// Interval for progress notifications, streams without a leader, and stats.
const TICK: Duration = Duration::from_millis(100);
/// Batches handled before the task yields.
const BATCHES_MAX: usize = 16;

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
        self.tick_if_idle();
        let stream = self.with(|streams| streams.open(requires_leader));
        let unsent = Rc::new(Unsent { sessions: self.clone(), stream: Cell::new(Some(stream)) });
        Ok(Session { sessions: self.clone(), stream, unsent: SendWrapper::new(unsent) })
    }

    /// Makes a call, and wakes sessions afterwards.
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

    /// The published state. All batches that follow are sent to the hub, unless it has no watchers afterwards.
    fn listen(&self) -> Published {
        if !self.shared.listening.swap(true, Ordering::Relaxed) {
            fence(Ordering::SeqCst);
        }
        self.shared.source.published()
    }

    /// Ticks that were left out while there were no streams.
    fn tick_if_idle(&self) {
        if self.streams.borrow().is_empty() {
            self.tick();
        }
    }

    fn tick(&self) {
        let has_leader = self.shared.source.has_leader();
        self.with(|streams| streams.tick(clock::now_ms(), has_leader));
        self.count(self.streams.borrow().stats());
    }

    /// Updates the gauges. They are sums over the hubs of the process, so that each adds its own change.
    fn count(&self, stats: HubStats) {
        let shared = &self.shared;
        for (number, now, total) in [
            (&shared.streams, stats.streams, &metrics::WATCH_STREAMS),
            (&shared.watchers, stats.watchers, &metrics::WATCHERS),
            (&shared.behind, stats.behind, &metrics::WATCHERS_SLOW),
            (&shared.events, stats.events, &metrics::EVENTS_PENDING),
        ] {
            let before = number.swap(now, Ordering::Relaxed);
            total.add(now as i64 - before as i64);
        }
        shared.bytes.store(stats.bytes, Ordering::Relaxed);
    }
}

/// The bytes of one stream that HTTP/2 holds.
struct Unsent {
    sessions: Sessions,
    /// None once the stream was closed: its number may be another's then.
    stream: Cell<Option<u32>>,
}

impl Unsent {
    fn with(&self, call: impl FnOnce(&mut Streams, u32)) {
        if let Some(stream) = self.stream.get() {
            self.sessions.with(|streams| call(streams, stream));
        }
    }
}

impl UnsentBytes for Unsent {
    fn given(&self, bytes: usize) {
        self.with(|streams, stream| streams.given(stream, bytes));
    }

    fn sent(&self, bytes: usize) {
        self.with(|streams, stream| streams.sent(stream, bytes));
    }
}

/// One client's stream. Closed when dropped.
pub struct Session {
    sessions: Sessions,
    stream: u32,
    unsent: SendWrapper<Rc<Unsent>>,
}

impl Session {
    /// The mark of the response: a client may take events as late as it likes, and HTTP/2 gets no more meanwhile.
    pub fn may_stall(&self) -> MayStall {
        MayStall::new(Rc::<Unsent>::clone(&self.unsent))
    }

    /// Passes a client's request to the hub. Unknown requests are ignored, as etcd does.
    pub fn request(&self, request: WatchRequest) {
        let published = self.sessions.listen();
        self.sessions.with(|streams| streams.request(self.stream, request, published));
    }

    /// Answers a create request without permission.
    pub fn refuse(&self, reason: String) {
        let (stream, published) = (self.stream, self.sessions.listen());
        self.sessions.with(|streams| streams.on(Input::Refuse { stream, reason, published }));
    }

    /// Number of queued responses.
    pub fn waiting(&self) -> usize {
        self.sessions.streams.borrow().waiting(self.stream)
    }

    /// The next response for the client, with a complete header.
    ///
    /// # Errors
    /// The stream has ended: the member stops, or there is no leader.
    pub fn poll_next(&self, context: &Context<'_>) -> Poll<Result<WatchResponse, Refusal>> {
        let next = self.sessions.with(|streams| streams.poll_next(self.stream, context.waker()));
        next.map_ok(|Taken { mut response, events }| {
            metrics::EVENTS.add(events as u64);
            let revision = response.header.map_or(0, |header| header.revision);
            let header = self.sessions.shared.source.header();
            response.header = Some(ResponseHeader { revision, ..header });
            response
        })
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.unsent.stream.set(None);
        self.sessions.with(|streams| streams.close(self.stream));
        self.sessions.tick_if_idle();
    }
}

/// Creates the hub on this executor: returns its streams, and the actor to run there.
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

/// Runs until a stop.
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
            poll_fn(|context| sessions.streams.borrow_mut().poll_used(context.waker())).await;
            tick.as_mut().await;
            Woken::Tick
        };
        match or(msg, or(read, time)).await {
            Woken::Msg(msg) => {
                // All queued messages, up to a bound: load makes batches, idle makes none.
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

/// Handles a message; `true` for a stop.
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
