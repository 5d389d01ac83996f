//! Assignment of actors to cores, and of handles to actors. Nothing else connects actors.
//!
//! Consensus, the log and apply share the first core; every core, that one too, has sessions and a watch hub. Measured
//! on two cores this is the fastest layout: a request involves as few executors as possible.

use std::sync::Arc;
use std::time::Duration;

use futures_lite::future::yield_now;

use super::Config;
use super::open::Opened;
use super::raft_log;
use super::values::Listen;
use crate::actors::client::{self, LEADERLESS_ELECTIONS_MAX, Pending, ReplicaClient};
use crate::actors::mailbox::peer::{Identity, Peers};
use crate::actors::mailbox::{apply, consensus, lease, peer, wal};
use crate::actors::tokens::{KnownTokens, Tokens};
use crate::actors::{self, Node, Shared, requests, watch};
use crate::cluster::Member;
use crate::consensus::Driver;
use crate::http::{self, Endpoints, HttpService};
use crate::io::{self, DiskMonitor, Passwords, clock};
use crate::lease::ttl_min;
use crate::replica::{self, AppliedLog, Applier, Delivery, LeaseKeeper, Replica};
use crate::rpc::Policy;
use crate::types::limits::{COMPACT_SLICE_RECORDS, STREAMS_OF_MEMBER_MAX};
use crate::types::{Budgets, Fault};
use crate::watch::StreamOptions;

/// Answers queued for one executor: no more than it has requests in flight, and read rounds.
const DELIVERIES_MAX: usize = 2 * crate::types::limits::REQUESTS_IN_FLIGHT_MAX;

/// Kinds of ports.
pub(super) const PORTS: usize = 3;

/// The services of each kind of port, and its addresses. Connections are marked with the index of their port in this list.
pub(super) fn ports(config: &Config) -> [(Endpoints, &Vec<Listen>); PORTS] {
    let clients = if config.listen_http.is_empty() { Endpoints::All } else { Endpoints::Grpc };
    [
        (clients, &config.listen_clients),
        (Endpoints::Http, &config.listen_http),
        (Endpoints::Metrics, &config.listen_metrics),
    ]
}

/// Handles of the actors that exist once.
#[derive(Clone)]
pub(super) struct Handles {
    pub(super) consensus: consensus::Handle,
    pub(super) wal: wal::Handle,
    pub(super) apply: apply::Handle,
    pub(super) lease: lease::Handle,
    pub(super) peers: Peers,
    pub(super) disk: DiskMonitor,
    pub(super) tokens: Arc<Tokens>,
    pub(super) passwords: Passwords,
}

pub(super) struct Inboxes {
    consensus: consensus::Inbox,
    wal: (flume::Receiver<wal::Msg>, Arc<wal::Space>),
    apply: flume::Receiver<apply::Msg>,
    lease: lease::Inbox,
    peers: peer::Inbox,
}

/// All mailboxes of the actors that exist once.
pub(super) fn mailboxes(
    identity: Identity,
    disk: DiskMonitor,
    tokens: Arc<Tokens>,
    passwords: Passwords,
) -> (Handles, Inboxes) {
    let (consensus, consensus_inbox) = consensus::mailbox();
    let (wal, wal_inbox, space) = wal::mailbox();
    let (apply, apply_inbox) = apply::mailbox();
    let (lease, lease_inbox) = lease::mailbox();
    let (peers, peers_inbox) = Peers::new(identity, consensus.clone());
    let handles = Handles { consensus, wal, apply, lease, peers, disk, tokens, passwords };
    let inboxes = Inboxes {
        consensus: consensus_inbox,
        wal: (wal_inbox, space),
        apply: apply_inbox,
        lease: lease_inbox,
        peers: peers_inbox,
    };
    (handles, inboxes)
}

