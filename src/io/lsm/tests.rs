//! The store on disk and the one in memory get the same batches, and must read the same.

use std::ops::Bound;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::store::{Memory, MemoryView, Overlay};

struct Mirror {
    random: StdRng,
    path: tempfile::TempDir,
    /// Closed while it is reopened.
    disk: Option<LsmEngine>,
    memory: Memory,
    /// Views of earlier states, which later batches must not change.
    held: Vec<(LsmView, MemoryView)>,
    /// Number of keys written, and some of them deleted, in spaces that are written once.
    once: u32,
    deletable: Vec<(Space, Bytes)>,
}

impl Mirror {
    fn new(seed: u64) -> Self {
        let path = tempfile::tempdir().unwrap();
        let disk = Some(LsmEngine::open(path.path()).unwrap());
        let random = StdRng::seed_from_u64(seed);
        let (memory, held, deletable) = (Memory::default(), Vec::new(), Vec::new());
        Self { random, path, disk, memory, held, once: 0, deletable }
    }

    fn disk(&mut self) -> &mut LsmEngine {
        self.disk.as_mut().expect("it is open")
    }

    /// Smallest and largest, adjacent keys, prefixes of each other; short, so that they collide.
    fn key(&mut self) -> Bytes {
        const BYTES: [u8; 5] = [0, 1, b'a', b'b', 0xff];
        let length = self.random.random_range(1..4);
        (0..length).map(|_| BYTES[self.random.random_range(0..BYTES.len())]).collect()
    }

    fn bound(&mut self) -> Bound<Bytes> {
        match self.random.random_range(0..5) {
            0 => Bound::Unbounded,
            1 | 2 => Bound::Included(self.key()),
            _ => Bound::Excluded(self.key()),
        }
    }

    fn space(&mut self) -> Space {
        Space::ALL[self.random.random_range(0..Space::ALL.len())]
    }

    fn commit(&mut self) {
        let mut batch = Batch::default();
        for _ in 0..self.random.random_range(0..12) {
            let length = self.random.random_range(0..200);
            let value = Bytes::from(vec![self.random.random(); length]);
            let value = self.random.random_bool(0.7).then_some(value);
            let space = self.space();
            let write = match space.is_written_once() {
                true => self.write_once(space, value),
                false => Some((space, self.key(), value)),
            };
            let Some(write) = write else { continue };
            // A batch is made from an overlay, in which each key occurs once.
            if batch.writes.iter().all(|(space, key, _)| (*space, key) != (write.0, &write.1)) {
                batch.writes.push(write);
            }
        }
        self.disk().commit(batch.clone()).unwrap();
        self.memory.commit(batch).unwrap();
    }

    /// A write to a space in which each key is written once, and deleted once at most.
    fn write_once(
        &mut self,
        space: Space,
        value: Option<Bytes>,
    ) -> Option<(Space, Bytes, Option<Bytes>)> {
        if let Some(value) = value {
            self.once += 1;
            let key = Bytes::from(self.once.to_be_bytes().to_vec());
            self.deletable.push((space, key.clone()));
            return Some((space, key, Some(value)));
        }
        let at = self.deletable.iter().position(|(of, _)| *of == space)?;
        // Not always the oldest.
        let at = self.random.random_range(at..self.deletable.len());
        (self.deletable[at].0 == space)
            .then(|| self.deletable.swap_remove(at))
            .map(|(_, key)| (space, key, None))
    }

    /// Closes the store without open views, and reopens it.
    fn reopen(&mut self) {
        self.held.clear();
        self.disk().persist().unwrap();
        self.disk = None;
        self.disk = Some(LsmEngine::open(self.path.path()).unwrap());
    }

    fn step(&mut self) {
        match self.random.random_range(0..60) {
            0 => self.reopen(),
            // A merge of everything, while views are held.
            10 if self.random.random_bool(0.5) => {
                self.disk().defragment().recv().unwrap();
            }
            11 => self.disk().persist().unwrap(),
            1..8 => {
                let views = (self.disk().view(), self.memory.view());
                self.held.push(views);
            }
            8..10 if !self.held.is_empty() => {
                let at = self.random.random_range(0..self.held.len());
                self.held.swap_remove(at);
            }
            _ => self.commit(),
        }
        let newest = (self.disk().view(), self.memory.view());
        self.look(&newest);
        let held = std::mem::take(&mut self.held);
        held.iter().for_each(|views| self.look(views));
        self.held = held;
    }

