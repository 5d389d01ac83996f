//! Deletion of many keys in steps: the rest to delete, and the records that were read.

use std::collections::{BTreeSet, btree_set};
use std::iter::Peekable;
use std::ops::Bound;
use std::vec;

use basalt_proto::encoded::DeleteRangeResponse;
use basalt_proto::etcdserverpb::DeleteRangeRequest;
use bytes::Bytes;

use super::record::Record;
use super::versions;
use super::write::Writer;
use crate::store::{Space, View};
use crate::types::limits::DELETE_READ_RECORDS;
use crate::types::{Error, Fault, KeyRange};

/// Records read for the cost of one deleted: reading is several times as fast.
const RECORDS_READ_FOR_ONE_DELETED: usize = 8;
/// Records that are scanned for each wanted key, before keys are looked up one by one.
const SCANNED_FOR_EACH_KEY: usize = 4;
/// Fewer keys than these are looked up one by one.
const SCANNED_KEYS_MIN: usize = 8;

/// The keys that remain to be deleted, in order.
enum Rest {
    Range(KeyRange),
    Keys(btree_set::IntoIter<Bytes>),
}

/// Deletes keys in as many steps as it takes. All of them must be of one [`Writer`]'s transaction.
pub(super) struct Deletion {
    /// `None` at the end.
    rest: Option<Rest>,
    /// Records that were read and not deleted yet.
    found: Peekable<vec::IntoIter<Record>>,
    wants_previous: bool,
    /// Keys deleted so far.
    pub(super) deleted: i64,
    /// Encoded `KeyValue`s of deleted keys, if they are wanted.
    pub(super) prev_kvs: Vec<Bytes>,
}

impl Deletion {
    pub(super) fn of_range(key: &Bytes, range_end: &Bytes, wants_previous: bool) -> Self {
        let range = KeyRange::new(key.clone(), range_end.clone());
        Self::new(Rest::Range(range), wants_previous)
    }

    pub(super) fn of_keys(keys: BTreeSet<Bytes>) -> Self {
        Self::new(Rest::Keys(keys.into_iter()), false)
    }

    fn new(rest: Rest, wants_previous: bool) -> Self {
        let found = Vec::new().into_iter().peekable();
        Self { rest: Some(rest), found, wants_previous, deleted: 0, prev_kvs: Vec::new() }
    }

    /// Continues until `budget` is used up by deleted keys and read records, which are subtracted from it. True at the end.
    pub(super) fn step<V: View>(
        &mut self,
        writer: &mut Writer<'_, V>,
        budget: &mut usize,
    ) -> Result<bool, Fault> {
        loop {
            while let Some(previous) = self.found.next_if(|_| *budget > 0) {
                *budget -= 1;
                self.deleted += 1;
                if self.wants_previous {
                    self.prev_kvs.push(previous.key_value());
                }
                writer.delete(previous)?;
            }
            let is_done = self.rest.is_none() && self.found.peek().is_none();
            if is_done || *budget == 0 {
                return Ok(is_done);
            }
            *budget -= (*budget).min(DELETE_READ_RECORDS / RECORDS_READ_FOR_ONE_DELETED);
            let found = self.read(writer)?;
            self.found = found.into_iter().peekable();
        }
    }

    /// The next records that are not tombstones.
    fn read<V: View>(&mut self, writer: &Writer<'_, V>) -> Result<Vec<Record>, Fault> {
        let mut found = Vec::new();
        match self.rest.take() {
            Some(Rest::Range(range)) => {
                let rest = writer.read(|reader| {
                    reader.each_some(&range, reader.revision, DELETE_READ_RECORDS, |record| {
                        found.push(record);
                        Ok(())
                    })
                })?;
                self.rest = rest.map(Rest::Range);
            }
            Some(Rest::Keys(mut rest)) => {
                let keys: Vec<_> = rest.by_ref().take(DELETE_READ_RECORDS).collect();
                found = writer.read(|reader| newest_of(reader.view, &keys))?;
                self.rest = (keys.len() == DELETE_READ_RECORDS).then_some(Rest::Keys(rest));
            }
            None => (),
        }
        Ok(found)
    }
}

impl<V: View> Writer<'_, V> {
    /// Deletes the keys of a range at once.
    pub(super) fn delete_range(
        &mut self,
        request: &DeleteRangeRequest,
    ) -> Result<DeleteRangeResponse, Error> {
        let mut deletion = Deletion::of_range(&request.key, &request.range_end, request.prev_kv);
        let mut unlimited = usize::MAX;
        deletion.step(self, &mut unlimited)?;
        let Deletion { deleted, prev_kvs, .. } = deletion;
        Ok(DeleteRangeResponse { header: self.header(), deleted, prev_kvs })
    }
}

/// The records of those of these keys that exist; the keys must be in order. Where they are close together one
/// scan reads them.
fn newest_of(view: &impl View, keys: &[Bytes]) -> Result<Vec<Record>, Fault> {
    let mut found = Vec::with_capacity(keys.len());
    let (Some(first), Some(last)) = (keys.first(), keys.last()) else { return Ok(found) };
    let mut looked_up = keys;
    if keys.len() >= SCANNED_KEYS_MIN {
        let (from, to) = (Bound::Included(&first[..]), Bound::Included(&last[..]));
        let pairs = view.scan(Space::Kv, from, to).take(keys.len() * SCANNED_FOR_EACH_KEY);
        for pair in pairs {
            let (key, record) = pair?;
            let before = looked_up.partition_point(|wanted| *wanted < key);
            looked_up = &looked_up[before..];
            match looked_up.split_first() {
                Some((wanted, rest)) if *wanted == key => {
                    found.push(Record::new(record)?);
                    looked_up = rest;
                }
                Some(_) => (),
                None => break,
            }
        }
    }
    for key in looked_up {
        found.extend(versions::newest(view, key)?);
    }
    found.retain(|record| !record.is_tombstone());
    Ok(found)
}
