//! Watchers beside a load: a thread of its own with connections, streams and watchers, which counts
//! their events and measures the delay of each.
//!
//! Puts that are watched carry the moment they were sent in the last eight bytes of their value
//! ([`stamp`]), so that the age of an event can be computed from the event alone.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use basalt_proto::etcdserverpb::watch_request::RequestUnion;
use basalt_proto::etcdserverpb::{WatchCreateRequest, WatchRequest};
use prost::Message;
use tokio::runtime;
use tokio::task::LocalSet;

use crate::clock;
use crate::error::Fatal;
use crate::generator::{Health, Pulse};
use crate::http2::Event;
use crate::notice::Notice;
use crate::paths;
use crate::report::Recorder;
use crate::wire::{Channel, Dialer};

/// Missing events count as lost after this time without any event.
const SILENCE_MAX: Duration = Duration::from_secs(20);
/// Interval at which the thread checks the stop flag.
const LOOK: Duration = Duration::from_millis(20);
/// Bytes of a stamp.
pub const STAMP_BYTES: usize = 8;

/// The watchers of one stream, created one after the other, as etcd's client does it.
pub type Stream = Vec<WatchCreateRequest>;

/// Running watchers.
#[derive(Debug)]
pub struct Spectators {
    shared: Arc<Shared>,
    created: Receiver<()>,
    thread: JoinHandle<Result<(), String>>,
    result: Arc<std::sync::Mutex<Seen>>,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    events: AtomicU64,
}

/// Results of the watchers.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Latency of each watcher's creation.
    pub creation: Recorder,
    /// From the first request to the last watcher.
    pub creation_total: Duration,
    /// Age of each event whose value has a stamp.
    pub events: Recorder,
    /// Number of events, those without a stamp included.
    pub event_count: u64,
    /// From the first event to the last.
    pub events_total: Duration,
    /// State of the thread and its event loop.
    pub health: Health,
}

/// Nanoseconds since the first call in this process: the content of a stamp.
fn nanos_now() -> u64 {
    static BASE: OnceLock<Instant> = OnceLock::new();
    let now = clock::now();
    clock::nanos(*BASE.get_or_init(|| now), now)
}

/// The moment of a put, for the end of its value.
pub fn stamp() -> [u8; STAMP_BYTES] {
    nanos_now().to_be_bytes()
}

impl Spectators {
    /// Connects, and begins to create the watchers over at most `conns` connections.
    pub fn start(dialer: &Dialer, conns: usize, streams: Vec<Stream>, series: bool) -> Self {
        let shared = Arc::new(Shared::default());
        let result = Arc::new(std::sync::Mutex::new(Seen::new(series)));
        let (tell, created) = sync_channel(1);
        let thread = thread::spawn({
            let (dialer, shared, result) =
                (dialer.clone(), Arc::clone(&shared), Arc::clone(&result));
            move || {
                let runtime = runtime::Builder::new_current_thread().enable_all().build();
                let runtime = runtime.map_err(|error| error.to_string())?;
                let local = LocalSet::new();
                let watch = watch(dialer, conns, streams, series, &shared, move || {
                    let _ = tell.send(());
                });
                let seen = local.block_on(&runtime, watch).map_err(|error| error.to_string())?;
                *result.lock().map_err(|_| "the result was poisoned")? = seen;
                Ok(())
            }
        });
        Self { shared, created, thread, result }
    }

    /// Waits until every watcher is created. Returns also if the thread ended before; [`Self::finish`]
    /// then returns the error.
    pub fn wait_created(&self) {
        let _ = self.created.recv();
    }

    /// Number of events so far.
    pub fn events(&self) -> u64 {
        self.shared.events.load(Ordering::Relaxed)
    }

    /// True while the thread runs.
    pub fn is_alive(&self) -> bool {
        !self.thread.is_finished()
    }

