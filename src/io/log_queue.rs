//! The queue of log lines: a thread writes them, so that a full pipe or a slow disk stops no executor.
//!
//! The queue is bounded in bytes. Lines that do not fit are dropped and counted, and the thread logs their number when
//! there is room again. The end of the process flushes the queue first.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use super::journal::Journal;
use super::rotated_file::RotatedFile;
use super::thread;
use crate::metrics;
use crate::types::Fault;
use crate::types::limits::{LOG_QUEUE_BYTES_ERRORS, LOG_QUEUE_BYTES_MAX};

/// Bytes joined into one write.
const WRITE_BYTES: usize = 64 << 10;
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
    /// The time between two looks at the queue while lines come: a thread that is woken for each of many lines costs more than
    /// the line. Zero writes each at once.
    pub gather: Duration,
}

/// The log of the process.
const LOG: LogKind = LogKind {
    name: "log",
    bytes_max: LOG_QUEUE_BYTES_MAX,
    bytes_errors: LOG_QUEUE_BYTES_ERRORS,
    dropped: &metrics::LOG_LINES_DROPPED,
    gather: Duration::ZERO,
};

/// Source of lines about the log itself; its argument is the number of lines dropped since the last call.
pub type Reports = Box<dyn FnMut(u64) -> Vec<String> + Send>;

#[derive(Debug)]
enum Item {
    /// Whole lines, up to the capacity that the buffer was made with.
    Lines(Vec<u8>),
    /// Files are opened again.
    Reopen,
    /// Answered when everything before it is written.
    Flush(flume::Sender<()>),
}

/// The queue. Shared by reference; its thread ends with it.
#[derive(Debug)]
pub struct LogQueue {
    kind: LogKind,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    /// Wakes the thread.
    came: Condvar,
    /// Dropped lines that were not reported yet.
    dropped: AtomicU64,
}

/// State of the queue. Lines are copied into a buffer, which costs less than a message and a wake of the thread for each.
#[derive(Debug, Default)]
struct Waiting {
    items: Vec<Item>,
    /// A buffer that was written, for the next lines.
    spare: Vec<u8>,
    /// Bytes of lines in the queue, and of those that are being written.
    bytes: usize,
    /// The thread waits to be woken.
    is_idle: bool,
    /// The queue was dropped.
    is_closed: bool,
}

impl Waiting {
    fn append(&mut self, line: &[u8]) {
        self.bytes += line.len();
        match self.items.last_mut() {
            Some(Item::Lines(lines)) if lines.len() + line.len() <= lines.capacity() => {
                lines.extend_from_slice(line);
            }
            _ => {
                let mut lines = std::mem::take(&mut self.spare);
                lines.reserve_exact(WRITE_BYTES.max(line.len()));
                lines.extend_from_slice(line);
                self.items.push(Item::Lines(lines));
            }
        }
    }
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
        let shared = Arc::<Shared>::default();
        let writes = Arc::clone(&shared);
        thread::start(kind.name, move || write_all(&writes, kind.gather, &mut outputs, reports))?;
        lock(&QUEUES).push(Arc::downgrade(&shared));
        Ok(Self { kind, shared })
    }

    /// Queues a line, which ends with a line feed; drops it if there is no room. Errors have additional room.
    pub fn push(&self, line: &[u8], is_error: bool) {
        if !self.try_push(line, is_error) {
            self.shared.dropped.fetch_add(1, Relaxed);
            self.kind.dropped.add(1);
        }
    }

    /// Queues a line as [`LogQueue::push`] does; false if there is no room for it.
    pub fn try_push(&self, line: &[u8], is_error: bool) -> bool {
        let max = self.kind.bytes_max + if is_error { self.kind.bytes_errors } else { 0 };
        let mut waiting = lock(&self.shared.waiting);
        let fits = waiting.bytes + line.len() <= max;
        if fits {
            waiting.append(line);
            self.shared.wake(waiting);
        }
        fits
    }

    /// Waits until the queue is written, a second at most. Blocks.
    pub fn flush(&self) {
        let (done, flushed) = flume::bounded(1);
        self.shared.push(Item::Flush(done));
        let _ = flushed.recv_timeout(FLUSH_MAX);
    }
}

