//! The outgoing connections to one other member: dials, sends a hello and then the queue; again and again.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_lite::future::or;

use crate::actors::mailbox::peer::{Link, Packet, Peers, Times};
use crate::cluster::check_feature_level;
use crate::consensus::wire::decode;
use crate::io::{self, Address, Wire, clock};
use crate::peer::{
    Decoder, Frame, Hello, Kind, Lane, MAGIC, Refused, RejectReason, Welcome, encode, message,
};
use crate::types::FeatureLevel;
use crate::types::limits::PEER_WRITE_BYTES;

/// Timeout of the answer to a hello: the other member may be busy.
const WELCOME_TIME: Duration = Duration::from_secs(5);
/// Least and longest pause between two attempts to connect.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_millis(400);
/// Pings within the read timeout, as many as etcd sends.
const PINGS: u32 = 3;

/// Starts both lanes.
pub(super) fn start(
    peers: &Peers,
    link: &Arc<Link>,
    urgent: flume::Receiver<Packet>,
    bulk: flume::Receiver<Packet>,
) {
    for (lane, inbox) in [(Lane::Urgent, urgent), (Lane::Bulk, bulk)] {
        let sender = Outbound { peers: peers.clone(), link: Arc::clone(link), lane, inbox };
        crate::io::spawn(sender.run());
    }
}

/// An accepted connection, and its decoder.
pub(super) struct Connected {
    pub(super) wire: Wire,
    decoder: Decoder,
    times: Times,
    /// The other end sends pings, so that silence means that it is dead.
    pub(super) pings: bool,
}

impl Connected {
    /// The next frame; `None` when the connection ended, was silent for too long, or sent an invalid frame. Cancel-safe.
    pub(super) async fn next(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = self.decoder.next_frame().ok()? {
                return Some(frame);
            }
            let read = self.wire.read();
            let bytes = match self.pings {
                true => clock::deadline(self.times.read, read).await?.ok()?,
                false => read.await.ok()?,
            };
            if bytes.is_empty() {
                return None;
            }
            self.decoder.take(bytes);
        }
    }

    /// An accepted connection, of which the magic was read, or one that was just dialed.
    pub(super) fn new(wire: Wire, times: Times) -> Self {
        wire.limit_silence(times.write);
        Self { wire, decoder: Decoder::default(), times, pings: false }
    }

    /// Sends one frame or more.
    pub(super) async fn send(&mut self, bytes: &[u8]) -> Option<()> {
        self.wire.write(bytes, self.times.write).await.ok()
    }
}

/// Connects to a member and sends a hello.
pub(super) async fn connect(
    peers: &Peers,
    link: &Link,
    lane: Lane,
) -> Option<(Connected, Welcome)> {
    let identity = peers.identity();
    let hello = Hello {
        cluster: identity.cluster,
        from: identity.member,
        to: link.id,
        lane: lane as i32,
        urls: identity.urls.clone(),
        feature_level: identity.machine.feature_level.number(),
        pings: true,
    };
    let urls = link.urls.load_full();
    for url in urls.iter() {
        let dialed = Wire::dial(&Address::of_url(url), identity.times.dial).await;
        let Ok(wire) = dialed else { continue };
        let mut connected = Connected::new(wire, identity.times);
        let begin = [MAGIC.as_slice(), &message(Kind::Hello, &hello)].concat();
        if connected.send(&begin).await.is_none() {
            continue;
        }
        let answer = clock::deadline(WELCOME_TIME, connected.next()).await.flatten();
        match answer.as_ref().map(|frame| frame.read::<Welcome>(Kind::Welcome)) {
            Some(Some(welcome)) => return Some((connected, welcome)),
            Some(None) => answer.iter().for_each(|answer| refused(peers, link, answer)),
            None => (),
        }
    }
    None
}

fn refused(peers: &Peers, link: &Link, frame: &Frame) {
    let Some(refused) = frame.read::<Refused>(Kind::Refused) else { return };
    let remote = format!("{:x}", link.id);
    match refused.reason() {
        RejectReason::Removed => peers.leave(),
        RejectReason::FeatureLevel => {
            let supported = peers.identity().machine.feature_level;
            if let Err(fault) =
                check_feature_level(FeatureLevel::new(refused.feature_level), supported)
            {
                io::fatal(&fault);
            }
        }
        RejectReason::OtherCluster => tracing::warn!(remote, "request cluster ID mismatch"),
        RejectReason::OtherMember => {
            tracing::warn!(remote, "request sent was ignored (member ID mismatch)")
        }
        RejectReason::Unknown => {
            tracing::warn!(remote, "the peer does not know this kind of connection")
        }
    }
}

