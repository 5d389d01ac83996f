//! TLS: real clients, members among themselves, certificates that change, and those that are refused.

pub(crate) mod certificates;
mod clients;
pub(crate) mod identities;
mod members;
mod promotion;
mod refusals;
mod reload;

use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use self::certificates::{Authority, Pair, Wanted};
use crate::process::{self, Finished, PATIENCE, Scratch, Server, Setup, reference, run};

/// A server that listens for clients with TLS at its own port, with more flags.
pub(crate) fn secured(setup: Setup, pair: &Pair) -> Server {
    let setup = setup.flag("cert-file", &pair.certificate).flag("key-file", &pair.key);
    let mut server = Server::new(setup);
    let url = secure_endpoint(&server);
    server.set("listen-client-urls", &url);
    server.start();
    server
}

fn secure_endpoint(server: &Server) -> String {
    format!("https://127.0.0.1:{}", server.port)
}

/// A client program of etcd's kind, over TLS.
fn ask(program: PathBuf, endpoint: &str, flags: &[&str], arguments: &[&str]) -> Finished {
    let mut command = Command::new(program);
    command.args(["--endpoints", endpoint, "--command-timeout=5s"]).args(flags).args(arguments);
    run(command, PATIENCE)
}

fn etcdctl(endpoint: &str, flags: &[&str], arguments: &[&str]) -> Finished {
    ask(reference("etcdctl"), endpoint, flags, arguments)
}

fn assert_told(told: &Finished, text: &str, server: &Server) {
    let tail = || server.logs.tail();
    assert_eq!(told.code, Some(0), "{}\n{}\n{}", told.stdout, told.stderr, tail());
    assert!(told.stdout.contains(text), "{}\n{}", told.stdout, told.stderr);
}

/// The output of curl.
fn curl(arguments: &[&str]) -> Finished {
    let mut command = Command::new("curl");
    command.args(["-s", "--max-time", "20"]).args(arguments);
    run(command, PATIENCE)
}

fn joined<'a>(first: &[&'a str], second: &[&'a str]) -> Vec<&'a str> {
    [first, second].concat()
}

#[test]
fn clients_with_certificates_are_served_and_others_are_not() {
    let place = Scratch::new();
    let authority = Authority::new(place.path(), "ca");
    let server_pair = authority.issue("server", &Wanted::default());
    let client = authority.issue("client", &Wanted { common_name: "root", ..Wanted::default() });
    let setup = Setup::new(process::basalt())
        .flag("client-cert-auth", "true")
        .flag("trusted-ca-file", &authority.file);
    let server = secured(setup, &server_pair);
    let endpoint = secure_endpoint(&server);
    let (cacert, cert, key) = (&*authority.file, &*client.certificate, &*client.key);
    let flags = ["--cacert", cacert, "--cert", cert, "--key", key];
    for program in [reference("etcdctl"), process::basaltctl()] {
        assert_told(&ask(program.clone(), &endpoint, &flags, &["put", "a", "b"]), "OK", &server);
        assert_told(&ask(program.clone(), &endpoint, &flags, &["get", "a"]), "b", &server);
        let refused = ask(program, &endpoint, &flags[..2], &["get", "a"]);
        assert_eq!(refused.code, Some(1), "{}", refused.stdout);
    }
    assert!(server.logs.wait_for("tls: client didn't provide a certificate", PATIENCE));
    assert!(server.logs.wait_for("rejected connection on client endpoint", PATIENCE));
    // A large value crosses the bounds of records both ways.
    let large = "x".repeat(1_000_000);
    let file = place.path().join("large");
    std::fs::write(&file, &large).expect("it is written");
    let mut put = Command::new("sh");
    put.arg("-c").arg(format!(
        "{} --endpoints {endpoint} {} put large < {}",
        reference("etcdctl").display(),
        flags.join(" "),
        file.display()
    ));
    assert_told(&run(put, PATIENCE), "OK", &server);
    let read = etcdctl(&endpoint, &flags, &["get", "large", "--print-value-only"]);
    assert_eq!(read.stdout.trim_end().len(), large.len());
    // HTTP in both versions, with and without ALPN.
    for version in
        [&["--http1.1"][..], &["--http2"], &["--no-alpn"], &["--tlsv1.2", "--tls-max", "1.2"]]
    {
        let url = format!("{endpoint}/health");
        let with = ["--cacert", cacert, "--cert", cert, "--key", key, &url];
        let told = curl(&[version, &with[..]].concat());
        assert!(told.stdout.contains("\"health\":\"true\""), "{version:?}: {}", told.stdout);
    }
    let put = format!("{endpoint}/v3/kv/put");
    let body = r#"{"key":"anNvbg==","value":"MQ=="}"#;
    let with = ["--cacert", cacert, "--cert", cert, "--key", key, "-d", body, &put];
    assert!(curl(&with).stdout.contains("revision"), "JSON over TLS");
}

#[test]
fn the_python_client_is_served_with_its_certificate() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = root.join("target/python/bin/python");
    assert!(python.exists(), "{} is missing: run tools/setup", python.display());
    let place = Scratch::new();
    let authority = Authority::new(place.path(), "ca");
    let pair = authority.issue("server", &Wanted::default());
    let setup = Setup::new(process::basalt()).flag("trusted-ca-file", &authority.file);
    let server = secured(setup, &pair);
    let mut client = Command::new(python);
    client.arg(root.join("tests/clients/python/tls.py")).arg(server.port.to_string());
    client.args([&authority.file, &pair.certificate, &pair.key]);
    assert_told(&run(client, PATIENCE), "over TLS", &server);
}

