//! Lays the actors out on cores, starts and stops them.
//!
//! Consensus, the log and apply share the first core; every core, that one too, has sessions and a watch hub.
//! Measured on two cores this is the fastest layout: what one request needs is on as few executors as
//! possible.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use basalt_proto::etcdserverpb::InternalRaftRequest;
use basalt_proto::membershippb::{Attributes, ClusterMemberAttrSetRequest};
use futures_lite::future::or;

use super::Config;
use super::gates::Gate;
use super::open::{Opened, open};
use super::{corruption, versions};
use crate::actors::desk::{Delivery, LEADERLESS_ELECTIONS_MAX, Reach};
use crate::actors::peer::{Identity, Peers};
use crate::actors::{Desk, Node, Shared, apply, compactor, consensus, lease, peer, wal, watch};
use crate::cluster::{Member, Version};
use crate::consensus::Driver;
use crate::http::{self, Front, Serves};
use crate::io::{self, Address, DiskMonitor, Executors, Lane, clock};
use crate::lease::Expiry;
use crate::types::{Fault, Refusal};

/// Answers on their way to one executor: no more than it has requests in flight, and read rounds.
const DELIVERIES_MAX: usize = 2 * crate::types::limits::REQUESTS_IN_FLIGHT_MAX;

/// Kinds of ports.
const PORTS: usize = 3;

/// What is served where. Connections are marked with the place in this list of the port they came to.
fn ports(config: &Config) -> [(Serves, &Vec<Address>); PORTS] {
    let clients = if config.listen_http.is_empty() { Serves::All } else { Serves::Grpc };
    [
        (clients, &config.listen_clients),
        (Serves::Http, &config.listen_http),
        (Serves::Metrics, &config.listen_metrics),
    ]
}

/// How long a member that is told to stop waits for what is under way.
const STOP_TIME: Duration = Duration::from_millis(500);

/// Before this member tries again to publish itself.
const PUBLISH_PAUSE: Duration = Duration::from_millis(100);

/// Before it looks again whether the cluster has a version; a new cluster has one at once.
const VERSION_PAUSE: Duration = Duration::from_millis(10);

/// Runs a member until it is told to stop by SIGTERM or SIGINT.
///
/// # Errors
/// Why it cannot start, or what stopped it.
pub fn run(config: Config) -> Result<(), Fault> {
    let cores = match config.cores.is_empty() {
        true => io::own_cores(),
        false => config.cores.clone(),
    };
    io::raise_open_files(cores.len())?;
    io::preflight()?;
    io::refuse_foreign(&config.data_dir)?;
    io::refuse_unfinished(&config.data_dir)?;
    let member_dir = config.data_dir.join("member");
    io::prepare_data_dir(&config.data_dir)?;
    io::prepare_data_dir(&member_dir)?;
    let _lock = io::lock_data_dir(&member_dir)?;
    tracing::info!(
        name = config.name,
        data_dir = %config.data_dir.display(),
        etcd_version = %Version::SERVER,
        basalt_version = env!("CARGO_PKG_VERSION"),
        cores = ?cores,
        layout = "consensus, wal, apply and lease on the first core; sessions and a watch hub on each",
        "starting a member"
    );
    let (stop, stopped) = flume::bounded(1);
    on_signal(stop)?;
    let mut executors = Executors::new();
    let first = cores[0];
    let others = cores[1..].to_vec();
    executors.start(first, move || first_core(config, others, stopped))?;
    executors.poke();
    executors.join()
}

/// Tells `stop` when the process is asked to end.
fn on_signal(stop: flume::Sender<()>) -> Result<(), Fault> {
    use signal_hook::consts::{SIGINT, SIGTERM};
    let cannot = |error| Fault::new(format!("signals cannot be caught: {error}"));
    let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM]).map_err(cannot)?;
    let waiting = std::thread::Builder::new().name("signals".into()).spawn(move || {
        for signal in signals.forever() {
            tracing::info!(signal, "received signal; shutting down");
            // One request to stop is enough.
            let _ = stop.try_send(());
        }
    });
    waiting.map(drop).map_err(cannot)
}

