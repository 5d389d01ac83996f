//! Messages, handles and bounds of the actors. Nothing here receives a message or knows a loop: the loops use these
//! types, and `server` connects them.

pub mod apply;
pub mod consensus;
pub mod lease;
pub mod peer;
pub mod wal;
pub mod watch;
