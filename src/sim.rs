//! Whole clusters of the pure rooms in one thread: one seed decides everything, and replays it.
//!
//! ```text
//!  seed ─► plan ─► cluster ──┬─► members: driver, log, machine, hub, leases, each behind a queue
//!        (faults,  (events   ├─► wire: loses, delays, repeats, mixes up, cuts
//!       requests,  by time)  ├─► disks: lose what was not synced, tear what was being written
//!        watches)            └─► clients ─► histories
//!                     checks ◄── everything that happens ──► a failure is a panic
//! ```
//!
//! The members run the rooms as they are; `host` stands for the actors, and `disk` for the files of the log.
//! A run that finds something wrong panics: the rooms' own asserts count as checks. `src/bin/sim.rs` runs
//! seeds in processes of their own, makes a failing one smaller and tells how to run it again.

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

/// Runs a plan to its end, with a mistake in it if one is asked for; `tell` hears the story line by line.
///
/// # Panics
/// Something is not as it must be.
pub fn run(plan: Plan, bug: Option<Bug>, tell: Option<fn(String)>) -> Outcome {
    Cluster::new(plan, bug, tell).run()
}
