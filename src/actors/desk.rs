//! Where the sessions of one executor hand in requests and wait for answers. One per executor.
//!
//! Requests that come in during one round of the executor leave as one message to consensus, and the
//! answers of one applied batch come back as one message: the price of crossing cores is paid per round,
//! not per request. The waiting room is a thread-local of the executor, so that nothing here is locked;
//! the futures hold only a request's id, which makes them `Send` as tonic wants them.

mod queue;

use std::cell::RefCell;
use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use basalt_proto::etcdserverpb::{AlarmMember, InternalRaftRequest, RequestHeader};
use bytes::{Bytes, BytesMut};
use futures_lite::future::yield_now;
use prost::Message as _;

use self::queue::Queue;
use super::mailbox::delivery::Delivery;
use super::mailbox::peer::{Peers, outcome};
use super::mailbox::{apply, consensus, lease};
use super::state::{Node, Shared, State, Status};
use super::watch;
use crate::cluster::{self, Hashed};
use crate::io::{DiskMonitor, clock};
use crate::machine::Reply;
use crate::metrics;
use crate::peer::{Answer, Ask};
use crate::types::limits::{
    BUNDLE_BYTES_MAX, BUNDLE_PROPOSALS_MAX, COMMITTED_UNAPPLIED_MAX, REQUESTS_IN_FLIGHT_MAX,
};
use crate::types::{ConfChange, Error, LeaseId, MemberId, Refusal};

/// How often waiting requests are looked over for ones that waited too long, in ms.
const SWEEP_MS: u64 = 250;

/// How long another member may take to answer, and the time between two looks.
const ASK_TIME: Duration = Duration::from_secs(1);
const ASK_PAUSE: Duration = Duration::from_millis(20);

/// Entries hashed before others get their turn.
const HASH_TURN_ENTRIES: usize = 1000;

/// Election timeouts without a leader that a stream survives whose client wants one; etcd's too.
pub const LEADERLESS_ELECTIONS_MAX: u64 = 3;

enum Waiting<T> {
    /// Nobody polls yet, or someone does.
    Empty(Option<Waker>),
    Answered(T),
}

struct Slot<T> {
    waiting: Waiting<T>,
    since_ms: u64,
}

/// A read index that several readers wait for.
struct Round {
    readers: usize,
    done: bool,
    wakers: Vec<Waker>,
    since_ms: u64,
}

/// The waiting room of one executor.
struct Room {
    prefix: u64,
    counter: u32,
    now_ms: u64,
    replies: HashMap<u64, Slot<Result<Reply, Refusal>>>,
    /// Sessions that found the room full.
    outside: Queue,
    outbox: Vec<Bytes>,
    rounds: HashMap<u64, Round>,
    round: u64,
    /// Readers may still join the round that has this number; it has not left yet.
    round_open: bool,
    flusher: Option<Waker>,
}

thread_local! {
    static ROOM: RefCell<Option<Room>> = const { RefCell::new(None) };
}

/// Looks into this executor's room; `None` on a thread that has no desk.
fn room<T>(look: impl FnOnce(&mut Room) -> T) -> Option<T> {
    ROOM.with_borrow_mut(|room| room.as_mut().map(look))
}

/// The actors that a desk asks.
#[derive(Clone)]
pub struct Reach {
    /// The watch hub of the executor.
    pub hub: watch::Handle,
    /// Keeps the time of leases.
    pub lease: lease::Handle,
    /// Holds the replicated state.
    pub apply: apply::Handle,
    /// Orders what is proposed.
    pub consensus: consensus::Handle,
    /// Other members.
    pub peers: Peers,
    /// The room on the disk.
    pub disk: DiskMonitor,
}

/// Cheap to clone. To be used on its own executor only.
#[derive(Clone)]
pub struct Desk {
    shared: Arc<Shared>,
    reach: Reach,
}

