//! A hash of all that a store holds, computed in steps.

use std::ops::Bound;

use super::{Space, View};
use crate::types::Fault;

/// A hash under way. Two stores with the same content have the same; it is none of etcd's.
#[derive(Clone, Debug, Default)]
pub struct StoreHash {
    hash: u32,
    /// The space under way, by its number in [`Space::ALL`], and its newest key that was hashed.
    space: usize,
    after: Option<Vec<u8>>,
}

impl StoreHash {
    /// Takes so many entries in; the hash when there are no more. `view` must be the same in all steps.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn step(&mut self, view: &impl View, entries: usize) -> Result<Option<u32>, Fault> {
        let Some(space) = Space::ALL.get(self.space).copied() else { return Ok(Some(self.hash)) };
        if self.after.is_none() {
            self.bytes(space.name().as_bytes());
        }
        let after = self.after.take();
        let from = after.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        for pair in view.scan(space, from, Bound::Unbounded).take(entries) {
            let (key, value) = pair?;
            // How the log was cut into batches is left out.
            if space != Space::Meta {
                self.bytes(&key);
                self.bytes(&value);
            }
            self.after = Some(key.to_vec());
        }
        self.space += usize::from(self.after.is_none());
        Ok(None)
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.hash = crc32c::crc32c_append(self.hash, bytes);
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::store::{Batch, Engine as _, Memory};

    fn store(pairs: &[(Space, &'static str, &'static str)]) -> Memory {
        let bytes = |text: &'static str| Bytes::from_static(text.as_bytes());
        let write = |(space, key, value): &(Space, &'static str, &'static str)| {
            (*space, bytes(key), Some(bytes(value)))
        };
        let mut store = Memory::default();
        store.commit(Batch { writes: pairs.iter().map(write).collect() }).expect("in memory");
        store
    }

    fn hash(store: &Memory, entries: usize) -> u32 {
        let (view, mut hash) = (store.view(), StoreHash::default());
        loop {
            if let Some(hash) = hash.step(&view, entries).expect("in memory") {
                return hash;
            }
        }
    }

    #[test]
    fn it_tells_stores_apart_and_does_not_depend_on_the_steps() {
        let pairs = [(Space::Kv, "a", "1"), (Space::Kv, "b", "2"), (Space::Lease, "c", "3")];
        let whole = hash(&store(&pairs), 1000);
        assert_eq!(hash(&store(&pairs), 1), whole);
        assert_eq!(hash(&store(&pairs), 2), whole);
        assert_ne!(hash(&store(&pairs[1..]), 1000), whole);
        assert_ne!(hash(&store(&[pairs[0], pairs[1], (Space::Kv, "c", "3")]), 1000), whole);
        // In the same bytes.
        assert_eq!(hash(&store(&[(Space::Kv, "a", "")]), 1), {
            let spaces = Space::ALL.iter().skip(1).map(|space| space.name()).collect::<String>();
            crc32c::crc32c(format!("kva{spaces}").as_bytes())
        });
        let meta = (Space::Meta, "consistent_index", "7");
        assert_eq!(hash(&store(&[pairs[0], pairs[1], pairs[2], meta]), 1000), whole);
    }
}
