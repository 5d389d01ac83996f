//! Clients with certificates of users: by gRPC, and byte for byte for JSON. And the gateway, which knows them if it is asked to.

use std::fs;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Instant;

use gotls::{SkipVerification, Suites, VERSIONS, client_config, key_pair, provider};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use tonic::transport::{Certificate, ClientTlsConfig, Identity};

use super::certificates::{Authority, Pair, Wanted};
use super::{PATIENCE, etcdctl};
use crate::gateway::{Answer, ask_over, connect, framed};
use crate::process::{self, Scratch, Server, Setup};
use crate::wire::Wire;

/// A client with a certificate.
#[derive(Clone)]
pub(crate) struct Holder {
    grpc: ClientTlsConfig,
    json: Arc<ClientConfig>,
}

impl Holder {
    pub(crate) fn new(authority: &Authority, pair: &Pair) -> Self {
        Self::with(&authority.file, pair)
    }

    /// Trusts the authorities in a file.
    pub(crate) fn with(trusted: &str, pair: &Pair) -> Self {
        let [trusted, certificate, key] = [trusted, &pair.certificate, &pair.key]
            .map(|file| fs::read(file).expect("it is there"));
        let own = key_pair(&certificate, &key).expect("they belong together");
        let grpc = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(trusted))
            .identity(Identity::from_pem(certificate, key));
        let suites = Suites::default();
        // The other client verifies the server.
        let verifier = SkipVerification::new(provider(&suites));
        let json = client_config(&suites, VERSIONS, verifier, Some(own), &[]);
        Self { grpc, json: Arc::new(json.expect("suites for all versions")) }
    }

    /// A client by gRPC.
    pub(crate) fn wire(&self, server: &Server) -> Wire {
        self.wire_to(&super::secure_endpoint(server))
    }

    pub(crate) fn wire_to(&self, endpoint: &str) -> Wire {
        Wire::with_tls(endpoint, self.grpc.clone())
    }

    /// The answer to bytes of HTTP/1.
    pub(crate) fn ask(&self, server: &Server, bytes: &[u8], lines: Option<usize>) -> Answer {
        ask_over(self.connect(server), bytes, lines)
    }

    pub(crate) fn connect(&self, server: &Server) -> StreamOwned<ClientConnection, TcpStream> {
        let name = ServerName::try_from("localhost").expect("a name");
        let mut session = ClientConnection::new(Arc::clone(&self.json), name).expect("it begins");
        let mut stream = connect(server);
        let until = Instant::now() + PATIENCE;
        // A read waits for a short time only.
        while session.is_handshaking() && Instant::now() < until {
            match session.complete_io(&mut stream) {
                Err(error) if error.kind() != ErrorKind::WouldBlock => break,
                Ok(_) | Err(_) => (),
            }
        }
        StreamOwned::new(session, stream)
    }
}

/// A server that takes names in certificates for users, and holders of `root`, `alice` and `stranger`. There is no password:
/// root is who has the certificate, and alice may read and write below `a`.
fn served(place: &Scratch, setup: Setup) -> (Server, [Holder; 3]) {
    let authority = Authority::new(place.path(), "ca");
    let named = |name| {
        let wanted = Wanted { common_name: name, ..Wanted::default() };
        authority.issue(&format!("client-{name}"), &wanted)
    };
    let pairs = ["root", "alice", "stranger"].map(named);
    let setup = setup.flag("client-cert-auth", "true").flag("trusted-ca-file", &authority.file);
    let server = super::secured(setup, &authority.issue("server", &Wanted::default()));
    let Pair { certificate, key } = &pairs[0];
    let flags = ["--cacert", &authority.file, "--cert", certificate, "--key", key];
    for arguments in [
        &["user", "add", "root", "--no-password"][..],
        &["user", "add", "alice", "--no-password"],
        &["role", "add", "some"],
        &["role", "grant-permission", "some", "readwrite", "a", "b"],
        &["user", "grant-role", "alice", "some"],
        // Makes the role root.
        &["auth", "enable"],
    ] {
        let told = etcdctl(&super::secure_endpoint(&server), &flags, arguments);
        assert_eq!(told.code, Some(0), "{arguments:?}: {}", told.stderr);
    }
    let holders = pairs.each_ref().map(|pair| Holder::new(&authority, pair));
    (server, holders)
}

