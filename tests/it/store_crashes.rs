//! The state machine on the store on disk, which crashes at any step and is given the log again, beside one in memory
//! that never does: both return the same at every moment, during all flushes and merges.

use std::path::Path;

use basalt::cluster::Member;
use basalt::command::Command;
use basalt::io::LsmEngine;
use basalt::machine::{self, Machine};
use basalt::mvcc::{self, KvHash, ReadView};
use basalt::store::{Batch, Engine, Memory, Pair, Space, View};
use basalt::types::{CacheBytes, Entry, EntryKind, Error, Fault, FeatureLevel};
use basalt_proto::etcdserverpb::{CompactionRequest, DeleteRangeRequest, PutRequest, RangeRequest};
use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

const CONFIG: machine::Config = machine::Config {
    caches: CacheBytes { records: 1 << 16, lists: 1 << 16 },
    lease_ttl_min: 2,
    learners_max: 1,
    feature_level: FeatureLevel::NEWEST,
    steps: basalt::machine::StepLimits::DEFAULT,
};
/// Small, so that most crashes are after some flushes and merges.
const SMALL_MEMTABLE_BYTES: u64 = 24 << 10;
const KEYS: u32 = 24;

struct Twins {
    random: StdRng,
    path: tempfile::TempDir,
    log: Vec<Entry>,
    disk: Option<Machine<LsmEngine>>,
    memory: Machine<Memory>,
    crashes: usize,
}

fn open(path: &Path) -> Machine<LsmEngine> {
    let engine = LsmEngine::open_with_memtables(path, SMALL_MEMTABLE_BYTES).unwrap();
    Machine::open(engine, &CONFIG).unwrap()
}

fn bootstrap<E: Engine>(machine: &mut Machine<E>) {
    let peer_urls = vec!["http://localhost:2380".to_owned()];
    machine.bootstrap(vec![Member { id: 10, peer_urls, ..Member::default() }]).unwrap();
}

fn hash<V: View>(read: &ReadView<V>) -> KvHash {
    let mut cursor = Error::refusal(read.hash_kv(read.revision)).unwrap().unwrap();
    loop {
        if let Some(hash) = cursor.step(&read.view, 100).unwrap() {
            return hash;
        }
    }
}

impl Twins {
    fn new(seed: u64) -> Self {
        let path = tempfile::tempdir().unwrap();
        let mut disk = open(path.path());
        let mut memory = Machine::open(Memory::default(), &CONFIG).unwrap();
        bootstrap(&mut disk);
        bootstrap(&mut memory);
        disk.commit().unwrap();
        // A member's founding is durable.
        disk.engine().persist().unwrap();
        memory.commit().unwrap();
        let random = StdRng::seed_from_u64(seed);
        Self { random, path, log: Vec::new(), disk: Some(disk), memory, crashes: 0 }
    }

    fn disk(&mut self) -> &mut Machine<LsmEngine> {
        self.disk.as_mut().expect("it is open")
    }

    fn key(&mut self) -> Bytes {
        Bytes::from(format!("key {}", self.random.random_range(0..KEYS)))
    }

    fn command(&mut self) -> Command {
        let key = self.key();
        match self.random.random_range(0..20) {
            0 => {
                let range_end = self.key();
                let (key, range_end) = (key.clone().min(range_end.clone()), key.max(range_end));
                Command::DeleteRange(DeleteRangeRequest { key, range_end, ..Default::default() })
            }
            1..3 => Command::DeleteRange(DeleteRangeRequest { key, ..Default::default() }),
            3 => {
                let newest = self.memory.commit().unwrap().read.revision;
                let revision = newest - self.random.random_range(0..40);
                Command::Compaction(CompactionRequest { revision, physical: false })
            }
            _ => {
                let length = [10, 100, 700, 3000][self.random.random_range(0..4)];
                let value = (0..length).map(|_| self.random.random::<u8>()).collect();
                Command::Put(PutRequest { key, value, ..Default::default() })
            }
        }
    }

    fn step(&mut self) {
        match self.random.random_range(0..40) {
            0 => self.crash(),
            1 => self.disk().engine().persist().unwrap(),
            2 => self.disk().engine().defragment().recv().unwrap(),
            3 => {
                let budget = self.random.random_range(1..40);
                self.disk().compact_step(budget).unwrap();
                self.memory.compact_step(self.random.random_range(1..40)).unwrap();
            }
            _ => {
                for _ in 0..self.random.random_range(1..8) {
                    let data = self.command().to_payload(0);
                    let index = 2 + self.log.len() as u64;
                    self.log.push(Entry { index, term: 3, kind: EntryKind::Normal, data });
                    let entry = self.log.last().unwrap().clone();
                    self.disk().apply(&entry).unwrap();
                    self.memory.apply(&entry).unwrap();
                }
            }
        }
        self.compare();
    }

    /// Ends the process during any work of its threads; the next one applies the entries that the store lacks.
    fn crash(&mut self) {
        self.crashes += 1;
        self.disk = None;
        let mut disk = open(self.path.path());
        let lacks = usize::try_from(disk.applied() - 1).unwrap();
        for batch in self.log[lacks..].chunks(7) {
            batch.iter().for_each(|entry| drop(disk.apply(entry).unwrap()));
            disk.commit().unwrap();
        }
        self.disk = Some(disk);
    }

