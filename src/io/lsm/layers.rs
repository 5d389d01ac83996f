//! The memtables and tables of the store at one time, and how they are read.
//!
//! The tree holds its list of tables locked while it makes a new list durable, which takes several fsyncs, and reads take that
//! lock. Executors may not wait for a disk: so memtables are outside of the tree, and tables are listed here once the tree has
//! made them durable. A list is never changed, only replaced.

use std::iter::Peekable;
use std::ops::Bound;
use std::sync::Arc;

use lsm_tree::merge::Merger;
use lsm_tree::mvcc_stream::MvccStream;
use lsm_tree::table::filter::standard_bloom::Builder as BloomFilter;
use lsm_tree::{BoxedIterator, InternalValue, Memtable, Slice, Table, ValueType};

/// The memtables and tables of the store, as a view reads them.
pub(super) struct Layers {
    /// Takes the batches.
    pub(super) active: Arc<Memtable>,
    /// Those that are to be flushed, the oldest first.
    pub(super) sealed: Vec<Arc<Memtable>>,
    pub(super) tables: Arc<Tables>,
}

/// The tables.
pub(super) struct Tables {
    /// Tables with disjoint ranges of keys, ascending; runs with newer pairs first.
    runs: Vec<Vec<Table>>,
    level_0_runs: usize,
}

type Pair = lsm_tree::Result<InternalValue>;

/// The bounds of a scan.
pub(super) type Bounds = (Bound<Slice>, Bound<Slice>);

impl Layers {
    /// Tables, and an empty memtable.
    pub(super) fn new(tables: Tables) -> Self {
        Self { active: memtable(), sealed: Vec::new(), tables: Arc::new(tables) }
    }

    /// The same with the memtable sealed.
    pub(super) fn rotated(&self) -> Self {
        let mut sealed = self.sealed.clone();
        sealed.push(Arc::clone(&self.active));
        Self { active: memtable(), sealed, tables: Arc::clone(&self.tables) }
    }

    /// The same with other tables, to which these memtables were written.
    pub(super) fn flushed(&self, flushed: &[Arc<Memtable>], tables: &Arc<Tables>) -> Self {
        let is_left = |it: &&Arc<Memtable>| !flushed.iter().any(|other| Arc::ptr_eq(it, other));
        let sealed = self.sealed.iter().filter(is_left).cloned().collect();
        Self { active: Arc::clone(&self.active), sealed, tables: Arc::clone(tables) }
    }

    /// The value of a key, as of a sequence number.
    pub(super) fn get(&self, key: &[u8], number: u64) -> lsm_tree::Result<Option<Slice>> {
        let mut memtables = std::iter::once(&self.active).chain(self.sealed.iter().rev());
        let found = match memtables.find_map(|memtable| memtable.get(key, number)) {
            Some(found) => Some(found),
            None => self.tables.get(key, number)?,
        };
        Ok(found.filter(|pair| !pair.is_tombstone()).map(|pair| pair.value))
    }

    /// The pairs of a range, as of a sequence number.
    pub(super) fn scan<'a>(
        &'a self,
        bounds: &Bounds,
        number: u64,
    ) -> impl DoubleEndedIterator<Item = Pair> + use<'a> {
        let is_visible = move |pair: &Pair| pair.as_ref().map_or(true, |it| it.key.seqno < number);
        let mut sources: Vec<BoxedIterator<'a>> = Vec::with_capacity(8);
        for run in &self.tables.runs {
            let tables = overlapping(run, bounds);
            if !tables.is_empty() {
                let bounds = bounds.clone();
                let pairs = tables.iter().flat_map(move |table| table.range(bounds.clone()));
                sources.push(Box::new(pairs.filter(is_visible)));
            }
        }
        // The versions of a key are ordered from the newest to the oldest.
        let version = |key: &Slice, number| InternalValue::new_tombstone(key.clone(), number).key;
        let from = match &bounds.0 {
            Bound::Included(key) => Bound::Included(version(key, u64::MAX)),
            Bound::Excluded(key) => Bound::Excluded(version(key, 0)),
            Bound::Unbounded => Bound::Unbounded,
        };
        let to = match &bounds.1 {
            Bound::Included(key) => Bound::Included(version(key, 0)),
            Bound::Excluded(key) => Bound::Excluded(version(key, u64::MAX)),
            Bound::Unbounded => Bound::Unbounded,
        };
        for memtable in self.sealed.iter().chain([&self.active]) {
            let pairs = memtable.items.range((from.clone(), to.clone())).map(|entry| {
                Ok(InternalValue { key: entry.key().clone(), value: entry.value().clone() })
            });
            sources.push(Box::new(pairs.filter(is_visible)));
        }
        let newest = MvccStream::new(Merger::new(sources));
        newest.filter(|pair| pair.as_ref().map_or(true, |it| !it.is_tombstone()))
    }
}

