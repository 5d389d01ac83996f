//! The thread that writes the log. Not io_uring: the kernel ends a direct write that must be durable in a
//! worker of its own, bound to the core that took the interrupt, and there it waits for the executor that is
//! pinned to that core, up to 4 ms, twice per write. Whoever writes in the plain way ends the write itself, on
//! whichever core is free: a fifth to a third more puts per second on two cores.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use crate::io::thread;
use crate::types::Fault;
use crate::types::limits::WAL_BLOCK_BYTES;

/// It works little, and everyone waits for it: on full cores it goes before the executors, where that is allowed.
/// A sixth more puts per second on two full cores, and half as many writes of more than 4 ms.
const NICE: i32 = -10;

/// One write; the next is not begun before it ends.
struct Write {
    file: Arc<File>,
    at: u64,
    buffer: Aligned,
}

/// Bytes in memory as direct I/O wants them.
#[derive(Default)]
pub(super) struct Aligned {
    bytes: Vec<u8>,
    start: usize,
    length: usize,
}

impl Aligned {
    /// Takes in a copy; what was there before is gone.
    pub(super) fn fill(&mut self, with: &[u8]) {
        self.bytes.clear();
        self.bytes.resize(WAL_BLOCK_BYTES, 0);
        self.bytes.reserve(with.len());
        // Only now it stays where it is.
        self.start = self.bytes.as_ptr().align_offset(WAL_BLOCK_BYTES);
        self.bytes.truncate(self.start);
        self.bytes.extend_from_slice(with);
        self.length = with.len();
    }

    /// What was taken in last.
    pub(super) fn filled(&self) -> &[u8] {
        &self.bytes[self.start..self.start + self.length]
    }
}

/// Ends its thread when it is dropped, after the write that is under way.
pub(super) struct Writer {
    writes: flume::Sender<Write>,
    written: flume::Receiver<(Aligned, io::Result<()>)>,
    buffer: Aligned,
}

impl Writer {
    /// Starts the thread.
    ///
    /// # Errors
    /// There is none left.
    pub(super) fn start() -> Result<Self, Fault> {
        let (writes, to_write) = flume::bounded::<Write>(1);
        let (done, written) = flume::bounded(1);
        thread::start_nice("wal", NICE, move || {
            while let Ok(Write { file, at, buffer }) = to_write.recv() {
                let result = file.write_all_at(buffer.filled(), at);
                if done.send((buffer, result)).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self { writes, written, buffer: Aligned::default() })
    }

    /// Writes all of `bytes` at an offset of a file.
    ///
    /// # Errors
    /// The disk's; how much was written is not known.
    pub(super) async fn write(
        &mut self,
        file: &Arc<File>,
        at: u64,
        bytes: &[u8],
    ) -> io::Result<()> {
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.fill(bytes);
        let gone = |_| io::Error::other("the thread that writes is gone");
        let write = Write { file: Arc::clone(file), at, buffer };
        self.writes.send_async(write).await.map_err(|_| gone(flume::RecvError::Disconnected))?;
        let (buffer, result) = self.written.recv_async().await.map_err(gone)?;
        self.buffer = buffer;
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_filled_in_is_aligned_whatever_was_there() {
        let mut buffer = Aligned::default();
        for length in [1, 4096, 300_000, 0, 8192, 1_000_000, 4096] {
            let bytes: Vec<u8> = (0..length).map(|at| at as u8).collect();
            buffer.fill(&bytes);
            assert_eq!(buffer.filled(), bytes);
            assert_eq!(buffer.filled().as_ptr().align_offset(WAL_BLOCK_BYTES), 0);
        }
    }
}
