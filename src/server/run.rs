//! Lays the actors out on cores, starts and stops them.
//!
//! Consensus, the log and apply share the first core; every core, that one too, has sessions and a watch hub.
//! Measured on two cores this is the fastest layout: what one request needs is on as few executors as
//! possible.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use basalt_proto::etcdserverpb::InternalRaftRequest;
use basalt_proto::membershippb::{Attributes, ClusterMemberAttrSetRequest, ClusterVersionSetRequest};

use super::Config;
use crate::actors::apply::state_of;
use crate::actors::{Desk, Node, Shared, apply, consensus, lease, wal, watch};
use crate::cluster::{Member, cluster_id, member_id};
use crate::consensus::Driver;
use crate::http::Front;
use crate::io::{self, Executors, FjallEngine, WalFile, WalOptions, clock};
use crate::lease::{Expiry, ttl_min};
use crate::machine::{self, Machine};
use crate::rpc::{ETCD_CLUSTER_VERSION, ETCD_VERSION};
use crate::types::limits::RECORD_CACHE_BYTES;
use crate::types::{ConfState, Fault};
use crate::wal::Record;

/// How long a member that is told to stop waits for what is under way.
const STOP_TIME: Duration = Duration::from_millis(200);

/// Runs a member until it is told to stop by SIGTERM or SIGINT.
///
/// # Errors
/// Why it cannot start, or what stopped it.
pub fn run(config: Config) -> Result<(), Fault> {
    io::preflight()?;
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
    Member1 { config, cores }.run()
}

/// What every executor needs to open its desk.
struct Seat {
    executor: usize,
    shared: Arc<Shared>,
    boot_nonce: u32,
    hub: watch::Handle,
    hub_inbox: watch::Inbox,
    lease: lease::Handle,
    apply: apply::Handle,
    consensus: consensus::Handle,
    deliveries: flume::Receiver<crate::actors::desk::Delivery>,
    connections: flume::Receiver<io::Connection>,
    http2: io::Http2,
    stop: flume::Receiver<()>,
}
