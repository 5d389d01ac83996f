//! The file of a snapshot, made on a thread of its own: reading and writing all there is takes long, and would
//! keep everybody on an executor waiting between any two steps of their requests.

use bytes::Bytes;

use super::pace::Pace;
use super::thread;
use crate::snapshot::{Export, Turn};
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
///
/// # Errors
/// The kernel has no thread left.
pub fn export<V: View + Send + 'static>(
    view: V,
    chunk: usize,
) -> Result<flume::Receiver<Result<Piece, Fault>>, Fault> {
    let mut export = Some(Export::new(view));
    let mut pace = Pace::new(SNAPSHOT_BYTES_PER_SECOND);
    thread::ahead("export", SNAPSHOT_CHUNKS_AHEAD, move || {
        let piece = next(export.as_mut()?, chunk).transpose();
        if let Some(Ok(piece)) = &piece {
            pace.keep(piece.bytes.len());
        }
        if !matches!(piece, Some(Ok(_))) {
            export = None;
        }
        piece
    })
}

/// The next piece; `None` after the last one.
fn next<V: View>(export: &mut Export<V>, chunk: usize) -> Result<Option<Piece>, Fault> {
    loop {
        match export.turn(chunk)? {
            Turn::Working => (),
            Turn::Chunk(bytes) => {
                let file_bytes = export.length().unwrap_or_default();
                return Ok(Some(Piece { bytes, file_bytes, held: export.held() }));
            }
            Turn::Done => return Ok(None),
        }
    }
}
