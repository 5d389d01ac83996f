//! Unknown members that dialed this one: messages to them wait for their connection.

use std::collections::BTreeMap;

use arc_swap::ArcSwap;

use super::link::Packet;
use crate::replica::admits_guest;
use crate::types::MemberId;
use crate::types::limits::PEER_URGENT_MAX;

/// Their queues.
#[derive(Default)]
pub(super) struct Guests(ArcSwap<BTreeMap<MemberId, flume::Sender<Packet>>>);

impl Guests {
    /// Sends if the member is a guest and its queue has capacity.
    pub(super) fn send(&self, to: MemberId, packet: Packet) {
        if let Some(guest) = self.0.load().get(&to) {
            drop(guest.try_send(packet));
        }
    }

    /// The queue of messages to a new guest. `None` if there are too many guests.
    pub(super) fn receive(&self, member: MemberId) -> Option<flume::Receiver<Packet>> {
        let mut guests = self.0.load_full().as_ref().clone();
        guests.retain(|_, queue| !queue.is_disconnected());
        if !admits_guest(guests.len(), guests.contains_key(&member)) {
            return None;
        }
        let (queue, packets) = flume::bounded(PEER_URGENT_MAX);
        guests.insert(member, queue);
        self.0.store(std::sync::Arc::new(guests));
        Some(packets)
    }
}
