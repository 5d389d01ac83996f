//! Tests of the replica core.

mod applier;
mod late;
mod leases;
mod pending;
mod sequencer;
