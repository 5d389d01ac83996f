//! Lays the actors out on cores, starts and stops them.
//!
//! Consensus, the log and apply share the first core; every core, that one too, has sessions and a watch hub.
//! Measured on two cores this is the fastest layout: what one request needs is on as few executors as
//! possible.

use std::sync::Arc;
use std::time::Duration;

use basalt_proto::etcdserverpb::InternalRaftRequest;
use basalt_proto::membershippb::{
    Attributes, ClusterMemberAttrSetRequest, ClusterVersionSetRequest,
};

use super::Config;
use crate::actors::apply::state_of;
use crate::actors::desk::Delivery;
use crate::actors::{Desk, Node, Shared, apply, consensus, lease, wal, watch};
use crate::cluster::{Member, cluster_id, member_id};
use crate::consensus::Driver;
use crate::http::{self, Front, Serves};
use crate::io::{self, Address, Executors, FjallEngine, WalFile, WalOptions, clock};
use crate::lease::{Expiry, ttl_min};
use crate::machine::{self, Machine};
use crate::rpc::{ETCD_CLUSTER_VERSION, ETCD_VERSION};
use crate::store::Engine as _;
use crate::types::limits::{RECORD_CACHE_BYTES, WAL_FREE_SEGMENTS_MAX, WAL_SEGMENT_BYTES};
use crate::types::{ConfState, Fault};
use crate::wal::Record;

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

/// Runs a member until it is told to stop by SIGTERM or SIGINT.
///
/// # Errors
/// Why it cannot start, or what stopped it.
pub fn run(config: Config) -> Result<(), Fault> {
    io::preflight()?;
    io::refuse_foreign(&config.data_dir)?;
    let member_dir = config.data_dir.join("member");
    io::prepare_data_dir(&config.data_dir)?;
    io::prepare_data_dir(&member_dir)?;
    let _lock = io::lock_data_dir(&member_dir)?;
    let cores = match config.cores.is_empty() {
        true => (0..std::thread::available_parallelism().map_or(1, usize::from)).collect(),
        false => config.cores.clone(),
    };
    tracing::info!(
        name = config.name,
        data_dir = %config.data_dir.display(),
        etcd_version = ETCD_VERSION,
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
    let (handles, inboxes) = mailboxes();
    let boot_nonce = io::random_u64();
    let shared = Arc::new(Shared::new(node(&config, &opened), opened.state.clone()));
    let (seats, outlets) = seats(1 + others.len(), boot_nonce as u32, &config, &handles, &shared);
    start_actors(&config, boot_nonce, opened, &handles, inboxes, outlets, &shared)?;
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
    publish_self(&config, &desk).await?;
    listen(&config, &connections)?;
    say_ready(&config, &desk);
    let _ = stopped.recv_async().await;
    shared.stop();
    drop(stops);
    io::close_connections(STOP_TIME).await;
    tracing::info!("closed the member");
    // Sessions that are still open end with the process. What they wait for was not acknowledged; what was
    // is in the log.
    std::process::exit(0)
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
}

struct Inboxes {
    consensus: consensus::Inbox,
    wal: flume::Receiver<wal::Msg>,
    apply: flume::Receiver<apply::Msg>,
    lease: lease::Inbox,
}

fn mailboxes() -> (Handles, Inboxes) {
    let (consensus, consensus_inbox) = consensus::mailbox();
    let (wal, wal_inbox) = wal::mailbox();
    let (apply, apply_inbox) = apply::mailbox();
    let (lease, lease_inbox) = lease::mailbox();
    let handles = Handles { consensus, wal, apply, lease };
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
            no_leader_ms_max: 3 * config.election.as_millis() as u64,
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
        hubs,
        desks,
        here: 0,
        boot_nonce,
        snapshot_count: config.snapshot_count,
    };
    (seats, outlets)
}

