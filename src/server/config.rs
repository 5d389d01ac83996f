//! The checked configuration of a member, in the order and with the texts of etcd's own checks.

mod checks;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use gocompat::duration;

use self::checks::{
    check_bootstrap, check_tls_versions, refuse_unsupported, request_bytes, retention,
};
use super::flag::Row as _;
use super::gates::{Gate, Gates};
use super::security::Security;
use super::settings::{Flags, Level, Note};
use super::tls::Sides;
use super::values::{self, Listen, Url, listen};
use super::{log, table};
use crate::consensus::vote_lease;
use crate::http;
use crate::io::ReactorChoice;
use crate::mvcc::Retention;
use crate::rpc::Policy;

/// etcd's default quota of the store, in bytes.
const QUOTA_DEFAULT: u64 = 2 << 30;
/// etcd's longest election timeout, in ms.
const ELECTION_MS_MAX: u64 = 50_000;
/// Sizes above which etcd warns: a store that takes long to send, a request that delays others.
const QUOTA_LARGE: u64 = 8 << 30;
const REQUEST_LARGE: usize = 10 << 20;
/// Least timeout of connections to members; etcd raises lower ones, too.
const RAFT_TIMEOUT_MIN: Duration = Duration::from_secs(5);
/// The most streams that HTTP/2 can number.
const STREAMS_MAX: u32 = 1 << 31;
/// etcd's defaults of compaction.
const COMPACTION_BATCH_DEFAULT: usize = 1000;
const COMPACTION_SLEEP_DEFAULT: Duration = Duration::from_millis(10);

/// The settings of a member. Its fields are visible in this room only, so that the compiler reports unread ones.
#[derive(Clone, Debug)]
pub struct Config {
    /// `--name`.
    pub(super) name: String,
    /// `--data-dir`, or the name and `.etcd`.
    pub(super) data_dir: PathBuf,
    /// `--wal-dir`, if it is set.
    pub(super) wal_dir: Option<PathBuf>,
    /// `--listen-peer-urls`.
    pub(super) listen_peers: Vec<Listen>,
    /// `--listen-client-urls`.
    pub(super) listen_clients: Vec<Listen>,
    /// `--listen-client-http-urls`; the client URLs serve gRPC alone if there are any.
    pub(super) listen_http: Vec<Listen>,
    /// `--listen-metrics-urls`.
    pub(super) listen_metrics: Vec<Listen>,
    /// TLS towards clients and members.
    pub(super) tls: Sides,
    /// `--advertise-client-urls`.
    pub(super) advertise_clients: Vec<String>,
    /// `--initial-advertise-peer-urls`.
    pub(super) advertise_peers: Vec<String>,
    /// `--initial-cluster`: names and peer URLs.
    pub(super) initial_cluster: BTreeMap<String, Vec<String>>,
    /// `--initial-cluster-state existing`: a member without data must not found a cluster of its own.
    pub(super) joins_existing: bool,
    /// `--force-new-cluster`: all other members are lost for good.
    pub(super) force_new_cluster: bool,
    /// `--corrupt-check-time`: interval at which the leader compares the members; zero for never.
    pub(super) corrupt_check: Duration,
    /// `--compact-hash-check-time`: interval at which it compares their newest compactions, with the gate
    /// `CompactHashCheck`.
    pub(super) compact_hash_check: Duration,
    /// `--initial-cluster-token`.
    pub(super) token: String,
    /// `--heartbeat-interval`.
    pub(super) heartbeat: Duration,
    /// `--election-timeout`.
    pub(super) election: Duration,
    /// `--initial-election-tick-advance`.
    pub(super) election_advance: bool,
    /// `--pre-vote`.
    pub(super) pre_vote: bool,
    /// `--strict-reconfig-check`.
    pub(super) strict_reconfig: bool,
    /// `--max-learners`.
    pub(super) learners_max: usize,
    /// `--snapshot-count`.
    pub(super) snapshot_count: u64,
    /// `--bootstrap-defrag-threshold-megabytes`, in bytes; 0 for never.
    pub(super) bootstrap_defrag_bytes: u64,
    /// `--snapshot-catchup-entries`.
    pub(super) catch_up_entries: u64,
    /// `--max-wals`.
    pub(super) max_wals: usize,
    /// `--max-txn-ops`.
    pub(super) max_txn_ops: usize,
    /// `--max-request-bytes`.
    pub(super) max_request_bytes: usize,
    /// `--max-concurrent-streams`.
    pub(super) max_streams: u32,
    /// `--quota-backend-bytes`, resolved; 0 for none.
    pub(super) quota_bytes: u64,
    /// `--grpc-keepalive-interval`.
    pub(super) keep_alive: Duration,
    /// `--grpc-keepalive-min-time`.
    pub(super) ping_min: Duration,
    /// `--grpc-keepalive-timeout`.
    pub(super) keep_alive_timeout: Duration,
    /// `--watch-progress-notify-interval`.
    pub(super) progress_notify: Duration,
    /// `--warning-unary-request-duration`.
    pub(super) slow_request: Duration,
    /// `--enable-grpc-gateway`: true to serve the API as JSON too.
    pub(super) gateway: bool,
    /// `--gateway-client-cert-auth`: true if names in client certificates are users of the gateway, too.
    pub(super) gateway_certificate_names: bool,
    /// `--warning-apply-duration`.
    pub(super) slow_apply: Duration,
    /// `--auto-compaction-retention`, in the unit of `--auto-compaction-mode`.
    pub(super) retention: Retention,
    /// `--raft-read-timeout`, at least five seconds.
    pub(super) raft_read_timeout: Duration,
    /// `--raft-write-timeout`, at least five seconds.
    pub(super) raft_write_timeout: Duration,
    /// `--compaction-batch-limit`.
    pub(super) compaction_batch: usize,
    /// `--compaction-sleep-interval`.
    pub(super) compaction_sleep: Duration,
    /// `--unsafe-no-fsync`.
    pub(super) unsafe_no_fsync: bool,
    /// `--cors`.
    pub(super) origins: Vec<String>,
    /// `--host-whitelist`.
    pub(super) hosts: Vec<String>,
    /// `--feature-gates`: the state of each gate.
    pub(super) gates: Gates,
    /// `--lease-based-reads`: give a vote lease with each heartbeat response, and as leader read under the
    /// lease of a quorum.
    pub(super) lease_based_reads: bool,
    /// Tokens, passwords, the audit log, limits of users.
    pub(super) security: Security,
    /// `--cores`: which to use; as many as are good when empty.
    pub(super) cores: Vec<usize>,
    /// `--reactor`.
    pub(super) reactor: ReactorChoice,
    /// The command line of the process.
    pub command_line: Vec<String>,
    /// Lines to log once the log is started.
    pub notes: Vec<Note>,
}

