//! The official and the well-known clients over mutual TLS, with a user who logs in.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::certificates::{Authority, Pair, Wanted};
use super::{assert_told, etcdctl, secure_endpoint, secured};
use crate::process::{self, Finished, Scratch, Server, Setup, reference, run};

/// Time for all that a client does.
const STORIES: Duration = Duration::from_secs(240);
const USER: &str = "root";
const PASSWORD: &str = "a password";

/// A server on which everyone shows a certificate and has a user. The name in the certificate is nobody's, so that only a token helps.
struct Site {
    server: Server,
    authority: Authority,
    client: Pair,
    _place: Scratch,
}

impl Site {
    fn open() -> Self {
        let place = Scratch::new();
        let authority = Authority::new(place.path(), "ca");
        let pair = authority.issue("server", &Wanted::default());
        let client =
            authority.issue("client", &Wanted { common_name: "nobody", ..Wanted::default() });
        let setup = Setup::new(process::basalt())
            .flag("bcrypt-cost", "4")
            .flag("client-cert-auth", "true")
            .flag("trusted-ca-file", &authority.file);
        let server = secured(setup, &pair);
        let site = Self { server, authority, client, _place: place };
        let user = format!("{USER}:{PASSWORD}");
        for arguments in [
            &["user", "add", &user][..],
            &["user", "grant-role", USER, "root"],
            &["auth", "enable"],
        ] {
            let told = site.etcdctl(&[], arguments);
            assert_told(&told, "", &site.server);
        }
        let refused = site.etcdctl(&[], &["get", "a"]);
        assert!(refused.stderr.contains("permission denied"), "{}", refused.stderr);
        let told = site.etcdctl(&["--user", &user], &["put", "a", "b"]);
        assert_told(&told, "OK", &site.server);
        site
    }

    fn etcdctl(&self, flags: &[&str], arguments: &[&str]) -> Finished {
        let Pair { certificate, key } = &self.client;
        let own = ["--cacert", &self.authority.file, "--cert", certificate, "--key", key];
        etcdctl(&secure_endpoint(&self.server), &[&own[..], flags].concat(), arguments)
    }

    /// The files that a client needs: authority, certificate, key.
    fn files(&self) -> [&str; 3] {
        [&self.authority.file, &self.client.certificate, &self.client.key]
    }

    fn is_told(&self, command: Command, text: &str) {
        assert_told(&run(command, STORIES), text, &self.server);
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

#[test]
fn the_go_client_is_served_with_certificate_and_user() {
    let site = Site::open();
    let mut client = Command::new(reference("go-client"));
    let [authority, certificate, key] = site.files();
    client.args(["-cacert", authority, "-cert", certificate, "-key", key]);
    client.args(["-user", &format!("{USER}:{PASSWORD}")]);
    client.args(["-endpoint", &secure_endpoint(&site.server)]);
    site.is_told(client, "ok election service");
}

#[test]
fn the_python_client_is_served_with_certificate_and_user() {
    let site = Site::open();
    let mut client = Command::new(root().join("target/python/bin/python"));
    client.arg(root().join("tests/clients/python/tls.py")).arg(site.server.port.to_string());
    client.args(site.files()).args([USER, PASSWORD]);
    site.is_told(client, "over TLS");
}

#[test]
fn the_node_client_is_served_with_certificate_and_user() {
    let site = Site::open();
    let mut client = Command::new("node");
    client.env("NODE_PATH", root().join("target/node/node_modules"));
    client.arg(root().join("tests/clients/node/tls.js")).arg(secure_endpoint(&site.server));
    client.args(site.files()).args([USER, PASSWORD]);
    site.is_told(client, "over TLS");
}

#[test]
fn jetcd_is_served_with_certificate_and_user() {
    let site = Site::open();
    let jars = format!("{0}/classes:{0}/lib/*", root().join("target/java").display());
    let mut client = Command::new("java");
    client.args(["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xmx128m", "-cp", &jars]);
    client.arg("Secure").arg(secure_endpoint(&site.server));
    client.args(site.files()).args([USER, PASSWORD]);
    site.is_told(client, "over TLS");
}
