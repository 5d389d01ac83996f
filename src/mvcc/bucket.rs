//! Export and import of history as entries of etcd's bucket `key`, the form in which snapshots contain it, so that
//! etcd's tools read our files and we read etcd's.

use std::ops::Bound;

use bytes::Bytes;

use super::record::{Encoder, Record, RecordHeader, item_bytes};
use super::usage::Usage;
use super::versions;
use super::{FIRST_REVISION, log_revision, write_revision};
use crate::store::{Overlay, Pair, Space, View};
use crate::types::limits::KEY_BYTES_MAX;
use crate::types::{Fault, Revision};

/// Byte that etcd appends to the revision of a delete.
const TOMBSTONE_MARK: u8 = b't';

/// Every entry that etcd's bucket `key` would have behind `after` (one of its keys; nothing for all), in
/// order: the revision as key, with `t` behind it for a delete, and the encoded `mvccpb.KeyValue`, of which
/// a delete has the key alone.
///
/// # Errors
/// Each item may be a fault of the store.
pub fn bucket<'a>(
    view: &'a impl View,
    after: &[u8],
) -> impl Iterator<Item = Result<Pair, Fault>> + 'a {
    entries(view, after, move |record| Ok(versions::whole(view, record)?.into_key_value()))
}

/// As [`bucket`], with values whose content is arbitrary and whose length is right: large ones are not read.
///
/// # Errors
/// Each item may be a fault of the store.
pub fn bucket_outline<'a>(
    view: &'a impl View,
    after: &[u8],
) -> impl Iterator<Item = Result<Pair, Fault>> + 'a {
    entries(view, after, |record| {
        let outline = record.outline()?;
        Ok(outline.map_or_else(|| record.key_value(), |it| vec![0; it.length].into()))
    })
}

/// Entries with values made by `value`, except for those of deletes.
fn entries<'a>(
    view: &'a impl View,
    after: &[u8],
    value: impl Fn(Record) -> Result<Bytes, Fault> + 'a,
) -> impl Iterator<Item = Result<Pair, Fault>> + 'a {
    let from = match after.get(..Revision::KEY_LENGTH) {
        Some(revision) => Bound::Excluded(revision),
        None => Bound::Unbounded,
    };
    view.scan(Space::Log, from, Bound::Unbounded).map(move |pair| {
        let (key, record) = pair?;
        let record = Record::new(record)?;
        if !record.is_tombstone() {
            return Ok((key, value(record)?));
        }
        let marked = Bytes::from([&key[..], &[TOMBSTONE_MARK]].concat());
        Ok((marked, Bytes::copy_from_slice(record.bucket_value()?)))
    })
}

/// Fills an empty store from the entries of etcd's bucket `key`. The caller commits the overlay as often
/// as it likes, copies the bucket `meta`, and opens [`Mvcc`](super::Mvcc) afterwards.
#[derive(Debug)]
pub struct Import {
    encoder: Encoder,
    newest: Revision,
    /// The newest entry without a key.
    keyless: Option<Revision>,
    usage: Usage,
}

impl Default for Import {
    fn default() -> Self {
        let newest = Revision { main: FIRST_REVISION, sub: 0 };
        Self { encoder: Encoder::default(), newest, keyless: None, usage: Usage::default() }
    }
}

impl Import {
    /// Adds the next entry; they must come in order.
    ///
    /// # Errors
    /// The entry is not one of etcd's, or out of order; or a fault of the store.
    pub fn entry<V: View>(
        &mut self,
        tx: &mut Overlay<V>,
        bucket_key: &[u8],
        value: &[u8],
    ) -> Result<(), Fault> {
        let (revision, delete) = match bucket_key.strip_suffix(&[TOMBSTONE_MARK]) {
            Some(revision) if revision.len() == Revision::KEY_LENGTH => (revision, true),
            _ => (bucket_key, false),
        };
        let revision = log_revision(revision)?;
        if revision <= self.newest {
            let (newest, next) = (self.newest.main, revision.main);
            return Err(Fault::new(format!("history goes from revision {newest} back to {next}")));
        }
        self.newest = revision;
        let key = &value[RecordHeader::new(value)?.key];
        if key.is_empty() {
            return self.keyless(tx, revision);
        }
        if key.len() > KEY_BYTES_MAX {
            let (length, at) = (key.len(), revision.main);
            return Err(Fault::new(format!(
                "the key of {length} bytes at revision {at} cannot be stored: the longest has {KEY_BYTES_MAX}"
            )));
        }
        let previous = versions::newest(tx, key)?;
        let encoded = if delete {
            self.encoder.delete(revision, previous.as_ref(), 0, key)?
        } else {
            self.encoder.encoded_put(revision, previous.as_ref(), value)?
        };
        let key = encoded.record.key()?;
        encoded.store(tx, key, previous.as_ref(), &mut self.usage)?;
        write_revision(tx, revision.main);
        Ok(())
    }

    /// `etcdutl snapshot restore --bump-revision` raises the revision by an entry without a key, which no request can
    /// read or delete, and compacts there. It stays in history alone: hashes and snapshots contain it.
    fn keyless<V: View>(&mut self, tx: &mut Overlay<V>, revision: Revision) -> Result<(), Fault> {
        if let Some(superseded) = self.keyless.replace(revision) {
            tx.delete(Space::Log, Bytes::copy_from_slice(&superseded.to_key()));
            self.usage.remove(item_bytes(0, false));
        }
        let encoded = self.encoder.encoded_put(revision, None, &[])?;
        self.usage.add(item_bytes(0, false));
        tx.put(Space::Log, encoded.log_key, encoded.record.bytes().clone());
        write_revision(tx, revision.main);
        Ok(())
    }

    /// The revision of the newest entry.
    pub fn newest(&self) -> i64 {
        self.newest.main
    }

    /// Ends the import at the newest entry's revision or, if that is newer, at `compacted`: in a store whose last
    /// changes were all deletes that compaction removed.
    pub fn finish<V: View>(self, tx: &mut Overlay<V>, compacted: i64) {
        write_revision(tx, self.newest.main.max(compacted));
        self.usage.write(tx);
    }
}
