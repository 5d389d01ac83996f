//! Endpoints from DNS: `_etcd-client-ssl._tcp.<domain>` and `_etcd-client._tcp.<domain>`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::time::timeout;

const ANSWER_TIME_MAX: Duration = Duration::from_secs(5);
const ATTEMPTS: u32 = 2;
const SRV: u16 = 33;

/// Endpoints of a domain, those with TLS first.
///
/// # Errors
/// Neither name can be looked up; Go's text.
pub(crate) async fn endpoints(domain: &str, suffix: &str) -> Result<Vec<String>, String> {
    let service = |base: &str| match suffix {
        "" => base.to_owned(),
        _ => format!("{base}-{suffix}"),
    };
    let secure = look_up(&service("etcd-client-ssl"), domain).await;
    let plain = look_up(&service("etcd-client"), domain).await;
    if let (Err(secure), Err(plain)) = (&secure, &plain) {
        return Err(format!("dns lookup errors: {secure} and {plain}"));
    }
    let all = [("https", secure), ("http", plain)].into_iter();
    Ok(all
        .flat_map(|(scheme, found)| {
            let found = found.unwrap_or_default().into_iter();
            found.map(move |(host, port)| format!("{scheme}://{host}:{port}"))
        })
        .collect())
}

async fn look_up(service: &str, domain: &str) -> Result<Vec<(String, u16)>, String> {
    let name = format!("_{service}._tcp.{domain}");
    let server = SocketAddr::new(name_server(), 53);
    let failed = |why: &str| format!("lookup {name} on {server}: {why}");
    // Nobody is asked for a name that is none.
    let query = query(&name).ok_or_else(|| format!("lookup {name}: no such host"))?;
    for _ in 0..ATTEMPTS {
        if let Ok(Ok(answer)) = timeout(ANSWER_TIME_MAX, ask(server, &query)).await {
            let found = records(&answer).ok_or_else(|| failed("cannot unmarshal DNS message"))?;
            return match found.is_empty() {
                true => Err(failed("no such host")),
                false => Ok(found),
            };
        }
    }
    Err(failed("i/o timeout"))
}

/// The first name server of the system.
fn name_server() -> IpAddr {
    let text = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let mut named = text.lines().filter_map(|line| line.strip_prefix("nameserver"));
    let first = named.find_map(|it| it.trim().parse().ok());
    first.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))
}

async fn ask(server: SocketAddr, query: &[u8]) -> std::io::Result<Vec<u8>> {
    let any = if server.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(server).await?;
    socket.send(query).await?;
    let mut answer = vec![0; 4096];
    loop {
        let size = socket.recv(&mut answer).await?;
        if answer.get(..2) == query.get(..2) {
            answer.truncate(size);
            return Ok(answer);
        }
    }
}

/// One question, recursion desired.
fn query(name: &str) -> Option<Vec<u8>> {
    let id = u16::try_from(std::process::id() % 0xffff).unwrap_or(1);
    let mut out = id.to_be_bytes().to_vec();
    out.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.trim_end_matches('.').split('.') {
        out.push(u8::try_from(label.len()).ok().filter(|it| (1..64).contains(it))?);
        out.extend_from_slice(label.as_bytes());
    }
    out.push(0);
    out.extend(SRV.to_be_bytes());
    out.extend([0, 1]);
    Some(out)
}

/// Targets and ports by priority.
fn records(answer: &[u8]) -> Option<Vec<(String, u16)>> {
    let number = |at: usize| Some(u16::from_be_bytes([*answer.get(at)?, *answer.get(at + 1)?]));
    let mut at = 12;
    for _ in 0..number(4)? {
        at = name(answer, at)?.1 + 4;
    }
    let mut found = Vec::new();
    for _ in 0..number(6)? {
        at = name(answer, at)?.1;
        let (kind, size) = (number(at)?, usize::from(number(at + 8)?));
        at += 10;
        if kind == SRV {
            let target = name(answer, at + 6)?.0;
            found.push((number(at)?, target, number(at + 4)?));
        }
        at += size;
    }
    found.sort_by_key(|it| it.0);
    Some(found.into_iter().map(|(_, target, port)| (target, port)).collect())
}

/// A name, whose end may be elsewhere in the message, and what is behind it.
fn name(answer: &[u8], at: usize) -> Option<(String, usize)> {
    let (mut out, mut at, mut behind) = (String::new(), at, None);
    // A name that points to itself ends too.
    for _ in 0..128 {
        let length = usize::from(*answer.get(at)?);
        if length >= 0xc0 {
            behind.get_or_insert(at + 2);
            at = (length & 0x3f) << 8 | usize::from(*answer.get(at + 1)?);
        } else if length == 0 {
            return Some((out, behind.unwrap_or(at + 1)));
        } else {
            out.push_str(&String::from_utf8_lossy(answer.get(at + 1..at + 1 + length)?));
            out.push('.');
            at += 1 + length;
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_read_with_pointers() {
        let mut message = query("_etcd-client._tcp.a.b").unwrap();
        message[7] = 2;
        for (priority, port) in [(2, 2379_u16), (1, 2380)] {
            message.extend([0xc0, 12, 0, 33, 0, 1, 0, 0, 0, 9, 0, 11, 0, priority, 0, 0]);
            message.extend(port.to_be_bytes());
            message.extend([2, b'h', b'0' + priority, 0xc0, 30]);
        }
        let found = records(&message).unwrap();
        assert_eq!(found, [("h1.a.b.".to_owned(), 2380), ("h2.a.b.".to_owned(), 2379)]);
        assert_eq!(records(&message[..40]), None);
    }
}