/// A context for each executor, and the channels to which apply sends events and answers. `pending` belongs to this
/// executor, the first.
pub(super) fn executor_contexts(
    count: usize,
    boot_nonce: u32,
    config: &Config,
    handles: &Handles,
    pending: &Pending,
    policy: &Arc<Policy>,
    shared: &Arc<Shared>,
) -> (Vec<ExecutorContext>, actors::apply::Outputs) {
    let budgets = shared.node.budgets;
    let http2 = io::Http2 {
        streams_max: config.max_streams,
        streams_of_executor_max: STREAMS_OF_MEMBER_MAX / count.max(1),
        unsent_max: budgets.responses / (8 * count.max(1)),
        ping_min: config.ping_min,
        keep_alive: config.keep_alive,
        keep_alive_timeout: config.keep_alive_timeout,
    };
    let (mut hubs, mut deliveries) = (Vec::new(), Vec::new());
    let context = |executor| {
        let options = watch::Options {
            max_request_bytes: config.max_request_bytes,
            hub_bytes_max: budgets.watch_hub,
            streams: StreamOptions {
                progress_interval_ms: config.progress_notify.as_millis() as u64,
                no_leader_ms_max: LEADERLESS_ELECTIONS_MAX * config.election.as_millis() as u64,
                seed: io::random_u64(),
            },
        };
        let source: Arc<dyn watch::Source> = Arc::<Shared>::clone(shared);
        let (hub, hub_inbox) = watch::mailbox(source, options);
        let (delivery, delivered) = flume::bounded(DELIVERIES_MAX);
        hubs.push(hub);
        deliveries.push(delivery);
        ExecutorContext {
            executor,
            boot_nonce,
            hub_inbox,
            handles: handles.clone(),
            delivered,
            connections: io::handover(),
            http2,
            http: ports(config).map(|(serves, _)| config.http(serves, policy)),
        }
    };
    let executor_contexts = (0..count).map(context).collect();
    let outputs = actors::apply::Outputs {
        consensus: handles.consensus.clone(),
        wal: handles.wal.clone(),
        lease: handles.lease.clone(),
        peers: handles.peers.clone(),
        hubs,
        deliveries,
        here: (0, pending.clone()),
        disk: handles.disk.clone(),
        tokens: Arc::clone(&handles.tokens),
    };
    (executor_contexts, outputs)
}

/// Starts the actors that exist once, on this executor. Returns a receiver of the notification when this member
/// becomes leader.
pub(super) fn start_actors(
    config: &Config,
    boot_nonce: u64,
    opened: Opened,
    handles: &Handles,
    inboxes: Inboxes,
    outputs: actors::apply::Outputs,
    shared: &Arc<Shared>,
) -> Result<flume::Receiver<()>, Fault> {
    // Vote leases, of this run and of an earlier one, are counted in ticks: each must take its full time.
    let counts_ticks = config.lease_based_reads || opened.restored.vote_lease_ticks > 0;
    let driver = Driver::new(
        raft_config(config, &opened.member, &opened.budgets, boot_nonce),
        &opened.restored,
    )?;
    let election_ms = config.election.as_millis() as u64;
    let keeper = LeaseKeeper::new(election_ms, opened.machine.leases(), clock::now_ms());
    let settings = replica::Settings {
        executors: outputs.deliveries.len(),
        boot_nonce: boot_nonce as u32,
        snapshot_count: config.snapshot_count,
        slice_records: COMPACT_SLICE_RECORDS,
        compaction_batch: config.compaction_batch,
        compaction_pause: config.compaction_sleep,
    };
    let log = AppliedLog::from(&opened.restored);
    let applier = Applier::new(opened.machine, &settings, log);

    let (leads, led) = flume::bounded(1);
    let consensus_outputs = actors::consensus::Outputs {
        wal: handles.wal.clone(),
        apply: handles.apply.clone(),
        lease: handles.lease.clone(),
        peers: handles.peers.clone(),
        leads,
    };
    let consensus = handles.consensus.clone();
    let (replica, inbox) =
        (Replica::new(driver, config.heartbeat, opened.budgets.deferred), inboxes.consensus);
    io::spawn(actors::consensus::run(replica, inbox, consensus_outputs, Arc::clone(shared)));
    io::spawn(actors::peer::run(handles.peers.clone(), inboxes.peers, Arc::clone(shared)));
    let (wal_inbox, space) = inboxes.wal;
    let wal = actors::wal::run(opened.wal, wal_inbox, space, consensus.clone());
    io::spawn(async move { stop_on_fault(wal.await) });
    let apply = actors::apply::run(applier, inboxes.apply, outputs, Arc::clone(shared));
    io::spawn(async move { stop_on_fault(apply.await) });
    io::spawn(actors::apply::refreshes(handles.apply.clone()));
    io::spawn(actors::lease::run(keeper, inboxes.lease, consensus.clone()));
    io::spawn(actors::lease::ticks(handles.lease.clone()));
    io::spawn(ticks(config.heartbeat, consensus.clone(), handles.disk.clone()));
    if opened.state.sole_voter {
        // A sole voter need not wait for an election timeout.
        consensus.campaign();
    } else if config.election_advance && !counts_ticks {
        io::spawn(advance(config.clone(), handles.clone()));
    }
    Ok(led)
}

