//! Metrics under etcd's names, in the text format of Prometheus. Nothing here waits or reads a clock.
//!
//! Events are counted where they happen, in a `static` that every thread may add to without waiting ([`Counter`],
//! [`Gauge`], [`Histogram`]); values that can be read on demand are read when a page is requested ([`Gauges`]).
//!
//! etcd also exports its Go runtime as `go_*`. This program has no garbage collector, goroutines or Go
//! version, so that every value there would be invented: those families are left out.

mod cells;
mod families;
mod grpc;
mod pools;
mod text;
mod tls;

use std::sync::OnceLock;

pub use self::cells::{Counter, Gauge, Histogram};
pub use self::families::*;
pub use self::grpc::{rpc_handled, rpc_received, rpc_sent, rpc_started};
pub use self::pools::{PoolCells, pool};
use self::text::{Writer, quoted};
pub use self::tls::{CertificateRole, certificate_ends};

/// Statistics of this process from the kernel.
#[derive(Clone, Copy, Debug, Default)]
pub struct Process {
    /// Seconds of processor time used.
    pub cpu_seconds: f64,
    /// Resident bytes.
    pub resident_bytes: u64,
    /// Bytes of address space.
    pub virtual_bytes: u64,
    /// Bytes of address space that it may take.
    pub virtual_bytes_max: u64,
    /// Bytes received on the network interfaces of its namespace, those of other processes included.
    pub received_bytes: u64,
    /// Bytes sent on these interfaces.
    pub sent_bytes: u64,
    /// Open files.
    pub open_files: u64,
    /// Files that may be open.
    pub files_max: u64,
    /// Start time in seconds since 1970.
    pub start_seconds: f64,
}

