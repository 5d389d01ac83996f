//! Requests of sessions to the replica: one client for each executor, used on that executor only.
//!
//! Requests wait in the executor's [`PendingRequests`], which `actors::requests` sends and answers. The client holds it
//! by [`SendWrapper`], because tonic requires futures that are `Send`: a use on another thread would panic.

mod admission;
mod auth;
mod hashes;
mod leases;
mod members;
mod slot;

use std::cell::{RefCell, RefMut};
use std::future::{Future, poll_fn};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use basalt_proto::etcdserverpb::{AlarmMember, RequestHeader};
use bytes::Bytes;
use send_wrapper::SendWrapper;

use self::admission::Admission;
use self::slot::Slot;
use super::mailbox::peer::{Peers, outcome};
use super::mailbox::{apply, consensus, lease};
use super::state::{Node, Shared, State, Status};
use super::tokens::{KnownTokens, Tokens};
use super::watch;
use crate::auth::AuthInfo;
use crate::command::{Command, HEADER_BYTES_MAX, encode_header, header_bytes_max};
use crate::io::{DiskMonitor, Passwords, RequestBytes, clock};
use crate::machine::Reply;
use crate::peer::{Answer, PeerRequest};
use crate::replica::PendingRequests;
use crate::types::Refusal;
use crate::types::limits::{COMMITTED_UNAPPLIED_MAX, WAL_ROOM_BYTES_LOW};

pub use self::leases::TimeToLive;

/// Timeout of another member's answer.
const ASK_TIME: Duration = Duration::from_secs(1);
/// Interval between two checks of the leader.
const ASK_PAUSE: Duration = Duration::from_millis(20);

/// Election timeouts without a leader after which streams that require one end; etcd's number.
pub const LEADERLESS_ELECTIONS_MAX: u64 = 3;

/// The header of an entry.
fn header(id: u64, who: Option<&AuthInfo>) -> RequestHeader {
    let (username, auth_revision) =
        who.map_or((String::new(), 0), |who| (who.user.as_ref().to_owned(), who.revision));
    RequestHeader { id, username, auth_revision }
}

/// The requests of an executor, shared by its sessions and the actor that hands them in.
#[derive(Clone)]
pub struct Pending {
    requests: SendWrapper<Rc<RefCell<PendingRequests>>>,
    admission: Admission,
}

impl Pending {
    /// No requests yet. To be called on the executor that they belong to.
    pub fn new(executor: u8, boot_nonce: u32, node: &Node) -> Self {
        let requests = PendingRequests::new(executor, boot_nonce, clock::now_ms());
        let timeout = Duration::from_millis(node.request_timeout_ms);
        Self {
            requests: SendWrapper::new(Rc::new(RefCell::new(requests))),
            admission: Admission::new(&node.budgets, timeout),
        }
    }

    pub(super) fn borrow_mut(&self) -> RefMut<'_, PendingRequests> {
        self.requests.borrow_mut()
    }

    fn admission(&self) -> &Admission {
        &self.admission
    }

    /// Answers all requests, and refuses those that wait: the member stops.
    pub(super) fn close(&self) {
        self.admission.close();
        self.borrow_mut().close();
    }
}

/// The actors that a client calls.
#[derive(Clone)]
pub struct Handles {
    /// The watch streams of the executor.
    pub watches: watch::Sessions,
    /// Keeps the time of leases.
    pub lease: lease::Handle,
    /// Holds the replicated state.
    pub apply: apply::Handle,
    /// Orders proposals.
    pub consensus: consensus::Handle,
    /// Other members.
    pub peers: Peers,
    /// The monitor of the free disk space.
    pub disk: DiskMonitor,
    /// Tells whose a token is.
    pub tokens: Arc<Tokens>,
    /// The tokens that the executor has seen.
    pub known_tokens: KnownTokens,
    /// Checks passwords.
    pub passwords: Passwords,
}

/// A session's access to the replica. Cheap to clone.
#[derive(Clone)]
pub struct ReplicaClient {
    shared: Arc<Shared>,
    pending: Pending,
    handles: Handles,
}

impl ReplicaClient {
    /// The client of the executor of `pending`.
    pub fn new(shared: Arc<Shared>, pending: Pending, handles: Handles) -> Self {
        Self { shared, pending, handles }
    }

    /// Appends a command of the member itself to the log and waits until it is applied.
    ///
    /// # Errors
    /// See [`ReplicaClient::propose_as`].
    pub fn propose(
        &self,
        command: Command,
    ) -> impl Future<Output = Result<Reply, Refusal>> + Send + use<> {
        self.propose_as(None, command)
    }

    /// Appends a command to the log in somebody's name and waits until it is applied.
    ///
    /// The command is consumed, and encoded before the first wait: thousands of callers may wait at once, and each of
    /// them keeps only the state needed from then on.
    ///
    /// # Errors
    /// The request's own refusal, or the reason why it was not applied in time (it may still be later).
    pub fn propose_as(
        &self,
        who: Option<&AuthInfo>,
        command: Command,
    ) -> impl Future<Output = Result<Reply, Refusal>> + Send + use<> {
        let reply = self.propose_entry(who, command, false);
        async move { reply.await.map_err(|(refusal, _)| refusal) }
    }

    /// The same for a caller that may propose the command again: a refusal comes with the entry, which holds it. The command
    /// itself is not kept, for its bytes are a part of what the connection has read.
    ///
    /// # Errors
    /// See [`ReplicaClient::propose_as`].
    pub fn propose_again_as(
        &self,
        who: Option<&AuthInfo>,
        command: Command,
    ) -> impl Future<Output = Result<Reply, (Refusal, Option<Bytes>)>> + Send + use<> {
        self.propose_entry(who, command, true)
    }

