//! Numbers under etcd's names, in the text form that Prometheus reads.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};

/// A number that only grows. Relaxed: nothing else is ordered by it.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Zero.
    pub const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Adds.
    pub fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    /// Its value.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Puts applied.
pub static PUTS: Counter = Counter::new();
/// Deletes applied.
pub static DELETES: Counter = Counter::new();
/// Transactions applied.
pub static TXNS: Counter = Counter::new();
/// Ranges answered.
pub static RANGES: Counter = Counter::new();
/// Proposals that were not applied in time.
pub static PROPOSALS_FAILED: Counter = Counter::new();
/// Changes of leader seen.
pub static LEADER_CHANGES: Counter = Counter::new();

/// What the kernel says of this process.
#[derive(Clone, Copy, Debug, Default)]
pub struct Process {
    /// Seconds of processor time.
    pub cpu_seconds: f64,
    /// Bytes in memory.
    pub resident_bytes: u64,
    /// Bytes of address space.
    pub virtual_bytes: u64,
    /// Open files.
    pub open_files: u64,
    /// Files that may be open.
    pub files_max: u64,
    /// Seconds since 1970 at which it started.
    pub start_seconds: f64,
}

/// Numbers that are looked up when asked for.
#[derive(Clone, Debug, Default)]
pub struct Gauges {
    /// A leader is known.
    pub has_leader: bool,
    /// This member leads.
    pub is_leader: bool,
    /// The newest committed index.
    pub committed: u64,
    /// The newest applied index.
    pub applied: u64,
    /// Bytes of the store on disk.
    pub disk_bytes: u64,
    /// `--quota-backend-bytes`.
    pub quota_bytes: u64,
    /// The newest revision.
    pub revision: i64,
    /// History up to here is gone.
    pub compacted: i64,
    /// This member.
    pub member_id: u64,
    /// The process.
    pub process: Process,
    /// The version clients are told.
    pub version: &'static str,
    /// The version all members speak.
    pub cluster_version: Option<String>,
}

/// All families.
pub fn text(gauges: &Gauges) -> String {
    let mut out = String::new();
    let flag = |on: bool| if on { "1".to_owned() } else { "0".to_owned() };
    let process = &gauges.process;
    let families: [(&str, &str, &str, String); 22] = [
        ("etcd_server_has_leader", "gauge", "Whether a leader is known.", flag(gauges.has_leader)),
        ("etcd_server_is_leader", "gauge", "Whether this member leads.", flag(gauges.is_leader)),
        ("etcd_server_is_learner", "gauge", "Whether this member is a learner.", flag(false)),
        ("etcd_server_leader_changes_seen_total", "counter", "Changes of leader seen.", LEADER_CHANGES.get().to_string()),
        ("etcd_server_proposals_committed_total", "gauge", "The newest committed index.", gauges.committed.to_string()),
        ("etcd_server_proposals_applied_total", "gauge", "The newest applied index.", gauges.applied.to_string()),
        ("etcd_server_proposals_failed_total", "counter", "Proposals not applied in time.", PROPOSALS_FAILED.get().to_string()),
        ("etcd_server_quota_backend_bytes", "gauge", "The quota of the store in bytes.", gauges.quota_bytes.to_string()),
        ("etcd_mvcc_db_total_size_in_bytes", "gauge", "Bytes of the store on disk.", gauges.disk_bytes.to_string()),
        ("etcd_mvcc_db_total_size_in_use_in_bytes", "gauge", "Bytes of the store in use.", gauges.disk_bytes.to_string()),
        ("etcd_mvcc_put_total", "counter", "Puts applied.", PUTS.get().to_string()),
        ("etcd_mvcc_delete_total", "counter", "Deletes applied.", DELETES.get().to_string()),
        ("etcd_mvcc_txn_total", "counter", "Transactions applied.", TXNS.get().to_string()),
        ("etcd_mvcc_range_total", "counter", "Ranges answered.", RANGES.get().to_string()),
        ("etcd_debugging_mvcc_current_revision", "gauge", "The newest revision.", gauges.revision.to_string()),
        ("etcd_debugging_mvcc_compact_revision", "gauge", "The compacted revision.", gauges.compacted.to_string()),
        ("process_cpu_seconds_total", "counter", "Seconds of processor time.", process.cpu_seconds.to_string()),
        ("process_resident_memory_bytes", "gauge", "Bytes in memory.", process.resident_bytes.to_string()),
        ("process_virtual_memory_bytes", "gauge", "Bytes of address space.", process.virtual_bytes.to_string()),
        ("process_open_fds", "gauge", "Open files.", process.open_files.to_string()),
        ("process_max_fds", "gauge", "Files that may be open.", process.files_max.to_string()),
        ("process_start_time_seconds", "gauge", "When the process started.", process.start_seconds.to_string()),
    ];
    for (name, kind, help, value) in families {
        // Writing to a string cannot fail.
        let _ = write!(out, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n");
    }
    labelled(&mut out, "etcd_server_id", "server_id", &format!("{:x}", gauges.member_id));
    labelled(&mut out, "etcd_server_version", "server_version", gauges.version);
    if let Some(version) = &gauges.cluster_version {
        let minor = version.rsplit_once('.').map_or(version.as_str(), |(minor, _)| minor);
        labelled(&mut out, "etcd_cluster_version", "cluster_version", minor);
    }
    out
}

fn labelled(out: &mut String, name: &str, label: &str, value: &str) {
    let help = "Always 1; the label says it.";
    let _ = write!(out, "# HELP {name} {help}\n# TYPE {name} gauge\n{name}{{{label}=\"{value}\"}} 1\n");
}
