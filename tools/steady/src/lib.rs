//! Large files that go to the disk while they grow.
//!
//! What is written to a file stays with the kernel until somebody syncs it, and then all of it goes to the disk at
//! once. Whoever writes to that disk at that moment waits behind it: a write-ahead log's 4 KiB behind 64 MiB of
//! somebody else's, 20 ms on a fast disk. Here the kernel begins early, piece by piece. (RocksDB has this as
//! `bytes_per_sync` and `strict_bytes_per_sync`.)

use std::fs::File;
use std::io::{Error, ErrorKind, Result, Write};
use std::os::fd::AsRawFd as _;

/// Bytes that are handed to the disk at once: a third of a millisecond of a fast one. Longer pieces make others wait
/// longer, shorter ones are no faster.
const PIECE_BYTES: u64 = 512 << 10;

/// A new file that is written from front to back. At most two pieces of it are not on the disk yet, but for what the
/// file system keeps about it: [`File::sync_all`] makes it durable.
#[derive(Debug)]
pub struct WritebackFile {
    file: File,
    written: u64,
    begun: u64,
}

impl WritebackFile {
    /// Goes on with an empty file.
    pub fn new(file: File) -> Self {
        Self { file, written: 0, begun: 0 }
    }

    /// The file itself.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Begins to write the last piece, and waits for the one before it.
    fn hand_over(&mut self) -> Result<()> {
        let before = self.begun.saturating_sub(PIECE_BYTES);
        sync_range(&self.file, self.begun, self.written, libc::SYNC_FILE_RANGE_WRITE)?;
        let wait = libc::SYNC_FILE_RANGE_WAIT_BEFORE
            | libc::SYNC_FILE_RANGE_WRITE
            | libc::SYNC_FILE_RANGE_WAIT_AFTER;
        if before < self.begun {
            sync_range(&self.file, before, self.begun, wait)?;
        }
        self.begun = self.written;
        Ok(())
    }
}

impl Write for WritebackFile {
    /// Writes up to the end of a piece. Blocks while the disk is behind.
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        let room = (self.begun + PIECE_BYTES - self.written) as usize;
        let written = self.file.write(&bytes[..bytes.len().min(room)])?;
        self.written += written as u64;
        if self.written == self.begun + PIECE_BYTES {
            self.hand_over()?;
        }
        Ok(written)
    }

    fn flush(&mut self) -> Result<()> {
        self.file.flush()
    }
}

/// Lets the kernel begin to write what is in a file and not on the disk, and waits for nothing. Best effort: what
/// counts is the sync that comes later.
pub fn begin(file: &File) {
    // A mistake of the disk's is told to the one who syncs, through a descriptor of his own.
    let _ = sync_range(file, 0, 0, libc::SYNC_FILE_RANGE_WRITE);
}

/// From `from` to `to`, or to the end if that is 0.
#[allow(unsafe_code, reason = "neither std nor rustix has this call")]
fn sync_range(file: &File, from: u64, to: u64, flags: libc::c_uint) -> Result<()> {
    let (at, length) = (from as libc::off64_t, to.saturating_sub(from) as libc::off64_t);
    // SAFETY: the descriptor is open during the call, which touches no memory of ours.
    let done = unsafe { libc::sync_file_range(file.as_raw_fd(), at, length, flags) };
    let error = if done == 0 { return Ok(()) } else { Error::last_os_error() };
    // Not a file of a disk, or a file system that cannot.
    let cannot = [ErrorKind::InvalidInput, ErrorKind::NotSeekable, ErrorKind::Unsupported];
    if cannot.contains(&error.kind()) { Ok(()) } else { Err(error) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_there_however_it_comes() {
        let path = std::env::temp_dir().join(format!("steady-{}", std::process::id()));
        let bytes: Vec<u8> = (0..3 * PIECE_BYTES + 1000).map(|at| (at % 251) as u8).collect();
        for size in [1000, PIECE_BYTES as usize, bytes.len()] {
            let mut steady = WritebackFile::new(File::create(&path).expect("a file"));
            for piece in bytes.chunks(size) {
                steady.write_all(piece).expect("written");
                assert!(steady.written - steady.begun < PIECE_BYTES);
            }
            assert_eq!(steady.begun, 3 * PIECE_BYTES);
            steady.file().sync_all().expect("synced");
            assert_eq!(std::fs::read(&path).expect("read"), bytes, "in pieces of {size}");
        }
        std::fs::remove_file(&path).expect("removed");
    }

    #[test]
    fn what_is_no_file_of_a_disk_is_written_too() {
        let (mut ours, mut theirs) = std::io::pipe().expect("a pipe");
        let reader = std::thread::spawn(move || {
            let mut bytes = Vec::new();
            std::io::Read::read_to_end(&mut ours, &mut bytes).map(|_| bytes.len())
        });
        theirs.flush().expect("flushed");
        let mut steady = WritebackFile::new(File::from(std::os::fd::OwnedFd::from(theirs)));
        steady.write_all(&vec![7; 2 * PIECE_BYTES as usize]).expect("written");
        drop(steady);
        assert_eq!(reader.join().expect("a reader").expect("read"), 2 * PIECE_BYTES as usize);
    }
}
