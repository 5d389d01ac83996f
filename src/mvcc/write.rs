//! The single writer: puts and deletes, and what follows from them.

use std::ops::Bound;
use std::sync::Arc;

use basalt_proto::encoded::{DeleteRangeResponse, PutResponse, RangeResponse};
use basalt_proto::etcdserverpb::{DeleteRangeRequest, PutRequest, RangeRequest, ResponseHeader};
use bytes::Bytes;

use super::cache::RecordCache;
use super::compact::Compaction;
use super::fences::{Fences, Stretch};
use super::range::Source;
use super::record::{Draft, Record};
use super::{Attachment, Event, ReadView};
use crate::store::{Overlay, Space, View};
use crate::types::{Error, Fault, KeyRange, LeaseId, Refusal, Revision};

/// Meta key of the newest revision. etcd has none: it looks for the newest key of its bucket.
const REVISION: &[u8] = b"revision";

/// The key space of the machine. Driven inside an overlay; what it writes becomes visible to readers with
/// [`Mvcc::publish`].
pub struct Mvcc {
    pub(super) revision: i64,
    pub(super) compacted: i64,
    pub(super) fences: Fences,
    pub(super) cache: Arc<RecordCache>,
    pub(super) compaction: Compaction,
    /// Changes made so far by the transaction that is being applied.
    changes: i64,
    sealed: i64,
    events: Vec<Event>,
    attachments: Vec<Attachment>,
    fresh: Vec<(Bytes, Record)>,
}

impl Mvcc {
    /// Continues from what the store holds; reads all keys once, to count them.
    ///
    /// # Errors
    /// The store cannot be read, or its history does not end where it says.
    pub fn open(view: &impl View, cache_bytes: u64) -> Result<Self, Fault> {
        let all = || (Bound::Unbounded, Bound::Unbounded);
        let (from, to) = all();
        let newest = match view.scan(Space::Log, from, to).next_back().transpose()? {
            Some((key, _)) => Revision::from_key(&key).map_or(0, |revision| revision.main),
            None => 0,
        };
        let revision = match view.get(Space::Meta, REVISION)? {
            Some(bytes) => number(&bytes)?,
            None => 1,
        };
        if newest > revision {
            return Err(Fault::new(format!(
                "the store's history goes to revision {newest}, but its state ends at {revision}: \
                 the two are not from the same moment"
            )));
        }
        let compaction = Compaction::open(view)?;
        let (from, to) = all();
        let live = view.scan(Space::Kv, from, to).filter_map(|pair| match pair {
            Ok((key, bytes)) => match Record::parse(bytes) {
                Ok(record) => (!record.tombstone).then_some(Ok(key)),
                Err(fault) => Some(Err(fault)),
            },
            Err(fault) => Some(Err(fault)),
        });
        Ok(Self {
            revision,
            compacted: compaction.scheduled(),
            fences: Fences::build(live)?,
            cache: Arc::new(RecordCache::new(cache_bytes)),
            compaction,
            changes: 0,
            sealed: revision,
            events: Vec::new(),
            attachments: Vec::new(),
            fresh: Vec::new(),
        })
    }