/// The parsed addresses of the member.
struct Addresses {
    peers: Vec<Url>,
    clients: Vec<Url>,
    http: Vec<Url>,
    metrics: Vec<Url>,
    advertise_peers: Vec<Url>,
    advertise_clients: Vec<Url>,
}

impl Config {
    /// Parses and checks flags.
    ///
    /// # Errors
    /// The first invalid flag or combination, with etcd's text where it has one.
    pub fn new(flags: &Flags, command_line: Vec<String>) -> Result<Self, Note> {
        let (mut config, addresses) = Self::verify(flags, command_line).map_err(|text| {
            Note::new(Level::Warn, "failed to verify flags").about("error", text)
        })?;
        // etcd refuses these when it looks for the other members.
        config
            .settle(flags, &addresses)
            .map_err(|text| Note::new(Level::Fatal, "discovery failed").about("error", text))?;
        config.note(flags);
        Ok(config)
    }

    fn verify(flags: &Flags, command_line: Vec<String>) -> Result<(Self, Addresses), String> {
        log::Options::new(flags)?;
        let addresses = Addresses::new(flags)?;
        let config = Self::read(flags, &addresses, command_line)?;
        check_bootstrap(flags)?;
        config.check_times()?;
        if addresses.advertise_clients.is_empty() {
            let text =
                "--advertise-client-urls is required when --listen-client-urls is set explicitly";
            return Err(text.to_owned());
        }
        match table::AUTO_COMPACTION_MODE.get(flags).as_str() {
            "revision" | "periodic" => (),
            "" => return Err("undefined auto-compaction-mode".to_owned()),
            other => return Err(format!("unknown auto-compaction-mode {other:?}")),
        }
        config.check_gates(flags)?;
        check_tls_versions(flags)?;
        refuse_unsupported(flags)?;
        Ok((config, addresses))
    }

