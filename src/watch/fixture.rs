//! A small store for tests: makes events, keeps history, compacts.

use std::collections::BTreeMap;

use basalt_proto::mvccpb::{self, KeyValue};
use basalt_proto::{encoded, etcdserverpb};
use bytes::Bytes;
use prost::Message as _;

use super::{History, Published};
use crate::mvcc::Event;
use crate::types::Revision;

/// A change of one key: its new value, or `None` to delete it.
pub(crate) type Change = (String, Option<String>);

#[derive(Default)]
pub(crate) struct Store {
    live: BTreeMap<String, KeyValue>,
    /// The first element is revision 2.
    revisions: Vec<Vec<Event>>,
    compacted: i64,
}

impl Store {
    pub(crate) fn revision(&self) -> i64 {
        self.revisions.len() as i64 + 1
    }

    pub(crate) fn published(&self) -> Published {
        Published { revision: self.revision(), compacted: self.compacted }
    }

    /// Applies one revision, unless nothing changes.
    pub(crate) fn change(&mut self, changes: &[Change]) -> Vec<Event> {
        let main = self.revision() + 1;
        let mut events: Vec<Event> = Vec::new();
        for (key, value) in changes {
            let revision = Revision { main, sub: events.len() as i64 };
            events.extend(self.change_key(revision, key, value.as_deref()));
        }
        if !events.is_empty() {
            self.revisions.push(events.clone());
        }
        events
    }

    fn change_key(&mut self, revision: Revision, key: &str, value: Option<&str>) -> Option<Event> {
        let old = self.live.get(key).cloned();
        let mut kv = KeyValue {
            key: Bytes::copy_from_slice(key.as_bytes()),
            mod_revision: revision.main,
            ..KeyValue::default()
        };
        let mut event = mvccpb::Event::default();
        match value {
            Some(value) => {
                kv.value = Bytes::copy_from_slice(value.as_bytes());
                kv.create_revision = old.as_ref().map_or(revision.main, |old| old.create_revision);
                kv.version = old.as_ref().map_or(0, |old| old.version) + 1;
                self.live.insert(key.to_owned(), kv.clone());
            }
            None => {
                self.live.remove(key)?;
                event.set_type(mvccpb::event::EventType::Delete);
            }
        }
        event.kv = Some(kv.clone());
        Some(Event {
            revision,
            key: kv.key,
            delete: value.is_none(),
            encoded: event.encode_to_vec().into(),
            prev: old.map(|old| old.encode_to_vec().into()),
        })
    }

    pub(crate) fn compact(&mut self, revision: i64) {
        self.compacted = revision;
    }

    pub(crate) fn events_of(&self, revision: i64) -> &[Event] {
        // Revision 1 has no events.
        let at = usize::try_from(revision - 2).ok();
        at.map_or(&[], |at| &self.revisions[at])
    }

    pub(crate) fn history(&self, from: i64, revisions_max: usize, bytes_max: usize) -> History {
        let published = self.published();
        let mut history = History { from, events: Vec::new(), next: from, published };
        if from < self.compacted {
            return history;
        }
        let mut bytes = 0;
        for revision in (from..=self.revision()).take(revisions_max) {
            if bytes >= bytes_max {
                break;
            }
            for event in self.events_of(revision) {
                bytes += event.encoded.len();
                let prev = event.prev.clone().filter(|_| revision > self.compacted);
                history.events.push(Event { prev, ..event.clone() });
            }
            history.next = revision + 1;
        }
        history
    }
}

/// A response as clients decode it.
pub(crate) fn typed(response: &encoded::WatchResponse) -> etcdserverpb::WatchResponse {
    etcdserverpb::WatchResponse::decode(&response.encode_to_vec()[..]).unwrap()
}
