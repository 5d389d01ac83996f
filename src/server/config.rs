//! The configuration of a member, checked, in the order and words of etcd's own checks.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use super::flags::{Flags, Level, Note};
use super::values::{self, Url};
use super::{log, table};
use crate::consensus::promise;
use crate::http;
use crate::io::Address;
use crate::mvcc::Retention;
use crate::types::limits::REQUEST_BYTES_MAX;

/// etcd's default quota of the store, in bytes.
const QUOTA_DEFAULT: u64 = 2 << 30;
/// etcd's longest election timeout, in ms.
const ELECTION_MS_MAX: u64 = 50_000;
/// Sizes above which etcd warns: a store that takes long to send, a request that holds others up.
const QUOTA_LARGE: u64 = 8 << 30;
const REQUEST_LARGE: usize = 10 << 20;
/// The shortest time after which a connection to a member is given up; etcd raises what is less, too.
const RAFT_TIMEOUT_MIN: Duration = Duration::from_secs(5);
/// The most streams that HTTP/2 can number.
const STREAMS_MAX: u64 = 1 << 31;

/// Flags that promise safety, or a cluster, that this version cannot give: starting without it would be less
/// than was asked for.
const REFUSED: &[(&str, &str)] = &[
    ("cert-file", "TLS"),
    ("key-file", "TLS"),
    ("client-cert-file", "TLS"),
    ("client-key-file", "TLS"),
    ("client-cert-auth", "TLS"),
    ("client-crl-file", "TLS"),
    ("client-cert-allowed-hostname", "TLS"),
    ("trusted-ca-file", "TLS"),
    ("auto-tls", "TLS"),
    ("peer-cert-file", "TLS"),
    ("peer-key-file", "TLS"),
    ("peer-client-cert-file", "TLS"),
    ("peer-client-key-file", "TLS"),
    ("peer-client-cert-auth", "TLS"),
    ("peer-trusted-ca-file", "TLS"),
    ("peer-cert-allowed-cn", "TLS"),
    ("peer-cert-allowed-hostname", "TLS"),
    ("peer-auto-tls", "TLS"),
    ("peer-crl-file", "TLS"),
    ("discovery-token", "discovery"),
    ("discovery-endpoints", "discovery"),
    ("discovery-srv", "discovery"),
];

/// Flags that are taken, and have no effect in this version when they are not what is named here.
const WITHOUT_EFFECT: &[(&str, &str)] = &[
    ("enable-distributed-tracing", "false"),
    ("enable-log-rotation", "false"),
    ("enable-pprof", "false"),
    ("memory-mlock", "false"),
    ("metrics", "basic"),
    ("socket-reuse-port", "false"),
    ("socket-reuse-address", "false"),
];

/// Feature gates that change what the member does.
const GATES_WITH_EFFECT: &[&str] = &["InitialCorruptCheck", "CompactHashCheck"];

