//! Placeholder of the hub actor.
use crate::mvcc::Event;
use std::sync::Arc;
/// x
#[derive(Clone)]
pub struct Handle;
impl Handle {
    /// x
    pub fn events(&self, _events: &Arc<[Event]>, _revision: i64, _compacted: i64) {}
}