fn stop_on_fault(outcome: Result<(), Fault>) {
    if let Err(fault) = outcome {
        io::fatal(&fault)
    }
}

/// Everything an executor needs to serve connections.
pub(super) struct ExecutorContext {
    executor: usize,
    boot_nonce: u32,
    hub_inbox: watch::Mailbox,
    handles: Handles,
    delivered: flume::Receiver<Delivery>,
    pub(super) connections: (io::ConnectionSender, flume::Receiver<io::Connection>),
    http2: io::Http2,
    http: [http::Options; PORTS],
}

impl ExecutorContext {
    /// Serves the connections sent to this executor. `pending` are its own requests, made here if there are none yet.
    pub(super) fn take(self, pending: Option<Pending>, shared: &Arc<Shared>) -> ReplicaClient {
        let executor = u8::try_from(self.executor).expect("no more than EXECUTORS_MAX");
        let pending =
            pending.unwrap_or_else(|| Pending::new(executor, self.boot_nonce, &shared.node));
        let Handles { consensus, lease, apply, peers, disk, tokens, passwords, .. } = self.handles;
        io::spawn(requests::hand_in(self.executor, pending.clone(), consensus.clone()));
        io::spawn(requests::deliver(pending.clone(), self.delivered));
        io::spawn(requests::sweep(pending.clone(), Arc::clone(shared), peers.clone()));
        let (watches, hub) = watch::start(self.hub_inbox);
        io::spawn(async move { stop_on_fault(hub.await) });
        let handles = client::Handles {
            watches,
            lease,
            apply,
            consensus,
            peers,
            disk,
            tokens,
            known_tokens: KnownTokens::new(),
            passwords,
        };
        let replica = ReplicaClient::new(Arc::clone(shared), pending, handles);
        let services = self.http.map(|options| HttpService::new(&replica, options));
        let (connections, http2) = (self.connections.1, self.http2);
        io::spawn_accept(async move {
            while let Ok(connection) = connections.recv_async().await {
                // Thousands may come at once.
                yield_now().await;
                let Some(connection) = connection.open() else { continue };
                let front = services[connection.port()].to(&connection);
                let switched = front.clone();
                io::spawn_client(io::serve(connection, http2, front, |rest| {
                    switched.switched(rest)
                }));
            }
        });
        replica
    }
}

pub(super) fn node(config: &Config, opened: &Opened) -> Node {
    Node {
        cluster_id: opened.cluster_id,
        member_id: opened.member.id,
        max_txn_ops: config.max_txn_ops,
        max_request_bytes: config.max_request_bytes,
        budgets: opened.budgets,
        quota_bytes: config.quota_bytes,
        request_timeout_ms: 5000 + 2 * config.election.as_millis() as u64,
        strict_reconfig: config.strict_reconfig,
        election_timeout_ms: config.election.as_millis() as u64,
        lease_ttl_min: ttl_min(config.election.as_millis() as u64),
        learners_max: config.learners_max,
        feature_level: opened.identity.machine.feature_level,
        slow_apply: config.slow_apply,
    }
}

fn raft_config(
    config: &Config,
    member: &Member,
    budgets: &Budgets,
    boot_nonce: u64,
) -> crate::consensus::Config {
    crate::consensus::Config {
        id: member.id,
        election_ticks: config.election_ticks(),
        heartbeat_ticks: 1,
        pre_vote: config.pre_vote,
        seed: boot_nonce,
        boot_nonce,
        catch_up_entries: config.catch_up_entries,
        catch_up_bytes_max: budgets.catch_up,
        uncommitted_bytes_max: budgets.uncommitted,
        vote_lease: config.vote_lease(),
        logger: Some(raft_log::logger()),
    }
}

/// Skips most of the first election timeout once another member is connected, which can vote or lead.
async fn advance(config: Config, handles: Handles) {
    let ticks = config.election.div_duration_f64(config.heartbeat) as u64;
    for _ in 0..ticks {
        if handles.peers.any_connected() {
            // One heartbeat interval is left to receive a message of a leader.
            (2..ticks).all(|_| handles.consensus.tick(handles.disk.space()));
            return;
        }
        clock::sleep(config.heartbeat).await;
    }
}

async fn ticks(every: Duration, consensus: consensus::Handle, disk: DiskMonitor) {
    loop {
        clock::sleep(every).await;
        if !consensus.tick(disk.space()) {
            return;
        }
    }
}
