//! Placeholder of the hub actor.
use crate::mvcc::Event;
use std::sync::Arc;
/// x
#[derive(Clone)]
pub struct Handle;
/// x
pub struct Inbox;
/// x
pub fn mailbox() -> (Handle, Inbox) {
    (Handle, Inbox)
}
/// x
pub async fn run(_inbox: Inbox, _state: impl Fn() -> Arc<super::State>) {}
impl Handle {
    /// x
    pub fn events(&self, _events: &Arc<[Event]>, _revision: i64, _compacted: i64) {}
}
