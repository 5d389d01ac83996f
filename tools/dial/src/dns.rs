//! Queries to the system's name servers, in the order and with the error texts of Go's own resolver, which
//! etcdctl uses.
//!
//! ```text
//! name ─► itself, then below each search domain (the other way round if it has few dots)
//!            └─► each server in turn, `attempts` times ─► UDP ─ truncated answer ─► TCP
//! ```
//!
//! A name is not queried again after a server answered that it does not exist or has no such records.

mod exchange;
mod message;
mod system;

use std::net::SocketAddr;

use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};

use self::message::Message;
use self::system::System;

const NO_SUCH_HOST: &str = "no such host";

/// A server of a service: host, port, priority, and weight among those of its priority.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Service {
    /// With a dot at its end.
    pub target: String,
    pub port: u16,
    pub priority: u16,
    pub weight: u16,
}

/// The servers of a service in a domain, in the order of the answer.
///
/// # Errors
/// Go's text: no server answered, or there are no records.
pub async fn services(service: &str, domain: &str) -> Result<Vec<Service>, String> {
    let name = format!("_{service}._tcp.{domain}");
    let (server, answer) = look_up(&name, message::SRV).await?;
    let message = Message::new(&answer);
    let found = message.as_ref().and_then(Message::services);
    let found = found
        .ok_or_else(|| format!("lookup {domain} on {server}: {}", message::CANNOT_UNMARSHAL))?;
    match found.iter().all(|it| is_domain_name(&it.target)) {
        true => Ok(found),
        false => Err(format!(
            "lookup {domain}: DNS response contained records which contain invalid names"
        )),
    }
}

/// The error text for a host whose address is not known.
pub async fn why_unknown(host: &str) -> String {
    match look_up(host, message::A).await {
        // The system's resolver failed for another reason; this is its programs' text.
        Ok(_) => format!("lookup {host}: {NO_SUCH_HOST}"),
        Err(why) => why,
    }
}

/// An answer with at least one record of this kind, and its server.
async fn look_up(name: &str, kind: u16) -> Result<(SocketAddr, Vec<u8>), String> {
    let failed = |why: String| format!("lookup {name}{why}");
    if !is_domain_name(name) {
        return Err(failed(format!(": {NO_SUCH_HOST}")));
    }
    let system = System::read();
    let mut last = String::new();
    for full in system.names(name) {
        match one_name(&system, &full, kind).await {
            Ok(found) => return Ok(found),
            Err(why) => last = why,
        }
    }
    Err(failed(last))
}

/// Queries the servers for one fully qualified name.
///
/// # Errors
/// The part of Go's error text after the name.
async fn one_name(system: &System, name: &str, kind: u16) -> Result<(SocketAddr, Vec<u8>), String> {
    let mut last = String::new();
    for server in system.servers.iter().cycle().take(system.servers.len() * system.attempts) {
        let query = message::query(SmallRng::from_os_rng().random(), name, kind);
        let verdict = match exchange::exchange(system, *server, &query).await {
            Ok(answer) => match message::verdict(&answer, kind) {
                Ok(()) => return Ok((*server, answer)),
                Err(why) => why.to_owned(),
            },
            Err(why) => why,
        };
        let is_final = verdict == NO_SUCH_HOST;
        last = format!(" on {server}: {verdict}");
        if is_final {
            break;
        }
    }
    Err(last)
}

/// True if the name is valid for a host or a service: letters, digits, hyphens, underscores.
fn is_domain_name(name: &str) -> bool {
    const LABEL_BYTES_MAX: usize = 63;
    if name == "." {
        return true;
    }
    let bare = name.strip_suffix('.').unwrap_or(name);
    let is_label = |label: &str| {
        (1..=LABEL_BYTES_MAX).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|it| it.is_ascii_alphanumeric() || b"-_".contains(&it))
    };
    bare.len() < system::NAME_BYTES_MAX
        && bare.split('.').all(is_label)
        && bare.bytes().any(|it| it.is_ascii_alphabetic() || b"-_".contains(&it))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_judged_as_go_judges_them() {
        for good in [".", "a", "a.b.", "_etcd-client._tcp.a.b", "4a", &"a.".repeat(126)] {
            assert!(is_domain_name(good), "{good}");
        }
        let (long, label) = ("a.".repeat(128), "a".repeat(64));
        for bad in ["", "..", "a..b", ".a", "-a", "a-.b", "a b", "1.2", "ä", &long, &label] {
            assert!(!is_domain_name(bad), "{bad}");
        }
    }
}
