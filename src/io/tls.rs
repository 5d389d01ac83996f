//! TLS below HTTP and below the frames of members: who may connect, with which certificates, and the bytes themselves.
//!
//! ```text
//!  accepted or dialed descriptor ─► handshaker: threads that step back ─► Session + descriptor ─► an executor's stream
//!                                      │ which configuration?
//!                                      ▼
//!                                   TlsCredentials ◄─ files, looked at anew while connections come, and on SIGHUP
//! ```
//!
//! Handshakes are made by threads of their own: one costs as much as a hundred requests, and thousands of clients may
//! come back at once. Nothing is known here of HTTP or of executors: [`session::Session`] turns bytes into bytes.

mod address;
mod admission;
mod auto;
mod certificate;
mod credentials;
mod files;
mod handshake;
mod options;
mod session;
mod threads;

pub(super) use self::admission::{Accepting, Outcome, Rules, remote_of};
pub use self::auto::make_self_signed;
pub use self::certificate::PeerCertificate;
pub use self::credentials::{CertificateEnd, TlsCredentials, reload_all};
pub use self::options::{Options, PairFiles, TlsVersions};
pub(super) use self::session::Session;
pub(super) use self::threads::{HANDSHAKE_TIME, dial, handshakers};
