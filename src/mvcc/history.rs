//! What happened from a revision on, for watchers that catch up.

use std::ops::Bound;

use super::range::Source;
use super::record::Record;
use super::{Event, ReadView};
use crate::store::{Space, View};
use crate::types::{Error, Fault, Refusal, Revision};

/// Consecutive whole revisions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct History {
    /// In order.
    pub events: Vec<Event>,
    /// The first revision that is not in here.
    pub next: i64,
}

impl<V: View> ReadView<V> {
    /// Events with revisions from `from` on: whole revisions, at least one if there is one, until either
    /// bound is reached.
    ///
    /// # Errors
    /// `from` lies before the newest compaction: events are missing.
    pub fn history(
        &self,
        from: i64,
        revisions_max: usize,
        bytes_max: usize,
    ) -> Result<History, Error> {
        if from < self.compacted {
            return Err(Refusal::Compacted.into());
        }
        let source = self.source();
        let start = Revision { main: from, sub: 0 }.to_key();
        let mut history = History { events: Vec::new(), next: self.revision + 1 };
        let (mut revisions, mut bytes, mut last) = (0, 0, 0);
        for pair in self.view.scan(Space::Log, Bound::Included(&start), Bound::Unbounded) {
            let (key, bytes_stored) = pair?;
            let Some(at) = Revision::from_key(&key) else { continue };
            if at.main != last {
                if revisions >= revisions_max || bytes >= bytes_max {
                    history.next = at.main;
                    break;
                }
                (revisions, last) = (revisions + 1, at.main);
            }
            bytes += bytes_stored.len();
            let record = Record::parse(bytes_stored)?;
            history.events.push(source.event(at, &record)?);
        }
        Ok(history)
    }
}

impl<V: View> Source<'_, V> {
    fn event(&self, at: Revision, record: &Record) -> Result<Event, Fault> {
        // etcd finds what was replaced by reading the key one revision earlier: what compaction has
        // passed is not found, even where it is still there.
        let previous = record.previous.filter(|_| at.main > self.compacted);
        let previous = previous.map(|link| self.logged(link)).transpose()?.flatten();
        Ok(Event {
            revision: at,
            key: record.key(),
            delete: record.tombstone,
            encoded: record.event(),
            prev: previous.filter(|record| !record.tombstone).map(|record| record.kv()),
        })
    }
}
