//! Every decision of one member between consensus, its log, its state machine, its leases and the requests of its clients.
//! Pure and synchronous: the actors and the simulator host the same types, wait, call them, and perform what they return.
//!
//! ```text
//!  PendingRequests ──Requests──► Replica ──Persist──► log ──Persisted──► Replica
//!   (one per executor)             │  └──Send──► other members
//!          ▲                       ▼ Commit, ReadAt, Install
//!          └───────Deliver─────── Applier ──Applied──► Replica
//!                                  ├──Publish──► readers and watchers
//!                                  ├──Lease──► LeaseKeeper ──LeaderRequests──► Replica
//!                                  └──TruncateLog──► log
//! ```
//!
//! [`Replica`] orders requests: it hosts [`crate::consensus::Driver`] and keeps inputs that wait for a leader, for
//! space or for a snapshot. [`Applier`] applies: it hosts [`crate::machine::Machine`] and determines the order in which
//! readers, clients and raft receive the results. [`LeaseKeeper`] keeps the time of leases while this member leads.
//! [`PendingRequests`] matches answers to requests. None of them reads a clock: the time is an argument.

mod applier;
mod deferred;
mod heartbeats;
mod input;
mod late;
mod leases;
mod pending;
mod read_batches;
mod routes;
mod sequencer;
#[cfg(test)]
mod tests;
mod truncation;

pub use self::applier::{Applier, LeaseChange, Output as ApplierOutput, Progress, Settings};
pub use self::input::{Input, Inputs, Lane, Output};
pub use self::late::{LeaderHistory, late_refusal};
pub use self::leases::LeaseKeeper;
pub use self::pending::{Delivery, PendingRequests, executor_of};
pub use self::routes::{Route, admits_guest, fits_bulk, route};
pub use self::sequencer::Replica;
pub use self::truncation::{AppliedLog, LogStart};