impl Tables {
    /// Runs of tables, those with newer pairs first, of which so many are of level 0.
    pub(super) fn new(runs: Vec<Vec<Table>>, level_0_runs: usize) -> Self {
        Self { runs, level_0_runs }
    }

    /// Number of runs of level 0: each is searched for each key.
    pub(super) fn level_0_runs(&self) -> usize {
        self.level_0_runs
    }

    fn get(&self, key: &[u8], number: u64) -> lsm_tree::Result<Option<InternalValue>> {
        let hash = BloomFilter::get_hash(key);
        for run in &self.runs {
            let at = run.partition_point(|table| *table.metadata.key_range.max() < key);
            let table = run.get(at).filter(|table| *table.metadata.key_range.min() <= key);
            if let Some(table) = table
                && let Some(found) = table.get(key, number, hash)?
            {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }
}

fn memtable() -> Arc<Memtable> {
    // Only the tree tells memtables apart by numbers, those of its own.
    Arc::new(Memtable::new(0))
}

/// The tables of a run that may have keys between these bounds.
fn overlapping<'a>(run: &'a [Table], (from, to): &Bounds) -> &'a [Table] {
    let start = match from {
        Bound::Included(key) => run.partition_point(|it| it.metadata.key_range.max() < key),
        Bound::Excluded(key) => run.partition_point(|it| it.metadata.key_range.max() <= key),
        Bound::Unbounded => 0,
    };
    let run = &run[start..];
    let end = match to {
        Bound::Included(key) => run.partition_point(|it| it.metadata.key_range.min() <= key),
        Bound::Excluded(key) => run.partition_point(|it| it.metadata.key_range.min() < key),
        Bound::Unbounded => run.len(),
    };
    &run[..end]
}

/// The pairs of memtables as they are flushed: of each key the newest version, and none of those that were written once and
/// removed again.
pub(super) struct Newest<I: Iterator<Item = Pair>>(Peekable<I>);

impl<'a> Newest<Merger<BoxedIterator<'a>>> {
    pub(super) fn of(memtables: &'a [Arc<Memtable>]) -> Self {
        let pairs = |it: &'a Arc<Memtable>| -> BoxedIterator<'a> { Box::new(it.iter().map(Ok)) };
        Self(Merger::new(memtables.iter().map(pairs).collect()).peekable())
    }
}

impl<I: Iterator<Item = Pair>> Iterator for Newest<I> {
    type Item = Pair;

    fn next(&mut self) -> Option<Pair> {
        loop {
            let newest = match self.0.next()? {
                Ok(newest) => newest,
                error @ Err(_) => return Some(error),
            };
            let mut before = None;
            let is_older =
                |it: &Pair| it.as_ref().is_ok_and(|it| it.key.user_key == newest.key.user_key);
            while let Some(Ok(older)) = self.0.next_if(is_older) {
                before = before.or(Some(older.key.value_type));
            }
            let removes = newest.key.value_type == ValueType::WeakTombstone;
            if !(removes && before == Some(ValueType::Value)) {
                return Some(Ok(newest));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flushed_are_the_newest_versions_but_not_what_was_written_and_removed() {
        let kinds = [ValueType::Value, ValueType::Tombstone, ValueType::WeakTombstone];
        let [value, tombstone, weak] = kinds;
        let sealed = [memtable(), memtable()];
        let mut number = 0;
        let mut insert = |memtable: usize, key: &str, kind: ValueType| {
            number += 1;
            let pair = InternalValue::from_components(key, number.to_string(), number, kind);
            sealed[memtable].insert(pair);
        };
        for (key, kinds) in [
            ("overwritten", [value, value]),
            ("removed", [value, tombstone]),
            ("removed once", [value, weak]),
            ("written again", [tombstone, value]),
        ] {
            insert(0, key, kinds[0]);
            insert(0, "other", value);
            insert(1, key, kinds[1]);
        }
        insert(1, "of a table", weak);
        let flushed: Vec<_> = Newest::of(&sealed)
            .map(|pair| pair.unwrap())
            .map(|it| (String::from_utf8(it.key.user_key.to_vec()).unwrap(), it.key.value_type))
            .collect();
        let expected = [
            ("of a table", weak),
            ("other", value),
            ("overwritten", value),
            ("removed", tombstone),
            ("written again", value),
        ];
        assert_eq!(flushed, expected.map(|(key, kind)| (key.to_owned(), kind)));
        let newest = Newest::of(&sealed)
            .find_map(|pair| pair.ok().filter(|it| &*it.key.user_key == b"other"));
        assert_eq!(&*newest.unwrap().value, b"11");
    }
}