/// Values that are read when a page is requested.
#[derive(Clone, Debug, Default)]
pub struct Gauges {
    /// True if a leader is known.
    pub has_leader: bool,
    /// True if this member leads.
    pub is_leader: bool,
    /// True if this member has no vote.
    pub is_learner: bool,
    /// The newest committed index.
    pub committed: u64,
    /// The newest applied index.
    pub applied: u64,
    /// Bytes of the store on disk.
    pub disk_bytes: u64,
    /// Bytes of keys and their history, as etcd's file would hold them.
    pub bytes_in_use: u64,
    /// `--quota-backend-bytes`; 0 for none.
    pub quota_bytes: u64,
    /// The newest revision.
    pub revision: i64,
    /// The compaction revision.
    pub compacted: i64,
    /// Number of keys.
    pub keys: u64,
    /// The id of this member.
    pub member_id: u64,
    /// The ids of all members.
    pub members: Vec<u64>,
    /// Traffic with each other member.
    pub peers: Vec<Peer>,
    /// Active alarms: member and type.
    pub alarms: Vec<(u64, &'static str)>,
    /// Feature gates: name, stage, whether it is on.
    pub features: Vec<(&'static str, &'static str, bool)>,
    /// Statistics of the process.
    pub process: Process,
    /// The version that clients see.
    pub version: String,
    /// The cluster version, as `major.minor`.
    pub cluster_version: Option<String>,
    /// The feature level that all members have agreed on, and the one that this member supports.
    pub feature_levels: (u32, u32),
}

/// Traffic with another member.
#[derive(Clone, Debug, Default)]
pub struct Peer {
    /// The id of the member.
    pub id: u64,
    /// True if it is connected.
    pub active: bool,
    /// Number of connections that ended.
    pub disconnects: u64,
    /// Bytes sent.
    pub sent_bytes: u64,
    /// Messages that could not be sent.
    pub sent_failures: u64,
    /// Bytes received.
    pub received_bytes: u64,
}

/// The page: all families, sorted by name.
pub fn text(gauges: &Gauges) -> String {
    let mut out = Writer::default();
    for (name, help, counter) in families::COUNTERS {
        out.one(name, "counter", help, counter.get() as f64);
    }
    for (name, help, gauge) in families::GAUGES {
        out.one(name, "gauge", help, gauge.get() as f64);
    }
    for (name, help, histogram) in families::HISTOGRAMS {
        out.histogram(name, help, std::iter::once((String::new(), histogram.counts())));
    }
    for (name, kind, help) in families::ZEROS {
        out.one(name, kind, help, 0.0);
    }
    families::write_labelled(&mut out);
    grpc::write(&mut out);
    pools::write(&mut out);
    tls::write(&mut out);
    server(&mut out, gauges);
    labels(&mut out, gauges);
    store(&mut out, gauges);
    process(&mut out, &gauges.process);
    let reactor = REACTOR.get().map(|name| (format!("reactor=\"{name}\""), 1.0));
    let help = "1 for the kernel interface that network I/O uses.";
    out.family("basalt_reactor_info", "gauge", help, reactor.into_iter());
    out.finish()
}

static REACTOR: OnceLock<&'static str> = OnceLock::new();

/// Names the kernel interface that the process uses for network I/O. The first call counts.
pub fn set_reactor(name: &'static str) {
    let _ = REACTOR.set(name);
}

fn server(out: &mut Writer, gauges: &Gauges) {
    let flag = |on: bool| f64::from(u8::from(on));
    let rows = [
        ("etcd_server_has_leader", "1 if a leader is known, else 0.", flag(gauges.has_leader)),
        (
            "etcd_server_is_leader",
            "1 if this member is the leader, else 0.",
            flag(gauges.is_leader),
        ),
        (
            "etcd_server_is_learner",
            "1 if this member is a learner, else 0.",
            flag(gauges.is_learner),
        ),
        (
            "etcd_server_proposals_committed_total",
            "Index of the last committed entry.",
            gauges.committed as f64,
        ),
        (
            "etcd_server_proposals_applied_total",
            "Index of the last applied entry.",
            gauges.applied as f64,
        ),
        (
            "etcd_server_quota_backend_bytes",
            "Quota of the store in bytes; 0 for no limit.",
            gauges.quota_bytes as f64,
        ),
    ];
    rows.iter().for_each(|(name, help, value)| out.one(name, "gauge", help, *value));
    let (cluster, member) = gauges.feature_levels;
    let help = "The feature level that all members have agreed on.";
    out.one("basalt_cluster_feature_level", "gauge", help, f64::from(cluster));
    let help = "The feature level that this member supports.";
    out.one("basalt_server_feature_level", "gauge", help, f64::from(member));
}

fn peers(out: &mut Writer, gauges: &Gauges) {
    let local = gauges.member_id;
    let both = |peer: &Peer| format!("Local=\"{local:x}\",Remote=\"{:x}\"", peer.id);
    let to = |peer: &Peer| format!("To=\"{:x}\"", peer.id);
    let from = |peer: &Peer| format!("From=\"{:x}\"", peer.id);
    let rows = |label: &dyn Fn(&Peer) -> String, value: fn(&Peer) -> u64| {
        let rows = gauges.peers.iter().map(|peer| (label(peer), value(peer) as f64));
        rows.collect::<Vec<_>>().into_iter()
    };
    let active = rows(&both, |peer| u64::from(peer.active));
    out.family(
        "etcd_network_active_peers",
        "gauge",
        "1 for each member that is connected.",
        active,
    );
    let ended = rows(&both, |peer| peer.disconnects);
    let help = "Total number of lost connections to a member.";
    out.family("etcd_network_disconnected_peers_total", "counter", help, ended);
    let sent = rows(&to, |peer| peer.sent_bytes);
    let help = "Total number of bytes sent to a member.";
    out.family("etcd_network_peer_sent_bytes_total", "counter", help, sent);
    let failed = rows(&to, |peer| peer.sent_failures);
    let help = "Total number of messages to a member that were not sent.";
    out.family("etcd_network_peer_sent_failures_total", "counter", help, failed);
    let received = rows(&from, |peer| peer.received_bytes);
    let help = "Total number of bytes received from a member.";
    out.family("etcd_network_peer_received_bytes_total", "counter", help, received);
}

fn labels(out: &mut Writer, gauges: &Gauges) {
    const HELP: &str = "Information in the labels; the value is 1.";
    let one = |labels| std::iter::once((labels, 1.0));
    let id = format!("server_id=\"{:x}\"", gauges.member_id);
    out.family("etcd_server_id", "gauge", HELP, one(id.clone()));
    let version = format!("server_version={}", quoted(&gauges.version));
    out.family("etcd_server_version", "gauge", HELP, one(version));
    if let Some(version) = &gauges.cluster_version {
        let label = format!("cluster_version={}", quoted(version));
        out.family("etcd_cluster_version", "gauge", HELP, one(label));
    }
    let local = gauges.member_id;
    let members = gauges.members.iter();
    let known = members.map(|remote| (format!("Local=\"{local:x}\",Remote=\"{remote:x}\""), 1.0));
    out.family("etcd_network_known_peers", "gauge", "1 for each member of the cluster.", known);
    peers(out, gauges);
    let alarms = gauges.alarms.iter();
    let alarms =
        alarms.map(|(id, kind)| (format!("alarm_type=\"{kind}\",server_id=\"{id:x}\""), 1.0));
    out.family("etcd_debugging_server_alarms", "gauge", "1 for each active alarm.", alarms);
    let features = gauges.features.iter().map(|(name, stage, on)| {
        (format!("name=\"{name}\",stage=\"{stage}\""), f64::from(u8::from(*on)))
    });
    out.family(
        "etcd_server_feature_enabled",
        "gauge",
        "1 if a feature gate is on, else 0.",
        features,
    );
}

fn store(out: &mut Writer, gauges: &Gauges) {
    let disk = gauges.disk_bytes as f64;
    let rows = [
        ("etcd_mvcc_db_total_size_in_bytes", "Size of the store on disk, in bytes.", disk),
        (
            "etcd_mvcc_db_total_size_in_use_in_bytes",
            "Size of the keys and their kept history, in bytes.",
            gauges.bytes_in_use as f64,
        ),
        ("etcd_debugging_mvcc_current_revision", "Current revision.", gauges.revision as f64),
        (
            "etcd_debugging_mvcc_compact_revision",
            "Revision of the last compaction.",
            gauges.compacted as f64,
        ),
        ("etcd_debugging_mvcc_keys_total", "Number of keys.", gauges.keys as f64),
        ("etcd_debugging_auth_revision", "Revision of the auth store.", 1.0),
    ];
    rows.iter().for_each(|(name, help, value)| out.one(name, "gauge", help, *value));
}

fn process(out: &mut Writer, process: &Process) {
    let help = "Total user and system CPU time, in seconds.";
    out.one("process_cpu_seconds_total", "counter", help, process.cpu_seconds);
    let (received, sent) = (process.received_bytes as f64, process.sent_bytes as f64);
    let help = "Total number of bytes received over the network.";
    out.one("process_network_receive_bytes_total", "counter", help, received);
    let help = "Total number of bytes sent over the network.";
    out.one("process_network_transmit_bytes_total", "counter", help, sent);
    let (open, max) = (process.open_files as f64, process.files_max as f64);
    let rows = [
        (
            "process_resident_memory_bytes",
            "Resident memory, in bytes.",
            process.resident_bytes as f64,
        ),
        ("process_virtual_memory_bytes", "Virtual memory, in bytes.", process.virtual_bytes as f64),
        (
            "process_virtual_memory_max_bytes",
            "Maximum virtual memory, in bytes.",
            process.virtual_bytes_max as f64,
        ),
        ("process_open_fds", "Number of open file descriptors.", open),
        ("process_max_fds", "Maximum number of open file descriptors.", max),
        ("os_fd_used", "Number of open file descriptors.", open),
        ("os_fd_limit", "Maximum number of open file descriptors.", max),
        (
            "process_start_time_seconds",
            "Unix time of the start of the process, in seconds.",
            process.start_seconds,
        ),
    ];
    rows.iter().for_each(|(name, help, value)| out.one(name, "gauge", help, *value));
}

#[cfg(test)]
mod tests {
    use basalt_proto::rpc::{Rpc, Unary};