/// Starts the actors of which there is one, on this executor.
fn start_actors(
    config: &Config,
    boot_nonce: u64,
    opened: Opened,
    handles: &Handles,
    inboxes: Inboxes,
    outlets: apply::Outlets,
    shared: &Arc<Shared>,
) -> Result<(), Fault> {
    let driver = Driver::new(raft_config(config, &opened.member, boot_nonce), &opened.restored)?;
    let mut expiry = Expiry::new(config.election.as_millis() as u64);
    let now_ms = clock::now_ms();
    opened.machine.leases().for_each(|(id, ttl)| expiry.granted(id, ttl, now_ms));

    let lease = handles.lease.clone();
    let consensus_outlets = consensus::Outlets {
        wal: handles.wal.clone(),
        apply: handles.apply.clone(),
        on_role: Box::new(move |role| lease.leads(role.leads.then_some(role.term))),
        on_send: Box::new(|_| ()),
    };
    let consensus = handles.consensus.clone();
    let inbox = inboxes.consensus;
    io::spawn(consensus::run(driver, inbox, consensus_outlets, Arc::clone(shared)));
    let wal = wal::run(opened.wal, inboxes.wal, consensus.clone());
    io::spawn(async move { stop_on_fault(wal.await) });
    let apply = apply::run(opened.machine, inboxes.apply, outlets, Arc::clone(shared));
    io::spawn(async move { stop_on_fault(apply.await) });
    io::spawn(lease::run(expiry, inboxes.lease, consensus.clone(), 0));
    io::spawn(lease::ticks(handles.lease.clone()));
    io::spawn(ticks(config.heartbeat, consensus.clone()));
    // A member that votes alone need not wait for a timeout.
    consensus.campaign();
    Ok(())
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
    connections: (flume::Sender<io::Connection>, flume::Receiver<io::Connection>),
    http2: io::Http2,
    http: [http::Options; PORTS],
}

impl Seat {
    /// Opens the desk of this executor and serves the connections it is given.
    fn take(self, shared: &Arc<Shared>) -> Desk {
        let executor = self.executor as u8;
        let Handles { consensus, lease, apply, .. } = self.handles;
        let desk =
            Desk::open(Arc::clone(shared), executor, self.boot_nonce, self.hub, lease, apply);
        io::spawn(Desk::flush(self.executor, consensus));
        io::spawn(Desk::deliver(self.deliveries));
        io::spawn(Desk::sweep(Arc::clone(shared)));
        let hub = watch::start(self.hub_inbox);
        io::spawn(async move { stop_on_fault(hub.await) });
        let fronts = self.http.map(|options| Front::new(&desk, options));
        let (connections, http2) = (self.connections.1, self.http2);
        io::spawn(async move {
            while let Ok(connection) = connections.recv_async().await {
                let front = fronts[connection.port()].to(&connection.peer());
                io::spawn(io::serve(connection, http2, front));
            }
        });
        desk
    }
}

/// What was found on disk.
struct Opened {
    member: Member,
    machine: Machine<FjallEngine>,
    state: crate::actors::State,
    wal: WalFile,
    restored: crate::consensus::Restored,
    cluster_id: u64,
}

