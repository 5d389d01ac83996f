//! Free space on the disk of the data directory: a monitor, and a file that holds some space in reserve.
//!
//! A thread checks every [`DISK_LOOK_MS`]; its result can be read at any time. The decisions are those of
//! [`DiskBounds`]. The log does not use the reserve: its segments are created before they are needed, and if one cannot
//! be created, [`super::WalFile`] reports it.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use rustix::fs::{FallocateFlags, fallocate, statvfs};
use rustix::io::Errno;

use super::{clock, thread};
use crate::types::limits::{DISK_LOOK_MS, DISK_START_BYTES_MIN};
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

/// The monitor. Cheap to clone; its thread ends with the last clone.
#[derive(Clone)]
pub struct DiskMonitor(Arc<Shared>);

struct Shared {
    dir: PathBuf,
    space: AtomicU8,
    /// Bytes in memtables, which the store will write later.
    owed: ArcSwap<AtomicU64>,
    /// Bytes that can be accepted before the disk is low, as of the last check.
    spare: AtomicU64,
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
        let shared = Arc::new(Shared { dir: dir.to_owned(), space, owed, spare });
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

    /// True if `request_bytes`, the bytes of all requests in flight, may not fit into the free space.
    pub fn may_lack(&self, request_bytes: u64) -> bool {
        self.0.spare.load(Ordering::Relaxed) < request_bytes * STORE_COPIES
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

    fn look(&self, reserve: &mut Reserve) {
        let Some(room) = room(&self.dir) else { return };
        let bounds = DiskBounds::of_disk(room.total);
        let held = reserve.bytes();
        let before = DiskSpace::from_u8(self.space.load(Ordering::Relaxed));
        let net = (room.free + held).saturating_sub(self.owed());
        let now = bounds.judge(before, net);
        let spare = net.saturating_sub(bounds.reserve + bounds.margin / 2);
        self.spare.store(spare, Ordering::Relaxed);
        if now != DiskSpace::Enough && held > 0 {
            reserve.give_up();
        } else if now == DiskSpace::Enough && held < bounds.reserve {
            reserve.make(bounds.reserve);
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
        use std::os::unix::fs::MetadataExt as _;
        let dir = tempfile::tempdir().expect("a directory");
        let monitor = DiskMonitor::start(dir.path()).expect("there is room");
        assert_eq!(monitor.space(), DiskSpace::Enough);
        let total = disk_bytes(dir.path()).expect("it says");
        let reserve = fs::metadata(dir.path().join(RESERVE)).expect("it is there");
        assert_eq!(reserve.len(), DiskBounds::of_disk(total).reserve);
        assert!(reserve.blocks() * 512 >= reserve.len(), "it holds no room");
    }

    #[test]
    fn a_full_disk_is_told_from_other_failures() {
        assert!(is_full(&std::io::Error::from_raw_os_error(Errno::NOSPC.raw_os_error())));
        assert!(is_full(&std::io::Error::from_raw_os_error(Errno::DQUOT.raw_os_error())));
        assert!(!is_full(&std::io::Error::from_raw_os_error(Errno::IO.raw_os_error())));
    }
}
