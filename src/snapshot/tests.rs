//! Files written and read back, damaged files, and states exported and imported.

use std::collections::BTreeMap;

use basalt_proto::etcdserverpb::{DeleteRangeRequest, PutRequest};
use bytes::Bytes;
use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};

use super::bolt::{Bucket, Entry, Reader, Writer};
use super::{Export, ExportStep, Restore, Scope, hash_kv, install, restore, status};
use crate::cluster::{Cluster, Member};
use crate::mvcc::{self, Mvcc, ReadView};
use crate::store::{Engine as _, Memory, MemoryView, Overlay, Space, View as _};
use crate::types::{CacheBytes, Error, Fault, FeatureLevel, Refusal};

type Buckets = BTreeMap<Bytes, BTreeMap<Bytes, Bytes>>;

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

/// Lengths for every case: inline buckets, overflow, several levels.
fn random_buckets(random: &mut SmallRng) -> Buckets {
    let mut buckets = Buckets::new();
    for _ in 0..random.random_range(0..12) {
        let name = format!("bucket {}", random.random_range(0..1000));
        let count = [0, 1, 3, 40, 2000][random.random_range(0..5)];
        let key_max = [4, 17, 300, 3000][random.random_range(0..4)];
        let mut entries = BTreeMap::new();
        for _ in 0..count.min(200_000 / key_max) {
            let length = random.random_range(1..=key_max);
            let key = (0..length).map(|_| random.random_range(b'a'..=b'd')).collect::<Vec<_>>();
            let length = [0, 5, 100, 1500, 20_000][random.random_range(0..40) / 9];
            entries.insert(key.into(), vec![random.random(); length].into());
        }
        buckets.insert(name.into(), entries);
    }
    buckets
}

fn feed(writer: &mut Writer, buckets: &Buckets) -> super::bolt::Plan {
    for (name, entries) in buckets {
        writer.bucket(name.clone()).unwrap();
        for (key, value) in entries {
            writer.entry(key.clone(), value.clone()).unwrap();
        }
    }
    writer.finish().unwrap()
}

fn file_of(buckets: &Buckets) -> Bytes {
    let plan = feed(&mut Writer::counting(), buckets);
    let mut writer = Writer::writing(plan);
    feed(&mut writer, buckets);
    let file = writer.take(usize::MAX);
    assert_eq!(file.len() as u64, plan.bytes());
    file
}

fn read(file: Bytes) -> Result<Buckets, Fault> {
    let reader = Reader::open(file)?;
    let mut buckets = Buckets::new();
    for bucket in reader.entries(&reader.root()) {
        let Entry::Bucket(name, bucket) = bucket? else { continue };
        let mut entries = BTreeMap::new();
        for entry in reader.entries(&bucket) {
            if let Entry::Pair(key, value) = entry? {
                entries.insert(key, value);
            }
        }
        buckets.insert(name, entries);
    }
    Ok(buckets)
}

#[test]
fn written_files_are_read_back() {
    for seed in 0..60 {
        let buckets = random_buckets(&mut SmallRng::seed_from_u64(seed));
        let file = file_of(&buckets);
        let reader = Reader::open(file.clone()).unwrap();
        assert_eq!(reader.check(), Vec::<String>::new(), "seed {seed}");
        assert!(read(file).unwrap() == buckets, "seed {seed}");
    }
}

#[test]
fn many_buckets_make_a_tree_of_their_own() {
    let buckets: Buckets = (0..500)
        .map(|at| (format!("{at:04}").into(), [(bytes("k"), vec![at as u8; 900].into())].into()))
        .collect();
    let reader = Reader::open(file_of(&buckets)).unwrap();
    assert_eq!(reader.check(), Vec::<String>::new());
    let inline = reader.entries(&reader.root());
    let inline = inline.filter(|it| matches!(it, Ok(Entry::Bucket(_, Bucket::Inline(_)))));
    assert_eq!(inline.count(), 500);
}

#[test]
fn entries_invalid_in_bbolt_are_refused() {
    let mut writer = Writer::counting();
    assert!(writer.entry(bytes("outside"), Bytes::new()).is_err());
    writer.bucket(bytes("b")).unwrap();
    assert!(writer.entry(Bytes::new(), bytes("no key")).is_err());
    assert!(writer.entry(vec![0; 32_769].into(), Bytes::new()).is_err());
    writer.entry(bytes("b"), Bytes::new()).unwrap();
    assert!(writer.entry(bytes("a"), bytes("out of order")).is_err());
    assert!(writer.entry(bytes("b"), bytes("twice")).is_err());
}