async fn open(config: &Config) -> Result<Opened, Fault> {
    let member_dir = config.data_dir.join("member");
    let wal_dir = config.wal_dir.clone().unwrap_or_else(|| member_dir.join("wal"));
    io::prepare_data_dir(&wal_dir)?;
    let id = member_id(&config.advertise_peers, &config.token, None);
    let cluster_id = cluster_id(&[id]);
    let conf_state = ConfState { voters: vec![id], ..ConfState::default() };
    let first = [
        Record::Metadata { cluster_id, member_id: id },
        Record::Mark { index: 0, term: 0, conf_state },
    ];
    let options = WalOptions {
        dir: wal_dir,
        segment_bytes: WAL_SEGMENT_BYTES,
        free_max: config.max_wals.min(WAL_FREE_SEGMENTS_MAX),
        unsafe_no_fsync: config.unsafe_no_fsync,
    };
    let (wal, replay) = WalFile::open(options, first).await?;
    let (cluster_id, id) = replay.owner.unwrap_or((cluster_id, id));
    let store = member_dir.join("store");
    let settings = machine::Config {
        cache_bytes: RECORD_CACHE_BYTES,
        lease_ttl_min: ttl_min(config.election.as_millis() as u64),
    };
    let machine = io::blocking(move || Machine::open(FjallEngine::open(&store)?, &settings));
    let mut machine = machine.await?;
    if machine.is_new() {
        if replay.mark_index > 0 {
            return Err(Fault::new(
                "the store is gone, and the write-ahead log alone cannot replace it",
            ));
        }
        if config.joins_existing {
            // A cluster of its own would be a second one under the same name.
            return Err(Fault::new(
                "cannot fetch cluster info from peer urls: could not retrieve cluster information \
                 from the given URLs",
            ));
        }
        let peer_urls = config.advertise_peers.clone();
        machine.bootstrap(vec![Member { id, peer_urls, ..Member::default() }])?;
    }
    let Some(member) = machine.member(id).cloned() else {
        return Err(Fault::new(format!(
            "the data directory belongs to another member than {id:x}"
        )));
    };
    let read = machine.commit()?.read;
    let state = state_of(&machine, read, id, machine.engine().disk_bytes());
    let restored = crate::consensus::Restored {
        hard_state: replay.hard_state,
        conf_state: machine.conf_state().clone(),
        mark_index: replay.mark_index,
        mark_term: replay.mark_term,
        entries: replay.entries,
        applied: machine.applied(),
    };
    Ok(Opened { member, machine, state, wal, restored, cluster_id })
}

fn node(config: &Config, opened: &Opened) -> Node {
    Node {
        cluster_id: opened.cluster_id,
        member_id: opened.member.id,
        max_txn_ops: config.max_txn_ops,
        max_request_bytes: config.max_request_bytes,
        quota_bytes: config.quota_bytes,
        request_timeout_ms: 5000 + 2 * config.election.as_millis() as u64,
        election_timeout_ms: config.election.as_millis() as u64,
        progress_notify_ms: config.progress_notify.as_millis() as u64,
    }
}

fn raft_config(config: &Config, member: &Member, boot_nonce: u64) -> crate::consensus::Config {
    crate::consensus::Config {
        id: member.id,
        election_ticks: config.election.div_duration_f64(config.heartbeat) as usize,
        heartbeat_ticks: 1,
        pre_vote: config.pre_vote,
        seed: boot_nonce,
        boot_nonce,
        catch_up_entries: 5000,
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

/// Tells the cluster this member's name and addresses, and decides its version, as etcd does before it
/// serves clients. Waits for its turn in the log, so that everything before it is applied too.
async fn publish_self(config: &Config, desk: &Desk) -> Result<(), Fault> {
    let attributes =
        Attributes { name: config.name.clone(), client_urls: config.advertise_clients.clone() };
    let cluster_member_attr_set = Some(ClusterMemberAttrSetRequest {
        member_id: desk.node().member_id,
        member_attributes: Some(attributes),
    });
    let request = InternalRaftRequest { cluster_member_attr_set, ..InternalRaftRequest::default() };
    let refused = |refusal| Fault::new(format!("the member cannot publish itself: {refusal}"));
    desk.propose(request).await.map_err(refused)?;
    if desk.state().cluster_version.is_none() {
        let ver = ETCD_CLUSTER_VERSION.to_owned();
        let cluster_version_set = Some(ClusterVersionSetRequest { ver });
        let request = InternalRaftRequest { cluster_version_set, ..InternalRaftRequest::default() };
        desk.propose(request).await.map_err(refused)?;
    }
    Ok(())
}

fn listen(config: &Config, executors: &[flume::Sender<io::Connection>]) -> Result<(), Fault> {
    for (port, (_, addresses)) in ports(config).into_iter().enumerate() {
        for address in addresses {
            io::spawn(io::listen(address)?.accept(port, executors.to_vec()));
        }
    }
    Ok(())
}
