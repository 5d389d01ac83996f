//! The command line: etcd's names and defaults first, then what is ours.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::workload::{put, range, txn_put, watch_latency};

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
    /// Benchmark put
    Put(put::Flags),
    /// Benchmark range
    Range(range::Flags),
    /// Benchmark txn-put
    TxnPut(txn_put::Flags),
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
    /// Write the result as JSON lines to this file, or to standard output with -
    #[arg(long, global = true, value_name = "FILE|-")]
    pub json: Option<PathBuf>,
    /// Threads of the generator
    #[arg(long, global = true, default_value_t = 1)]
    pub threads: usize,
    /// Seed of random keys and values
    #[arg(long, global = true, default_value_t = 1)]
    pub seed: u64,
    /// Do not check that the revision grew by the writes (when others write, too)
    #[arg(long, global = true)]
    pub no_verify: bool,
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
