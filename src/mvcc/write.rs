//! Changes of keys: one [`Writer`] is one transaction, whose changes share a main revision.

use basalt_proto::encoded::{DeleteRangeResponse, PutResponse};
use basalt_proto::etcdserverpb::{DeleteRangeRequest, PutRequest, ResponseHeader};
use bytes::Bytes;

use super::count_index::KeyCounts;
use super::history;
use super::layers::Pending;
use super::read::Reader;
use super::record::{Content, EncodedRecord, Record};
use super::usage::Usage;
use super::versions;
use super::{Attachment, Event, Mvcc};
use crate::store::{Overlay, Space, View};
use crate::types::limits::KEY_BYTES_MAX;
use crate::types::{Error, Fault, LeaseId, Refusal, Revision};

/// Predicate: the lease exists.
pub(super) type LeaseExists<'a> = &'a dyn Fn(LeaseId) -> bool;

/// A transaction being applied.
pub(super) struct Writer<'a, V> {
    mvcc: &'a mut Mvcc,
    tx: &'a mut Overlay<V>,
    position: Position,
}

/// Progress of a transaction.
#[derive(Clone, Copy)]
pub(super) struct Position {
    /// The revision before it.
    before: i64,
    /// Changes so far.
    changes: i64,
}

impl Position {
    pub(super) fn new(mvcc: &Mvcc) -> Self {
        Self { before: mvcc.revision, changes: 0 }
    }
}

impl Mvcc {
    /// Applies a put that passed [`check_put`](super::check_put). The response's header contains the revision alone.
    ///
    /// # Errors
    /// `EmptyKey`, `RequestTooLarge`; `LeaseNotFound`; `KeyNotFound` if value or lease are to be kept and the key does
    /// not exist; a fault of the store. A refused put changes nothing.
    pub fn put<V: View>(
        &mut self,
        tx: &mut Overlay<V>,
        request: &PutRequest,
        lease_exists: &dyn Fn(LeaseId) -> bool,
    ) -> Result<PutResponse, Error> {
        check_key(request)?;
        check_lease(request, lease_exists)?;
        let mut writer = Writer::new(self, tx);
        let previous = writer.previous(&request.key)?;
        check_previous(request, previous.as_ref())?;
        let response = writer.put_onto(request, previous)?;
        writer.finish();
        Ok(response)
    }

    /// Applies a delete that passed [`check_delete`](super::check_delete). A delete without matching keys creates no
    /// revision. The response's header contains the revision alone.
    ///
    /// # Errors
    /// A fault of the store.
    pub fn delete_range<V: View>(
        &mut self,
        tx: &mut Overlay<V>,
        request: &DeleteRangeRequest,
    ) -> Result<DeleteRangeResponse, Error> {
        let mut writer = Writer::new(self, tx);
        let response = writer.delete_range(request)?;
        writer.finish();
        Ok(response)
    }

    /// The keys as the batch has changed them so far.
    pub(super) fn pending<'a, V: View>(&'a self, tx: &'a Overlay<V>) -> Pending<'a, V> {
        Pending { tx, cache: &self.cache }
    }

    /// Reads through `view` at the newest revision.
    pub(super) fn reader<'a, V: View>(
        &'a self,
        view: &'a Pending<'a, V>,
    ) -> Reader<'a, Pending<'a, V>> {
        Reader {
            view,
            revision: self.revision,
            compacted: self.compacted,
            count_index: &self.count_index,
        }
    }
}

/// A put's key must be valid for the store. Puts are checked before they are proposed; an entry from a version without
/// that check is refused by every member.
pub(super) fn check_key(request: &PutRequest) -> Result<(), Refusal> {
    match request.key.len() {
        0 => Err(Refusal::EmptyKey),
        1..=KEY_BYTES_MAX => Ok(()),
        _ => Err(Refusal::RequestTooLarge),
    }
}

/// A put's lease must exist.
pub(super) fn check_lease(
    request: &PutRequest,
    lease_exists: LeaseExists<'_>,
) -> Result<(), Refusal> {
    if request.lease == 0 || lease_exists(request.lease) {
        Ok(())
    } else {
        Err(Refusal::LeaseNotFound)
    }
}

/// A value or lease to be kept must exist.
pub(super) fn check_previous(
    request: &PutRequest,
    previous: Option<&Record>,
) -> Result<(), Refusal> {
    let keeps = request.ignore_value || request.ignore_lease;
    let alive = previous.is_some_and(|record| !record.is_tombstone());
    if keeps && !alive { Err(Refusal::KeyNotFound) } else { Ok(()) }
}

impl EncodedRecord {
    /// Writes a new version of `key` on top of `previous`, and counts it.
    pub(super) fn store<V: View>(
        self,
        tx: &mut Overlay<V>,
        key: Bytes,
        previous: Option<&Record>,
        usage: &mut Usage,
    ) -> Result<Record, Fault> {
        let Self { log_key, record } = self;
        if let Some(previous) = previous
            && previous.is_large()?
        {
            let revision = Bytes::copy_from_slice(&previous.revision()?.to_key());
            tx.put(Space::Superseded, revision, previous.bytes().clone());
        }
        tx.put(Space::Log, log_key, record.logged()?);
        tx.put(Space::Kv, key, record.bytes().clone());
        usage.add(record.item_bytes()?);
        Ok(record)
    }
}

