//! Certificates that are replaced, revoked, or name one member alone.

use std::fs;
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

use gotls::{SkipVerification, Suites, VERSIONS, client_config, provider};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{CipherSuite, ClientConfig, ClientConnection, SupportedProtocolVersion};

use super::PATIENCE;
use crate::cluster::members::Members;
use crate::compare::runtime;
use crate::gateway::connect;
use crate::ports;
use crate::process::{self, Scratch, Server, Setup, reference, run};
use crate::tls::certificates::{Authority, Pair, Wanted, replace};
use crate::tls::identities::Holder;

/// The certificate that a server shows whoever asks for this name; for an address the name is not told.
fn shown(server: &Server, name: &str) -> Vec<u8> {
    let suites = Suites::default();
    let verifier = SkipVerification::new(provider(&suites));
    let config = client_config(&suites, VERSIONS, verifier, None, &[]).expect("for all versions");
    let name = ServerName::try_from(name.to_owned()).expect("a name");
    let mut session = ClientConnection::new(Arc::new(config), name).expect("it begins");
    let mut stream = connect(server);
    stream.set_read_timeout(Some(PATIENCE)).expect("a time");
    while session.peer_certificates().is_none() {
        session.complete_io(&mut stream).expect("a handshake");
    }
    session.peer_certificates().expect("it is there")[0].to_vec()
}

/// The suite that a server chooses for a client that names the suites of a version in this order.
fn chosen(
    server: &Server,
    version: &'static SupportedProtocolVersion,
    order: &[CipherSuite],
) -> Option<CipherSuite> {
    let mut offered = provider(&Suites::default()).as_ref().clone();
    let place = |it: CipherSuite| order.iter().position(|other| *other == it);
    offered.cipher_suites.retain(|suite| place(suite.suite()).is_some());
    offered.cipher_suites.sort_by_key(|suite| place(suite.suite()));
    let offered = Arc::new(offered);
    let config = ClientConfig::builder_with_provider(Arc::clone(&offered))
        .with_protocol_versions(&[version])
        .expect("suites of it")
        .dangerous()
        .with_custom_certificate_verifier(SkipVerification::new(offered))
        .with_no_client_auth();
    let name = ServerName::try_from("localhost").expect("a name");
    let mut session = ClientConnection::new(Arc::new(config), name).expect("it begins");
    let mut stream = connect(server);
    stream.set_read_timeout(Some(PATIENCE)).expect("a time");
    session.complete_io(&mut stream).expect("a handshake");
    session.negotiated_cipher_suite().map(|it| it.suite())
}

/// Go's servers choose by their own order: OpenSSL's clients name the dearer suite first.
#[test]
fn the_suite_is_the_servers_choice() {
    use CipherSuite as Is;
    let place = Scratch::new();
    let pair = Authority::new(place.path(), "ca").issue("server", &Wanted::default());
    let orders: [(_, &[Is]); 3] = [
        (&TLS13, &[Is::TLS13_AES_256_GCM_SHA384, Is::TLS13_AES_128_GCM_SHA256]),
        (&TLS13, &[Is::TLS13_AES_256_GCM_SHA384, Is::TLS13_CHACHA20_POLY1305_SHA256]),
        (
            &TLS12,
            &[
                Is::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
                Is::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
            ],
        ),
    ];
    let [ours, etcds] = [process::basalt(), process::etcd()].map(|binary| {
        let server = secured(Setup::new(binary), &pair);
        orders.map(|(version, order)| chosen(&server, version, order))
    });
    assert_eq!(ours, etcds);
    assert_eq!(ours[0], Some(Is::TLS13_AES_128_GCM_SHA256));
}

fn held(pair: &Pair) -> Vec<u8> {
    CertificateDer::from_pem_file(&pair.certificate).expect("a certificate").to_vec()
}

fn secured(setup: Setup, pair: &Pair) -> Server {
    let mut server =
        Server::new(setup.flag("cert-file", &pair.certificate).flag("key-file", &pair.key));
    let url = format!("https://127.0.0.1:{}", server.port);
    server.set("listen-client-urls", &url);
    server.start();
    server
}

/// etcd-io/etcd#9541, #7576: a client that asks for no name got the first certificate for ever.
#[test]
fn a_replaced_certificate_is_shown_by_address_and_by_name() {
    let place = Scratch::new();
    let authority = Authority::new(place.path(), "ca");
    for (number, binary) in [process::basalt(), process::etcd()].into_iter().enumerate() {
        // With names, and with an address alone.
        for hosts in [&["localhost", "127.0.0.1"][..], &["127.0.0.1"]] {
            let name = format!("server-{number}-{}", hosts.len());
            let pair = authority.issue(&name, &Wanted { hosts, ..Wanted::default() });
            let server = secured(Setup::new(binary.clone()), &pair);
            let first = held(&pair);
            assert_eq!(shown(&server, "localhost"), first);
            assert_eq!(shown(&server, "127.0.0.1"), first);
            let (certificate, key) =
                authority.texts(&Wanted { hosts, serial: 2000, ..Wanted::default() });
            replace(&pair.certificate, certificate);
            replace(&pair.key, key);
            let second = held(&pair);
            std::thread::sleep(std::time::Duration::from_secs(1));
            assert_eq!(shown(&server, "127.0.0.1"), second, "by address");
            assert_eq!(shown(&server, "localhost"), second, "by name");
        }
    }
}