    fn compare(&mut self) {
        let (disk, memory) =
            (self.disk().commit().unwrap().read, self.memory.commit().unwrap().read);
        assert_eq!((disk.revision, disk.compacted), (memory.revision, memory.compacted));
        let revision =
            memory.revision.min(memory.compacted.max(1) + self.random.random_range(0..60));
        let everything = Bytes::from_static(b"\0");
        let range = RangeRequest {
            key: everything.clone(),
            range_end: everything,
            revision,
            ..Default::default()
        };
        assert_eq!(disk.range(&range).unwrap(), memory.range(&range).unwrap(), "at {revision}");
        let events = |found: mvcc::History| (found.events, found.next);
        let from = revision.max(1);
        assert_eq!(
            events(disk.history(from, 50, 1 << 20).unwrap()),
            events(memory.history(from, 50, 1 << 20).unwrap()),
            "from {from}"
        );
        if self.random.random_bool(0.1) {
            assert_eq!(hash(&disk), hash(&memory));
        }
    }

    /// After all passes of compaction both are equal to the last byte.
    fn finish(&mut self) {
        while !self.disk().compact_step(100).unwrap() {}
        while !self.memory.compact_step(100).unwrap() {}
        let (disk, memory) =
            (self.disk().commit().unwrap().read, self.memory.commit().unwrap().read);
        let all = |pairs: &mut dyn Iterator<Item = Result<Pair, Fault>>| -> Vec<Pair> {
            pairs.map(Result::unwrap).collect()
        };
        let buckets =
            (all(&mut mvcc::bucket(&disk.view, b"")), all(&mut mvcc::bucket(&memory.view, b"")));
        assert_eq!(buckets.0, buckets.1);
        assert_eq!(disk.usage, memory.usage);
        self.compare();
    }
}

#[test]
fn a_machine_whose_store_crashes_reads_like_one_that_never_does() {
    let seeds = std::env::var("STORE_CRASH_SEEDS").ok().and_then(|count| count.parse().ok());
    for seed in 0..seeds.unwrap_or(4) {
        println!("seed {seed}");
        let mut twins = Twins::new(seed);
        (0..400).for_each(|_| twins.step());
        twins.finish();
        assert!(twins.crashes > 0);
    }
}

/// A filesystem in memory, unmounted when dropped; `None`, with the reason printed, if mounting is not permitted.
struct Tmpfs(tempfile::TempDir);

impl Tmpfs {
    fn mount(bytes: u64) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        Self::run(&["-t", "tmpfs", "-o", &format!("size={bytes}"), "tmpfs"], dir.path())
            .then_some(Self(dir))
    }

    fn grow(&self, bytes: u64) {
        assert!(Self::run(&["-o", &format!("remount,size={bytes}")], self.0.path()));
    }

    fn run(arguments: &[&str], path: &Path) -> bool {
        let mut command = std::process::Command::new("mount");
        let told = command.args(arguments).arg(path).output().unwrap();
        if !told.status.success() {
            eprintln!("mount: {}", String::from_utf8_lossy(&told.stderr));
        }
        told.status.success()
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let mut command = std::process::Command::new("umount");
        drop(command.arg("--lazy").arg(self.0.path()).output());
    }
}

#[test]
fn a_store_whose_disk_is_full_loses_nothing_and_goes_on_when_there_is_room() {
    const MIB: u64 = 1 << 20;
    let Some(disk) = Tmpfs::mount(10 * MIB) else { return };
    let store = disk.0.path().join("store");
    let mut engine = LsmEngine::open_with_memtables(&store, 2 * MIB).unwrap();
    let mut random = StdRng::seed_from_u64(1);
    let mut values = Vec::new();
    // More than the disk holds, and less than may wait for it.
    for number in 0..140_u8 {
        let value: Bytes = (0..100_000).map(|_| random.random::<u8>()).collect();
        values.push(value.clone());
        let writes = vec![(Space::Kv, Bytes::copy_from_slice(&[number]), Some(value))];
        engine.commit(Batch { writes }).unwrap();
    }
    assert!(engine.persist().is_err(), "it does not fit");
    let reads = |engine: &LsmEngine| {
        let view = engine.view();
        for (number, value) in values.iter().enumerate() {
            let key = [u8::try_from(number).unwrap()];
            assert_eq!(view.get(Space::Kv, &key).unwrap().as_ref(), Some(value));
        }
    };
    reads(&engine);
    // Repeated attempts leave nothing of a failed flush behind.
    for _ in 0..5 {
        let refused = engine.persist().unwrap_err().to_string();
        assert!(refused.contains("No space left on device"), "{refused}");
    }
    // The store retries it by itself, too.
    let until = std::time::Instant::now() + std::time::Duration::from_secs(20);
    let free = || {
        let room = rustix::fs::statvfs(disk.0.path()).unwrap();
        room.f_bavail * room.f_frsize
    };
    while free() < MIB {
        assert!(std::time::Instant::now() < until, "{} bytes are free", free());
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    disk.grow(64 * MIB);
    engine.persist().unwrap();
    reads(&engine);
    drop(engine);
    reads(&LsmEngine::open(&store).unwrap());
}
