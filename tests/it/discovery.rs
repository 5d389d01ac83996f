//! Servers that are found by DNS: `basaltctl` must print for a domain what etcdctl prints, to the
//! byte.
//!
//! ```text
//! test ── unshare --net --mount ──► the same test, in a network and with a resolv.conf of its own
//!                                     ├─ name servers on 127.0.0.1 and 127.0.0.2, a thread each
//!                                     ├─ a server
//!                                     └─ etcdctl, basaltctl
//! ```
//!
//! The network and the mounts end with the process.

mod names;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use self::names::Zone;
use crate::process::{self, Scratch, Server, Setup, reference, run};
use crate::transcripts::hidden;

const INSIDE: &str = "DISCOVERY_RESOLV_CONF";
const WAIT: Duration = Duration::from_secs(30);
const ORDINARY: &str =
    "nameserver 127.0.0.1\nnameserver 127.0.0.2\nsearch test\noptions timeout:1 attempts:1\n";

/// The arguments of `etcdctl`, with a server on `PORT`.
const LINES: &[&str] = &[
    // Found; over http only if that is allowed.
    "get k --discovery-srv one.test",
    "get k --discovery-srv one.test. -w json",
    "get k --discovery-srv one",
    "get k --discovery-srv one.test --insecure-discovery=false",
    "get k --discovery-srv ONE.test",
    "put k again --discovery-srv one.test",
    "member list --discovery-srv one.test",
    "get k --discovery-srv one.test --discovery-srv-name blue",
    "get k --discovery-srv one.test --discovery-srv-name red",
    "get k --discovery-srv alias.test",
    // In order: the lines about those that are ignored show it.
    "get k --discovery-srv many.test --insecure-discovery=false",
    "get k --discovery-srv large.test --insecure-discovery=false",
    // Name servers with faults.
    "get k --discovery-srv nobody.test",
    "get k --discovery-srv nobody.test.",
    "get k --discovery-srv bare.test",
    "get k --discovery-srv failing.test",
    "get k --discovery-srv refused.test",
    "get k --discovery-srv lame.test",
    "get k --discovery-srv silent.test",
    "get k --discovery-srv garbled.test",
    "get k --discovery-srv second.test",
    "get k --discovery-srv late.test",
    "get k --discovery-srv forged.test",
    "get k --discovery-srv target.test",
    "get k --discovery-srv 'no domain'",
    // A certificate has the name of the host without its last dot.
    "get k --discovery-srv apex.test --cacert CERT",
    // Names that only DNS resolves.
    "get k --endpoints s.one.test:PORT",
    "get k --endpoints http://s.one:PORT",
    "get k --endpoints two.addresses.test:PORT",
    "endpoint health --endpoints s.one.test.:PORT",
    "get k --endpoints nobody.test:PORT --command-timeout 700ms",
    "get k --endpoints nobody:PORT --command-timeout 700ms",
    "get k --endpoints no_domain..test:PORT --command-timeout 700ms",
];

#[test]
fn servers_are_found_by_dns_as_etcdctl_finds_them() {
    let Some(place) = Place::inside("servers_are_found_by_dns_as_etcdctl_finds_them") else {
        return;
    };
    let ours = process::basaltctl();
    place.resolve(ORDINARY);
    place.compare(&ours, LINES);
    let found = place.said(&ours, LINES[0]);
    assert!(found.starts_with("k\nagain\n\n"), "{found}");
    let ignored = place.said(&ours, "get k --discovery-srv large.test --insecure-discovery=false");
    assert_eq!(ignored.matches("ignoring discovered insecure endpoint").count(), 80, "{ignored}");
    assert!(ignored.contains("endpoint \"http://s79.large.test.:2379\"\n"), "{ignored}");
    // It need not be for the domain, but must be for the host.
    for allowed in ["true", "false"] {
        let strange = format!("get k --discovery-srv tls.test --insecure-discovery={allowed}");
        let strange = format!("{strange} --cacert CERT --command-timeout 700ms");
        for program in [&ours, &reference("etcdctl")] {
            let said = place.said(program, &strange);
            assert!(said.ends_with("Error: context deadline exceeded\ncode: Some(1)"), "{said}");
        }
    }
    // The first server does not answer, the others do.
    let line = "get k --discovery-srv dead.test";
    assert!(place.said(&ours, line).starts_with("k\nagain\n"), "{}", place.said(&ours, line));
    let (theirs, told) = (place.drawn(&reference("etcdctl")), place.drawn(&ours));
    assert_eq!(theirs, told, "each of those with a weight comes first now and then");
    // No name server listens, and no other is named; only TCP; names that are tried elsewhere first.
    for resolv_conf in [
        "nameserver 127.0.0.3\noptions timeout:1 attempts:2\n",
        "options use-vc\nnameserver 127.0.0.1\nsearch . other.test test\n",
        "domain test\nnameserver 127.0.0.2\nnameserver 127.0.0.1\noptions ndots:9 timeout:1\n",
        "# nothing\n",
    ] {
        place.resolve(resolv_conf);
        place.compare(&ours, &LINES[2..4]);
        place.compare(&ours, &["get k --discovery-srv nobody.test", LINES[LINES.len() - 2]]);
    }
}

