//! TLS on both sides of the gRPC proxy, and through the gateway.

use super::{PATIENCE, Proxy, address, etcdctl};
use crate::process::{self, Scratch, Server, Setup};
use crate::tls::certificates::{Authority, Wanted};

/// A member that asks for certificates, and everybody's files.
struct Place {
    server: Server,
    authority: Authority,
    scratch: Scratch,
}

fn place() -> Place {
    let scratch = Scratch::new();
    let authority = Authority::new(scratch.path(), "ca");
    let pair = authority.issue("server", &Wanted::default());
    let setup = Setup::new(process::basalt())
        .flag("cert-file", &pair.certificate)
        .flag("key-file", &pair.key)
        .flag("trusted-ca-file", &authority.file)
        .flag("client-cert-auth", "true");
    let mut server = Server::new(setup);
    let url = format!("https://{}", address(&server));
    server.set("listen-client-urls", &url);
    server.start();
    Place { server, authority, scratch }
}

#[test]
fn clients_show_certificates_to_the_proxy_and_the_proxy_to_members() {
    let place = place();
    let own = place.authority.issue("own", &Wanted::default());
    let shown =
        place.authority.issue("shown", &Wanted { common_name: "proxy", ..Wanted::default() });
    let client = place
        .authority
        .issue("client", &Wanted { common_name: "me", serial: 5, ..Wanted::default() });
    let revoked = place.authority.issue("revoked", &Wanted { serial: 66, ..Wanted::default() });
    let list = place.scratch.path().join("list.crl");
    std::fs::write(&list, place.authority.revoke(&[66])).expect("a new file");
    let ca = &place.authority.file;
    let pages = format!("https://127.0.0.1:{}", crate::ports::free());
    let flags = [
        ["--cert", &own.certificate],
        ["--key", &own.key],
        ["--cacert", ca],
        ["--cert-file", &shown.certificate],
        ["--key-file", &shown.key],
        ["--trusted-ca-file", ca],
        ["--client-crl-file", &list.display().to_string()],
        ["--tls-min-version", "TLS1.3"],
        ["--metrics-addr", &pages],
        ["--advertise-client-url", ""],
    ];
    let endpoint = format!("https://{}", address(&place.server));
    let proxy = Proxy::start("grpc-proxy", &endpoint, flags.as_flattened());
    let ask = |pair: Option<&crate::tls::certificates::Pair>| {
        let mut flags = vec!["put", "a", "1", "--command-timeout=3s", "--cacert", ca];
        if let Some(pair) = pair {
            flags.extend(["--cert", &pair.certificate, "--key", &pair.key]);
        }
        etcdctl(&format!("https://{}", proxy.address()), &flags)
    };
    assert_eq!(ask(Some(&client)).stdout, "OK\n", "{}", proxy.logs.tail());
    assert_ne!(ask(None).code, Some(0));
    assert_ne!(ask(Some(&revoked)).code, Some(0));
    assert!(proxy.logs.wait_for("rejected connection", PATIENCE));
    // The pages ask for a certificate, too, and fetch a member's with the proxy's own.
    let mut curl = std::process::Command::new("curl");
    curl.args(["-s", "--max-time", "20", "--cacert", ca, "--cert", &client.certificate]);
    curl.args(["--key", &client.key, &format!("{pages}/metrics")]);
    let page = process::run(curl, PATIENCE).stdout;
    assert!(page.contains("etcd_server_has_leader 1"), "{page}");
    // Through the gateway the handshake is the member's.
    let gateway = Proxy::gateway(&endpoint, &[]);
    let secure = format!("https://{}", gateway.address());
    let flags = ["--cacert", ca, "--cert", &client.certificate, "--key", &client.key];
    let got = etcdctl(&secure, &[&["get", "a"], &flags[..]].concat());
    assert_eq!(got.stdout, "a\n1\n", "{}", got.stderr);
}

#[test]
fn a_certificate_is_made_and_renewed_ones_are_taken() {
    let server = Setup::new(process::basalt()).start();
    let scratch = Scratch::new();
    let dir = scratch.path().display().to_string();
    let proxy = Proxy::grpc(&server, &["--auto-tls", "--data-dir", &dir]);
    let file = scratch.path().join("fixtures/proxy/cert.pem");
    let made = file.display().to_string();
    let endpoint = format!("https://{}", proxy.address());
    let put =
        |ca: &str| etcdctl(&endpoint, &["put", "a", "1", "--command-timeout=3s", "--cacert", ca]);
    assert_eq!(put(&made).stdout, "OK\n", "{}", proxy.logs.tail());
    let authority = Authority::new(scratch.path(), "ca");
    assert_ne!(put(&authority.file).code, Some(0));
    let pair = authority.issue("renewed", &Wanted::default());
    std::fs::copy(&pair.key, file.with_file_name("key.pem")).expect("the key");
    std::fs::copy(&pair.certificate, &file).expect("the certificate");
    assert_eq!(put(&authority.file).stdout, "OK\n", "{}", proxy.logs.tail());
}
