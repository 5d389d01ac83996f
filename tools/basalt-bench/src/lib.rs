//! `basalt-bench`: loads etcd or Basalt and reports latency and throughput.
//!
//! * Flags, defaults and report text are those of etcd's `benchmark`, so scripts work with both.
//! * Beyond it: percentiles, JSON, a page with plots, open-loop rates and ramps, mixes, two targets side by
//!   side. Every run is verified: every status but OK is an error, writes must show in
//!   the revision, events must reach every watcher, and errors end with exit code 1.
//!
//! ```text
//!   cli ─► run ─► workload/* (one file each) ─► generator (schedule, drives, pulse) ─► wire ─► http2
//!           │              └─► spectators (watchers beside the load) ─► notice ──────────┘
//!           └───► report (etcd's text, percentiles, JSON, page, comparison)
//! ```

pub mod cli;
pub mod clock;
pub mod distribution;
pub mod error;
pub mod generator;
pub mod http2;
pub mod keys;
pub mod leases;
pub mod notice;
pub mod options;
pub mod paths;
pub mod progress;
pub mod report;
pub mod run;
pub mod session;
pub mod spectators;
pub mod walk;
pub mod wire;
pub mod workload;