struct Outbound {
    peers: Peers,
    link: Arc<Link>,
    lane: Lane,
    inbox: flume::Receiver<Packet>,
}

impl Outbound {
    async fn run(self) {
        let mut pause = PAUSE_MIN;
        while !self.inbox.is_disconnected() {
            if let Some((connected, welcome)) = connect(&self.peers, &self.link, self.lane).await {
                pause = PAUSE_MIN;
                self.note_active(clock::now_ms().max(1));
                self.serve(connected, welcome).await;
                self.link.counts.disconnects.fetch_add(1, Ordering::Relaxed);
                self.note_active(0);
            }
            // Queued messages are outdated.
            self.inbox.try_iter().for_each(|packet| self.count_off(&packet));
            self.peers.consensus().unreachable(self.link.id);
            clock::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    fn note_active(&self, since_ms: u64) {
        if self.lane == Lane::Bulk {
            return self.link.takes_bulk.store(since_ms > 0, Ordering::Relaxed);
        }
        self.link.active_since_ms.store(since_ms, Ordering::Relaxed);
        let remote = format!("{:x}", self.link.id);
        match since_ms {
            0 => tracing::warn!(
                remote_peer_id = remote,
                "lost TCP streaming connection with remote peer"
            ),
            _ => tracing::info!(remote_peer_id = remote, "peer became active"),
        }
    }

    /// Sends until the connection breaks.
    async fn serve(&self, mut connected: Connected, welcome: Welcome) {
        let mut buffer = Vec::new();
        let ping_every = self.peers.identity().times.read / PINGS;
        loop {
            // The end of the connection, or a message of a member that does not know this one yet.
            let told = async { Err(connected.next().await) };
            let work = async { self.inbox.recv_async().await.map_err(|_| None) };
            let first = match clock::deadline(ping_every, or(told, work)).await {
                Some(Ok(packet)) => Some(packet),
                Some(Err(frame)) => match self.take(frame).await {
                    Some(()) => continue,
                    None => return,
                },
                None if welcome.pings => None,
                None => continue,
            };
            buffer.clear();
            if first.is_none() {
                buffer.extend_from_slice(&encode(Kind::Ping, &[], &[]));
            }
            let mut next = first;
            while let Some(packet) = next {
                self.count_off(&packet);
                buffer.extend_from_slice(&packet.0);
                buffer.extend_from_slice(&packet.1);
                next =
                    if buffer.len() < PEER_WRITE_BYTES { self.inbox.try_recv().ok() } else { None };
            }
            let counts = &self.link.counts;
            if connected.send(&buffer).await.is_none() {
                counts.sent_failures.fetch_add(1, Ordering::Relaxed);
                return;
            }
            counts.sent_bytes.fetch_add(buffer.len() as u64, Ordering::Relaxed);
            buffer.shrink_to(4 * PEER_WRITE_BYTES);
        }
    }

    /// Handles a received frame; `None` if it ends the connection.
    async fn take(&self, frame: Option<Frame>) -> Option<()> {
        let frame = frame?;
        match frame.kind {
            Kind::Raft => {
                let raft = decode(frame.payload).filter(|raft| raft.from == self.link.id)?;
                self.peers.consensus().peer(Box::new(raft)).await;
            }
            Kind::Answer => self.peers.answered(frame.read(Kind::Answer)?).await,
            Kind::Ping => (),
            Kind::Hello
            | Kind::Welcome
            | Kind::Refused
            | Kind::Question
            | Kind::Chunk
            | Kind::End
            | Kind::Arrived => {
                refused(&self.peers, &self.link, &frame);
                return None;
            }
        }
        Some(())
    }

    fn count_off(&self, packet: &Packet) {
        if self.lane == Lane::Bulk {
            self.link.bulk_bytes.fetch_sub(packet.bytes(), Ordering::Relaxed);
        }
    }
}
