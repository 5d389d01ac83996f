//! The past as events, for watchers that start in the past or fell behind.

use std::ops::Bound;

use bytes::Bytes;

use super::record::Record;
use super::versions;
use super::{Event, ReadView, log_revision};
use crate::store::{Space, View};
use crate::types::{Error, Fault, Refusal, Revision};

/// A part of history, whole revisions in order.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// The events.
    pub events: Vec<Event>,
    /// The first revision that may have events beyond these: the start of the next read. Newer than the view's revision
    /// if everything was read.
    pub next: i64,
}

impl<V: View> ReadView<V> {
    /// The events from revision `from` on: of at most `revisions_max` revisions, and no further revision once
    /// `bytes_max` encoded bytes are reached. The previous value of an event is absent if compaction has removed it.
    ///
    /// # Errors
    /// [`Compacted`](Refusal::Compacted) if `from` is older than the compacted revision, or a fault of
    /// the store.
    pub fn history(
        &self,
        from: i64,
        revisions_max: usize,
        bytes_max: usize,
    ) -> Result<History, Error> {
        if from < self.compacted {
            return Err(Refusal::Compacted.into());
        }
        let mut history = History { events: Vec::new(), next: from.max(self.revision + 1) };
        let first = Revision { main: from.max(0), sub: 0 }.to_key();
        let mut records = Vec::new();
        let (mut revisions, mut bytes, mut main) = (0, 0, 0);
        for pair in self.view.scan(Space::Log, Bound::Included(&first), Bound::Unbounded) {
            let (key, record) = pair?;
            let revision = log_revision(&key)?;
            if revision.main != main {
                if revisions == revisions_max || (revisions > 0 && bytes >= bytes_max) {
                    history.next = revision.main;
                    break;
                }
                revisions += 1;
                main = revision.main;
            }
            let record = versions::whole(&self.view, Record::new(record)?)?;
            let event = self.event(revision, &record, &records)?;
            bytes += event.encoded.len() + event.prev.as_ref().map_or(0, Bytes::len);
            history.events.push(event);
            records.push((revision, record));
        }
        Ok(history)
    }

    fn event(
        &self,
        revision: Revision,
        record: &Record,
        earlier: &[(Revision, Record)],
    ) -> Result<Event, Fault> {
        Ok(Event {
            revision,
            key: record.key()?,
            delete: record.is_tombstone(),
            encoded: record.event(),
            prev: self.replaced(revision, record, earlier)?,
        })
    }

    fn replaced(
        &self,
        revision: Revision,
        record: &Record,
        earlier: &[(Revision, Record)],
    ) -> Result<Option<Bytes>, Fault> {
        if record.is_creation() || revision.main - 1 < self.compacted {
            return Ok(None);
        }
        let Some(previous) = record.previous()? else { return Ok(None) };
        // Keys that change often have their predecessor in the same part.
        let found = match earlier.binary_search_by_key(&previous, |(revision, _)| *revision) {
            Ok(at) => Some(earlier[at].1.clone()),
            Err(_) => versions::logged(&self.view, previous)?,
        };
        let found = found.ok_or_else(|| versions::lacks(previous))?;
        before(&self.view, found, revision.main)
    }
}

/// The version of a key before a revision, given its newest record that the change replaced: a transaction may have
/// changed the key twice, and events contain the version before the transaction.
pub(super) fn before(
    view: &impl View,
    replaced: Record,
    main: i64,
) -> Result<Option<Bytes>, Fault> {
    let found = versions::version_at(view, replaced, main - 1)?;
    let alive = found.filter(|record| !record.is_tombstone());
    alive.map(|record| versions::whole(view, record).map(Record::into_key_value)).transpose()
}
