//! The write-ahead log on disk: segments written with zeros once, then recycled, opened for direct and
//! synchronous writes, so that one aligned write makes a frame durable without touching metadata.
//!
//! ```text
//!  <dir>/<number>-<first index>.wal   segments, numbers without a gap
//!  <dir>/free-<number>.tmp            zeroed or recycled files, ready for use
//!  <dir>/new-<number>.tmp             a file that is being zeroed
//! ```

mod files;
mod preallocator;
#[cfg(test)]
mod tests;
mod writer;

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use rustix::fs::{FlockOperation, OFlags, flock};

use self::files::{list, recycle, remove_half_made};
use self::preallocator::{SegmentPreallocator, new_file};
pub(super) use self::writer::Aligned;
use self::writer::Writer;
use super::clock;
use super::disk::{self, Fits};
use super::durable::rename_durably;
use super::pools::Pool;
use crate::types::limits::{WAL_BLOCK_BYTES, WAL_SEGMENT_BYTES, WAL_WRITE_BYTES_MAX};
use crate::types::{Fault, HardState, LogIndex};
use crate::wal::{FrameHead, Record, Replay, encode_frame, replay_segment};

/// Pause between two attempts to create the next segment after a lack of disk space.
const NO_ROOM_PAUSE: Duration = Duration::from_millis(250);

/// How the log is kept.
#[derive(Clone)]
pub struct WalOptions {
    /// The log's directory, which must exist.
    pub dir: PathBuf,
    /// Bytes of a segment: [`WAL_SEGMENT_BYTES`](crate::types::limits::WAL_SEGMENT_BYTES), smaller in tests,
    /// which fill many.
    pub segment_bytes: u64,
    /// Upper bound of files kept for recycling.
    pub free_max: usize,
    /// Asked before a segment is made.
    pub fits: Fits,
    /// Do not wait for the disk: whatever was acknowledged can be lost with the power.
    pub unsafe_no_fsync: bool,
}

/// A full segment.
struct Full {
    path: PathBuf,
    /// Its newest entry.
    last: LogIndex,
}

/// The log, open for appending.
pub struct WalFile {
    options: WalOptions,
    writer: Writer,
    /// Flags with which its files are opened: for direct I/O, if the filesystem supports that.
    flags: i32,
    path: PathBuf,
    head: FrameHead,
    full: Vec<Full>,
    /// The newest entry in the current segment.
    last: LogIndex,
    /// A file for the next segment.
    spare: SegmentPreallocator,
    /// The last attempt to create it failed for lack of disk space.
    missing: bool,
    /// Result of recycling segments that are not needed any more, when it is running.
    recycled: Option<flume::Receiver<Result<(), Fault>>>,
    owner: Record,
    hard_state: HardState,
    mark: Record,
    buffer: Vec<u8>,
    /// Bytes of all frames since the log was opened.
    written_bytes: u64,
}

fn fault(what: &str, path: &Path, error: impl std::fmt::Display) -> Fault {
    Fault::new(format!("cannot {what} {}: {error}", path.display()))
}

fn no_room(dir: &Path, bytes: u64) -> Fault {
    let dir = dir.display();
    Fault::new(format!(
        "the disk of {dir} is full: the log needs {bytes} bytes for its first segment"
    ))
}