/// A put over JSON.
fn put(holder: &Holder, server: &Server, key: &str) -> Answer {
    let body = format!(r#"{{"key":"{key}","value":"eA=="}}"#);
    // In etcd's gateway this header becomes one that hides the certificate.
    let bytes = framed("POST", "/v3/kv/put", "Accept: */*\r\n", body.as_bytes());
    holder.ask(server, &bytes, None)
}

/// `a1`, which alice may write.
const OWN: &str = "YTE=";
/// `x`.
const OTHER: &str = "eA==";

#[test]
fn the_gateway_knows_names_in_certificates_if_it_is_asked_to() {
    let place = Scratch::new();
    let setup = Setup::new(process::basalt()).flag("gateway-client-cert-auth", "true");
    let (server, [root, alice, stranger]) = served(&place, setup);
    for (holder, key, status) in
        [(&root, OTHER, 200), (&alice, OWN, 200), (&alice, OTHER, 403), (&stranger, OWN, 403)]
    {
        let answer = put(holder, &server, key);
        let is_it = answer.status.contains(&format!(" {status} "));
        assert!(is_it, "{key}: {} {}", answer.status, answer.body);
    }
    // A token counts before the certificate.
    let header = "Authorization: nonsense\r\n";
    let bytes = framed("POST", "/v3/kv/range", header, br#"{"key":"YTE="}"#);
    let refused = alice.ask(&server, &bytes, None);
    assert!(refused.body.contains("invalid auth token"), "{refused:?}");
    // Over a websocket, too.
    for (holder, expected) in [(&alice, r#""created":true"#), (&stranger, "permission denied")] {
        let told = watched(holder, &server);
        assert!(told.contains("101 Switching Protocols"), "{told}");
        assert!(told.contains(expected), "{expected}: {told}");
    }
}

/// The beginning of a watch of `a1` over a websocket.
fn watched(holder: &Holder, server: &Server) -> String {
    let mut stream = holder.connect(server);
    let head = "GET /v3/watch HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\n\
                Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n";
    stream.write_all(head.as_bytes()).expect("sent");
    let message = br#"{"create_request":{"key":"YTE="}}"#;
    // A text frame, masked with zeros.
    let length = u8::try_from(message.len()).expect("it is short");
    let mut frame = vec![0x81, 0x80 | length, 0, 0, 0, 0];
    frame.extend_from_slice(message);
    stream.write_all(&frame).expect("sent");
    let until = std::time::Instant::now() + PATIENCE;
    let mut told = String::new();
    while !told.contains("created") && std::time::Instant::now() < until {
        let mut piece = [0; 4096];
        match stream.read(&mut piece) {
            Ok(length) if length > 0 => {
                told.push_str(&String::from_utf8_lossy(&piece[..length]));
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => (),
            Ok(_) | Err(_) => break,
        }
    }
    told
}

/// As by etcd, whatever the request.
#[test]
fn the_gateway_refuses_names_in_certificates_otherwise() {
    let refusal = "CommonName of client sending a request against gateway will be ignored and not used as expected";
    for binary in [process::etcd(), process::basalt()] {
        let place = Scratch::new();
        let (server, [root, alice, _]) = served(&place, Setup::new(binary));
        for holder in [&root, &alice] {
            let refused = put(holder, &server, OWN);
            assert!(refused.status.contains(" 400 "), "{refused:?}");
            assert_eq!(refused.body.trim_end(), refusal);
        }
        let health = framed("GET", "/health", "", b"");
        assert!(root.ask(&server, &health, None).status.contains(" 200 "));
    }
}

/// CVE-2018-16886: etcd's gateway is a client of its own server, with the server's certificate.
#[test]
fn the_name_in_the_servers_certificate_is_nobodys() {
    let empty = "user name is empty";
    for binary in [process::etcd(), process::basalt()] {
        let is_etcd = process::is_etcd(&binary);
        let place = Scratch::new();
        let authority = Authority::new(place.path(), "ca");
        let named = |file: &str, common_name| {
            let pair = authority.issue(file, &Wanted { common_name, ..Wanted::default() });
            Holder::new(&authority, &pair)
        };
        let (nameless, root) = (named("nameless", ""), named("root", "root"));
        let wanted = Wanted { common_name: "root", ..Wanted::default() };
        let pair = authority.issue("server", &wanted);
        let setup = Setup::new(binary).flag("client-cert-auth", "true");
        let server = super::secured(setup.flag("trusted-ca-file", &authority.file), &pair);
        let flags = ["--cacert", &authority.file, "--cert", &pair.certificate, "--key", &pair.key];
        for arguments in [&["user", "add", "root", "--no-password"][..], &["auth", "enable"]] {
            let told = etcdctl(&super::secure_endpoint(&server), &flags, arguments);
            assert_eq!(told.code, Some(0), "{arguments:?}: {}", told.stderr);
        }
        let refused = put(&nameless, &server, OWN);
        assert!(refused.body.contains(empty), "{refused:?}");
        // Without the header etcd 3.7.1 takes the server for the client.
        let bytes = framed("POST", "/v3/kv/put", "", br#"{"key":"YTE="}"#);
        let answer = nameless.ask(&server, &bytes, None);
        assert_eq!(answer.body.contains(empty), !is_etcd, "{answer:?}");
        // A client that sends what etcd's gateway adds is taken for the gateway.
        crate::compare::runtime().block_on(async {
            let wire = root.wire(&server);
            wire.put("a1", "x").await.expect("root may");
            let wire = wire.with_metadata("grpcgateway-accept", "*/*");
            let refused = wire.put("a1", "x").await.expect_err("nobody may");
            assert!(refused.message().contains(empty), "{refused:?}");
        });
    }
}

#[test]
fn the_audit_log_names_the_certificate() {
    let place = Scratch::new();
    let path = place.path().join("audit.log");
    let setup = Setup::new(process::basalt())
        .flag("gateway-client-cert-auth", "true")
        .flag("audit-log-path", &path.display().to_string());
    let (server, [_, alice, stranger]) = served(&place, setup);
    crate::compare::runtime().block_on(async {
        alice.wire(&server).put("a1", "x").await.expect("she may");
        stranger.wire(&server).put("a1", "x").await.expect_err("nobody may");
    });
    assert!(put(&alice, &server, OTHER).status.contains(" 403 "));
    let fingerprint = |name: &str| {
        let file = place.path().join(format!("client-{name}.crt"));
        let mut openssl = std::process::Command::new("openssl");
        openssl.args(["x509", "-noout", "-fingerprint", "-sha256", "-in"]).arg(file);
        let told = process::run(openssl, PATIENCE).stdout;
        let (_, hex) = told.trim().split_once('=').expect("a fingerprint");
        hex.replace(':', "").to_lowercase()
    };
    let until = std::time::Instant::now() + PATIENCE;
    for (user, key, code) in [
        ("alice", "a1", "OK"),
        ("stranger", "a1", "PermissionDenied"),
        ("alice", "x", "PermissionDenied"),
    ] {
        let found = loop {
            let text = fs::read_to_string(&path).unwrap_or_default();
            let mut lines = text.lines().map(|line| {
                serde_json::from_str::<serde_json::Value>(line).expect("a line of JSON")
            });
            let found = lines
                .find(|line| line["user"] == user && line["key"] == key && line["code"] == code);
            if let Some(found) = found {
                break found;
            }
            assert!(std::time::Instant::now() < until, "{user} {key} {code}\n{text}");
            std::thread::sleep(std::time::Duration::from_millis(10));
        };
        assert_eq!(found["source"], "certificate", "{found}");
        assert_eq!(found["certificate"], fingerprint(user), "{found}");
    }
}
