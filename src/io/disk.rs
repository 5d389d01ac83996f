//! Free space on the disk of the data directory: a monitor, and a file that holds some space in reserve.
//!
//! A thread looks every [`DISK_LOOK_MS`]; what it found can be asked at any time. Where little is left, requests ask the
//! file system again: on a busy machine the thread may be late by more than the margin. The decisions are those of
//! [`DiskBounds`]. The log has no part in the reserve: its segments are made before they are needed, and where one
//! cannot be made, [`super::WalFile`] says so.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use rustix::fs::{FallocateFlags, fallocate, statvfs};
use rustix::io::Errno;

use super::{clock, thread};
use crate::types::limits::{DISK_LOOK_MS, DISK_PLENTY_BYTES, DISK_START_BYTES_MIN};
use crate::types::{DiskBounds, DiskSpace, Fault};

/// Pause between two checks of a caller that cannot continue without space.
const WAIT: Duration = Duration::from_millis(100);
/// Number of times the store writes each byte of a request: as the newest version, and in the history.
const STORE_COPIES: u64 = 2;
/// Zeros written at once where the filesystem cannot allocate space otherwise.
const ZEROS_BYTES: usize = 512 << 10;
const RESERVE: &str = "reserve";

/// Bytes of a filesystem.
#[derive(Clone, Copy, Debug)]
pub(super) struct FreeSpace {
    /// All bytes.
    pub(super) total: u64,
    /// Bytes that can still be written.
    pub(super) free: u64,
}

/// Size and free space of the filesystem of a path; `None` if unknown.
pub(super) fn room(path: &Path) -> Option<FreeSpace> {
    let found = statvfs(path).ok().filter(|found| found.f_blocks > 0)?;
    Some(FreeSpace {
        total: found.f_blocks * found.f_frsize,
        free: found.f_bavail * found.f_frsize,
    })
}

/// Size in bytes of the filesystem of a path; `None` if unknown.
pub fn disk_bytes(path: &Path) -> Option<u64> {
    room(path).map(|room| room.total)
}

/// True for errors by lack of disk space.
pub(super) fn is_full(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded)
}

/// True if a disk has room for this many bytes of the log, beside what the store needs.
pub type Fits = Arc<dyn Fn(u64) -> bool + Send + Sync>;

/// Takes the room of a file that is about to be written, where the file system knows that.
pub(super) fn reserve(file: &fs::File, bytes: u64) -> std::io::Result<()> {
    match fallocate(file, FallocateFlags::empty(), 0, bytes) {
        Err(Errno::OPNOTSUPP) => Ok(()),
        outcome => Ok(outcome?),
    }
}

/// Bytes of the requests that are under way, of all executors: proposed and not yet applied.
static REQUEST_BYTES: AtomicU64 = AtomicU64::new(0);

/// Bytes that the store will take for the requests that are under way.
pub(super) fn claimed_by_requests() -> u64 {
    RequestBytes::all() * STORE_COPIES
}

/// Counts the bytes of a request as under way until it is dropped.
#[derive(Debug)]
pub struct RequestBytes(u64);

impl RequestBytes {
    /// Counts so many.
    pub fn add(bytes: usize) -> Self {
        REQUEST_BYTES.fetch_add(bytes as u64, Ordering::Relaxed);
        Self(bytes as u64)
    }

    /// Of all that are under way.
    pub fn all() -> u64 {
        REQUEST_BYTES.load(Ordering::Relaxed)
    }
}

impl Drop for RequestBytes {
    fn drop(&mut self) {
        REQUEST_BYTES.fetch_sub(self.0, Ordering::Relaxed);
    }
}

/// Cheap to clone; the looking ends with the last one.
#[derive(Clone)]
pub struct DiskMonitor(Arc<Shared>);

struct Shared {
    dir: PathBuf,
    space: AtomicU8,
    /// Bytes in memtables, which the store will write later.
    owed: ArcSwap<AtomicU64>,
    /// Bytes that can be taken before the disk is low, what the store owes included, at the last look.
    spare: AtomicU64,
    /// Bytes that the reserve holds.
    held: AtomicU64,
}

impl DiskMonitor {
    /// Starts to monitor the disk of a directory. An existing reserve is deleted at once if there is no other
    /// free space. Blocks.
    ///
    /// # Errors
    /// There is too little space to start, even with the reserve.
    pub fn start(dir: &Path) -> Result<Self, Fault> {
        let space = AtomicU8::new(DiskSpace::Enough.to_u8());
        let (owed, spare) = (ArcSwap::default(), AtomicU64::new(u64::MAX));
        let held = AtomicU64::new(0);
        let shared = Arc::new(Shared { dir: dir.to_owned(), space, owed, spare, held });
        let mut reserve = Reserve { path: dir.join(RESERVE), failed: false };
        shared.look(&mut reserve);
        if let Some(room) = room(dir)
            && room.free < DISK_START_BYTES_MIN
        {
            return Err(Fault::new(format!(
                "the disk of {} is full: {} bytes are free and the member needs {DISK_START_BYTES_MIN} to start: \
                 make room and start it again",
                dir.display(),
                room.free
            )));
        }
        let looked_after = Arc::downgrade(&shared);
        thread::start("disk", move || monitor(&looked_after, &mut reserve))?;
        Ok(Self(shared))
    }

