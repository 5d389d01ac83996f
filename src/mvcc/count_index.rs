//! The count index: numbers of keys by range, so that counting does not read keys one by one.
//!
//! ```text
//!  keys    a b c d │ e f g │ h i j k l │ m n …
//!  fences  ""      e       h           m          each with its live and dead records
//!          └────── chunk ──────┘└── chunk ───…    each with the sum of its fences
//! ```
//!
//! A count adds the chunks and fences inside the range and scans its two ends. Chunks are shared with the readers of
//! earlier revisions (copy on write). Dead records (tombstones that compaction has not removed) are counted so that the
//! keys between two fences can always be scanned quickly.
//!
//! A fence also has the revision of the last change of its keys, under which [`ListCache`](super::list_cache::ListCache)
//! keeps them. It is shared by all readers: one at an earlier revision may see a later change.

use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use bytes::Bytes;

use super::list_cache::ListName;
use super::record::Record;
use crate::store::{Space, View};
use crate::types::limits::{
    FENCE_RECORDS_MAX, FENCE_RECORDS_MIN, FENCES_IN_CHUNK_MAX, FENCES_IN_CHUNK_MIN,
};
use crate::types::{Fault, KeyRange};

/// Records between a fence and the next one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct KeyCounts {
    pub(super) live: i64,
    pub(super) dead: i64,
}

impl KeyCounts {
    pub(super) const BORN: Self = Self { live: 1, dead: 0 };
    pub(super) const DIED: Self = Self { live: -1, dead: 1 };
    pub(super) const REVIVED: Self = Self { live: 1, dead: -1 };
    pub(super) const GONE: Self = Self { live: 0, dead: -1 };

    fn all(self) -> usize {
        usize::try_from(self.live + self.dead).unwrap_or(0)
    }

    fn add(&mut self, other: Self) {
        self.live += other.live;
        self.dead += other.dead;
        assert!(self.live >= 0, "fewer than no live keys: {self:?} after {other:?}");
        assert!(self.dead >= 0, "fewer than no dead keys: {self:?} after {other:?}");
    }
}

#[derive(Clone, Debug)]
struct Fence {
    /// The first key after it.
    start: Bytes,
    state: Arc<FenceState>,
}

/// Another one after each change of the fence's start or end.
#[derive(Debug)]
struct FenceState {
    id: u64,
    /// No key was changed after this revision.
    changed: AtomicI64,
}

impl Fence {
    fn changed(&self) -> i64 {
        self.state.changed.load(Ordering::Relaxed)
    }
}

#[derive(Clone, Debug, Default)]
struct Chunk {
    /// Changes seldom, so it is shared apart from the counts.
    fences: Arc<Vec<Fence>>,
    counts: Vec<KeyCounts>,
    sum: KeyCounts,
}

impl Chunk {
    fn new(fences: Vec<Fence>, counts: Vec<KeyCounts>) -> Self {
        let mut sum = KeyCounts::default();
        counts.iter().for_each(|tally| sum.add(*tally));
        Self { fences: Arc::new(fences), counts, sum }
    }

    fn split_off(&mut self, at: usize) -> Self {
        let fences = Arc::make_mut(&mut self.fences).split_off(at);
        let counts = self.counts.split_off(at);
        let right = Self::new(fences, counts);
        self.sum = KeyCounts {
            live: self.sum.live - right.sum.live,
            dead: self.sum.dead - right.sum.dead,
        };
        right
    }

    fn append(&mut self, right: &Self) {
        Arc::make_mut(&mut self.fences).extend(right.fences.iter().cloned());
        self.counts.extend(&right.counts);
        self.sum.add(right.sum);
    }
}

/// The index, described in the module. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct CountIndex {
    chunks: Arc<Vec<Arc<Chunk>>>,
    fences_made: u64,
}

/// The keys between a fence and the next one, for a reader.
#[derive(Clone, Copy, Debug)]
pub(super) struct Section<'a> {
    /// The first key.
    pub(super) start: &'a Bytes,
    pub(super) end: Bound<&'a [u8]>,
    pub(super) live: i64,
    pub(super) name: ListName,
}

/// Position of a fence: chunk, and fence in the chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    chunk: usize,
    fence: usize,
}

impl CountIndex {
    /// Builds the index by one scan of all keys, whose last change was at `revision` or earlier.
    pub(super) fn open(view: &impl View, revision: i64) -> Result<Self, Fault> {
        let mut chunks = Vec::new();
        let mut fences_made = 0;
        let mut fence = |start| new_fence(&mut fences_made, start, revision);
        let mut fences = vec![fence(Bytes::new())];
        let mut counts = vec![KeyCounts::default()];
        for pair in view.scan(Space::Kv, Bound::Unbounded, Bound::Unbounded) {
            let (key, record) = pair?;
            let mut last = counts.len() - 1;
            if counts[last].all() >= FENCE_RECORDS_MAX / 2 {
                if counts.len() == FENCES_IN_CHUNK_MAX / 2 {
                    let full = Chunk::new(std::mem::take(&mut fences), std::mem::take(&mut counts));
                    chunks.push(Arc::new(full));
                }
                fences.push(fence(Bytes::copy_from_slice(&key)));
                counts.push(KeyCounts::default());
                last = counts.len() - 1;
            }
            counts[last].add(tally(&Record::new(record)?));
        }
        chunks.push(Arc::new(Chunk::new(fences, counts)));
        Ok(Self { chunks: Arc::new(chunks), fences_made })
    }