impl<'a, V: View> Writer<'a, V> {
    pub(super) fn new(mvcc: &'a mut Mvcc, tx: &'a mut Overlay<V>) -> Self {
        let position = Position::new(mvcc);
        Self { mvcc, tx, position }
    }

    /// Continues a transaction; nothing else may have been written meanwhile.
    pub(super) fn go_on(mvcc: &'a mut Mvcc, tx: &'a mut Overlay<V>, position: Position) -> Self {
        Self { mvcc, tx, position }
    }

    /// The revision for this transaction's headers, as of its changes so far.
    pub(super) fn header(&self) -> Option<ResponseHeader> {
        Some(ResponseHeader { revision: self.mvcc.revision, ..Default::default() })
    }

    /// Ends the transaction, or a step of it.
    pub(super) fn finish(self) -> Position {
        self.position
    }

    /// Calls `read` with a reader that sees the writes so far.
    pub(super) fn read<T>(&self, read: impl FnOnce(&Reader<'_, Pending<'_, V>>) -> T) -> T {
        read(&self.mvcc.reader(&self.mvcc.pending(self.tx)))
    }

    /// The newest record of a key. A tombstone up to the compaction revision counts as absent, even if it is still in
    /// the store, so that all members write the same.
    pub(super) fn previous(&self, key: &[u8]) -> Result<Option<Record>, Fault> {
        versions::newest(&self.mvcc.pending(self.tx), key)
    }

    pub(super) fn put(&mut self, request: &PutRequest) -> Result<PutResponse, Error> {
        let previous = self.previous(&request.key)?;
        self.put_onto(request, previous)
    }

    fn put_onto(
        &mut self,
        request: &PutRequest,
        previous: Option<Record>,
    ) -> Result<PutResponse, Error> {
        let alive = previous.as_ref().filter(|record| !record.is_tombstone());
        let old = alive.map(Record::peek).transpose()?;
        let old_lease = old.as_ref().map_or(0, |old| old.lease);
        // Without a value and without the key (deleted earlier in this transaction) an empty value is kept.
        let kept = match alive {
            Some(record) if request.ignore_value => record.value()?,
            _ => Bytes::new(),
        };
        let revision = self.next();
        let content = Content {
            key: &request.key,
            value: if request.ignore_value { &kept } else { &request.value },
            create: old.as_ref().map_or(revision.main, |old| old.create),
            version: old.as_ref().map_or(0, |old| old.version) + 1,
            lease: if request.ignore_lease { old_lease } else { request.lease },
        };
        let link = self.link(previous.as_ref())?;
        self.mvcc.changes.put_bytes += (content.key.len() + content.value.len()) as i64;
        let encoded = self.mvcc.encoder.put(revision, link, self.mvcc.compacted, &content)?;
        let new_lease = content.lease;
        let key = self.store(revision, previous.as_ref(), encoded)?;
        self.attach(key, old_lease, new_lease);
        let prev_kv = alive.filter(|_| request.prev_kv).map(Record::key_value);
        Ok(PutResponse { header: self.header(), prev_kv })
    }

    /// Deletes a key that exists.
    pub(super) fn delete(&mut self, previous: Record) -> Result<(), Fault> {
        let revision = self.next();
        let key = previous.key()?;
        let lease = previous.peek()?.lease;
        let encoded =
            self.mvcc.encoder.delete(revision, Some(&previous), self.mvcc.compacted, &key)?;
        let key = self.store(revision, Some(&previous), encoded)?;
        self.attach(key, lease, 0);
        Ok(())
    }

    fn next(&mut self) -> Revision {
        let Position { before, changes } = &mut self.position;
        let revision = Revision { main: *before + 1, sub: *changes };
        *changes += 1;
        self.mvcc.revision = revision.main;
        revision
    }

    /// The record that a new version names as its predecessor.
    fn link<'r>(&self, previous: Option<&'r Record>) -> Result<Option<&'r Record>, Fault> {
        match previous {
            Some(record) if record.is_tombstone() && record.main()? < self.mvcc.compacted => {
                Ok(None)
            }
            other => Ok(other),
        }
    }

    /// Writes a new version with index, counts and event, and returns its key.
    fn store(
        &mut self,
        revision: Revision,
        previous: Option<&Record>,
        encoded: EncodedRecord,
    ) -> Result<Bytes, Fault> {
        let key = encoded.record.key()?;
        let record = encoded.store(self.tx, key.clone(), previous, &mut self.mvcc.usage)?;
        let delete = record.is_tombstone();
        let change = match previous {
            None => Some(KeyCounts::BORN),
            Some(_) if delete => Some(KeyCounts::DIED),
            Some(previous) if previous.is_tombstone() => Some(KeyCounts::REVIVED),
            Some(_) => None,
        };
        self.mvcc.count_index.note(self.tx, &key, revision.main, change)?;
        self.mvcc.changes.note(revision, delete);
        if self.mvcc.events.wants_more() {
            let encoded = record.event();
            let prev = match previous {
                Some(previous) if !record.is_creation() => {
                    history::before(self.tx, previous.clone(), revision.main)?
                }
                Some(_) | None => None,
            };
            self.mvcc.events.push(Event { revision, key: key.clone(), delete, encoded, prev });
        }
        self.mvcc.written.push((key.clone(), Some(record)));
        Ok(key)
    }

    fn attach(&mut self, key: Bytes, old: LeaseId, new: LeaseId) {
        if old != new {
            self.mvcc.attachments.push(Attachment { key, old, new });
        }
    }
}
