//! The configuration of a member, checked.

use std::path::PathBuf;
use std::time::Duration;

use super::flags::{Flags, parse_bool};
use crate::io::Address;

/// etcd's default quota of the store, in bytes.
const QUOTA_DEFAULT: u64 = 2 << 30;

/// Flags that this version knows and cannot honour: what they promise is not there yet, and starting without
/// it would be less than was asked for.
const NOT_YET: &[&str] = &[
    "cert-file",
    "key-file",
    "client-cert-auth",
    "trusted-ca-file",
    "auto-tls",
    "peer-cert-file",
    "peer-key-file",
    "peer-client-cert-auth",
    "peer-trusted-ca-file",
    "peer-auto-tls",
    "config-file",
    "discovery-token",
    "discovery-endpoints",
    "discovery-srv",
    "listen-client-http-urls",
    "force-new-cluster",
    "enable-distributed-tracing",
];

/// What a member needs to know.
#[derive(Clone, Debug)]
pub struct Config {
    /// `--name`.
    pub name: String,
    /// `--data-dir`, or the name and `.etcd`.
    pub data_dir: PathBuf,
    /// `--wal-dir`, if it is apart.
    pub wal_dir: Option<PathBuf>,
    /// Addresses of clients: `host:port`.
    pub listen_clients: Vec<Address>,
    /// Addresses of `--listen-metrics-urls`.
    pub listen_metrics: Vec<Address>,
    /// `--advertise-client-urls`.
    pub advertise_clients: Vec<String>,
    /// `--initial-advertise-peer-urls`.
    pub advertise_peers: Vec<String>,
    /// `--initial-cluster-token`.
    pub token: String,
    /// `--heartbeat-interval`.
    pub heartbeat: Duration,
    /// `--election-timeout`.
    pub election: Duration,
    /// `--pre-vote`.
    pub pre_vote: bool,
    /// `--snapshot-count`.
    pub snapshot_count: u64,
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
    /// `--unsafe-no-fsync`.
    pub unsafe_no_fsync: bool,
    /// `--log-level`.
    pub log_level: String,
    /// `--cores`: which to use; all when empty.
    pub cores: Vec<usize>,
}

impl Config {
    /// Reads and checks flags.
    ///
    /// # Errors
    /// What is wrong, in etcd's words where it has some.
    pub fn new(flags: &Flags) -> Result<Self, String> {
        refuse_what_is_not_there(flags)?;
        if flags.is_set("listen-client-urls") && !flags.is_set("advertise-client-urls") {
            let text =
                "--advertise-client-urls is required when --listen-client-urls is set explicitly";
            return Err(text.to_owned());
        }
        let name = flags.get("name").to_owned();
        let data_dir = match flags.get("data-dir") {
            "" => format!("{name}.etcd").into(),
            given => given.into(),
        };
        let quota = number::<i64>(flags, "quota-backend-bytes")?;
        let config = Self {
            data_dir,
            wal_dir: Some(flags.get("wal-dir")).filter(|dir| !dir.is_empty()).map(PathBuf::from),
            listen_clients: addresses(flags, "listen-client-urls")?,
            listen_metrics: addresses(flags, "listen-metrics-urls")?,
            advertise_clients: urls(flags, "advertise-client-urls"),
            advertise_peers: urls(flags, "initial-advertise-peer-urls"),
            token: flags.get("initial-cluster-token").to_owned(),
            heartbeat: Duration::from_millis(number(flags, "heartbeat-interval")?),
            election: Duration::from_millis(number(flags, "election-timeout")?),
            pre_vote: switch(flags, "pre-vote"),
            snapshot_count: number::<u64>(flags, "snapshot-count")?.max(1),
            max_wals: number(flags, "max-wals")?,
            max_txn_ops: number(flags, "max-txn-ops")?,
            max_request_bytes: number(flags, "max-request-bytes")?,
            max_streams: number::<u64>(flags, "max-concurrent-streams")?.min(1 << 31) as u32,
            quota_bytes: match quota {
                0 => QUOTA_DEFAULT,
                none if none < 0 => 0,
                bytes => bytes as u64,
            },
            keep_alive: duration(flags, "grpc-keepalive-interval")?,
            keep_alive_timeout: duration(flags, "grpc-keepalive-timeout")?,
            progress_notify: duration(flags, "watch-progress-notify-interval")?
                .max(Duration::from_millis(100)),
            unsafe_no_fsync: switch(flags, "unsafe-no-fsync"),
            log_level: flags.get("log-level").to_owned(),
            cores: cores(flags.get("cores"))?,
            name,
        };
        config.check_cluster(flags)?;
        config.check_times()?;
        Ok(config)
    }

