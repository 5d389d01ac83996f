//! Certificates that are refused: the same words in the log and the same alert as with a real etcd; and flags that do not
//! fit together.

use rcgen::ExtendedKeyUsagePurpose;

use super::certificates::{Authority, BOTH, Pair, Wanted};
use super::{PATIENCE, curl, secure_endpoint, secured};
use crate::process::{self, Scratch, Server, Setup};

/// A client, and its refusal.
struct Case {
    name: &'static str,
    pair: Option<Pair>,
    /// The log text of etcd 3.7.1, without times.
    logged: &'static str,
}

fn cases(place: &Scratch) -> (Authority, Vec<Case>) {
    let authority = Authority::new(place.path(), "ca");
    let other = Authority::new(place.path(), "other");
    let server_only = [ExtendedKeyUsagePurpose::ServerAuth];
    let issue = |name, wanted: Wanted<'_>| Some(authority.issue(name, &wanted));
    let foreign = Some(other.issue("foreign", &Wanted::default()));
    let case = |name, pair, logged| Case { name, pair, logged };
    let cases = vec![
        case("none", None, "tls: client didn't provide a certificate"),
        case(
            "unknown",
            foreign,
            "tls: failed to verify certificate: x509: certificate signed by unknown authority",
        ),
        case(
            "expired",
            issue("expired", Wanted { last_year: 2021, ..Wanted::default() }),
            "tls: failed to verify certificate: x509: certificate has expired or is not yet valid: current time ",
        ),
        case(
            "usage",
            issue("usage", Wanted { usages: &server_only, ..Wanted::default() }),
            "tls: failed to verify certificate: x509: certificate specifies an incompatible key usage",
        ),
        case(
            "revoked",
            issue("revoked", Wanted { serial: 0xabc, usages: BOTH, ..Wanted::default() }),
            "transport: certificate serial 0abc revoked",
        ),
    ];
    (authority, cases)
}

/// The alert that curl reports when it is refused.
fn refused(server: &Server, authority: &Authority, case: &Case) -> String {
    let url = format!("{}/health", secure_endpoint(server));
    let mut arguments = vec!["-v", "--http1.1", "--cacert", &authority.file, &url];
    if let Some(pair) = &case.pair {
        arguments.extend(["--cert", &*pair.certificate, "--key", &*pair.key]);
    }
    let told = curl(&arguments);
    assert_ne!(told.code, Some(0), "{} is let in: {}", case.name, told.stdout);
    let alert =
        told.stderr.lines().filter(|line| line.contains("alert,") || line.contains("alert "));
    let alert = alert.filter(|line| line.contains("(IN)") || line.contains("alert "));
    let mut alerts: Vec<_> = alert.map(|line| line.trim_start_matches("* ").to_owned()).collect();
    alerts.dedup();
    alerts.first().cloned().unwrap_or_default()
}

#[test]
fn clients_are_refused_in_the_words_of_etcd() {
    let place = Scratch::new();
    let (authority, cases) = cases(&place);
    let pair = authority.issue("server", &Wanted::default());
    let list = place.path().join("list.crl");
    std::fs::write(&list, authority.revoke(&[0xabc])).expect("it is written");
    let setup = |binary| {
        Setup::new(binary)
            .flag("client-cert-auth", "true")
            .flag("trusted-ca-file", &authority.file)
            .flag("client-crl-file", &list.display().to_string())
    };
    let ours = secured(setup(process::basalt()), &pair);
    let theirs = secured(setup(process::etcd()), &pair);
    for case in &cases {
        let alerts = [&ours, &theirs].map(|server| {
            let alert = refused(server, &authority, case);
            assert!(
                server.logs.wait_for(case.logged, PATIENCE),
                "{}: {}\n{}",
                case.name,
                case.logged,
                server.logs.tail()
            );
            alert
        });
        // etcd closes the connection of a revoked certificate without an alert.
        if case.name != "revoked" {
            assert_eq!(alerts[0], alerts[1], "{}", case.name);
        }
    }
    // Plain HTTP.
    for server in [&ours, &theirs] {
        let url = format!("http://127.0.0.1:{}/health", server.port);
        assert_ne!(curl(&["-f", &url]).code, Some(0));
        let said = "tls: first record does not look like a TLS handshake";
        assert!(server.logs.wait_for(said, PATIENCE), "{}", server.logs.tail());
    }
}

