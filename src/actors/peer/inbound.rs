//! Connections from other members: messages are checked, then sent to consensus.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_lite::future::or;

use super::outbound::Connected;
use super::transfer;
use crate::actors::ReplicaClient;
use crate::actors::mailbox::peer::{Packet, Peers};
use crate::consensus::Message;
use crate::consensus::wire::{decode, is_proposal, retain_proposals};
use crate::io::{self, Wire, clock};
use crate::machine::check_payload;
use crate::peer::{
    Answer, Frame, Hello, Kind, Lane, PeerRequest, Question, Refused, RejectReason, Welcome, check,
    message,
};
use crate::types::limits::PEER_QUESTIONS_MAX;
use crate::types::{Error, FeatureLevel, MemberId, Refusal};

/// Timeout for a dialer's hello.
const HELLO_TIME: Duration = Duration::from_secs(5);

/// Serves a connection that another member dialed, until it ends.
pub async fn serve(peers: Peers, wire: Wire, replica: ReplicaClient) {
    let mut connected = Connected::new(wire, peers.identity().times);
    let frame = clock::deadline(HELLO_TIME, connected.next()).await.flatten();
    let Some(hello) = frame.and_then(|frame| frame.read::<Hello>(Kind::Hello)) else { return };
    let identity = peers.identity();
    let agreed = replica.state().feature_level;
    let is_removed = |member| peers.is_removed(member);
    let lane = match check(&hello, identity.cluster, identity.member, agreed, is_removed) {
        Ok(lane) => lane,
        Err(why) => return refuse(&mut connected, &hello, why, agreed).await,
    };
    if connected.send(&message(Kind::Welcome, &Welcome { pings: true })).await.is_none() {
        return;
    }
    if lane == Lane::Snapshot {
        return transfer::receive(&peers, connected).await;
    }
    connected.pings = hello.pings;
    // It may have joined after the last entry that this member applied. It is not dialed: anyone can name any
    // URL in a hello.
    let is_guest = lane == Lane::Urgent && hello.pings && peers.link(hello.from).is_none();
    let guest = if is_guest { peers.receive_guest(hello.from) } else { None };
    receive(&peers, connected, guest, &hello, &replica).await;
}

/// The next frame; sends the messages for a guest until one arrives. `None` when the connection has ended.
async fn next(
    connected: &mut Connected,
    guest: &mut Option<flume::Receiver<Packet>>,
) -> Option<Frame> {
    loop {
        let Some(queue) = guest else { return connected.next().await };
        let packet = async { Ok(queue.recv_async().await) };
        let frame = async { Err(connected.next().await) };
        match or(packet, frame).await {
            Err(frame) => return frame,
            Ok(Ok(Packet(head, rest))) => connected.send(&[head, rest].concat()).await?,
            // The guest has dialed again.
            Ok(Err(_)) => *guest = None,
        }
    }
}

async fn refuse(
    connected: &mut Connected,
    hello: &Hello,
    reason: RejectReason,
    agreed: FeatureLevel,
) {
    tracing::warn!(
        remote_peer_id = format!("{:x}", hello.from),
        remote_cluster_id = format!("{:x}", hello.cluster),
        why = ?reason,
        "rejected connection on peer endpoint"
    );
    let refused = Refused { reason: reason as i32, feature_level: agreed.number() };
    let _ = connected.send(&message(Kind::Refused, &refused)).await;
}