/// PR 22021, GHSA-3wh4-j44w-pg92: each kind of port refuses a revoked certificate.
#[test]
fn a_revoked_certificate_is_refused_on_every_kind_of_port() {
    let place = Scratch::new();
    let authority = Authority::new(place.path(), "ca");
    let pair = authority.issue("server", &Wanted::default());
    let good = authority.issue("good", &Wanted { serial: 5, ..Wanted::default() });
    let revoked = authority.issue("revoked", &Wanted { serial: 6, ..Wanted::default() });
    let list = place.path().join("list.crl");
    fs::write(&list, authority.revoke(&[6])).expect("it is written");
    let list = list.display().to_string();
    for binary in [process::basalt(), process::etcd()] {
        let [http, metrics, peers] = [ports::free(), ports::free(), ports::free()];
        let url = |port: u16| format!("https://127.0.0.1:{port}");
        let setup = Setup::new(binary)
            .flag("trusted-ca-file", &authority.file)
            .flag("client-crl-file", &list)
            .flag("peer-cert-file", &pair.certificate)
            .flag("peer-key-file", &pair.key)
            .flag("peer-trusted-ca-file", &authority.file)
            .flag("peer-crl-file", &list)
            .flag("listen-peer-urls", &url(peers))
            .flag("listen-metrics-urls", &url(metrics));
        let split = secured(setup.clone().flag("listen-client-http-urls", &url(http)), &pair);
        let page = |port: u16, path: &str, pair: &Pair| {
            let mut curl = Command::new("curl");
            curl.args(["-sf", "--http1.1", "--max-time", "20", "--cacert", &authority.file]);
            curl.args(["--cert", &pair.certificate, "--key", &pair.key]);
            curl.arg(format!("{}{path}", url(port)));
            run(curl, PATIENCE).code == Some(0)
        };
        let grpc = |server: &Server, pair: &Pair| {
            let holder = Holder::new(&authority, pair);
            runtime().block_on(async { holder.wire(server).put("a", "b").await.is_ok() })
        };
        assert!(grpc(&split, &good) && !grpc(&split, &revoked), "gRPC, split");
        for (port, path) in [(http, "/health"), (metrics, "/health"), (peers, "/version")] {
            assert!(page(port, path, &good), "{path} {port}\n{}", split.logs.tail());
            assert!(!page(port, path, &revoked), "{path} {port}");
        }
        drop(split);
        let mixed = secured(setup, &pair);
        assert!(grpc(&mixed, &good) && !grpc(&mixed, &revoked), "gRPC, mixed");
        assert!(page(mixed.port, "/health", &good) && !page(mixed.port, "/health", &revoked));
        let said = "transport: certificate serial 06 revoked";
        assert!(mixed.logs.wait_for(said, PATIENCE), "{}", mixed.logs.tail());
    }
}

/// kubernetes/kubernetes#83028: a client checked the second member's certificate for the first one's name.
#[test]
fn each_members_certificate_is_checked_for_its_own_address() {
    let place = Scratch::new();
    let authority = Authority::new(place.path(), "ca");
    let urls = [1, 2, 3].map(|number| format!("https://127.0.0.{number}:{}", ports::free()));
    let setups = urls.iter().enumerate().map(|(at, url)| {
        let host = format!("127.0.0.{}", at + 1);
        let wanted = Wanted { hosts: &[&host], ..Wanted::default() };
        let pair = authority.issue(&format!("server-{at}"), &wanted);
        Setup::new(process::basalt())
            .flag("cert-file", &pair.certificate)
            .flag("key-file", &pair.key)
            .flag("heartbeat-interval", "100")
            .flag("election-timeout", "1000")
            .flag("listen-client-urls", url)
    });
    runtime().block_on(async {
        let mut members = Members::found_with(setups);
        let ctl = |endpoints: &str, arguments: &[&str]| {
            for program in [reference("etcdctl"), process::basaltctl()] {
                let until = Instant::now() + PATIENCE;
                loop {
                    let mut command = Command::new(&program);
                    command.args(["--endpoints", endpoints, "--cacert", &authority.file]);
                    command.args(arguments);
                    let told = run(command, PATIENCE);
                    if told.code == Some(0) {
                        break;
                    }
                    // A write to a leader that was killed is lost, but none is refused for a name.
                    let is_named = told.stderr.contains("x509");
                    assert!(!is_named && Instant::now() < until, "{endpoints}: {}", told.stderr);
                }
            }
        };
        ctl(&urls.join(","), &["put", "a", "1"]);
        members.0[0].kill();
        ctl(&urls.join(","), &["put", "a", "2"]);
        ctl(&urls[2], &["put", "a", "3"]);
        // Neither is known by the address of another one.
        let wrong = urls[2].replace("127.0.0.3", "localhost");
        let mut command = Command::new(process::basaltctl());
        command.args(["--endpoints", &wrong, "--cacert", &authority.file, "get", "a"]);
        command.args(["--command-timeout", "2s"]);
        assert_ne!(run(command, PATIENCE).code, Some(0));
    });
}
