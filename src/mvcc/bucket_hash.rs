//! Checksums of parts of etcd's bucket `key`, of which compaction computes one and `HashKV` the rest.

use super::crc;
use super::record::{Outline, Record};
use crate::types::{Fault, Revision};

/// The checksum of a part of etcd's bucket, which can be combined with that of the part before it.
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

    /// Adds bytes.
    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.sum = crc32c::crc32c_append(self.sum, bytes);
        self.length += bytes.len();
    }

    /// Adds an event. For a stub it adds the checksum that the value had when it was written.
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

    /// Adds the checksum of the part behind this one.
    pub(super) fn join(&mut self, behind: &Self) {
        self.sum = crc::combine(self.sum, behind.sum, behind.length);
        self.length += behind.length;
    }
}

/// The part of a compaction's hash that can only be computed while it runs: of the events after the previous
/// compaction, up to it.
#[derive(Clone, Copy, Debug)]
pub(super) struct CompactionHash {
    /// The previous compaction.
    pub(super) previous: i64,
    /// The compaction.
    pub(super) revision: i64,
    /// The checksum of the events between them.
    pub(super) stretch: BucketHash,
}
