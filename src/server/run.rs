//! The life of the process: opens the state, starts everything, serves until a signal.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use basalt_proto::membershippb::{Attributes, ClusterMemberAttrSetRequest};
use futures_lite::future::or;

use super::Config;
use super::gates::Gate;
use super::open::open;
use super::settings::Flags;
use super::tls::Opened;
use super::topology::{executor_contexts, mailboxes, node, ports, start_actors};
use super::values::Listen;
use super::{corruption, insecurity, levels, start_line, versions};
use crate::actors::client::Pending;
use crate::actors::mailbox::peer::Peers;
use crate::actors::{ReplicaClient, Shared, compactor, peer, token_renewal};
use crate::command::Command;
use crate::http::{Endpoints, HttpService};
use crate::io::{self, Executors, Lane, Place, Reactor, Secure, TlsCredentials, clock};
use crate::metrics;
use crate::rpc::{self, Policy};
use crate::types::{Budgets, Fault, Refusal};

/// Time that a stopping member gives to requests in flight.
const STOP_TIME: Duration = Duration::from_millis(500);

/// Pause before this member tries again to publish its attributes.
const PUBLISH_PAUSE: Duration = Duration::from_millis(100);

/// Interval of checks for the cluster version; a new cluster has one at once.
const VERSION_PAUSE: Duration = Duration::from_millis(10);

/// Changes the time after which a client that makes no progress is given up, in ms, so that tests need not wait for it.
const STALL_ENVIRONMENT: &str = "BASALT_STALL_MS";

fn stall_time() -> Option<Duration> {
    std::env::var(STALL_ENVIRONMENT).ok()?.parse().ok().map(Duration::from_millis)
}

/// Runs a member until SIGTERM or SIGINT.
///
/// # Errors
/// The reason why it cannot start, or the error that stopped it.
pub fn run(config: Config, flags: &Flags) -> Result<(), Fault> {
    let placement = io::place_executors(&config.cores);
    let executors = placement.places.len();
    io::raise_open_files(executors)?;
    let (memory_bytes, budgets) = io::divide_memory(executors);
    rpc::set_response_bytes_max(budgets.responses);
    if let Some(time) = stall_time() {
        io::set_stall_time(time);
    }
    let (reactor, reactor_reason) = config.reactor.decide(executors)?;
    metrics::set_reactor(reactor.name());
    let resources = start_line::Resources { placement, reactor, reactor_reason, memory_bytes };
    io::refuse_foreign(&config.data_dir)?;
    io::refuse_unfinished(&config.data_dir)?;
    let member_dir = config.data_dir.join("member");
    io::prepare_data_dir(&config.data_dir)?;
    io::prepare_data_dir(&member_dir)?;
    let _lock = io::lock_data_dir(&member_dir)?;
    start_line::say(&config, flags, &resources);
    let credentials = config.tls.open(&config.data_dir)?;
    let places = resources.placement.places;
    let (stop, stopped) = flume::bounded(1);
    let opens = Arc::new(AtomicBool::new(true));
    on_signal(stop, Arc::clone(&opens))?;
    let mut executors = Executors::new(reactor);
    let (first, others) = (places[0], places[1..].to_vec());
    executors.start(first, move || {
        first_core(config, (reactor, others), stopped, opens, budgets, credentials)
    })?;
    executors.watch();
    executors.join()
}

/// Notifies `stop` of a signal that ends the process; SIGHUP has certificates read and log files
/// opened again. While the member still opens
/// its state there is nothing to stop in order, and opening may wait for other members; a second signal means that the
/// operator does not want to wait. In both cases the process ends at once: acknowledged writes are in the log.
fn on_signal(stop: flume::Sender<i32>, opens: Arc<AtomicBool>) -> Result<(), Fault> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    let cannot = |error| Fault::new(format!("signals cannot be caught: {error}"));
    let mut signals =
        signal_hook::iterator::Signals::new([SIGHUP, SIGINT, SIGTERM]).map_err(cannot)?;
    let waiting = std::thread::Builder::new().name("signals".into()).spawn(move || {
        let mut is_asked = false;
        for signal in signals.forever() {
            if signal == SIGHUP {
                tracing::info!(
                    signal,
                    "received signal; reading certificates and opening log files again"
                );
                io::reopen_logs();
                io::reload_all();
                continue;
            }
            tracing::info!(signal, "received signal; shutting down");
            if std::mem::replace(&mut is_asked, true) || opens.load(Ordering::Relaxed) {
                io::end_by(signal);
            }
            let _ = stop.try_send(signal);
        }
    });
    waiting.map(drop).map_err(cannot)
}