/// What a member needs to know.
#[derive(Clone, Debug)]
pub struct Config {
    /// `--name`.
    pub name: String,
    /// `--data-dir`, or the name and `.etcd`.
    pub data_dir: PathBuf,
    /// `--wal-dir`, if it is apart.
    pub wal_dir: Option<PathBuf>,
    /// `--listen-peer-urls`.
    pub listen_peers: Vec<Address>,
    /// `--listen-client-urls`.
    pub listen_clients: Vec<Address>,
    /// `--listen-client-http-urls`; the client URLs serve gRPC alone if there are any.
    pub listen_http: Vec<Address>,
    /// `--listen-metrics-urls`.
    pub listen_metrics: Vec<Address>,
    /// `--advertise-client-urls`.
    pub advertise_clients: Vec<String>,
    /// `--initial-advertise-peer-urls`.
    pub advertise_peers: Vec<String>,
    /// `--initial-cluster`: names and peer URLs.
    pub initial_cluster: BTreeMap<String, Vec<String>>,
    /// `--initial-cluster-state existing`: a member without data must not begin a cluster of its own.
    pub joins_existing: bool,
    /// `--force-new-cluster`: all other members are lost for good.
    pub force_new_cluster: bool,
    /// `--corrupt-check-time`: how often the leader compares the members; zero for never.
    pub corrupt_check: Duration,
    /// `--compact-hash-check-time`: how often it compares their newest compactions, with the gate
    /// `CompactHashCheck`.
    pub compact_hash_check: Duration,
    /// `--initial-cluster-token`.
    pub token: String,
    /// `--heartbeat-interval`.
    pub heartbeat: Duration,
    /// `--election-timeout`.
    pub election: Duration,
    /// `--initial-election-tick-advance`.
    pub election_advance: bool,
    /// `--pre-vote`.
    pub pre_vote: bool,
    /// `--strict-reconfig-check`.
    pub strict_reconfig: bool,
    /// `--max-learners`.
    pub learners_max: usize,
    /// `--snapshot-count`.
    pub snapshot_count: u64,
    /// `--bootstrap-defrag-threshold-megabytes`, in bytes; 0 for never.
    pub bootstrap_defrag_bytes: u64,
    /// `--snapshot-catchup-entries`.
    pub catch_up_entries: u64,
    /// `--max-wals`.
    pub max_wals: usize,
    /// `--max-txn-ops`.
    pub max_txn_ops: usize,
    /// `--max-request-bytes`.
    pub max_request_bytes: usize,
    /// `--max-concurrent-streams`.
    pub max_streams: u32,
    /// `--quota-backend-bytes`, resolved; 0 for none.
    pub quota_bytes: u64,
    /// `--grpc-keepalive-interval`.
    pub keep_alive: Duration,
    /// `--grpc-keepalive-timeout`.
    pub keep_alive_timeout: Duration,
    /// `--watch-progress-notify-interval`.
    pub progress_notify: Duration,
    /// `--warning-unary-request-duration`.
    pub slow_request: Duration,
    /// `--enable-grpc-gateway`: whether the API is served as JSON too.
    pub gateway: bool,
    /// `--warning-apply-duration`.
    pub slow_apply: Duration,
    /// `--auto-compaction-retention`, and whether it counts revisions (`--auto-compaction-mode`).
    pub retention: Retention,
    /// `--compaction-batch-limit`.
    pub compaction_batch: usize,
    /// `--compaction-sleep-interval`.
    pub compaction_sleep: Duration,
    /// `--raft-read-timeout`, at least five seconds.
    pub raft_read_timeout: Duration,
    /// `--raft-write-timeout`, at least five seconds.
    pub raft_write_timeout: Duration,
    /// `--unsafe-no-fsync`.
    pub unsafe_no_fsync: bool,
    /// `--cors`.
    pub origins: Vec<String>,
    /// `--host-whitelist`.
    pub hosts: Vec<String>,
    /// `--feature-gates`: all of them, and whether each is on.
    pub gates: BTreeMap<&'static str, bool>,
    /// `--lease-based-reads`: promise not to vote for a while after hearing a leader, and lead by such promises.
    pub lease_based_reads: bool,
    /// `--cores`: which to use; all when empty.
    pub cores: Vec<usize>,
    /// How the process was started.
    pub command_line: Vec<String>,
    /// Things to log.
    pub notes: Vec<Note>,
}

/// The addresses of the member, read.
struct Addresses {
    peers: Vec<Url>,
    clients: Vec<Url>,
    http: Vec<Url>,
    metrics: Vec<Url>,
    advertise_peers: Vec<Url>,
    advertise_clients: Vec<Url>,
}

impl Config {
    /// Reads and checks flags.
    ///
    /// # Errors
    /// What is wrong, in etcd's words where it has some.
    pub fn new(flags: &Flags, command_line: Vec<String>) -> Result<Self, Note> {
        let mut config = Self::verify(flags, command_line).map_err(|text| {
            Note::new(Level::Warn, "failed to verify flags").about("error", text)
        })?;
        // etcd finds these when it looks for the other members.
        config
            .settle(flags)
            .map_err(|text| Note::new(Level::Fatal, "discovery failed").about("error", text))?;
        config.note(flags);
        Ok(config)
    }