impl WalFile {
    /// Opens the log in `options.dir` and reads it; in an empty directory a log is created that begins with `first`,
    /// which must contain metadata and a log start; otherwise it is refused. Must run on an executor.
    ///
    /// # Errors
    /// The directory cannot be used, or its content is damaged: the text names file and offset.
    pub async fn open(
        options: WalOptions,
        first: Option<[Record; 2]>,
    ) -> Result<(Self, Replay), Fault> {
        let dir = options.dir.clone();
        let (direct, segments, replay) = Pool::Durable
            .run(move || {
                remove_half_made(&dir)?;
                let (segments, replay) = read_all(&dir)?;
                Ok::<_, Fault>((probe(&dir)?, segments, replay))
            })
            .await?;
        let flags = flags(direct, options.unsafe_no_fsync);
        if !direct {
            tracing::warn!(
                dir = %options.dir.display(),
                "the filesystem of the write-ahead log knows no direct I/O: writing through the page cache"
            );
        }
        // Without an owner nothing was written yet, though the first segment's file may exist.
        let fresh = replay.owner.is_none();
        let gone =
            || fault("find a write-ahead log in", &options.dir, "the store has entries of one");
        let [owner, mark] = if fresh { first.ok_or_else(gone)? } else { known(&replay) };
        let begun = segments.last().map(|(path, _, head)| (path.clone(), *head));
        // The member may have stopped after it created a segment and before it wrote the first frame.
        let unopened = begun.as_ref().is_none_or(|(_, head)| head.offset == 0);
        let (path, head) = match begun {
            Some(begun) => begun,
            None => {
                let (dir, bytes) = (options.dir.clone(), options.segment_bytes);
                let spare =
                    Pool::Durable.run(move || new_file(&dir, 0, bytes, flags, || false)).await?;
                let spare = spare.ok_or_else(|| no_room(&options.dir, options.segment_bytes))?;
                let head = FrameHead { segment: 1, offset: 0, previous: 0 };
                let path = segment_path(&options.dir, 1, 1);
                let segment = path.clone();
                Pool::Durable.run(move || name_segment(&spare, &segment)).await?;
                (path, head)
            }
        };
        let segment = path.clone();
        let segment = Pool::Durable.run(move || open_segment(&segment, flags)).await?;
        let mut full: Vec<_> =
            segments.into_iter().map(|(path, last, _)| Full { path, last }).collect();
        let last = full.pop().map_or(0, |full| full.last);
        let mut wal = Self {
            writer: Writer::start(segment)?,
            flags,
            spare: SegmentPreallocator::prepare(&options, head.segment + 1, flags)?,
            missing: false,
            recycled: None,
            hard_state: replay.hard_state,
            buffer: Vec::with_capacity(1 << 20),
            written_bytes: 0,
            options,
            path,
            head,
            full,
            last,
            owner,
            mark,
        };
        if unopened {
            let records = wal.opening();
            wal.write(&records).await?;
        }
        let replay = if fresh { replay_of(&wal.opening())? } else { replay };
        Ok((wal, replay))
    }

    /// Makes records durable, all in one write unless they do not fit.
    ///
    /// # Errors
    /// The disk failed or wrote less: nothing may be acknowledged any more.
    pub async fn append(&mut self, records: &[Record]) -> Result<(), Fault> {
        let mut rest = records;
        while !rest.is_empty() {
            let mut bytes = 0;
            let fits = rest.iter().take_while(|record| {
                bytes += record.size_hint();
                bytes <= WAL_WRITE_BYTES_MAX
            });
            let (now, later) = rest.split_at(fits.count().max(1));
            self.append_frame(now).await?;
            rest = later;
        }
        Ok(())
    }

    /// Bytes written since the log was opened: records, their frames, and the padding of frames.
    pub fn written_bytes(&self) -> u64 {
        self.written_bytes
    }

    /// Bytes that can still be appended, if the disk has no room for the segment after this one; `None` while it has. While
    /// it is tried again, what was found before counts.
    ///
    /// # Errors
    /// The next segment could not be created for another reason.
    pub fn room_left(&mut self) -> Result<Option<u64>, Fault> {
        self.missing = !self.spare.is_there()?.unwrap_or(!self.missing);
        Ok(self.missing.then(|| self.options.segment_bytes - self.head.offset))
    }

    /// Waits until it is known whether the disk has room for the next segment. A caller that gives up loses nothing.
    ///
    /// # Errors
    /// The next segment could not be made for another reason.
    pub async fn room_known(&mut self) -> Result<(), Fault> {
        self.spare.take().await.map(drop)
    }

