//! The command line: etcd's names and defaults first, then flags of our own.

use clap::{Parser, Subcommand};
use clap_complete::Shell;

use crate::error::Fatal;
use crate::options::Globals;
use crate::report::Finished;
use crate::workload::{
    kube, lease_keepalive, mix, mvcc, put, range, stm, txn_mixed, txn_put, watch, watch_get,
    watch_latency,
};

/// Loads an etcd-compatible server and reports latency and throughput.
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

impl Command {
    /// Runs a load against the endpoints of `globals`.
    ///
    /// # Errors
    /// The load could not be run at all.
    pub fn run(&self, globals: &Globals) -> Result<Finished, Fatal> {
        match self {
            Self::Completion { .. } => Err("completion is no load".into()),
            Self::K8s(flags) => kube::run(globals, flags),
            Self::LeaseKeepalive(flags) => lease_keepalive::run(globals, flags),
            Self::Mix(flags) => mix::run(globals, flags),
            Self::Mvcc(flags) => mvcc::run(globals, flags),
            Self::Put(flags) => put::run(globals, flags),
            Self::Range(flags) => range::run(globals, flags),
            Self::Stm(flags) => stm::run(globals, flags),
            Self::TxnMixed(flags) => txn_mixed::run(globals, flags),
            Self::TxnPut(flags) => txn_put::run(globals, flags),
            Self::Watch(flags) => watch::run(globals, flags),
            Self::WatchGet(flags) => watch_get::run(globals, flags),
            Self::WatchLatency(flags) => watch_latency::run(globals, flags),
        }
    }
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
}
