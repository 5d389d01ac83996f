//! What sessions ask of the replica: one client for each executor, used on that executor only.
//!
//! Requests wait in the executor's [`PendingRequests`], which `actors::requests` hands in and answers. The client holds it by
//! [`SendWrapper`], because tonic wants futures that are `Send`: a use on another thread would panic.

mod hashes;
mod leases;
mod members;
mod slot;

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use basalt_proto::etcdserverpb::AlarmMember;
use send_wrapper::SendWrapper;

use self::slot::{PendingBytes, Slot};
use super::mailbox::peer::{Peers, outcome};
use super::mailbox::{apply, consensus, lease};
use super::state::{Node, Shared, State, Status};
use super::watch;
use crate::command::{Command, HEADER_BYTES_MAX, encode_header};
use crate::io::{DiskMonitor, clock};
use crate::machine::Reply;
use crate::peer::{Answer, PeerRequest};
use crate::replica::PendingRequests;
use crate::types::Refusal;
use crate::types::limits::COMMITTED_UNAPPLIED_MAX;

pub use self::leases::TimeToLive;

/// How long another member may take to answer.
const ASK_TIME: Duration = Duration::from_secs(1);
/// The time between two looks at who leads.
const ASK_PAUSE: Duration = Duration::from_millis(20);

/// Election timeouts without a leader that a stream survives whose client wants one; etcd's too.
pub const LEADERLESS_ELECTIONS_MAX: u64 = 3;

/// The requests of an executor, shared by its sessions and the actor that hands them in.
pub type Pending = SendWrapper<Rc<RefCell<PendingRequests>>>;

/// No requests yet. To be called on the executor that they belong to.
pub fn pending(executor: u8, boot_nonce: u32) -> Pending {
    let pending = PendingRequests::new(executor, boot_nonce, clock::now_ms());
    SendWrapper::new(Rc::new(RefCell::new(pending)))
}

/// The actors that a client asks.
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
    /// The room on the disk.
    pub disk: DiskMonitor,
}

/// Cheap to clone.
#[derive(Clone)]
pub struct ReplicaClient {
    shared: Arc<Shared>,
    pending: Pending,
    handles: Handles,
}

impl ReplicaClient {
    /// The client of the executor that `pending` belongs to.
    pub fn new(shared: Arc<Shared>, pending: Pending, handles: Handles) -> Self {
        Self { shared, pending, handles }
    }

    /// Appends a command to the log and waits until it is applied.
    ///
    /// The command is taken, and encoded before anything is waited for: thousands of callers may wait at once, and
    /// each of them keeps only what it needs from here on.
    ///
    /// # Errors
    /// The request's own refusal, or why it could not be applied in time (it may still be later).
    pub fn propose(
        &self,
        command: Command,
    ) -> impl Future<Output = Result<Reply, Refusal>> + Send + use<> {
        let max = self.shared.node.max_request_bytes;
        let accepted = self.accepts_proposals();
        let fits = accepted.and_then(|()| command.check_level(self.shared.feature_level()));
        let encoded = fits.map(|()| command.encode_with_room(HEADER_BYTES_MAX));
        let pending = self.pending.clone();
        async move {
            let mut data = encoded?;
            let slot = Slot::acquire(&pending).await;
            encode_header(slot.id(), &mut data);
            if data.len() > max {
                return Err(Refusal::RequestTooLarge);
            }
            let _bytes = PendingBytes::add(data.len());
            pending.borrow_mut().propose(data.freeze());
            slot.reply().await
        }
    }

    /// Whether another proposal may come in.
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

    /// Waits until a read index shows that a leader was known that a quorum follows; not until that is applied, while a large
    /// entry is.
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

    /// Whether there is no room on the disks for a request of so many bytes: see [`ReplicaClient::alarms`]. A leader looks at
    /// what is under way too, which it could not stop any more.
    pub fn lacks_room(&self, bytes: u64) -> bool {
        let under_way = || PendingBytes::all() + bytes;
        self.shared.lacks_room() || (self.leads() && self.handles.disk.may_lack(under_way()))
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

    /// The watch streams of this executor.
    pub fn watches(&self) -> &watch::Sessions {
        &self.handles.watches
    }

    /// Whether this member leads, as far as it knows.
    pub fn leads(&self) -> bool {
        self.status().leader == self.node().member_id
    }

    /// Asks whoever leads until there is an answer.
    async fn ask_leader(&self, request: &PeerRequest) -> Result<Answer, Refusal> {
        let until_ms = clock::now_ms() + self.node().request_timeout_ms;
        while clock::now_ms() < until_ms {
            if self.shared.stopping() {
                return Err(Refusal::Stopped);
            }
            let leader = self.status().leader;
            if leader != 0 && leader != self.node().member_id {
                match self.handles.peers.ask(leader, request.clone(), ASK_TIME).await.map(outcome) {
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
        &self.handles.peers
    }

    /// Merges all of the store's tables, for `patience` at most; after that it goes on by itself.
    pub async fn defragment(&self, patience: Duration) {
        let apply = &self.handles.apply;
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
        self.handles.apply.compaction_done().await;
    }
}