#[test]
fn a_plan_is_kept() {
    let plan = Writer::counting().finish().unwrap();
    let mut writer = Writer::writing(plan);
    writer.bucket(bytes("not planned")).unwrap();
    for at in 0..200_u32 {
        writer.entry(Bytes::copy_from_slice(&at.to_be_bytes()), vec![0; 100].into()).unwrap();
    }
    assert!(writer.finish().is_err());
}

/// Reading any file ends without a panic.
#[test]
fn damaged_files_are_errors_or_other_files() {
    let mut detected = 0;
    for seed in 0..300 {
        let mut random = SmallRng::seed_from_u64(seed);
        let buckets = random_buckets(&mut SmallRng::seed_from_u64(seed % 10));
        let whole = file_of(&buckets);
        let mut file = whole.to_vec();
        for _ in 0..random.random_range(1..=8) {
            // Most damage is at the beginning of a page, which contains its structure.
            let page = random.random_range(0..file.len() / 4096) * 4096;
            let within = [4096, 64, 16][random.random_range(0..3)];
            let at = page + random.random_range(0..within);
            file[at] = [random.random(), 0, 0xff, file[at] ^ 1][random.random_range(0..4)];
        }
        if random.random_bool(0.2) {
            file.truncate(random.random_range(0..file.len()));
        }
        let file = Bytes::from(file);
        if let Ok(reader) = Reader::open(file.clone()) {
            let faults = reader.check();
            let _ = status(&reader);
            let _ = hash_kv(&reader, 0);
            let _ = restore(&reader, &mut Memory::default(), &Restore::default());
            detected += usize::from(!faults.is_empty());
        }
        let _ = read(file);
    }
    assert!(detected > 100, "only {detected}");
}

#[test]
fn pages_in_a_circle_end() {
    // A branch that refers to itself, made from a file with two levels.
    let entries =
        (0..500_u32).map(|at| (Bytes::from(at.to_be_bytes().to_vec()), vec![1; 50].into()));
    let buckets = Buckets::from([(bytes("b"), entries.collect())]);
    let mut file = file_of(&buckets).to_vec();
    let pages = file.len() / 4096;
    let branch = (3..pages).find(|page| file[page * 4096 + 8] == 1).unwrap();
    for child in 0..4 {
        let at = branch * 4096 + 16 + child * 16 + 8;
        file[at..at + 8].copy_from_slice(&(branch as u64).to_le_bytes());
    }
    let reader = Reader::open(Bytes::from(file)).unwrap();
    assert!(!reader.check().is_empty());
    assert!(status(&reader).is_err());
}

struct Store {
    engine: Memory,
    tx: Overlay<MemoryView>,
    mvcc: Mvcc,
}

impl Store {
    fn open(engine: Memory) -> Self {
        let view = engine.view();
        Self { engine, mvcc: Mvcc::open(&view, CacheBytes::NONE).unwrap(), tx: Overlay::new(view) }
    }

    fn put(&mut self, key: &str, value: Bytes) {
        let request = PutRequest { key: bytes(key), value, ..PutRequest::default() };
        self.mvcc.put(&mut self.tx, &request, &|_| true).unwrap();
    }

    fn delete(&mut self, key: &str) {
        let request = DeleteRangeRequest { key: bytes(key), ..DeleteRangeRequest::default() };
        self.mvcc.delete_range(&mut self.tx, &request).unwrap();
    }

    fn commit(&mut self) -> ReadView<MemoryView> {
        self.mvcc.write_meta(&mut self.tx);
        self.engine.commit(self.tx.take()).unwrap();
        self.tx.rebase(self.engine.view());
        self.mvcc.publish(self.engine.view())
    }

    fn file(&mut self) -> Bytes {
        let mut export = Export::new(self.commit().view, Scope::Member);
        let mut file = Vec::new();
        loop {
            match export.step(1000).unwrap() {
                ExportStep::Working => (),
                ExportStep::Chunk(chunk) => {
                    assert!(export.length().is_some(), "the length comes first");
                    file.extend(chunk);
                }
                ExportStep::Done => break,
            }
        }
        assert_eq!(Some(file.len() as u64), export.length());
        file.into()
    }
}

