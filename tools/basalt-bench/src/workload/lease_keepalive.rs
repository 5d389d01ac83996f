//! Renewals of leases, each client its own, each renewal a stream of its own as `KeepAliveOnce` of
//! etcd's client makes it.

use basalt_proto::etcdserverpb::{LeaseKeepAliveRequest, LeaseKeepAliveResponse};
use clap::Args;
use prost::Message;

use super::{Kind, Load};
use crate::error::Fatal;
use crate::generator::{self, Workload};
use crate::options::Globals;
use crate::report::Finished;
use crate::session;
use crate::wire::Dialer;
use crate::{leases, paths};

/// Seconds, as etcd's benchmark grants them.
const TTL: i64 = 100;

/// Flags of `lease-keepalive`.
#[derive(Args, Clone, Debug)]
pub struct Flags {
    /// Total number of lease keepalive requests
    #[arg(long, default_value_t = 10_000)]
    pub total: u64,
    /// Renewals per second, each due at its moment whatever the server does (0 is no limit)
    #[arg(long, default_value_t = 0)]
    pub rate: u64,
}

pub(super) struct KeepAlive {
    /// By client.
    ids: Vec<i64>,
}

impl Workload for KeepAlive {
    fn begin(&mut self, slot: usize, _: u64, body: &mut Vec<u8>) -> &'static str {
        let request = LeaseKeepAliveRequest { id: self.ids[slot] };
        request.encode(body).expect("a Vec takes everything");
        paths::LEASE_KEEP_ALIVE
    }

    fn message(&mut self, _: usize, body: &[u8]) -> Result<(), String> {
        let answer = LeaseKeepAliveResponse::decode(body).map_err(|error| error.to_string())?;
        match answer.ttl {
            // A server reports a missing lease in this way; the status is OK.
            ..=0 => Err("etcdserver: requested lease not found".to_owned()),
            1.. => Ok(()),
        }
    }
}

/// The kinds of operations.
pub(super) fn kinds() -> Vec<Kind> {
    vec![Kind::new("lease-keepalive", 0)]
}

/// Grants a lease for each client and makes the load of a connection.
///
/// # Errors
/// The server cannot be reached.
pub(super) fn maker(
    globals: &Globals,
    dialer: &Dialer,
) -> Result<impl Fn(usize) -> KeepAlive + Sync + use<>, Fatal> {
    let ids = leases::grant(dialer, globals.clients.max(1), TTL)?;
    let conns = generator::conns(globals.conns, globals.clients, dialer.endpoints.len());
    Ok(move |conn| KeepAlive { ids: ids.iter().copied().skip(conn).step_by(conns).collect() })
}

/// Grants, renews, and reports the renewals.
///
/// # Errors
/// The flags are wrong or the server cannot be reached.
pub fn run(globals: &Globals, flags: &Flags) -> Result<Finished, Fatal> {
    let dialer = session::dialer(globals)?;
    let make = maker(globals, &dialer)?;
    let load = Load { globals, total: flags.total, rate: flags.rate, kinds: kinds() };
    Ok(load.run(&dialer, make)?.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_client_renews_its_own_lease() {
        let mut load = KeepAlive { ids: vec![7, 9] };
        let mut body = Vec::new();
        assert_eq!(load.begin(1, 0, &mut body), paths::LEASE_KEEP_ALIVE);
        assert_eq!(LeaseKeepAliveRequest::decode(&body[..]).unwrap().id, 9);
    }

    #[test]
    fn a_lease_that_is_gone_is_an_error_though_the_status_is_ok() {
        let answer = |ttl| LeaseKeepAliveResponse { ttl, ..LeaseKeepAliveResponse::default() };
        let mut load = KeepAlive { ids: vec![7] };
        assert!(load.message(0, &answer(0).encode_to_vec()).is_err());
        assert!(load.message(0, &answer(100).encode_to_vec()).is_ok());
    }
}
