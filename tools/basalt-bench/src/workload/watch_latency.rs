//! Delay from a write to its events: one writer, many watchers of the same key.

use std::cell::RefCell;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use basalt_proto::etcdserverpb::watch_request::RequestUnion;
use basalt_proto::etcdserverpb::{PutRequest, PutResponse, WatchCreateRequest, WatchRequest};
use bytes::Bytes;
use clap::Args;
use prost::Message;
use serde_json::{Map, Value};
use tokio::runtime;
use tokio::task::LocalSet;

use crate::clock::{self, Alarm};
use crate::error::Fatal;
use crate::generator::Pulse;
use crate::http2::Event;
use crate::keys::Values;
use crate::options::Globals;
use crate::paths;
use crate::progress::Progress;
use crate::report::{Finished, Recorder, Report, Written};
use crate::session;
use crate::walk::field;
use crate::wire::{Channel, Dialer};

/// After the last put, events may be this late; then they count as lost.
const LATE_MAX: Duration = Duration::from_secs(60);

/// Flags of `watch-latency`.
#[derive(Args, Clone, Debug)]
pub struct Flags {
    /// Total watch streams
    #[arg(long, default_value_t = 10)]
    pub streams: usize,
    /// Total watchers per stream
    #[arg(long, default_value_t = 10)]
    pub watchers_per_stream: usize,
    /// PrevKV enabled on watch requests
    #[arg(long)]
    pub prevkv: bool,
    /// Total number of put requests
    #[arg(long, default_value_t = 1000)]
    pub put_total: usize,
    /// Number of keys to put per second, evenly spaced (0 is no limit)
    #[arg(long, default_value_t = 100)]
    pub put_rate: u64,
    /// Key size of watch response
    #[arg(long, default_value_t = 32)]
    pub key_size: usize,
    /// Value size of watch response
    #[arg(long, default_value_t = 32)]
    pub val_size: usize,
}

/// The moments of the puts, and the delays of their events. All on one thread.
struct Board {
    start: Instant,
    /// The start, since 1970.
    start_unix: Duration,
    sent: Vec<Instant>,
    answered: Vec<Instant>,
    puts: Recorder,
    /// As etcd measures: from the put's response, 0 if the event came first.
    since_answer: Recorder,
    since_request: Recorder,
    events: u64,
    last: Instant,
    done: Arc<AtomicU64>,
}