/// Everything on the first core: opens what is on disk, starts the actors and the other cores, serves until
/// told to stop.
async fn first_core(
    config: Config,
    others: Vec<usize>,
    stopped: flume::Receiver<()>,
) -> Result<(), Fault> {
    let opened = open(&config).await?;
    let (handles, inboxes) = mailboxes(opened.identity.clone(), opened.disk.clone());
    handles.peers.update(opened.machine.cluster());
    opened.others.iter().for_each(|member| handles.peers.meet(member));
    let boot_nonce = io::random_u64();
    let shared = Arc::new(Shared::new(node(&config, &opened), opened.state.clone()));
    let (seats, outlets) = seats(1 + others.len(), boot_nonce as u32, &config, &handles, &shared);
    let led = start_actors(&config, boot_nonce, opened, &handles, inboxes, outlets, &shared)?;
    let connections: Vec<_> = seats.iter().map(|seat| seat.connections.0.clone()).collect();
    let mut seats = seats.into_iter();
    let Some(own) = seats.next() else { return Err(Fault::new("there is no core to run on")) };
    let mut executors = Executors::new();
    let mut stops = Vec::new();
    for (core, seat) in others.into_iter().zip(seats) {
        let (stop, stopped) = flume::bounded::<()>(1);
        stops.push(stop);
        let shared = Arc::clone(&shared);
        executors.start(core, move || async move {
            seat.take(&shared);
            // Ends when the first core drops the other end.
            let _ = stopped.recv_async().await;
            io::close_connections(STOP_TIME).await;
            Ok(())
        })?;
    }
    executors.poke();
    let desk = own.take(&shared);
    listen_peers(&config, &desk, &handles.peers)?;
    io::spawn(versions::watch(desk.clone(), led));
    let serving = async {
        // May wait for the others for as long as they take.
        join_in(&config, &desk).await?;
        watch_corruption(&config, &desk);
        listen(&config, &connections)?;
        io::spawn(compactor::run(config.retention, desk.clone(), Arc::clone(&shared)));
        say_ready(&config, &desk);
        pending().await
    };
    let stop = async {
        let _ = stopped.recv_async().await;
        Ok(())
    };
    or(stop, serving).await?;
    hand_over(&config, &desk).await;
    shared.stop();
    drop(stops);
    io::close_connections(STOP_TIME).await;
    handles.apply.close().await;
    // Sessions that are still open end with the process. What they wait for was not acknowledged; what was
    // is in the log.
    io::leave()
}

/// Waits until this member is one of those that the cluster counts on.
async fn join_in(config: &Config, desk: &Desk) -> Result<(), Fault> {
    if config.gates.is_on(Gate::InitialCorruptCheck) {
        corruption::check_first(desk).await?;
    }
    publish_self(config, desk).await
}

fn watch_corruption(config: &Config, desk: &Desk) {
    if !config.corrupt_check.is_zero() {
        io::spawn(corruption::watch(desk.clone(), config.corrupt_check));
    }
    if config.gates.is_on(Gate::CompactHashCheck) {
        io::spawn(corruption::watch_compactions(desk.clone(), config.compact_hash_check));
    }
}

/// A leader that stops lets the voter lead that has been connected longest, so that nobody has to wait for an
/// election.
async fn hand_over(config: &Config, desk: &Desk) {
    let (own, state) = (desk.node().member_id, desk.state());
    if desk.status().leader != own {
        return;
    }
    let others = state.members.iter().filter(|member| member.id != own && !member.is_learner);
    let since = others.map(|member| (desk.peers().active_since_ms(member.id), member.id));
    let Some((_, to)) = since.filter(|(since_ms, _)| *since_ms > 0).min() else { return };
    tracing::info!(to = format!("{to:x}"), "leadership transfer starting");
    let moved = clock::deadline(config.election, desk.move_leader(to)).await;
    tracing::info!(moved = matches!(moved, Some(Ok(()))), "leadership transfer finished");
}

