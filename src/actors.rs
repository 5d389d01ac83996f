//! One file per actor: what it hosts and promises, what it can be asked, its handle, its loop.
//!
//! ```text
//!  desk (one per executor) ─Work─► consensus ─Persist─► wal ─Persisted─► consensus
//!      ▲                               └─Commit, ReadAt─► apply ─Applied─► consensus
//!      └────────────── Delivery ─────────────────────────┘ ├─Events─► watch hubs
//!                                                          └─Granted, Revoked─► lease ─Work─► consensus
//! ```
//!
//! Who may wait for whom has no cycle: desk → consensus → wal, apply → lease. Answers going back never
//! wait, because their queues are as long as what can be in flight.

pub mod apply;
pub mod compactor;
pub mod consensus;
pub mod desk;
pub mod lease;
pub mod peer;
pub mod slow_apply;
pub mod state;
pub mod wal;
pub mod watch;

pub use self::desk::Desk;
pub use self::state::{Node, Shared, State, Status, bytes_in_use};
