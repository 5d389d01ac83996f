//! Hosts [`crate::peer`]: what goes to other members, and what comes from them. For each other member two
//! actors, one for each lane, which dial it, and dial again when the connection breaks. All on the executor
//! of consensus.
//!
//! ```text
//!  consensus ─messages─► Peers ─► urgent queue ─► actor ─► connection ─► the other's `serve` ─► its consensus
//!                          │  └─► bulk queue ───► actor ─► connection ─►
//!                          └ a snapshot: `transfer`, on a connection of its own
//! ```
//!
//! Nothing waits for another member: what does not fit into a queue is dropped and raft is told that the
//! member cannot be reached. Reading appends waits while consensus has enough of them, and so does the
//! leader's queue through TCP.

mod inbound;
mod outbound;
mod stated;
mod transfer;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;

use super::{Shared, consensus};
use crate::cluster::{Cluster, Member};
use crate::consensus::Message;
use crate::consensus::wire::{Encoder, Travels, is_proposal, travels};
use crate::io::{self, clock};
use crate::metrics;
use crate::peer::{Answer, Ask, Kind, Question, encode, message};
use crate::types::limits::{
    PEER_BULK_BYTES_MAX, PEER_BULK_MAX, PEER_QUESTIONS_MAX, PEER_URGENT_MAX,
};
use crate::types::{FeatureLevel, MemberId, Refusal};

pub use self::inbound::serve;
use self::stated::Stated;

/// Time in which a member that was removed tells the others what it knows.
const FAREWELL: Duration = Duration::from_secs(1);

/// Who this member is to others.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The cluster.
    pub cluster: u64,
    /// The member.
    pub member: MemberId,
    /// Where it is reached.
    pub urls: Vec<String>,
    /// Where snapshots are put together.
    pub member_dir: PathBuf,
    /// What a state machine is opened with.
    pub machine: crate::machine::Config,
}

/// A frame to send: its beginning, and what may be shared with frames to others.
struct Packet(Bytes, Bytes);

impl Packet {
    fn bytes(&self) -> usize {
        self.0.len() + self.1.len()
    }
}

/// What is known of another member's reach.
struct Link {
    id: MemberId,
    urls: ArcSwap<Vec<String>>,
    /// Since when it is connected, in ms; 0 if it is not.
    active_since_ms: AtomicU64,
    /// Whether appends and proposals have a connection.
    takes_bulk: AtomicBool,
    bulk_bytes: AtomicUsize,
    counts: Counts,
    /// Sends a snapshot to it at this moment.
    transferring: AtomicBool,
    /// Its statement on its newest urgent connection.
    stated: Stated,
}

/// Since this member began.
#[derive(Default)]
struct Counts {
    sent_bytes: AtomicU64,
    sent_failures: AtomicU64,
    received_bytes: AtomicU64,
    disconnects: AtomicU64,
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

/// A question under way.
enum Asking {
    /// Ask this member. The asker waits if the mailbox is full.
    Ask(MemberId, Ask, flume::Sender<Answer>),
    /// An answer came. Dropped if the mailbox is full; the asker asks again.
    Answered(Answer),
}

struct Inner {
    identity: Identity,
    peers: ArcSwap<BTreeMap<MemberId, Peer>>,
    removed: ArcSwap<BTreeSet<MemberId>>,
    consensus: consensus::Handle,
    asking: flume::Sender<Asking>,
    leaving: AtomicBool,
}

/// All other members. Cheap to clone; what changes who they are must be called on the executor of consensus.
#[derive(Clone)]
pub struct Peers(Arc<Inner>);

impl Peers {
    /// None yet. Spawns the actor that keeps questions.
    pub fn new(identity: Identity, consensus: consensus::Handle) -> Self {
        let (asking, inbox) = flume::bounded(PEER_QUESTIONS_MAX);
        let inner = Inner {
            identity,
            peers: ArcSwap::default(),
            removed: ArcSwap::default(),
            consensus,
            asking,
            leaving: AtomicBool::new(false),
        };
        let peers = Self(Arc::new(inner));
        io::spawn(questions(peers.clone(), inbox));
        peers
    }