    fn look(&mut self, (disk, memory): &(LsmView, MemoryView)) {
        let (space, key) = (self.space(), self.key());
        assert_eq!(disk.get(space, &key).unwrap(), memory.get(space, &key).unwrap());
        let (from, to) = (self.bound(), self.bound());
        if out_of_order(&from, &to) {
            return;
        }
        let (from, to) = (from.as_ref().map(Bytes::as_ref), to.as_ref().map(Bytes::as_ref));
        let expected: Vec<Pair> = memory.scan(space, from, to).map(Result::unwrap).collect();
        let (mut front, mut back) = (Vec::new(), Vec::new());
        let forward = [0.0, 0.5, 1.0][self.random.random_range(0..3)];
        let mut pairs = disk.scan(space, from, to).map(Result::unwrap);
        loop {
            let ahead = self.random.random_bool(forward);
            let Some(pair) = (if ahead { pairs.next() } else { pairs.next_back() }) else { break };
            if ahead { front.push(pair) } else { back.push(pair) }
        }
        front.extend(back.into_iter().rev());
        assert_eq!(front, expected, "{space:?} from {from:?} to {to:?}");
    }

    fn everything(&mut self) {
        let (disk, memory) = (self.disk().view(), self.memory.view());
        let open = Bound::Unbounded;
        for space in Space::ALL {
            let found: Vec<Pair> = disk.scan(space, open, open).map(Result::unwrap).collect();
            let expected: Vec<Pair> = memory.scan(space, open, open).map(Result::unwrap).collect();
            assert_eq!(found, expected, "{space:?}");
        }
    }
}

/// True for bounds that a sorted map refuses.
fn out_of_order(from: &Bound<Bytes>, to: &Bound<Bytes>) -> bool {
    match (from, to) {
        (Bound::Unbounded, _) | (_, Bound::Unbounded) => false,
        (Bound::Excluded(from), Bound::Excluded(to)) => from >= to,
        (
            Bound::Included(from) | Bound::Excluded(from),
            Bound::Included(to) | Bound::Excluded(to),
        ) => from > to,
    }
}

#[test]
fn the_store_on_disk_reads_like_the_one_in_memory() {
    for seed in 0..6 {
        println!("seed {seed}");
        let mut mirror = Mirror::new(seed);
        (0..400).for_each(|_| mirror.step());
        mirror.everything();
        mirror.reopen();
        mirror.everything();
        assert!(mirror.disk().disk_bytes() > 0);
    }
}