impl Board {
    /// The `index`-th event of a watcher came: it is that of the `index`-th put.
    fn event(&mut self, index: usize, now: Instant) -> Result<(), String> {
        let Some(&sent) = self.sent.get(index) else {
            return Err("an event nobody put".to_owned());
        };
        let answered = self.answered.get(index).copied().unwrap_or(now);
        let second = (self.start_unix + sent.saturating_duration_since(self.start)).as_secs();
        self.since_answer.record(clock::nanos(answered, now), second);
        self.since_request.record(clock::nanos(sent, now), second);
        self.events += 1;
        self.last = now;
        self.done.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

/// The watchers of one connection.
struct Watchers {
    /// Events seen, by stream and watch id.
    seen: Vec<Vec<usize>>,
    created: usize,
    error: Option<String>,
}

impl Watchers {
    fn message(&mut self, stream: usize, body: &[u8], board: &RefCell<Board>) {
        if let Err(error) = self.read(stream, body, board) {
            self.error.get_or_insert(error);
        }
    }

    fn read(&mut self, stream: usize, body: &[u8], board: &RefCell<Board>) -> Result<(), String> {
        let (mut id, mut created, mut canceled, mut events) = (0, false, false, 0);
        let mut rest = body;
        loop {
            let next = field(&mut rest).ok_or("an answer that does not decode")?;
            let Some((number, value)) = next else { break };
            match number {
                2 => id = value.number().unwrap_or(0),
                3 => created = value.number() == Some(1),
                4 => canceled = value.number() == Some(1),
                11 => events += 1,
                _ => {}
            }
        }
        if canceled {
            return Err("the server canceled a watcher".to_owned());
        }
        self.created += usize::from(created);
        let watcher = usize::try_from(id).ok().and_then(|id| self.seen[stream].get_mut(id));
        let seen = watcher.ok_or_else(|| format!("watch id {id} was never created"))?;
        let now = clock::now();
        for _ in 0..events {
            board.borrow_mut().event(*seen, now)?;
            *seen += 1;
        }
        Ok(())
    }

    fn watchers(&self) -> usize {
        self.seen.iter().map(Vec::len).sum()
    }
}

/// A connection with its watchers.
struct Watching {
    channel: Channel,
    watchers: Watchers,
}

impl Watching {
    /// Opens `streams` streams and creates all their watchers.
    async fn start(
        dialer: &Dialer,
        number: usize,
        streams: usize,
        request: &WatchRequest,
        per_stream: usize,
        board: &RefCell<Board>,
    ) -> Result<Self, Fatal> {
        let watchers =
            Watchers { seen: vec![vec![0; per_stream]; streams], created: 0, error: None };
        let mut this = Self { channel: dialer.dial(number).await?, watchers };
        let body = request.encode_to_vec();
        for stream in 0..streams {
            if !this.channel.connection.can_open() {
                return Err("the server allows too few streams: raise --conns".into());
            }
            let id = this.channel.connection.open(stream as u64, paths::WATCH, &body, false);
            for _ in 1..per_stream {
                this.channel.connection.send(id, &body);
            }
        }
        while this.watchers.created < this.watchers.watchers() {
            this.turn(board).await?;
        }
        Ok(this)
    }

    async fn turn(&mut self, board: &RefCell<Board>) -> Result<(), Fatal> {
        let watchers = &mut self.watchers;
        self.channel
            .turn(&mut |event| match event {
                Event::Message { token, body } => watchers.message(token as usize, body, board),
                Event::End { outcome, .. } => {
                    let what = outcome.err().map_or("no more".to_owned(), |end| end.to_string());
                    watchers.error.get_or_insert(format!("a watch stream ended: {what}"));
                }
            })
            .await?;
        self.watchers.error.take().map_or(Ok(()), |error| Err(error.into()))
    }

    /// Reads until every watcher has seen `total` events.
    async fn run(mut self, total: usize, board: Rc<RefCell<Board>>) -> Result<(), Fatal> {
        while self.watchers.seen.iter().flatten().any(|&seen| seen < total) {
            self.turn(&board).await?;
        }
        Ok(())
    }
}

/// Watches, puts, checks that every watcher saw every put, and reports.
///
/// # Errors
/// A watcher fails or the server cannot be reached.
pub fn run(globals: &Globals, flags: &Flags) -> Result<Finished, Fatal> {
    let dialer = session::dialer(globals)?;
    let watchers = flags.streams * flags.watchers_per_stream;
    let expected = (watchers * flags.put_total) as u64;
    let progress = Progress::new(expected);
    let now = clock::now();
    let board = Rc::new(RefCell::new(Board {
        start: now,
        start_unix: clock::unix(),
        sent: Vec::new(),
        answered: Vec::new(),
        puts: Recorder::new(globals.series()),
        since_answer: Recorder::new(globals.series()),
        since_request: Recorder::new(globals.series()),
        events: 0,
        last: now,
        done: progress.counter(),
    }));
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    let local = LocalSet::new();
    let ((taken, health), verified) = session::verified(&dialer, !globals.no_verify, || {
        let taken = local.block_on(&runtime, async {
            let pulse = Pulse::start();
            let taken = load(globals, flags, &dialer, &board).await?;
            Ok::<_, Fatal>((taken, pulse.stop().await?))
        })?;
        let puts = &board.borrow().puts;
        let written = Written { answered: puts.count(), failed: puts.error_count() };
        Ok((taken, written))
    })?;
    drop(progress);
    let mut board = board.borrow_mut();
    let lost = expected.saturating_sub(board.events);
    board.since_answer.error("events lost", lost);
    board.since_request.error("events lost", lost);
    let report = |name: &str, heading: &str, total, recorder: &Recorder| Report {
        name: name.to_owned(),
        heading: heading.to_owned(),
        total,
        recorder: recorder.clone(),
    };
    let ours = "\nWatch events since the put's request:\n";
    Ok(Finished {
        reports: vec![
            report("watch-latency-put", "\nPut summary:\n", taken.puts, &board.puts),
            report(
                "watch-latency-watch",
                "\nWatch events summary:\n",
                taken.events,
                &board.since_answer,
            ),
            report("watch-latency-watch-since-request", ours, taken.events, &board.since_request),
        ],
        health,
        verified,
        details: details(globals, flags),
        ..Finished::default()
    })
}

/// Durations of both halves.
struct Taken {
    puts: Duration,
    events: Duration,
}

async fn load(
    globals: &Globals,
    flags: &Flags,
    dialer: &Dialer,
    board: &Rc<RefCell<Board>>,
) -> Result<Taken, Fatal> {
    let mut values = Values::new(flags.key_size, false, globals.seed);
    let key = values.value();
    let value = Values::new(flags.val_size, false, globals.seed.wrapping_add(1)).value();
    let create = WatchCreateRequest {
        key: key.clone(),
        prev_kv: flags.prevkv,
        ..WatchCreateRequest::default()
    };
    let request = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
    let conns = globals.conns.clamp(1, flags.streams.max(1));
    let mut readers = Vec::new();
    for number in 0..conns {
        let streams = flags.streams / conns + usize::from(number < flags.streams % conns);
        let per_stream = flags.watchers_per_stream;
        let watching =
            Watching::start(dialer, number, streams, &request, per_stream, board).await?;
        readers.push(watching);
    }
    let start = clock::now();
    let read = |watching: Watching| watching.run(flags.put_total, Rc::clone(board));
    let readers: Vec<_> =
        readers.into_iter().map(|watching| tokio::task::spawn_local(read(watching))).collect();
    put_all(dialer, flags, key, value, board).await?;
    let puts = clock::now().saturating_duration_since(start);
    let wait = async {
        for reader in readers {
            reader.await??;
        }
        Ok::<_, Fatal>(())
    };
    // Late events are counted as lost by the caller.
    if let Ok(read) = tokio::time::timeout(LATE_MAX, wait).await {
        read?;
    }
    let events = board.borrow().last.saturating_duration_since(start);
    Ok(Taken { puts, events })
}

/// One put after the other, each at its moment; late ones at once.
async fn put_all(
    dialer: &Dialer,
    flags: &Flags,
    key: Bytes,
    value: Bytes,
    board: &RefCell<Board>,
) -> Result<(), Fatal> {
    let request = PutRequest { key, value, ..PutRequest::default() };
    let mut channel = dialer.dial(0).await?;
    let alarm = Alarm::new()?;
    let start = clock::now();
    for index in 0..flags.put_total {
        let offset = (index as u64 * 1_000_000_000).checked_div(flags.put_rate);
        let intended = offset.map_or_else(clock::now, |nanos| start + Duration::from_nanos(nanos));
        if intended > clock::now() {
            alarm.set(intended)?;
            poll_fn(|context| match alarm.poll(context) {
                Poll::Ready(rung) => Poll::Ready(rung),
                Poll::Pending => Poll::Pending,
            })
            .await?;
        }
        board.borrow_mut().sent.push(clock::now());
        let _: PutResponse = channel.call(paths::PUT, &request).await?;
        let now = clock::now();
        let mut board = board.borrow_mut();
        board.answered.push(now);
        board.puts.record(clock::nanos(intended, now), clock::unix().as_secs());
    }
    Ok(())
}

fn details(globals: &Globals, flags: &Flags) -> Map<String, Value> {
    let mut details = Map::new();
    details.insert("endpoints".into(), globals.endpoints.clone().into());
    details.insert("conns".into(), globals.conns.into());
    details.insert("streams".into(), flags.streams.into());
    details.insert("watchers".into(), (flags.streams * flags.watchers_per_stream).into());
    details.insert("put_total".into(), flags.put_total.into());
    details.insert("put_rate".into(), flags.put_rate.into());
    details.insert("key_size".into(), flags.key_size.into());
    details.insert("val_size".into(), flags.val_size.into());
    details
}

#[cfg(test)]
mod tests {
    use basalt_proto::etcdserverpb::WatchResponse;
    use basalt_proto::mvccpb;

    use super::*;

    fn board() -> RefCell<Board> {
        let now = clock::now();
        RefCell::new(Board {
            start: now,
            start_unix: Duration::ZERO,
            sent: vec![now; 2],
            answered: vec![now],
            puts: Recorder::new(false),
            since_answer: Recorder::new(false),
            since_request: Recorder::new(false),
            events: 0,
            last: now,
            done: Arc::default(),
        })
    }

    fn watchers() -> Watchers {
        Watchers { seen: vec![vec![0; 2]], created: 0, error: None }
    }

    #[test]
    fn events_belong_to_puts_in_order_for_each_watcher() {
        let (board, mut watchers) = (board(), watchers());
        let created = WatchResponse { watch_id: 1, created: true, ..WatchResponse::default() };
        watchers.message(0, &created.encode_to_vec(), &board);
        let events = vec![mvccpb::Event::default(); 2];
        let both = WatchResponse { watch_id: 1, events, ..WatchResponse::default() };
        watchers.message(0, &both.encode_to_vec(), &board);
        assert_eq!(watchers.error, None);
        assert_eq!((watchers.created, watchers.seen[0].clone()), (1, vec![0, 2]));
        assert_eq!(board.borrow().since_request.count(), 2);
        watchers.message(0, &both.encode_to_vec(), &board);
        assert_eq!(watchers.error.as_deref(), Some("an event nobody put"));
    }

    #[test]
    fn a_canceled_watcher_is_an_error() {
        let (board, mut watchers) = (board(), watchers());
        let canceled = WatchResponse { canceled: true, ..WatchResponse::default() };
        watchers.message(0, &canceled.encode_to_vec(), &board);
        assert!(watchers.error.is_some());
    }
}
