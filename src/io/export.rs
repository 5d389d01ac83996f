//! The file of a snapshot, made in the pool for exports: reading and writing all there is takes long, and would keep
//! everybody on an executor waiting between any two steps of their requests.
//!
//! ```text
//!  executor ─ slice of work ─► pool ─ pieces ─► paced ─► at most so many ahead ─► whoever sends them
//!     └──────────────── again, as soon as these are taken ◄──────────────┘
//! ```
//!
//! A thread of the pool is busy for a slice at a time and never waits for who takes the pieces: one slow client delays no
//! other snapshot.

use bytes::Bytes;

use super::clock;
use super::executor::spawn;
use super::pools::{Pool, slice};
use super::rate_limiter::RateLimiter;
use crate::snapshot::{Export, ExportStep, Scope};
use crate::store::View;
use crate::types::Fault;
use crate::types::limits::{SNAPSHOT_BYTES_PER_SECOND, SNAPSHOT_CHUNKS_AHEAD};

/// A part of the file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Piece {
    /// Its bytes.
    pub bytes: Bytes,
    /// Size of the whole file in bytes.
    pub file_bytes: u64,
    /// Bytes that were made and are not in this or an earlier piece.
    pub held: usize,
}

/// A piece, or the fault that prevented it.
type Made = Result<Piece, Fault>;

/// Begins to make the file of a view, in pieces of `chunk` bytes, [`SNAPSHOT_CHUNKS_AHEAD`] of them ahead of the caller that
/// takes them, and [`SNAPSHOT_BYTES_PER_SECOND`] at most. After the last one, or a fault of the store, the channel is at its end.
/// The view is let go as soon as the receiver is gone. To be called on an executor.
pub fn export<V: View + Send + 'static>(
    view: V,
    scope: Scope,
    chunk: usize,
) -> flume::Receiver<Made> {
    let (made, taken) = flume::bounded(SNAPSHOT_CHUNKS_AHEAD);
    spawn(async move {
        let mut work = Some(Work { export: Export::new(view, scope), pieces: Vec::new() });
        let mut limiter = RateLimiter::new(SNAPSHOT_BYTES_PER_SECOND);
        while let Some(mut working) = work.take() {
            if made.is_disconnected() {
                return;
            }
            let (done, mut working) =
                Pool::Exports.run_if_wanted(move || (working.work(chunk), working)).await;
            for piece in working.pieces.drain(..) {
                let bytes = piece.as_ref().map_or(0, |piece| piece.bytes.len());
                if let Some(wait) = limiter.wait(bytes) {
                    clock::sleep(wait).await;
                }
                if made.send_async(piece).await.is_err() {
                    return;
                }
            }
            work = (!done).then_some(working);
        }
    });
    taken
}

struct Work<V> {
    export: Export<V>,
    /// Made and not yet handed over.
    pieces: Vec<Made>,
}

impl<V: View> Work<V> {
    /// Works for a slice, or until enough pieces are made; whether the file is whole, or cannot be made.
    fn work(&mut self, chunk: usize) -> bool {
        slice(|| match self.export.step(chunk) {
            Ok(ExportStep::Working) => None,
            Ok(ExportStep::Chunk(bytes)) => {
                let file_bytes = self.export.length().unwrap_or_default();
                self.pieces.push(Ok(Piece { bytes, file_bytes, held: self.export.held() }));
                (self.pieces.len() >= SNAPSHOT_CHUNKS_AHEAD).then_some(false)
            }
            Ok(ExportStep::Done) => Some(true),
            Err(fault) => {
                self.pieces.push(Err(fault));
                Some(true)
            }
        })
        .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::io::{Executors, Place};
    use crate::store::{Batch, Engine as _, Memory, MemoryView, Pair, Space};

    /// A store of which it is known whether it is still read.
    struct Watched(MemoryView, #[expect(dead_code, reason = "counts readers")] Arc<()>);

    impl View for Watched {
        fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, Fault> {
            self.0.get(space, key)
        }

        fn scan<'a>(
            &'a self,
            space: Space,
            from: std::ops::Bound<&[u8]>,
            to: std::ops::Bound<&[u8]>,
        ) -> impl DoubleEndedIterator<Item = Result<Pair, Fault>> + 'a {
            self.0.scan(space, from, to)
        }
    }

    fn store() -> Memory {
        let mut store = Memory::default();
        let write = |number: u32| {
            let key = Bytes::from(number.to_be_bytes().to_vec());
            (Space::Lease, key, Some(Bytes::from(vec![7; 1000])))
        };
        store.commit(Batch { writes: (0..500).map(write).collect() }).expect("in memory");
        store
    }

    #[test]
    fn clients_that_take_nothing_delay_no_other_and_hold_nothing_when_they_are_gone() {
        let readers = Arc::new(());
        let watched = Arc::clone(&readers);
        let run = async move || {
            let view = || Watched(store().view(), Arc::clone(&watched));
            // More than the pool has threads.
            let idle: Vec<_> = (0..8).map(|_| export(view(), Scope::Member, 4096)).collect();
            let pieces = export(view(), Scope::Member, 4096);
            let mut bytes = Vec::new();
            let mut length = 0;
            while let Ok(piece) = pieces.recv_async().await {
                let piece = piece?;
                bytes.extend_from_slice(&piece.bytes);
                length = piece.file_bytes;
            }
            assert!(length > 500_000 && bytes.len() as u64 == length, "{length}");
            drop((idle, pieces));
            while Arc::strong_count(&watched) > 1 + 1 {
                clock::sleep(std::time::Duration::from_millis(1)).await;
            }
            Ok(())
        };
        let mut executors = Executors::default();
        executors.start(Place::default(), run).expect("an executor");
        executors.watch();
        executors.join().expect("it goes well");
        assert_eq!(Arc::strong_count(&readers), 1);
    }
}
