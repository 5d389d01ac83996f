//! The same over mutual TLS with auth on. Root is told by a certificate, or by name and password behind a certificate
//! without a name. `transcripts/secured.txt` is about the flags of TLS and users themselves.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use super::{Ground, compare_over, versioned};
use crate::process::{self, Server, Setup};
use crate::secured::{NAMELESS, PASSWORD, ROOT, STRANGER, Secured};

/// How lines reach a server over TLS.
pub(super) struct Client<'a> {
    secured: &'a Arc<Secured>,
    is_by_password: bool,
}

impl Client<'_> {
    pub(super) fn started(&self, binary: &Path) -> Server {
        let server = Setup::new(binary.to_owned()).secured(self.secured).start();
        self.secured.enable_auth(&server);
        versioned(server, binary)
    }

    /// Sets what a line finds in its environment.
    pub(super) fn prepare(&self, shell: &mut Command, line: &str) {
        let secured = self.secured;
        let name = if self.is_by_password { NAMELESS } else { ROOT };
        let (own, nameless, stranger) =
            (secured.pair(name), secured.pair(NAMELESS), secured.pair(STRANGER));
        let (certificate, key, trusted) = (&own.certificate, &own.key, secured.trusted());
        let mut destination =
            format!("--dest-cacert {trusted} --dest-cert {certificate} --dest-key {key}");
        if self.is_by_password {
            let user = format!("{ROOT}:{PASSWORD}");
            destination.push_str(&format!(" --dest-user {user}"));
            shell.env("ETCDCTL_USER", user);
        }
        let bare = "env -u ETCDCTL_CACERT -u ETCDCTL_CERT -u ETCDCTL_KEY";
        shell
            .env("ETCDCTL_CACERT", &trusted)
            .env("ETCDCTL_CERT", certificate)
            .env("ETCDCTL_KEY", key)
            .env("DEST", destination)
            .env("BARE", bare)
            .env("CA", &trusted)
            .env("CERT", certificate)
            .env("KEY", key)
            .env("NAMELESS", format!("--cert {} --key {}", nameless.certificate, nameless.key))
            .env("STRANGER", format!("--cert {} --key {}", stranger.certificate, stranger.key))
            .env("PASSWORD", PASSWORD)
            .env("LINE", over_tls(line));
    }
}

/// A line with URLs of TLS, and with more time for commands that have to log in first.
fn over_tls(line: &str) -> String {
    let line = line.replace("http://$PLAIN", "https://$PLAIN");
    let line = line.replace("timeout 0.5 ", "timeout 4 ").replace("timeout 1 ", "timeout 4 ");
    line.replace("timeout -s INT 0.5 ", "timeout -s INT 4 ")
}

fn compare(file: &str, is_by_password: bool, binaries: &[std::path::PathBuf]) {
    let secured = Arc::new(Secured::new());
    for binary in binaries {
        let client = Some(Client { secured: &secured, is_by_password });
        compare_over(&Ground { binary, client }, file);
    }
}

/// True in the long form: all files, over both servers, in the name of root by both ways.
fn is_long() -> bool {
    std::env::var("SECURED").is_ok_and(|value| value == "all")
}

#[test]
fn flags_of_tls_and_users_are_those_of_etcdctl() {
    compare("secured", false, &[process::basalt(), process::etcd()]);
}

#[test]
fn basaltctl_makes_transactions_as_a_user_like_etcdctl() {
    compare("txn", true, &[process::basalt()]);
}

#[test]
fn all_lines_over_tls_as_users_are_answered_alike() {
    if !is_long() {
        return;
    }
    for file in ["keys", "txn", "leases", "cluster", "auth"] {
        for is_by_password in [false, true] {
            compare(file, is_by_password, &[process::basalt(), process::etcd()]);
        }
    }
}