    /// Makes ways to new members, and forgets removed ones.
    pub fn update(&self, cluster: &Cluster) {
        let own = self.0.identity.member;
        self.0.removed.store(Arc::new(cluster.removed().collect()));
        let mut peers = self.0.peers.load_full().as_ref().clone();
        peers.retain(|id, _| !cluster.is_removed(*id));
        self.0.peers.store(Arc::new(peers));
        cluster.members().filter(|member| member.id != own).for_each(|member| self.meet(member));
        if cluster.is_removed(own) {
            self.leave();
        }
    }

    /// Makes a way to a member, or notes where it is reached now.
    pub fn meet(&self, member: &Member) {
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
        outbound::start(self, &link, urgent_inbox, bulk_inbox);
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
    pub fn send(&self, messages: Vec<Message>, shared: &Arc<Shared>) -> Vec<Message> {
        let mut encoder = Encoder::default();
        let peers = self.0.peers.load();
        let mut homeless = Vec::new();
        for raft in messages {
            let peer = peers.get(&raft.to);
            let connected = peer.is_some_and(|peer| peer.link.takes_bulk.load(Ordering::Relaxed));
            if !connected && is_proposal(&raft) {
                homeless.push(raft);
                continue;
            }
            let Some(peer) = peer else { continue };
            let travels = travels(&raft);
            if travels == Travels::Snapshot {
                transfer::start(self, &peer.link, raft, shared);
                continue;
            }
            let (head, entries) = encoder.encode(&raft);
            let packet = Packet(encode(Kind::Raft, &head, &entries), entries);
            let sent = match travels {
                Travels::Bulk => peer.send_bulk(packet),
                Travels::Urgent | Travels::Snapshot => peer.urgent.try_send(packet).is_ok(),
            };
            if !sent {
                peer.link.counts.sent_failures.fetch_add(1, Ordering::Relaxed);
                self.0.consensus.unreachable(raft.to);
            }
        }
        homeless
    }

    /// Asks another member. The answer may be lost: `None` after `wait`.
    pub async fn ask(&self, to: MemberId, ask: Ask, wait: Duration) -> Option<Answer> {
        let (answer, inbox) = flume::bounded(1);
        self.0.asking.send_async(Asking::Ask(to, ask, answer)).await.ok()?;
        clock::deadline(wait, inbox.recv_async()).await?.ok()
    }

    fn answer(&self, to: MemberId, answer: &Answer) {
        if let Some(peer) = self.0.peers.load().get(&to) {
            let packet = Packet(message(Kind::Answer, answer), Bytes::new());
            let _ = peer.urgent.try_send(packet);
        }
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

    fn is_removed(&self, member: MemberId) -> bool {
        self.0.removed.load().contains(&member)
    }

    /// This member was removed: says so, and ends the process when the others know.
    fn leave(&self) {
        if self.0.leaving.swap(true, Ordering::Relaxed) {
            return;
        }
        tracing::warn!("the member has been permanently removed from the cluster");
        io::spawn(async {
            clock::sleep(FAREWELL).await;
            io::leave();
        });
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

/// Numbers questions and finds who asked. Runs for ever.
async fn questions(peers: Peers, inbox: flume::Receiver<Asking>) {
    let mut asked: BTreeMap<u64, flume::Sender<Answer>> = BTreeMap::new();
    let mut number = 0;
    while let Ok(asking) = inbox.recv_async().await {
        match asking {
            Asking::Answered(answer) => {
                let asker = asked.remove(&answer.number);
                asker.into_iter().for_each(|asker| drop(asker.try_send(answer.clone())));
            }
            Asking::Ask(to, ask, asker) => {
                if asked.len() >= PEER_QUESTIONS_MAX {
                    asked.retain(|_, asker| !asker.is_disconnected());
                }
                number += 1;
                asked.insert(number, asker);
                let question = message(Kind::Question, &Question { number, ask: Some(ask) });
                if let Some(peer) = peers.0.peers.load().get(&to) {
                    let _ = peer.urgent.try_send(Packet(question, Bytes::new()));
                }
            }
        }
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

/// `host:port` of a URL.
pub fn address_of(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.split('/').next().unwrap_or(rest)
}
