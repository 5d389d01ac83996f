//! The mailbox of a watch hub: the events of apply, which never waits, and the hub's access to the member's state.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};

use basalt_proto::etcdserverpb::ResponseHeader;

use crate::mvcc::Event;
use crate::types::Fault;
use crate::types::limits::{GRPC_OVERHEAD_BYTES, HUB_MAILBOX};
use crate::watch::{Config, History, Hub, HubStats, Published, StreamOptions};

/// Messages of the actor.
pub enum Msg {
    /// A batch was applied. If the mailbox is full it is dropped, and read from history instead.
    Events {
        /// The events, in order.
        events: Arc<[Event]>,
        /// The last revision among them.
        revision: i64,
    },
    /// A batch was dropped. If the mailbox is full the actor checks the flag anyway.
    Missed,
    /// All streams end with `etcdserver: server stopped`. The sender waits if the mailbox is full.
    Stop,
}

/// The hub's access to the member's state. No call waits.
pub trait Source: Send + Sync + 'static {
    /// The response header as of now; its revision is set by the hub.
    fn header(&self) -> ResponseHeader;

    /// The published state. Never older than the effect of an answered request, or than a batch sent to a hub.
    fn published(&self) -> Published;

    /// Reads events from `from` on: whole revisions, at least one if there is one, until either bound is reached. None
    /// if `from` is compacted, which [`History::published`] shows.
    ///
    /// # Errors
    /// The store failed.
    fn history(&self, from: i64, revisions_max: usize, bytes_max: usize) -> Result<History, Fault>;

    /// True if this member knows a leader.
    fn has_leader(&self) -> bool;
}

/// Properties of a hub that do not change while the member runs.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// `--max-request-bytes`.
    pub max_request_bytes: usize,
    /// Bytes of unsent events past which each stream is limited to its share: [`crate::types::Budgets::watch_hub`].
    pub hub_bytes_max: usize,
    /// Options of its streams.
    pub streams: StreamOptions,
}

/// Seen by apply, sessions and actor.
pub(in crate::actors) struct Shared {
    pub(in crate::actors) source: Arc<dyn Source>,
    /// A batch did not fit into the mailbox.
    pub(in crate::actors) missed: AtomicBool,
    /// The hub has watchers. Without any, batches are not sent, so that a put does not wake idle cores.
    pub(in crate::actors) listening: AtomicBool,
    pub(in crate::actors) streams: AtomicUsize,
    pub(in crate::actors) watchers: AtomicUsize,
    pub(in crate::actors) behind: AtomicUsize,
    pub(in crate::actors) bytes: AtomicUsize,
    pub(in crate::actors) events: AtomicUsize,
}

/// The handle of a hub's actor. Cheap to clone. Events may come from any thread; sessions belong to the hub's executor.
#[derive(Clone)]
pub struct Handle {
    inbox: flume::Sender<Msg>,
    shared: Arc<Shared>,
}

/// The arguments of the hub's loop.
pub struct Mailbox {
    pub(in crate::actors) inbox: flume::Receiver<Msg>,
    pub(in crate::actors) shared: Arc<Shared>,
    pub(in crate::actors) options: Options,
    pub(in crate::actors) hub: Hub,
}

/// A hub's mailbox, to be created before apply publishes anything.
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
        events: AtomicUsize::new(0),
    });
    let mailbox = Mailbox { inbox, shared: Arc::clone(&shared), options, hub };
    (Handle { inbox: sender, shared }, mailbox)
}

impl Handle {
    /// Sends an applied batch to the hub, after it was published. Never waits.
    pub fn events(&self, events: &Arc<[Event]>, revision: i64) {
        if events.is_empty() {
            return;
        }
        // Either this load sees the first watcher, or the creation of that watcher saw the state just published.
        fence(Ordering::SeqCst);
        if !self.shared.listening.load(Ordering::Relaxed) {
            return;
        }
        let msg = Msg::Events { events: Arc::clone(events), revision };
        if let Err(flume::TrySendError::Full(_)) = self.inbox.try_send(msg) {
            self.resync();
        }
    }

    /// The published revision has more events than are kept: watchers read them from history, if there are any watchers.
    pub fn left_out(&self) {
        // As in `events`.
        fence(Ordering::SeqCst);
        if self.shared.listening.load(Ordering::Relaxed) {
            self.resync();
        }
    }

    /// A snapshot replaced the store: all watchers read the events that they have not been sent. Never waits.
    pub fn resync(&self) {
        self.shared.missed.store(true, Ordering::Release);
        // The actor may have emptied its mailbox before the flag was set: wake it. If the mailbox is full the
        // actor is running.
        drop(self.inbox.try_send(Msg::Missed));
    }

    /// Ends all streams, and the actor.
    pub async fn stop(&self) {
        drop(self.inbox.send_async(Msg::Stop).await);
    }

    /// Counts as of the last tick, for metrics.
    pub fn stats(&self) -> HubStats {
        let read = |number: &AtomicUsize| number.load(Ordering::Relaxed);
        HubStats {
            streams: read(&self.shared.streams),
            watchers: read(&self.shared.watchers),
            behind: read(&self.shared.behind),
            bytes: read(&self.shared.bytes),
            events: read(&self.shared.events),
        }
    }
}