    fn verify(flags: &Flags, command_line: Vec<String>) -> Result<Self, String> {
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
        match flags.get("auto-compaction-mode") {
            "revision" | "periodic" => (),
            "" => return Err("undefined auto-compaction-mode".to_owned()),
            other => return Err(format!("unknown auto-compaction-mode {other:?}")),
        }
        config.check_gates(flags)?;
        check_tls_versions(flags)?;
        refuse_what_is_not_there(flags, &addresses)?;
        Ok(config)
    }

    fn settle(&mut self, flags: &Flags) -> Result<(), String> {
        self.read_cluster(flags)?;
        self.retention = retention(flags)?;
        Ok(())
    }

    fn read(
        flags: &Flags,
        addresses: &Addresses,
        command_line: Vec<String>,
    ) -> Result<Self, String> {
        let name = flags.get("name").to_owned();
        let data_dir = match flags.get("data-dir") {
            "" => format!("{name}.etcd").into(),
            given => given.into(),
        };
        let quota = number::<i64>(flags, "quota-backend-bytes")?;
        Ok(Self {
            data_dir,
            wal_dir: Some(flags.get("wal-dir")).filter(|dir| !dir.is_empty()).map(PathBuf::from),
            listen_peers: bind(&addresses.peers)?,
            listen_clients: bind(&addresses.clients)?,
            listen_http: bind(&addresses.http)?,
            listen_metrics: bind(&addresses.metrics)?,
            advertise_clients: texts(&addresses.advertise_clients),
            advertise_peers: texts(&addresses.advertise_peers),
            initial_cluster: BTreeMap::new(),
            joins_existing: flags.get("initial-cluster-state") == "existing",
            force_new_cluster: switch(flags, "force-new-cluster"),
            corrupt_check: time(flags, "corrupt-check-time"),
            compact_hash_check: time(flags, "compact-hash-check-time"),
            token: flags.get("initial-cluster-token").to_owned(),
            heartbeat: Duration::from_millis(number(flags, "heartbeat-interval")?),
            election: Duration::from_millis(number(flags, "election-timeout")?),
            election_advance: switch(flags, "initial-election-tick-advance"),
            pre_vote: switch(flags, "pre-vote"),
            strict_reconfig: switch(flags, "strict-reconfig-check"),
            learners_max: number(flags, "max-learners")?,
            snapshot_count: number::<u64>(flags, "snapshot-count")?.max(1),
            bootstrap_defrag_bytes: number::<u64>(flags, "bootstrap-defrag-threshold-megabytes")?
                .saturating_mul(1 << 20),
            catch_up_entries: number(flags, "snapshot-catchup-entries")?,
            max_wals: number(flags, "max-wals")?,
            max_txn_ops: number(flags, "max-txn-ops")?,
            max_request_bytes: request_bytes(flags)?,
            max_streams: number::<u64>(flags, "max-concurrent-streams")?.min(STREAMS_MAX) as u32,
            quota_bytes: match quota {
                0 => QUOTA_DEFAULT,
                none if none < 0 => 0,
                bytes => bytes as u64,
            },
            keep_alive: time(flags, "grpc-keepalive-interval"),
            keep_alive_timeout: time(flags, "grpc-keepalive-timeout"),
            // Less would be all that a watch does.
            progress_notify: time(flags, "watch-progress-notify-interval")
                .max(Duration::from_millis(100)),
            slow_request: time(flags, "warning-unary-request-duration"),
            gateway: switch(flags, "enable-grpc-gateway"),
            slow_apply: time(flags, "warning-apply-duration"),
            retention: Retention::All,
            compaction_batch: number(flags, "compaction-batch-limit")?,
            compaction_sleep: time(flags, "compaction-sleep-interval"),
            raft_read_timeout: time(flags, "raft-read-timeout").max(RAFT_TIMEOUT_MIN),
            raft_write_timeout: time(flags, "raft-write-timeout").max(RAFT_TIMEOUT_MIN),
            unsafe_no_fsync: switch(flags, "unsafe-no-fsync"),
            origins: values::list(flags.get("cors")),
            hosts: values::list(flags.get("host-whitelist")),
            gates: values::gates(flags.get("feature-gates"))?,
            lease_based_reads: switch(flags, "lease-based-reads"),
            cores: values::cores(flags.get("cores"))?,
            command_line,
            notes: Vec::new(),
            name,
        })
    }