/// Serves other members, and what they and operators ask over HTTP. Everything of theirs is on this core.
fn listen_peers(config: &Config, desk: &Desk, peers: &Peers) -> Result<(), Fault> {
    let (connections, accepted) = io::handover();
    for address in &config.listen_peers {
        io::spawn(io::listen(address)?.accept(Lane::Peers, 0, vec![connections.clone()]));
    }
    let front = Front::new(desk, config.http(Serves::Peers));
    let (desk, peers) = (desk.clone(), peers.clone());
    io::spawn(async move {
        while let Ok(connection) = accepted.recv_async().await {
            let Some(connection) = connection.open() else { continue };
            let (peers, desk) = (peers.clone(), desk.clone());
            let member = |wire| peer::serve(peers, wire, desk);
            let front = front.to(&connection.peer());
            io::spawn(io::serve_peer(connection, crate::peer::MAGIC, front, member));
        }
    });
    Ok(())
}

fn say_ready(config: &Config, desk: &Desk) {
    tracing::info!(
        cluster_id = format!("{:x}", desk.node().cluster_id),
        member_id = format!("{:x}", desk.node().member_id),
        "ready to serve client requests"
    );
    for address in &config.listen_clients {
        let traffic = "grpc+http";
        tracing::info!(
            traffic,
            %address,
            "serving client traffic insecurely; this is strongly discouraged!"
        );
    }
}

/// How to reach the actors of which there is one.
#[derive(Clone)]
struct Handles {
    consensus: consensus::Handle,
    wal: wal::Handle,
    apply: apply::Handle,
    lease: lease::Handle,
    peers: Peers,
    disk: DiskMonitor,
}

struct Inboxes {
    consensus: consensus::Inbox,
    wal: wal::Inbox,
    apply: flume::Receiver<apply::Msg>,
    lease: lease::Inbox,
}

fn mailboxes(identity: Identity, disk: DiskMonitor) -> (Handles, Inboxes) {
    let (consensus, consensus_inbox) = consensus::mailbox();
    let (wal, wal_inbox) = wal::mailbox();
    let (apply, apply_inbox) = apply::mailbox();
    let (lease, lease_inbox) = lease::mailbox();
    let peers = Peers::new(identity, consensus.clone());
    let handles = Handles { consensus, wal, apply, lease, peers, disk };
    let inboxes = Inboxes {
        consensus: consensus_inbox,
        wal: wal_inbox,
        apply: apply_inbox,
        lease: lease_inbox,
    };
    (handles, inboxes)
}

/// A seat for each executor, and whom apply tells of what it did.
fn seats(
    count: usize,
    boot_nonce: u32,
    config: &Config,
    handles: &Handles,
    shared: &Arc<Shared>,
) -> (Vec<Seat>, apply::Outlets) {
    let http2 = io::Http2 {
        streams_max: config.max_streams,
        keep_alive: config.keep_alive,
        keep_alive_timeout: config.keep_alive_timeout,
    };
    let (mut hubs, mut desks) = (Vec::new(), Vec::new());
    let seat = |executor| {
        let options = watch::Options {
            max_request_bytes: config.max_request_bytes,
            progress_interval_ms: config.progress_notify.as_millis() as u64,
            no_leader_ms_max: LEADERLESS_ELECTIONS_MAX * config.election.as_millis() as u64,
            seed: io::random_u64(),
        };
        let source: Arc<dyn watch::Source> = Arc::<Shared>::clone(shared);
        let (hub, hub_inbox) = watch::mailbox(source, options);
        let (desk, deliveries) = flume::bounded(DELIVERIES_MAX);
        hubs.push(hub.clone());
        desks.push(desk);
        Seat {
            executor,
            boot_nonce,
            hub,
            hub_inbox,
            handles: handles.clone(),
            deliveries,
            connections: io::handover(),
            http2,
            http: ports(config).map(|(serves, _)| config.http(serves)),
        }
    };
    let seats = (0..count).map(seat).collect();
    let outlets = apply::Outlets {
        consensus: handles.consensus.clone(),
        wal: handles.wal.clone(),
        lease: handles.lease.clone(),
        peers: handles.peers.clone(),
        hubs,
        desks,
        here: 0,
        boot_nonce,
        snapshot_count: config.snapshot_count,
        disk: handles.disk.clone(),
    };
    (seats, outlets)
}