/// What is known of a lease.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TimeToLive {
    /// Seconds left; −1 when there is no such lease or it has expired.
    pub ttl: i64,
    /// Seconds granted; 0 when there is no such lease.
    pub granted: i64,
    /// Attached keys, sorted.
    pub keys: Vec<Bytes>,
}

impl Desk {
    /// Opens this executor's desk. Must be called on the executor, once.
    pub fn open(shared: Arc<Shared>, executor: u8, boot_nonce: u32, reach: Reach) -> Self {
        ROOM.set(Some(Room::new(executor, boot_nonce)));
        Self { shared, reach }
    }

    /// Appends a request to the log and waits until it is applied.
    ///
    /// The request is taken, and encoded before anything is waited for: thousands of callers may wait at once, and
    /// each of them keeps only what it needs from here on.
    ///
    /// # Errors
    /// The request's own refusal, or why it could not be applied in time (it may still be later).
    pub fn propose(
        &self,
        request: InternalRaftRequest,
    ) -> impl Future<Output = Result<Reply, Refusal>> + Send + use<> {
        let max = self.shared.node.max_request_bytes;
        let encoded = self.has_room().map(|()| {
            let mut encoded = BytesMut::with_capacity(request.encoded_len() + HEADER_BYTES_MAX);
            request.encode_raw(&mut encoded);
            encoded
        });
        async move {
            let mut data = encoded?;
            let ticket = Ticket::take().await;
            // Two encoded messages in a row are one that holds the fields of both.
            headed(ticket.0).encode_raw(&mut data);
            if data.len() > max {
                return Err(Refusal::RequestTooLarge);
            }
            let _pending = Pending::new(data.len());
            room(|room| room.send(data.freeze()));
            poll_fn(|context| room(|room| room.poll_reply(ticket.0, context)).unwrap_or(GONE)).await
        }
    }

    /// Whether another proposal may come in.
    fn has_room(&self) -> Result<(), Refusal> {
        if self.shared.stopping() {
            return Err(Refusal::Stopped);
        }
        let status = self.shared.status();
        if status.committed > status.applied + COMMITTED_UNAPPLIED_MAX {
            return Err(Refusal::TooManyRequests);
        }
        Ok(())
    }

    /// Waits until [`Desk::state`] shows everything that was acknowledged before this call.
    ///
    /// # Errors
    /// No leader confirmed it in time.
    pub async fn read_index(&self) -> Result<(), Refusal> {
        if self.shared.stopping() {
            return Err(Refusal::Stopped);
        }
        if self.shared.reads_freely() {
            return Ok(());
        }
        let Some(round) = room(Room::join_round) else { return Err(Refusal::Stopped) };
        let reader = Reader(round);
        poll_fn(|context| {
            room(|room| room.poll_round(reader.0, context))
                .unwrap_or(Poll::Ready(Err(Refusal::Stopped)))
        })
        .await
    }

    /// The newest published state; never waits.
    pub fn state(&self) -> Arc<State> {
        self.shared.state()
    }

    /// Whether there is no room on the disks for a request of so many bytes: see [`Desk::alarms`]. A leader looks at
    /// what is under way too, which it could not stop any more.
    pub fn lacks_room(&self, bytes: u64) -> bool {
        let under_way = || PENDING_BYTES.load(Ordering::Relaxed) + bytes;
        self.shared.lacks_room() || (self.leads() && self.reach.disk.may_lack(under_way()))
    }

    /// All active alarms, those too that stand for full disks and are in no log.
    pub fn alarms(&self) -> Vec<AlarmMember> {
        self.shared.alarms()
    }

    /// A few numbers; never waits.
    pub fn status(&self) -> Status {
        self.shared.status()
    }

    /// What never changes while the member runs.
    pub fn node(&self) -> &Node {
        &self.shared.node
    }

    /// The watch hub of this executor.
    pub fn hub(&self) -> &watch::Handle {
        &self.reach.hub
    }

