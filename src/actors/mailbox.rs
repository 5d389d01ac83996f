//! Messages, handles and bounds of the actors. Nothing here waits for a message or knows who serves it:
//! the loops above do, and `server` connects them.

pub mod apply;
pub mod consensus;
pub mod lease;
pub mod peer;
pub mod wal;
pub mod watch;
