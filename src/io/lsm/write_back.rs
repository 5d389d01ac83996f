//! Steady writeback of the store's tables, in small pieces.
//!
//! The tree leaves a table in the page cache until it is complete, and then syncs it: up to 64 MiB at once, in front of
//! the write-ahead log's next write, which waited 20 ms for it on a fast disk. Here the kernel is asked to write early,
//! so that little is left to sync. (RocksDB's `bytes_per_sync`.)

use std::collections::HashMap;
use std::ffi::{CStr, OsStr, OsString};
use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};

use crate::io::thread;
use crate::types::Fault;

/// Bytes of the buffer for inotify events.
const EVENT_BYTES: usize = 4096;
/// Time between two rounds while a table grows, in ns. The bytes added in that time are written at once, and the log
/// waits behind them: in 10 ms they are enough for one of its writes in a hundred to wait for 4.
const ROUND_NS: i64 = 2_000_000;

/// Writes the tables of a store back until it is dropped.
pub(super) struct WriteBack {
    stop: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl WriteBack {
    /// Starts for the tables of the store in a directory. Does nothing where inotify is not available.
    ///
    /// # Errors
    /// No thread is left.
    pub(super) fn start(store: &Path, nice: i32) -> Result<Self, Fault> {
        let failed = |error| Fault::new(format!("the thread \"write-back\" cannot start: {error}"));
        let stop = Arc::new(eventfd(0, EventfdFlags::CLOEXEC).map_err(failed)?);
        let folder = store.join("tables");
        let mut unfinished = match UnfinishedTables::watch(folder) {
            Ok(unfinished) => unfinished,
            Err(error) => {
                tracing::warn!(
                    %error,
                    "cannot watch the store's files grow (fs.inotify.max_user_instances): writes may wait for their syncs"
                );
                return Ok(Self { stop, thread: None });
            }
        };
        let stopped = Arc::clone(&stop);
        let thread = thread::start_nice("write-back", nice, move || {
            while !is_ready(&stopped, &unfinished) {
                unfinished.round();
            }
        })?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

/// Waits until there is work; true for a stop.
fn is_ready(stop: &OwnedFd, unfinished: &UnfinishedTables) -> bool {
    let stop = PollFd::new(stop, PollFlags::IN);
    let round = Timespec { tv_sec: 0, tv_nsec: ROUND_NS };
    let mut sources = if unfinished.tables.is_empty() {
        vec![stop, PollFd::new(&unfinished.events, PollFlags::IN)]
    } else {
        vec![stop]
    };
    let timeout = (!unfinished.tables.is_empty()).then_some(&round);
    // Interrupted or not: a round does no harm.
    let _ = poll(&mut sources, timeout);
    sources[0].revents().contains(PollFlags::IN)
}

impl Drop for WriteBack {
    fn drop(&mut self) {
        // Fails only if it was written already.
        let _ = rustix::io::write(&*self.stop, &1_u64.to_ne_bytes());
        drop(self.thread.take().map(JoinHandle::join));
    }
}

/// The tables that are being written.
struct UnfinishedTables {
    folder: PathBuf,
    tables: HashMap<OsString, File>,
    /// inotify events of created and completed files.
    events: OwnedFd,
}

impl UnfinishedTables {
    fn watch(folder: PathBuf) -> io::Result<Self> {
        let events = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        let flags = WatchFlags::CREATE | WatchFlags::CLOSE_WRITE | WatchFlags::ONLYDIR;
        inotify::add_watch(&events, &folder, flags)?;
        Ok(Self { folder, tables: HashMap::new(), events })
    }

    /// Starts writeback of the bytes added since the last round, and waits for nothing.
    fn round(&mut self) {
        self.read_events();
        self.tables.values().for_each(steady::begin);
    }

    fn read_events(&mut self) {
        let mut buffer = [MaybeUninit::uninit(); EVENT_BYTES];
        let mut reader = Reader::new(&self.events, &mut buffer);
        while let Ok(event) = reader.next() {
            if event.events().contains(ReadFlags::QUEUE_OVERFLOW) {
                self.tables.clear();
            }
            let name = event.file_name().map(CStr::to_bytes).map(OsStr::from_bytes);
            let Some(name) = name.map(OsStr::to_owned) else { continue };
            if event.events().contains(ReadFlags::CLOSE_WRITE) {
                self.tables.remove(&name);
            } else if let Ok(file) = File::open(self.folder.join(&name)) {
                self.tables.insert(name, file);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn a_table_is_written_back_until_it_is_whole() {
        let folder = tempfile::tempdir().expect("a directory");
        let mut unfinished =
            UnfinishedTables::watch(folder.path().to_owned()).expect("the kernel tells");
        unfinished.round();
        assert!(unfinished.tables.is_empty());
        let create = |name: &str| File::create(folder.path().join(name)).expect("a file");
        let (mut first, second) = (create("7"), create("8"));
        first.write_all(&[7; 100_000]).expect("written");
        unfinished.round();
        assert_eq!(unfinished.tables.len(), 2);
        drop(first);
        unfinished.round();
        assert_eq!(unfinished.tables.len(), 1, "the other one grows");
        drop(second);
        unfinished.round();
        assert!(unfinished.tables.is_empty());
    }
}
