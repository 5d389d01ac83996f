//! The whole state as a bbolt file that etcd's own tools read, and back.
//!
//! ```text
//!  view ─► Export ─(bucket, key, value)─► bolt::Writer ─► chunks of a file      twice: sizes, then bytes
//!  file ─► bolt::Reader ─(bucket, key, value)─► Import ─► Overlay
//! ```
//!
//! A file begins with data that is known last: the position of its root and its number of pages. So the state is read
//! twice from one pinned view, first for the sizes alone; only the page being filled on each level of a tree is in
//! memory. Costs two scans of the store and one checksum.

pub mod bolt;
mod export;
mod import;
mod status;
#[cfg(test)]
mod tests;

pub use self::export::{Export, ExportStep, Scope};
pub use self::import::{Restore, RestoredLogStart, install, restore};
pub use self::status::{KvHash, Status, hash_kv, status};