/// The main task of the first core: opens the state, starts the actors and the other cores, serves until a stop.
async fn first_core(
    config: Config,
    (reactor, others): (Reactor, Vec<Place>),
    stopped: flume::Receiver<i32>,
    opens: Arc<AtomicBool>,
    budgets: Budgets,
    credentials: Opened,
) -> Result<(), Fault> {
    let (kind, policy) = (config.security.token_kind().await?, config.security.policy()?);
    let opened = open(&config, &credentials, budgets).await?;
    opens.store(false, Ordering::Relaxed);
    insecurity::say(&config, opened.state.permissions.is_enabled());
    let tokens = config.security.tokens(kind, opened.machine.tokens());
    let (handles, inboxes) = mailboxes(
        opened.identity.clone(),
        opened.disk.clone(),
        Arc::clone(&tokens),
        config.security.passwords()?,
    );
    handles.peers.update(opened.machine.cluster());
    opened.others.iter().for_each(|member| handles.peers.add_peer(member));
    let boot_nonce = io::random_u64();
    let shared = Arc::new(Shared::new(node(&config, &opened), opened.state.clone()));
    let nonce = boot_nonce as u32;
    let pending = Pending::new(0, nonce, &shared.node);
    let cores = 1 + others.len();
    let (executor_contexts, outputs) =
        executor_contexts(cores, nonce, &config, &handles, &pending, &policy, &shared);
    let led = start_actors(&config, boot_nonce, opened, &handles, inboxes, outputs, &shared)?;
    let connections: Vec<_> =
        executor_contexts.iter().map(|context| context.connections.0.clone()).collect();
    let mut executor_contexts = executor_contexts.into_iter();
    let Some(own) = executor_contexts.next() else {
        return Err(Fault::new("there is no core to run on"));
    };
    let mut executors = Executors::new(reactor);
    let mut stops = Vec::new();
    for (place, context) in others.into_iter().zip(executor_contexts) {
        let (stop, stopped) = flume::bounded::<()>(1);
        stops.push(stop);
        let shared = Arc::clone(&shared);
        executors.start(place, move || async move {
            context.take(None, &shared);
            // Ends when the first core drops the other end.
            let _ = stopped.recv_async().await;
            io::close_connections(STOP_TIME).await;
            Ok(())
        })?;
    }
    executors.watch();
    let replica = own.take(Some(pending), &shared);
    listen_peers(&config, credentials.peer.as_ref(), &replica, &handles.peers, &policy)?;
    io::spawn(token_renewal::run(replica.clone(), tokens));
    let dialer = handles.peers.identity().dialer.clone();
    io::spawn(versions::watch(replica.clone(), led, dialer));
    io::spawn(levels::watch(replica.clone()));
    let serving = async {
        // May wait for the other members without a limit.
        join_in(&config, &replica).await?;
        watch_corruption(&config, &replica);
        listen(&config, credentials.client.as_ref(), &connections)?;
        io::spawn(compactor::run(config.retention, replica.clone(), Arc::clone(&shared)));
        say_ready(&config, &replica);
        io::notify_ready();
        std::future::pending().await
    };
    let stop = async {
        // The other end lives as long as the thread that waits for signals.
        stopped.recv_async().await.map_err(|_| Fault::new("nobody waits for signals"))
    };
    let signal = or(stop, serving).await?;
    io::notify_stopping();
    hand_over(&config, &replica).await;
    shared.stop();
    drop(stops);
    io::close_connections(STOP_TIME).await;
    handles.apply.close().await;
    // Open sessions end with the process. Requests without an answer were not acknowledged; acknowledged ones
    // are in the log.
    tracing::info!("closed the member");
    io::end_by(signal)
}

/// Waits until this member can serve as a part of the cluster.
async fn join_in(config: &Config, replica: &ReplicaClient) -> Result<(), Fault> {
    if config.gates.is_on(Gate::InitialCorruptCheck) {
        corruption::check_first(replica).await?;
    }
    publish_self(config, replica).await
}

fn watch_corruption(config: &Config, replica: &ReplicaClient) {
    if !config.corrupt_check.is_zero() {
        io::spawn(corruption::watch(replica.clone(), config.corrupt_check));
    }
    if config.gates.is_on(Gate::CompactHashCheck) {
        io::spawn(corruption::watch_compactions(replica.clone(), config.compact_hash_check));
    }
}

