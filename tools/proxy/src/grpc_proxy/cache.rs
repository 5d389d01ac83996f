//! Ranges that were read through this proxy, for serializable reads of the same range by the same caller. As with etcd's
//! proxy, a cached range is as old as its last read, unless a write through this proxy has touched it since: writes by
//! another way are not seen. Beyond etcd: a range goes to the token alone that read it, and one that was being read while
//! it was written is not cached.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;

use crate::limits::{CACHE_BYTES_MAX, CACHE_ENTRIES_MAX};

/// The end of a range that goes on to the last key.
const TO_THE_END: &[u8] = &[0];

/// A caller's token, and the request's bytes as a serializable one.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct CacheKey {
    pub(super) token: Option<String>,
    pub(super) request: Bytes,
}

/// Which keys a range has.
#[derive(Clone, Debug)]
struct Span {
    key: Bytes,
    end: Bytes,
}

impl Span {
    fn overlaps(&self, other: &Self) -> bool {
        self.begins_before_end_of(other) && other.begins_before_end_of(self)
    }

    fn begins_before_end_of(&self, other: &Self) -> bool {
        match &other.end[..] {
            [] => self.key <= other.key,
            TO_THE_END => true,
            end => self.key[..] < *end,
        }
    }
}

/// The outcome of a look into the cache.
pub(super) enum Found {
    Response(Bytes),
    Nothing,
    /// The revision has been compacted, as far as this proxy knows.
    Compacted,
}

/// A read that is under way.
pub(super) struct Reading(u64);

struct Entry {
    span: Span,
    revision: i64,
    response: Bytes,
    used: u64,
}

/// The cache.
#[derive(Default)]
pub(super) struct Cache {
    entries: HashMap<CacheKey, Entry>,
    /// The entries by their last use.
    by_use: BTreeMap<u64, CacheKey>,
    bytes: usize,
    /// Reads under way that no write has touched.
    readings: HashMap<u64, Span>,
    /// Counts uses and readings.
    clock: u64,
    compacted: i64,
}

impl Cache {
    pub(super) fn get(&mut self, key: &CacheKey, revision: i64) -> Found {
        if revision > 0 && revision < self.compacted {
            self.remove(key);
            return Found::Compacted;
        }
        self.clock += 1;
        let Some(entry) = self.entries.get_mut(key) else { return Found::Nothing };
        self.by_use.remove(&entry.used);
        entry.used = self.clock;
        self.by_use.insert(entry.used, key.clone());
        Found::Response(entry.response.clone())
    }

    /// A read of a range begins; it ends with [`Cache::add`] or [`Cache::give_up`].
    pub(super) fn begin(&mut self, key: &Bytes, end: &Bytes) -> Reading {
        self.clock += 1;
        self.readings.insert(self.clock, Span { key: key.clone(), end: end.clone() });
        Reading(self.clock)
    }

    /// The read failed.
    pub(super) fn give_up(&mut self, reading: &Reading) {
        self.readings.remove(&reading.0);
    }

    /// The response of a read; not kept if its range was written since the read began.
    pub(super) fn add(&mut self, reading: &Reading, key: CacheKey, revision: i64, response: Bytes) {
        let Some(span) = self.readings.remove(&reading.0) else { return };
        let bytes = key.request.len() + response.len();
        let is_compacted = revision != 0 && revision <= self.compacted;
        if is_compacted || bytes > CACHE_BYTES_MAX {
            return;
        }
        self.remove(&key);
        self.clock += 1;
        self.by_use.insert(self.clock, key.clone());
        self.bytes += bytes;
        self.entries.insert(key, Entry { span, revision, response, used: self.clock });
        while self.entries.len() > CACHE_ENTRIES_MAX || self.bytes > CACHE_BYTES_MAX {
            let Some((_, oldest)) = self.by_use.pop_first() else { return };
            self.remove(&oldest);
        }
    }

