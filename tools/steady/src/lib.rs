//! Large files whose writeback begins while they grow.
//!
//! Written data stays in the kernel's page cache until a sync, and then all of it is written to the disk at
//! once. Any other writer to that disk waits behind it at that moment: a write-ahead log's 4 KiB behind 64 MiB of
//! another file, 20 ms on a fast disk. Here writeback begins early, piece by piece. (RocksDB has this as
//! `bytes_per_sync` and `strict_bytes_per_sync`.)

use std::fs::File;
use std::io::{Error, ErrorKind, Result, Write};
use std::os::fd::AsRawFd as _;

/// Bytes that are written back at once: a third of a millisecond of a fast disk. Longer pieces delay other writers
/// longer, shorter ones are no faster.
const PIECE_BYTES: u64 = 512 << 10;

/// A new file that is written from front to back. At most two pieces of it are not on the disk yet, apart from the
/// file system's metadata: [`File::sync_all`] makes it durable.
#[derive(Debug)]
pub struct WritebackFile {
    file: File,
    written: u64,
    begun: u64,
}

impl WritebackFile {
    /// Continues with an empty file.
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

/// Starts writeback of a file's dirty pages, and does not wait for it. Best effort: durability
/// comes from the later sync.
pub fn begin(file: &File) {
    // A disk error is returned by the later sync as well, which uses a descriptor of its own.
    let _ = sync_range(file, 0, 0, libc::SYNC_FILE_RANGE_WRITE);
}

/// From `from` to `to`, or to the end if that is 0.
#[allow(unsafe_code, reason = "neither std nor rustix has this call")]
fn sync_range(file: &File, from: u64, to: u64, flags: libc::c_uint) -> Result<()> {
    let (at, length) = (from as libc::off64_t, to.saturating_sub(from) as libc::off64_t);
    // SAFETY: the descriptor is open during the call, which touches no memory of ours.
    let done = unsafe { libc::sync_file_range(file.as_raw_fd(), at, length, flags) };
    let error = if done == 0 { return Ok(()) } else { Error::last_os_error() };
    // Not a regular file, or a file system without support.
    let cannot = [ErrorKind::InvalidInput, ErrorKind::NotSeekable, ErrorKind::Unsupported];
    if cannot.contains(&error.kind()) { Ok(()) } else { Err(error) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_bytes_are_there_for_all_write_sizes() {
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
    fn files_without_writeback_support_are_written_too() {
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