    /// Tries again to make the next segment, if the disk had no room for it.
    ///
    /// # Errors
    /// The attempt could not be started.
    pub fn retry(&mut self) -> Result<(), Fault> {
        if self.spare.is_there()? == Some(false) {
            self.spare =
                SegmentPreallocator::prepare(&self.options, self.head.segment + 1, self.flags)?;
        }
        Ok(())
    }

    async fn append_frame(&mut self, records: &[Record]) -> Result<(), Fault> {
        let bytes: usize = records.iter().map(Record::size_hint).sum();
        let room = self.options.segment_bytes - self.head.offset;
        if (bytes + 2 * WAL_BLOCK_BYTES) as u64 > room {
            self.next_segment(first_index(records).unwrap_or(self.last + 1)).await?;
        }
        self.write(records).await?;
        // Not before: a segment that begins with a commit index must not exist without the entry.
        let mut marked = None;
        for record in records {
            match record {
                Record::HardState(state) => self.hard_state = *state,
                Record::LogStart { index, .. } => {
                    self.mark = record.clone();
                    marked = Some(*index);
                }
                Record::Entry(_) | Record::Metadata { .. } => (),
            }
        }
        let newest = records.iter().rev().find_map(index_of);
        self.last = newest.unwrap_or(self.last);
        match marked {
            Some(index) => self.recycle_below(index).await,
            None => Ok(()),
        }
    }

    async fn write(&mut self, records: &[Record]) -> Result<(), Fault> {
        self.buffer.clear();
        let crc = encode_frame(self.head, records, &mut self.buffer);
        let length = self.buffer.len();
        if length as u64 > self.options.segment_bytes - self.head.offset {
            return Err(Fault::new(format!("a log record of {length} bytes fits no segment")));
        }
        let written = self.writer.write(self.head.offset, &self.buffer).await;
        written.map_err(|error| fault("write", &self.path, error))?;
        self.head.offset += length as u64;
        self.written_bytes += length as u64;
        self.head.previous = crc;
        Ok(())
    }

    /// The first records of every segment.
    fn opening(&self) -> Vec<Record> {
        vec![self.owner.clone(), self.mark.clone(), Record::HardState(self.hard_state)]
    }

    async fn next_segment(&mut self, first: LogIndex) -> Result<(), Fault> {
        let number = self.head.segment + 1;
        let spare = loop {
            if let Some(spare) = self.spare.take().await? {
                break spare;
            }
            // Callers check the free space and stop before this happens.
            clock::sleep(NO_ROOM_PAUSE).await;
            self.spare = SegmentPreallocator::prepare(&self.options, number, self.flags)?;
        };
        let path = segment_path(&self.options.dir, number, first);
        self.writer.switch(spare, path.clone(), self.flags).await?;
        let path = std::mem::replace(&mut self.path, path);
        self.full.push(Full { path, last: self.last });
        self.head = FrameHead { segment: number, offset: 0, previous: self.head.previous };
        self.spare = SegmentPreallocator::prepare(&self.options, number + 1, self.flags)?;
        let opening = self.opening();
        self.write(&opening).await
    }

    /// Recycles segments whose entries all lie at or below a durable log start. Runs in the background (it may take as
    /// long as ten writes); the next call waits for the previous one.
    async fn recycle_below(&mut self, mark: LogIndex) -> Result<(), Fault> {
        let count = self.full.iter().take_while(|full| full.last <= mark).count();
        if count == 0 {
            return Ok(());
        }
        self.all_recycled().await?;
        let gone: Vec<_> = self.full.drain(..count).map(|full| full.path).collect();
        let options = self.options.clone();
        let (done, recycled) = flume::bounded(1);
        super::spawn(async move {
            drop(done.send_async(Pool::Durable.run(move || recycle(&options, &gone)).await).await);
        });
        self.recycled = Some(recycled);
        Ok(())
    }