    /// Prolongs a lease, here or where the leader is; gives its new time to live in seconds, 0 if there is no
    /// such lease.
    ///
    /// # Errors
    /// No leader could be asked in time.
    pub async fn keep_alive(&self, id: LeaseId) -> Result<i64, Refusal> {
        if self.leads() {
            return self.keep_alive_here(id).await;
        }
        self.ask_leader(&Ask::Renew(id)).await.map(|answer| answer.ttl)
    }

    /// Prolongs a lease on this member, which leads.
    ///
    /// # Errors
    /// It does not, or is stopping.
    pub async fn keep_alive_here(&self, id: LeaseId) -> Result<i64, Refusal> {
        // Who was deposed without knowing could prolong what the next leader ends.
        self.read_index().await.map_err(|_| Refusal::NotPrimaryLessor)?;
        if !self.leads() {
            return Err(Refusal::NotLeader);
        }
        self.reach.lease.keep_alive(id).await
    }

    /// What is left of a lease, and its keys if asked for.
    ///
    /// # Errors
    /// No leader could be asked in time.
    pub async fn time_to_live(&self, id: LeaseId, keys: bool) -> Result<TimeToLive, Refusal> {
        if self.leads() {
            return self.time_to_live_here(id, keys).await;
        }
        let ask = if keys { Ask::TimeToLiveAndKeys(id) } else { Ask::TimeToLive(id) };
        let answer = self.ask_leader(&ask).await?;
        Ok(TimeToLive { ttl: answer.ttl, granted: answer.granted, keys: answer.keys })
    }

    /// What is left of a lease, on this member, which leads.
    ///
    /// # Errors
    /// It does not, or is stopping.
    pub async fn time_to_live_here(&self, id: LeaseId, keys: bool) -> Result<TimeToLive, Refusal> {
        self.read_index().await?;
        if !self.leads() {
            return Err(Refusal::NotLeader);
        }
        let Some((granted, ttl)) = self.reach.lease.time_to_live(id).await? else {
            return Ok(TimeToLive { ttl: -1, ..TimeToLive::default() });
        };
        let keys = if keys { self.reach.apply.lease_keys(id).await? } else { Vec::new() };
        Ok(TimeToLive { ttl, granted, keys })
    }

    /// Whether this member leads, as far as it knows.
    pub fn leads(&self) -> bool {
        self.status().leader == self.node().member_id
    }

    /// Asks whoever leads until there is an answer.
    async fn ask_leader(&self, ask: &Ask) -> Result<Answer, Refusal> {
        let until_ms = clock::now_ms() + self.node().request_timeout_ms;
        while clock::now_ms() < until_ms {
            if self.shared.stopping() {
                return Err(Refusal::Stopped);
            }
            let leader = self.status().leader;
            if leader != 0 && leader != self.node().member_id {
                match self.reach.peers.ask(leader, ask.clone(), ASK_TIME).await.map(outcome) {
                    // Not any more, or not yet.
                    None | Some(Err(Refusal::NotLeader)) => (),
                    Some(outcome) => return outcome,
                }
            } else if leader != 0 {
                return Err(Refusal::LeaderChanged);
            }
            clock::sleep(ASK_PAUSE).await;
        }
        Err(if self.shared.has_leader() { Refusal::Timeout } else { Refusal::NoLeader })
    }

    /// Changes the membership and waits until that is applied.
    ///
    /// # Errors
    /// The change makes no sense, or could not be made in time.
    pub async fn change_members(
        &self,
        change: impl FnOnce(u64) -> ConfChange,
    ) -> Result<(), Refusal> {
        if self.shared.stopping() {
            return Err(Refusal::Stopped);
        }
        let ticket = Ticket::take().await;
        self.reach.consensus.conf_change(change(ticket.0).encode_to_vec().into()).await;
        let reply =
            poll_fn(|context| room(|room| room.poll_reply(ticket.0, context)).unwrap_or(GONE));
        reply.await.map(drop)
    }