    /// Number of keys.
    pub(super) fn total(&self) -> i64 {
        self.chunks.iter().map(|chunk| chunk.sum.live).sum()
    }

    fn place(&self, key: &[u8]) -> Place {
        let chunk = self.chunks.partition_point(|chunk| chunk.fences[0].start <= key);
        let chunk = chunk.saturating_sub(1);
        let fences = &self.chunks[chunk].fences;
        let fence = fences.partition_point(|fence| fence.start <= key).saturating_sub(1);
        Place { chunk, fence }
    }

    fn fence(&self, place: Place) -> &Fence {
        &self.chunks[place.chunk].fences[place.fence]
    }

    fn start(&self, place: Place) -> &Bytes {
        &self.fence(place).start
    }

    /// The section with this key.
    pub(super) fn section(&self, key: &[u8]) -> Section<'_> {
        let place = self.place(key);
        let fence = self.fence(place);
        let name = ListName { fence: fence.state.id, changed: fence.changed() };
        let live = self.chunks[place.chunk].counts[place.fence].live;
        Section { start: &fence.start, end: self.end(place), live, name }
    }

    fn next(&self, place: Place) -> Option<Place> {
        let Place { chunk, fence } = place;
        if fence + 1 < self.chunks[chunk].counts.len() {
            return Some(Place { chunk, fence: fence + 1 });
        }
        (chunk + 1 < self.chunks.len()).then_some(Place { chunk: chunk + 1, fence: 0 })
    }

    /// The end of the keys that a fence counts.
    fn end(&self, place: Place) -> Bound<&[u8]> {
        match self.next(place) {
            Some(next) => Bound::Excluded(self.start(next).as_ref()),
            None => Bound::Unbounded,
        }
    }

    /// Number of keys of a range at the view's revision.
    pub(super) fn count(&self, view: &impl View, range: &KeyRange) -> Result<i64, Fault> {
        let (from, to) = range.bounds();
        let end = match range {
            KeyRange::From(_) => None,
            KeyRange::Span(_, end) => Some(end),
            KeyRange::One(_) => return count(view, from, to),
        };
        if range.is_empty() {
            return Ok(0);
        }
        let first = self.place(range.start());
        let last = end.map(|end| self.place(end));
        if last == Some(first) {
            return count(view, from, to);
        }
        // No key is empty, so that a range from the smallest key contains the first fence's keys completely.
        let whole = self.start(first) == range.start() || range.start().as_ref() == [0];
        let mut sum = if whole { 0 } else { count(view, from, self.end(first))? };
        let inside = if whole { Some(first) } else { self.next(first) };
        sum += self.sum(inside, last);
        if let Some(last) = last {
            sum += count(view, Bound::Included(self.start(last).as_ref()), to)?;
        }
        Ok(sum)
    }

    /// Upper bound of the records, live and dead, in a range; does not read the store.
    pub(super) fn records_max(&self, range: &KeyRange) -> i64 {
        if range.is_empty() {
            return 0;
        }
        let first = self.place(range.start());
        let last = match range {
            KeyRange::One(_) => return 1,
            KeyRange::From(_) => None,
            KeyRange::Span(_, end) => self.next(self.place(end)),
        };
        let inside = self.counts(Some(first), last);
        inside.map(|tally| tally.live + tally.dead).sum()
    }

    fn sum(&self, from: Option<Place>, to: Option<Place>) -> i64 {
        self.counts(from, to).map(|tally| tally.live).sum()
    }

    /// The counts of chunks and fences in `[from, to)`, whole chunks as one.
    fn counts(&self, from: Option<Place>, to: Option<Place>) -> impl Iterator<Item = KeyCounts> {
        let behind = Place { chunk: self.chunks.len(), fence: 0 };
        let from = from.unwrap_or(behind);
        let to = to.unwrap_or(behind);
        let in_chunk = move |chunk: usize, from: usize, to: Option<usize>| {
            let counts = self.chunks.get(chunk).map_or(&[][..], |chunk| &chunk.counts);
            counts[from.min(counts.len())..to.unwrap_or(counts.len())].iter().copied()
        };
        let same = from.chunk == to.chunk;
        let head = in_chunk(from.chunk, from.fence, same.then_some(to.fence));
        let whole = self.chunks.get(from.chunk + 1..to.chunk).unwrap_or_default();
        let tail = in_chunk(to.chunk, 0, Some(if same { 0 } else { to.fence }));
        head.chain(whole.iter().map(|chunk| chunk.sum)).chain(tail)
    }

    /// Takes note of a new version of `key` at `revision`, and of the change of the counts; `view` includes it.
    pub(super) fn note(
        &mut self,
        view: &impl View,
        key: &[u8],
        revision: i64,
        change: Option<KeyCounts>,
    ) -> Result<(), Fault> {
        let place = self.place(key);
        // Before readers see the revision.
        self.fence(place).state.changed.store(revision, Ordering::Relaxed);
        match change {
            Some(change) => self.add(view, place, change),
            None => Ok(()),
        }
    }

    /// Takes note that the tombstone of `key` was removed; `view` includes that.
    pub(super) fn note_removal(&mut self, view: &impl View, key: &[u8]) -> Result<(), Fault> {
        self.add(view, self.place(key), KeyCounts::GONE)
    }

    fn add(&mut self, view: &impl View, place: Place, change: KeyCounts) -> Result<(), Fault> {
        let chunk = self.chunk(place.chunk);
        chunk.sum.add(change);
        chunk.counts[place.fence].add(change);
        let records = chunk.counts[place.fence].all();
        if records > FENCE_RECORDS_MAX {
            self.split(view, place)
        } else {
            if records < FENCE_RECORDS_MIN / 2 {
                self.join(place);
            }
            Ok(())
        }
    }

    fn chunk(&mut self, at: usize) -> &mut Chunk {
        Arc::make_mut(&mut Arc::make_mut(&mut self.chunks)[at])
    }

    /// Inserts a fence in the middle of a fence's keys.
    fn split(&mut self, view: &impl View, place: Place) -> Result<(), Fault> {
        let from = Bound::Included(self.start(place).as_ref());
        let mut left = KeyCounts::default();
        let mut middle = None;
        for pair in view.scan(Space::Kv, from, self.end(place)) {
            let (key, record) = pair?;
            if left.all() >= FENCE_RECORDS_MAX / 2 {
                middle = Some(Bytes::copy_from_slice(&key));
                break;
            }
            left.add(tally(&Record::new(record)?));
        }
        let Some(middle) = middle else {
            return Err(Fault::new("the store holds fewer keys than were counted: it is damaged"));
        };
        let (start, changed) = (self.start(place).clone(), self.fence(place).changed());
        let halves = [start, middle].map(|start| new_fence(&mut self.fences_made, start, changed));
        let chunk = self.chunk(place.chunk);
        let all = std::mem::replace(&mut chunk.counts[place.fence], left);
        let mut right = KeyCounts::default();
        right.add(KeyCounts { live: all.live - left.live, dead: all.dead - left.dead });
        chunk.counts.insert(place.fence + 1, right);
        Arc::make_mut(&mut chunk.fences).splice(place.fence..=place.fence, halves);
        if chunk.counts.len() > FENCES_IN_CHUNK_MAX {
            let right = chunk.split_off(FENCES_IN_CHUNK_MAX / 2);
            Arc::make_mut(&mut self.chunks).insert(place.chunk + 1, Arc::new(right));
        }
        Ok(())
    }

    /// Removes the next fence if both it and this one count few records.
    fn join(&mut self, place: Place) {
        let short = |chunk: &Chunk, left: usize| {
            let both = chunk.counts[left].all() + chunk.counts[left + 1].all();
            both < FENCE_RECORDS_MIN
        };
        let Place { chunk: at, fence } = place;
        let chunk = Arc::make_mut(&mut Arc::make_mut(&mut self.chunks)[at]);
        let left = if fence + 1 < chunk.counts.len() { fence } else { fence.saturating_sub(1) };
        if left + 1 < chunk.counts.len() && short(chunk, left) {
            let right = chunk.counts.remove(left + 1);
            chunk.counts[left].add(right);
            let fences = Arc::make_mut(&mut chunk.fences);
            let changed = fences[left].changed().max(fences[left + 1].changed());
            let both = new_fence(&mut self.fences_made, fences[left].start.clone(), changed);
            fences.splice(left..left + 2, [both]);
        }
        self.join_chunks(at);
    }

    fn join_chunks(&mut self, at: usize) {
        let left = if at + 1 < self.chunks.len() { at } else { at.saturating_sub(1) };
        let Some([one, two]) = self.chunks.get(left..left + 2) else { return };
        if one.counts.len() + two.counts.len() < FENCES_IN_CHUNK_MIN {
            let right = Arc::make_mut(&mut self.chunks).remove(left + 1);
            self.chunk(left).append(&right);
        }
    }
}

fn new_fence(made: &mut u64, start: Bytes, changed: i64) -> Fence {
    *made += 1;
    let state = FenceState { id: *made, changed: AtomicI64::new(changed) };
    Fence { start, state: Arc::new(state) }
}

fn tally(record: &Record) -> KeyCounts {
    if record.is_tombstone() { KeyCounts { live: 0, dead: 1 } } else { KeyCounts::BORN }
}

/// Counts keys that exist, one by one.
fn count(view: &impl View, from: Bound<&[u8]>, to: Bound<&[u8]>) -> Result<i64, Fault> {
    let mut live = 0;
    for pair in view.scan(Space::Kv, from, to) {
        live += tally(&Record::new(pair?.1)?).live;
    }
    Ok(live)
}