#[test]
fn one_port_serves_with_tls_and_without() {
    let place = Scratch::new();
    let authority = Authority::new(place.path(), "ca");
    let pair = authority.issue("server", &Wanted::default());
    let setup = Setup::new(process::basalt())
        .flag("cert-file", &pair.certificate)
        .flag("key-file", &pair.key);
    let mut server = Server::new(setup);
    let (plain, secure) = (server.endpoint(), secure_endpoint(&server));
    server.set("listen-client-urls", &format!("{plain},{secure}"));
    server.start();
    assert_told(&etcdctl(&plain, &[], &["put", "a", "b"]), "OK", &server);
    assert_told(&etcdctl(&secure, &["--cacert", &authority.file], &["get", "a"]), "b", &server);
    assert!(curl(&[&format!("{plain}/health")]).stdout.contains("true"));
    assert!(
        curl(&["--cacert", &authority.file, &format!("{secure}/health")]).stdout.contains("true")
    );
}

#[test]
fn every_kind_of_port_speaks_tls() {
    let place = Scratch::new();
    let authority = Authority::new(place.path(), "ca");
    let pair = authority.issue("server", &Wanted::default());
    let (http, metrics) = (crate::ports::free(), crate::ports::free());
    let (http, metrics) =
        (format!("https://127.0.0.1:{http}"), format!("https://127.0.0.1:{metrics}"));
    let socket = place.path().join("localhost:1");
    let unix = format!("unixs://{}", socket.display());
    let setup = Setup::new(process::basalt())
        .flag("cert-file", &pair.certificate)
        .flag("key-file", &pair.key)
        .flag("trusted-ca-file", &authority.file)
        .flag("listen-client-http-urls", &http)
        .flag("listen-metrics-urls", &metrics);
    let mut server = Server::new(setup);
    let endpoint = secure_endpoint(&server);
    server.set("listen-client-urls", &format!("{endpoint},{unix}"));
    server.start();
    let flags = ["--cacert", &authority.file, "--cert", &pair.certificate, "--key", &pair.key];
    assert_told(&etcdctl(&endpoint, &flags, &["put", "a", "b"]), "OK", &server);
    for program in [reference("etcdctl"), process::basaltctl()] {
        assert_told(&ask(program, &unix, &flags, &["get", "a"]), "b", &server);
    }
    for url in [&http, &metrics] {
        let told = curl(&joined(&flags, &[&format!("{url}/health")]));
        assert!(told.stdout.contains("\"health\":\"true\""), "{url}: {}", told.stdout);
        let without = curl(&["--cacert", &authority.file, &format!("{url}/health")]);
        assert_ne!(without.code, Some(0), "{url} demands a certificate: {}", without.stdout);
    }
    let told = curl(&joined(&flags, &[&format!("{metrics}/metrics")])).stdout;
    for role in ["server", "client"] {
        let name = "basalt_tls_certificate_not_after_seconds";
        let end = metric(&told, &format!("{name}{{kind=\"client\",role=\"{role}\"}}"));
        assert_eq!(end, Some(4_070_908_800.0), "{role}: {told}");
    }
}

/// The value of a metric with its labels.
fn metric(page: &str, name: &str) -> Option<f64> {
    let line = page.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().parse().ok()
}

#[test]
fn a_member_makes_a_certificate_for_itself() {
    let setup = Setup::new(process::basalt()).flag("auto-tls", "true");
    let mut server = Server::new(setup);
    let endpoint = secure_endpoint(&server);
    server.set("listen-client-urls", &endpoint);
    server.start();
    let dir = server.data_dir().join("fixtures/client");
    let made = dir.join("cert.pem").display().to_string();
    assert_eq!(std::fs::metadata(dir.join("key.pem")).expect("a key").mode() & 0o777, 0o600);
    assert_eq!(std::fs::metadata(&dir).expect("a directory").mode() & 0o777, 0o700);
    for program in [reference("etcdctl"), process::basaltctl()] {
        for flags in [
            &["--cacert", &*made][..],
            &["--insecure-skip-tls-verify", "--insecure-transport=false"],
        ] {
            assert_told(&ask(program.clone(), &endpoint, flags, &["put", "a", "b"]), "OK", &server);
        }
        let refused = ask(program, &endpoint, &[], &["get", "a"]);
        assert_eq!(refused.code, Some(1), "nobody else trusts it: {}", refused.stdout);
    }
    let before = std::fs::read(&made).expect("it is there");
    server.kill();
    server.start();
    assert_eq!(std::fs::read(&made).expect("it is there"), before, "it is kept");
}