    /// The hash of what this member holds up to a revision; of all of it for 0.
    ///
    /// # Errors
    /// That revision is compacted or not there yet, or the store cannot be read.
    pub async fn hash_kv(&self, revision: i64) -> Result<Hashed, Error> {
        let state = self.state();
        let mut cursor = state.read.hash_kv(revision)?;
        loop {
            if let Some(found) = cursor.step(&state.read.view, HASH_TURN_ENTRIES)? {
                return Ok(Hashed {
                    hash: found.hash,
                    compact_revision: found.compact_revision,
                    revision: found.revision,
                    newest: state.read.revision,
                });
            }
            yield_now().await;
        }
    }

    /// What the other members say to the same question; nothing from those that do not answer.
    pub async fn hashes_of_others(
        &self,
        revision: i64,
    ) -> Vec<(MemberId, Option<Result<Hashed, Refusal>>)> {
        let (own, state) = (self.node().member_id, self.state());
        let wait = Duration::from_millis(self.node().request_timeout_ms);
        let mut answers = Vec::new();
        for member in state.members.iter().filter(|member| member.id != own) {
            let answer = match self.reach.peers.is_connected(member.id, 0) {
                true => self.reach.peers.ask(member.id, Ask::HashKv(revision), wait).await,
                false => None,
            };
            let hashed = |answer: Answer| Hashed {
                hash: answer.hash,
                compact_revision: answer.compact_revision,
                revision: answer.hash_revision,
                newest: answer.revision,
            };
            answers.push((member.id, answer.map(|answer| outcome(answer).map(hashed))));
        }
        answers
    }

    /// Gives a learner a vote, here or where the leader is.
    ///
    /// # Errors
    /// It is none, is not ready, or it could not be done in time.
    pub async fn promote(&self, id: MemberId) -> Result<(), Refusal> {
        if self.leads() {
            return self.promote_here(id).await;
        }
        self.ask_leader(&Ask::Promote(id)).await.map(drop)
    }

    /// Gives a learner a vote; on the leader.
    ///
    /// # Errors
    /// See [`Desk::promote`].
    pub async fn promote_here(&self, id: MemberId) -> Result<(), Refusal> {
        if !self.leads() {
            return Err(Refusal::NotLeader);
        }
        let Some((matched, last)) = self.reach.consensus.matched(id).await else {
            return Err(Refusal::MemberNotFound);
        };
        // etcd's rule: nine tenths of the leader's log.
        if (matched as f64) < last as f64 * 0.9 {
            return Err(Refusal::LearnerNotReady);
        }
        if self.node().strict_reconfig && !cluster::is_ready_to_promote(&self.state().members) {
            return Err(Refusal::MemberNotEnoughStarted);
        }
        self.change_members(|request| cluster::promote(request, id)).await
    }

    /// Hands leadership over and waits until the other one leads.
    ///
    /// # Errors
    /// It took too long.
    pub async fn move_leader(&self, to: MemberId) -> Result<(), Refusal> {
        let until_ms = clock::now_ms() + self.node().request_timeout_ms;
        self.reach.consensus.transfer(to);
        while clock::now_ms() < until_ms {
            if self.status().leader == to {
                return Ok(());
            }
            clock::sleep(ASK_PAUSE).await;
        }
        Err(Refusal::TimeoutLeaderTransfer)
    }

    /// Ends when no leader was known for three election timeouts, as long as etcd lets streams go on.
    pub async fn leaderless(&self) {
        let election_ms = self.node().election_timeout_ms;
        let mut since_ms = clock::now_ms();
        while clock::now_ms() < since_ms + LEADERLESS_ELECTIONS_MAX * election_ms {
            clock::sleep(Duration::from_millis(election_ms / 4)).await;
            if self.shared.has_leader() {
                since_ms = clock::now_ms();
            }
        }
    }

    /// Other members, and since when they are connected.
    pub fn peers(&self) -> &Peers {
        &self.reach.peers
    }

    /// All leases, the one that expires first first.
    ///
    /// # Errors
    /// The member is stopping.
    pub async fn leases(&self) -> Result<Vec<LeaseId>, Refusal> {
        self.reach.lease.list().await
    }