impl Drop for LogQueue {
    fn drop(&mut self) {
        let mut waiting = lock(&self.shared.waiting);
        waiting.is_closed = true;
        self.shared.wake(waiting);
    }
}

impl Shared {
    fn push(&self, item: Item) {
        let mut waiting = lock(&self.waiting);
        waiting.items.push(item);
        self.wake(waiting);
    }

    /// Wakes the thread if it waits.
    fn wake(&self, mut waiting: MutexGuard<'_, Waiting>) {
        let is_idle = std::mem::take(&mut waiting.is_idle);
        drop(waiting);
        if is_idle {
            self.came.notify_one();
        }
    }

    /// All items of the queue, once there are any or a report is due; `None` when the queue was dropped.
    fn take(&self) -> Option<Vec<Item>> {
        let mut waiting = lock(&self.waiting);
        if waiting.items.is_empty() && !waiting.is_closed {
            waiting.is_idle = true;
            let woken = self.came.wait_timeout_while(waiting, REPORTS, |it| it.is_idle);
            waiting = woken.unwrap_or_else(PoisonError::into_inner).0;
            waiting.is_idle = false;
        }
        let items = std::mem::take(&mut waiting.items);
        (!items.is_empty() || !waiting.is_closed).then_some(items)
    }

    fn written(&self, mut lines: Vec<u8>) {
        let mut waiting = lock(&self.waiting);
        waiting.bytes -= lines.len();
        if lines.capacity() == WRITE_BYTES {
            lines.clear();
            waiting.spare = lines;
        }
    }
}

/// The thread's loop, until the queue is dropped and its lines are written.
#[allow(clippy::disallowed_methods, reason = "the thread is the queue's own")]
fn write_all(shared: &Shared, gather: Duration, outputs: &mut [LogOutput], mut reports: Reports) {
    while let Some(items) = shared.take() {
        let wrote = !items.is_empty();
        for item in items {
            match item {
                Item::Lines(lines) => {
                    outputs.iter_mut().for_each(|output| output.write(&lines));
                    shared.written(lines);
                }
                Item::Reopen => outputs.iter_mut().for_each(LogOutput::reopen),
                Item::Flush(done) => drop(done.send(())),
            }
        }
        let report = reports(shared.dropped.swap(0, Relaxed)).concat();
        if !report.is_empty() {
            outputs.iter_mut().for_each(|output| output.write(report.as_bytes()));
        }
        if wrote && !gather.is_zero() {
            std::thread::sleep(gather);
        }
    }
}

static QUEUE: OnceLock<LogQueue> = OnceLock::new();

/// All queues, for [`reopen_logs`]: one or two for a process.
static QUEUES: Mutex<Vec<Weak<Shared>>> = Mutex::new(Vec::new());

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Has all files of logs opened by their names again, once what was queued before is written: another program has moved them
/// away.
pub fn reopen_logs() {
    let mut queues = lock(&QUEUES);
    queues.retain(|queue| queue.upgrade().map(|queue| queue.push(Item::Reopen)).is_some());
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
        (0..lines).for_each(|_| queue.push(line.as_bytes(), false));
        queue.push(b"the end of it\n", true);
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
        queue.flush();
        assert!(began.elapsed() < Duration::from_secs(10), "the flush gives up");
        assert!(lock(&queue.shared.waiting).bytes <= LOG_QUEUE_BYTES_MAX + LOG_QUEUE_BYTES_ERRORS);
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
        queue.push(b"before\n", false);
        queue.flush();
        std::fs::rename(&path, &aside).expect("it is moved");
        queue.push(b"between\n", false);
        reopen_logs();
        queue.push(b"after\n", false);
        queue.flush();
        let read = |path| std::fs::read_to_string(path).expect("it is there");
        assert_eq!((read(aside), read(path)), ("before\nbetween\n".into(), "after\n".into()));
    }
}
