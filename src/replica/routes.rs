//! Routing of messages to other members, and bounds of their queues.

use crate::consensus::Message;
use crate::consensus::wire::{Priority, is_proposal, priority};
use crate::types::limits::PEER_GUESTS_MAX;

/// The route of a message to another member.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Route {
    /// Defer its proposals, which raft does not send again.
    GiveBack,
    /// Queue it for the connection that an unknown member dialed.
    Guest,
    /// Send it with the state.
    Snapshot,
    /// Queue it for the urgent connection.
    Urgent,
    /// Queue it for the bulk connection: an append or forwarded proposals.
    Bulk,
    /// Drop it: raft sends it again.
    Drop,
}

/// The route to a member that is known or not, and has a connection for [`Route::Bulk`] or not.
pub fn route(message: &Message, is_known: bool, takes_bulk: bool) -> Route {
    let priority = priority(message);
    match (is_known, priority) {
        _ if is_proposal(message) && !(is_known && takes_bulk) => Route::GiveBack,
        (true, Priority::Urgent) => Route::Urgent,
        (true, Priority::Bulk) => Route::Bulk,
        (true, Priority::Snapshot) => Route::Snapshot,
        (false, Priority::Urgent) => Route::Guest,
        (false, Priority::Bulk | Priority::Snapshot) => Route::Drop,
    }
}

/// True if so many bytes fit behind those in a member's queue of `bytes_max`. One packet always fits.
pub fn fits_bulk(waiting_bytes: usize, bytes: usize, bytes_max: usize) -> bool {
    waiting_bytes == 0 || waiting_bytes + bytes <= bytes_max
}

/// True if messages to an unknown member may be queued for the connection that it dialed, beside so many other guests.
pub fn admits_guest(guests: usize, is_guest: bool) -> bool {
    is_guest || guests < PEER_GUESTS_MAX
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::consensus::MessageType;

    fn message(kind: MessageType) -> Message {
        let mut message = Message::default();
        message.set_msg_type(kind);
        message
    }

    #[test]
    fn proposals_are_kept_for_whom_there_is_no_connection() {
        let proposal = message(MessageType::MsgPropose);
        assert_eq!(route(&proposal, true, true), Route::Bulk);
        assert_eq!(route(&proposal, true, false), Route::GiveBack);
        assert_eq!(route(&proposal, false, false), Route::GiveBack);
    }

    #[test]
    fn small_messages_alone_reach_a_member_that_is_not_known() {
        for (kind, known, unknown) in [
            (MessageType::MsgHeartbeat, Route::Urgent, Route::Guest),
            (MessageType::MsgRequestVote, Route::Urgent, Route::Guest),
            (MessageType::MsgAppend, Route::Bulk, Route::Drop),
            (MessageType::MsgSnapshot, Route::Snapshot, Route::Drop),
        ] {
            let message = message(kind);
            assert_eq!(
                (route(&message, true, false), route(&message, false, false)),
                (known, unknown)
            );
        }
    }

    #[test]
    fn queues_are_bounded_but_for_one_packet() {
        assert!(fits_bulk(0, 101, 100));
        assert!(fits_bulk(1, 99, 100) && !fits_bulk(1, 100, 100));
        assert!(admits_guest(PEER_GUESTS_MAX - 1, false) && !admits_guest(PEER_GUESTS_MAX, false));
        assert!(admits_guest(PEER_GUESTS_MAX, true));
    }
}
