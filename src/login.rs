//! Logins by password: which attempts are worth the time of a hash, and in which order they get it. bcrypt takes 60 ms of a
//! core at its default cost, so the number of attempts is what must be decided; `io` computes them.
//!
//! ```text
//!  attempt ─► remembered? ──────────────────────────────────────► right
//!        └─► Throttle: too many wrong ones lately? ─────────────► wrong, after the usual time
//!        └─► Attempts: joins an equal one, or waits for its turn ─► hash ─► right, or wrong: Throttle is told
//! ```
//!
//! Time is an argument, in ms of any clock that does not go back.

mod attempts;
mod throttle;

pub use self::attempts::{Attempts, Begun, Digest};
pub use self::throttle::Throttle;