    /// Merges all of the store's tables, for `patience` at most; after that it goes on by itself.
    pub async fn defragment(&self, patience: Duration) {
        let apply = &self.reach.apply;
        let merged = async {
            let Some(engine) = apply.engine().await else { return };
            let _ = engine.defragment().recv_async().await;
            // The view that was published before reads the tables that were merged.
            apply.refresh().await;
            let _ = engine.let_go().recv_async().await;
            apply.refresh().await;
        };
        clock::deadline(patience, merged).await;
    }

    /// Waits until everything before the newest compaction is gone from the store.
    pub async fn compaction_done(&self) {
        self.reach.apply.compaction_done().await;
    }

    /// Hands in what the sessions left, a round at a time. Runs on the desk's executor for ever.
    pub async fn flush(executor: usize, consensus: consensus::Handle) {
        loop {
            poll_fn(|context| room(|room| room.poll_work(context)).unwrap_or(Poll::Pending)).await;
            // Let every session that is ready add to the round.
            yield_now().await;
            let Some((proposals, read)) = room(Room::take_work) else { return };
            if !consensus.work(executor, proposals, read).await {
                return;
            }
        }
    }

    /// Hands out what apply answered. Runs on the desk's executor for ever.
    pub async fn deliver(inbox: flume::Receiver<Delivery>) {
        while let Ok(delivery) = inbox.recv_async().await {
            deliver_here(delivery);
        }
    }

    /// Turns away requests that waited too long. Runs on the desk's executor for ever.
    pub async fn sweep(self) {
        while !self.shared.stopping() {
            clock::sleep(std::time::Duration::from_millis(SWEEP_MS)).await;
            let now_ms = clock::now_ms();
            let timeout_ms = self.node().request_timeout_ms;
            room(|room| room.sweep(now_ms, timeout_ms, |since_ms| self.late(since_ms)));
        }
        room(Room::close);
    }

    /// Why a proposal made at `since_ms` was not applied in time, as far as this member can tell.
    fn late(&self, since_ms: u64) -> Refusal {
        // It never left: etcd's raft lets such proposals wait, and gives back its own error.
        if !self.shared.has_leader() && self.shared.leader_lost_ms() <= since_ms {
            return Refusal::RawDeadlineExceeded;
        }
        let found_ms = self.shared.leader_since_ms();
        let lost_ms = found_ms.saturating_sub(2 * self.node().election_timeout_ms);
        if lost_ms < since_ms && since_ms < found_ms {
            return Refusal::TimeoutDueToLeaderFail;
        }
        let peers = &self.reach.peers;
        let connected = |id| {
            let active_ms = peers.active_since_ms(id);
            id == self.node().member_id || (active_ms > 0 && active_ms < since_ms)
        };
        let reaches = match self.status().leader {
            0 => true,
            leader if leader == self.node().member_id => {
                let members = &self.state().members;
                let reached = members.iter().filter(|member| connected(member.id)).count();
                reached > members.len() / 2
            }
            leader => connected(leader),
        };
        if reaches { Refusal::Timeout } else { Refusal::TimeoutDueToConnectionLost }
    }
}

/// Delivers to this executor's own room, without a channel.
pub fn deliver_here(delivery: Delivery) {
    room(|room| room.deliver(delivery));
}

/// What a request's header takes at most: two bytes of tag, one of length, one of tag and the id.
const HEADER_BYTES_MAX: usize = 14;

/// A request that is nothing but its id.
fn headed(id: u64) -> InternalRaftRequest {
    let header = Some(RequestHeader { id, ..RequestHeader::default() });
    InternalRaftRequest { header, ..InternalRaftRequest::default() }
}

const GONE: Poll<Result<Reply, Refusal>> = Poll::Ready(Err(Refusal::Stopped));

/// Bytes of the proposals that wait to be applied, of all executors.
static PENDING_BYTES: AtomicU64 = AtomicU64::new(0);

/// Counts a proposal that waits to be applied, and its bytes.
struct Pending(u64);

