//! One loop per actor: it waits, calls the pure room it hosts, and performs the outputs. It decides nothing: decisions
//! are in [`crate::replica`]; messages, handles and bounds in [`mailbox`]; `server::topology` connects the loops.
//!
//! ```text
//!  requests (one per executor) ─Requests─► consensus ─Persist─► wal ─Persisted─► consensus
//!      ▲                                       └─Commit, ReadAt─► apply ─Applied─► consensus
//!      └────────────────── Delivery ────────────────────────────┘ ├─Events─► watch hubs
//!                                                                 └─LeaseChange─► lease ─LeaderRequests─► consensus
//! ```
//!
//! The wait-for relation has no cycle: requests → consensus → wal, apply → lease. Acknowledgements in the other
//! direction never wait, because their queues are as long as the number of items that can be in flight.

pub mod apply;
mod auth_log;
pub mod client;
pub mod compactor;
pub mod consensus;
pub mod lease;
pub mod mailbox;
pub mod peer;
pub mod requests;
pub mod slow_apply;
pub mod state;
pub mod token_renewal;
pub mod tokens;
pub mod wal;
pub mod watch;

pub use self::client::ReplicaClient;
pub use self::state::{Node, Shared, State, Status, bytes_in_use};