    /// Waits until the segments that are not needed any more are recycled.
    async fn all_recycled(&mut self) -> Result<(), Fault> {
        match self.recycled.take() {
            // Without a result the executor is ending.
            Some(recycled) => recycled.recv_async().await.unwrap_or(Ok(())),
            None => Ok(()),
        }
    }
}

/// Reads the log of a member that does not run; changes nothing. Blocks.
///
/// # Errors
/// It cannot be read, or is damaged: the text names file and offset.
pub fn read_log(dir: &Path) -> Result<Replay, Fault> {
    read_all(dir).map(|(_, replay)| replay)
}

/// Creates a log in an empty directory with these records, which must contain metadata, a log start and a hard state:
/// for a member that starts from a snapshot. Blocks.
///
/// # Errors
/// The disk failed.
pub fn begin_log(dir: &Path, records: &[Record]) -> Result<(), Fault> {
    let spare = new_file(dir, 1, WAL_SEGMENT_BYTES, flags(false, false), || false)?;
    let spare = spare.ok_or_else(|| no_room(dir, WAL_SEGMENT_BYTES))?;
    let mut bytes = Vec::new();
    encode_frame(FrameHead { segment: 1, offset: 0, previous: 0 }, records, &mut bytes);
    let opened = fs::OpenOptions::new().write(true).open(&spare);
    let written = opened.and_then(|file| {
        file.write_all_at(&bytes, 0)?;
        file.sync_all()
    });
    written.map_err(|error| fault("write", &spare, error))?;
    let mark = records.iter().find_map(|record| match record {
        Record::LogStart { index, .. } => Some(*index),
        Record::Entry(_) | Record::Metadata { .. } | Record::HardState(_) => None,
    });
    name_segment(&spare, &segment_path(dir, 1, mark.unwrap_or_default() + 1))
}

fn index_of(record: &Record) -> Option<LogIndex> {
    match record {
        Record::Entry(entry) => Some(entry.index),
        Record::Metadata { .. } | Record::HardState(_) | Record::LogStart { .. } => None,
    }
}

fn first_index(records: &[Record]) -> Option<LogIndex> {
    records.iter().find_map(index_of)
}

fn known(replay: &Replay) -> [Record; 2] {
    let (cluster_id, member_id) = replay.owner.unwrap_or_default();
    let (index, term) = (replay.log_start_index, replay.log_start_term);
    let conf_state = replay.conf_state.clone();
    [Record::Metadata { cluster_id, member_id }, Record::LogStart { index, term, conf_state }]
}

fn replay_of(records: &[Record]) -> Result<Replay, Fault> {
    let mut replay = Replay::default();
    records.iter().cloned().try_for_each(|record| replay.take(record))?;
    Ok(replay)
}

/// Locks a segment's file for as long as it is open. A request that the kernel has accepted outlives the process that
/// made it and keeps the file, and so the lock, until it is done: see [`wait_for_stray_writes`].
fn lock_segment(file: &fs::File, path: &Path) -> Result<(), Fault> {
    flock(file, FlockOperation::NonBlockingLockExclusive)
        .map_err(|error| fault("lock", path, error))
}

/// Waits until no write of a process that died is in progress: it could change bytes after they are read, or overwrite
/// later writes. The lock of the directory shows that the process is dead, so the wait is short.
fn wait_for_stray_writes(file: &fs::File) -> std::io::Result<()> {
    flock(file, FlockOperation::LockExclusive)?;
    Ok(flock(file, FlockOperation::Unlock)?)
}

