//! `/etc/resolv.conf`: servers, attempts, and search domains.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

/// With the dot at its end.
pub(super) const NAME_BYTES_MAX: usize = 254;
const PORT: u16 = 53;
const SERVERS_MAX: usize = 3;
const DOTS_MAX: u32 = 15;

/// The content of the file, or the defaults without it.
#[derive(PartialEq, Eq, Debug)]
pub(super) struct System {
    pub(super) servers: Vec<SocketAddr>,
    /// Each with a dot at its end.
    search: Vec<String>,
    /// A name with at least this many dots is tried as it is before the search domains.
    dots: usize,
    /// For each exchange with one server.
    pub(super) timeout: Duration,
    /// Number of queries to each server.
    pub(super) attempts: usize,
    pub(super) tcp_only: bool,
}

impl System {
    /// Reads the file as it is now.
    pub(super) fn read() -> Self {
        let text = std::fs::read("/etc/resolv.conf").unwrap_or_default();
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        Self::parse(&String::from_utf8_lossy(&text), &host)
    }

    fn parse(text: &str, host: &str) -> Self {
        let mut system = Self {
            servers: Vec::new(),
            search: Vec::new(),
            dots: 1,
            timeout: Duration::from_secs(5),
            attempts: 2,
            tcp_only: false,
        };
        for line in text.lines().filter(|it| !it.starts_with([';', '#'])) {
            let mut fields = line.split_ascii_whitespace();
            match (fields.next(), fields) {
                (Some("nameserver"), mut rest) if system.servers.len() < SERVERS_MAX => {
                    let address = rest.next().and_then(|it| it.parse::<IpAddr>().ok());
                    system.servers.extend(address.map(|it| SocketAddr::new(it, PORT)));
                }
                (Some("domain"), mut rest) => {
                    system.search = rest.next().map(rooted).into_iter().collect();
                }
                (Some("search"), rest) => {
                    system.search = rest.map(rooted).filter(|it| it != ".").collect();
                }
                (Some("options"), rest) => rest.for_each(|it| system.take_option(it)),
                _ => {}
            }
        }
        if system.servers.is_empty() {
            let local: [IpAddr; 2] = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
            system.servers = local.map(|it| SocketAddr::new(it, PORT)).to_vec();
        }
        if system.search.is_empty()
            && let Some((_, domain)) = host.split_once('.')
            && !domain.is_empty()
        {
            system.search.push(rooted(domain));
        }
        system
    }

    fn take_option(&mut self, option: &str) {
        let (name, value) = option.split_once(':').unwrap_or((option, ""));
        let digits = value.find(|it: char| !it.is_ascii_digit()).map_or(value, |at| &value[..at]);
        let value = digits.parse().unwrap_or(if digits.is_empty() { 0 } else { u32::MAX });
        match name {
            "ndots" => self.dots = value.min(DOTS_MAX) as usize,
            "timeout" => self.timeout = Duration::from_secs(value.max(1).into()),
            "attempts" => self.attempts = value.max(1) as usize,
            "use-vc" | "usevc" | "tcp" => self.tcp_only = true,
            _ => {}
        }
    }

    /// The names to query, in turn: each with a dot at its end.
    pub(super) fn names(&self, name: &str) -> Vec<String> {
        if name.ends_with('.') {
            return vec![name.to_owned()];
        }
        let bare = format!("{name}.");
        let mut names: Vec<String> = self.search.iter().map(|it| format!("{bare}{it}")).collect();
        names.retain(|it| it.len() <= NAME_BYTES_MAX);
        let has_dots = name.matches('.').count() >= self.dots;
        names.insert(if has_dots { 0 } else { names.len() }, bare);
        names
    }
}

fn rooted(name: &str) -> String {
    format!("{}.", name.strip_suffix('.').unwrap_or(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_read_as_go_reads_it() {
        let text = "# a comment\nnameserver 10.0.0.1\nnameserver nonsense\nnameserver ::1\n\
                    domain first.test\nsearch b.test. . c.test\n\
                    options ndots:20 timeout:0 attempts:7x rotate use-vc\n";
        let system = System::parse(text, "host.of.test");
        let servers: Vec<_> = system.servers.iter().map(ToString::to_string).collect();
        assert_eq!(servers, ["10.0.0.1:53", "[::1]:53"]);
        assert_eq!(system.search, ["b.test.", "c.test."]);
        assert_eq!((system.dots, system.attempts, system.tcp_only), (15, 7, true));
        assert_eq!(system.timeout, Duration::from_secs(1));
        let nothing = System::parse("", "host.of.test");
        let servers: Vec<_> = nothing.servers.iter().map(ToString::to_string).collect();
        assert_eq!(servers, ["127.0.0.1:53", "[::1]:53"]);
        assert_eq!(nothing.search, ["of.test."]);
        assert_eq!(System::parse("", "host").search, [""; 0]);
    }

    #[test]
    fn a_name_with_few_dots_is_looked_for_nearby_first() {
        let system = System::parse("search b.test c.test\noptions ndots:2", "host");
        assert_eq!(system.names("a"), ["a.b.test.", "a.c.test.", "a."]);
        assert_eq!(system.names("a.b.c"), ["a.b.c.", "a.b.c.b.test.", "a.b.c.c.test."]);
        assert_eq!(system.names("a."), ["a."]);
    }
}