async fn receive(
    peers: &Peers,
    mut connected: Connected,
    mut guest: Option<flume::Receiver<Packet>>,
    hello: &Hello,
    replica: &ReplicaClient,
) {
    let answering = Arc::new(AtomicUsize::new(0));
    let link = peers.link(hello.from);
    let is_urgent = hello.lane() == Lane::Urgent;
    let stating = link.as_ref().filter(|_| is_urgent);
    let level = FeatureLevel::new(hello.feature_level);
    let _statement = stating.map(|link| link.stated.state(level));
    while let Some(frame) = next(&mut connected, &mut guest).await {
        if let Some(link) = &link {
            link.counts.received_bytes.fetch_add(frame.payload.len() as u64, Ordering::Relaxed);
        }
        if peers.is_removed(hello.from) {
            let agreed = replica.state().feature_level;
            return refuse(&mut connected, hello, RejectReason::Removed, agreed).await;
        }
        match frame.kind {
            Kind::Raft => {
                // A message in another member's name is dropped.
                let Some(mut raft) = decode(frame.payload).filter(|raft| raft.from == hello.from)
                else {
                    return;
                };
                if is_proposal(&raft) && !admit(peers, &mut raft) {
                    continue;
                }
                peers.consensus().peer(Box::new(raft)).await;
            }
            Kind::Question => answer(peers, hello.from, &frame, replica, &answering),
            Kind::Answer => {
                let Some(answer) = frame.read::<Answer>(Kind::Answer) else { return };
                peers.answered(answer).await;
            }
            Kind::Ping => (),
            Kind::Hello
            | Kind::Welcome
            | Kind::Refused
            | Kind::Chunk
            | Kind::End
            | Kind::Arrived => return,
        }
    }
}

/// Removes proposals that this version could not apply once they are in the log: every member would stop there. Their
/// requests get no answer. True if any entry remains.
fn admit(peers: &Peers, raft: &mut Message) -> bool {
    let supported = peers.identity().machine.feature_level;
    let readable = |kind, data: &Bytes| check_payload(kind, data, supported).is_ok();
    let dropped = retain_proposals(raft, readable);
    if dropped > 0 {
        let remote_peer_id = format!("{:x}", raft.from);
        tracing::warn!(remote_peer_id, dropped, "dropped proposals that cannot be applied");
    }
    !raft.entries.is_empty()
}

/// Answers in the background, as far as the limit allows.
fn answer(
    peers: &Peers,
    to: MemberId,
    frame: &Frame,
    replica: &ReplicaClient,
    answering: &Arc<AtomicUsize>,
) {
    let Some(Question { number, ask: Some(request) }) = frame.read::<Question>(Kind::Question)
    else {
        return;
    };
    if answering.load(Ordering::Relaxed) >= PEER_QUESTIONS_MAX {
        return;
    }
    answering.fetch_add(1, Ordering::Relaxed);
    let (peers, replica, answering) = (peers.clone(), replica.clone(), Arc::clone(answering));
    io::spawn(async move {
        let answer = match find(&replica, request).await {
            Ok(answer) => Answer { number, ..answer },
            Err(refusal) => {
                Answer { number, refusal: refusal.text().to_owned(), ..Answer::default() }
            }
        };
        peers.send_urgent(to, message(Kind::Answer, &answer));
        answering.fetch_sub(1, Ordering::Relaxed);
    });
}

async fn find(replica: &ReplicaClient, request: PeerRequest) -> Result<Answer, Refusal> {
    let found = |ttl: crate::actors::client::TimeToLive| Answer {
        ttl: ttl.ttl,
        granted: ttl.granted,
        keys: ttl.keys,
        ..Answer::default()
    };
    match request {
        PeerRequest::Renew(id) => {
            replica.keep_alive_here(id).await.map(|ttl| Answer { ttl, ..Answer::default() })
        }
        PeerRequest::TimeToLive(id) => replica.time_to_live_here(id, false).await.map(found),
        PeerRequest::TimeToLiveAndKeys(id) => replica.time_to_live_here(id, true).await.map(found),
        PeerRequest::Promote(id) => replica.promote_here(id).await.map(|()| Answer::default()),
        PeerRequest::HashKv(revision) => {
            let hashed = Error::refusal(replica.hash_kv(revision).await);
            hashed.unwrap_or_else(|fault| io::fatal(&fault)).map(|hashed| Answer {
                hash: hashed.hash,
                compact_revision: hashed.compact_revision,
                hash_revision: hashed.revision,
                revision: hashed.newest,
                ..Answer::default()
            })
        }
    }
}
