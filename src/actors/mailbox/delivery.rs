//! Answers from apply to the executors whose sessions asked.

use crate::machine::Reply;
use crate::types::Refusal;

/// What apply answers to one executor after one batch.
#[derive(Default)]
pub struct Delivery {
    /// Request ids and what came of them.
    pub replies: Vec<(u64, Result<Reply, Refusal>)>,
    /// Read rounds that may go on now.
    pub reads: Vec<u64>,
}

impl Delivery {
    /// Whether there is nothing to deliver.
    pub fn is_empty(&self) -> bool {
        self.replies.is_empty() && self.reads.is_empty()
    }
}

/// Which executor a request id belongs to, if it is one of this boot's.
///
/// ```text
///  63        32 31    24 23        0
///  boot nonce   executor counter
/// ```
/// The nonce differs between members and starts, so that a replayed entry never answers a stranger.
pub fn executor_of(id: u64, boot_nonce: u32) -> Option<usize> {
    ((id >> 32) as u32 == boot_nonce).then_some((id >> 24) as usize & 0xff)
}
