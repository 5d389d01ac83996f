//! Accepted connections on their way through a handshake of TLS.
//!
//! ```text
//!  Listener ─► descriptor ─► handshaker's thread ─► session ─┬─► Connection ─► executor
//!                                 └ no TLS, where that may be ┘
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::open::ConnectionPermit;
use super::{Accepted, Connection, ConnectionSender, Identity, reactor};
use crate::io::clock::Instant;
use crate::io::descriptors::Lane;
use crate::io::tls::{Accepting, Outcome, Rules, TlsCredentials, handshakers, remote_of};

/// TLS on a port.
#[derive(Clone, Debug)]
pub struct Secure {
    /// The credentials to accept with.
    pub credentials: Arc<TlsCredentials>,
    /// The port serves connections without TLS, too: the first byte tells.
    pub allows_plain: bool,
}

impl Secure {
    /// On a port of this lane whose connections go to these executors.
    pub(super) fn on(self, lane: Lane, port: usize, executors: Vec<ConnectionSender>) -> OnPort {
        let Self { credentials, allows_plain } = self;
        let is_peers = lane == Lane::Peers;
        let rules = Rules {
            credentials,
            allows_plain,
            // As etcd: where clients are served any address may show a certificate.
            checks_address: is_peers || lane == Lane::Metrics,
            endpoint: if is_peers { "peer" } else { "client" },
        };
        OnPort { rules: Arc::new(rules), port, is_peers, executors: executors.into() }
    }
}

pub(super) struct OnPort {
    rules: Arc<Rules>,
    port: usize,
    is_peers: bool,
    executors: Arc<[ConnectionSender]>,
}

impl OnPort {
    /// Hands a connection to the threads that make handshakes.
    pub(super) async fn take(&self, stream: Accepted, permit: ConnectionPermit) {
        static TURN: AtomicUsize = AtomicUsize::new(0);
        let began = Instant::now();
        // The threads were started before anyone listened.
        let Ok(threads) = handshakers() else { return };
        let is_unix = stream.is_unix;
        // Without a descriptor left the connection is closed.
        let Ok(socket) = stream.socket.into_fd() else { return };
        let (port, executors) = (self.port, Arc::clone(&self.executors));
        let done = move |outcome| {
            let (socket, session, certificate) = match outcome {
                Outcome::Plain(socket) => (socket, None, None),
                Outcome::Secured(socket, session, certificate) => {
                    (socket, Some(session), certificate)
                }
            };
            let identity = Identity { is_secure: session.is_some(), certificate };
            let socket = reactor::Accepted::Fd(socket);
            let stream = Accepted { socket, is_unix, session };
            let Some(sender) = executors.iter().min_by_key(|it| it.share.count()) else { return };
            let permit = permit.with(&sender.share);
            drop(sender.to.send(Connection { stream, port, permit, began, identity }));
        };
        let remote = if is_unix { None } else { remote_of(&socket) };
        let rules = Arc::clone(&self.rules);
        let accepting = Accepting { socket, began, rules, remote, done: Box::new(done) };
        let turn = TURN.fetch_add(1, Ordering::Relaxed);
        let thread = if self.is_peers { threads.peers() } else { threads.client(turn) };
        thread.accept(accepting).await;
    }
}
