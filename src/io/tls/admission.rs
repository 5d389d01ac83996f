//! Sockets whose handshake is done or refused: whose names are checked, what is logged, and to whom they go.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use gotls::Leaf;

use super::address::{check_addresses, check_names};
use super::certificate::PeerCertificate;
use super::credentials::TlsCredentials;
use super::handshake;
use super::session::Session;
use crate::io::clock::Instant;
use crate::io::pools::Pool;

/// The requirements of a port.
#[derive(Clone, Debug)]
pub(in crate::io) struct Rules {
    pub(in crate::io) credentials: Arc<TlsCredentials>,
    /// Connections without TLS are let in, too.
    pub(in crate::io) allows_plain: bool,
    /// A certificate must name the address that it comes from.
    pub(in crate::io) checks_address: bool,
    /// `client` or `peer`, for the log.
    pub(in crate::io) endpoint: &'static str,
}

/// The result for an accepted socket.
pub(in crate::io) enum Outcome {
    /// It speaks no TLS, and may.
    Plain(OwnedFd),
    /// It does, and is let in.
    Secured(OwnedFd, Box<Session>, Option<Arc<PeerCertificate>>),
}

type Done = Box<dyn FnOnce(Outcome) + Send>;
/// A socket that was accepted.
pub(in crate::io) struct Accepting {
    pub(in crate::io) socket: OwnedFd,
    pub(in crate::io) began: Instant,
    pub(in crate::io) rules: Arc<Rules>,
    pub(in crate::io) remote: Option<SocketAddr>,
    /// Takes it when it is let in; dropped if it is not.
    pub(in crate::io) done: Done,
}

/// The address of the other end; `None` for a unix socket.
pub(in crate::io) fn remote_of(socket: &OwnedFd) -> Option<SocketAddr> {
    rustix::net::getpeername(socket).ok().flatten().and_then(|it| SocketAddr::try_from(it).ok())
}

/// Go's text for a read that timed out.
pub(super) fn late(socket: &OwnedFd) -> String {
    let local = rustix::net::getsockname(socket).ok().and_then(|it| SocketAddr::try_from(it).ok());
    let local = local.map_or_else(|| "@".to_owned(), |it| it.to_string());
    let remote = remote_of(socket).map_or_else(|| "@".to_owned(), |it| it.to_string());
    format!("read tcp {local}->{remote}: i/o timeout")
}

/// Checks the names of the certificate, and hands the connection on.
pub(super) fn let_in(accepting: Accepting, session: Box<Session>) {
    let is_user = accepting.rules.credentials.options().certificate_users;
    let Some((certificate, leaf)) = handshake::shown(&session, is_user) else {
        return (accepting.done)(Outcome::Secured(accepting.socket, session, None));
    };
    let rules = &accepting.rules;
    let is_checked = rules.checks_address && !rules.credentials.options().skips_address_check;
    let checked = if is_checked { check_addresses(&leaf, accepting.remote) } else { Some(Ok(())) };
    let finish = move |accepting: Accepting, leaf: &Leaf, checked: Result<(), String>| match checked
    {
        Ok(()) => {
            let secured = Outcome::Secured(accepting.socket, session, Some(certificate));
            (accepting.done)(secured);
        }
        Err(why) => say_rejected(&accepting, Some(leaf), &why),
    };
    match (checked, accepting.remote) {
        (Some(checked), _) => finish(accepting, &leaf, checked),
        // Names are looked up where that delays no handshake. A full queue is an attack, or a dead name server.
        (None, Some(remote)) => Pool::Dns.try_run(move || {
            let checked = check_names(&leaf, remote.ip());
            finish(accepting, &leaf, checked);
        }),
        (None, None) => (),
    }
}

pub(super) fn say_rejected(accepting: &Accepting, leaf: Option<&Leaf>, why: &str) {
    let remote = accepting.remote.map_or_else(|| "@".to_owned(), |it| it.to_string());
    let ips: Vec<_> =
        leaf.iter().flat_map(|it| &it.ip_addresses).map(ToString::to_string).collect();
    let names: Vec<_> = leaf.iter().flat_map(|it| &it.dns_names).collect();
    match accepting.rules.endpoint {
        "peer" => tracing::warn!(
            "remote-addr" = remote,
            "server-name" = "",
            "ip-addresses" = ?ips,
            "dns-names" = ?names,
            error = why,
            "rejected connection on peer endpoint"
        ),
        _ => tracing::warn!(
            "remote-addr" = remote,
            "server-name" = "",
            "ip-addresses" = ?ips,
            "dns-names" = ?names,
            error = why,
            "rejected connection on client endpoint"
        ),
    }
}