/// etcd makes its certificates on P-521.
#[test]
fn our_client_reaches_an_etcd_that_made_its_certificate() {
    let setup = Setup::new(process::etcd()).flag("auto-tls", "true");
    let mut server = Server::new(setup);
    let endpoint = secure_endpoint(&server);
    server.set("listen-client-urls", &endpoint);
    server.start();
    let made = server.data_dir().join("fixtures/client/cert.pem").display().to_string();
    for flags in
        [&["--cacert", &*made][..], &["--insecure-skip-tls-verify", "--insecure-transport=false"]]
    {
        let told = ask(process::basaltctl(), &endpoint, flags, &["put", "a", "b"]);
        assert_told(&told, "OK", &server);
    }
}

/// The default output of `openssl req -x509` is its own authority, which etcdctl accepts.
#[test]
fn a_certificate_that_signed_itself_is_trusted_where_it_is_named() {
    let place = Scratch::new();
    let path = |name: &str| place.path().join(name).display().to_string();
    let (certificate, key) = (path("self.crt"), path("self.key"));
    let mut openssl = Command::new("openssl");
    openssl
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=root"]);
    openssl.args(["-addext", "subjectAltName=IP:127.0.0.1", "-out", &certificate, "-keyout", &key]);
    assert_eq!(run(openssl, PATIENCE).code, Some(0));
    let pair = Pair { certificate, key };
    // It is authority, server and client at once.
    let setup = Setup::new(process::basalt())
        .flag("client-cert-auth", "true")
        .flag("trusted-ca-file", &pair.certificate);
    let server = secured(setup, &pair);
    let flags = ["--cacert", &pair.certificate, "--cert", &pair.certificate, "--key", &pair.key];
    for program in [reference("etcdctl"), process::basaltctl()] {
        let told = ask(program, &secure_endpoint(&server), &flags, &["put", "a", "b"]);
        assert_told(&told, "OK", &server);
    }
}

/// The flags of kubeadm's manifest, with certificates as it makes them: RSA, and usages of their own for each.
#[test]
fn the_flags_of_kubeadm_are_served() {
    let place = Scratch::new();
    let dir = place.path();
    let script = format!(
        r#"set -e; cd {dir}
        openssl req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.crt -days 3650 -subj /CN=etcd-ca
        issue() {{
          openssl req -newkey rsa:2048 -nodes -keyout $1.key -out $1.csr -subj "$2"
          printf 'keyUsage=critical,digitalSignature,keyEncipherment\nbasicConstraints=critical,CA:FALSE\nextendedKeyUsage=%s\n' $3 > $1.ext
          [ -z "$4" ] || echo "subjectAltName=$4" >> $1.ext
          openssl x509 -req -in $1.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 365 -extfile $1.ext -out $1.crt
        }}
        sans=DNS:localhost,DNS:control-plane,IP:127.0.0.1,IP:0:0:0:0:0:0:0:1
        issue server /CN=control-plane serverAuth,clientAuth $sans
        issue peer /CN=control-plane serverAuth,clientAuth $sans
        issue healthcheck-client /O=system:masters/CN=kube-etcd-healthcheck-client clientAuth
        issue apiserver-etcd-client /O=system:masters/CN=kube-apiserver-etcd-client clientAuth"#,
        dir = dir.display()
    );
    let mut shell = Command::new("bash");
    shell.args(["-c", &script]);
    let made = run(shell, PATIENCE);
    assert_eq!(made.code, Some(0), "{}", made.stderr);
    let path = |name: &str| dir.join(name).display().to_string();
    let mut server = Server::new(Setup::new(process::basalt()));
    let (client_url, metrics) = (secure_endpoint(&server), crate::ports::free());
    let peer_url = format!("https://127.0.0.1:{}", server.peer_port);
    for (name, value) in [
        ("name", "control-plane"),
        ("advertise-client-urls", &client_url),
        ("cert-file", &path("server.crt")),
        ("client-cert-auth", "true"),
        ("feature-gates", "InitialCorruptCheck=true"),
        ("initial-advertise-peer-urls", &peer_url),
        ("initial-cluster", &format!("control-plane={peer_url}")),
        ("key-file", &path("server.key")),
        ("listen-client-urls", &client_url),
        ("listen-metrics-urls", &format!("http://127.0.0.1:{metrics}")),
        ("listen-peer-urls", &peer_url),
        ("peer-cert-file", &path("peer.crt")),
        ("peer-client-cert-auth", "true"),
        ("peer-key-file", &path("peer.key")),
        ("peer-trusted-ca-file", &path("ca.crt")),
        ("snapshot-count", "10000"),
        ("trusted-ca-file", &path("ca.crt")),
        ("watch-progress-notify-interval", "5s"),
    ] {
        server.set(name, value);
    }
    server.start();
    for client in ["healthcheck-client", "apiserver-etcd-client"] {
        let (cert, key) = (path(&format!("{client}.crt")), path(&format!("{client}.key")));
        let flags = ["--cacert", &path("ca.crt"), "--cert", &cert, "--key", &key];
        assert_told(&etcdctl(&client_url, &flags, &["put", client, "x"]), "OK", &server);
        let health = etcdctl(&client_url, &flags, &["endpoint", "health"]);
        assert!(health.stdout.contains("is healthy"), "{}{}", health.stdout, health.stderr);
    }
    let probe = curl(&[&format!("http://127.0.0.1:{metrics}/readyz")]);
    assert_eq!(probe.stdout, "ok");
}

