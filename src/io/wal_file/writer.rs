//! The thread that writes the log. Not io_uring: the kernel completes a direct write that must be durable in a worker
//! of its own, bound to the core that took the interrupt, where it waits for the executor that is pinned to that core,
//! up to 4 ms, twice per write. A plain write is completed by its thread, on whichever core is free: a fifth to a third
//! more puts per second on two cores.
//!
//! It also switches segments: a rename, an fsync of the directory, an open and a close each may wait for the disk as
//! long as many writes.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

use super::{name_segment, open_segment};
use crate::io::thread;
use crate::types::Fault;
use crate::types::limits::WAL_BLOCK_BYTES;

/// Nice value: it uses little CPU, and all writes wait for it, so on full cores it precedes the executors, where that
/// is allowed. A sixth more puts per second on two full cores, and half as many writes of more than 4 ms.
const NICE: i32 = -10;

/// A job; jobs run one after the other.
enum Job {
    /// Writes to the current segment.
    Write { at: u64, buffer: Aligned },
    /// Closes the current segment, and renames and opens the next one.
    Switch { spare: PathBuf, segment: PathBuf, flags: i32 },
}

/// Result of a job.
enum Done {
    Written(Aligned, io::Result<()>),
    UpgradedIo(Result<(), Fault>),
}

/// The file of the current segment. Belongs to the thread.
struct Segment(File);

impl Segment {
    fn run(&mut self, job: Job) -> Done {
        match job {
            Job::Write { at, buffer } => {
                let result = self.0.write_all_at(buffer.filled(), at);
                Done::Written(buffer, result)
            }
            Job::Switch { spare, segment, flags } => {
                let named = name_segment(&spare, &segment);
                let opened = named.and_then(|()| open_segment(&segment, flags));
                Done::UpgradedIo(opened.map(|file| self.0 = file))
            }
        }
    }
}

/// Memory aligned for direct I/O.
#[derive(Default)]
pub(in crate::io) struct Aligned {
    bytes: Vec<u8>,
    start: usize,
    length: usize,
}

impl Aligned {
    /// Copies bytes in; the previous content is lost.
    pub(in crate::io) fn fill(&mut self, with: &[u8]) {
        self.bytes.clear();
        self.bytes.resize(WAL_BLOCK_BYTES, 0);
        self.bytes.reserve(with.len());
        // The vector does not move after this.
        self.start = self.bytes.as_ptr().align_offset(WAL_BLOCK_BYTES);
        self.bytes.truncate(self.start);
        self.bytes.extend_from_slice(with);
        self.length = with.len();
    }

    /// The bytes of the last [`Aligned::fill`].
    pub(in crate::io) fn filled(&self) -> &[u8] {
        &self.bytes[self.start..self.start + self.length]
    }
}

/// The handle of the thread. When it is dropped, the thread ends after the current job.
pub(super) struct Writer {
    jobs: flume::Sender<Job>,
    done: flume::Receiver<Done>,
    buffer: Aligned,
}

fn gone() -> io::Error {
    io::Error::other("the thread that writes is gone")
}

impl Writer {
    /// Starts the thread, which writes to this segment.
    ///
    /// # Errors
    /// There is no thread left.
    pub(super) fn start(segment: File) -> Result<Self, Fault> {
        let (jobs, to_do) = flume::bounded::<Job>(1);
        let (report, done) = flume::bounded(1);
        let mut segment = Segment(segment);
        thread::start_nice("wal", NICE, move || {
            while let Ok(job) = to_do.recv() {
                if report.send(segment.run(job)).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self { jobs, done, buffer: Aligned::default() })
    }

    /// Writes all of `bytes` at an offset of the segment.
    ///
    /// # Errors
    /// The disk's error; the number of bytes written is unknown.
    pub(super) async fn write(&mut self, at: u64, bytes: &[u8]) -> io::Result<()> {
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.fill(bytes);
        match self.run(Job::Write { at, buffer }).await? {
            Done::Written(buffer, result) => {
                self.buffer = buffer;
                result
            }
            Done::UpgradedIo(_) => Err(gone()),
        }
    }

    /// Makes a preallocated file the next segment, to which all later writes go.
    ///
    /// # Errors
    /// The disk's error. The log must not be appended to any more.
    pub(super) async fn switch(
        &mut self,
        spare: PathBuf,
        segment: PathBuf,
        flags: i32,
    ) -> Result<(), Fault> {
        match self.run(Job::Switch { spare, segment, flags }).await {
            Ok(Done::UpgradedIo(outcome)) => outcome,
            Ok(Done::Written(..)) | Err(_) => Err(Fault::new(gone().to_string())),
        }
    }

    async fn run(&mut self, job: Job) -> io::Result<Done> {
        self.jobs.send_async(job).await.map_err(|_| gone())?;
        self.done.recv_async().await.map_err(|_| gone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filled_bytes_are_aligned() {
        let mut buffer = Aligned::default();
        for length in [1, 4096, 300_000, 0, 8192, 1_000_000, 4096] {
            let bytes: Vec<u8> = (0..length).map(|at| at as u8).collect();
            buffer.fill(&bytes);
            assert_eq!(buffer.filled(), bytes);
            assert_eq!(buffer.filled().as_ptr().align_offset(WAL_BLOCK_BYTES), 0);
        }
    }
}
