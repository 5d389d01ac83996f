//! Checksums of stretches of etcd's bucket `key`, of which compaction computes a part and `HashKV` the rest.

use super::crc;
use super::record::{Outline, Record};
use crate::types::{Fault, Revision};

/// The checksum of a stretch of etcd's bucket, which can be joined with what comes before it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct BucketHash {
    sum: u32,
    length: usize,
}

impl BucketHash {
    /// The checksum.
    pub(super) fn sum(&self) -> u32 {
        self.sum
    }

    /// Takes bytes in.
    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.sum = crc32c::crc32c_append(self.sum, bytes);
        self.length += bytes.len();
    }

    /// Takes an event in. Of a stub it takes the checksum that the value had when it was written.
    pub(super) fn write(&mut self, revision: Revision, record: &Record) -> Result<(), Fault> {
        self.bytes(&revision.to_key());
        if record.is_tombstone() {
            self.bytes(b"t");
        }
        match record.outline()? {
            Some(Outline { length, crc }) => self.join(&Self { sum: crc, length }),
            None => self.bytes(record.bucket_value()?),
        }
        Ok(())
    }

    /// Takes in the checksum of the stretch behind this one.
    pub(super) fn join(&mut self, behind: &Self) {
        self.sum = crc::combine(self.sum, behind.sum, behind.length);
        self.length += behind.length;
    }
}

/// The part of a compaction's hash that can only be computed while it runs: of the events after the
/// compaction before it, up to it.
#[derive(Clone, Copy, Debug)]
pub(super) struct CompactionHash {
    /// The compaction before.
    pub(super) previous: i64,
    /// The compaction.
    pub(super) revision: i64,
    /// Of the events between.
    pub(super) stretch: BucketHash,
}
