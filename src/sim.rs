//! Whole clusters of the pure rooms in one thread: one seed decides everything, and replays it.
//!
//! ```text
//!  seed ─► plan ─► cluster ──┬─► members: driver, log, machine, hub, leases, each behind a queue
//!        (faults,  (events   ├─► wire: loses, delays, repeats, mixes up, cuts
//!       requests,  by time)  ├─► disks: lose what was not synced, tear what was being written
//!        watches)            └─► clients ─► histories
//!                     checks ◄── everything that happens ──► a failure is a panic, told with the seed
//! ```
//!
//! The members run the rooms as they are; `host` stands for the actors, and `disk` for the files of the log.
//! It is compiled for tests only. `SIM_SEED=7 cargo test --lib sim -- --nocapture` replays a seed, with
//! `SIM_DROP` the parts of it to leave out; `SIM_SEEDS=1000` or `SIM_HOURS=0.5` run more of them, best with
//! `--release`.
//!
//! What is not here: peer snapshots and changes of members, which the rooms do not do yet. Nobody's log is cut
//! beyond what all have.

mod bugs;
mod checks;
mod clients;
mod cluster;
mod disk;
mod host;
mod linear;
mod member;
mod plan;
mod random;
mod store;
mod tests;
mod watchers;
