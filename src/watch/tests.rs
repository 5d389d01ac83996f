//! The hub against a naive model: random changes, watches, slow clients, lost batches, compactions; every response is
//! checked when its client takes it, and at the end none may be missing.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use basalt_proto::etcdserverpb::{WatchCreateRequest, WatchResponse};
use basalt_proto::mvccpb;
use basalt_proto::{encoded, mvccpb::KeyValue};
use bytes::Bytes;
use prost::Message as _;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use super::fixture::{Change, Store, typed};
use super::{Config, Hub, INVALID_WATCH_ID, Input, Output, StreamId};
use crate::mvcc::Event;
use crate::types::KeyRange;

const KEYS: [&str; 6] = ["a", "b", "ba", "c", "d", "e"];
const CONFIG: Config = Config {
    fragment_bytes: 400,
    response_bytes_max: 300,
    stream_bytes_max: 2500,
    stream_bytes_share: 600,
    hub_bytes_max: 6000,
    read_revisions_max: 3,
    read_bytes_max: 500,
    watchers_max: 1000,
};
/// Upper bound of a response: three keys with long values and long previous ones, and fragments.
const ANSWER_BYTES_MAX: usize = 4000;

#[derive(Default)]
struct Client {
    /// With costs.
    held: VecDeque<(encoded::WatchResponse, usize)>,
    watches: BTreeMap<i64, Watch>,
    /// Create requests without a response yet.
    asked: VecDeque<(WatchCreateRequest, i64)>,
}

/// A client's state of one watch.
struct Watch {
    request: WatchCreateRequest,
    /// The next expected event is in this revision or later …
    revision: i64,
    /// … and not among the first so many of it.
    seen: usize,
    /// Progress reported to the client: all events up to this revision were sent.
    promised: i64,
    floor: i64,
    in_fragment: bool,
}

struct World {
    random: StdRng,
    store: Store,
    hub: Hub,
    clients: BTreeMap<StreamId, Client>,
    mailbox: VecDeque<Input>,
    lost: bool,
    read: Option<(i64, usize, usize)>,
    now_ms: u64,
    events_seen: usize,
}

#[test]
fn every_watch_gets_all_its_events_once_and_in_order() {
    let mut events_seen = 0;
    for seed in 0..150 {
        let mut world = World::new(seed);
        for _ in 0..400 {
            world.step();
        }
        world.settle();
        events_seen += world.events_seen;
    }
    assert!(events_seen > 10_000, "only {events_seen} events were checked");
}

impl World {
    fn new(seed: u64) -> Self {
        Self {
            random: StdRng::seed_from_u64(seed),
            store: Store::default(),
            hub: Hub::new(CONFIG, 1),
            clients: BTreeMap::new(),
            mailbox: VecDeque::new(),
            lost: false,
            read: None,
            now_ms: 0,
            events_seen: 0,
        }
    }

    fn step(&mut self) {
        let stream = self.random.random_range(0..4);
        let published = self.store.published();
        match self.random.random_range(0..100) {
            0..30 => self.write(),
            30..50 => self.arrive(),
            50..65 => self.perform_read(),
            65..80 => {
                let count = self.random.random_range(0..6);
                self.take(stream, count);
            }
            80..90 => self.create(stream),
            90..92 => {
                let watch_id = self.random.random_range(0..6);
                self.tell(Input::Cancel { stream, watch_id, published });
            }
            92..95 => self.tell(Input::Progress { stream, published }),
            95..97 => {
                self.now_ms += self.random.random_range(0..100);
                self.tell(Input::Tick { now_ms: self.now_ms });
            }
            97 => {
                let revision = self.random.random_range(published.compacted..=published.revision);
                self.store.compact(revision);
            }
            98 if self.lost => {
                self.lost = false;
                self.tell(Input::Resync(published));
            }
            _ => {
                self.clients.remove(&stream);
                self.tell(Input::Close(stream));
            }
        }
    }

