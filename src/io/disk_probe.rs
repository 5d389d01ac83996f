//! Measures how long a disk takes to make writes durable, with a file that has no name: none is left behind, however
//! this ends.

use std::fs::File;
use std::io::{Error, Result};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::Duration;

use rustix::fs::{CWD, Mode, OFlags, openat, unlinkat};
use rustix::io::Errno;

use super::clock::Instant;
use super::system::random_u64;
use super::wal_file::Aligned;
use crate::types::limits::WAL_BLOCK_BYTES;

/// Writes of each kind, and the time for them if the disk is slow.
const WRITES_MAX: usize = 500;
const TIME_MAX: Duration = Duration::from_secs(2);
/// Blocks that are overwritten in turn.
const BLOCKS: usize = 256;

/// Times of durable writes of 4 KiB.
#[derive(Clone, Copy, Debug)]
pub struct DiskLatency {
    /// The file system takes direct I/O.
    pub is_direct: bool,
    /// Overwriting a block that was written before, as the log of a member does.
    pub log_write: LatencyQuantiles,
    /// Appending a block and `fdatasync`, as etcd does.
    pub append_sync: LatencyQuantiles,
}

/// Quantiles of so many.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LatencyQuantiles {
    /// How many were measured.
    pub count: usize,
    /// Median.
    pub p50: Duration,
    /// 99th percentile.
    pub p99: Duration,
}

impl LatencyQuantiles {
    fn new(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        let at = |part: usize| times.get((times.len() * part).div_ceil(100).max(1) - 1).copied();
        let quantile = |part| at(part).unwrap_or_default();
        Self { count: times.len(), p50: quantile(50), p99: quantile(99) }
    }
}

/// Measures in a directory. Takes some seconds on a slow disk. Blocks.
///
/// # Errors
/// The directory or the disk refuses it.
pub fn measure_disk(dir: &Path) -> Result<DiskLatency> {
    let mut block = Aligned::default();
    block.fill(&[0; WAL_BLOCK_BYTES]);
    let direct = open_unnamed(dir, OFlags::DIRECT | OFlags::DSYNC)
        .and_then(|file| file.write_all_at(block.filled(), 0).map(|()| file));
    let (is_direct, log) = match direct {
        Ok(file) => (true, file),
        // As the log: some file systems refuse to open, others only to write.
        Err(error) if is_refusal(&error) => (false, open_unnamed(dir, OFlags::DSYNC)?),
        Err(error) => return Err(error),
    };
    let place = |number: usize| (number * WAL_BLOCK_BYTES) as u64;
    // Written once before, so that the times are those of blocks that the file has.
    let mut zeros = Aligned::default();
    zeros.fill(&[0; WAL_BLOCK_BYTES * BLOCKS]);
    log.write_all_at(zeros.filled(), 0)?;
    let log_write = measure(|number| log.write_all_at(block.filled(), place(number % BLOCKS)))?;
    let file = open_unnamed(dir, OFlags::empty())?;
    let append_sync = measure(|number| {
        file.write_all_at(block.filled(), place(number))?;
        file.sync_data()
    })?;
    Ok(DiskLatency { is_direct, log_write, append_sync })
}

fn measure(mut write: impl FnMut(usize) -> Result<()>) -> Result<LatencyQuantiles> {
    let (began, mut times) = (Instant::now(), Vec::new());
    while times.len() < WRITES_MAX && began.elapsed() < TIME_MAX {
        let before = Instant::now();
        write(times.len())?;
        times.push(before.elapsed());
    }
    Ok(LatencyQuantiles::new(times))
}

fn is_refusal(error: &Error) -> bool {
    let refused = [Errno::INVAL, Errno::OPNOTSUPP].map(Errno::raw_os_error);
    error.raw_os_error().is_some_and(|number| refused.contains(&number))
}

/// A new file of this directory without a name.
fn open_unnamed(dir: &Path, flags: OFlags) -> Result<File> {
    let flags = flags | OFlags::RDWR | OFlags::CLOEXEC;
    let mode = Mode::RUSR | Mode::WUSR;
    match openat(CWD, dir, flags | OFlags::TMPFILE, mode) {
        Ok(file) => Ok(file.into()),
        // The file system has no such files: the name goes at once.
        Err(Errno::OPNOTSUPP | Errno::ISDIR) => {
            let path = dir.join(format!(".doctor-{:016x}", random_u64()));
            let file = openat(CWD, &path, flags | OFlags::CREATE | OFlags::EXCL, mode)?;
            unlinkat(CWD, &path, rustix::fs::AtFlags::empty())?;
            Ok(file.into())
        }
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_the_sorted_times() {
        let times = |numbers: &[u64]| numbers.iter().copied().map(Duration::from_millis).collect();
        let hundred: Vec<u64> = (1..=100).rev().collect();
        let LatencyQuantiles { count, p50, p99 } = LatencyQuantiles::new(times(&hundred));
        assert_eq!((count, p50.as_millis(), p99.as_millis()), (100, 50, 99));
        assert_eq!(LatencyQuantiles::new(times(&[7])).p99.as_millis(), 7);
        assert_eq!(LatencyQuantiles::new(Vec::new()).p50, Duration::ZERO);
    }

    #[test]
    fn nothing_is_left_behind() {
        let dir = tempfile::tempdir().expect("a directory");
        let latency = measure_disk(dir.path()).expect("it is measured");
        assert!(latency.log_write.count > 0 && latency.append_sync.p99 > Duration::ZERO);
        assert_eq!(std::fs::read_dir(dir.path()).expect("readable").count(), 0);
        assert!(measure_disk(&dir.path().join("missing")).is_err());
    }
}