/// CVE-2020-15136: etcd opens a TCP connection and calls the endpoint secure.
#[test]
fn the_gateway_calls_no_endpoint_secure_that_speaks_no_tls() {
    let Some(place) = Place::inside("the_gateway_calls_no_endpoint_secure_that_speaks_no_tls")
    else {
        return;
    };
    let certificate = place.resolv_conf.with_file_name("cert.pem");
    let told = |domain: &str| {
        let mut gateway = Command::new(process::basalt());
        gateway.args(["gateway", "start", "--listen-addr", "127.0.0.1:23790"]);
        gateway.args(["--insecure-discovery=false", "--discovery-srv", domain]);
        gateway.arg("--trusted-ca-file").arg(&certificate);
        let told = run(gateway, Duration::from_secs(4));
        format!("{}{}", told.stdout, told.stderr)
    };
    let validated = "using validated discovered SRV endpoints";
    // The host has the certificate's name, as for other clients.
    let told_tls = told("apex.test");
    assert!(told_tls.contains(validated), "{told_tls}");
    let told_plain = told("plain.test");
    assert!(told_plain.contains("failed to validate discovered endpoints"), "{told_plain}");
    let ready = told_plain.lines().find(|line| line.contains("ready to proxy client requests"));
    let port = place.server.port.to_string();
    assert!(!ready.unwrap_or_default().contains(&port), "{told_plain}");
    assert!(!told_plain.contains(validated), "{told_plain}");
}

/// Addresses of the name servers and of a server.
struct Place {
    resolv_conf: PathBuf,
    server: Server,
    _secure: Server,
}

impl Place {
    /// `None` outside, once the test of that name has passed inside.
    fn inside(test: &str) -> Option<Self> {
        let Some(resolv_conf) = std::env::var_os(INSIDE) else {
            run_inside(test);
            return None;
        };
        let server = Setup::new(process::basalt()).start();
        let secure = secured(resolv_conf.as_ref());
        let (port, secure_port) = (server.port, secure.port);
        for (address, is_first) in [("127.0.0.1:53", true), ("127.0.0.2:53", false)] {
            let zone = Zone { port, secure_port, is_first };
            names::serve(address, Box::leak(Box::new(zone)));
        }
        let place = Self { resolv_conf: resolv_conf.into(), server, _secure: secure };
        place.resolve(ORDINARY);
        place.said(&reference("etcdctl"), "put k found");
        Some(place)
    }

    fn resolve(&self, text: &str) {
        fs::write(&self.resolv_conf, text).expect("the file is ours");
    }

