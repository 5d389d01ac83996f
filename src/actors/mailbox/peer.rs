//! The queues to other members, and the state of each connection. [`Peers::ask`] waits for another member's answer; no
//! other call here waits for one: a message that does not fit into a queue is dropped and raft is notified that the
//! member is unreachable.

mod guests;
mod identity;
mod link;
mod stated;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;

use self::guests::Guests;
pub use self::identity::{Identity, Times};
use self::link::Peer;
pub use self::link::{Counts, Link, Packet};
use super::consensus;
use crate::cluster::{Cluster, Member};
use crate::consensus::Message;
use crate::consensus::wire::Encoder;
use crate::io::clock;
use crate::metrics;
use crate::peer::{Answer, Kind, PeerRequest, encode};
use crate::replica::{Route, route};
use crate::types::limits::{PEER_BULK_MAX, PEER_QUESTIONS_MAX, PEER_URGENT_MAX};
use crate::types::{FeatureLevel, MemberId, Refusal};

/// A question for another member. The caller waits if the mailbox is full, and is refused if too many questions are pending.
pub struct Asking {
    /// The member to ask.
    pub to: MemberId,
    /// The question.
    pub request: PeerRequest,
    /// Receives the answer.
    pub asker: flume::Sender<Answer>,
}

/// Commands to the actor.
pub enum Control {
    /// Dial this member and send its queues. As many as members were added.
    Dial {
        /// The member.
        link: Arc<Link>,
        /// Messages that must not wait behind appends.
        urgent: flume::Receiver<Packet>,
        /// Appends and proposals.
        bulk: flume::Receiver<Packet>,
    },
    /// Send the published state, announced by this message, to this member. One at a time for each member.
    Transfer(Arc<Link>, Box<Message>),
    /// This member was removed: the process ends when its last messages are sent.
    Leave,
}

/// The mailbox of the peer actor.
pub struct Inbox {
    /// Questions to be sent.
    pub asking: flume::Receiver<Asking>,
    /// Answers received. Their connection waits if the mailbox is full: questions are in another queue and never delay them.
    pub answers: flume::Receiver<Answer>,
    /// Commands; a bounded number for each member.
    pub control: flume::Receiver<Control>,
}

struct Inner {
    identity: Identity,
    peers: ArcSwap<BTreeMap<MemberId, Peer>>,
    removed: ArcSwap<BTreeSet<MemberId>>,
    consensus: consensus::Handle,
    asking: flume::Sender<Asking>,
    answers: flume::Sender<Answer>,
    /// Urgent queues of unknown members that dialed this one.
    guests: Guests,
    control: flume::Sender<Control>,
    leaving: AtomicBool,
}

/// All other members. Cheap to clone; calls that change the members are only allowed on the executor of consensus.
#[derive(Clone)]
pub struct Peers(Arc<Inner>);

