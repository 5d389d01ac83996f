//! Whole clusters of the pure rooms in one thread: one seed determines everything, and replays it. No real clock,
//! file or socket.
//!
//! ```text
//!  seed ─► plan ─► cluster ──┬─► members: driver, log, machine, hub, leases, each behind a queue
//!        (faults,  (events   ├─► network: loses, delays, repeats, reorders, partitions
//!       requests,  by time)  ├─► disks: lose unsynced writes, tear the write in progress
//!        watches)            └─► clients ─► histories
//!                     checks ◄── every event ──► a failure is a panic
//! ```
//!
//! The members run the rooms as they are; `host` takes the place of the actors, and `disk` of the files of the log. A
//! run that finds a fault panics: the rooms' own asserts count as checks. `src/bin/sim.rs` runs seeds in processes of
//! their own, shrinks a failing one and prints the command that repeats it.

mod bugs;
mod checks;
mod clients;
mod cluster;
mod disk;
mod host;
pub mod linear;
mod member;
mod membership;
mod outcome;
mod plan;
mod plan_file;
mod random;
mod scenario;
mod store;
mod watchers;

pub use self::bugs::Bug;
pub use self::outcome::Outcome;
pub use self::plan::Plan;
pub use self::scenario::Scenario;

use self::cluster::Cluster;

/// Runs a plan to its end, with a planted bug if one is given; `tell` receives the trace line by line.
///
/// # Panics
/// A check failed.
pub fn run(plan: Plan, bug: Option<Bug>, tell: Option<fn(String)>) -> Outcome {
    Cluster::new(plan, bug, tell).run()
}
