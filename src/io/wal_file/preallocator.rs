//! The file for the segment after this one: one that was put aside, or a new one, made ahead of its turn.

use std::fs;
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;

use super::{Aligned, WalOptions, fault, free_files};
use crate::io::{disk, thread};
use crate::types::{DiskBounds, Fault};

/// Zeros that are written at once.
const ZEROS_BYTES: usize = 512 << 10;

/// A file for the next segment, or that the disk has no room for one.
type Found = Option<PathBuf>;

/// A file that is on its way. When it is dropped, so is what is half made.
pub(super) struct SegmentPreallocator {
    coming: flume::Receiver<Result<Found, Fault>>,
    unwanted: Arc<AtomicBool>,
    /// What came.
    found: Option<Found>,
}

impl SegmentPreallocator {
    /// Begins to look for a file for segment `number`, on a thread that gives way to others.
    ///
    /// # Errors
    /// There is no thread left.
    pub(super) fn prepare(options: &WalOptions, number: u64, flags: i32) -> Result<Self, Fault> {
        let (dir, bytes) = (options.dir.clone(), options.segment_bytes);
        let unwanted = Arc::new(AtomicBool::new(false));
        let is_unwanted = Arc::clone(&unwanted);
        let find = move || {
            if let Some(free) = free_files(&dir, bytes)?.pop() {
                return Ok(Some(free));
            }
            // What the store needs is not taken from it: it would end with that.
            let fits =
                |room: disk::Room| room.free >= bytes + DiskBounds::of_disk(room.total).margin;
            if !disk::room(&dir).is_none_or(fits) {
                return Ok(None);
            }
            new_file(&dir, number, bytes, flags, || is_unwanted.load(Ordering::Relaxed))
        };
        let mut find = Some(find);
        let coming =
            thread::ahead("wal:spare", 1, move || Poll::Ready(find.take().map(|find| find())))?;
        Ok(Self { coming, unwanted, found: None })
    }

    /// Whether it is there, or the disk had no room for it; `None` while neither is known.
    ///
    /// # Errors
    /// It could not be made for another reason.
    pub(super) fn is_there(&mut self) -> Result<Option<bool>, Fault> {
        if self.found.is_none()
            && let Ok(found) = self.coming.try_recv()
        {
            self.found = Some(found?);
        }
        Ok(self.found.as_ref().map(Option::is_some))
    }

    /// Waits for it; `None` if the disk had no room for it.
    ///
    /// # Errors
    /// It could not be made for another reason.
    pub(super) async fn take(&mut self) -> Result<Found, Fault> {
        if let Some(found) = &self.found {
            return Ok(found.clone());
        }
        let gone = |_| Fault::new("no file for the next log segment was made");
        let found = self.coming.recv_async().await.map_err(gone)??;
        self.found = Some(found.clone());
        Ok(found)
    }
}

impl Drop for SegmentPreallocator {
    /// Waits until nobody writes to the directory any more: a few milliseconds, when the log is closed. Not for a
    /// file that was taken: its thread may end whenever it is its turn.
    fn drop(&mut self) {
        self.unwanted.store(true, Ordering::Relaxed);
        if self.found.is_none() {
            drop(self.coming.recv());
        }
    }
}

/// Writes a whole segment of zeros: a later write into it changes no metadata. It has another name until it is
/// whole, so that nobody takes it for one that was left behind half done. Each piece is on the disk before the next
/// one is written: if all came there at once, the log's own writes would wait behind them, up to a tenth of a second.
/// `None` if the disk has no room for it; then nothing is left of it.
///
/// # Errors
/// The disk's, or it became unwanted.
pub(super) fn new_file(
    dir: &Path,
    number: u64,
    bytes: u64,
    flags: i32,
    is_unwanted: impl Fn() -> bool,
) -> Result<Found, Fault> {
    if disk::room(dir).is_some_and(|room| room.free < bytes) {
        return Ok(None);
    }
    let path = dir.join(format!("new-{number}.tmp"));
    let write = || -> io::Result<PathBuf> {
        let mut create = fs::OpenOptions::new();
        let file =
            create.write(true).create(true).truncate(true).custom_flags(flags).open(&path)?;
        let mut zeros = Aligned::default();
        zeros.fill(&vec![0; ZEROS_BYTES]);
        for at in (0..bytes).step_by(ZEROS_BYTES) {
            if is_unwanted() {
                fs::remove_file(&path)?;
                return Err(io::ErrorKind::Interrupted.into());
            }
            let length = (bytes - at).min(ZEROS_BYTES as u64) as usize;
            file.write_all_at(&zeros.filled()[..length], at)?;
        }
        file.sync_all()?;
        let free = dir.join(format!("free-{number}.tmp"));
        fs::rename(&path, &free)?;
        Ok(free)
    };
    match write() {
        Ok(free) => Ok(Some(free)),
        Err(error) if disk::is_full(&error) => {
            fs::remove_file(&path).map_err(|error| fault("remove", &path, error))?;
            Ok(None)
        }
        Err(error) => Err(fault("make", &path, error)),
    }
}
