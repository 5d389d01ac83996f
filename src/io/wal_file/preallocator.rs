//! The file for the next segment: a recycled or a new one, prepared in advance.

use std::fs;
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;

use super::files::free_files;
use super::{Aligned, WalOptions, fault};
use crate::io::{disk, thread};
use crate::types::Fault;

/// Zeros written at once.
const ZEROS_BYTES: usize = 512 << 10;

/// A file for the next segment; `None` if the disk has no space for one.
type Found = Option<PathBuf>;

/// A file in preparation. When it is dropped, an incomplete file is removed.
pub(super) struct SegmentPreallocator {
    coming: flume::Receiver<Result<Found, Fault>>,
    unwanted: Arc<AtomicBool>,
    /// The result.
    found: Option<Found>,
}

impl SegmentPreallocator {
    /// Starts to prepare a file for segment `number`, on a thread with low priority.
    ///
    /// # Errors
    /// There is no thread left.
    pub(super) fn prepare(options: &WalOptions, number: u64, flags: i32) -> Result<Self, Fault> {
        let (dir, bytes) = (options.dir.clone(), options.segment_bytes);
        let fits = Arc::clone(&options.fits);
        let unwanted = Arc::new(AtomicBool::new(false));
        let is_unwanted = Arc::clone(&unwanted);
        let find = move || {
            if let Some(free) = free_files(&dir, bytes)?.pop() {
                return Ok(Some(free));
            }
            if !fits(bytes) {
                return Ok(None);
            }
            new_file(&dir, number, bytes, flags, || is_unwanted.load(Ordering::Relaxed))
        };
        let mut find = Some(find);
        let coming =
            thread::ahead("wal:spare", 1, move || Poll::Ready(find.take().map(|find| find())))?;
        Ok(Self { coming, unwanted, found: None })
    }

    /// True if the file is ready, false if the disk has no space for it; `None` while neither is known.
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

    /// Waits for it; `None` if the disk had no room for it. A caller that gives up loses nothing.
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
    /// Waits until the thread stops writing to the directory: a few milliseconds, when the log is closed. Not for a
    /// file that was taken: its thread may end at any time.
    fn drop(&mut self) {
        self.unwanted.store(true, Ordering::Relaxed);
        if self.found.is_none() {
            drop(self.coming.recv());
        }
    }
}

/// Writes a whole segment of zeros: a later write into it changes no metadata. It has another name until it is
/// whole, so that nobody takes it for one that was left behind half done. Its room is taken first, so that whoever looks at
/// the disk meanwhile does not count on it. Each piece is on the disk before the next
/// one is written: if all came there at once, the log's own writes would wait behind them, up to a tenth of a second.
/// `None` if the disk has no room for it; then nothing is left of it.
///
/// # Errors
/// The disk's error, or it is not needed any more.
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
        disk::reserve(&file, bytes)?;
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
