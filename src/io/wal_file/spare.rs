//! The file for the segment after this one: one that was put aside, or a new one, made ahead of its turn.

use std::fs;
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;

use super::{Aligned, WalOptions, fault, free_files};
use crate::io::thread;
use crate::types::Fault;

/// Zeros that are written at once.
const ZEROS_BYTES: usize = 512 << 10;

/// A file that is on its way. When it is dropped, so is what is half made.
pub(super) struct Spare {
    found: flume::Receiver<Result<PathBuf, Fault>>,
    unwanted: Arc<AtomicBool>,
    taken: bool,
}

impl Spare {
    /// Begins to look for a file for segment `number`, on a thread that gives way to others.
    ///
    /// # Errors
    /// There is no thread left.
    pub(super) fn prepare(options: &WalOptions, number: u64, flags: i32) -> Result<Self, Fault> {
        let (dir, bytes) = (options.dir.clone(), options.segment_bytes);
        let unwanted = Arc::new(AtomicBool::new(false));
        let is_unwanted = Arc::clone(&unwanted);
        let find = move || match free_files(&dir, bytes)?.pop() {
            Some(free) => Ok(free),
            None => new_file(&dir, number, bytes, flags, || is_unwanted.load(Ordering::Relaxed)),
        };
        let mut find = Some(find);
        let found =
            thread::ahead("wal:spare", 1, move || Poll::Ready(find.take().map(|find| find())))?;
        Ok(Self { found, unwanted, taken: false })
    }

    /// Waits for it.
    ///
    /// # Errors
    /// It could not be made.
    pub(super) async fn take(&mut self) -> Result<PathBuf, Fault> {
        let gone = |_| Fault::new("no file for the next log segment was made");
        let found = self.found.recv_async().await.map_err(gone)?;
        self.taken = true;
        found
    }
}

impl Drop for Spare {
    /// Waits until nobody writes to the directory any more: a few milliseconds, when the log is closed. Not for a
    /// file that was taken: its thread may end whenever it is its turn.
    fn drop(&mut self) {
        self.unwanted.store(true, Ordering::Relaxed);
        if !self.taken {
            drop(self.found.recv());
        }
    }
}

/// Writes a whole segment of zeros: a later write into it changes no metadata. It has another name until it is
/// whole, so that nobody takes it for one that was left behind half done. Each piece is on the disk before the next
/// one is written: if all came there at once, the log's own writes would wait behind them, up to a tenth of a second.
///
/// # Errors
/// The disk's, or it became unwanted.
pub(super) fn new_file(
    dir: &Path,
    number: u64,
    bytes: u64,
    flags: i32,
    is_unwanted: impl Fn() -> bool,
) -> Result<PathBuf, Fault> {
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
    write().map_err(|error| fault("make", &path, error))
}