    /// Waits for `expected` events, and ends the watchers. Missing events are
    /// errors of the events' recorder.
    ///
    /// # Errors
    /// A watcher failed or its connection broke.
    pub fn finish(self, expected: u64) -> Result<Seen, Fatal> {
        let mut last = (self.events(), clock::now());
        while self.events() < expected && self.is_alive() {
            thread::park_timeout(LOOK);
            let events = self.events();
            let now = clock::now();
            if events > last.0 {
                last = (events, now);
            } else if now.saturating_duration_since(last.1) > SILENCE_MAX {
                break;
            }
        }
        self.shared.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| "the thread that watches panicked")??;
        let mut seen = self.result.lock().map_err(|_| "the result was poisoned")?.clone();
        seen.events.error("events lost", expected.saturating_sub(seen.event_count));
        seen.events.error("events nobody expected", seen.event_count.saturating_sub(expected));
        Ok(seen)
    }
}

impl Seen {
    fn new(series: bool) -> Self {
        Self {
            creation: Recorder::new(series),
            creation_total: Duration::ZERO,
            events: Recorder::new(series),
            event_count: 0,
            events_total: Duration::ZERO,
            health: Health::default(),
        }
    }
}

/// State shared by all connections of the thread.
struct Board {
    seen: Seen,
    first: Option<Instant>,
    start: Instant,
    start_unix: Duration,
    shared: Arc<Shared>,
}

impl Board {
    fn created(&mut self, asked: Instant) {
        let now = clock::now();
        let second = (self.start_unix + asked.saturating_duration_since(self.start)).as_secs();
        self.seen.creation.record(clock::nanos(asked, now), second);
        self.seen.creation_total = now.saturating_duration_since(self.start);
    }

    fn events(&mut self, notice: &Notice<'_>) {
        let (now, clock_now) = (nanos_now(), clock::now());
        let unix = self.start_unix + clock_now.saturating_duration_since(self.start);
        let mut count = 0;
        for value in notice.values() {
            count += 1;
            if let Some(stamp) = value.last_chunk::<STAMP_BYTES>() {
                let age = now.saturating_sub(u64::from_be_bytes(*stamp));
                let sent = unix.saturating_sub(Duration::from_nanos(age));
                self.seen.events.record(age, sent.as_secs());
            }
        }
        if count > 0 {
            let first = *self.first.get_or_insert(clock_now);
            self.seen.events_total = clock_now.saturating_duration_since(first);
            self.seen.event_count += count;
            self.shared.events.fetch_add(count, Ordering::Relaxed);
        }
    }
}

/// One stream on its connection.
struct Watching {
    id: u32,
    /// Watchers that are still to be created, the next one last.
    waiting: Vec<WatchCreateRequest>,
    asked: Instant,
}

/// The main function of the thread.
async fn watch(
    dialer: Dialer,
    conns: usize,
    streams: Vec<Stream>,
    series: bool,
    shared: &Arc<Shared>,
    tell: impl FnOnce(),
) -> Result<Seen, Fatal> {
    let pulse = Pulse::start();
    let conns = conns.max(dialer.endpoints.len()).clamp(1, streams.len().max(1));
    let mut parts: Vec<Vec<Stream>> = vec![Vec::new(); conns];
    for (number, stream) in streams.into_iter().enumerate() {
        parts[number % conns].push(stream);
    }
    let channels = dialer.dial_all(0..conns).await?;
    let start = clock::now();
    let board = Rc::new(RefCell::new(Board {
        seen: Seen::new(series),
        first: None,
        start,
        start_unix: clock::unix(),
        shared: Arc::clone(shared),
    }));
    let missing =
        Rc::new(std::cell::Cell::new(parts.iter().flatten().map(Vec::len).sum::<usize>()));
    let tasks: Vec<_> = channels
        .into_iter()
        .zip(parts)
        .map(|(channel, streams)| {
            let (board, missing) = (Rc::clone(&board), Rc::clone(&missing));
            tokio::task::spawn_local(connection(channel, streams, board, missing))
        })
        .collect();
    let mut tell = Some(tell);
    while !shared.stop.load(Ordering::Relaxed) {
        if missing.get() == 0
            && let Some(tell) = tell.take()
        {
            tell();
        }
        if let Some(failed) = tasks.iter().position(tokio::task::JoinHandle::is_finished) {
            let failed = tasks.into_iter().nth(failed).ok_or("a task is gone")?;
            return Err(failed.await?.into());
        }
        tokio::time::sleep(LOOK / 10).await;
    }
    tasks.iter().for_each(tokio::task::JoinHandle::abort);
    let health = pulse.stop().await?;
    let seen = board.borrow().seen.clone();
    Ok(Seen { health, ..seen })
}