    /// How client ports behave.
    pub fn http(&self) -> crate::http::Options {
        crate::http::Options::default()
    }

    /// One member is all there can be yet.
    fn check_cluster(&self, flags: &Flags) -> Result<(), String> {
        let state = flags.get("initial-cluster-state");
        if state != "new" && state != "existing" {
            return Err(format!("unexpected clusterState {state:?}"));
        }
        if !flags.is_set("initial-cluster") {
            return Ok(());
        }
        let cluster = flags.get("initial-cluster");
        let members = cluster.split(',').filter_map(|member| member.trim().split_once('='));
        let mut own: Vec<&str> = Vec::new();
        for (name, url) in members {
            if name != self.name {
                return Err(format!(
                    "this version runs single members: --initial-cluster names {name:?} beside {:?}",
                    self.name
                ));
            }
            own.push(url);
        }
        own.sort_unstable();
        let mut advertised: Vec<_> = self.advertise_peers.iter().map(String::as_str).collect();
        advertised.sort_unstable();
        if own.is_empty() {
            return Err(format!(
                "couldn't find local name {:?} in the initial cluster configuration",
                self.name
            ));
        }
        if own != advertised {
            return Err(format!(
                "--initial-cluster has {cluster} but missing from --initial-advertise-peer-urls={}",
                self.advertise_peers.join(",")
            ));
        }
        Ok(())
    }

    fn check_times(&self) -> Result<(), String> {
        let (heartbeat, election) = (self.heartbeat.as_millis(), self.election.as_millis());
        if heartbeat == 0 {
            return Err("--heartbeat-interval must be >0 (set to 0ms)".to_owned());
        }
        if election == 0 {
            return Err("--election-timeout must be >0 (set to 0ms)".to_owned());
        }
        if election < 5 * heartbeat {
            return Err(format!(
                "--election-timeout[{election}ms] should be at least as 5 times as \
                 --heartbeat-interval[{heartbeat}ms]"
            ));
        }
        if election > 50_000 {
            return Err(format!(
                "--election-timeout[{election}ms] is too long, and should be set less than 50000ms"
            ));
        }
        Ok(())
    }
}

fn refuse_what_is_not_there(flags: &Flags) -> Result<(), String> {
    for name in NOT_YET {
        let value = flags.get(name);
        if flags.is_set(name) && !value.is_empty() && parse_bool(value) != Some(false) {
            return Err(format!("basalt does not support --{name} yet"));
        }
    }
    if flags.get("auth-token") != "simple" {
        return Err("basalt does not support --auth-token yet".to_owned());
    }
    if flags.get("logger") != "zap" {
        return Err(format!("unknown logger option {:?}", flags.get("logger")));
    }
    Ok(())
}

fn number<T: std::str::FromStr>(flags: &Flags, name: &str) -> Result<T, String> {
    let text = flags.get(name);
    text.parse().map_err(|_| format!("invalid value {text:?} for flag -{name}: parse error"))
}

fn switch(flags: &Flags, name: &str) -> bool {
    parse_bool(flags.get(name)) == Some(true)
}

fn urls(flags: &Flags, name: &str) -> Vec<String> {
    let list = flags.get(name).split(',').map(str::trim).filter(|url| !url.is_empty());
    list.map(str::to_owned).collect()
}

fn addresses(flags: &Flags, name: &str) -> Result<Vec<Address>, String> {
    urls(flags, name).iter().map(|url| address(url, name).map(Address::Tcp)).collect()
}

