//! A log on a real disk, in small segments: filled, truncated, recycled, reopened at any point, damaged.

use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tempfile::TempDir;

use super::files::free_files;
use super::*;
use crate::io::{Executors, Place, Reactor};
use crate::types::{ConfState, Entry, EntryKind};

const SEGMENT: u64 = 64 << 10;
const FREE_MAX: usize = 2;

/// Runs a test on an executor.
fn on_executor<F>(test: impl FnOnce() -> F + Send + 'static)
where
    F: Future<Output = Result<(), Fault>> + 'static,
{
    let mut executors = Executors::new(Reactor::Epoll);
    executors.start(Place { number: 0, core: None }, test).unwrap();
    executors.watch();
    executors.join().unwrap();
}

fn first() -> [Record; 2] {
    [Record::Metadata { cluster_id: 7, member_id: 8 }, mark(0)]
}

fn mark(index: LogIndex) -> Record {
    let conf_state = ConfState { voters: vec![8], ..ConfState::default() };
    Record::LogStart { index, term: 1, conf_state }
}

fn entry(index: LogIndex, term: u64, length: usize) -> Record {
    let data = Bytes::from(vec![index as u8; length]);
    Record::Entry(Entry { index, term, kind: EntryKind::Normal, data })
}

fn committed(commit: LogIndex) -> Record {
    Record::HardState(HardState { term: 1, vote: 8, commit })
}

async fn open(dir: &TempDir) -> Result<(WalFile, Replay), Fault> {
    let options = WalOptions {
        dir: dir.path().to_owned(),
        segment_bytes: SEGMENT,
        free_max: FREE_MAX,
        fits: Arc::new(|_| true),
        unsafe_no_fsync: true,
    };
    WalFile::open(options, Some(first())).await
}

/// Files whose name has this suffix, sorted.
fn files(dir: &TempDir, suffix: &str) -> Vec<PathBuf> {
    let mut files = list(dir.path()).unwrap();
    files.retain(|path| path.to_string_lossy().ends_with(suffix));
    files.sort();
    files
}

/// Fills `segments` segments; returns the replay of all records.
async fn fill(dir: &TempDir, segments: usize) -> Result<Replay, Fault> {
    let (mut wal, mut replay) = open(dir).await?;
    while files(dir, ".wal").len() <= segments {
        let next = replay.log_start_index + replay.entries.len() as u64 + 1;
        let records = [entry(next, 1, 5000), committed(next - 1)];
        records.iter().try_for_each(|record| replay.take(record.clone()))?;
        wal.append(&records).await?;
    }
    Ok(replay)
}

/// Overwrites the end of a segment's frames, from its last but `blocks` written block on.
fn wipe_tail(path: &Path, blocks: usize) {
    let mut bytes = fs::read(path).unwrap();
    let written = bytes.iter().rposition(|byte| *byte != 0).unwrap() / WAL_BLOCK_BYTES + 1;
    bytes[(written - blocks) * WAL_BLOCK_BYTES..].fill(0);
    fs::write(path, bytes).unwrap();
}

/// A log and a naive twin: a replay of everything that was written.
struct Pair {
    dir: TempDir,
    random: StdRng,
    /// Closed while it is reopened, as by a crash of the member.
    wal: Option<WalFile>,
    twin: Replay,
    /// Number of recycled segments.
    recycled: usize,
}

impl Pair {
    async fn new(seed: u64) -> Result<Self, Fault> {
        let dir = tempfile::tempdir().unwrap();
        let random = StdRng::seed_from_u64(seed);
        let (wal, twin) = open(&dir).await?;
        let expected =
            replay_of(&[first().to_vec(), vec![Record::HardState(HardState::default())]].concat())?;
        assert_eq!(twin, expected, "a new log says whose it is");
        Ok(Self { dir, random, wal: Some(wal), twin, recycled: 0 })
    }

    fn last(&self) -> LogIndex {
        self.twin.log_start_index + self.twin.entries.len() as u64
    }

    /// A log start at some committed entry, with its term.
    fn mark(&mut self) -> Record {
        let (before, commit) = (self.twin.log_start_index, self.twin.hard_state.commit);
        let index = self.random.random_range(before..=commit);
        let marked = self.twin.entries.iter().find(|entry| entry.index == index);
        let term = marked.map_or(self.twin.log_start_term, |entry| entry.term);
        Record::LogStart { index, term, conf_state: self.twin.conf_state.clone() }
    }

    /// A batch of consensus: entries, some of which replace others, and a commit index.
    fn batch(&mut self) -> Vec<Record> {
        let commit = self.twin.hard_state.commit;
        let last = self.last();
        let mut records = Vec::new();
        let begin = if self.random.random_bool(0.1) { commit } else { last };
        let end = begin + self.random.random_range(0..5);
        for index in begin + 1..=end {
            let length = self.random.random_range(0..3000);
            records.push(entry(index, begin, length));
        }
        if self.random.random() {
            let last = if end > begin { end } else { last };
            records.push(committed(self.random.random_range(commit..=last)));
        }
        records
    }

    async fn step(&mut self) -> Result<(), Fault> {
        let records = match self.random.random_range(0..30) {
            0 => vec![self.mark()],
            1 => return self.reopen().await,
            _ => self.batch(),
        };
        records.iter().try_for_each(|record| self.twin.take(record.clone()))?;
        let before = files(&self.dir, ".wal").len();
        let wal = self.wal.as_mut().expect("it is open");
        wal.append(&records).await?;
        wal.all_recycled().await?;
        self.recycled += before.saturating_sub(files(&self.dir, ".wal").len());
        Ok(())
    }

    async fn reopen(&mut self) -> Result<(), Fault> {
        self.wal = None;
        let (wal, replay) = open(&self.dir).await?;
        assert_eq!(replay, self.twin);
        self.wal = Some(wal);
        assert!(files(&self.dir, ".tmp").len() <= FREE_MAX + 1, "no more are kept than allowed");
        Ok(())
    }
}

#[test]
fn a_log_reads_back_wherever_it_is_reopened() {
    on_executor(|| async {
        let mut recycled = 0;
        for seed in 0..8 {
            println!("seed {seed}");
            let mut pair = Pair::new(seed).await?;
            for _ in 0..400 {
                pair.step().await?;
            }
            pair.reopen().await?;
            recycled += pair.recycled;
        }
        assert!(recycled > 50, "{recycled} segments were recycled");
        Ok(())
    });
}

#[test]
fn a_full_segment_that_lost_its_tail_is_refused_by_name() {
    on_executor(|| async {
        // If the whole last frame is lost, the next segment does not follow; if a part of it is, the frame is damaged.
        for (blocks, named) in [(2, 2), (1, 1)] {
            let dir = tempfile::tempdir().unwrap();
            fill(&dir, 3).await?;
            let segments = files(&dir, ".wal");
            wipe_tail(&segments[1], blocks);
            let Err(refused) = open(&dir).await else { panic!("it opened") };
            let name = segments[named].to_string_lossy().into_owned();
            assert!(refused.to_string().contains(&name), "{refused}, not {name}");
        }
        Ok(())
    });
}

#[test]
fn a_segment_in_the_middle_that_is_gone_is_missed() {
    on_executor(|| async {
        let dir = tempfile::tempdir().unwrap();
        fill(&dir, 3).await?;
        fs::remove_file(&files(&dir, ".wal")[1]).unwrap();
        let Err(refused) = open(&dir).await else { panic!("it opened") };
        assert!(refused.to_string().contains("segment 2 is missing"), "{refused}");
        Ok(())
    });
}

#[test]
fn the_oldest_segments_may_only_go_by_a_mark() {
    on_executor(|| async {
        let dir = tempfile::tempdir().unwrap();
        fill(&dir, 3).await?;
        fs::remove_file(&files(&dir, ".wal")[0]).unwrap();
        let Err(refused) = open(&dir).await else { panic!("it opened") };
        assert!(refused.to_string().contains("the log jumps from entry 0 to"), "{refused}");
        Ok(())
    });
}

#[test]
fn a_segment_that_was_named_and_never_written_is_begun() {
    on_executor(|| async {
        // In place of the next segment: zeros, or a recycled file with all its old frames.
        for recycled in [false, true] {
            let dir = tempfile::tempdir().unwrap();
            let mut expected = fill(&dir, 2).await?;
            let segments = files(&dir, ".wal");
            let old =
                if recycled { fs::read(&segments[1]).unwrap() } else { vec![0; SEGMENT as usize] };
            let named = dir.path().join(format!("{:016x}-{:016x}.wal", segments.len() + 1, 99));
            fs::write(&named, old).unwrap();
            let (mut wal, replay) = open(&dir).await?;
            assert_eq!(replay, expected);
            assert_eq!(files(&dir, ".wal").last(), Some(&named));
            let next = entry(expected.entries.len() as u64 + 1, 1, 9000);
            expected.take(next.clone())?;
            wal.append(&[next]).await?;
            drop(wal);
            assert_eq!(open(&dir).await?.1, expected);
        }
        Ok(())
    });
}

#[test]
fn the_first_segment_too_may_have_been_named_and_never_written() {
    on_executor(|| async {
        let dir = tempfile::tempdir().unwrap();
        let expected = open(&dir).await?.1;
        let named = files(&dir, ".wal").remove(0);
        fs::write(named, vec![0; SEGMENT as usize]).unwrap();
        assert_eq!(open(&dir).await?.1, expected, "it says whose it is, and who votes");
        assert_eq!(open(&dir).await?.1, expected);
        Ok(())
    });
}

#[test]
fn a_segment_never_begins_with_a_commit_whose_entry_is_not_there_yet() {
    on_executor(|| async {
        let dir = tempfile::tempdir().unwrap();
        let (mut wal, _) = open(&dir).await?;
        let mut index = 0;
        while files(&dir, ".wal").len() == 1 {
            index += 1;
            // A follower receives an entry and its commit at once.
            wal.append(&[entry(index, 1, 5000), committed(index)]).await?;
        }
        drop(wal);
        // The member died after the next segment was created and before the batch was written.
        wipe_tail(&files(&dir, ".wal")[1], 2);
        let replay = open(&dir).await?.1;
        assert_eq!(replay.entries.len() as u64, index - 1);
        assert_eq!(replay.hard_state.commit, index - 1);
        Ok(())
    });
}

#[test]
fn a_file_that_is_being_made_is_left_alone_by_a_mark_and_goes_at_the_next_start() {
    on_executor(|| async {
        let dir = tempfile::tempdir().unwrap();
        let (mut wal, mut index) = (open(&dir).await?.0, 0);
        let half_made = dir.path().join("new-99.tmp");
        fs::write(&half_made, vec![0; 5000]).unwrap();
        while files(&dir, ".wal").len() < 4 {
            index += 1;
            wal.append(&[entry(index, 1, 5000)]).await?;
        }
        wal.append(&[mark(index)]).await?;
        wal.all_recycled().await?;
        assert_eq!(files(&dir, ".wal").len(), 1, "the full ones are recycled");
        assert!(half_made.exists());
        drop(wal);
        open(&dir).await?;
        assert!(!half_made.exists());
        Ok(())
    });
}

#[test]
fn a_segment_that_the_disk_has_no_room_for_is_not_begun() {
    on_executor(async || {
        let dir = tempfile::tempdir().unwrap();
        let options = WalOptions {
            dir: dir.path().to_owned(),
            segment_bytes: 1 << 50,
            free_max: FREE_MAX,
            fits: Arc::new(|_| true),
            unsafe_no_fsync: true,
        };
        let mut spare = SegmentPreallocator::prepare(&options, 1, 0)?;
        assert_eq!(spare.take().await?, None);
        assert_eq!(spare.is_there()?, Some(false));
        assert_eq!(list(dir.path())?, Vec::<PathBuf>::new());
        let refused = WalFile::open(options, Some(first())).await.err().unwrap();
        assert!(refused.to_string().contains("is full"), "{refused}");
        assert_eq!(list(dir.path())?, Vec::<PathBuf>::new());
        Ok(())
    });
}

#[test]
#[allow(clippy::disallowed_methods, reason = "a test's thread")]
fn free_files_are_listed_while_another_thread_renames_them() {
    const ROUNDS: usize = 2000;
    let dir = tempfile::tempdir().unwrap();
    let names = ["free-a.tmp", "free-b.tmp"].map(|name| dir.path().join(name));
    fs::write(&names[0], [0; 8]).unwrap();
    let renaming = std::thread::spawn({
        let names = names.clone();
        move || {
            for round in 0..ROUNDS {
                fs::rename(&names[round % 2], &names[(round + 1) % 2]).unwrap();
            }
        }
    });
    while !renaming.is_finished() {
        assert!(free_files(dir.path(), 8).unwrap().len() <= 2);
    }
    renaming.join().unwrap();
    assert_eq!(free_files(dir.path(), 8), Ok(vec![names[0].clone()]));
}

/// Takes a lease of a file (`F_SETLEASE`): until it is given back, whoever opens the file waits for it, as for a disk
/// that does not answer. `None` where the file system has none.
#[allow(unsafe_code, reason = "neither std nor rustix has this call")]
fn lease(path: &Path) -> Option<fs::File> {
    use std::os::fd::AsRawFd as _;
    // The kernel notifies the holder of a blocked open by a signal that would end the process.
    let told = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    signal_hook::flag::register(libc::SIGIO, told).expect("a signal");
    let file = fs::OpenOptions::new().write(true).open(path).expect("it is there");
    // SAFETY: the descriptor is open, and the call takes a number.
    let taken = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLEASE, libc::F_WRLCK) };
    (taken == 0).then_some(file)
}

