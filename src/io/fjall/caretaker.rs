//! A thread that does beforehand, without anyone waiting for it, what fjall would do while everyone waits.
//!
//! - fjall syncs its journal under the lock that every commit takes, and hands whatever was not yet written to
//!   the disk at once, in front of the write-ahead log's next write: 20 to 30 ms per second of full load. Here
//!   the journal is written back steadily, so that little is left to sync.
//! - fjall lets go of a flushed memtable under the lock that every read and write takes, and whoever lets go
//!   last frees it: 100 ms for 64 MiB of small records. Here a reference outlives that lock.

use std::fs::File;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use fjall::{AbstractTree as _, Keyspace};

use crate::io::thread;
use crate::types::Fault;

/// Time between two rounds while something is committed; a round writes what came in since the last.
const ROUND: Duration = Duration::from_millis(10);
/// Time until memtables are looked at again when nothing is committed.
const REST: Duration = Duration::from_secs(1);

/// Ends with the store it takes care of.
pub(super) struct Caretaker {
    busy: Arc<AtomicBool>,
    wake: Option<flume::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Caretaker {
    /// Takes care of the store in a directory.
    ///
    /// # Errors
    /// No thread is left.
    pub(super) fn start(path: &Path, keyspaces: [Keyspace; 3]) -> Result<Self, Fault> {
        let (wake, woken) = flume::bounded(1);
        let busy = Arc::new(AtomicBool::new(false));
        let (path, was_busy) = (path.to_owned(), Arc::clone(&busy));
        let thread =
            thread::start("caretaker", move || care(&path, &keyspaces, &was_busy, &woken))?;
        Ok(Self { busy, wake: Some(wake), thread: Some(thread) })
    }

    /// Something was committed. Costs next to nothing.
    pub(super) fn committed(&self) {
        if !self.busy.load(Ordering::Relaxed) {
            self.busy.store(true, Ordering::Relaxed);
            if let Some(wake) = &self.wake {
                let _ = wake.try_send(());
            }
        }
    }
}

impl Drop for Caretaker {
    fn drop(&mut self) {
        self.wake = None;
        drop(self.thread.take().map(JoinHandle::join));
    }
}

#[allow(clippy::disallowed_methods, reason = "a thread of its own, which hosts nothing")]
fn care(path: &Path, keyspaces: &[Keyspace], busy: &AtomicBool, woken: &flume::Receiver<()>) {
    let mut memtables = Vec::new();
    let mut journal = None;
    loop {
        match woken.recv_timeout(REST) {
            Ok(()) => std::thread::sleep(ROUND),
            Err(flume::RecvTimeoutError::Timeout) => (),
            Err(flume::RecvTimeoutError::Disconnected) => return,
        }
        if busy.swap(false, Ordering::Relaxed) {
            write_back(path, &mut journal);
        }
        for keyspace in keyspaces {
            let active = keyspace.tree.active_memtable();
            if !memtables.iter().any(|kept| Arc::ptr_eq(kept, &active)) {
                memtables.push(active);
            }
        }
        // Nobody else has them any more: they are freed here, where nobody waits.
        memtables.retain(|memtable| Arc::strong_count(memtable) > 1);
    }
}

/// Lets the kernel begin to write what was added to the newest journal, and waits for nothing. Best effort:
/// what counts is the sync that comes later.
fn write_back(path: &Path, journal: &mut Option<(PathBuf, File)>) {
    let number = |path: &PathBuf| -> Option<u64> {
        (path.extension()? == "jnl").then(|| path.file_stem()?.to_str()?.parse().ok())?
    };
    let files = std::fs::read_dir(path).into_iter().flatten().flatten().map(|file| file.path());
    let Some(newest) = files.filter(|path| number(path).is_some()).max_by_key(number) else {
        return;
    };
    if journal.as_ref().is_none_or(|(open, _)| *open != newest) {
        *journal = File::open(&newest).ok().map(|file| (newest, file));
    }
    if let Some((_, file)) = journal {
        begin_write(file);
    }
}

#[allow(unsafe_code, reason = "neither std nor rustix has this call")]
fn begin_write(file: &File) {
    // SAFETY: the descriptor is open during the call, which touches no memory of ours.
    let _ = unsafe { libc::sync_file_range(file.as_raw_fd(), 0, 0, libc::SYNC_FILE_RANGE_WRITE) };
}
