//! The queue of log lines: a thread writes them, so that a full pipe or a slow disk stops no executor.
//!
//! The queue is bounded in bytes. Lines that do not fit are dropped and counted, and the thread logs their number when
//! there is room again. The end of the process flushes the queue first.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use super::journal::Journal;
use super::rotated_file::RotatedFile;
use super::thread;
use crate::metrics;
use crate::types::Fault;
use crate::types::limits::{LOG_QUEUE_BYTES_ERRORS, LOG_QUEUE_BYTES_MAX};

/// Bytes joined into one write.
const WRITE_BYTES: usize = 64 << 10;
/// Overhead of a line in the queue beside its bytes.
const LINE_BYTES: usize = 64;
/// Interval at which the thread asks for reports, in addition to each write.
const REPORTS: Duration = Duration::from_secs(1);
/// Timeout of a flush at the end of the process.
const FLUSH_MAX: Duration = Duration::from_secs(1);

/// Destination of log lines.
#[derive(Debug)]
pub enum LogOutput {
    /// Standard error.
    Stderr,
    /// Standard output.
    Stdout,
    /// A file that is open for appending, and its name.
    File(File, PathBuf),
    /// systemd's journal.
    Journal(Journal),
    /// A file that is put aside when it is large enough.
    Rotated(RotatedFile),
}

impl LogOutput {
    /// Opens a file to append to it.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn file(path: impl Into<PathBuf>) -> std::io::Result<Self> {
        let path = path.into();
        Ok(Self::File(append(&path)?, path))
    }

    /// Opens a file by its name again, which another program may have given to another file. One that cannot be opened stays.
    fn reopen(&mut self) {
        let (opened, path) = match self {
            Self::Stderr | Self::Stdout | Self::Journal(_) => return,
            Self::File(file, path) => (append(path).map(|opened| *file = opened), path.as_path()),
            Self::Rotated(file) => (file.reopen(), file.path()),
        };
        if let Err(error) = opened {
            let path = path.display().to_string();
            tracing::error!(path, error = %error, "a log file was not opened again");
        }
    }

    fn write(&mut self, lines: &[u8]) {
        // A failed write of the log cannot be logged.
        let _ = match self {
            Self::Stderr => std::io::stderr().write_all(lines),
            Self::Stdout => std::io::stdout().write_all(lines),
            Self::File(file, _) => (&*file).write_all(lines),
            Self::Journal(journal) => {
                journal.write(lines);
                Ok(())
            }
            Self::Rotated(file) => file.write(lines),
        };
    }
}

fn append(path: &Path) -> std::io::Result<File> {
    File::options().create(true).append(true).open(path)
}

/// A queue's name, its bound and its metric.
#[derive(Clone, Copy, Debug)]
pub struct LogKind {
    /// The name of the thread.
    pub name: &'static str,
    /// Bytes that wait, at most.
    pub bytes_max: usize,
    /// Bytes beyond that for lines about errors.
    pub bytes_errors: usize,
    /// Counts lines that found no room.
    pub dropped: &'static metrics::Counter,
}

/// The log of the process.
const LOG: LogKind = LogKind {
    name: "log",
    bytes_max: LOG_QUEUE_BYTES_MAX,
    bytes_errors: LOG_QUEUE_BYTES_ERRORS,
    dropped: &metrics::LOG_LINES_DROPPED,
};

/// Source of lines about the log itself; its argument is the number of lines dropped since the last call.
pub type Reports = Box<dyn FnMut(u64) -> Vec<String> + Send>;

enum Item {
    Line(String),
    /// Files are opened again.
    Reopen,
    /// Answered when everything before it is written.
    Flush(flume::Sender<()>),
}

/// The queue. Shared by reference; its thread ends with it.
#[derive(Debug)]
pub struct LogQueue {
    // Bounded by `bytes`, not by the channel: lines differ in length.
    items: flume::Sender<Item>,
    kind: LogKind,
    shared: std::sync::Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    /// Bytes in the queue.
    bytes: AtomicUsize,
    /// Dropped lines that were not reported yet.
    dropped: AtomicU64,
}

impl LogQueue {
    /// Starts the thread.
    ///
    /// # Errors
    /// The kernel has no thread left.
    pub fn start(
        kind: LogKind,
        mut outputs: Vec<LogOutput>,
        reports: Reports,
    ) -> Result<Self, Fault> {
        let (items, queue) = flume::unbounded();
        let shared = std::sync::Arc::<Shared>::default();
        let writes = std::sync::Arc::clone(&shared);
        thread::start(kind.name, move || write_all(&queue, &mut outputs, &writes, reports))?;
        lock(&QUEUES).push(items.downgrade());
        Ok(Self { items, kind, shared })
    }

    /// Queues a line, which ends with a line feed; drops it if there is no room. Errors have additional room.
    pub fn push(&self, line: String, is_error: bool) {
        if self.try_push(line, is_error).is_err() {
            self.shared.dropped.fetch_add(1, Relaxed);
            self.kind.dropped.add(1);
        }
    }

    /// Queues a line as [`LogQueue::push`] does.
    ///
    /// # Errors
    /// There is no room for the line, which is given back.
    pub fn try_push(&self, line: String, is_error: bool) -> Result<(), String> {
        let bytes = line.len() + LINE_BYTES;
        let max = self.kind.bytes_max + if is_error { self.kind.bytes_errors } else { 0 };
        let fits = |waiting: usize| Some(waiting + bytes).filter(|waiting| *waiting <= max);
        if self.shared.bytes.fetch_update(Relaxed, Relaxed, fits).is_err() {
            return Err(line);
        }
        drop(self.items.send(Item::Line(line)));
        Ok(())
    }

