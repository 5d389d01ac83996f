//! The command line: etcd's names and defaults first, then what is ours.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;

use crate::generator::Pace;
use crate::workload::{
    kube, lease_keepalive, mix, mvcc, put, range, stm, txn_mixed, txn_put, watch, watch_get,
    watch_latency,
};

/// Loads an etcd-compatible server and reports what it took.
#[derive(Debug, Parser)]
#[command(name = "basalt-bench", version)]
pub struct Cli {
    /// For every load.
    #[command(flatten)]
    pub globals: Globals,
    /// The load.
    #[command(subcommand)]
    pub command: Command,
}

/// The loads.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Generate the autocompletion script for the specified shell
    Completion {
        /// The shell
        shell: Shell,
    },
    /// The load of a kube-apiserver for a cluster of N nodes, watches included
    #[command(name = "k8s")]
    K8s(kube::Flags),
    /// Benchmark lease keepalive
    LeaseKeepalive(lease_keepalive::Flags),
    /// Several loads mixed by weight
    Mix(mix::Flags),
    /// Benchmark mvcc: the store without a server
    Mvcc(mvcc::Flags),
    /// Benchmark put
    Put(put::Flags),
    /// Benchmark range
    Range(range::Flags),
    /// Benchmark STM
    Stm(stm::Flags),
    /// Benchmark a mixed load of txn-put & txn-range
    TxnMixed(txn_mixed::Flags),
    /// Benchmark txn-put
    TxnPut(txn_put::Flags),
    /// Benchmark watch: creation of watchers, then their events
    Watch(watch::Flags),
    /// Benchmark for serialized key gets with many unsynced watchers
    WatchGet(watch_get::Flags),
    /// Benchmark watch latency: from a write to its events
    WatchLatency(watch_latency::Flags),
}

/// Flags of every load.
#[derive(Args, Clone, Debug)]
pub struct Globals {
    /// gRPC endpoints
    #[arg(long, global = true, value_delimiter = ',', default_value = "127.0.0.1:2379")]
    pub endpoints: Vec<String>,
    /// Total number of gRPC connections
    #[arg(long, global = true, default_value_t = 1)]
    pub conns: usize,
    /// Total number of gRPC clients: operations in flight
    #[arg(long, global = true, default_value_t = 1)]
    pub clients: usize,
    /// use full floating point precision
    #[arg(long, global = true)]
    pub precise: bool,
    /// 'true' to sample requests for every second
    #[arg(long, global = true)]
    pub sample: bool,
    /// identify HTTPS client using this SSL certificate file
    #[arg(long, global = true, requires = "key_file")]
    pub cert: Option<PathBuf>,
    /// identify HTTPS client using this SSL key file
    #[arg(long = "key", id = "key_file", global = true, requires = "cert")]
    pub key_file: Option<PathBuf>,
    /// verify certificates of HTTPS-enabled servers using this CA bundle
    #[arg(long, global = true)]
    pub cacert: Option<PathBuf>,
    /// skip server certificate verification
    #[arg(long, global = true)]
    pub insecure_skip_tls_verify: bool,
    /// provide username[:password]; the password is read from standard input if not supplied
    #[arg(long, global = true)]
    pub user: Option<String>,
    /// dial timeout for client connections (0 is 5s)
    #[arg(long, global = true, default_value = "0", value_parser = duration)]
    pub dial_timeout: Duration,
    /// AutoSyncInterval is the interval to update endpoints with its latest members (0 is never): what
    /// is dialed after that goes to them
    #[arg(long, global = true, default_value = "0", value_parser = duration)]
    pub auto_sync_interval: Duration,
    /// Generate benchmark report in perfdash format
    #[arg(long, global = true)]
    pub report_perfdash: bool,
    /// Write the result as JSON lines to this file, or to standard output with -
    #[arg(long, global = true, value_name = "FILE|-")]
    pub json: Option<PathBuf>,
    /// Threads of the generator
    #[arg(long, global = true, default_value_t = 1)]
    pub threads: usize,
    /// Seed of random keys and values
    #[arg(long, global = true, default_value_t = 1)]
    pub seed: u64,
    /// Write the result as a page with plots to this file
    #[arg(long, global = true, value_name = "FILE.html")]
    pub report: Option<PathBuf>,
    /// End after this time instead of after --total (0 is not)
    #[arg(long, global = true, default_value = "0", value_parser = duration)]
    pub duration: Duration,
    /// Climb from --ramp-from to --rate in this time, in a straight line
    #[arg(long, global = true, default_value = "0", value_parser = duration)]
    pub ramp: Duration,
    /// Operations per second at the start of --ramp
    #[arg(long, global = true, default_value_t = 0)]
    pub ramp_from: u64,
    /// Endpoints of a second target, to be loaded and compared in the same run
    #[arg(long, global = true, value_delimiter = ',')]
    pub against: Vec<String>,
    /// What reports call the targets, comma-separated (by default their first endpoint)
    #[arg(long, global = true, value_delimiter = ',')]
    pub names: Vec<String>,
    /// How often each of two targets has its turn
    #[arg(long, global = true, default_value_t = 3, conflicts_with = "together")]
    pub turns: usize,
    /// Load both targets at the same time instead of in turns
    #[arg(long, global = true)]
    pub together: bool,
    /// Do not check that the revision grew by the writes (when others write, too)
    #[arg(long, global = true)]
    pub no_verify: bool,
}

impl Globals {
    /// Whether every second is to be kept.
    pub fn series(&self) -> bool {
        self.sample || self.json.is_some() || self.report.is_some()
    }

    /// When operations are meant to be sent, at this rate.
    ///
    /// # Errors
    /// When a ramp leads nowhere.
    pub fn pace(&self, rate: u64) -> Result<Pace, String> {
        if !self.ramp.is_zero() && rate == 0 {
            return Err("--ramp needs a --rate to climb to".to_owned());
        }
        Ok(Pace { rate, ramp_from: self.ramp_from, ramp: self.ramp, end: self.duration })
    }
}

/// A duration as Go writes it: `1h2m3.5s`, `300ms`, or `0`.
///
/// # Errors
/// When it is none.
pub fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("invalid duration {text:?}");
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let mut rest = text;
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| c != '.' && !c.is_ascii_digit()).ok_or_else(wrong)?;
        let (number, tail) = rest.split_at(digits);
        let end = tail.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(end);
        let unit = match unit {
            "ns" => 1e-9,
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return Err(wrong()),
        };
        seconds += number.parse::<f64>().map_err(|_| wrong())? * unit;
        rest = tail;
    }
    if text.is_empty() {
        return Err(wrong());
    }
    Duration::try_from_secs_f64(seconds).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn etcds_defaults_hold() {
        let cli = Cli::parse_from(["basalt-bench", "put", "--conns=2"]);
        assert_eq!(cli.globals.endpoints, ["127.0.0.1:2379"]);
        assert_eq!((cli.globals.conns, cli.globals.clients), (2, 1));
        let Command::Put(put) = cli.command else { panic!("put was asked for") };
        assert_eq!((put.key_size, put.val_size, put.total, put.key_space_size), (8, 8, 10_000, 1));
    }

    #[test]
    fn durations_are_gos() {
        assert_eq!(duration("1m1.5s"), Ok(Duration::from_millis(61_500)));
        assert_eq!(duration("300ms"), Ok(Duration::from_millis(300)));
        assert_eq!(duration("0"), Ok(Duration::ZERO));
        for wrong in ["", "5", "s", "1x"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }
}