    use super::*;

    #[test]
    fn the_page_is_well_formed() {
        PUTS.add(2);
        WAL_FSYNC.observe(0.003);
        client_request("unary", "3.7");
        rpc_handled(Rpc::Unary(Unary::KVPut), 8);
        let gauges = Gauges {
            version: "3.7.1".to_owned(),
            cluster_version: Some("3.7".to_owned()),
            members: vec![10],
            ..Gauges::default()
        };
        let page = text(&gauges);
        for expected in [
            "# TYPE etcd_mvcc_put_total counter\n",
            "etcd_disk_wal_fsync_duration_seconds_bucket{le=\"0.004\"} 1\n",
            "etcd_cluster_version{cluster_version=\"3.7\"} 1\n",
            "etcd_server_client_requests_total{client_api_version=\"3.7\",type=\"unary\"} 1\n",
            "grpc_server_handled_total{grpc_code=\"ResourceExhausted\",grpc_method=\"Put\",\
             grpc_service=\"etcdserverpb.KV\",grpc_type=\"unary\"} 1\n",
            "etcd_network_known_peers{Local=\"0\",Remote=\"a\"} 1\n",
        ] {
            assert!(page.contains(expected), "{expected} is missing in\n{page}");
        }
        let mut names: Vec<_> = page
            .lines()
            .filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next())
            .collect();
        assert!(names.is_sorted(), "sorted by name");
        let all = names.len();
        names.dedup();
        assert_eq!(names.len(), all, "each family once");
    }
}