/// Starts the actors of which there is one, on this executor. Gives what tells when this member begins to lead.
fn start_actors(
    config: &Config,
    boot_nonce: u64,
    opened: Opened,
    handles: &Handles,
    inboxes: Inboxes,
    outlets: apply::Outlets,
    shared: &Arc<Shared>,
) -> Result<flume::Receiver<()>, Fault> {
    // Promises not to vote, of this life and of an earlier one, are counted in ticks: each must take its time.
    let counts_ticks = config.lease_based_reads || opened.restored.promised_ticks > 0;
    let driver = Driver::new(raft_config(config, &opened.member, boot_nonce), &opened.restored)?;
    let mut expiry = Expiry::new(config.election.as_millis() as u64);
    let now_ms = clock::now_ms();
    opened.machine.leases().for_each(|grant| expiry.granted(grant, now_ms));

    let lease = handles.lease.clone();
    let (leads, led) = flume::bounded(1);
    let (sender, sender_state) = (handles.peers.clone(), Arc::clone(shared));
    let consensus_outlets = consensus::Outlets {
        wal: handles.wal.clone(),
        apply: handles.apply.clone(),
        on_role: Box::new(move |role| {
            lease.leads(role.leads.then_some(role.term));
            if role.leads {
                // Who has not looked since it was last told need not be told twice.
                let _ = leads.try_send(());
            }
        }),
        on_send: Box::new(move |messages| sender.send(messages, &sender_state)),
        disk: handles.disk.clone(),
    };
    let consensus = handles.consensus.clone();
    let inbox = inboxes.consensus;
    io::spawn(consensus::run(driver, inbox, consensus_outlets, Arc::clone(shared)));
    let wal = wal::run(opened.wal, inboxes.wal, consensus.clone());
    io::spawn(async move { stop_on_fault(wal.await) });
    let apply = apply::run(opened.machine, inboxes.apply, outlets, Arc::clone(shared));
    io::spawn(async move { stop_on_fault(apply.await) });
    io::spawn(apply::refreshes(handles.apply.clone()));
    io::spawn(lease::run(expiry, inboxes.lease, consensus.clone()));
    io::spawn(lease::ticks(handles.lease.clone()));
    io::spawn(ticks(config.heartbeat, consensus.clone()));
    if opened.state.sole_voter {
        // A member that votes alone need not wait for a timeout.
        consensus.campaign();
    } else if config.election_advance && !counts_ticks {
        io::spawn(advance(config.clone(), handles.peers.clone(), consensus));
    }
    Ok(led)
}

fn stop_on_fault(outcome: Result<(), Fault>) {
    if let Err(fault) = outcome {
        io::fatal(&fault)
    }
}

/// What an executor needs to open its desk.
struct Seat {
    executor: usize,
    boot_nonce: u32,
    hub: watch::Handle,
    hub_inbox: watch::Mailbox,
    handles: Handles,
    deliveries: flume::Receiver<Delivery>,
    connections: (io::Door, flume::Receiver<io::Connection>),
    http2: io::Http2,
    http: [http::Options; PORTS],
}

impl Seat {
    /// Opens the desk of this executor and serves the connections it is given.
    fn take(self, shared: &Arc<Shared>) -> Desk {
        let executor = self.executor as u8;
        let Handles { consensus, lease, apply, peers, disk, .. } = self.handles;
        let reach =
            Reach { hub: self.hub, lease, apply, consensus: consensus.clone(), peers, disk };
        let desk = Desk::open(Arc::clone(shared), executor, self.boot_nonce, reach);
        io::spawn(Desk::flush(self.executor, consensus));
        io::spawn(Desk::deliver(self.deliveries));
        io::spawn(desk.clone().sweep());
        let hub = watch::start(self.hub_inbox);
        io::spawn(async move { stop_on_fault(hub.await) });
        let fronts = self.http.map(|options| Front::new(&desk, options));
        let (connections, http2) = (self.connections.1, self.http2);
        io::spawn(async move {
            while let Ok(connection) = connections.recv_async().await {
                let Some(connection) = connection.open() else { continue };
                let front = fronts[connection.port()].to(&connection.peer());
                let switched = front.clone();
                io::spawn(io::serve(connection, http2, front, |rest| switched.switched(rest)));
            }
        });
        desk
    }
}