    fn settle(&mut self, flags: &Flags, addresses: &Addresses) -> Result<(), String> {
        let Addresses { peers, clients, http, metrics, .. } = addresses;
        let clients: Vec<_> = clients.iter().chain(http).collect();
        self.tls.check(peers, &clients, metrics, &mut self.notes)?;
        self.check_split()?;
        self.read_cluster(flags)?;
        self.retention = retention(flags)?;
        Ok(())
    }

    fn read(
        flags: &Flags,
        addresses: &Addresses,
        command_line: Vec<String>,
    ) -> Result<Self, String> {
        let (name, mut notes) = (table::NAME.get(flags), Vec::new());
        Ok(Self {
            data_dir: data_dir(flags, &name),
            wal_dir: wal_dir(flags),
            listen_peers: listen(&addresses.peers)?,
            listen_clients: listen(&addresses.clients)?,
            listen_http: listen(&addresses.http)?,
            listen_metrics: listen(&addresses.metrics)?,
            tls: Sides::read(flags, &addresses.peers, &addresses.clients, &mut notes)?,
            advertise_clients: texts(&addresses.advertise_clients),
            advertise_peers: texts(&addresses.advertise_peers),
            initial_cluster: BTreeMap::new(),
            joins_existing: table::INITIAL_CLUSTER_STATE.get(flags),
            force_new_cluster: table::FORCE_NEW_CLUSTER.get(flags),
            corrupt_check: table::CORRUPT_CHECK_TIME.get(flags),
            compact_hash_check: table::COMPACT_HASH_CHECK_TIME.get(flags),
            token: table::INITIAL_CLUSTER_TOKEN.get(flags),
            heartbeat: table::HEARTBEAT_INTERVAL.get(flags),
            election: table::ELECTION_TIMEOUT.get(flags),
            election_advance: table::INITIAL_ELECTION_TICK_ADVANCE.get(flags),
            pre_vote: table::PRE_VOTE.get(flags),
            strict_reconfig: table::STRICT_RECONFIG_CHECK.get(flags),
            learners_max: table::MAX_LEARNERS.get(flags),
            snapshot_count: table::SNAPSHOT_COUNT.get(flags).max(1),
            bootstrap_defrag_bytes: table::BOOTSTRAP_DEFRAG_THRESHOLD_MEGABYTES
                .get(flags)
                .saturating_mul(1 << 20),
            catch_up_entries: table::SNAPSHOT_CATCHUP_ENTRIES.get(flags),
            max_wals: table::MAX_WALS.get(flags),
            max_txn_ops: table::MAX_TXN_OPS.get(flags),
            max_request_bytes: request_bytes(flags)?,
            max_streams: table::MAX_CONCURRENT_STREAMS.get(flags).min(STREAMS_MAX),
            quota_bytes: quota_bytes(flags),
            keep_alive: table::GRPC_KEEPALIVE_INTERVAL.get(flags),
            ping_min: table::GRPC_KEEPALIVE_MIN_TIME.get(flags),
            keep_alive_timeout: table::GRPC_KEEPALIVE_TIMEOUT.get(flags),
            // With a shorter interval a watch would do nothing else.
            progress_notify: table::WATCH_PROGRESS_NOTIFY_INTERVAL
                .get(flags)
                .max(Duration::from_millis(100)),
            slow_request: table::WARNING_UNARY_REQUEST_DURATION.get(flags),
            gateway: table::ENABLE_GRPC_GATEWAY.get(flags),
            gateway_certificate_names: table::GATEWAY_CLIENT_CERT_AUTH.get(flags),
            slow_apply: table::WARNING_APPLY_DURATION.get(flags),
            retention: Retention::All,
            raft_read_timeout: table::RAFT_READ_TIMEOUT.get(flags).max(RAFT_TIMEOUT_MIN),
            raft_write_timeout: table::RAFT_WRITE_TIMEOUT.get(flags).max(RAFT_TIMEOUT_MIN),
            // Zero means the default, as in etcd.
            compaction_batch: nonzero_or(
                table::COMPACTION_BATCH_LIMIT.get(flags),
                COMPACTION_BATCH_DEFAULT,
            ),
            compaction_sleep: nonzero_or(
                table::COMPACTION_SLEEP_INTERVAL.get(flags),
                COMPACTION_SLEEP_DEFAULT,
            ),
            unsafe_no_fsync: table::UNSAFE_NO_FSYNC.get(flags),
            origins: table::CORS.get(flags),
            hosts: table::HOST_WHITELIST.get(flags),
            gates: table::FEATURE_GATES.get(flags),
            lease_based_reads: table::LEASE_BASED_READS.get(flags),
            security: Security::read(flags)?,
            cores: table::CORES.get(flags),
            reactor: table::REACTOR.get(flags),
            command_line,
            notes,
            name,
        })
    }