impl Pending {
    fn new(bytes: usize) -> Self {
        metrics::PROPOSALS_PENDING.add(1);
        PENDING_BYTES.fetch_add(bytes as u64, Ordering::Relaxed);
        Self(bytes as u64)
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        metrics::PROPOSALS_PENDING.add(-1);
        PENDING_BYTES.fetch_sub(self.0, Ordering::Relaxed);
    }
}

/// A place in the waiting room; left when the request is answered or its client is gone.
struct Ticket(u64);

impl Ticket {
    async fn take() -> Self {
        let mut outside = Outside(None);
        Self(poll_fn(|context| Room::enter(&mut outside, context)).await)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        room(|room| room.leave(self.0));
    }
}

/// One that may have to wait for a place: its number among those that do.
struct Outside(Option<u64>);

impl Drop for Outside {
    fn drop(&mut self) {
        if let Some(place) = self.0 {
            room(|room| room.outside.give_up(place));
        }
    }
}

/// A reader in a round; the last one out takes the round away.
struct Reader(u64);

impl Drop for Reader {
    fn drop(&mut self) {
        room(|room| room.leave_round(self.0));
    }
}

impl Room {
    fn new(executor: u8, boot_nonce: u32) -> Self {
        Self {
            prefix: u64::from(boot_nonce) << 32 | u64::from(executor) << 24,
            counter: 0,
            now_ms: clock::now_ms(),
            replies: HashMap::new(),
            outside: Queue::default(),
            outbox: Vec::new(),
            rounds: HashMap::new(),
            round: 0,
            round_open: false,
            flusher: None,
        }
    }

    /// Takes a place, as soon as there is one.
    fn enter(outside: &mut Outside, context: &Context<'_>) -> Poll<u64> {
        room(|room| {
            if room.replies.len() >= REQUESTS_IN_FLIGHT_MAX {
                room.outside.wait(&mut outside.0, context.waker());
                return Poll::Pending;
            }
            outside.0.take().into_iter().for_each(|place| room.outside.enter(place));
            // A counter that wrapped round may meet a request that still waits: skip it.
            let id = loop {
                room.counter = (room.counter + 1) & 0xff_ffff;
                let id = room.prefix | u64::from(room.counter);
                if !room.replies.contains_key(&id) {
                    break id;
                }
            };
            let slot = Slot { waiting: Waiting::Empty(None), since_ms: room.now_ms };
            room.replies.insert(id, slot);
            Poll::Ready(id)
        })
        .unwrap_or(Poll::Ready(0))
    }

    fn leave(&mut self, id: u64) {
        self.replies.remove(&id);
        self.outside.wake_next();
    }

    fn send(&mut self, data: Bytes) {
        self.outbox.push(data);
        self.wake_flusher();
    }

    fn wake_flusher(&mut self) {
        if let Some(waker) = self.flusher.take() {
            waker.wake();
        }
    }

    fn poll_reply(&mut self, id: u64, context: &Context<'_>) -> Poll<Result<Reply, Refusal>> {
        let Some(slot) = self.replies.get_mut(&id) else { return GONE };
        match std::mem::replace(&mut slot.waiting, Waiting::Empty(None)) {
            Waiting::Answered(reply) => Poll::Ready(reply),
            Waiting::Empty(_) => {
                slot.waiting = Waiting::Empty(Some(context.waker().clone()));
                Poll::Pending
            }
        }
    }

    /// Joins the round that leaves next.
    fn join_round(&mut self) -> u64 {
        if !self.round_open {
            self.round += 1;
            self.round_open = true;
            let since_ms = self.now_ms;
            let round = Round { readers: 0, done: false, wakers: Vec::new(), since_ms };
            self.rounds.insert(self.round, round);
            self.wake_flusher();
        }
        if let Some(round) = self.rounds.get_mut(&self.round) {
            round.readers += 1;
        }
        self.round
    }