    /// The keys that hang on a lease, with it; reads all keys once.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn attached(view: &impl View) -> Result<Vec<(Bytes, LeaseId)>, Fault> {
        let mut attached = Vec::new();
        for pair in view.scan(Space::Kv, Bound::Unbounded, Bound::Unbounded) {
            let (key, bytes) = pair?;
            let record = Record::parse(bytes)?;
            if record.lease != 0 {
                attached.push((key, record.lease));
            }
        }
        Ok(attached)
    }

    /// Answers a range inside the batch.
    ///
    /// # Errors
    /// The revision asked for is compacted or in the future.
    pub fn range<V: View>(
        &self,
        tx: &Overlay<V>,
        request: &RangeRequest,
    ) -> Result<RangeResponse, Error> {
        self.source(tx).range(request)
    }

    /// The newest revision; 1 in an empty store.
    pub fn revision(&self) -> i64 {
        self.revision
    }

    /// History up to here is gone; −1 before the first compaction.
    pub fn compacted(&self) -> i64 {
        self.compacted
    }

    /// Applies a put.
    ///
    /// # Errors
    /// Unknown lease; no key to take the value or lease from.
    pub fn put<V: View>(
        &mut self,
        tx: &mut Overlay<V>,
        request: &PutRequest,
        lease_exists: &dyn Fn(LeaseId) -> bool,
    ) -> Result<PutResponse, Error> {
        self.check_put(tx, request, lease_exists)?;
        let response = self.put_checked(tx, request)?;
        self.finish();
        Ok(response)
    }

    /// Applies a delete.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn delete_range<V: View>(
        &mut self,
        tx: &mut Overlay<V>,
        request: &DeleteRangeRequest,
    ) -> Result<DeleteRangeResponse, Error> {
        let response = self.delete_checked(tx, request)?;
        self.finish();
        Ok(response)
    }

    /// Deletes those of the given keys that live, as one revision if there is any: what the end of a lease
    /// does. Gives their number.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn delete_keys<V: View>(
        &mut self,
        tx: &mut Overlay<V>,
        keys: impl Iterator<Item = Bytes>,
    ) -> Result<u64, Fault> {
        let mut deleted = 0;
        for key in keys {
            if let Some(record) = self.source(tx).get(&key, i64::MAX)? {
                self.delete(tx, key, &record);
                deleted += 1;
            }
        }
        self.finish();
        Ok(deleted)
    }

    /// Takes what happened since it was last asked, in order.
    pub fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    /// Takes the changes of leases since it was last asked, in order.
    pub fn take_attachments(&mut self) -> Vec<Attachment> {
        std::mem::take(&mut self.attachments)
    }

    /// Writes down the revision; the last thing before the overlay is committed.
    pub fn seal<V: View>(&mut self, tx: &mut Overlay<V>) {
        if self.sealed != self.revision {
            self.sealed = self.revision;
            let bytes = Bytes::copy_from_slice(&self.revision.to_be_bytes());
            tx.put(Space::Meta, Bytes::from_static(REVISION), bytes);
        }
    }

    /// What readers may see now that the overlay is committed as `view`.
    pub fn publish<V>(&mut self, view: V) -> ReadView<V> {
        for (key, record) in self.fresh.drain(..) {
            self.cache.insert(key, record);
        }
        ReadView {
            view,
            revision: self.revision,
            compacted: self.compacted,
            fences: self.fences.clone(),
            cache: Arc::clone(&self.cache),
            cleaned: self.compaction.finished,
            hashes: Arc::clone(&self.compaction.hashes),
        }
    }

    /// What a read inside the transaction looks at.
    pub(super) fn source<'a, V>(&'a self, tx: &'a Overlay<V>) -> Source<'a, Overlay<V>> {
        Source {
            view: tx,
            revision: self.visible(),
            compacted: self.compacted,
            fences: &self.fences,
            cache: &self.cache,
            cached: i64::MAX,
        }
    }

    /// The revision a read inside the transaction sees.
    pub(super) fn visible(&self) -> i64 {
        self.revision + i64::from(self.changes > 0)
    }

    /// Ends a transaction: one revision if anything changed.
    pub(super) fn finish(&mut self) {
        self.revision = self.visible();
        self.changes = 0;
    }

    pub(super) fn check_put<V: View>(
        &self,
        tx: &Overlay<V>,
        request: &PutRequest,
        lease_exists: &dyn Fn(LeaseId) -> bool,
    ) -> Result<(), Error> {
        if request.lease != 0 && !lease_exists(request.lease) {
            return Err(Refusal::LeaseNotFound.into());
        }
        let needs = request.ignore_value || request.ignore_lease;
        if needs && self.source(tx).get(&request.key, i64::MAX)?.is_none() {
            return Err(Refusal::KeyNotFound.into());
        }
        Ok(())
    }

    pub(super) fn put_checked<V: View>(
        &mut self,
        tx: &mut Overlay<V>,
        request: &PutRequest,
    ) -> Result<PutResponse, Error> {
        let before = self.source(tx).newest(&request.key)?;
        let live = before.as_ref().filter(|record| !record.tombstone);
        let kept = |wanted: bool| live.filter(|_| wanted);
        let at = self.next();
        let draft = Draft {
            key: &request.key,
            value: Some(kept(request.ignore_value).map_or(&request.value[..], Record::value)),
            create: live.map_or(at.main, |record| record.create),
            modified: at.main,
            version: live.map_or(1, |record| record.version + 1),
            lease: kept(request.ignore_lease).map_or(request.lease, |record| record.lease),
        };
        let (old, new) = (live.map_or(0, |record| record.lease), draft.lease);
        let record = self.write(tx, &draft, before.as_ref(), at)?;
        if live.is_none()
            && let Some(stretch) = self.fences.born(&record.key())
        {
            self.cut(tx, &stretch)?;
        }
        self.attach(record.key(), old, new);
        let prev = live.map(Record::kv);
        let event = Event {
            revision: at,
            key: record.key(),
            delete: false,
            encoded: record.event(),
            prev: prev.clone(),
        };
        self.events.push(event);
        let header = ResponseHeader { revision: at.main, ..ResponseHeader::default() };
        Ok(PutResponse { header: Some(header), prev_kv: prev.filter(|_| request.prev_kv) })
    }

    pub(super) fn delete_checked<V: View>(
        &mut self,
        tx: &mut Overlay<V>,
        request: &DeleteRangeRequest,
    ) -> Result<DeleteRangeResponse, Error> {
        let range = KeyRange::new(request.key.clone(), request.range_end.clone());
        let source = self.source(tx);
        let records: Vec<Record> = match &range {
            KeyRange::One(key) => source.get(key, i64::MAX)?.into_iter().collect(),
            KeyRange::Span(..) | KeyRange::From(_) => {
                source.records(&range, i64::MAX).collect::<Result<_, _>>()?
            }
        };
        for record in &records {
            self.delete(tx, record.key(), record);
        }
        let header = ResponseHeader { revision: self.visible(), ..ResponseHeader::default() };
        let prev_kvs = records.iter().filter(|_| request.prev_kv).map(Record::kv);
        Ok(DeleteRangeResponse {
            header: Some(header),
            deleted: records.len() as i64,
            prev_kvs: prev_kvs.collect(),
        })
    }

    fn delete<V: View>(&mut self, tx: &mut Overlay<V>, key: Bytes, live: &Record) {
        let at = self.next();
        let draft =
            Draft { key: &key, value: None, create: 0, modified: at.main, version: 0, lease: 0 };
        // Parsing what was just written cannot fail.
        let Ok(record) = self.write(tx, &draft, Some(live), at) else { return };
        self.fences.died(&key);
        self.attach(key.clone(), live.lease, 0);
        self.events.push(Event {
            revision: at,
            key,
            delete: true,
            encoded: record.event(),
            prev: Some(live.kv()),
        });
    }

    fn next(&self) -> Revision {
        Revision { main: self.revision + 1, sub: self.changes }
    }

    /// Stores a new version in both places.
    fn write<V: View>(
        &mut self,
        tx: &mut Overlay<V>,
        draft: &Draft<'_>,
        before: Option<&Record>,
        at: Revision,
    ) -> Result<Record, Fault> {
        let bytes = Record::write(draft, before, at.sub);
        let record = Record::parse(bytes.clone())?;
        tx.put(Space::Kv, record.key(), bytes.clone());
        tx.put(Space::Log, Bytes::copy_from_slice(&at.to_key()), bytes);
        self.fresh.push((record.key(), record.clone()));
        self.changes += 1;
        Ok(record)
    }

    fn attach(&mut self, key: Bytes, old: LeaseId, new: LeaseId) {
        if old != new {
            self.attachments.push(Attachment { key, old, new });
        }
    }

    /// Cuts a stretch of the fences that has grown too long in the middle.
    fn cut<V: View>(&mut self, tx: &Overlay<V>, stretch: &Stretch) -> Result<(), Fault> {
        let range = match &stretch.to {
            Some(to) => KeyRange::Span(stretch.from.clone(), to.clone()),
            None => KeyRange::From(stretch.from.clone()),
        };
        let half = Fences::HALF_STRETCH;
        let middle = self.source(tx).records(&range, i64::MAX).nth(half).transpose()?;
        if let Some(record) = middle {
            self.fences.cut(&stretch.from, Bytes::copy_from_slice(&record.key()), half as u64);
        }
        Ok(())
    }
}

/// An 8-byte big-endian number of the meta space.
pub(super) fn number(bytes: &[u8]) -> Result<i64, Fault> {
    let bytes = bytes.try_into().map_err(|_| Fault::new("a number in the store is not 8 bytes"))?;
    Ok(i64::from_be_bytes(bytes))
}