/// True if direct I/O works here: some filesystems refuse to open, others only to write.
fn probe(dir: &Path) -> Result<bool, Fault> {
    let path = dir.join("probe.tmp");
    fs::write(&path, []).map_err(|error| fault("write", &path, error))?;
    let opened = fs::OpenOptions::new().write(true).custom_flags(DIRECT).open(&path);
    let mut block = Aligned::default();
    block.fill(&[0; WAL_BLOCK_BYTES]);
    let written = opened.and_then(|file| file.write_all_at(block.filled(), 0));
    // A full disk proves nothing about its filesystem; existing segments accept such writes.
    let direct = written.map_or_else(|error| disk::is_full(&error), |()| true);
    fs::remove_file(&path).map_err(|error| fault("remove", &path, error))?;
    Ok(direct)
}

const DIRECT: i32 = OFlags::DIRECT.bits() as i32;
/// A write is durable when it returns.
const DURABLE: i32 = OFlags::DSYNC.bits() as i32;

/// Flags with which files of the log are opened.
fn flags(direct: bool, no_sync: bool) -> i32 {
    (if direct { DIRECT } else { 0 }) | if no_sync { 0 } else { DURABLE }
}

fn open_segment(path: &Path, flags: i32) -> Result<fs::File, Fault> {
    let opened = fs::OpenOptions::new().read(true).write(true).custom_flags(flags).open(path);
    let file = opened.map_err(|error| fault("open", path, error))?;
    lock_segment(&file, path)?;
    Ok(file)
}

fn segment_path(dir: &Path, number: u64, first: LogIndex) -> PathBuf {
    dir.join(format!("{number:016x}-{first:016x}.wal"))
}

fn name_segment(spare: &Path, segment: &Path) -> Result<(), Fault> {
    rename_durably(spare, segment).map_err(|error| fault("rename", spare, error))
}

type Segments = Vec<(PathBuf, LogIndex, FrameHead)>;

/// Reads all segments in order: the newest entry of each, and the position of its next frame.
fn read_all(dir: &Path) -> Result<(Segments, Replay), Fault> {
    let number = |path: &PathBuf| {
        let name = path.file_name()?.to_str()?.strip_suffix(".wal")?;
        u64::from_str_radix(name.split_once('-')?.0, 16).ok()
    };
    let mut paths: Vec<_> = list(dir)?
        .into_iter()
        .filter_map(|path| number(&path).map(|number| (number, path)))
        .collect();
    paths.sort();
    let mut replay = Replay::default();
    let mut segments: Segments = Vec::new();
    let count = paths.len();
    for (at, (number, path)) in paths.into_iter().enumerate() {
        if let Some((_, _, before)) = segments.last()
            && before.segment + 1 != number
        {
            return Err(fault("use", &path, format!("segment {} is missing", before.segment + 1)));
        }
        let mut bytes = Vec::new();
        let read = fs::File::open(&path).and_then(|mut file| {
            wait_for_stray_writes(&file)?;
            file.read_to_end(&mut bytes)
        });
        read.map_err(|error| fault("read", &path, error))?;
        let damaged = |fault: Fault| Fault::new(format!("{} is damaged: {fault}", path.display()));
        let previous = segments.last().map(|(_, _, head)| head.previous);
        let segment = replay_segment(&Bytes::from(bytes), number, previous).map_err(damaged)?;
        if segment.torn && at + 1 < count {
            let text = format!("{} is damaged at offset {}", path.display(), segment.next.offset);
            return Err(Fault::new(text));
        }
        if segment.torn {
            tracing::warn!(
                file = %path.display(),
                offset = segment.next.offset,
                "cut a torn write off the end of the write-ahead log"
            );
        }
        let mut last = segments.last().map_or(0, |(_, last, _)| *last);
        for record in segment.records {
            last = index_of(&record).unwrap_or(last);
            replay.take(record).map_err(damaged)?;
        }
        segments.push((path, last, segment.next));
    }
    let damaged = |fault: Fault| Fault::new(format!("{} is damaged: {fault}", dir.display()));
    Ok((segments, replay.finish().map_err(damaged)?))
}
