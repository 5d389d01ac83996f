//! How a client reaches a server of etcd, as etcd's Go client does it: endpoints as typed, servers found by DNS, TLS by
//! files, errors in Go's words. Knows sockets and nothing of requests.
//!
//! ```text
//!  srv ─► dns: which servers has a domain?
//!  tls: files ─► rustls' configuration ─┐
//!  endpoint as typed ───────────────────┴─► Dialer ─► Socket, or Link: a channel of tonic that was answered
//! ```

mod connect;
pub mod dns;
pub mod files;
mod preface;
pub mod srv;
pub mod tls;

pub use self::connect::{
    CONNECTION_WINDOW_BYTES, Dialer, KeepAlive, Link, NO_PEER, authority, listen, tcp,
};
pub use self::preface::Socket;