fn node(config: &Config, opened: &Opened) -> Node {
    Node {
        cluster_id: opened.cluster_id,
        member_id: opened.member.id,
        max_txn_ops: config.max_txn_ops,
        max_request_bytes: config.max_request_bytes,
        quota_bytes: config.quota_bytes,
        request_timeout_ms: 5000 + 2 * config.election.as_millis() as u64,
        strict_reconfig: config.strict_reconfig,
        election_timeout_ms: config.election.as_millis() as u64,
        slow_apply: config.slow_apply,
        compaction_batch: config.compaction_batch,
        compaction_sleep: config.compaction_sleep,
        raft_read_timeout: config.raft_read_timeout,
        raft_write_timeout: config.raft_write_timeout,
    }
}

fn raft_config(config: &Config, member: &Member, boot_nonce: u64) -> crate::consensus::Config {
    crate::consensus::Config {
        id: member.id,
        election_ticks: config.election_ticks(),
        heartbeat_ticks: 1,
        pre_vote: config.pre_vote,
        seed: boot_nonce,
        boot_nonce,
        catch_up_entries: config.catch_up_entries,
        promise: config.promise(),
    }
}

/// Most of the first election timeout is spent at once, when another member is there to vote or to lead.
async fn advance(config: Config, peers: Peers, consensus: consensus::Handle) {
    let ticks = config.election.div_duration_f64(config.heartbeat) as u64;
    for _ in 0..ticks {
        if peers.any_connected() {
            // One heartbeat's time is left for a leader to show itself.
            (2..ticks).all(|_| consensus.tick());
            return;
        }
        clock::sleep(config.heartbeat).await;
    }
}

async fn ticks(every: Duration, consensus: consensus::Handle) {
    loop {
        clock::sleep(every).await;
        if !consensus.tick() {
            return;
        }
    }
}

/// Tells the cluster this member's name and addresses, as etcd does before it serves clients. Waits for its turn
/// in the log, so that everything before it is applied too, and for the leader to decide which version is spoken.
async fn publish_self(config: &Config, desk: &Desk) -> Result<(), Fault> {
    let attributes =
        Attributes { name: config.name.clone(), client_urls: config.advertise_clients.clone() };
    let cluster_member_attr_set = Some(ClusterMemberAttrSetRequest {
        member_id: desk.node().member_id,
        member_attributes: Some(attributes),
    });
    let request = InternalRaftRequest { cluster_member_attr_set, ..InternalRaftRequest::default() };
    publish(desk, &request).await?;
    while desk.state().cluster_version.is_none() {
        clock::sleep(VERSION_PAUSE).await;
    }
    Ok(())
}

/// Proposes until it is applied, as etcd does: the others may start later, and a request that came into a
/// snapshot before this member did is never heard of.
async fn publish(desk: &Desk, request: &InternalRaftRequest) -> Result<(), Fault> {
    loop {
        match desk.propose(request.clone()).await {
            Ok(_) => return Ok(()),
            Err(refusal @ Refusal::Stopped) => {
                return Err(Fault::new(format!("the member cannot publish itself: {refusal}")));
            }
            Err(refusal) => {
                let error = refusal.to_string();
                tracing::warn!(error, "failed to publish local member to cluster through raft");
                clock::sleep(PUBLISH_PAUSE).await;
            }
        }
    }
}

fn listen(config: &Config, executors: &[io::Door]) -> Result<(), Fault> {
    for (port, (serves, addresses)) in ports(config).into_iter().enumerate() {
        let lane = if serves == Serves::Metrics { Lane::Metrics } else { Lane::Clients };
        for address in addresses {
            io::spawn(io::listen(address)?.accept(lane, port, executors.to_vec()));
        }
    }
    Ok(())
}
