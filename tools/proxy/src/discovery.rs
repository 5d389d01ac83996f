//! Endpoints from DNS: `--discovery-srv`. Unless `--insecure-discovery` is set, only those are used with which a TLS
//! handshake succeeds.

use dial::srv::{self, Server};
use dial::tls::{self, Security};

use crate::{Failure, info, warn};

/// The servers of the domain in `--discovery-srv`; none without one.
///
/// # Errors
/// The domain cannot be looked up.
pub(crate) async fn servers(
    domain: &str,
    suffix: &str,
    trusted_ca: &str,
    accept_insecure: bool,
) -> Result<Vec<Server>, Failure> {
    if domain.is_empty() {
        return Ok(Vec::new());
    }
    let found = srv::servers(domain, suffix).await.map_err(Failure::Error)?;
    let line = |line: gocompat::zap::Line, servers: &[Server]| {
        let endpoints: Vec<String> = servers.iter().map(Server::endpoint).collect();
        line.text("srv-server", domain).texts("endpoints", &endpoints)
    };
    line(info("etcdmain/util.go:38", "discovered cluster from SRV"), &found).write();
    if accept_insecure {
        return Ok(found);
    }
    line(info("etcdmain/util.go:53", "validating discovered SRV endpoints"), &found).write();
    let mut secure = Vec::new();
    let mut faults = Vec::new();
    for server in found {
        match validate(&server, domain, trusted_ca).await {
            Ok(()) => secure.push(server),
            Err(why) => faults.push(why),
        }
    }
    if faults.is_empty() {
        let message = "using validated discovered SRV endpoints";
        line(info("etcdmain/util.go:68", message), &secure).write();
    } else {
        let message = "failed to validate discovered endpoints";
        line(warn("etcdmain/util.go:61", message), &secure)
            .text("error", &faults.join(","))
            .write();
    }
    Ok(secure)
}

/// A handshake, whose certificate must be that of the host. etcd only opens a TCP connection, which proves nothing.
async fn validate(server: &Server, domain: &str, trusted_ca: &str) -> Result<(), String> {
    let endpoint = server.endpoint();
    if server.scheme != "https" {
        return Err(format!("{endpoint:?} is insecure"));
    }
    let security = Security {
        cacert: trusted_ca.to_owned(),
        server_name: domain.to_owned(),
        ..Security::default()
    };
    let config = tls::config(&security)?;
    let dialer = dial::Dialer::new(&endpoint, config, tls::default);
    let opened = tokio::time::timeout(crate::limits::CONNECT_TIME_MAX, dialer.open(&endpoint));
    match opened.await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(why)) => Err(format!("{endpoint:?} failed to dial ({why})")),
        Err(_) => Err(format!("{endpoint:?} failed to dial (i/o timeout)")),
    }
}
