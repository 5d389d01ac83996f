//! Basalt: a drop-in replacement for etcd.
//!
//! ```text
//!             core 1..N                                        core 0 (sessions run here too)
//!  clients ─► rpc, http ─► replica::PendingRequests ─► actors::consensus ─► actors::wal ──► disk
//!                ▲                                        │ replica::Replica
//!                │                                        ▼ committed entries
//!                └──────────── answers, events ◄─── actors::apply ──► store on disk
//!                                                       replica::Applier, machine::Machine
//! ```
//!
//! Decisions are plain synchronous code without I/O, clock or randomness: the modules up to `sim` in the table of rooms
//! of `ARCHITECTURE.md`. Waiting and I/O are in thin modules: [`io`], [`actors`], [`rpc`], [`http`], [`server`].
//! [`sim`] runs whole clusters of the first kind in one thread.
//!
//! Where to begin:
//!
//! 1. [`command`]: the content of the replicated log. [`machine`] applies one entry of it to [`mvcc`], [`lease`]
//!    and [`cluster`].
//! 2. [`replica`]: the decisions of one member between consensus, log, state machine and its clients' requests.
//! 3. A put from the socket to the answer: [`rpc`] (`kv.rs`) ─► [`actors::client`] ─► [`actors::requests`] ─►
//!    [`actors::consensus`] ─► [`actors::wal`], [`actors::apply`].
//! 4. `server::topology` assigns them to cores; `server::table` is the table of flags.
//!
//! `ARCHITECTURE.md` has the glossary, the life of a write and of a read, and the reasons.

#![warn(missing_docs)]

pub mod actors;
pub mod audit;
pub mod auth;
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
pub mod ratelimit;
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