#[test]
fn suites_and_versions_are_chosen_as_in_go() {
    let place = Scratch::new();
    let authority = Authority::new(place.path(), "ca");
    let pair = authority.issue("server", &Wanted::default());
    let suites = "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,TLS_RSA_WITH_AES_128_GCM_SHA256";
    let setup = Setup::new(process::basalt())
        .flag("cipher-suites", suites)
        .flag("tls-max-version", "TLS1.2");
    let server = secured(setup, &pair);
    let url = format!("{}/version", secure_endpoint(&server));
    let with = |more: &[&str]| {
        let told = curl(&joined(&["-v", "--cacert", &authority.file, &url], more));
        (told.code, told.stderr)
    };
    let (code, told) = with(&[]);
    assert_eq!(code, Some(0), "{told}");
    assert!(told.contains("TLSv1.2 / ECDHE-ECDSA-AES256-GCM-SHA384"), "{told}");
    let (code, told) = with(&["--ciphers", "ECDHE-ECDSA-AES128-GCM-SHA256"]);
    assert_ne!(code, Some(0), "{told}");
    let (code, told) = with(&["--tlsv1.3"]);
    assert_ne!(code, Some(0), "{told}");
    assert!(
        server
            .logs
            .wait_for("cipher suites that this version does not offer are skipped", PATIENCE)
    );
}

/// Each port closes connections that say nothing, and those that begin a handshake and go on no further.
#[test]
fn silent_connections_are_closed_on_every_port() {
    use std::io::{Read as _, Write as _};
    let place = Scratch::new();
    let authority = Authority::new(place.path(), "ca");
    let pair = authority.issue("server", &Wanted::default());
    let (http, metrics) = (crate::ports::free(), crate::ports::free());
    let setup = Setup::new(process::basalt())
        .flag("cert-file", &pair.certificate)
        .flag("key-file", &pair.key)
        .flag("peer-cert-file", &pair.certificate)
        .flag("peer-key-file", &pair.key)
        .flag("listen-client-http-urls", &format!("https://127.0.0.1:{http}"))
        .flag("listen-metrics-urls", &format!("https://127.0.0.1:{metrics}"));
    let mut server = Server::new(setup);
    let (both, peers) = (server.port, server.peer_port);
    server.set("listen-client-urls", &format!("https://127.0.0.1:{both},http://127.0.0.1:{both}"));
    server.set("listen-peer-urls", &format!("https://127.0.0.1:{peers}"));
    server.start();
    let began = std::time::Instant::now();
    let mut open = Vec::new();
    for port in [both, http, metrics, peers] {
        for begin in [&[][..], &[0x16], &[0x16, 3, 1, 2, 0, 1]] {
            let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).expect("it listens");
            stream.write_all(begin).expect("it takes bytes");
            open.push((port, stream));
        }
    }
    for (port, mut stream) in open {
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a time is set");
        let read = stream.read(&mut [0; 64]);
        let is_closed =
            |error: &std::io::Error| error.kind() == std::io::ErrorKind::ConnectionReset;
        assert!(
            read.as_ref().is_ok_and(|count| *count == 0) || read.as_ref().is_err_and(is_closed),
            "{port}: {read:?}"
        );
    }
    let took = began.elapsed();
    assert!(took > Duration::from_secs(9), "a client may be slow: {took:?}");
    assert!(took < Duration::from_secs(18), "{took:?}");
    let told =
        etcdctl(&secure_endpoint(&server), &["--cacert", &authority.file], &["put", "a", "b"]);
    assert_told(&told, "OK", &server);
}