    fn poll_round(&mut self, number: u64, context: &Context<'_>) -> Poll<Result<(), Refusal>> {
        match self.rounds.get_mut(&number) {
            None => Poll::Ready(Err(Refusal::Timeout)),
            Some(round) if round.done => Poll::Ready(Ok(())),
            Some(round) => {
                round.wakers.push(context.waker().clone());
                Poll::Pending
            }
        }
    }

    fn leave_round(&mut self, number: u64) {
        let Some(round) = self.rounds.get_mut(&number) else { return };
        round.readers -= 1;
        if round.readers == 0 && !(self.round_open && number == self.round) {
            self.rounds.remove(&number);
        }
    }

    /// Ready when there is something to hand in; takes nothing yet.
    fn poll_work(&mut self, context: &Context<'_>) -> Poll<()> {
        if self.outbox.is_empty() && !self.round_open {
            self.flusher = Some(context.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(())
    }

    fn take_work(&mut self) -> (Vec<Bytes>, Option<u64>) {
        let read = self.round_open.then_some(self.round);
        self.round_open = false;
        self.now_ms = clock::now_ms();
        let mut bytes = 0;
        let fits = self.outbox.iter().take(BUNDLE_PROPOSALS_MAX).take_while(|proposal| {
            bytes += proposal.len();
            bytes <= BUNDLE_BYTES_MAX
        });
        let count = fits.count().max(1).min(self.outbox.len());
        if count == self.outbox.len() {
            return (std::mem::take(&mut self.outbox), read);
        }
        let later = self.outbox.split_off(count);
        (std::mem::replace(&mut self.outbox, later), read)
    }

    fn deliver(&mut self, delivery: Delivery) {
        for (id, reply) in delivery.replies {
            let Some(slot) = self.replies.get_mut(&id) else { continue };
            if let Waiting::Empty(Some(waker)) =
                std::mem::replace(&mut slot.waiting, Waiting::Answered(reply))
            {
                waker.wake();
            }
        }
        for number in delivery.reads {
            let Some(round) = self.rounds.get_mut(&number) else { continue };
            round.done = true;
            round.wakers.drain(..).for_each(Waker::wake);
        }
    }

    fn sweep(&mut self, now_ms: u64, timeout_ms: u64, why: impl Fn(u64) -> Refusal) {
        self.now_ms = now_ms;
        let late = now_ms.saturating_sub(timeout_ms);
        self.turn_away(|since_ms| since_ms < late, why);
    }

    fn close(&mut self) {
        self.turn_away(|_| true, |_| Refusal::Stopped);
    }

    fn turn_away(&mut self, is_late: impl Fn(u64) -> bool, why: impl Fn(u64) -> Refusal) {
        for slot in self.replies.values_mut().filter(|slot| is_late(slot.since_ms)) {
            if let Waiting::Empty(waker) = &mut slot.waiting {
                let waker = waker.take();
                slot.waiting = Waiting::Answered(Err(why(slot.since_ms)));
                metrics::PROPOSALS_FAILED.add(1);
                waker.into_iter().for_each(Waker::wake);
            }
        }
        let late = self.rounds.extract_if(|_, round| is_late(round.since_ms) && !round.done);
        late.for_each(|(_, round)| {
            metrics::READ_INDEXES_FAILED.add(round.readers as u64);
            round.wakers.into_iter().for_each(Waker::wake);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bundles_are_bounded_in_count_and_bytes() {
        let mut room = Room::new(0, 1);
        let large = Bytes::from(vec![0; BUNDLE_BYTES_MAX / 3]);
        let larger = Bytes::from(vec![0; 2 * BUNDLE_BYTES_MAX]);
        let small = vec![Bytes::from_static(b"x"); BUNDLE_PROPOSALS_MAX + 1];
        room.outbox = [vec![large; 4], vec![larger; 2], small].concat();
        let mut counts = Vec::new();
        while !room.outbox.is_empty() {
            counts.push(room.take_work().0.len());
        }
        assert_eq!(counts, [3, 1, 1, 1, BUNDLE_PROPOSALS_MAX, 1]);
        assert_eq!(room.take_work(), (Vec::new(), None));
    }
}