    /// Ticks without a leader until this member may stand for election.
    pub fn election_ticks(&self) -> usize {
        self.election.div_duration_f64(self.heartbeat) as usize
    }

    /// How long this member promises not to vote after it heard a leader; zero if it does not.
    pub fn promise(&self) -> Duration {
        match self.lease_based_reads {
            true => promise(self.election_ticks(), self.heartbeat),
            false => Duration::ZERO,
        }
    }

    /// How ports behave that serve `what`.
    pub fn http(&self, what: http::Serves) -> http::Options {
        let features =
            table::GATES.iter().map(|(name, stage, _)| (*name, *stage, self.gates[name])).collect();
        http::Options {
            serves: what,
            gateway: self.gateway,
            origins: self.origins.clone(),
            hosts: self.hosts.clone(),
            slow: self.slow_request,
            command_line: self.command_line.clone(),
            features,
        }
    }

    /// Who the first members are, as the flags say; a member that has begun does not ask them again.
    fn read_cluster(&mut self, flags: &Flags) -> Result<(), String> {
        let cluster = match flags.is_set("initial-cluster") {
            true => flags.get("initial-cluster").to_owned(),
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
        if self.gates["LeaseCheckpointPersist"] && !self.gates["LeaseCheckpoint"] {
            let text = "enabling feature gate LeaseCheckpointPersist requires enabling feature gate \
                LeaseCheckpoint";
            return Err(text.to_owned());
        }
        if time(flags, "compact-hash-check-time").is_zero() {
            let given = flags.get("compact-hash-check-time");
            return Err(format!("--compact-hash-check-time must be >0 (set to {given})"));
        }
        Ok(())
    }

    /// Notes what is fine and perhaps not what was meant.
    fn note(&mut self, flags: &Flags) {
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
        for (name, harmless) in WITHOUT_EFFECT.iter().filter(|(name, _)| flags.is_set(name)) {
            let value = flags.get(name);
            if value != *harmless && values::switch(value) != Some(false) {
                warn(format!("--{name} has no effect in this version of Basalt"));
            }
        }
        let changed = table::GATES.iter().filter(|(name, _, on)| self.gates[name] != *on);
        for (name, ..) in changed.filter(|(name, ..)| !GATES_WITH_EFFECT.contains(name)) {
            warn(format!("feature gate {name} has no effect in this version of Basalt"));
        }
        if !(4..=31).contains(&values::number(flags.get("bcrypt-cost"))) {
            warn("use default bcrypt cost instead of the invalid given cost".to_owned());
        }
        if flags.get("max-snapshots") != "5" || flags.is_set("v2-deprecation") {
            warn("--max-snapshots and --v2-deprecation have no meaning any more".to_owned());
        }
    }
}

impl Addresses {
    fn new(flags: &Flags) -> Result<Self, String> {
        let urls = |name| values::urls(flags.get(name));
        // Whoever says where to listen must say what clients are to be told, too. A file need not.
        let asked = flags.is_set("listen-client-urls") && !flags.from_file;
        let untold = asked && !flags.is_set("advertise-client-urls");
        let addresses = Self {
            peers: urls("listen-peer-urls")?,
            clients: urls("listen-client-urls")?,
            http: urls("listen-client-http-urls")?,
            metrics: urls("listen-metrics-urls")?,
            advertise_peers: urls("initial-advertise-peer-urls")?,
            advertise_clients: if untold { Vec::new() } else { urls("advertise-client-urls")? },
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

fn bind(urls: &[Url]) -> Result<Vec<Address>, String> {
    urls.iter().map(Url::bind).collect()
}

fn texts(urls: &[Url]) -> Vec<String> {
    urls.iter().map(|url| url.text.clone()).collect()
}

fn check_bootstrap(flags: &Flags) -> Result<(), String> {
    let given = |name: &str| flags.is_set(name) && !flags.get(name).is_empty();
    let ways = ["initial-cluster", "discovery-endpoints", "discovery-srv"];
    if ways.iter().filter(|name| given(name)).count() > 1 {
        let text = "multiple discovery or bootstrap flags are set. Choose one of \"initial-cluster\", \
            \"discovery-endpoints\" or \"discovery-srv\"";
        return Err(text.to_owned());
    }
    if given("discovery-token") != given("discovery-endpoints") {
        return Err("both --discovery-token and --discovery-endpoints must be set".to_owned());
    }
    if flags.get("discovery-fallback") == "proxy" {
        let text =
            "v2 proxy is deprecated, and --discovery-fallback can't be configured as \"proxy\"";
        return Err(text.to_owned());
    }
    Ok(())
}

fn check_tls_versions(flags: &Flags) -> Result<(), String> {
    let version = |name| match flags.get(name) {
        "" => Ok(0),
        "TLS1.2" => Ok(12),
        "TLS1.3" => Ok(13),
        other => Err(format!("unexpected TLS version {other:?} (must be one of: TLS1.2, TLS1.3)")),
    };
    let (min, max) = (version("tls-min-version")?, version("tls-max-version")?);
    if max != 0 && min > max {
        let (min, max) = (flags.get("tls-min-version"), flags.get("tls-max-version"));
        return Err(format!("min version ({min}) is greater than max version ({max})"));
    }
    if min == 13 && !flags.get("cipher-suites").is_empty() {
        return Err("cipher suites cannot be configured when only TLS1.3 is enabled".to_owned());
    }
    Ok(())
}

/// Never less than was asked for.
fn refuse_what_is_not_there(flags: &Flags, addresses: &Addresses) -> Result<(), String> {
    for (name, what) in REFUSED {
        let value = flags.get(name);
        if flags.is_set(name) && !value.is_empty() && values::switch(value) != Some(false) {
            return Err(format!("this version of Basalt does not support {what} (--{name})"));
        }
    }
    let all = [&addresses.peers, &addresses.clients, &addresses.http, &addresses.metrics];
    if let Some(secure) = all.iter().flat_map(|urls| urls.iter()).find(|url| url.is_secure()) {
        return Err(format!("this version of Basalt does not support TLS ({})", secure.text));
    }
    match flags.get("auth-token").split(',').next() {
        Some("simple" | "") | None => Ok(()),
        Some(kind) => {
            Err(format!("this version of Basalt does not support {kind} tokens (--auth-token)"))
        }
    }
}

fn retention(flags: &Flags) -> Result<Retention, String> {
    let text = flags.get("auto-compaction-retention");
    let revisions = flags.get("auto-compaction-mode") == "revision";
    let time = match text.parse::<u64>() {
        Ok(0) => return Ok(Retention::All),
        Ok(count) if revisions => {
            return Ok(Retention::Revisions(i64::try_from(count).unwrap_or(i64::MAX)));
        }
        Ok(hours) => Duration::from_secs(hours.saturating_mul(3600)),
        Err(_) => values::time(text).ok_or_else(|| {
            format!("error parsing CompactionRetention: time: invalid duration {text:?}")
        })?,
    };
    Ok(match time {
        Duration::ZERO => Retention::All,
        // As etcd takes it: a time is a number, of nanoseconds.
        time if revisions => Retention::Revisions(time.as_nanos() as i64),
        time => Retention::Time(time),
    })
}

/// What is proposed has to fit into the log.
fn request_bytes(flags: &Flags) -> Result<usize, String> {
    match number(flags, "max-request-bytes")? {
        bytes if bytes > REQUEST_BYTES_MAX => Err(format!(
            "--max-request-bytes must be at most {REQUEST_BYTES_MAX} (set to {bytes}): a request is one \
             record of the log, and a record lies in one of its segments"
        )),
        bytes => Ok(bytes),
    }
}

/// Its form was checked when it was read; its size was not.
fn number<T: std::str::FromStr>(flags: &Flags, name: &str) -> Result<T, String> {
    let text = flags.get(name);
    text.parse().map_err(|_| format!("invalid value {text:?} for flag -{name}: value out of range"))
}

fn switch(flags: &Flags, name: &str) -> bool {
    values::switch(flags.get(name)) == Some(true)
}

/// Its form was checked when it was read.
fn time(flags: &Flags, name: &str) -> Duration {
    values::time(flags.get(name)).unwrap_or_default()
}

#[cfg(test)]
mod tests;