    /// Writes some revisions as one batch, which may be lost.
    fn write(&mut self) {
        let mut events = Vec::new();
        for _ in 0..self.random.random_range(1..4) {
            let mut changes: BTreeMap<String, Option<String>> = BTreeMap::new();
            for _ in 0..self.random.random_range(1..4) {
                let key = KEYS[self.random.random_range(0..KEYS.len())].to_owned();
                let length = if self.random.random_bool(0.1) { 300 } else { 3 };
                let value = self.random.random_bool(0.7).then(|| "x".repeat(length));
                changes.insert(key, value);
            }
            let changes: Vec<Change> = changes.into_iter().collect();
            events.extend(self.store.change(&changes));
        }
        if self.random.random_bool(0.05) {
            self.lost = true;
            return;
        }
        let revision = self.store.revision();
        self.mailbox.push_back(Input::Events { events: Arc::from(events), revision });
    }

    fn arrive(&mut self) {
        while let Some(input) = self.mailbox.pop_front() {
            self.tell(input);
            if self.random.random_bool(0.3) {
                break;
            }
        }
    }

    fn perform_read(&mut self) {
        if let Some((from, revisions_max, bytes_max)) = self.read.take() {
            let history = self.store.history(from, revisions_max, bytes_max);
            self.tell(Input::History(history));
        }
    }

    fn create(&mut self, stream: StreamId) {
        let published = self.store.published();
        if let std::collections::btree_map::Entry::Vacant(e) = self.clients.entry(stream) {
            e.insert(Client::default());
            self.tell(Input::Open { stream, progress_interval_ms: 50 });
        }
        let random = &mut self.random;
        let mut key = || Bytes::from_static(KEYS[random.random_range(0..KEYS.len())].as_bytes());
        let (key, other) = (key(), key());
        let range_end = match random.random_range(0..5) {
            0..2 => Bytes::new(),
            2 => Bytes::from_static(b"\0"),
            _ => other,
        };
        let start_revision = match random.random_range(0..4) {
            0 => 0,
            1 => random.random_range(1..=published.revision + 6),
            _ => random.random_range((published.revision - 12).max(1)..=published.revision + 3),
        };
        let request = WatchCreateRequest {
            key,
            range_end,
            start_revision,
            progress_notify: random.random_bool(0.5),
            filters: (0..2).filter(|_| random.random_bool(0.2)).collect(),
            prev_kv: random.random_bool(0.4),
            watch_id: if random.random_bool(0.2) { random.random_range(1..9) } else { 0 },
            fragment: random.random_bool(0.4),
        };
        let client = self.clients.get_mut(&stream).unwrap();
        client.asked.push_back((request.clone(), published.revision));
        self.tell(Input::Create { stream, request, published });
    }

    fn tell(&mut self, input: Input) {
        let mut out = Vec::new();
        self.hub.on(input, &mut out);
        for output in out {
            match output {
                Output::Send { stream, response, cost } => {
                    let client = self.clients.get_mut(&stream).expect("sent to a closed stream");
                    client.held.push_back((response, cost));
                    let events =
                        client.held.iter().filter(|(response, _)| !response.events.is_empty());
                    let held: usize = events.map(|(_, cost)| cost).sum();
                    assert!(held < CONFIG.stream_bytes_max + ANSWER_BYTES_MAX, "{held} bytes held");
                }
                Output::ReadHistory { from, revisions_max, bytes_max } => {
                    assert!(self.read.replace((from, revisions_max, bytes_max)).is_none());
                }
            }
        }
    }

    fn take(&mut self, stream: StreamId, count: usize) {
        for _ in 0..count {
            let Some(client) = self.clients.get_mut(&stream) else { return };
            let Some((response, cost)) = client.held.pop_front() else { return };
            self.events_seen += client.check(&self.store, &response);
            self.tell(Input::Sent { stream, bytes: cost });
        }
    }

    /// Everything is delivered and taken: then every watch has all its events.
    fn settle(&mut self) {
        self.tell(Input::Resync(self.store.published()));
        for _ in 0..10_000 {
            let streams: Vec<_> = self.clients.keys().copied().collect();
            streams.iter().for_each(|stream| self.take(*stream, usize::MAX));
            self.arrive();
            if self.read.is_none() && self.mailbox.is_empty() {
                break;
            }
            self.perform_read();
        }
        let streams: Vec<_> = self.clients.keys().copied().collect();
        for stream in streams {
            self.take(stream, usize::MAX);
            let client = self.clients.remove(&stream).unwrap();
            for (id, watch) in client.watches {
                let missed = watch.expected(&self.store).next();
                assert!(missed.is_none(), "watch {id} of stream {stream} lacks {missed:?}");
            }
        }
        let stats = self.hub.stats();
        assert_eq!((stats.behind, stats.bytes), (0, 0));
        assert!(self.hub.queue.is_empty());
    }
}

