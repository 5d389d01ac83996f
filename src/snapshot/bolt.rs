//! Files of bbolt, etcd's store: B+ trees of pages, one tree in each bucket.
//!
//! ```text
//!  page     id u64 · kind u16 · count u16 · overflow u32 | elements | keys and values
//!  pages    0, 1: meta · 2: free pages · the rest: branches and leaves, children before parents
//!  root     a leaf (or tree) of buckets: name → root page, sequence; or, if small, the bucket's only page
//! ```
//!
//! All numbers are little-endian. The newer of the two meta pages with a valid checksum contains the root. Content
//! longer than a page continues in the pages behind it, its *overflow*.

mod check;
mod read;
mod write;

use bytes::{Buf as _, BufMut};

use crate::types::Fault;

pub use self::read::{Bucket, Entries, Entry, Reader, Source};
pub use self::write::{Plan, Writer};

/// Size of written pages; read files may have others.
pub const PAGE_BYTES: usize = 4096;

const MAGIC: u32 = 0xED0C_DAED;
const VERSION: u32 = 2;
/// Value in place of a list of free pages: bbolt computes the list when it opens the file.
const NO_FREELIST: u64 = u64::MAX;

/// Bytes of a page's header.
const HEADER: usize = 16;
/// Bytes of an element of a branch: position, key's length, page.
const BRANCH_ELEMENT: usize = 16;
/// Bytes of an element of a leaf: flags, position, key's length, value's length.
const LEAF_ELEMENT: usize = 16;
/// Bytes of a bucket's root: page, sequence.
const BUCKET_HEAD: usize = 16;
/// Bytes of a meta page behind the header.
const META: usize = 64;
/// The part of them that the checksum covers.
const META_SUMMED: usize = 56;
/// Longest key that bbolt accepts.
const KEY_BYTES_MAX: usize = 32_768;
/// Longest value that bbolt accepts.
const VALUE_BYTES_MAX: usize = (1 << 31) - 2;

const BRANCH: u16 = 1;
const LEAF: u16 = 2;
const META_PAGE: u16 = 4;
const FREELIST: u16 = 0x10;
/// Flag of a leaf's element that is a bucket.
const IS_BUCKET: u32 = 1;

/// The header of a page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct PageHead {
    id: u64,
    kind: u16,
    count: u16,
    overflow: u32,
}

impl PageHead {
    fn encode(self, out: &mut impl BufMut) {
        out.put_u64_le(self.id);
        out.put_u16_le(self.kind);
        out.put_u16_le(self.count);
        out.put_u32_le(self.overflow);
    }

    /// `bytes` must be as long as a header.
    fn decode(mut bytes: &[u8]) -> Self {
        Self {
            id: bytes.get_u64_le(),
            kind: bytes.get_u16_le(),
            count: bytes.get_u16_le(),
            overflow: bytes.get_u32_le(),
        }
    }
}

/// A meta page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Meta {
    page_bytes: u32,
    root: u64,
    freelist: u64,
    /// The number of pages: pages in use are below it.
    pages: u64,
    transaction: u64,
}

impl Meta {
    fn encode(self) -> [u8; META] {
        let mut bytes = [0; META];
        let mut out = &mut bytes[..];
        out.put_u32_le(MAGIC);
        out.put_u32_le(VERSION);
        out.put_u32_le(self.page_bytes);
        out.put_u32_le(0);
        out.put_u64_le(self.root);
        out.put_u64_le(0);
        out.put_u64_le(self.freelist);
        out.put_u64_le(self.pages);
        out.put_u64_le(self.transaction);
        let sum = fnv1a(&bytes[..META_SUMMED]);
        bytes[META_SUMMED..].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    /// Decodes the bytes after a page's header; error texts are bbolt's.
    fn decode(bytes: &[u8; META]) -> Result<Self, Fault> {
        let mut rest = &bytes[..];
        if rest.get_u32_le() != MAGIC {
            return Err(Fault::new("invalid database"));
        }
        if rest.get_u32_le() != VERSION {
            return Err(Fault::new("version mismatch"));
        }
        let page_bytes = rest.get_u32_le();
        rest.advance(size_of::<u32>());
        let root = rest.get_u64_le();
        rest.advance(size_of::<u64>());
        let (freelist, pages) = (rest.get_u64_le(), rest.get_u64_le());
        let transaction = rest.get_u64_le();
        if rest.get_u64_le() != fnv1a(&bytes[..META_SUMMED]) {
            return Err(Fault::new("checksum error"));
        }
        Ok(Self { page_bytes, root, freelist, pages, transaction })
    }
}

/// The checksum of meta pages.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |sum, byte| {
        (sum ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meta_pages_have_the_checksum_that_bbolt_computes() {
        // From a snapshot made by etcd 3.7.1.
        let meta =
            Meta { page_bytes: 4096, root: 22, freelist: NO_FREELIST, pages: 38, transaction: 20 };
        let bytes = meta.encode();
        assert_eq!(bytes[META_SUMMED..], 0xadf0_8a65_9ad3_05e7_u64.to_le_bytes());
        assert_eq!(Meta::decode(&bytes), Ok(meta));
    }
}
