//! The leases and the keys attached to them.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use basalt_proto::leasepb::Lease as Stored;
use bytes::Bytes;
use prost::Message as _;

use super::Grant;
use crate::store::{Overlay, Space, View};
use crate::types::limits::LEASE_TTL_MAX;
use crate::types::{Error, Fault, LeaseId, LogIndex, Refusal};

#[derive(Debug, Default)]
struct Lease {
    ttl: i64,
    granted_at: LogIndex,
    keys: BTreeSet<Bytes>,
}

/// All leases and their keys; the same on every member.
#[derive(Debug, Default)]
pub struct Leases {
    leases: BTreeMap<LeaseId, Lease>,
}

impl Leases {
    /// Reads the leases; the keys are attached again through [`Leases::attach`].
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn open(view: &impl View) -> Result<Self, Fault> {
        let mut leases = BTreeMap::new();
        for pair in view.scan(Space::Lease, Bound::Unbounded, Bound::Unbounded) {
            let stored = Stored::decode(pair?.1)
                .map_err(|_| Fault::new("a lease in the store does not read back"))?;
            let Stored { id, ttl, granted_at, .. } = stored;
            leases.insert(id, Lease { ttl, granted_at, keys: BTreeSet::new() });
        }
        Ok(Self { leases })
    }

    /// Grants a lease of `ttl` seconds by the log entry `at`.
    ///
    /// # Errors
    /// The id is taken, or the time too long.
    pub fn grant<V: View>(
        &mut self,
        tx: &mut Overlay<V>,
        id: LeaseId,
        ttl: i64,
        at: LogIndex,
    ) -> Result<Grant, Error> {
        if id == 0 {
            return Err(Refusal::LeaseNotFound.into());
        }
        if ttl > LEASE_TTL_MAX {
            return Err(Refusal::LeaseTTLTooLarge.into());
        }
        if self.leases.contains_key(&id) {
            return Err(Refusal::LeaseExist.into());
        }
        let stored = Stored { id, ttl, remaining_ttl: 0, granted_at: at };
        tx.put(Space::Lease, key(id), stored.encode_to_vec().into());
        self.leases.insert(id, Lease { ttl, granted_at: at, keys: BTreeSet::new() });
        Ok(Grant { id, at, ttl })
    }

    /// Revokes a lease and returns the keys that must be deleted with it, in order.
    ///
    /// # Errors
    /// There is no such lease.
    pub fn revoke<V: View>(
        &mut self,
        tx: &mut Overlay<V>,
        id: LeaseId,
    ) -> Result<BTreeSet<Bytes>, Error> {
        let lease = self.leases.remove(&id).ok_or(Refusal::LeaseNotFound)?;
        tx.delete(Space::Lease, key(id));
        Ok(lease.keys)
    }

    /// Revokes a lease if the log entry `at` granted it.
    ///
    /// # Errors
    /// There is no such lease.
    pub fn expire<V: View>(
        &mut self,
        tx: &mut Overlay<V>,
        id: LeaseId,
        at: LogIndex,
    ) -> Result<BTreeSet<Bytes>, Error> {
        match self.leases.get(&id) {
            Some(lease) if lease.granted_at == at => self.revoke(tx, id),
            Some(_) | None => Err(Refusal::LeaseNotFound.into()),
        }
    }

    /// Moves a key from one lease to another; 0 is none. A lease that does not exist is ignored.
    pub fn attach(&mut self, key: &Bytes, old: LeaseId, new: LeaseId) {
        if let Some(lease) = self.leases.get_mut(&old) {
            lease.keys.remove(key);
        }
        if let Some(lease) = self.leases.get_mut(&new) {
            // A copy: `key` is a slice of its record, which would stay in memory as long as the lease.
            lease.keys.insert(Bytes::copy_from_slice(key));
        }
    }

    /// Number of leases.
    pub fn count(&self) -> usize {
        self.leases.len()
    }

    /// True if there is such a lease.
    pub fn exists(&self, id: LeaseId) -> bool {
        self.leases.contains_key(&id)
    }

    /// The keys of a lease, in order.
    pub fn keys(&self, id: LeaseId) -> Vec<Bytes> {
        self.leases.get(&id).into_iter().flat_map(|lease| lease.keys.iter().cloned()).collect()
    }

    /// The first key of a lease that is not before `from`.
    pub fn next_key(&self, id: LeaseId, from: &[u8]) -> Option<&Bytes> {
        let bounds = (Bound::Included(from), Bound::Unbounded);
        self.leases.get(&id)?.keys.range::<[u8], _>(bounds).next()
    }

    /// Number of keys of a lease.
    pub fn key_count(&self, id: LeaseId) -> usize {
        self.leases.get(&id).map_or(0, |lease| lease.keys.len())
    }

    /// All leases.
    pub fn all(&self) -> impl Iterator<Item = Grant> {
        let grant = |(id, lease): (&LeaseId, &Lease)| Grant {
            id: *id,
            at: lease.granted_at,
            ttl: lease.ttl,
        };
        self.leases.iter().map(grant)
    }
}

/// The key in etcd's bucket.
fn key(id: LeaseId) -> Bytes {
    Bytes::copy_from_slice(&id.to_be_bytes())
}