    /// The level of free space as of the last check.
    pub fn space(&self) -> DiskSpace {
        DiskSpace::from_u8(self.0.space.load(Ordering::Relaxed))
    }

    /// Sets the counter of bytes in the store's memtables, which it will write later.
    pub fn owe(&self, unflushed: Arc<AtomicU64>) {
        self.0.owed.store(unflushed);
    }

    /// True if the free space may be too small for the requests under way and one more of this many bytes.
    pub fn may_lack(&self, request_bytes: u64) -> bool {
        let wanted = claimed_by_requests() + request_bytes * STORE_COPIES + self.0.owed();
        self.0.spare.load(Ordering::Relaxed) < wanted + DISK_PLENTY_BYTES
            && self.0.spare_now().is_some_and(|spare| spare < wanted)
    }

    /// True if the disk of the log has room for a segment of this many bytes beside what the store needs, if that is the
    /// store's disk, too.
    pub fn fits_segment(&self, log: &Path) -> Fits {
        let device = |path: &Path| fs::metadata(path).map(|it| it.dev()).ok();
        if device(log) == device(&self.0.dir) {
            let disk = self.clone();
            return Arc::new(move |bytes| disk.fits_beside_store(bytes));
        }
        let log = log.to_owned();
        Arc::new(move |bytes| {
            let fits =
                |room: FreeSpace| room.free >= bytes + DiskBounds::of_disk(room.total).margin;
            room(&log).is_none_or(fits)
        })
    }

    fn fits_beside_store(&self, bytes: u64) -> bool {
        let wanted = bytes + claimed_by_requests() + self.0.owed();
        room(&self.0.dir).is_none_or(|room| {
            let bounds = DiskBounds::of_disk(room.total);
            self.0.with_reserve(room) >= wanted + bounds.reserve + bounds.margin
        })
    }

    /// Waits until the store has space for so many bytes of requests.
    pub async fn wait_for(&self, request_bytes: u64) {
        let mut waits = false;
        while !self.fits(request_bytes * STORE_COPIES) {
            if !std::mem::replace(&mut waits, true) {
                tracing::warn!(
                    dir = %self.0.dir.display(),
                    "the disk is full: nothing is applied until there is room on it"
                );
            }
            clock::sleep(WAIT).await;
        }
    }

    /// True if so many bytes fit now, beside the store's memtables. Costs a microsecond.
    fn fits(&self, bytes: u64) -> bool {
        let bytes = bytes + self.0.owed();
        room(&self.0.dir)
            .is_none_or(|room| room.free >= bytes + DiskBounds::of_disk(room.total).apply_min())
    }
}

#[allow(clippy::disallowed_methods, reason = "a thread of its own, which hosts nothing")]
fn monitor(shared: &Weak<Shared>, reserve: &mut Reserve) {
    while let Some(shared) = shared.upgrade() {
        shared.look(reserve);
        drop(shared);
        std::thread::sleep(Duration::from_millis(DISK_LOOK_MS));
    }
}

impl Shared {
    fn owed(&self) -> u64 {
        self.owed.load().load(Ordering::Relaxed)
    }

    /// Bytes that are free, those of the reserve included.
    fn with_reserve(&self, room: FreeSpace) -> u64 {
        room.free + self.held.load(Ordering::Relaxed)
    }

    /// Bytes that can be taken before the disk is low, what the store owes included. Costs a microsecond.
    fn spare_now(&self) -> Option<u64> {
        let room = room(&self.dir)?;
        Some(DiskBounds::of_disk(room.total).spare(self.with_reserve(room)))
    }

