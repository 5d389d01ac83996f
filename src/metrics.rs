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
    server(&mut out, gauges);
    keys(&mut out, gauges);
    process(&mut out, &gauges.process);
    labelled(&mut out, "etcd_server_id", "server_id", &format!("{:x}", gauges.member_id));
    labelled(&mut out, "etcd_server_version", "server_version", gauges.version);
    if let Some(version) = &gauges.cluster_version {
        let minor = version.rsplit_once('.').map_or(version.as_str(), |(minor, _)| minor);
        labelled(&mut out, "etcd_cluster_version", "cluster_version", minor);
    }
    out
}

fn server(out: &mut String, gauges: &Gauges) {
    let prefixed = |name: &str| format!("etcd_server_{name}");
    let flag = |on: bool| u64::from(on);
    let rows: [(&str, &str, u64); 7] = [
        ("has_leader", "Whether a leader is known.", flag(gauges.has_leader)),
        ("is_leader", "Whether this member leads.", flag(gauges.is_leader)),
        ("is_learner", "Whether this member is a learner.", 0),
        ("proposals_committed_total", "The newest committed index.", gauges.committed),
        ("proposals_applied_total", "The newest applied index.", gauges.applied),
        ("quota_backend_bytes", "The quota of the store in bytes.", gauges.quota_bytes),
        ("leader_changes_seen_total", "Changes of leader seen.", LEADER_CHANGES.get()),
    ];
    for (name, help, value) in rows {
        let kind = if name == "leader_changes_seen_total" { "counter" } else { "gauge" };
        family(out, &prefixed(name), kind, help, value);
    }
}

fn keys(out: &mut String, gauges: &Gauges) {
    let (disk, used) = ("Bytes of the store on disk.", "Bytes of the store in use.");
    family(out, "etcd_mvcc_db_total_size_in_bytes", "gauge", disk, gauges.disk_bytes);
    family(out, "etcd_mvcc_db_total_size_in_use_in_bytes", "gauge", used, gauges.disk_bytes);
    family(out, "etcd_mvcc_put_total", "counter", "Puts applied.", PUTS.get());
    family(out, "etcd_mvcc_delete_total", "counter", "Deletes applied.", DELETES.get());
    family(out, "etcd_mvcc_txn_total", "counter", "Transactions applied.", TXNS.get());
    family(out, "etcd_mvcc_range_total", "counter", "Ranges answered.", RANGES.get());
    let current = "etcd_debugging_mvcc_current_revision";
    family(out, current, "gauge", "The newest revision.", gauges.revision);
    let compacted = "etcd_debugging_mvcc_compact_revision";
    family(out, compacted, "gauge", "The compacted revision.", gauges.compacted);
}

fn process(out: &mut String, process: &Process) {
    let cpu = "Seconds of processor time.";
    family(out, "process_cpu_seconds_total", "counter", cpu, process.cpu_seconds);
    let resident = "Bytes in memory.";
    family(out, "process_resident_memory_bytes", "gauge", resident, process.resident_bytes);
    let space = "Bytes of address space.";
    family(out, "process_virtual_memory_bytes", "gauge", space, process.virtual_bytes);
    family(out, "process_open_fds", "gauge", "Open files.", process.open_files);
    family(out, "process_max_fds", "gauge", "Files that may be open.", process.files_max);
    let start = "When the process started.";
    family(out, "process_start_time_seconds", "gauge", start, process.start_seconds);
}

fn family(out: &mut String, name: &str, kind: &str, help: &str, value: impl std::fmt::Display) {
    // Writing to a string cannot fail.
    let _ = write!(out, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n");
}

fn labelled(out: &mut String, name: &str, label: &str, value: &str) {
    let help = "Always 1; the label says it.";
    let _ =
        write!(out, "# HELP {name} {help}\n# TYPE {name} gauge\n{name}{{{label}=\"{value}\"}} 1\n");
}