    /// Standard output and error and the exit code. Source ports are replaced.
    fn said(&self, program: &Path, line: &str) -> String {
        let certificate = self.resolv_conf.with_file_name("cert.pem").display().to_string();
        let line =
            line.replace("PORT", &self.server.port.to_string()).replace("CERT", &certificate);
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("exec \"$PROGRAM\" {line}")]).env("PROGRAM", program);
        shell.env("ETCDCTL_ENDPOINTS", self.server.endpoint());
        if line.contains("--endpoints") {
            shell.env_remove("ETCDCTL_ENDPOINTS");
        }
        let told = run(shell, WAIT);
        let said = format!("{}\n\nstderr:\n{}\ncode: {:?}", told.stdout, told.stderr, told.code);
        evened(&said)
    }

    fn compare(&self, ours: &Path, lines: &[&str]) {
        let theirs = reference("etcdctl");
        let differences = lines.iter().filter_map(|line| {
            let (left, right) = (self.said(&theirs, line), self.said(ours, line));
            (left != right).then(|| format!("{line}\n--- theirs\n{left}\n--- ours\n{right}"))
        });
        let differences: Vec<_> = differences.collect();
        let conf = fs::read_to_string(&self.resolv_conf).expect("the file is ours");
        assert!(differences.is_empty(), "{}\nwith\n{conf}", differences.join("\n\n"));
    }

    /// The first servers of some draws among equals, each once.
    fn drawn(&self, program: &Path) -> Vec<String> {
        let first = |_| {
            let said =
                self.said(program, "get k --discovery-srv equal.test --insecure-discovery=false");
            let line = said.lines().find(|it| it.contains("ignoring")).unwrap_or_default();
            line.to_owned()
        };
        let mut drawn: Vec<String> = (0..40).map(first).collect();
        drawn.sort();
        drawn.dedup();
        drawn
    }
}

/// A real etcd with a certificate for `tls.test` alone, in `cert.pem` beside that file.
fn secured(beside: &Path) -> Server {
    let (key, certificate) = (beside.with_file_name("key.pem"), beside.with_file_name("cert.pem"));
    let mut openssl = Command::new("openssl");
    openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]);
    openssl.args(["-nodes", "-days", "2", "-subj", "/CN=etcd"]).arg("-keyout").arg(&key);
    openssl.args(["-addext", "subjectAltName=DNS:tls.test", "-out"]).arg(&certificate);
    openssl.args(["-addext", "basicConstraints=critical,CA:FALSE"]);
    let told = run(openssl, WAIT);
    assert_eq!(told.code, Some(0), "{}", told.stderr);
    let files = [("key-file", &key), ("cert-file", &certificate)];
    let setup = Setup::new(process::etcd());
    let setup =
        files.iter().fold(setup, |it, (flag, path)| it.flag(flag, &path.display().to_string()));
    let mut server = Server::new(setup);
    server.set("listen-client-urls", &server.endpoint().replace("http:", "https:"));
    server.start();
    server
}

/// Runs one test of this program again, in a network that contains no other process.
fn run_inside(test: &str) {
    // Built here: there is no network inside.
    process::basaltctl();
    let scratch = Scratch::new();
    let resolv_conf = scratch.path().join("resolv.conf");
    fs::write(&resolv_conf, ORDINARY).expect("a new file");
    let mut inside = Command::new("unshare");
    if !rustix::process::getuid().is_root() {
        inside.arg("--map-root-user");
    }
    inside.args(["--net", "--mount", "sh", "-ec"]);
    inside.arg(format!(
        "ip link set lo up; mount --bind \"${INSIDE}\" /etc/resolv.conf; exec \"$0\" \"$@\""
    ));
    inside.arg(std::env::current_exe().expect("we are a program"));
    inside.args(["--exact", &format!("discovery::{test}"), "--nocapture"]);
    inside.env(INSIDE, &resolv_conf);
    let told = run(inside, Duration::from_secs(300));
    assert!(
        told.code == Some(0) && told.stdout.contains("1 passed"),
        "{}\n{}",
        told.stdout,
        told.stderr
    );
}

/// The text without ports that the kernel chose, times, and places in memory.
fn evened(text: &str) -> String {
    let marks = [("\"ts\":\"", '"'), ("etcd-endpoints://0x", '/'), ("took = ", '\n')];
    let text = marks.iter().fold(text.to_owned(), |text, (mark, end)| hidden(&text, mark, &[*end]));
    // `read udp 127.0.0.1:40001->127.0.0.1:53`
    let mut parts: Vec<&str> = text.split("->").collect();
    let last = parts.len() - 1;
    for part in &mut parts[..last] {
        *part = part.trim_end_matches(|it: char| it.is_ascii_digit());
    }
    parts.join("->")
}