fn server_hash(read: &ReadView<MemoryView>, revision: i64) -> Result<mvcc::KvHash, Error> {
    let mut cursor = read.hash_kv(revision)?;
    loop {
        if let Some(hash) = cursor.step(&read.view, 100)? {
            return Ok(hash);
        }
    }
}

/// A history with all kinds of changes.
fn random_history(seed: u64) -> Store {
    let mut random = SmallRng::seed_from_u64(seed);
    let mut store = Store::open(Memory::default());
    store.tx.put(Space::Lease, bytes("12345678"), bytes("a lease"));
    store.tx.put(Space::Alarm, bytes("an alarm"), Bytes::new());
    store.tx.put(Space::Members, bytes("00000000000000aa"), bytes("{}"));
    for round in 0..3 {
        for _ in 0..random.random_range(20..400) {
            let key = format!("k{}", random.random_range(0..50));
            if random.random_bool(0.7) {
                let length = [3, 500, 9000][random.random_range(0..10) / 4];
                store.put(&key, vec![b'v'; length].into());
            } else {
                store.delete(&key);
            }
        }
        if round == 1 {
            store.mvcc.compact(&mut store.tx, store.mvcc.revision() - 10).unwrap();
            // Some passes are interrupted.
            let budget = [1, 7, 100_000][random.random_range(0..3)];
            store.mvcc.compact_step(&mut store.tx, budget).unwrap();
        }
    }
    store
}

#[test]
fn a_state_is_the_same_after_a_journey_through_a_file() {
    for seed in 0..8 {
        let mut store = random_history(seed);
        let file = Reader::open(store.file()).unwrap();
        assert_eq!(file.check(), Vec::<String>::new());
        let read = store.commit();
        let told = status(&file).unwrap();
        assert_eq!(told.keys as i64, read.keys(), "seed {seed}");
        assert_eq!((told.version.as_str(), told.bytes), ("", file.bytes()));

        let mut engine = Memory::default();
        let member = Member { id: 7, ..Member::default() };
        let wanted = Restore { members: vec![member], bump_revision: None };
        let beginning = restore(&file, &mut engine, &wanted).unwrap();
        assert_eq!((beginning.index, beginning.term), (2, 1));
        assert_eq!(beginning.conf_state.voters, [7]);
        let mut restored = Store::open(engine);
        let again = restored.commit();
        assert_eq!(again.revision, read.revision);
        assert_eq!(again.compacted, read.compacted);
        assert_eq!(again.keys(), read.keys());
        assert_eq!(again.usage, read.usage);
        for revision in read.compacted + 1..=read.revision {
            let hash = server_hash(&read, revision).unwrap();
            assert_eq!(server_hash(&again, revision).unwrap(), hash);
            let told = hash_kv(&file, revision).unwrap();
            assert_eq!((told.hash, told.compact_revision), (hash.hash, hash.compact_revision));
        }
        let lease = again.view.get(Space::Lease, b"12345678").unwrap();
        assert_eq!(lease, Some(bytes("a lease")));
        assert_eq!(again.view.get(Space::Alarm, b"an alarm").unwrap(), Some(Bytes::new()));
        let members =
            again.view.scan(Space::Members, std::ops::Bound::Unbounded, std::ops::Bound::Unbounded);
        assert_eq!(members.count(), 1, "the old cluster's members stay behind");
    }
}

/// A saved snapshot contains no token, so that a reader of the file cannot log in with it.
#[test]
fn tokens_go_to_other_members_and_into_no_file() {
    let mut store = random_history(1);
    let bare = store.file();
    store.tx.put(Space::Tokens, bytes("t12345678"), bytes("a token"));
    let read = store.commit();
    let member = Reader::open(store.file()).unwrap();
    assert_eq!(member.check(), Vec::<String>::new());
    let mut engine = Memory::default();
    install(&member, &mut engine).unwrap();
    let installed = engine.view().get(Space::Tokens, b"t12345678").unwrap();
    assert_eq!(installed, Some(bytes("a token")));
    let mut restored = Memory::default();
    restore(&member, &mut restored, &Restore::default()).unwrap();
    assert_eq!(restored.view().get(Space::Tokens, b"t12345678").unwrap(), None);

    let mut export = Export::new(read.view, Scope::File);
    let mut file = Vec::new();
    loop {
        match export.step(1 << 20).unwrap() {
            ExportStep::Working => (),
            ExportStep::Chunk(chunk) => file.extend(chunk),
            ExportStep::Done => break,
        }
    }
    assert_eq!(file, bare);
}

