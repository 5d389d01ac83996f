//! The queues to other members, and what is known of each. A question waits for the other member's answer; nothing else
//! here waits for another member: what does not fit into a queue is dropped and raft is told that the member cannot be
//! reached.

mod stated;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;

use self::stated::Stated;
use super::consensus;
use crate::cluster::{Cluster, Member};
use crate::consensus::Message;
use crate::consensus::wire::{Encoder, Priority, is_proposal, priority};
use crate::io::clock;
use crate::metrics;
use crate::peer::{Answer, Kind, PeerRequest, encode};
use crate::types::limits::{
    PEER_BULK_BYTES_MAX, PEER_BULK_MAX, PEER_GUESTS_MAX, PEER_QUESTIONS_MAX, PEER_URGENT_MAX,
};
use crate::types::{FeatureLevel, MemberId, Refusal};

/// Who this member is to others.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The cluster.
    pub cluster: u64,
    /// The member.
    pub member: MemberId,
    /// Where it is reached.
    pub urls: Vec<String>,
    /// How long others may take.
    pub times: Times,
    /// Where snapshots are put together.
    pub member_dir: PathBuf,
    /// What a state machine is opened with.
    pub machine: crate::machine::Config,
}

/// How long other members may take.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// To take a connection: an election timeout, from one to five seconds. What was dialed while the network dropped
    /// packets is dialed anew soon after it does not any more.
    pub dial: Duration,
    /// To send a byte: `--raft-read-timeout`.
    pub read: Duration,
    /// To take one, and to acknowledge it: `--raft-write-timeout`.
    pub write: Duration,
}

/// A frame to send: its beginning, and what may be shared with frames to others.
pub struct Packet(pub Bytes, pub Bytes);

impl Packet {
    /// Bytes of both.
    pub fn bytes(&self) -> usize {
        self.0.len() + self.1.len()
    }
}

/// What is known of another member's reach.
pub struct Link {
    /// The other member.
    pub id: MemberId,
    /// Where it is reached.
    pub urls: ArcSwap<Vec<String>>,
    /// Since when it is connected, in ms; 0 if it is not.
    pub active_since_ms: AtomicU64,
    /// Whether appends and proposals have a connection.
    pub takes_bulk: AtomicBool,
    /// Bytes that wait in the bulk lane.
    pub bulk_bytes: AtomicUsize,
    /// Since this member began.
    pub counts: Counts,
    /// Whether a snapshot is being sent to it.
    pub transferring: AtomicBool,
    /// The feature level in the hello of its newest urgent connection.
    pub stated: Stated,
}

/// Since this member began.
#[derive(Default)]
pub struct Counts {
    /// Bytes that were written to its connections.
    pub sent_bytes: AtomicU64,
    /// Messages that could not be sent.
    pub sent_failures: AtomicU64,
    /// Bytes that came from it.
    pub received_bytes: AtomicU64,
    /// Connections that ended.
    pub disconnects: AtomicU64,
}

impl Link {
    fn is_active(&self) -> bool {
        self.active_since_ms.load(Ordering::Relaxed) > 0
    }
}

#[derive(Clone)]
struct Peer {
    link: Arc<Link>,
    urgent: flume::Sender<Packet>,
    bulk: flume::Sender<Packet>,
}

/// A question for another member. The asker waits if the mailbox is full, and is refused if too many wait for answers.
pub struct Asking {
    /// Whom to ask.
    pub to: MemberId,
    /// What.
    pub request: PeerRequest,
    /// Takes the answer.
    pub asker: flume::Sender<Answer>,
}

/// What the actor does for this member's side.
pub enum Control {
    /// Dial this member and send what is queued. As many as members were added.
    Dial {
        /// The member.
        link: Arc<Link>,
        /// Messages that must not wait behind appends.
        urgent: flume::Receiver<Packet>,
        /// Appends and proposals.
        bulk: flume::Receiver<Packet>,
    },
    /// Send the published state to this member, announced by this message. One at a time for each member.
    Transfer(Arc<Link>, Box<Message>),
    /// This member was removed: the process ends when the others know what this member knows.
    Leave,
}

/// The actor's mailbox.
pub struct Inbox {
    /// Questions to be asked.
    pub asking: flume::Receiver<Asking>,
    /// Answers that came. The connection on which one came waits if the mailbox is full: questions never keep them out.
    pub answers: flume::Receiver<Answer>,
    /// Few: a bounded number for each member.
    pub control: flume::Receiver<Control>,
}

struct Inner {
    identity: Identity,
    peers: ArcSwap<BTreeMap<MemberId, Peer>>,
    removed: ArcSwap<BTreeSet<MemberId>>,
    consensus: consensus::Handle,
    asking: flume::Sender<Asking>,
    answers: flume::Sender<Answer>,
    /// Urgent queues of members that are not known and dialed this one.
    guests: ArcSwap<BTreeMap<MemberId, flume::Sender<Packet>>>,
    control: flume::Sender<Control>,
    leaving: AtomicBool,
}