#[test]
#[allow(clippy::disallowed_methods, reason = "a test's thread")]
fn a_store_that_was_loaded_reads_like_one_that_was_committed_to() {
    for seed in 0..3 {
        println!("seed {seed}");
        let mut mirror = Mirror::new(seed);
        let path = mirror.path.path().join("loaded");
        let mut loader = match seed {
            0 => Loader::begin_paced(&path, 1 << 30).unwrap(),
            _ => Loader::begin(&path).unwrap(),
        };
        let mut entries = 0_u64;
        for _ in 0..40 {
            let mut overlay = Overlay::new(mirror.memory.view());
            for _ in 0..mirror.random.random_range(0..60) {
                entries += 1;
                let value = Bytes::from(vec![mirror.random.random(); 50]);
                overlay.put(Space::Log, Bytes::from(entries.to_be_bytes().to_vec()), value.clone());
                let (key, kept) = (mirror.key(), mirror.random.random_bool(0.9));
                if kept {
                    overlay.put(Space::Kv, key, value);
                } else {
                    overlay.delete(Space::Kv, key);
                    let superseded = mirror.random.random_range(1..=entries).to_be_bytes();
                    overlay.delete(Space::Log, Bytes::from(superseded.to_vec()));
                }
                overlay.put(Space::Meta, mirror.key(), Bytes::from_static(b"small"));
            }
            let batch = overlay.take();
            loader.commit(batch.clone()).unwrap();
            mirror.memory.commit(batch).unwrap();
            let (loaded, memory, key) = (loader.view(), mirror.memory.view(), mirror.key());
            for space in [Space::Kv, Space::Meta] {
                assert_eq!(loaded.get(space, &key).unwrap(), memory.get(space, &key).unwrap());
            }
        }
        mirror.disk = Some(loader.finish().unwrap());
        let patience = std::time::Instant::now();
        while path.with_file_name("loaded-runs").exists() {
            assert!(patience.elapsed().as_secs() < 30 && seed == 0, "what it was made of is left");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        mirror.everything();
        mirror.disk = None;
        mirror.disk = Some(LsmEngine::open(&path).unwrap());
        mirror.everything();
        // It can be used like any store.
        for _ in 0..100 {
            mirror.commit();
        }
        mirror.everything();
    }
}

/// A batch that writes its number to three spaces, and overwrites a large value.
fn numbered(number: u64) -> Batch {
    let mut random = StdRng::seed_from_u64(number);
    let value: Vec<u8> = (0..20_000).map(|_| random.random()).collect();
    let bytes = || Bytes::from(number.to_be_bytes().to_vec());
    let large = Bytes::from(format!("large {}", number % 10));
    let mut writes = vec![
        (Space::Kv, Bytes::from_static(b"number"), Some(bytes())),
        (Space::Kv, large, Some(Bytes::from(value.clone()))),
        (Space::Log, bytes(), Some(Bytes::from(value))),
        (Space::Meta, Bytes::from_static(b"number"), Some(bytes())),
    ];
    if let Some(old) = number.checked_sub(20) {
        writes.push((Space::Log, Bytes::from(old.to_be_bytes().to_vec()), None));
    }
    Batch { writes }
}

fn number(view: &LsmView, space: Space) -> u64 {
    let found = view.get(space, b"number").unwrap();
    found.map_or(0, |bytes| u64::from_be_bytes(bytes.as_ref().try_into().unwrap()))
}

#[test]
fn a_store_that_was_not_persisted_is_back_at_a_whole_batch() {
    let path = tempfile::tempdir().unwrap();
    let (mut last, mut committed) = (0, 0);
    for (round, more) in [700, 3, 900].into_iter().enumerate() {
        let mut engine = LsmEngine::open(path.path()).unwrap();
        let view = engine.view();
        let found = number(&view, Space::Kv);
        assert!((last..=committed).contains(&found), "{last} <= {found} <= {committed}");
        assert_eq!(number(&view, Space::Meta), found);
        let mut log = view.scan(Space::Log, Bound::Unbounded, Bound::Unbounded);
        let newest = log.next_back().map(|pair| pair.unwrap().0);
        assert_eq!(
            newest.map_or(0, |key| u64::from_be_bytes(key.as_ref().try_into().unwrap())),
            found
        );
        assert!(log.count() < 20);
        for number in found + 1..=found + more {
            engine.commit(numbered(number)).unwrap();
        }
        committed = found + more;
        if round == 1 {
            engine.persist().unwrap();
            last = committed;
        }
    }
}

#[test]
fn a_merge_of_everything_leaves_what_is_kept_and_what_a_view_reads() {
    let path = tempfile::tempdir().unwrap();
    let mut engine = LsmEngine::open(path.path()).unwrap();
    (1..=100).for_each(|number| engine.commit(numbered(number)).unwrap());
    engine.persist().unwrap();
    let old = engine.view();
    let all = |view: &LsmView| -> Vec<Pair> {
        view.scan(Space::Log, Bound::Unbounded, Bound::Unbounded).map(Result::unwrap).collect()
    };
    let read = all(&old);
    assert_eq!(read.len(), 20);
    (101..=1000).for_each(|number| engine.commit(numbered(number)).unwrap());
    // Ten values in `kv` and twenty in `log`.
    let kept = 30 * 20_000;
    engine.note_usage(kept);
    engine.defragment().recv().unwrap();
    assert_eq!(all(&old), read, "a view is not affected");
    assert!(engine.disk_bytes() > 2 * kept, "what it reads is there: {}", engine.disk_bytes());
    drop(old);
    engine.defragment().recv().unwrap();
    engine.let_go().recv().unwrap();
    let (disk, kept) = (engine.disk_bytes(), kept + kept / 4);
    assert!((1..kept).contains(&disk), "{disk} bytes on disk for {kept}");
    assert_eq!(number(&engine.view(), Space::Kv), 1000);
    assert_eq!(all(&engine.view()).len(), 20);
}

/// The threads that flush, merge and write back have a lower priority than those that serve.
#[test]
#[allow(clippy::disallowed_methods, reason = "a test's thread")]
fn the_threads_of_the_store_are_nice() {
    const NAMES: [&str; 3] = ["store-flush", "store-merge", "write-back"];
    let path = tempfile::tempdir().unwrap();
    let _store = LsmEngine::open(path.path()).unwrap();
    // Other tests have such threads, too, and each sets its name and nice value when it begins.
    for _ in 0..1000 {
        let mut found = threads();
        found.retain(|(name, _)| NAMES.contains(&name.as_str()));
        let has_all = NAMES.iter().all(|name| found.iter().any(|(other, _)| other == name));
        if has_all && found.iter().all(|(_, nice)| *nice >= upkeep::NICE) {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    panic!("{:?}", threads());
}

/// The name and nice value of each thread.
fn threads() -> Vec<(String, i32)> {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
    // Another test's thread may have ended by now.
    let stats = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("stat")).ok());
    stats
        .map(|stat| {
            let (head, tail) = stat.rsplit_once(')').unwrap();
            let name = head.split_once('(').unwrap().1.to_owned();
            // The nineteenth field; the third one follows the name (proc(5)).
            (name, tail.split_whitespace().nth(19 - 3).unwrap().parse().unwrap())
        })
        .collect()
}

fn bound(is_included: bool, key: &[u8]) -> Bound<&[u8]> {
    if is_included { Bound::Included(key) } else { Bound::Excluded(key) }
}

#[test]
fn bounds_longer_than_any_key_read_as_in_memory() {
    let mut mirror = Mirror::new(1);
    let long = |byte: u8, length: usize| Bytes::from(vec![byte; length]);
    let keys = [b"j".to_vec().into(), long(b'k', KEY_BYTES_MAX), b"l".to_vec().into()];
    let writes = keys.iter().map(|key| (Space::Kv, Bytes::clone(key), Some(Bytes::clone(key))));
    let batch = Batch { writes: writes.collect() };
    mirror.disk().commit(batch.clone()).unwrap();
    mirror.memory.commit(batch).unwrap();
    let (disk, memory) = (mirror.disk().view(), mirror.memory.view());
    let mut ends = vec![Bytes::from("j"), long(b'k', 1)];
    ends.extend((0..3).map(|more| long(b'k', KEY_BYTES_MAX + more)));
    ends.push([&long(b'k', KEY_BYTES_MAX)[..], b"\0"].concat().into());
    ends.extend([long(b'k', KEY_BYTES_MAX - 1), "l".into(), long(b'm', KEY_BYTES_MAX + 1)]);
    ends.sort();
    for (at, from) in ends.iter().enumerate() {
        assert_eq!(disk.get(Space::Kv, from), memory.get(Space::Kv, from));
        for to in &ends[at + 1..] {
            for kind in 0..4 {
                let lengths = |pair: Result<Pair, Fault>| pair.map(|(key, _)| (key[0], key.len()));
                let (from, to) = (bound(kind & 1 > 0, from), bound(kind & 2 > 0, to));
                let found: Vec<_> = disk.scan(Space::Kv, from, to).map(lengths).collect();
                let wanted: Vec<_> = memory.scan(Space::Kv, from, to).map(lengths).collect();
                assert_eq!(found, wanted);
            }
        }
    }
}

/// Writes of these keys to `kv`.
fn batch_of(keys: std::ops::Range<u32>, value: &str) -> Batch {
    let value = Some(Bytes::copy_from_slice(value.as_bytes()));
    let write = |key: u32| (Space::Kv, Bytes::copy_from_slice(&key.to_be_bytes()), value.clone());
    Batch { writes: keys.map(write).collect() }
}

fn kv_pairs(view: &LsmView) -> Vec<Pair> {
    let pairs = view.scan(Space::Kv, Bound::Unbounded, Bound::Unbounded);
    pairs.collect::<Result<_, _>>().unwrap()
}

#[test]
fn a_staged_batch_is_on_disk_as_a_whole_or_not_at_all() {
    let path = tempfile::tempdir().unwrap();
    // Each batch is larger than a memtable.
    let open = || LsmEngine::open_with_memtables(path.path(), 1000).unwrap();
    let mut engine = open();
    engine.commit(batch_of(0..100, "before")).unwrap();
    let before = kv_pairs(&engine.view());
    for ends_staged in [true, false] {
        let published = engine.view();
        engine.stage(batch_of(0..50, "after")).unwrap();
        // Made durable by another thread: the log is truncated after that.
        engine.persist().unwrap();
        engine.stage(batch_of(50..150, "after")).unwrap();
        engine.persist().unwrap();
        assert_eq!(kv_pairs(&engine.view()).len(), 150, "the writer sees it");
        assert_eq!(kv_pairs(&published), before, "readers do not");
        drop(published);
        if ends_staged {
            drop(engine);
            engine = open();
            assert_eq!(kv_pairs(&engine.view()), before, "a crash leaves nothing of it");
        }
    }
    engine.commit(batch_of(150..160, "after")).unwrap();
    let after = kv_pairs(&engine.view());
    assert_eq!(after.len(), 160);
    engine.persist().unwrap();
    drop(engine);
    assert_eq!(kv_pairs(&open().view()), after);
}

#[test]
fn whoever_commits_waits_for_merges_only_if_there_is_room_for_one() {
    let dir = tempfile::tempdir().unwrap();
    let mut engine = LsmEngine::open_unmerged(&dir.path().join("store")).unwrap();
    for count in 0..LEVEL_0_RUNS_MAX as u64 {
        assert!(!engine.is_behind());
        engine.commit(numbered(count)).unwrap();
        engine.persist().unwrap();
    }
    assert!(engine.is_behind(), "nothing merges");
    engine.store.control.no_room.store(true, Ordering::Relaxed);
    assert!(!engine.is_behind(), "a full disk would stop everything");
}

/// The tree writes a list of its tables with that lock held, in several fsyncs.
#[test]
fn nothing_of_an_executor_waits_for_the_lock_of_the_trees_list() {
    let dir = tempfile::tempdir().unwrap();
    let mut engine = LsmEngine::open_with_memtables(dir.path(), 1000).unwrap();
    engine.commit(batch_of(0..100, "a")).unwrap();
    engine.persist().unwrap();
    engine.commit(batch_of(100..110, "b")).unwrap();
    let shared = engine.clone();
    let locked = shared.store.tree.get_version_history_lock();
    let (done, over) = flume::bounded(1);
    let executor = std::thread::spawn(move || {
        let sealed = engine.store.layers.load().sealed.len();
        engine.commit(batch_of(110..200, "c")).unwrap();
        assert_eq!(engine.store.layers.load().sealed.len(), sealed + 1, "it was full");
        engine.stage(batch_of(200..210, "d")).unwrap();
        engine.commit(batch_of(210..220, "d")).unwrap();
        let view = engine.view();
        assert_eq!(kv_pairs(&view).len(), 220);
        for (key, value) in [(5_u32, "a"), (105, "b"), (150, "c"), (205, "d")] {
            assert_eq!(view.get(Space::Kv, &key.to_be_bytes()).unwrap().unwrap(), value);
        }
        assert!(!engine.is_behind());
        done.send(()).unwrap();
    });
    let waited = over.recv_timeout(std::time::Duration::from_secs(20));
    drop(locked);
    executor.join().unwrap();
    assert_eq!(waited, Ok(()), "it waited");
}