#[test]
#[allow(clippy::disallowed_methods, reason = "a test's thread")]
fn an_executor_goes_on_while_the_next_segment_is_opened() {
    const HELD: Duration = Duration::from_millis(400);
    let dir = tempfile::tempdir().unwrap();
    on_executor(move || async move {
        let mut wal = open(&dir).await?.0;
        while wal.spare.is_there()? != Some(true) {
            clock::sleep(Duration::from_millis(1)).await;
        }
        let spare = free_files(dir.path(), SEGMENT)?.pop().expect("it is there");
        let Some(leased) = lease(&spare) else {
            eprintln!("skipped: the file system of {} has no leases", dir.path().display());
            return Ok(());
        };
        let releasing = std::thread::spawn(move || {
            std::thread::sleep(HELD);
            drop(leased);
        });
        let began = clock::Instant::now();
        let fill = async {
            for index in 1..=SEGMENT / 4096 {
                wal.append(&[entry(index, 1, 2048)]).await?;
            }
            Ok::<_, Fault>(began.elapsed())
        };
        // The longest time in which nothing else ran on the executor.
        let mut gap_max = Duration::ZERO;
        let watch = async {
            loop {
                let slept = clock::Instant::now();
                clock::sleep(Duration::from_millis(5)).await;
                gap_max = gap_max.max(slept.elapsed());
            }
        };
        let took = futures_lite::future::or(fill, watch).await?;
        releasing.join().expect("it ends");
        assert!(took >= HELD, "the switch waited for the lease: {took:?}");
        assert!(gap_max < HELD / 2, "the executor stood still for {gap_max:?}");
        Ok(())
    });
}