    /// A write touches these keys. Reads at a revision stay: their content does not change.
    pub(super) fn invalidate(&mut self, key: &Bytes, end: &Bytes) {
        let written = Span { key: key.clone(), end: end.clone() };
        self.readings.retain(|_, span| !span.overlaps(&written));
        let is_touched = |it: &Entry| it.revision == 0 && it.span.overlaps(&written);
        let touched = self.entries.iter().filter(|(_, it)| is_touched(it));
        let touched: Vec<CacheKey> = touched.map(|(key, _)| key.clone()).collect();
        touched.iter().for_each(|key| self.remove(key));
    }

    /// Everything may have changed.
    pub(super) fn clear(&mut self) {
        self.entries.clear();
        self.by_use.clear();
        self.readings.clear();
        self.bytes = 0;
    }

    pub(super) fn compact(&mut self, revision: i64) {
        self.compacted = self.compacted.max(revision);
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    fn remove(&mut self, key: &CacheKey) {
        if let Some(entry) = self.entries.remove(key) {
            self.by_use.remove(&entry.used);
            self.bytes -= key.request.len() + entry.response.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> CacheKey {
        CacheKey { token: None, request: Bytes::copy_from_slice(name.as_bytes()) }
    }

    fn add(cache: &mut Cache, from: &'static str, to: &'static str, revision: i64) {
        let reading = cache.begin(&Bytes::from(from), &Bytes::from(to));
        cache.add(&reading, key(from), revision, Bytes::from(from));
    }

    fn has(cache: &mut Cache, name: &str, revision: i64) -> bool {
        matches!(cache.get(&key(name), revision), Found::Response(_))
    }

    #[test]
    fn writes_remove_the_ranges_that_they_touch() {
        let mut cache = Cache::default();
        add(&mut cache, "a", "", 0);
        add(&mut cache, "b", "d", 0);
        add(&mut cache, "e", "\0", 0);
        add(&mut cache, "f", "", 7);
        cache.invalidate(&"d".into(), &Bytes::new());
        assert!(has(&mut cache, "b", 0), "the end is not in the range");
        cache.invalidate(&"c".into(), &Bytes::new());
        assert!(!has(&mut cache, "b", 0) && has(&mut cache, "a", 0));
        cache.invalidate(&"f".into(), &Bytes::new());
        assert!(!has(&mut cache, "e", 0) && has(&mut cache, "f", 7));
        cache.invalidate(&"a".into(), &Bytes::from_static(b"\0"));
        assert!(!has(&mut cache, "a", 0));
        assert_eq!((cache.len(), cache.bytes), (1, 2));
    }

    #[test]
    fn a_read_during_a_write_is_not_kept() {
        let mut cache = Cache::default();
        let reading = cache.begin(&"a".into(), &Bytes::new());
        cache.invalidate(&"a".into(), &Bytes::new());
        cache.add(&reading, key("a"), 0, "old".into());
        assert!(!has(&mut cache, "a", 0));
    }

    #[test]
    fn a_token_has_its_own_ranges() {
        let mut cache = Cache::default();
        add(&mut cache, "a", "", 0);
        let other = CacheKey { token: Some("t".to_owned()), ..key("a") };
        assert!(matches!(cache.get(&other, 0), Found::Nothing));
    }

    #[test]
    fn compacted_revisions_are_refused() {
        let mut cache = Cache::default();
        add(&mut cache, "a", "", 3);
        cache.compact(5);
        assert!(matches!(cache.get(&key("a"), 3), Found::Compacted));
        add(&mut cache, "a", "", 4);
        assert_eq!(cache.len(), 0);
        add(&mut cache, "a", "", 0);
        assert!(has(&mut cache, "a", 0));
    }

    #[test]
    fn the_least_recently_used_goes_first() {
        let mut cache = Cache::default();
        let names: Vec<String> = (0..=CACHE_ENTRIES_MAX).map(|it| it.to_string()).collect();
        for (at, name) in names.iter().enumerate() {
            let reading = cache.begin(&Bytes::new(), &Bytes::new());
            cache.add(&reading, key(name), 0, Bytes::new());
            assert!(at == 0 || has(&mut cache, "0", 0), "it is in use");
        }
        assert_eq!(cache.len(), CACHE_ENTRIES_MAX);
        assert!(!has(&mut cache, "1", 0) && has(&mut cache, "2", 0));
    }
}
