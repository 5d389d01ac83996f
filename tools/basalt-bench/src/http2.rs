//! The client's half of HTTP/2 and gRPC framing, without I/O: bytes in, events out, bytes to send.
//!
//! The tool must use less CPU per request than the server it measures. The `h2` and `tonic` clients allocate
//! and lock for every request, which on a machine shared with the server changes the server's
//! numbers; a generator needs neither: the same few headers, small messages, many at once.

pub mod connection;
mod frame;
mod hpack;

pub use connection::{Connection, Event, Failure, Violation};
