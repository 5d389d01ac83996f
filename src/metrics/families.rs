//! The metric families: names, help texts and counters.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::cells::{Counter, Gauge, Histogram};
use super::text::{Writer, quoted};
use crate::command::Operation;

macro_rules! numbers {
    ($list:ident: $kind:ident $make:expr; $($(#[$doc:meta])* $name:ident $text:literal $help:literal;)*) => {
        $($(#[$doc])* #[doc = $help] pub static $name: $kind = $make;)*
        pub(super) const $list: &[(&str, &str, &$kind)] = &[$(($text, $help, &$name),)*];
    };
}

/// Times that changed certificate files were taken over, and that they were not; shown with labels.
pub static TLS_RELOADS: Counter = Counter::new();
/// See [`TLS_RELOADS`].
pub static TLS_RELOADS_FAILED: Counter = Counter::new();

numbers! { COUNTERS: Counter Counter::new();
    PUTS "etcd_mvcc_put_total" "Total number of puts.";
    DELETES "etcd_mvcc_delete_total" "Total number of deletes.";
    TXNS "etcd_mvcc_txn_total" "Total number of transactions with more than one change.";
    RANGES "etcd_mvcc_range_total" "Total number of ranges.";
    EVENTS "etcd_debugging_mvcc_events_total" "Total number of events sent to watchers.";
    LEADER_CHANGES "etcd_server_leader_changes_seen_total" "Number of leader changes seen.";
    PROPOSALS_FAILED "etcd_server_proposals_failed_total" "Total number of proposals that were not applied in time.";
    READ_INDEXES_FAILED "etcd_server_read_indexes_failed_total" "Total number of read indexes that failed.";
    READ_INDEXES_SLOW "etcd_server_slow_read_indexes_total" "Total number of read indexes that took longer than 500 ms.";
    APPLIES_SLOW "etcd_server_slow_apply_total" "Total number of requests whose apply took longer than --warning-apply-duration.";
    HEARTBEATS_FAILED "etcd_server_heartbeat_send_failures_total" "Total number of heartbeats that were sent late, probably because of a slow disk.";
    LEASES_GRANTED "etcd_debugging_lease_granted_total" "Total number of leases granted.";
    LEASES_RENEWED "etcd_debugging_lease_renewed_total" "Total number of lease renewals that the leader answered.";
    LEASES_REVOKED "etcd_debugging_lease_revoked_total" "Total number of leases revoked.";
    LEASES_EXPIRED "etcd_debugging_server_lease_expired_total" "Total number of leases expired.";
    COMPACTED_KEYS "etcd_debugging_mvcc_db_compaction_keys_total" "Total number of key versions removed by compaction.";
    HEALTHY "etcd_server_health_success" "Total number of successful health checks.";
    UNHEALTHY "etcd_server_health_failures" "Total number of failed health checks.";
    BYTES_RECEIVED "etcd_network_client_grpc_received_bytes_total" "Total number of bytes received from gRPC clients.";
    ACCEPTS_WAITED "basalt_network_accept_waits_total" "Total number of times that accepting a connection waited for a file descriptor.";
    ACCEPTS_FAILED "basalt_network_accept_failures_total" "Total number of failed accepts.";
    CONNECTIONS_TURNED_AWAY "basalt_network_connections_turned_away_total" "Total number of client connections closed because no file descriptor was left.";
    ANSWERS_WAITED "basalt_network_answer_waits_total" "Total number of responses that waited for memory of the response budget.";
    REQUESTS_WAITED "basalt_server_request_waits_total" "Total number of requests that waited for room among the requests in flight.";
    REQUESTS_REFUSED "basalt_server_requests_refused_total" "Total number of requests refused because there was no room among the requests in flight.";
    ANSWERS_REFUSED "basalt_network_answers_refused_total" "Total number of responses refused because the response budget was exhausted.";
    BYTES_SENT "etcd_network_client_grpc_sent_bytes_total" "Total number of bytes sent to gRPC clients.";
    LOG_LINES_DROPPED "basalt_log_lines_dropped_total" "Total number of log lines dropped because too many waited to be written.";
    LOG_LINES_SUPPRESSED "basalt_log_lines_suppressed_total" "Total number of log lines suppressed because their call site wrote too many in a second.";
    PASSWORDS_HASHED "basalt_auth_password_hashes_total" "Total number of bcrypt hashes computed for logins and changes of passwords.";
    LOGINS_FAILED "basalt_auth_logins_failed_total" "Total number of logins with an unknown user or a wrong password.";
    LOGINS_THROTTLED "basalt_auth_logins_throttled_total" "Total number of logins refused because of too many failures of the user or address before.";
    AUDIT_LINES "basalt_audit_lines_total" "Total number of lines written to the audit log.";
    AUDIT_LINES_DROPPED "basalt_audit_lines_dropped_total" "Total number of lines of the audit log dropped because too many waited to be written.";
    CALLS_STALLED "basalt_calls_stalled_total" "Total number of calls that were given up because their clients did not send the rest of the request, or take the answer.";
    STREAMS_REFUSED "basalt_streams_refused_total" "Total number of streams that were refused because there were too many.";
    CONNECTIONS_JUDGED "basalt_connections_disconnected_total" "Total number of client connections that were closed because of too many pings, resets or other frames, or because their clients took nothing.";
    REQUESTS_LIMITED "basalt_requests_limited_total" "Total number of requests refused by a limit of its user or client address.";
}

numbers! { GAUGES: Gauge Gauge::new();
    PROPOSALS_PENDING "etcd_server_proposals_pending" "Number of proposals that are not applied yet.";
    AUTH_REVISION "etcd_debugging_auth_revision" "Current revision of users and roles.";
    WATCH_STREAMS "etcd_debugging_mvcc_watch_stream_total" "Number of open watch streams.";
    WATCHERS "etcd_debugging_mvcc_watcher_total" "Number of watchers.";
    WATCHERS_SLOW "etcd_debugging_mvcc_slow_watcher_total" "Number of unsynced watchers.";
    EVENTS_PENDING "etcd_debugging_mvcc_pending_events_total" "Number of events that are not sent yet.";
    WAL_BYTES "etcd_disk_wal_write_bytes_total" "Total number of bytes written to the WAL.";
    SNAPSHOTS_APPLYING "etcd_server_snapshot_apply_in_progress_total" "1 while a snapshot from the leader is applied, else 0.";
    COMPACTION_LAST "etcd_debugging_mvcc_db_compaction_last" "Unix time of the end of the last compaction.";
    DEFRAG_IN_FLIGHT "etcd_disk_defrag_inflight" "1 while a defragmentation runs, else 0.";
    PUT_BYTES "etcd_debugging_mvcc_total_put_size_in_bytes" "Total size of keys and values put, in bytes.";
}

macro_rules! histograms {
    ($($name:ident $text:literal $help:literal $start:literal $count:literal;)*) => {
        $(#[doc = $help] pub static $name: Histogram = Histogram::new($start, 2.0, $count);)*
        pub(super) const HISTOGRAMS: &[(&str, &str, &Histogram)] = &[$(($text, $help, &$name),)*];
    };
}

histograms! {
    WAL_FSYNC "etcd_disk_wal_fsync_duration_seconds" "Latency of WAL fsyncs." 0.001 14;
    WAL_WRITE "etcd_disk_wal_write_duration_seconds" "Latency of WAL writes." 0.001 14;
    STORE_COMMIT "etcd_disk_backend_commit_duration_seconds" "Latency of commits to the store." 0.001 14;
    STORE_SNAPSHOT "etcd_disk_backend_snapshot_duration_seconds" "Latency of snapshots sent to clients." 0.01 17;
    DEFRAG "etcd_disk_backend_defrag_duration_seconds" "Latency of defragmentations." 0.1 13;
    HASH "etcd_mvcc_hash_duration_seconds" "Latency of hashing the whole store." 0.01 15;
    HASH_KV "etcd_mvcc_hash_rev_duration_seconds" "Latency of hashing the key space at a revision." 0.01 15;
    COMPACTION "etcd_debugging_mvcc_db_compaction_total_duration_milliseconds" "Duration of compactions, in milliseconds." 100.0 14;
    COMPACTION_SLICE "etcd_debugging_mvcc_db_compaction_pause_duration_milliseconds" "Duration of one slice of a compaction, during which nothing is applied, in milliseconds." 1.0 13;
    LEASE_TTLS "etcd_debugging_lease_ttl_total" "TTLs of granted leases, in seconds." 1.0 24;
}

/// Families that dashboards query and whose value is always zero: this process is no proxy and has no v2 store.
pub(super) const ZEROS: &[(&str, &str, &str)] = &[
    ("etcd_debugging_store_expires_total", "counter", "Total number of expired v2 keys."),
    ("etcd_debugging_store_watch_requests_total", "counter", "Total number of v2 watch requests."),
    ("etcd_debugging_store_watchers", "gauge", "Number of v2 watchers."),
    ("etcd_grpc_proxy_cache_hits_total", "gauge", "Total number of cache hits of a gRPC proxy."),
    ("etcd_grpc_proxy_cache_keys_total", "gauge", "Number of keys in the cache of a gRPC proxy."),
    (
        "etcd_grpc_proxy_cache_misses_total",
        "gauge",
        "Total number of cache misses of a gRPC proxy.",
    ),
    (
        "etcd_grpc_proxy_events_coalescing_total",
        "counter",
        "Total number of events that a gRPC proxy coalesced.",
    ),
    (
        "etcd_grpc_proxy_watchers_coalescing_total",
        "gauge",
        "Number of watchers that a gRPC proxy coalesced.",
    ),
    (
        "etcd_server_learner_promote_successes",
        "counter",
        "Total number of learner promotions while this member was leader.",
    ),
];

/// Kinds of requests whose duration is measured.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Timed {
    /// A range.
    Range,
    /// A transaction that only reads.
    ReadonlyTxn,
    /// A put.
    Put,
    /// A deletion.
    DeleteRange,
    /// A transaction that may write.
    Txn,
    /// A compaction.
    Compaction,
    /// A new lease.
    LeaseGrant,
    /// A revoke of a lease.
    LeaseRevoke,
    /// A request about alarms.
    Alarm,
}

const TIMED: [(&str, Timed); 9] = [
    ("Range", Timed::Range),
    ("ReadonlyTxn", Timed::ReadonlyTxn),
    ("Put", Timed::Put),
    ("DeleteRange", Timed::DeleteRange),
    ("Txn", Timed::Txn),
    ("Compaction", Timed::Compaction),
    ("LeaseGrant", Timed::LeaseGrant),
    ("LeaseRevoke", Timed::LeaseRevoke),
    ("Alarm", Timed::Alarm),
];

/// Time from a request's arrival to its answer, by kind and success.
static REQUESTS: [[Histogram; 2]; TIMED.len()] =
    [const { [const { Histogram::new(0.001, 2.0, 14) }; 2] }; TIMED.len()];

/// Records the duration of a request.
pub fn request(kind: Timed, success: bool, seconds: f64) {
    REQUESTS[kind as usize][usize::from(success)].observe(seconds);
}

/// Time to apply a command, by operation and success.
static APPLIED: [[Histogram; 2]; Operation::ALL.len()] =
    [const { [const { Histogram::new(0.0001, 2.0, 20) }; 2] }; Operation::ALL.len()];

/// Records the duration of an applied command.
pub fn applied(operation: Operation, success: bool, seconds: f64) {
    APPLIED[operation as usize][usize::from(success)].observe(seconds);
}

/// Time to read a range, by success.
static RANGED: [Histogram; 2] = [const { Histogram::new(0.0001, 2.0, 20) }; 2];

/// Records the duration of a range.
pub fn ranged(success: bool, seconds: f64) {
    RANGED[usize::from(success)].observe(seconds);
}

/// Distinct client versions that are counted; the rest shares one label, so that clients cannot fill the memory.
const CLIENT_VERSIONS_MAX: usize = 16;
/// Bytes of a version that are kept.
const CLIENT_VERSION_BYTES_MAX: usize = 64;

struct ClientVersion {
    name: OnceLock<String>,
    unary: Counter,
    stream: Counter,
}

static CLIENTS: [ClientVersion; CLIENT_VERSIONS_MAX] = [const {
    ClientVersion { name: OnceLock::new(), unary: Counter::new(), stream: Counter::new() }
}; CLIENT_VERSIONS_MAX];

/// Counts a request by the client's version, in a `unary` call or a `stream`.
pub fn client_request(kind: &'static str, version: &str) {
    let mut version = version;
    if version.len() > CLIENT_VERSION_BYTES_MAX {
        version = "other";
    }
    for (at, client) in CLIENTS.iter().enumerate() {
        let last = at + 1 == CLIENT_VERSIONS_MAX;
        let name = client.name.get_or_init(|| if last { "other" } else { version }.to_owned());
        if name == version || last {
            let counter = if kind == "stream" { &client.stream } else { &client.unary };
            return counter.add(1);
        }
    }
}

/// Checks of `/livez` and `/readyz`: page, check.
const CHECKS: [(&str, &str); 5] = [
    ("livez", "serializable_read"),
    ("readyz", "data_corruption"),
    ("readyz", "linearizable_read"),
    ("readyz", "non_learner"),
    ("readyz", "serializable_read"),
];

static CHECKED: [[AtomicU64; 2]; CHECKS.len()] =
    [const { [const { AtomicU64::new(0) }; 2] }; CHECKS.len()];
/// Result of the last run of each check: 0 if there was none, 1 for failure, 2 for success.
static CHECKED_LAST: [AtomicU64; CHECKS.len()] = [const { AtomicU64::new(0) }; CHECKS.len()];

/// Counts a check.
pub fn health_check(page: &str, check: &str, success: bool) {
    if let Some(at) = CHECKS.iter().position(|known| *known == (page, check)) {
        CHECKED[at][usize::from(success)].fetch_add(1, Relaxed);
        CHECKED_LAST[at].store(1 + u64::from(success), Relaxed);
    }
}

pub(super) fn write_labelled(out: &mut Writer) {
    let times = TIMED.iter().flat_map(|(name, kind)| {
        let both = REQUESTS[*kind as usize].iter().zip(["false", "true"]);
        both.filter(|(histogram, _)| !histogram.is_empty()).map(move |(histogram, success)| {
            (format!("success=\"{success}\",type=\"{name}\""), histogram.counts())
        })
    });
    let help = "Latency of requests, from the request to the response.";
    out.histogram("etcd_server_request_duration_seconds", help, times);
    write_reads_and_writes(out);
    let clients = CLIENTS.iter().filter_map(|client| client.name.get().zip(Some(client)));
    let clients = clients.flat_map(|(name, client)| {
        [("stream", &client.stream), ("unary", &client.unary)].map(|(kind, counter)| {
            let label = format!("client_api_version={},type=\"{kind}\"", quoted(name));
            (label, counter.get() as f64)
        })
    });
    let asked = clients.filter(|(_, count)| *count > 0.0);
    let help = "Total number of client requests, by the API version of the client.";
    out.family("etcd_server_client_requests_total", "counter", help, asked);
    write_checks(out);
}

/// Families without a value are omitted, as by Go's client.
fn write_reads_and_writes(out: &mut Writer) {
    const SUCCESS: [&str; 2] = ["false", "true"];
    let counted = |(histogram, _): &(&Histogram, &str)| !histogram.is_empty();
    let applied = Operation::ALL.iter().zip(&APPLIED).flat_map(|(operation, both)| {
        let operation = operation.name();
        both.iter().zip(SUCCESS).filter(counted).map(move |(histogram, success)| {
            let labels = format!("op=\"{operation}\",success=\"{success}\",version=\"v3\"");
            (labels, histogram.counts())
        })
    });
    let help = "Latency of applying requests.";
    out.histogram("etcd_server_apply_duration_seconds", help, applied);
    let ranged = RANGED.iter().zip(SUCCESS).filter(counted);
    let ranged =
        ranged.map(|(histogram, success)| (format!("success=\"{success}\""), histogram.counts()));
    out.histogram("etcd_server_range_duration_seconds", "Latency of ranges.", ranged);
}

fn write_checks(out: &mut Writer) {
    let all = || CHECKS.iter().enumerate().map(|(at, (page, name))| (at, *page, *name));
    let last = all().filter_map(|(at, page, name)| {
        let last = CHECKED_LAST[at].load(Relaxed).checked_sub(1)?;
        Some((format!("name=\"{name}\",type=\"{page}\""), last as f64))
    });
    out.family(
        "etcd_server_healthcheck",
        "gauge",
        "Result of the last health check: 1 for success, 0 for an error.",
        last,
    );
    let counts = all().flat_map(|(at, page, name)| {
        ["error", "success"].into_iter().zip(&CHECKED[at]).map(move |(status, count)| {
            let label = format!("name=\"{name}\",status=\"{status}\",type=\"{page}\"");
            (label, count.load(Relaxed) as f64)
        })
    });
    let made = counts.filter(|(_, count)| *count > 0.0);
    out.family(
        "etcd_server_healthchecks_total",
        "counter",
        "Total number of health checks, by result.",
        made,
    );
}