    fn propose_entry(
        &self,
        who: Option<&AuthInfo>,
        command: Command,
        keeps_entry: bool,
    ) -> impl Future<Output = Result<Reply, (Refusal, Option<Bytes>)>> + Send + use<> {
        let max = self.shared.node.max_request_bytes;
        let accepted = self.accepts_proposals();
        let fits = accepted.and_then(|()| command.check_level(self.shared.feature_level()));
        let room = who.map_or(HEADER_BYTES_MAX, |who| header_bytes_max(&who.user));
        let encoded = fits.map(|()| command.encode_with_room(room));
        let who = who.cloned();
        let pending = self.pending.clone();
        async move {
            let refused = |refusal| (refusal, None);
            let mut data = encoded.map_err(refused)?;
            // It need not wait to be refused.
            if data.len() > max {
                return Err(refused(Refusal::RequestTooLarge));
            }
            let slot = Slot::acquire(&pending, data.len()).await.map_err(refused)?;
            encode_header(header(slot.id(), who.as_ref()), &mut data);
            if data.len() > max {
                return Err(refused(Refusal::RequestTooLarge));
            }
            let entry = data.freeze();
            let kept = keeps_entry.then(|| entry.clone());
            pending.borrow_mut().propose(slot.id(), entry);
            slot.reply().await.map_err(|refusal| (refusal, kept))
        }
    }

    /// True if an entry of this command in somebody's name is not larger than a request may be.
    pub fn may_log(&self, who: Option<&AuthInfo>, command: &Command) -> bool {
        let room = who.map_or(HEADER_BYTES_MAX, |who| header_bytes_max(&who.user));
        let mut data = command.encode_with_room(room);
        // Ids are as long as this one, but for a byte.
        encode_header(header(u64::MAX, who), &mut data);
        data.len() <= self.shared.node.max_request_bytes
    }

    /// Checks that another proposal is accepted.
    fn accepts_proposals(&self) -> Result<(), Refusal> {
        if self.shared.stopping() {
            return Err(Refusal::Stopped);
        }
        let status = self.shared.status();
        if status.committed > status.applied + COMMITTED_UNAPPLIED_MAX {
            return Err(Refusal::TooManyRequests);
        }
        Ok(())
    }

    /// Waits until [`ReplicaClient::state`] shows everything that was acknowledged before this call.
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
        let reader = slot::Reader::join(&self.pending);
        poll_fn(|context| reader.poll(context.waker())).await
    }

    /// Waits until a read index confirms a leader with a quorum; does not wait until that index is applied, which may
    /// take long during a large entry.
    async fn confirm_leader(&self) -> Result<(), Refusal> {
        if self.shared.stopping() {
            return Err(Refusal::Stopped);
        }
        if self.shared.reads_freely() {
            return Ok(());
        }
        let reader = slot::Reader::join(&self.pending);
        poll_fn(|context| reader.poll_index(context.waker())).await
    }

    /// The newest published state; never waits.
    pub fn state(&self) -> Arc<State> {
        self.shared.state()
    }

    /// True if there is not enough disk space for a request of so many bytes: see [`ReplicaClient::alarms`]. A leader
    /// also counts the requests in flight, which it could not stop any more.
    pub fn lacks_room(&self, bytes: u64) -> bool {
        let may_lack = || {
            let log_room = self.shared.log_room().saturating_sub(WAL_ROOM_BYTES_LOW);
            log_room < RequestBytes::all() + bytes || self.handles.disk.may_lack(bytes)
        };
        self.shared.lacks_room() || (self.leads() && may_lack())
    }

    /// All active alarms, including those for full disks, which are not in the log.
    pub fn alarms(&self) -> Vec<AlarmMember> {
        self.shared.alarms()
    }

    /// Positions and leader; never waits.
    pub fn status(&self) -> Status {
        self.shared.status()
    }

    /// Properties of the member that do not change while it runs.
    pub fn node(&self) -> &Node {
        &self.shared.node
    }

    /// The watch streams of this executor.
    pub fn watches(&self) -> &watch::Sessions {
        &self.handles.watches
    }

    /// True if this member leads, as far as it knows.
    pub fn leads(&self) -> bool {
        self.status().leader == self.node().member_id
    }

    /// Asks the leader, and repeats the question until there is an answer.
    async fn ask_leader(&self, request: &PeerRequest) -> Result<Answer, Refusal> {
        let until_ms = clock::now_ms() + self.node().request_timeout_ms;
        while clock::now_ms() < until_ms {
            if self.shared.stopping() {
                return Err(Refusal::Stopped);
            }
            let leader = self.status().leader;
            if leader != 0 && leader != self.node().member_id {
                match self.handles.peers.ask(leader, request.clone(), ASK_TIME).await.map(outcome) {
                    // The asked member is not the leader any more, or not yet.
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

    /// Ends when no leader was known for three election timeouts, after which etcd ends streams.
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

    /// Connections to other members.
    pub fn peers(&self) -> &Peers {
        &self.handles.peers
    }

    /// Merges all of the store's tables; returns after `patience` at the latest, and then the merge continues in
    /// the background.
    pub async fn defragment(&self, patience: Duration) {
        let apply = &self.handles.apply;
        let merged = async {
            let Some(engine) = apply.engine().await else { return };
            let _ = engine.defragment().recv_async().await;
            // The published view still reads the tables that were merged.
            apply.refresh().await;
            let _ = engine.let_go().recv_async().await;
            apply.refresh().await;
        };
        clock::deadline(patience, merged).await;
    }

    /// Waits until the store has removed everything before the newest compaction.
    pub async fn compaction_done(&self) {
        self.handles.apply.compaction_done().await;
    }
}
