//! Threads that do beforehand, without anyone waiting for them, what fjall would do while everyone waits.
//!
//! - fjall syncs its journal under the lock that every commit takes, and tables under the one that every read and
//!   write takes, and hands whatever was not yet written to the disk at once, in front of the write-ahead log's next
//!   write. Here both are written back steadily, so that little is left to sync.
//! - fjall lets go of a flushed memtable and of merged tables under the lock that every read and write takes, and
//!   whoever lets go last frees the one and removes the files of the others: 100 ms for 64 MiB of small records. Here
//!   a reference outlives that lock. That takes a moment of the same lock, so it is another thread.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use fjall::{AbstractTree as _, Database, Keyspace};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

use super::write_back::WriteBack;
use crate::io::thread;
use crate::types::Fault;

/// Time between two rounds of writing back while something is committed or merged. What came in that time goes to the
/// disk at once, and the log waits behind it: in 10 ms it is enough for one of its writes in a hundred to wait for 4.
const WRITE_BACK: Duration = Duration::from_millis(2);
/// Time between two looks for what fjall is about to let go of.
const LOOK: Duration = Duration::from_millis(10);
/// Time until the store is looked at again when nothing is committed.
const REST: Duration = Duration::from_secs(1);

/// Ends with the store it takes care of.
pub(super) struct Caretaker([Rounds; 2]);

impl Caretaker {
    /// Takes care of the store in a directory, and keeps count of its bytes in memtables.
    ///
    /// # Errors
    /// No thread is left.
    pub(super) fn start(
        path: &Path,
        database: Database,
        keyspaces: [Keyspace; 3],
        unflushed: Arc<AtomicU64>,
    ) -> Result<Self, Fault> {
        let mut write_back = WriteBack::new(path, keyspaces.iter().map(Keyspace::path));
        let news = write_back.news();
        let writing = Rounds::start("write-back", WRITE_BACK, news, move || write_back.round())?;
        let mut let_go = letting_go(keyspaces);
        let letting_go = Rounds::start("caretaker", LOOK, None, move || {
            unflushed.store(database.write_buffer_size(), Ordering::Relaxed);
            let_go()
        })?;
        Ok(Self([writing, letting_go]))
    }

    /// Something was committed. Costs next to nothing.
    pub(super) fn committed(&self) {
        self.0.iter().for_each(Rounds::wake);
    }
}

/// Keeps what fjall is about to let go of, until nobody else has it. Gives a round of that.
fn letting_go(keyspaces: [Keyspace; 3]) -> impl FnMut() -> bool + Send {
    let mut memtables = Vec::new();
    // For each keyspace which tables there were, the newest last.
    let mut versions = keyspaces.each_ref().map(|it| VecDeque::from([it.tree.current_version()]));
    move || {
        for (keyspace, versions) in keyspaces.iter().zip(&mut versions) {
            let active = keyspace.tree.active_memtable();
            if !memtables.iter().any(|kept| Arc::ptr_eq(kept, &active)) {
                memtables.push(active);
            }
            let newest = keyspace.tree.current_version();
            if versions.back().is_none_or(|kept| kept.id() != newest.id()) {
                versions.push_back(newest);
            }
            // So many before the newest may be read yet; fjall lets go of the oldest first.
            while versions.len() > keyspace.tree.version_free_list_len() + 1 {
                versions.pop_front();
            }
        }
        // Nobody else has them any more: they are freed here, where nobody waits.
        memtables.retain(|memtable| Arc::strong_count(memtable) > 1);
        false
    }
}

/// A thread that works in rounds while something is committed or made, and now and then when nothing is.
struct Rounds {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    /// Something was committed since the last round.
    busy: AtomicBool,
    ended: AtomicBool,
    bell: OwnedFd,
}

impl Shared {
    fn ring(&self) {
        // Fails only when it rings already.
        let _ = rustix::io::write(&self.bell, &1_u64.to_ne_bytes());
    }
}

impl Rounds {
    /// Starts it. A round tells whether the next one is wanted soon, whatever is committed; with `news` one begins as
    /// soon as that can be read.
    #[allow(clippy::disallowed_methods, reason = "a thread of its own, which hosts nothing")]
    fn start(
        name: &str,
        pause: Duration,
        news: Option<OwnedFd>,
        mut round: impl FnMut() -> bool + Send + 'static,
    ) -> Result<Self, Fault> {
        let bell = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)
            .map_err(|error| Fault::new(format!("the thread {name:?} gets no bell: {error}")))?;
        let (busy, ended) = (AtomicBool::new(false), AtomicBool::new(false));
        let shared = Arc::new(Shared { busy, ended, bell });
        let told = Arc::clone(&shared);
        let work = move || {
            let mut again = false;
            loop {
                let rings = PollFd::new(&told.bell, PollFlags::IN);
                let news = news.as_ref().map(|news| PollFd::new(news, PollFlags::IN));
                let mut sources: Vec<_> = [rings].into_iter().chain(news).collect();
                let timeout = Timespec::try_from(if again { pause } else { REST }).ok();
                let heard = poll(&mut sources, timeout.as_ref()).unwrap_or(0);
                // Whatever it was, more of it may come before the round.
                if heard > 0 {
                    std::thread::sleep(pause);
                }
                // First what rings, then what it rang for, or it would be missed.
                let _ = rustix::io::read(&told.bell, &mut [0; 8]);
                if told.ended.load(Ordering::Acquire) {
                    return;
                }
                told.busy.store(false, Ordering::Relaxed);
                again = round();
            }
        };
        Ok(Self { shared, thread: Some(thread::start(name, work)?) })
    }

    /// Something was committed.
    fn wake(&self) {
        // A plain look first: one that writes would take the line from other cores each time.
        let busy = &self.shared.busy;
        if !busy.load(Ordering::Relaxed) && !busy.swap(true, Ordering::Relaxed) {
            self.shared.ring();
        }
    }
}

impl Drop for Rounds {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Release);
        self.shared.ring();
        drop(self.thread.take().map(JoinHandle::join));
    }
}
