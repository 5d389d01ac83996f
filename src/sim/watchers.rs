//! Clients that watch: each must see every event of its keys once, in order, whatever happens to the members that serve it.

use basalt_proto::encoded;
use basalt_proto::etcdserverpb::{WatchCreateRequest, WatchResponse};
use basalt_proto::mvccpb;
use bytes::Bytes;
use prost::Message as _;

use super::bugs::Bug;
use super::checks::Checks;
use super::clients::key_name;
use super::plan::{From, Watch};
use crate::types::MemberId;

/// One client.
pub(super) struct Watcher {
    pub(super) watch: Watch,
    /// The stream of the watch: member, start, stream.
    pub(super) at: Option<(MemberId, u64, u32)>,
    /// The first revision that it has not seen completely; 0 before it is known.
    next: i64,
    /// Fragments of a revision received so far.
    pieces: Vec<mvccpb::Event>,
    /// The next read of responses is scheduled.
    pub(super) taking: bool,
    pub(super) seen: u64,
}

/// The client's next action.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Next {
    Go,
    /// The watch has ended: create it again.
    Again,
}

impl Watcher {
    pub(super) fn new(watch: Watch) -> Self {
        Self { watch, at: None, next: 0, pieces: Vec::new(), taking: false, seen: 0 }
    }

    /// The next create request.
    pub(super) fn create(&mut self, bug: Option<Bug>, checks: &Checks) -> WatchCreateRequest {
        self.pieces.clear();
        let first = match self.watch.from {
            From::Now => 0,
            From::Start => 1,
            From::Compaction => checks.compacted.max(1),
            From::Future(revisions) => checks.newest_revision() + revisions,
        };
        if self.next == 0 {
            self.next = first;
        }
        let repeats = i64::from(bug == Some(Bug::WatchRepeats) && self.next > 2);
        let (key, range_end) = match self.watch.key {
            Some(key) => (key_name(key), Bytes::new()),
            None => (Bytes::from_static(b"\0"), Bytes::from_static(b"\0")),
        };
        WatchCreateRequest {
            key,
            range_end,
            start_revision: self.next - repeats,
            progress_notify: true,
            prev_kv: self.watch.prev_kv,
            fragment: self.watch.fragment,
            ..WatchCreateRequest::default()
        }
    }

    fn wants(&self, event: &mvccpb::Event) -> bool {
        let key = event.kv.as_ref().map(|kv| &kv.key);
        self.watch.key.is_none_or(|wanted| key == Some(&key_name(wanted)))
    }

    fn expected(&self, checks: &Checks, last: i64) -> Vec<mvccpb::Event> {
        if last < self.next {
            return Vec::new();
        }
        let events = checks.history.range(self.next..=last).flat_map(|(_, events)| events);
        events.filter(|event| self.wants(event)).cloned().collect()
    }

    /// True if it has seen all events.
    pub(super) fn is_done(&self, checks: &Checks) -> bool {
        self.next > 0 && self.expected(checks, checks.newest_revision()).is_empty()
    }

    /// Handles and checks a response.
    pub(super) fn take(&mut self, response: &encoded::WatchResponse, checks: &Checks) -> Next {
        let typed = WatchResponse::decode(&response.encode_to_vec()[..]).expect("it reads back");
        let revision = typed.header.as_ref().map_or(0, |header| header.revision);
        if typed.canceled {
            let compacted = typed.compact_revision;
            assert!(compacted > 0, "the watch was canceled: {}", typed.cancel_reason);
            assert!(compacted > self.next, "canceled at {compacted}, needs {} only", self.next);
            assert!(compacted <= checks.compacted, "{compacted} was never compacted");
            self.next = compacted;
            return Next::Again;
        }
        if typed.created {
            if self.next == 0 {
                self.next = revision + 1;
            }
            return Next::Go;
        }
        if typed.events.is_empty() {
            let missed = self.expected(checks, revision);
            assert!(missed.is_empty(), "told of progress to {revision}, but missed {missed:?}");
            self.next = self.next.max(revision + 1);
            return Next::Go;
        }
        self.pieces.extend(typed.events);
        if typed.fragment {
            return Next::Go;
        }
        let events = std::mem::take(&mut self.pieces);
        self.seen += events.len() as u64;
        let last =
            events.last().and_then(|event| event.kv.as_ref()).map_or(0, |kv| kv.mod_revision);
        assert!(last >= self.next, "revision {last} comes again, {} is next", self.next);
        assert!(revision >= last, "the header says {revision}, the events {last}");
        let expected = self.expected(checks, last);
        self.compare(&events, &expected, checks);
        self.next = last + 1;
        Next::Go
    }

    fn compare(&self, events: &[mvccpb::Event], expected: &[mvccpb::Event], checks: &Checks) {
        let plain = |events: &[mvccpb::Event]| -> Vec<_> {
            let plain = |event: &mvccpb::Event| mvccpb::Event { prev_kv: None, ..event.clone() };
            events.iter().map(plain).collect()
        };
        assert_eq!(plain(events), plain(expected), "the watcher sees other events than happened");
        for (event, expected) in events.iter().zip(expected) {
            // The previous version may be missing if it was replaced before the compaction.
            let main = event.kv.as_ref().map_or(0, |kv| kv.mod_revision);
            let gone = event.prev_kv.is_none() && (!self.watch.prev_kv || main <= checks.compacted);
            assert!(gone || event.prev_kv == expected.prev_kv, "{event:?}, not {expected:?}");
        }
    }
}