    fn look(&self, reserve: &mut Reserve) {
        let Some(room) = room(&self.dir) else { return };
        let bounds = DiskBounds::of_disk(room.total);
        let held = reserve.bytes();
        let before = DiskSpace::from_u8(self.space.load(Ordering::Relaxed));
        self.held.store(held, Ordering::Relaxed);
        let now = bounds.judge(before, (room.free + held).saturating_sub(self.owed()));
        self.spare.store(bounds.spare(room.free + held), Ordering::Relaxed);
        if now != DiskSpace::Enough && held > 0 {
            self.held.store(0, Ordering::Relaxed);
            reserve.give_up();
            self.held.store(reserve.bytes(), Ordering::Relaxed);
        } else if now == DiskSpace::Enough && held < bounds.reserve {
            // First, or requests would be refused for the room that the reserve takes.
            self.held.store(bounds.reserve, Ordering::Relaxed);
            reserve.make(bounds.reserve);
            self.held.store(reserve.bytes(), Ordering::Relaxed);
        }
        if before != now {
            self.space.store(now.to_u8(), Ordering::Relaxed);
            log_change(&self.dir, room.free, bounds, before, now);
        }
    }
}

/// Logs that the disk is full, or not any more.
fn log_change(dir: &Path, free: u64, bounds: DiskBounds, before: DiskSpace, now: DiskSpace) {
    let (dir, wanted) = (dir.display(), bounds.reserve + bounds.margin + bounds.margin / 2);
    match (before, now) {
        (_, DiskSpace::Enough) => tracing::info!(%dir, free, "there is room on the disk again"),
        (DiskSpace::Enough, _) => tracing::warn!(
            %dir,
            free,
            wanted,
            "the disk is full: this member leads no more if another one has room, and writes are refused when too \
             few have; reads go on, and so does all of it when there is room again"
        ),
        (_, DiskSpace::Exhausted) => tracing::warn!(
            %dir,
            free,
            wanted,
            "the disk is full to the last: this member takes no more entries of the log until there is room"
        ),
        (_, DiskSpace::Low) => (),
    }
}

/// A file that keeps its bytes allocated.
struct Reserve {
    path: PathBuf,
    /// It could not be created, and that was logged.
    failed: bool,
}

impl Reserve {
    /// Its size in bytes.
    fn bytes(&self) -> u64 {
        fs::metadata(&self.path).map_or(0, |metadata| metadata.len())
    }

    fn give_up(&mut self) {
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(file = %self.path.display(), %error, "cannot give up the reserve on the disk");
        }
    }

    /// Creates it. A part that cannot be allocated now is tried again at the next check.
    fn make(&mut self, bytes: u64) {
        let made = fs::File::create(&self.path).and_then(|mut file| {
            match fallocate(&file, FallocateFlags::empty(), 0, bytes) {
                Err(Errno::OPNOTSUPP) => {
                    let zeros = vec![0; ZEROS_BYTES];
                    (0..bytes.div_ceil(ZEROS_BYTES as u64)).try_for_each(|_| file.write_all(&zeros))
                }
                outcome => Ok(outcome?),
            }
        });
        let Err(error) = made else {
            self.failed = false;
            return;
        };
        if !std::mem::replace(&mut self.failed, true) {
            tracing::warn!(file = %self.path.display(), %error, "cannot reserve room on the disk");
        }
        drop(fs::remove_file(&self.path));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reserve_is_made_where_there_is_room_and_holds_its_bytes() {
        let dir = tempfile::tempdir().expect("a directory");
        let monitor = DiskMonitor::start(dir.path()).expect("there is room");
        assert_eq!(monitor.space(), DiskSpace::Enough);
        let total = disk_bytes(dir.path()).expect("it says");
        let reserve = fs::metadata(dir.path().join(RESERVE)).expect("it is there");
        assert_eq!(reserve.len(), DiskBounds::of_disk(total).reserve);
        assert!(reserve.blocks() * 512 >= reserve.len(), "it holds no room");
    }

    #[test]
    fn requests_count_with_the_store_before_the_next_look() {
        let dir = tempfile::tempdir().expect("a directory");
        let monitor = DiskMonitor::start(dir.path()).expect("there is room");
        let owed = Arc::new(AtomicU64::new(0));
        monitor.owe(Arc::clone(&owed));
        assert!(!monitor.may_lack(1000) && monitor.fits_beside_store(1000));
        // More than there is, at once.
        owed.store(1 << 60, Ordering::Relaxed);
        assert!(monitor.may_lack(0) && !monitor.fits_beside_store(0));
        owed.store(0, Ordering::Relaxed);
        assert!(!monitor.may_lack(1000));
        let request = RequestBytes::add(1 << 60);
        assert!(monitor.may_lack(0) && !monitor.fits_beside_store(0));
        drop(request);
        assert!(!monitor.may_lack(1000) && monitor.fits_beside_store(1000));
    }

    #[test]
    fn a_full_disk_is_told_from_other_failures() {
        assert!(is_full(&std::io::Error::from_raw_os_error(Errno::NOSPC.raw_os_error())));
        assert!(is_full(&std::io::Error::from_raw_os_error(Errno::DQUOT.raw_os_error())));
        assert!(!is_full(&std::io::Error::from_raw_os_error(Errno::IO.raw_os_error())));
    }
}
