//! Basalt: a drop-in replacement for etcd. `ARCHITECTURE.md` shows the rooms below as one picture.

pub mod actors;
pub mod auth;
pub mod audit;
pub mod cluster;
pub mod command;
pub mod consensus;
pub mod http;
pub mod io;
pub mod json;
pub mod jwt;
pub mod lease;
pub mod login;
pub mod machine;
pub mod metrics;
pub mod mvcc;
pub mod peer;
pub mod replica;
pub mod rpc;
pub mod server;
pub mod sim;
pub mod snapshot;
pub mod store;
pub mod token;
pub mod types;
pub mod wal;
pub mod watch;