/// On the peer and metrics ports the names of a certificate must be those of the address that connects.
#[test]
fn the_names_of_certificates_are_compared_with_addresses() {
    let place = Scratch::new();
    let authority = Authority::new(place.path(), "ca");
    let pair = authority.issue("server", &Wanted::default());
    let elsewhere =
        authority.issue("elsewhere", &Wanted { hosts: &["10.1.2.3"], ..Wanted::default() });
    let nameless = authority.issue("nameless", &Wanted { hosts: &[], ..Wanted::default() });
    let metrics = crate::ports::free();
    let setup = Setup::new(process::basalt())
        .flag("trusted-ca-file", &authority.file)
        .flag("listen-metrics-urls", &format!("https://127.0.0.1:{metrics}"));
    let server = secured(setup, &pair);
    let get = |port: u16, pair: &Pair| {
        let url = format!("https://127.0.0.1:{port}/health");
        let with =
            ["--cacert", &authority.file, "--cert", &pair.certificate, "--key", &pair.key, &url];
        curl(&with).stdout.contains("true")
    };
    assert!(get(metrics, &pair) && get(metrics, &nameless));
    assert!(get(server.port, &elsewhere), "clients may come from anywhere");
    assert!(!get(metrics, &elsewhere));
    let said = "x509: certificate is valid for 10.1.2.3, not 127.0.0.1";
    assert!(server.logs.wait_for(said, PATIENCE), "{}", server.logs.tail());
}

#[test]
fn what_does_not_fit_together_does_not_start() {
    let place = Scratch::new();
    let authority = Authority::new(place.path(), "ca");
    let pair = authority.issue("server", &Wanted::default());
    let other = authority.issue("other", &Wanted::default());
    let (cert, key, ca) = (&*pair.certificate, &*pair.key, &*authority.file);
    let missing = place.path().join("missing").display().to_string();
    let open = format!("open {missing}: no such file or directory");
    for (flags, why) in [
        (&[][..], "TLS key/cert (--cert-file, --key-file) must be provided for client url"),
        (&[("cert-file", cert), ("key-file", &*missing)], &*open),
        (
            &[("cert-file", cert), ("key-file", &*other.key)],
            "tls: private key does not match public key",
        ),
        (&[("cert-file", key), ("key-file", cert)], "PEM inputs may have been switched"),
        (
            &[("cert-file", cert), ("key-file", key), ("trusted-ca-file", key)],
            "x509: malformed tbs certificate",
        ),
        (
            &[("cert-file", cert), ("key-file", key), ("client-cert-file", cert)],
            "ClientKeyFile and ClientCertFile must both be present or both absent",
        ),
        (
            &[
                ("cert-file", cert),
                ("key-file", key),
                ("trusted-ca-file", ca),
                ("cipher-suites", "FOO"),
            ],
            "unexpected TLS cipher suite \\\"FOO\\\"",
        ),
        (
            &[
                ("cert-file", cert),
                ("key-file", key),
                ("peer-cert-allowed-cn", "a"),
                ("peer-cert-allowed-hostname", "b"),
            ],
            "AllowedCNs and AllowedHostnames are mutually exclusive",
        ),
    ] {
        let mut server = Server::new(Setup::new(process::basalt()));
        let url = secure_endpoint(&server);
        server.set("listen-client-urls", &url);
        flags.iter().for_each(|(name, value)| server.set(name, value));
        server.launch();
        let status = server.wait_exit(PATIENCE);
        assert_eq!(status.and_then(|it| it.code()), Some(1), "{flags:?}: {status:?}");
        assert!(server.logs.all().contains(why), "{flags:?}: {why}\n{}", server.logs.tail());
    }
}
