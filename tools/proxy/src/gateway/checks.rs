//! Addresses as typed, and the gateway's own among the endpoints, to which it would connect without end.

use std::net::{IpAddr, SocketAddr, UdpSocket};

use dial::dns::Service;

use super::endpoints::Endpoint;
use crate::Failure;

/// Endpoints with or without a scheme.
///
/// # Errors
/// One has no port.
pub(super) fn endpoints(typed: &[String]) -> Result<Vec<Endpoint>, Failure> {
    let endpoint = |typed: &String| {
        let host = match typed.split_once("://") {
            Some((_, rest)) if !rest.is_empty() => rest.split('/').next().unwrap_or_default(),
            _ => typed,
        };
        let wrong = || Failure::Output(format!("error parsing endpoint {host:?}"));
        let (target, port) = host.rsplit_once(':').ok_or_else(wrong)?;
        let target = target.trim_start_matches('[').trim_end_matches(']').to_owned();
        // Digits count, as with Go's Sscanf; what follows them does not.
        let digits: String = port.chars().take_while(char::is_ascii_digit).collect();
        let port = digits.parse().unwrap_or_default();
        Ok(Endpoint::new(Service { target, port, priority: 0, weight: 0 }))
    };
    typed.iter().map(endpoint).collect()
}

/// Refuses endpoints that are the address to listen on.
///
/// # Errors
/// One is, or a host has no address.
pub(super) async fn refuse_own_address(listen: &str, all: &[Endpoint]) -> Result<(), Failure> {
    let output = |text: String| Failure::Output(format!("{text}\n"));
    let invalid = || output(format!("failed to validate listen address: {listen}"));
    let (host, port) = listen.rsplit_once(':').ok_or_else(invalid)?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let own = look_up(host).await;
    if own.is_empty() {
        return Err(output(format!("failed to resolve listen host: {host}")));
    }
    for endpoint in all {
        let Service { target, port: theirs, .. } = &endpoint.service;
        let found = look_up(target).await;
        if found.is_empty() {
            return Err(output(format!("failed to resolve endpoint host: {target}")));
        }
        if theirs.to_string() != port {
            continue;
        }
        if let Some(same) = found.iter().find(|it| own.iter().any(|own| covers(*own, **it))) {
            return Err(output(format!(
                "SRV or endpoint ({target}:{theirs}->{same}:{theirs}) should not resolve to the gateway listen addr \
                 ({listen})"
            )));
        }
    }
    Ok(())
}

/// An empty host is any address of this machine.
async fn look_up(host: &str) -> Vec<IpAddr> {
    match host {
        "" => vec![IpAddr::from([0; 4])],
        _ => {
            let found = tokio::net::lookup_host((host, 0)).await;
            found.map(|all| all.map(|it| it.ip()).collect()).unwrap_or_default()
        }
    }
}

/// True if a listener on `own` accepts connections to `other`: etcd compares the addresses alone, so that a listener on all
/// addresses passes.
fn covers(own: IpAddr, other: IpAddr) -> bool {
    own == other || (own.is_unspecified() && is_local(other))
}

/// Only addresses of this machine can be bound to.
fn is_local(address: IpAddr) -> bool {
    address.is_loopback() || address.is_unspecified() || UdpSocket::bind((address, 0)).is_ok()
}

/// True if the other end of a connection is the listener itself.
pub(super) fn is_own(peer: SocketAddr, own: SocketAddr) -> bool {
    peer.port() == own.port() && covers(own.ip(), peer.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schemes_are_left_out() {
        let typed = ["http://a:1", "https://b:2/x", "c:3", "[::1]:4"].map(str::to_owned);
        let Ok(all) = endpoints(&typed) else { panic!("they are valid") };
        let shown: Vec<String> = all.iter().map(Endpoint::address).collect();
        assert_eq!(shown, ["a:1", "b:2", "c:3", "[::1]:4"]);
        assert!(endpoints(&["foo".to_owned()]).is_err());
    }

    #[test]
    fn a_listener_on_all_addresses_knows_its_own() {
        let address = |text: &str| text.parse::<SocketAddr>().expect("an address");
        let any = address("0.0.0.0:5");
        assert!(is_own(address("127.0.0.1:5"), any));
        assert!(!is_own(address("127.0.0.1:6"), any));
        assert!(!is_own(address("192.0.2.1:5"), any));
        assert!(!is_own(address("127.0.0.2:5"), address("127.0.0.1:5")));
    }
}
