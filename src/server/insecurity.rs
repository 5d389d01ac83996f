//! Warnings at the start about what leaves a member open to others. Nothing of it is refused: etcd's defaults are such, and
//! a network may be closed by other means. None concerns loopback addresses and unix sockets.

use std::net::{IpAddr, SocketAddr};

use super::Config;
use super::values::Listen;
use crate::io::{Address, is_readable_by_others};

/// Logs one line for each.
pub(super) fn say(config: &Config, is_auth_on: bool) {
    for Warning { text, about } in warnings(config, is_auth_on) {
        tracing::warn!(concerns = about, "insecure: {text}");
    }
}

#[derive(PartialEq, Eq, Debug)]
struct Warning {
    text: &'static str,
    /// Addresses, or a file.
    about: String,
}

fn warnings(config: &Config, is_auth_on: bool) -> Vec<Warning> {
    let mut warnings = Vec::new();
    let mut warn = |text, about: String| {
        if !about.is_empty() {
            warnings.push(Warning { text, about });
        }
    };
    let clients = || config.listen_clients.iter().chain(&config.listen_http);
    let plain = outside(clients().filter(|listen| listen.plain));
    warn("clients are served without TLS beyond this machine", plain.clone());
    let peers = outside(config.listen_peers.iter().filter(|listen| listen.plain));
    warn("the peer port has no TLS: whoever reaches it can read and change everything", peers);
    let unchecked = config.listen_peers.iter().filter(|listen| listen.secure);
    if !config.tls.demands_peer_certificates() {
        let text = "the peer port demands no certificates: whoever reaches it can read and change everything";
        warn(text, outside(unchecked));
    }
    if !is_auth_on {
        let open = clients().filter(|it| it.plain || !config.tls.demands_client_certificates());
        let text =
            "authentication is off: whoever reaches these ports can read and change everything";
        warn(text, outside(open));
    } else if config.security.has_simple_tokens() {
        warn("tokens are sent without TLS, and whoever sees one can use it", plain);
    }
    for flag in config.tls.trusting_the_system() {
        let text = "certificates of clients are verified by the system's authorities, since no CA is given";
        warn(text, flag.to_owned());
    }
    for key in config.tls.keys().filter(|key| is_readable_by_others(key)) {
        warn("a file of a private key can be read by others", key.display().to_string());
    }
    warnings
}

/// The addresses that others than this machine reach.
fn outside<'a>(listens: impl Iterator<Item = &'a Listen>) -> String {
    let addresses = listens.filter_map(|listen| match &listen.address {
        Address::Tcp(address) if !is_loopback(address) => Some(address.as_str()),
        Address::Tcp(_) | Address::Unix(_) => None,
    });
    addresses.collect::<Vec<_>>().join(",")
}

fn is_loopback(address: &str) -> bool {
    match address.parse::<SocketAddr>() {
        Ok(address) => match address.ip() {
            IpAddr::V4(ip) => ip.is_loopback(),
            IpAddr::V6(ip) => ip.to_canonical().is_loopback(),
        },
        Err(_) => address.rsplit_once(':').is_some_and(|(host, _)| host == "localhost"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_this_machine() {
        for (address, is) in [
            ("127.0.0.1:2379", true),
            ("127.9.0.1:2379", true),
            ("[::1]:2379", true),
            ("[::ffff:127.0.0.1]:2379", true),
            ("localhost:2379", true),
            ("0.0.0.0:2379", false),
            ("[::]:2379", false),
            ("10.0.0.1:2379", false),
            ("localhost.example:2379", false),
        ] {
            assert_eq!(is_loopback(address), is, "{address}");
        }
    }
}