/// All other members. Cheap to clone; what changes who they are must be called on the executor of consensus.
#[derive(Clone)]
pub struct Peers(Arc<Inner>);

impl Peers {
    /// None yet, and the mailbox of the actor that serves them.
    pub fn new(identity: Identity, consensus: consensus::Handle) -> (Self, Inbox) {
        let (asking, asking_inbox) = flume::bounded(PEER_QUESTIONS_MAX);
        let (answers, answers_inbox) = flume::bounded(PEER_QUESTIONS_MAX);
        let (control, control_inbox) = flume::unbounded();
        let inner = Inner {
            identity,
            peers: ArcSwap::default(),
            removed: ArcSwap::default(),
            consensus,
            asking,
            answers,
            guests: ArcSwap::default(),
            control,
            leaving: AtomicBool::new(false),
        };
        let inbox = Inbox { asking: asking_inbox, answers: answers_inbox, control: control_inbox };
        (Self(Arc::new(inner)), inbox)
    }

    /// Makes ways to new members, and forgets removed ones.
    pub fn update(&self, cluster: &Cluster) {
        let own = self.0.identity.member;
        self.0.removed.store(Arc::new(cluster.removed().collect()));
        let mut peers = self.0.peers.load_full().as_ref().clone();
        peers.retain(|id, _| !cluster.is_removed(*id));
        self.0.peers.store(Arc::new(peers));
        cluster
            .members()
            .filter(|member| member.id != own)
            .for_each(|member| self.add_peer(member));
        if cluster.is_removed(own) {
            self.leave();
        }
    }

    /// Makes a way to a member, or notes where it is reached now.
    pub fn add_peer(&self, member: &Member) {
        let known = self.0.peers.load_full();
        if let Some(peer) = known.get(&member.id) {
            if **peer.link.urls.load() != member.peer_urls {
                peer.link.urls.store(Arc::new(member.peer_urls.clone()));
            }
            return;
        }
        let link = Arc::new(Link {
            id: member.id,
            urls: ArcSwap::from_pointee(member.peer_urls.clone()),
            active_since_ms: AtomicU64::new(0),
            takes_bulk: AtomicBool::new(false),
            bulk_bytes: AtomicUsize::new(0),
            counts: Counts::default(),
            transferring: AtomicBool::new(false),
            stated: Stated::default(),
        });
        let (urgent, urgent_inbox) = flume::bounded(PEER_URGENT_MAX);
        let (bulk, bulk_inbox) = flume::bounded(PEER_BULK_MAX);
        let link_of_loop = Arc::clone(&link);
        let dial = Control::Dial { link: link_of_loop, urgent: urgent_inbox, bulk: bulk_inbox };
        drop(self.0.control.send(dial));
        let mut peers = known.as_ref().clone();
        peers.insert(member.id, Peer { link, urgent, bulk });
        self.0.peers.store(Arc::new(peers));
        tracing::info!(
            remote_peer_id = format!("{:x}", member.id),
            urls = ?member.peer_urls,
            "added remote peer"
        );
    }

    /// Sends raft's messages, as far as there is room. Gives back what carries proposals to a member that is
    /// not connected: raft does not send those again.
    pub fn send(&self, messages: Vec<Message>) -> Vec<Message> {
        let mut encoder = Encoder::default();
        let peers = self.0.peers.load();
        let mut undeliverable = Vec::new();
        for raft in messages {
            let peer = peers.get(&raft.to);
            let connected = peer.is_some_and(|peer| peer.link.takes_bulk.load(Ordering::Relaxed));
            if !connected && is_proposal(&raft) {
                undeliverable.push(raft);
                continue;
            }
            let priority = priority(&raft);
            let Some(peer) = peer else {
                if priority == Priority::Urgent {
                    let (head, entries) = encoder.encode(&raft);
                    let head = encode(Kind::Raft, &head, &entries);
                    self.send_to_guest(raft.to, Packet(head, entries));
                }
                continue;
            };
            if priority == Priority::Snapshot {
                self.transfer(peer, raft);
                continue;
            }
            let (head, entries) = encoder.encode(&raft);
            let packet = Packet(encode(Kind::Raft, &head, &entries), entries);
            let sent = match priority {
                Priority::Bulk => peer.send_bulk(packet),
                Priority::Urgent | Priority::Snapshot => peer.urgent.try_send(packet).is_ok(),
            };
            if !sent {
                peer.link.counts.sent_failures.fetch_add(1, Ordering::Relaxed);
                self.0.consensus.unreachable(raft.to);
            }
        }
        undeliverable
    }

    /// Sends the state along with a message that announces it, unless some is on its way to that member already.
    fn transfer(&self, peer: &Peer, raft: Message) {
        if peer.link.transferring.swap(true, Ordering::Relaxed) {
            return self.0.consensus.snapshot_sent(peer.link.id, false);
        }
        drop(self.0.control.send(Control::Transfer(Arc::clone(&peer.link), Box::new(raft))));
    }