/// Runs one connection until it fails; returns the reason.
async fn connection(
    mut channel: Channel,
    streams: Vec<Stream>,
    board: Rc<RefCell<Board>>,
    missing: Rc<std::cell::Cell<usize>>,
) -> String {
    let mut watching = Vec::new();
    for mut waiting in streams {
        waiting.reverse();
        let Some(first) = waiting.pop() else { continue };
        if !channel.connection.can_open() {
            return "the server allows too few streams: raise --conns".to_owned();
        }
        let (token, body) = (watching.len() as u64, encoded(first));
        let id = channel.connection.open(token, paths::WATCH, &body, false);
        watching.push(Watching { id, waiting, asked: clock::now() });
    }
    loop {
        let mut created = Vec::new();
        let mut failed = None;
        let mut on = |event: Event<'_>| match event {
            Event::Message { token, body } => match Notice::read(body) {
                Some(notice) if notice.canceled => {
                    let reason = String::from_utf8_lossy(notice.reason).into_owned();
                    failed.get_or_insert(format!("the server canceled a watcher: {reason}"));
                }
                Some(notice) => {
                    if notice.created {
                        created.push(token as usize);
                    }
                    board.borrow_mut().events(&notice);
                }
                None => {
                    failed.get_or_insert("a watch response that does not decode".to_owned());
                }
            },
            Event::End { outcome, .. } => {
                let what = outcome.err().map_or("no more".to_owned(), |end| end.to_string());
                failed.get_or_insert(format!("a watch stream ended: {what}"));
            }
        };
        if let Err(error) = channel.turn(&mut on).await {
            failed.get_or_insert(error.to_string());
        }
        if let Some(failed) = failed {
            return failed;
        }
        for number in created {
            let stream = &mut watching[number];
            board.borrow_mut().created(stream.asked);
            missing.set(missing.get().saturating_sub(1));
            if let Some(next) = stream.waiting.pop() {
                stream.asked = clock::now();
                channel.connection.send(stream.id, &encoded(next));
            }
        }
    }
}

fn encoded(create: WatchCreateRequest) -> Vec<u8> {
    WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) }.encode_to_vec()
}

#[cfg(test)]
mod tests {
    use basalt_proto::etcdserverpb::WatchResponse;
    use basalt_proto::mvccpb;

    use super::*;

    #[test]
    fn events_are_as_old_as_their_stamp_says() {
        let now = clock::now();
        let mut board = Board {
            seen: Seen::new(false),
            first: None,
            start: now,
            start_unix: Duration::from_secs(100),
            shared: Arc::default(),
        };
        let event = |value: Vec<u8>| {
            let kv = mvccpb::KeyValue { value: value.into(), ..Default::default() };
            mvccpb::Event { kv: Some(kv), ..Default::default() }
        };
        let stamped = [b"some value".as_slice(), &stamp()].concat();
        let events = vec![event(stamped), event(b"short".to_vec())];
        let body = WatchResponse { events, ..Default::default() }.encode_to_vec();
        board.events(&Notice::read(&body).unwrap());
        assert_eq!((board.seen.event_count, board.seen.events.count()), (2, 1));
        assert_eq!(board.shared.events.load(Ordering::Relaxed), 2);
        assert!(board.seen.events.slowest() < 1_000_000_000, "it is not older than the test");
    }
}
