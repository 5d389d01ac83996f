//! Connection state of another member, and the queues to it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use arc_swap::ArcSwap;
use bytes::Bytes;

use super::stated::Stated;
use crate::cluster::Member;
use crate::metrics;
use crate::replica::fits_bulk;
use crate::types::MemberId;

/// A frame to send: its own header, and the part that may be shared with frames to other members.
pub struct Packet(pub Bytes, pub Bytes);

impl Packet {
    /// Bytes of both parts.
    pub fn bytes(&self) -> usize {
        self.0.len() + self.1.len()
    }
}

/// Connection state of another member.
pub struct Link {
    /// The other member.
    pub id: MemberId,
    /// Its peer URLs.
    pub urls: ArcSwap<Vec<String>>,
    /// Time since which it is connected, in ms; 0 if it is not.
    pub active_since_ms: AtomicU64,
    /// True if the bulk lane is connected.
    pub takes_bulk: AtomicBool,
    /// Bytes in the queue of the bulk lane.
    pub bulk_bytes: AtomicUsize,
    /// Traffic since the start of this member.
    pub counts: Counts,
    /// True if a snapshot is being sent to it.
    pub transferring: AtomicBool,
    /// The feature level in the hello of its newest urgent connection.
    pub stated: Stated,
}

/// Traffic counters since the start of this member.
#[derive(Default)]
pub struct Counts {
    /// Bytes written to its connections.
    pub sent_bytes: AtomicU64,
    /// Messages that could not be sent.
    pub sent_failures: AtomicU64,
    /// Bytes received from it.
    pub received_bytes: AtomicU64,
    /// Connections that ended.
    pub disconnects: AtomicU64,
}

impl Link {
    /// A member that is not connected yet.
    pub(super) fn new(member: &Member) -> Self {
        Self {
            id: member.id,
            urls: ArcSwap::from_pointee(member.peer_urls.clone()),
            active_since_ms: AtomicU64::new(0),
            takes_bulk: AtomicBool::new(false),
            bulk_bytes: AtomicUsize::new(0),
            counts: Counts::default(),
            transferring: AtomicBool::new(false),
            stated: Stated::default(),
        }
    }

    pub(super) fn is_active(&self) -> bool {
        self.active_since_ms.load(Ordering::Relaxed) > 0
    }
}

/// Another member, and its queues.
#[derive(Clone)]
pub(super) struct Peer {
    pub(super) link: Arc<Link>,
    pub(super) urgent: flume::Sender<Packet>,
    pub(super) bulk: flume::Sender<Packet>,
    /// Bytes that may wait in it.
    pub(super) bulk_bytes_max: usize,
}

impl Peer {
    pub(super) fn send_bulk(&self, packet: Packet) -> bool {
        let bytes = packet.bytes();
        let waiting = self.link.bulk_bytes.fetch_add(bytes, Ordering::Relaxed);
        let sent =
            fits_bulk(waiting, bytes, self.bulk_bytes_max) && self.bulk.try_send(packet).is_ok();
        if !sent {
            self.link.bulk_bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
        sent
    }

    /// Its traffic, for metrics.
    pub(super) fn counts(&self) -> metrics::Peer {
        let counts = &self.link.counts;
        metrics::Peer {
            id: self.link.id,
            active: self.link.is_active(),
            disconnects: counts.disconnects.load(Ordering::Relaxed),
            sent_bytes: counts.sent_bytes.load(Ordering::Relaxed),
            sent_failures: counts.sent_failures.load(Ordering::Relaxed),
            received_bytes: counts.received_bytes.load(Ordering::Relaxed),
        }
    }
}