/// Transfers leadership from a stopping leader to the voter that has been connected longest, so that clients need not
/// wait for an election.
async fn hand_over(config: &Config, replica: &ReplicaClient) {
    let (own, state) = (replica.node().member_id, replica.state());
    if replica.status().leader != own {
        return;
    }
    let others = state.members.iter().filter(|member| member.id != own && !member.is_learner);
    let since = others.map(|member| (replica.peers().active_since_ms(member.id), member.id));
    let Some((_, to)) = since.filter(|(since_ms, _)| *since_ms > 0).min() else { return };
    tracing::info!(to = format!("{to:x}"), "leadership transfer starting");
    let moved = clock::deadline(config.election, replica.move_leader(to)).await;
    tracing::info!(moved = matches!(moved, Some(Ok(()))), "leadership transfer finished");
}

/// Serves the peer port: connections of other members, and HTTP. All of that runs on this core.
fn listen_peers(
    config: &Config,
    credentials: Option<&Arc<TlsCredentials>>,
    replica: &ReplicaClient,
    peers: &Peers,
    policy: &Arc<Policy>,
) -> Result<(), Fault> {
    let (connections, accepted) = io::handover();
    for listen in &config.listen_peers {
        let secure = secure(listen, credentials);
        let listener = io::listen(&listen.address)?;
        io::spawn(listener.accept(Lane::Peers, 0, vec![connections.clone()], secure));
    }
    let front = HttpService::new(replica, config.http(Endpoints::Peers, policy));
    let (replica, peers) = (replica.clone(), peers.clone());
    io::spawn(async move {
        while let Ok(connection) = accepted.recv_async().await {
            let Some(connection) = connection.open() else { continue };
            let (peers, replica) = (peers.clone(), replica.clone());
            let member = |wire| peer::serve(peers, wire, replica);
            let front = front.to(&connection);
            io::spawn(io::serve_peer(connection, crate::peer::MAGIC, front, member));
        }
    });
    Ok(())
}

fn say_ready(config: &Config, replica: &ReplicaClient) {
    tracing::info!(
        cluster_id = format!("{:x}", replica.node().cluster_id),
        member_id = format!("{:x}", replica.node().member_id),
        "ready to serve client requests"
    );
    let traffic = if config.listen_http.is_empty() { "grpc+http" } else { "grpc" };
    let all = config.listen_clients.iter().map(|listen| (traffic, listen));
    for (traffic, Listen { address, plain, secure }) in
        all.chain(config.listen_http.iter().map(|listen| ("http", listen)))
    {
        if *plain {
            tracing::info!(
                traffic,
                %address,
                "serving client traffic insecurely; this is strongly discouraged!"
            );
        }
        if *secure {
            tracing::info!(traffic, %address, "serving client traffic securely");
        }
    }
}

/// Publishes this member's name and client URLs, as etcd does before it serves clients. Waits until that entry is
/// applied, so that everything before it is applied too, and until the leader has set the cluster version.
async fn publish_self(config: &Config, replica: &ReplicaClient) -> Result<(), Fault> {
    let attributes =
        Attributes { name: config.name.clone(), client_urls: config.advertise_clients.clone() };
    let command = Command::ClusterMemberAttrSet(ClusterMemberAttrSetRequest {
        member_id: replica.node().member_id,
        member_attributes: Some(attributes),
    });
    publish(replica, &command).await?;
    while replica.state().cluster_version.is_none() {
        clock::sleep(VERSION_PAUSE).await;
    }
    Ok(())
}

/// Proposes until the entry is applied, as etcd does: the others may start later, and an entry that this member
/// receives as a part of a snapshot is not answered.
async fn publish(replica: &ReplicaClient, command: &Command) -> Result<(), Fault> {
    loop {
        match replica.propose(command.clone()).await {
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

fn listen(
    config: &Config,
    credentials: Option<&Arc<TlsCredentials>>,
    executors: &[io::ConnectionSender],
) -> Result<(), Fault> {
    for (port, (serves, addresses)) in ports(config).into_iter().enumerate() {
        let lane = if serves == Endpoints::Metrics { Lane::Metrics } else { Lane::Clients };
        for listen in addresses {
            let secure = secure(listen, credentials);
            let listener = io::listen(&listen.address)?;
            io::spawn_accept(listener.accept(lane, port, executors.to_vec(), secure));
        }
    }
    Ok(())
}

/// TLS on an address, if its URL asks for it.
fn secure(listen: &Listen, credentials: Option<&Arc<TlsCredentials>>) -> Option<Secure> {
    let credentials = credentials.filter(|_| listen.secure)?;
    Some(Secure { credentials: Arc::clone(credentials), allows_plain: listen.plain })
}