    /// Asks another member. The answer may be lost: `None` after `wait`.
    pub async fn ask(&self, to: MemberId, request: PeerRequest, wait: Duration) -> Option<Answer> {
        let (answer, inbox) = flume::bounded(1);
        self.0.asking.send_async(Asking { to, request, asker: answer }).await.ok()?;
        clock::deadline(wait, inbox.recv_async()).await?.ok()
    }

    /// An answer came. Waits while too many are there.
    pub async fn answered(&self, answer: Answer) {
        drop(self.0.answers.send_async(answer).await);
    }

    /// Sends a question or an answer, if there is room for it.
    pub fn send_urgent(&self, to: MemberId, frame: Bytes) {
        let packet = Packet(frame, Bytes::new());
        match self.0.peers.load().get(&to) {
            Some(peer) => drop(peer.urgent.try_send(packet)),
            None => self.send_to_guest(to, packet),
        }
    }

    fn send_to_guest(&self, to: MemberId, packet: Packet) {
        if let Some(guest) = self.0.guests.load().get(&to) {
            drop(guest.try_send(packet));
        }
    }

    /// Takes in a member that dialed this one and is not known here yet: what is to be sent to it, on the connection that
    /// it dialed. `None` if there are too many.
    pub fn receive_guest(&self, member: MemberId) -> Option<flume::Receiver<Packet>> {
        let mut guests = self.0.guests.load_full().as_ref().clone();
        guests.retain(|_, queue| !queue.is_disconnected());
        if guests.len() >= PEER_GUESTS_MAX && !guests.contains_key(&member) {
            return None;
        }
        let (queue, packets) = flume::bounded(PEER_URGENT_MAX);
        guests.insert(member, queue);
        self.0.guests.store(Arc::new(guests));
        Some(packets)
    }

    /// Who this member is to others.
    pub fn identity(&self) -> &Identity {
        &self.0.identity
    }

    /// Orders what other members send.
    pub fn consensus(&self) -> &consensus::Handle {
        &self.0.consensus
    }

    /// The way to a member, if it is known.
    pub fn link(&self, member: MemberId) -> Option<Arc<Link>> {
        self.0.peers.load().get(&member).map(|peer| Arc::clone(&peer.link))
    }

    /// Whether a member has been connected for so long. This one always is.
    pub fn is_connected(&self, member: MemberId, for_ms: u64) -> bool {
        if member == self.0.identity.member {
            return true;
        }
        let since_ms = self.active_since_ms(member);
        since_ms > 0 && since_ms + for_ms <= clock::now_ms()
    }

    /// Since when a member is connected, in ms; 0 if it is not.
    pub fn active_since_ms(&self, member: MemberId) -> u64 {
        let peers = self.0.peers.load();
        peers.get(&member).map_or(0, |it| it.link.active_since_ms.load(Ordering::Relaxed))
    }

    /// The feature level that a member supports; `None` while it is not connected to this one.
    pub fn feature_level(&self, member: MemberId) -> Option<FeatureLevel> {
        self.0.peers.load().get(&member).and_then(|peer| peer.link.stated.feature_level())
    }

    /// What went to and came from all of them, for metrics.
    pub fn counts(&self) -> Vec<metrics::Peer> {
        let peers = self.0.peers.load();
        let count = |(id, peer): (&MemberId, &Peer)| {
            let counts = &peer.link.counts;
            metrics::Peer {
                id: *id,
                active: peer.link.is_active(),
                disconnects: counts.disconnects.load(Ordering::Relaxed),
                sent_bytes: counts.sent_bytes.load(Ordering::Relaxed),
                sent_failures: counts.sent_failures.load(Ordering::Relaxed),
                received_bytes: counts.received_bytes.load(Ordering::Relaxed),
            }
        };
        peers.iter().map(count).collect()
    }

    /// Whether any other member is connected.
    pub fn any_connected(&self) -> bool {
        self.0.peers.load().values().any(|peer| peer.link.is_active())
    }

    /// Whether a member was removed from the cluster.
    pub fn is_removed(&self, member: MemberId) -> bool {
        self.0.removed.load().contains(&member)
    }

    /// This member was removed: says so, and ends the process when the others know.
    pub fn leave(&self) {
        if self.0.leaving.swap(true, Ordering::Relaxed) {
            return;
        }
        tracing::warn!("the member has been permanently removed from the cluster");
        drop(self.0.control.send(Control::Leave));
    }
}

impl Peer {
    fn send_bulk(&self, packet: Packet) -> bool {
        let bytes = packet.bytes();
        let waiting = self.link.bulk_bytes.fetch_add(bytes, Ordering::Relaxed);
        // One packet always fits.
        let fits = waiting == 0 || waiting + bytes <= PEER_BULK_BYTES_MAX;
        let sent = fits && self.bulk.try_send(packet).is_ok();
        if !sent {
            self.link.bulk_bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
        sent
    }
}

/// What an answer says.
///
/// # Errors
/// The refusal in it.
pub fn outcome(answer: Answer) -> Result<Answer, Refusal> {
    match answer.refusal.as_str() {
        "" => Ok(answer),
        text => Err(Refusal::from_text(text).unwrap_or(Refusal::Timeout)),
    }
}