    /// Ticks without a leader until this member may campaign.
    pub fn election_ticks(&self) -> usize {
        self.election.div_duration_f64(self.heartbeat) as usize
    }

    /// The vote lease that this member gives after a heartbeat; zero if it gives none.
    pub fn vote_lease(&self) -> Duration {
        match self.lease_based_reads {
            true => vote_lease(self.election_ticks(), self.heartbeat),
            false => Duration::ZERO,
        }
    }

    /// How ports behave that serve `what`, with what is logged of requests, and how many there may be.
    pub fn http(&self, what: http::Endpoints, policy: &Arc<Policy>) -> http::Options {
        http::Options {
            serves: what,
            gateway: self.gateway,
            origins: self.origins.clone(),
            hosts: self.hosts.clone(),
            gateway_certificate_names: self.gateway_certificate_names,
            slow: self.slow_request,
            policy: Arc::clone(policy),
            command_line: self.command_line.clone(),
            features: self.gates.all().collect(),
        }
    }

    /// Reads the initial members from the flags; a member that has state does not use them again.
    fn read_cluster(&mut self, flags: &Flags) -> Result<(), String> {
        let cluster = match table::INITIAL_CLUSTER.is_set(flags) {
            true => table::INITIAL_CLUSTER.get(flags),
            false => {
                let own = self.advertise_peers.iter().map(|url| format!("{}={url}", self.name));
                own.collect::<Vec<_>>().join(",")
            }
        };
        for part in values::list(&cluster) {
            let (name, url) = part.split_once('=').unwrap_or((&part, ""));
            let url = values::url(url)
                .map(|url| vec![url])
                .map_err(|error| format!("error setting up initial cluster: {error}"))?;
            self.initial_cluster.entry(name.to_owned()).or_default().extend(texts(&url));
        }
        self.initial_cluster.values_mut().for_each(|urls| urls.sort_unstable());
        Ok(())
    }

    /// gRPC and HTTP cannot have ports of their own at the same address.
    fn check_split(&self) -> Result<(), String> {
        let both = self
            .listen_http
            .iter()
            .find(|http| self.listen_clients.iter().any(|clients| clients.address == http.address));
        match both {
            Some(both) => {
                let scheme = if both.secure { "https" } else { "http" };
                Err(format!(
                    "cannot bind both --listen-client-urls and --listen-client-http-urls on the same \
                     url {scheme}://{}",
                    both.address
                ))
            }
            None => Ok(()),
        }
    }

    fn check_times(&self) -> Result<(), String> {
        let (heartbeat, election) =
            (self.heartbeat.as_millis() as u64, self.election.as_millis() as u64);
        if heartbeat == 0 {
            return Err("--heartbeat-interval must be >0 (set to 0ms)".to_owned());
        }
        if election == 0 {
            return Err("--election-timeout must be >0 (set to 0ms)".to_owned());
        }
        if election / 5 < heartbeat {
            return Err(format!(
                "--election-timeout[{election}ms] should be at least as 5 times as \
                 --heartbeat-interval[{heartbeat}ms]"
            ));
        }
        if election > ELECTION_MS_MAX {
            return Err(format!(
                "--election-timeout[{election}ms] is too long, and should be set less than \
                 {ELECTION_MS_MAX}ms"
            ));
        }
        Ok(())
    }

    fn check_gates(&self, flags: &Flags) -> Result<(), String> {
        if self.gates.is_on(Gate::LeaseCheckpointPersist)
            && !self.gates.is_on(Gate::LeaseCheckpoint)
        {
            let text = "enabling feature gate LeaseCheckpointPersist requires enabling feature gate \
                LeaseCheckpoint";
            return Err(text.to_owned());
        }
        if self.compact_hash_check.is_zero() {
            let given = match table::COMPACT_HASH_CHECK_TIME.text(flags) {
                "0" => "0s",
                given => given,
            };
            return Err(format!("--compact-hash-check-time must be >0 (set to {given})"));
        }
        Ok(())
    }