/// The `host:port` of a URL to listen on.
fn address(url: &str, name: &str) -> Result<String, String> {
    let Some((scheme, rest)) = url.split_once("://") else {
        return Err(format!(
            "invalid value {url:?} for flag -{name}: URL scheme must be http, https, unix, or unixs: {url}"
        ));
    };
    let host_port = rest.split('/').next().unwrap_or_default();
    match scheme {
        "http" => (),
        "https" | "unixs" => {
            return Err(format!("basalt does not support TLS yet (--{name}={url})"));
        }
        "unix" => return Err(format!("basalt does not support unix sockets yet (--{name}={url})")),
        _ => {
            return Err(format!(
                "invalid value {url:?} for flag -{name}: URL scheme must be http, https, unix, or unixs: {url}"
            ));
        }
    }
    let Some((host, port)) = host_port.rsplit_once(':') else {
        return Err(format!(
            "invalid value {url:?} for flag -{name}: URL address does not have the form \"host:port\": {url}"
        ));
    };
    let plain = host.trim_start_matches('[').trim_end_matches(']');
    if host != "localhost" && plain.parse::<std::net::IpAddr>().is_err() {
        return Err(format!("expected IP in URL for binding ({url})"));
    }
    let host = if host == "localhost" { "127.0.0.1" } else { host };
    Ok(format!("{host}:{port}"))
}

/// Go's durations: numbers with units, as in `1m30s`.
fn duration(flags: &Flags, name: &str) -> Result<Duration, String> {
    let text = flags.get(name);
    let invalid = || format!("invalid value {text:?} for flag -{name}: parse error");
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(invalid)?;
        let value: f64 = rest[..digits].parse().map_err(|_| invalid())?;
        rest = &rest[digits..];
        let letters = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let unit = match &rest[..letters] {
            "ns" => 1e-9,
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return Err(invalid()),
        };
        rest = &rest[letters..];
        total += Duration::from_secs_f64(value * unit);
    }
    if text.is_empty() { Err(invalid()) } else { Ok(total) }
}

/// A list of cores and ranges of cores, as in `0,2-3`.
fn cores(text: &str) -> Result<Vec<usize>, String> {
    let invalid =
        || format!("invalid value {text:?} for flag -cores: expected a list such as 0,2-3");
    let mut cores = Vec::new();
    for part in text.split(',').filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let first: usize = first.parse().map_err(|_| invalid())?;
        let last: usize = last.parse().map_err(|_| invalid())?;
        cores.extend(first..=last);
    }
    Ok(cores)
}

#[cfg(test)]
mod tests {
    use super::super::flags::{Command, parse};
    use super::*;

    fn config(arguments: &[&str]) -> Result<Config, String> {
        let arguments = arguments.iter().map(|argument| (*argument).to_owned());
        let command = parse(arguments, std::iter::empty());
        let Command::Run(flags) = command else { panic!("{command:?}") };
        Config::new(&flags)
    }

    #[test]
    fn defaults_are_etcds() {
        let config = config(&[]).expect("the defaults are fine");
        assert_eq!(config.listen_clients, [Address::Tcp("127.0.0.1:2379".to_owned())]);
        assert_eq!(config.data_dir, PathBuf::from("default.etcd"));
        assert_eq!((config.quota_bytes, config.max_request_bytes), (2 << 30, 1_572_864));
        assert_eq!(config.keep_alive, Duration::from_secs(7200));
    }

    #[test]
    fn what_makes_no_sense_is_refused_in_etcds_words() {
        let refused = |arguments: &[&str]| config(arguments).expect_err("it makes no sense");
        let listen = ["--listen-client-urls", "http://127.0.0.1:1"];
        assert!(refused(&listen).starts_with("--advertise-client-urls is required"));
        assert!(refused(&["--election-timeout", "100"]).contains("at least as 5 times"));
        assert!(
            refused(&["--initial-cluster-state", "x"]).contains("unexpected clusterState \"x\"")
        );
        assert!(
            refused(&["--cert-file", "x"]).contains("--cert-file"),
            "never less than asked for"
        );
        assert!(refused(&["--initial-cluster", "a=http://x:1,b=http://y:1"]).contains("single"));
    }

    #[test]
    fn durations_and_cores_read() {
        let text = ["--grpc-keepalive-interval", "1m30s", "--cores", "0,2-3"];
        let config = config(&text).expect("they are fine");
        assert_eq!((config.keep_alive, config.cores), (Duration::from_secs(90), vec![0, 2, 3]));
    }
}