impl Peers {
    /// No members, and the mailbox of their actor.
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
            guests: Guests::default(),
            control,
            leaving: AtomicBool::new(false),
        };
        let inbox = Inbox { asking: asking_inbox, answers: answers_inbox, control: control_inbox };
        (Self(Arc::new(inner)), inbox)
    }

    /// Adds new members, and drops removed ones.
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

    /// Adds a member, or updates its URLs.
    pub fn add_peer(&self, member: &Member) {
        let known = self.0.peers.load_full();
        if let Some(peer) = known.get(&member.id) {
            if **peer.link.urls.load() != member.peer_urls {
                peer.link.urls.store(Arc::new(member.peer_urls.clone()));
            }
            return;
        }
        let link = Arc::new(Link::new(member));
        let (urgent, urgent_inbox) = flume::bounded(PEER_URGENT_MAX);
        let (bulk, bulk_inbox) = flume::bounded(PEER_BULK_MAX);
        let link_of_loop = Arc::clone(&link);
        let dial = Control::Dial { link: link_of_loop, urgent: urgent_inbox, bulk: bulk_inbox };
        drop(self.0.control.send(dial));
        let mut peers = known.as_ref().clone();
        let bulk_bytes_max = self.0.identity.queue_bytes_max;
        peers.insert(member.id, Peer { link, urgent, bulk, bulk_bytes_max });
        self.0.peers.store(Arc::new(peers));
        tracing::info!(
            remote_peer_id = format!("{:x}", member.id),
            urls = ?member.peer_urls,
            "added remote peer"
        );
    }

    /// Sends raft's messages, as far as the queues have capacity. Returns messages with proposals to a member that is
    /// not connected: raft does not send those again.
    pub fn send(&self, messages: Vec<Message>) -> Vec<Message> {
        let mut encoder = Encoder::default();
        let peers = self.0.peers.load();
        let mut undeliverable = Vec::new();
        for raft in messages {
            let peer = peers.get(&raft.to);
            let connected = peer.is_some_and(|peer| peer.link.takes_bulk.load(Ordering::Relaxed));
            match (route(&raft, peer.is_some(), connected), peer) {
                (Route::GiveBack, _) => undeliverable.push(raft),
                (Route::Snapshot, Some(peer)) => self.transfer(peer, raft),
                (Route::Guest, _) => self.0.guests.send(raft.to, packet(&mut encoder, &raft)),
                (Route::Urgent, Some(peer)) => {
                    let sent = peer.urgent.try_send(packet(&mut encoder, &raft)).is_ok();
                    self.note_sent(peer, sent);
                }
                (Route::Bulk, Some(peer)) => {
                    let sent = peer.send_bulk(packet(&mut encoder, &raft));
                    self.note_sent(peer, sent);
                }
                (Route::Drop | Route::Snapshot | Route::Urgent | Route::Bulk, _) => (),
            }
        }
        undeliverable
    }

    /// Notifies raft of a message that did not fit into its queue.
    fn note_sent(&self, peer: &Peer, sent: bool) {
        if !sent {
            peer.link.counts.sent_failures.fetch_add(1, Ordering::Relaxed);
            self.0.consensus.unreachable(peer.link.id);
        }
    }

    /// Sends the state along with a message that announces it, unless one is being sent to that member already.
    fn transfer(&self, peer: &Peer, raft: Message) {
        if peer.link.transferring.swap(true, Ordering::Relaxed) {
            return self.0.consensus.snapshot_sent(peer.link.id, false);
        }
        drop(self.0.control.send(Control::Transfer(Arc::clone(&peer.link), Box::new(raft))));
    }

    /// Asks another member. `None` if there is no answer within `wait`.
    pub async fn ask(&self, to: MemberId, request: PeerRequest, wait: Duration) -> Option<Answer> {
        let (answer, inbox) = flume::bounded(1);
        self.0.asking.send_async(Asking { to, request, asker: answer }).await.ok()?;
        clock::deadline(wait, inbox.recv_async()).await?.ok()
    }

    /// Passes a received answer on. Waits while the mailbox is full.
    pub async fn answered(&self, answer: Answer) {
        drop(self.0.answers.send_async(answer).await);
    }

    /// Sends a question or an answer, if the queue has capacity.
    pub fn send_urgent(&self, to: MemberId, frame: Bytes) {
        let packet = Packet(frame, Bytes::new());
        match self.0.peers.load().get(&to) {
            Some(peer) => drop(peer.urgent.try_send(packet)),
            None => self.0.guests.send(to, packet),
        }
    }

    /// Registers an unknown member that dialed this one; returns the queue of messages to send on the connection that
    /// it dialed. `None` if there are too many such members.
    pub fn receive_guest(&self, member: MemberId) -> Option<flume::Receiver<Packet>> {
        self.0.guests.receive(member)
    }

    /// Identity and settings of this member for its connections.
    pub fn identity(&self) -> &Identity {
        &self.0.identity
    }

    /// The consensus actor, for messages received from other members.
    pub fn consensus(&self) -> &consensus::Handle {
        &self.0.consensus
    }

    /// The connection state of a member, if it is known.
    pub fn link(&self, member: MemberId) -> Option<Arc<Link>> {
        self.0.peers.load().get(&member).map(|peer| Arc::clone(&peer.link))
    }

    /// True if a member has been connected for `for_ms`. This member always is.
    pub fn is_connected(&self, member: MemberId, for_ms: u64) -> bool {
        if member == self.0.identity.member {
            return true;
        }
        let since_ms = self.active_since_ms(member);
        since_ms > 0 && since_ms + for_ms <= clock::now_ms()
    }

    /// Time since which a member is connected, in ms; 0 if it is not.
    pub fn active_since_ms(&self, member: MemberId) -> u64 {
        let peers = self.0.peers.load();
        peers.get(&member).map_or(0, |it| it.link.active_since_ms.load(Ordering::Relaxed))
    }

    /// The feature level that a member supports; `None` while it is not connected to this one.
    pub fn feature_level(&self, member: MemberId) -> Option<FeatureLevel> {
        self.0.peers.load().get(&member).and_then(|peer| peer.link.stated.feature_level())
    }

    /// Traffic with each member, for metrics.
    pub fn counts(&self) -> Vec<metrics::Peer> {
        let peers = self.0.peers.load();
        peers.values().map(Peer::counts).collect()
    }

    /// True if any other member is connected.
    pub fn any_connected(&self) -> bool {
        self.0.peers.load().values().any(|peer| peer.link.is_active())
    }

    /// True if a member was removed from the cluster.
    pub fn is_removed(&self, member: MemberId) -> bool {
        self.0.removed.load().contains(&member)
    }

    /// This member was removed: logs that, and ends the process after the last messages.
    pub fn leave(&self) {
        if self.0.leaving.swap(true, Ordering::Relaxed) {
            return;
        }
        tracing::warn!("the member has been permanently removed from the cluster");
        drop(self.0.control.send(Control::Leave));
    }
}

/// The content of an answer.
///
/// # Errors
/// The refusal in the answer.
pub fn outcome(answer: Answer) -> Result<Answer, Refusal> {
    match answer.refusal.as_str() {
        "" => Ok(answer),
        text => Err(Refusal::from_text(text).unwrap_or(Refusal::Timeout)),
    }
}

fn packet(encoder: &mut Encoder, raft: &Message) -> Packet {
    let (head, entries) = encoder.encode(raft);
    Packet(encode(Kind::Raft, &head, &entries), entries)
}