    /// Adds warnings about valid values that may be mistakes.
    fn note(&mut self, flags: &Flags) {
        for flag in [&table::RAFT_READ_TIMEOUT, &table::RAFT_WRITE_TIMEOUT] {
            if flag.get(flags) < RAFT_TIMEOUT_MIN {
                let least = duration::text(RAFT_TIMEOUT_MIN);
                let text = format!("{} increased to minimum value: {least}", flag.name());
                self.notes.push(Note::new(Level::Info, text));
            }
        }
        let mut warn = |text: String| self.notes.push(Note::new(Level::Warn, text));
        if self.listen_http.is_empty() {
            warn(
                "Running http and grpc server on single port. This is not recommended for \
                production."
                    .to_owned(),
            );
        }
        if self.quota_bytes > QUOTA_LARGE {
            warn(format!("quota of {} bytes exceeds what is usual", self.quota_bytes));
        }
        if self.max_request_bytes > REQUEST_LARGE {
            warn(format!("exceeded recommended request limit: {} bytes", self.max_request_bytes));
        }
        if Security::has_invalid_cost(flags) {
            warn("use default bcrypt cost instead of the invalid given cost".to_owned());
        }
        table::all().filter_map(|flag| flag.warning(flags)).for_each(&mut warn);
        for gate in self.gates.without_effect() {
            warn(format!("feature gate {gate} has no effect in this version of Basalt"));
        }
    }
}

impl Addresses {
    fn new(flags: &Flags) -> Result<Self, String> {
        // A command line with listen addresses must have advertised ones too. A file need not.
        let asked = table::LISTEN_CLIENT_URLS.is_set(flags) && !flags.from_file;
        let untold = asked && !table::ADVERTISE_CLIENT_URLS.is_set(flags);
        let addresses = Self {
            peers: table::LISTEN_PEER_URLS.get(flags),
            clients: table::LISTEN_CLIENT_URLS.get(flags),
            http: table::LISTEN_CLIENT_HTTP_URLS.get(flags),
            metrics: table::LISTEN_METRICS_URLS.get(flags),
            advertise_peers: table::INITIAL_ADVERTISE_PEER_URLS.get(flags),
            advertise_clients: match untold {
                true => Vec::new(),
                false => table::ADVERTISE_CLIENT_URLS.get(flags),
            },
        };
        for (name, urls, form) in [
            ("initial-advertise-peer-urls", &addresses.advertise_peers, "\"host:port\""),
            (
                "advertise-client-urls",
                &addresses.advertise_clients,
                "in the format \"host:port\", \"unix:/path/to/socket\" or \"unixs:/path/to/socket\"",
            ),
        ] {
            if let Some(empty) = urls.iter().find(|url| url.rest.starts_with(':')) {
                let all = texts(urls).join(",");
                let why = format!("unexpected empty host ({})", empty.text);
                return Err(format!("--{name} {all:?} must be {form} ({why})"));
            }
        }
        Ok(addresses)
    }
}

fn texts(urls: &[Url]) -> Vec<String> {
    urls.iter().map(|url| url.text.clone()).collect()
}

/// The data directory of a member of this name.
pub(super) fn data_dir(flags: &Flags, name: &str) -> PathBuf {
    match table::DATA_DIR.get(flags) {
        none if none.is_empty() => format!("{name}.etcd").into(),
        given => given.into(),
    }
}

pub(super) fn wal_dir(flags: &Flags) -> Option<PathBuf> {
    Some(table::WAL_DIR.get(flags)).filter(|dir| !dir.is_empty()).map(PathBuf::from)
}

fn quota_bytes(flags: &Flags) -> u64 {
    match table::QUOTA_BACKEND_BYTES.get(flags) {
        0 => QUOTA_DEFAULT,
        none if none < 0 => 0,
        bytes => bytes.unsigned_abs(),
    }
}

fn nonzero_or<T: Default + PartialEq>(value: T, default: T) -> T {
    if value == T::default() { default } else { value }
}

#[cfg(test)]
mod tests;
