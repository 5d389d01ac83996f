//! The file of a snapshot, made on a thread of its own: reading and writing all there is takes long, and would
//! keep everybody on an executor waiting between any two steps of their requests.

use std::task::{Poll, ready};

use bytes::Bytes;

use super::rate_limiter::RateLimiter;
use super::thread;
use crate::snapshot::{Export, ExportStep};
use crate::store::View;
use crate::types::Fault;
use crate::types::limits::{SNAPSHOT_BYTES_PER_SECOND, SNAPSHOT_CHUNKS_AHEAD};

/// A part of the file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Piece {
    /// Its bytes.
    pub bytes: Bytes,
    /// How many bytes the whole file has.
    pub file_bytes: u64,
    /// Bytes that were made and are not in this or an earlier piece.
    pub held: usize,
}

/// Begins to make the file of a view, in pieces of `chunk` bytes, [`SNAPSHOT_CHUNKS_AHEAD`] of them ahead of who
/// takes them, and [`SNAPSHOT_BYTES_PER_SECOND`] at most. After the last one, or a fault of the store, the channel is at its end.
/// The thread ends, and lets go of the view, as soon as the receiver is gone.
///
/// # Errors
/// The kernel has no thread left.
pub fn export<V: View + Send + 'static>(
    view: V,
    chunk: usize,
) -> Result<flume::Receiver<Result<Piece, Fault>>, Fault> {
    let mut export = Some(Export::new(view));
    let mut limiter = RateLimiter::new(SNAPSHOT_BYTES_PER_SECOND);
    thread::ahead("export", SNAPSHOT_CHUNKS_AHEAD, move || {
        let Some(running) = &mut export else { return Poll::Ready(None) };
        let piece = ready!(step(running, chunk));
        match &piece {
            Some(Ok(piece)) => limiter.keep(piece.bytes.len()),
            Some(Err(_)) | None => export = None,
        }
        Poll::Ready(piece)
    })
}

/// Works on for a while: the next piece, `None` after the last one, or none yet.
fn step<V: View>(export: &mut Export<V>, chunk: usize) -> Poll<Option<Result<Piece, Fault>>> {
    Poll::Ready(match export.step(chunk) {
        Ok(ExportStep::Working) => return Poll::Pending,
        Ok(ExportStep::Chunk(bytes)) => {
            let file_bytes = export.length().unwrap_or_default();
            Some(Ok(Piece { bytes, file_bytes, held: export.held() }))
        }
        Ok(ExportStep::Done) => None,
        Err(fault) => Some(Err(fault)),
    })
}
