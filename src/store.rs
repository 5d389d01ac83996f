//! The interface of a sorted key-value store, the overlay of a batch, and the in-memory store. No I/O.
//!
//! A room never writes to an [`Engine`]: it writes to the [`Overlay`] of the batch being applied, reads
//! back through it, and the machine commits the whole overlay at once. Readers hold a [`View`].

mod hash;
mod memory;
mod overlay;
#[cfg(test)]
mod tests;

use std::ops::Bound;

use bytes::Bytes;

use crate::types::Fault;

pub use self::hash::StoreHash;
pub use self::memory::{Memory, MemoryView};
pub use self::overlay::Overlay;

/// The separate sorted maps of the store.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub enum Space {
    /// User key to its newest record.
    Kv,
    /// Revision to event; without the value where that is large. A revision is written once and deleted once at most, so
    /// that an engine may delete it with one tombstone for one write ("single delete"). A write and its delete may meet in
    /// one batch, which then contains the delete alone: of a key that never existed and never will, which does no harm.
    Log,
    /// Applied index, revisions, versions: few and small.
    Meta,
    /// Leases, as etcd's bucket.
    Lease,
    /// Members, as etcd's bucket.
    Members,
    /// Ids of members that were removed and may not return.
    MembersRemoved,
    /// Alarms, as etcd's bucket.
    Alarm,
    /// Cluster version and downgrade, as etcd's bucket.
    Cluster,
    /// Flag that auth is enabled, and its revision.
    Auth,
    /// Users, as etcd's bucket.
    AuthUsers,
    /// Roles, as etcd's bucket.
    AuthRoles,
    /// Revision to event with its large value, from the moment on at which `Kv` holds a newer one. Written and deleted
    /// like [`Space::Log`].
    Superseded,
    /// Simple tokens, as hashes, and at which auth revisions users were given their passwords. etcd has nothing like it.
    Tokens,
}

impl Space {
    /// All spaces, in order.
    pub const ALL: [Self; 13] = [
        Self::Kv,
        Self::Log,
        Self::Meta,
        Self::Lease,
        Self::Members,
        Self::MembersRemoved,
        Self::Alarm,
        Self::Cluster,
        Self::Auth,
        Self::AuthUsers,
        Self::AuthRoles,
        Self::Superseded,
        Self::Tokens,
    ];

    /// True if each key is written once and deleted at most once: an engine may drop a value and its tombstone as soon
    /// as they meet. A second deletion does no harm, since nothing is written under the key again.
    pub const fn is_written_once(self) -> bool {
        matches!(self, Self::Log | Self::Superseded)
    }

    /// The name of the space on disk.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Kv => "kv",
            Self::Log => "log",
            Self::Meta => "meta",
            Self::Lease => "lease",
            Self::Members => "members",
            Self::MembersRemoved => "members_removed",
            Self::Alarm => "alarm",
            Self::Cluster => "cluster",
            Self::Auth => "auth",
            Self::AuthUsers => "authUsers",
            Self::AuthRoles => "authRoles",
            Self::Superseded => "superseded",
            Self::Tokens => "tokens",
        }
    }
}

/// A key and its value.
pub type Pair = (Bytes, Bytes);

/// A snapshot of the store; later commits are not visible.
pub trait View {
    /// The value under `key`.
    ///
    /// # Errors
    /// The store cannot be read.
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, Fault>;

    /// The uncommitted write to `key` on top of the committed store, if any: `Some(None)` for a delete. Caches of
    /// committed values must not be asked for such a key.
    fn written(&self, _space: Space, _key: &[u8]) -> Option<&Option<Bytes>> {
        None
    }

    /// The pairs between two bounds, ascending; `.rev()` for descending. The bounds must not be in the
    /// wrong order.
    fn scan<'a>(
        &'a self,
        space: Space,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
    ) -> impl DoubleEndedIterator<Item = Result<Pair, Fault>> + 'a;
}

/// Writes that become visible together.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// Writes in the order in which they take effect; `None` deletes.
    pub writes: Vec<(Space, Bytes, Option<Bytes>)>,
}

/// A store that commits batches.
pub trait Engine {
    /// The type of a snapshot.
    type View: View + Clone;

    /// A snapshot of the current state.
    fn view(&self) -> Self::View;

    /// Makes all writes of `batch` visible at once. Not synced: durability comes from the raft log, and after a power
    /// loss the store may have any earlier batch as its last, but never a part of one.
    ///
    /// # Errors
    /// The store cannot be written; it must not be used any more.
    fn commit(&mut self, batch: Batch) -> Result<(), Fault>;

    /// Writes the first part of a batch that is too large to be kept in memory until its end. Views made from now on
    /// show it; on disk it appears together with the next [`Engine::commit`], or not at all.
    ///
    /// # Errors
    /// As [`Engine::commit`].
    fn stage(&mut self, batch: Batch) -> Result<(), Fault>;

    /// Size of the store on disk, in bytes.
    fn disk_bytes(&self) -> u64;
}