#[test]
fn a_raised_revision_compacts_everything_before() {
    let mut store = random_history(3);
    let before = store.mvcc.revision();
    for round in 1..=2 {
        let file = Reader::open(store.file()).unwrap();
        let mut engine = Memory::default();
        let wanted = Restore { bump_revision: Some(1000), ..Restore::default() };
        restore(&file, &mut engine, &wanted).unwrap();
        store = Store::open(engine);
        assert_eq!(store.mvcc.revision(), before + 1000 * round);
        assert_eq!(store.mvcc.compacted(), before + 1000 * round);
    }
    while !store.mvcc.compact_step(&mut store.tx, 1000).unwrap() {}
    let read = store.commit();
    let items = mvcc::bucket(&read.view, &[]).map(Result::unwrap);
    let bytes: usize = items.map(|(key, value)| 16 + key.len() + value.len()).sum();
    assert_eq!(read.usage.logical, bytes as u64);
    assert!(
        !read
            .view
            .scan(Space::Kv, std::ops::Bound::Unbounded, std::ops::Bound::Unbounded)
            .any(|pair| pair.unwrap().0.is_empty()),
        "no store takes an empty key"
    );
    let file = Reader::open(store.file()).unwrap();
    let hash = server_hash(&read, 0).unwrap();
    assert_eq!(hash_kv(&file, 0).unwrap().hash, hash.hash);
    assert_eq!(hash_kv(&file, 5), Err(Refusal::Compacted.into()));
    assert_eq!(hash_kv(&file, before + 2001), Err(Refusal::FutureRev.into()));
}

#[test]
fn layouts_of_the_future_are_refused() {
    for (version, is_read) in
        [("3.6.0", true), ("3.7.0", true), ("3.10.0", false), ("4.0.0", false)]
    {
        let meta = [(bytes("storageVersion"), bytes(version))].into();
        let file = Reader::open(file_of(&[(bytes("meta"), meta)].into())).unwrap();
        let told = restore(&file, &mut Memory::default(), &Restore::default());
        assert_eq!(told.is_ok(), is_read, "{version}");
    }
}

#[test]
fn a_file_of_a_feature_level_that_is_not_supported_is_refused() {
    let newer = FeatureLevel::NEWEST.number() + 1;
    for (level, is_read) in [("1", true), ("2", true), (&newer.to_string(), false), ("x", false)] {
        let pairs = [(bytes("featureLevel"), bytes(level))].into();
        let file = Reader::open(file_of(&[(bytes("cluster"), pairs)].into())).unwrap();
        let told = restore(&file, &mut Memory::default(), &Restore::default());
        assert_eq!(told.is_ok(), is_read, "{level}");
    }
}

#[test]
fn a_file_says_its_version_once_the_cluster_speaks_one_that_does() {
    for (spoken, told) in [("3.0.0", ""), ("3.5.0", ""), ("3.6.0", "3.6.0"), ("3.7.0", "3.7.0")] {
        let mut store = Store::open(Memory::default());
        Cluster::default().set_version(&mut store.tx, spoken).unwrap();
        let file = Reader::open(store.file()).unwrap();
        assert_eq!(status(&file).unwrap().version, told, "{spoken}");
    }
}

#[test]
fn an_empty_state_has_all_buckets() {
    let file = Reader::open(Store::open(Memory::default()).file()).unwrap();
    let names: Vec<_> = file
        .entries(&file.root())
        .map(|entry| match entry.unwrap() {
            Entry::Bucket(name, _) => String::from_utf8(name.to_vec()).unwrap(),
            Entry::Pair(..) => panic!("a pair at the top"),
        })
        .collect();
    let etcds = "alarm auth authRoles authUsers cluster key lease members members_removed meta";
    assert_eq!(names.join(" "), etcds);
    assert_eq!(status(&file).unwrap().keys, 0);
    assert_eq!(hash_kv(&file, 0).unwrap().revision, 1);
}