impl Client {
    /// Checks a response that the client takes; returns the number of events in it.
    fn check(&mut self, store: &Store, response: &encoded::WatchResponse) -> usize {
        let answer = typed(response);
        let revision = answer.header.as_ref().unwrap().revision;
        if answer.created {
            let (request, published) = self.asked.pop_front().unwrap();
            assert_eq!(revision, published);
            if !answer.canceled {
                let watch = Watch::new(request, published);
                assert!(self.watches.insert(answer.watch_id, watch).is_none());
            }
        } else if answer.canceled {
            let watch = self.watches.remove(&answer.watch_id);
            if answer.compact_revision != 0 {
                let watch = watch.expect("canceled once");
                assert!(answer.compact_revision <= store.published().compacted);
                assert!(answer.compact_revision > watch.promised + 1, "canceled without need");
            }
        } else if answer.watch_id == INVALID_WATCH_ID {
            for watch in self.watches.values_mut() {
                watch.promise(store, revision);
            }
        } else {
            let watch = self.watches.get_mut(&answer.watch_id).expect("an answer to a known watch");
            watch.check(store, &answer, response.events.len());
        }
        answer.events.len()
    }
}

impl Watch {
    fn new(request: WatchCreateRequest, published: i64) -> Self {
        let start = request.start_revision;
        let revision = if start == 0 { published + 1 } else { start };
        let floor = start.max(published);
        Self { request, revision, seen: 0, promised: 0, floor, in_fragment: false }
    }

    /// The expected events, in order.
    fn expected<'a>(&'a self, store: &'a Store) -> impl Iterator<Item = &'a Event> {
        let range = KeyRange::new(self.request.key.clone(), self.request.range_end.clone());
        let filters = &self.request.filters;
        let events =
            (self.revision..=store.revision()).flat_map(|revision| store.events_of(revision));
        let wanted = move |event: &&Event| {
            range.contains(&event.key) && !filters.contains(&i32::from(event.delete))
        };
        events.filter(wanted).skip(self.seen)
    }

    fn check(&mut self, store: &Store, answer: &WatchResponse, body_bytes: usize) {
        let revision = answer.header.as_ref().unwrap().revision;
        if answer.events.is_empty() {
            assert!(self.request.progress_notify && !self.in_fragment);
            return self.promise(store, revision);
        }
        for event in &answer.events {
            let expected = self.expected(store).next().expect("no event is due");
            self.check_event(store, event, expected);
            let main = expected.revision.main;
            (self.revision, self.seen) =
                if main == self.revision { (main, self.seen + 1) } else { (main, 1) };
        }
        assert!(
            answer.events.len() == 1
                || body_bytes < CONFIG.fragment_bytes
                || !self.request.fragment
        );
        assert!(self.request.fragment || !answer.fragment);
        self.in_fragment = answer.fragment;
        let next = self.expected(store).next().map_or(i64::MAX, |event| event.revision.main);
        if answer.fragment {
            assert_eq!(next, self.revision, "only fragments of one revision");
        } else {
            assert!(next > revision, "the answer tells {revision} and lacks {next}");
            self.promised = self.promised.max(revision);
        }
    }

    fn check_event(&self, store: &Store, event: &mvccpb::Event, expected: &Event) {
        let mut event = event.clone();
        let prev = event.prev_kv.take();
        assert_eq!(event.encode_to_vec(), expected.encoded);
        let wanted = expected.prev.as_ref().filter(|_| self.request.prev_kv);
        let may_lack = expected.revision.main - 1 < store.published().compacted;
        match (wanted, prev) {
            (Some(wanted), Some(prev)) => assert_eq!(KeyValue::decode(wanted.clone()), Ok(prev)),
            (Some(_), None) => assert!(may_lack, "no previous value"),
            (None, prev) => assert_eq!(prev, None),
        }
    }

    /// The client received a progress report for `revision`.
    fn promise(&mut self, store: &Store, revision: i64) {
        assert!(revision >= self.floor, "progress {revision} is below {}", self.floor);
        assert!(revision >= self.promised, "progress {revision} after {}", self.promised);
        let next = self.expected(store).next().map_or(i64::MAX, |event| event.revision.main);
        assert!(next > revision, "told {revision} and lacks {next}");
        self.promised = revision;
    }
}
