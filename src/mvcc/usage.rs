//! Size of the keyspace: live versions and kept history, updated with every change.
//!
//! Two sums over the same items, those of etcd's bucket `key`: their own bytes, and the bytes of the pages that etcd's
//! file uses for them once it is defragmented. Members that applied the same entries, and whose compaction passes have
//! ended, have equal sums.

use std::ops::Bound;

use bytes::Bytes;

use super::record::Record;
use crate::store::{Overlay, Space, View};
use crate::types::Fault;

/// `Meta`: both sums, big-endian, written with every change of them.
const USAGE_KEY: &[u8] = b"usage";

/// Bytes of a page of etcd's file.
const PAGE_BYTES: u64 = 4096;
/// Bytes before the first item of a page.
const PAGE_HEADER_BYTES: u64 = 16;
/// Bytes up to which a page is filled when it is split: nine tenths, as etcd sets it.
const PAGE_FILL_BYTES: u64 = 3686;
/// Least number of items of a page, however large they are.
const PAGE_ITEMS_MIN: u64 = 2;

/// Bytes of keys and their kept history.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes of the items themselves.
    pub logical: u64,
    /// Bytes of the pages that etcd's file uses for them, without free pages.
    pub paged: u64,
}

/// An item's share of the pages that it fills together with others of its size.
fn paged(item_bytes: u64) -> u64 {
    let items = ((PAGE_FILL_BYTES - PAGE_HEADER_BYTES) / item_bytes).max(PAGE_ITEMS_MIN);
    let pages = (PAGE_HEADER_BYTES + items * item_bytes).div_ceil(PAGE_BYTES);
    pages * PAGE_BYTES / items
}

impl Usage {
    /// Reads the sums; for a store of an earlier version, which has none, they are computed by one scan of `log`.
    pub(super) fn open(view: &impl View) -> Result<Self, Fault> {
        let Some(bytes) = view.get(Space::Meta, USAGE_KEY)? else { return Self::sum(view) };
        let sums = bytes.first_chunk().zip(bytes.get(8..).and_then(|rest| rest.try_into().ok()));
        let (logical, paged) = sums.ok_or_else(|| {
            Fault::new("the sum of the store's bytes cannot be read: the store is damaged")
        })?;
        Ok(Self { logical: u64::from_be_bytes(*logical), paged: u64::from_be_bytes(paged) })
    }

    /// Computes the sums from every version in the store.
    pub(super) fn sum(view: &impl View) -> Result<Self, Fault> {
        let mut usage = Self::default();
        for pair in view.scan(Space::Log, Bound::Unbounded, Bound::Unbounded) {
            usage.add(Record::new(pair?.1)?.item_bytes()?);
        }
        Ok(usage)
    }

    /// Adds an item of so many bytes.
    pub(super) fn add(&mut self, item_bytes: u64) {
        self.logical += item_bytes;
        self.paged += paged(item_bytes);
    }

    /// Subtracts an item. Wrong sums of a damaged store stop at zero instead of a panic.
    pub(super) fn remove(&mut self, item_bytes: u64) {
        self.logical = self.logical.saturating_sub(item_bytes);
        self.paged = self.paged.saturating_sub(paged(item_bytes));
    }

    /// Writes the sums, to be committed with the changes that they count.
    pub(super) fn write<V: View>(self, tx: &mut Overlay<V>) {
        let mut sums = [0; 16];
        sums[..8].copy_from_slice(&self.logical.to_be_bytes());
        sums[8..].copy_from_slice(&self.paged.to_be_bytes());
        tx.put(Space::Meta, Bytes::from_static(USAGE_KEY), Bytes::copy_from_slice(&sums));
    }
}

#[cfg(test)]
mod tests {
    use basalt_proto::mvccpb::KeyValue;
    use prost::Message;

    use super::super::record::item_bytes;
    use super::*;

    /// Bytes for a key in `dbSizeInUse` of etcd 3.7.1 after its defragmentation: 2,000 keys of 16 bytes, put once, with
    /// values of one length.
    #[test]
    fn items_take_the_pages_that_they_take_in_etcds_file() {
        const MEASURED: [(usize, u64); 7] = [
            (100, 194),
            (1000, 1386),
            (1024, 1386),
            (4000, 4122),
            (4096, 6168),
            (20_000, 20_506),
            (20_480, 22_552),
        ];
        for (length, measured) in MEASURED {
            let kv = KeyValue {
                key: vec![b'k'; 16].into(),
                create_revision: 1000,
                mod_revision: 1000,
                version: 1,
                value: vec![0; length].into(),
                lease: 0,
            };
            let paged = paged(item_bytes(kv.encoded_len(), false));
            let off = measured.abs_diff(paged) * 100;
            assert!(off <= measured * 5, "{length}: {paged} bytes, and {measured} in etcd's file");
        }
    }

    #[test]
    fn added_items_can_be_removed() {
        let mut usage = Usage::default();
        let sizes = [33, 34, 100, 1834, 1835, 1836, 4096, 1 << 20];
        sizes.into_iter().for_each(|size| usage.add(size));
        assert_eq!(usage.logical, sizes.iter().sum::<u64>());
        assert!(usage.paged > usage.logical);
        sizes.into_iter().for_each(|size| usage.remove(size));
        assert_eq!(usage, Usage::default());
    }
}