    /// Waits until the queue is written, a second at most. Blocks.
    pub fn flush(&self) {
        let (done, flushed) = flume::bounded(1);
        drop(self.items.send(Item::Flush(done)));
        let _ = flushed.recv_timeout(FLUSH_MAX);
    }
}

/// The thread's loop, until the queue is dropped.
fn write_all(
    queue: &flume::Receiver<Item>,
    outputs: &mut [LogOutput],
    shared: &Shared,
    mut reports: Reports,
) {
    let mut buffer = String::new();
    loop {
        let mut next = match queue.recv_timeout(REPORTS) {
            Ok(first) => Some(first),
            Err(flume::RecvTimeoutError::Timeout) => None,
            Err(flume::RecvTimeoutError::Disconnected) => return,
        };
        let (mut bytes, mut flushed, mut reopens) = (0, None, false);
        while let Some(item) = next {
            match item {
                Item::Line(line) => {
                    bytes += line.len() + LINE_BYTES;
                    buffer.push_str(&line);
                }
                Item::Flush(done) => flushed = Some(done),
                Item::Reopen => reopens = true,
            }
            let goes_on = flushed.is_none() && !reopens && buffer.len() < WRITE_BYTES;
            next = if goes_on { queue.try_recv().ok() } else { None };
        }
        reports(shared.dropped.swap(0, Relaxed)).iter().for_each(|line| buffer.push_str(line));
        if !buffer.is_empty() {
            outputs.iter_mut().for_each(|output| output.write(buffer.as_bytes()));
        }
        if reopens {
            outputs.iter_mut().for_each(LogOutput::reopen);
        }
        buffer.clear();
        buffer.shrink_to(WRITE_BYTES);
        shared.bytes.fetch_sub(bytes, Relaxed);
        if let Some(done) = flushed {
            let _ = done.send(());
        }
    }
}

static QUEUE: OnceLock<LogQueue> = OnceLock::new();

/// All queues, for [`reopen_logs`]: one or two for a process.
static QUEUES: Mutex<Vec<flume::WeakSender<Item>>> = Mutex::new(Vec::new());

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Has all files of logs opened by their names again, once what was queued before is written: another program has moved them
/// away.
pub fn reopen_logs() {
    let mut queues = lock(&QUEUES);
    queues.retain(|queue| queue.upgrade().is_some_and(|queue| queue.send(Item::Reopen).is_ok()));
}

/// Starts the queue of the process, which [`flush_log`] flushes; returns the existing one if there is one. A panic hook
/// flushes it, too.
///
/// # Errors
/// The kernel has no thread left.
pub fn start_log(outputs: Vec<LogOutput>, reports: Reports) -> Result<&'static LogQueue, Fault> {
    if let Some(queue) = QUEUE.get() {
        return Ok(queue);
    }
    let queue = LogQueue::start(LOG, outputs, reports)?;
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        print(panic);
        flush_log();
    }));
    Ok(QUEUE.get_or_init(|| queue))
}

/// Waits until the log of the process is written, a second at most. Called before the process ends. Blocks.
pub fn flush_log() {
    if let Some(queue) = QUEUE.get() {
        queue.flush();
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::os::fd::OwnedFd;

    use super::*;
    use crate::io::clock::Instant;

    #[test]
    fn a_pipe_that_nobody_reads_stops_nobody_and_what_it_cost_is_told() {
        let (mut reader, writer) = std::io::pipe().expect("a pipe");
        let file = File::from(OwnedFd::from(writer));
        let told: Reports = Box::new(|dropped| {
            (dropped > 0).then(|| format!("dropped {dropped}\n")).into_iter().collect()
        });
        let queue = LogQueue::start(LOG, vec![LogOutput::File(file, PathBuf::new())], told)
            .expect("it starts");
        let line = format!("{}\n", "x".repeat(999));
        let began = Instant::now();
        let lines = 3 * LOG_QUEUE_BYTES_MAX / line.len();
        (0..lines).for_each(|_| queue.push(line.clone(), false));
        queue.push("the end of it\n".to_owned(), true);
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
        queue.flush();
        assert!(began.elapsed() < Duration::from_secs(10), "the flush gives up");
        assert!(queue.shared.bytes.load(Relaxed) <= LOG_QUEUE_BYTES_MAX + LOG_QUEUE_BYTES_ERRORS);
        drop(queue);
        let mut text = String::new();
        reader.read_to_string(&mut text).expect("all of it");
        let written = text.lines().filter(|line| line.starts_with('x')).count();
        let dropped = text.lines().filter_map(|line| line.strip_prefix("dropped "));
        let dropped: usize = dropped.map(|count| count.parse::<usize>().expect("a number")).sum();
        assert!(dropped > lines / 2 && written + dropped == lines, "{written} {dropped} {lines}");
        assert!(text.contains("the end of it\n"), "errors find room");
    }

    #[test]
    fn a_file_that_was_moved_away_is_made_again() {
        let dir = tempfile::tempdir().expect("a directory");
        let (path, aside) = (dir.path().join("a.log"), dir.path().join("a.log.1"));
        let output = LogOutput::file(&path).expect("a file");
        let queue = LogQueue::start(LOG, vec![output], Box::new(|_| Vec::new())).expect("a thread");
        queue.push("before\n".to_owned(), false);
        queue.flush();
        std::fs::rename(&path, &aside).expect("it is moved");
        queue.push("between\n".to_owned(), false);
        reopen_logs();
        queue.push("after\n".to_owned(), false);
        queue.flush();
        let read = |path| std::fs::read_to_string(path).expect("it is there");
        assert_eq!((read(aside), read(path)), ("before\nbetween\n".into(), "after\n".into()));
    }
}
