//! The store in memory.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;

use super::{Batch, Engine, Pair, Space, View};
use crate::types::Fault;

type Maps = BTreeMap<Space, Arc<BTreeMap<Bytes, Bytes>>>;

/// A store in memory, for the simulator and the model tests.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    maps: Maps,
    /// The committed state, while a batch is staged on top of it.
    committed: Option<Maps>,
}

impl Memory {
    /// The store without staged writes, as after a crash.
    pub fn crashed(&self) -> Self {
        let maps = self.committed.as_ref().unwrap_or(&self.maps);
        Self { maps: maps.clone(), committed: None }
    }

    fn write(&mut self, batch: Batch) {
        for (space, key, value) in batch.writes {
            let map = Arc::make_mut(self.maps.entry(space).or_default());
            match value {
                Some(value) => drop(map.insert(key, value)),
                None => drop(map.remove(&key)),
            }
        }
    }
}

/// A snapshot of [`Memory`].
#[derive(Clone, Debug, Default)]
pub struct MemoryView {
    maps: Maps,
}

impl Engine for Memory {
    type View = MemoryView;

    fn view(&self) -> MemoryView {
        MemoryView { maps: self.maps.clone() }
    }

    fn commit(&mut self, batch: Batch) -> Result<(), Fault> {
        self.write(batch);
        self.committed = None;
        Ok(())
    }

    fn stage(&mut self, batch: Batch) -> Result<(), Fault> {
        self.committed.get_or_insert_with(|| self.maps.clone());
        self.write(batch);
        Ok(())
    }

    fn disk_bytes(&self) -> u64 {
        let pairs = self.maps.values().flat_map(|map| map.iter());
        pairs.map(|(key, value)| (key.len() + value.len()) as u64).sum()
    }
}

impl View for MemoryView {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, Fault> {
        Ok(self.maps.get(&space).and_then(|map| map.get(key)).cloned())
    }

    fn scan<'a>(
        &'a self,
        space: Space,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
    ) -> impl DoubleEndedIterator<Item = Result<Pair, Fault>> + 'a {
        let range = self.maps.get(&space).map(|map| map.range::<[u8], _>((from, to)));
        range.into_iter().flatten().map(|(key, value)| Ok((key.clone(), value.clone())))
    }
}
