//! Servers that demand certificates and users: the certificates of members and clients, which can be replaced while all
//! of them run, and the users that they belong to.
//!
//! ```text
//!  authority ─► server.crt ─► --cert-file            root.crt      common name root
//!            ─► peer.crt ───► --peer-cert-file       alice.crt     common name alice, who may use every key
//!  trusted.crt ─────────────► --[peer-]trusted-ca-file   nameless.crt  no common name: a token tells the user
//!  revoked.crl ─────────────► --[peer-]client-crl-file
//! ```

use std::fs;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};

use serde_json::Value;

use crate::process::{Finished, PATIENCE, Scratch, Server, Setup, reference, run};
use crate::tls::certificates::{Authority, Pair, Wanted, replace};
use crate::tls::identities::Holder;
use crate::wire::Wire;

pub(crate) const ROOT: &str = "root";
pub(crate) const ALICE: &str = "alice";
/// Has no role.
pub(crate) const STRANGER: &str = "stranger";
/// The certificate without a common name.
pub(crate) const NAMELESS: &str = "nameless";
/// The password of each user.
pub(crate) const PASSWORD: &str = "pw-of-everyone";
/// Files of certificates, and the common name in each.
const FILES: [(&str, &str); 6] = [
    ("server", ""),
    ("peer", ""),
    (ROOT, ROOT),
    (ALICE, ALICE),
    (STRANGER, STRANGER),
    (NAMELESS, ""),
];

/// Certificates and users of the servers of a test.
pub(crate) struct Secured {
    place: Scratch,
    issued: Mutex<Issued>,
    /// Increases when the files change: connections made before are not of the newest ones.
    epoch: AtomicU64,
}

struct Issued {
    /// The last one issues; all of them are trusted.
    authorities: Vec<Authority>,
    authorities_made: usize,
    serial: u64,
    /// Serial numbers of the certificates in the files.
    current: Vec<u64>,
    /// Those of the ones before.
    previous: Vec<u64>,
    revoked: Vec<u64>,
}

impl Secured {
    pub(crate) fn new() -> Self {
        let place = Scratch::new();
        let issued = Issued {
            authorities: Vec::new(),
            authorities_made: 0,
            serial: 1000,
            current: Vec::new(),
            previous: Vec::new(),
            revoked: Vec::new(),
        };
        let secured = Self { place, issued: Mutex::new(issued), epoch: AtomicU64::new(0) };
        secured.add_authority();
        secured.reissue();
        secured
    }

    fn file(&self, name: &str) -> String {
        self.place.path().join(name).display().to_string()
    }

    /// The authorities that are trusted.
    pub(crate) fn trusted(&self) -> String {
        self.file("trusted.crt")
    }

    /// The certificate and key in files of this name.
    pub(crate) fn pair(&self, name: &str) -> Pair {
        let [certificate, key] = ["crt", "key"].map(|end| self.file(&format!("{name}.{end}")));
        Pair { certificate, key }
    }

    pub(crate) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    fn lock(&self) -> MutexGuard<'_, Issued> {
        self.issued.lock().expect("nobody panicked")
    }

    /// Trusts one more authority, which issues from now on.
    pub(crate) fn add_authority(&self) {
        let mut issued = self.lock();
        issued.authorities_made += 1;
        let name = format!("ca-{}", issued.authorities_made);
        issued.authorities.push(Authority::new(self.place.path(), &name));
        self.write_trust(&issued);
    }

    /// Trusts the newest authority alone.
    pub(crate) fn drop_old_authorities(&self) {
        let mut issued = self.lock();
        let newest = issued.authorities.len() - 1;
        issued.authorities.drain(..newest);
        self.write_trust(&issued);
    }

    /// Replaces all certificates and keys. Those that were replaced at the time before are revoked.
    pub(crate) fn reissue(&self) {
        let mut issued = self.lock();
        let previous = std::mem::take(&mut issued.previous);
        issued.revoked.extend(previous);
        issued.previous = std::mem::take(&mut issued.current);
        for (name, common_name) in FILES {
            issued.serial += 1;
            let serial = issued.serial;
            issued.current.push(serial);
            let wanted = Wanted { common_name, serial, ..Wanted::default() };
            let authority = issued.authorities.last().expect("there is one");
            let (certificate, key) = authority.texts(&wanted);
            let pair = self.pair(name);
            // One after the other: members see a pair that does not match in between.
            replace(&pair.certificate, certificate);
            replace(&pair.key, key);
        }
        self.write_trust(&issued);
    }

    fn write_trust(&self, issued: &Issued) {
        let text = |it: &Authority| fs::read_to_string(&it.file).expect("it is there");
        replace(&self.trusted(), issued.authorities.iter().map(text).collect::<String>());
        let newest = issued.authorities.last().expect("there is one");
        replace(&self.file("revoked.crl"), newest.revoke(&issued.revoked));
        self.epoch.fetch_add(1, Ordering::AcqRel);
    }

    /// A client with the certificate of this name, as it is now, and the authorities that are trusted now.
    pub(crate) fn holder(&self, name: &str) -> Holder {
        let _unchanged = self.lock();
        Holder::with(&self.trusted(), &self.pair(name))
    }

    /// A connection with the certificate of this name, as it is now.
    pub(crate) fn wire(&self, endpoint: &str, name: &str) -> Wire {
        self.holder(name).wire_to(endpoint)
    }

    /// Flags of clients.
    pub(crate) fn client_flags(&self, name: &str) -> Vec<String> {
        let Pair { certificate, key } = self.pair(name);
        let flags = ["--cacert", &self.trusted(), "--cert", &certificate, "--key", &key];
        flags.map(str::to_owned).to_vec()
    }

    /// The flags of a server.
    pub(crate) fn flags(&self, setup: Setup) -> Setup {
        let (server, peer) = (self.pair("server"), self.pair("peer"));
        let (trusted, revoked) = (self.trusted(), self.file("revoked.crl"));
        let peer_url = "https://127.0.0.1:12380";
        setup
            .flag("cert-file", &server.certificate)
            .flag("key-file", &server.key)
            .flag("trusted-ca-file", &trusted)
            .flag("client-crl-file", &revoked)
            .flag("client-cert-auth", "true")
            .flag("peer-cert-file", &peer.certificate)
            .flag("peer-key-file", &peer.key)
            .flag("peer-trusted-ca-file", &trusted)
            .flag("peer-crl-file", &revoked)
            .flag("peer-client-cert-auth", "true")
            .flag("initial-advertise-peer-urls", peer_url)
            .flag("initial-cluster", &format!("pillar={peer_url}"))
            .flag("bcrypt-cost", "4")
    }

    /// Asks a server with the real etcdctl in the name of a certificate.
    pub(crate) fn ctl(&self, endpoint: &str, name: &str, arguments: &[&str]) -> Finished {
        let mut command = Command::new(reference("etcdctl"));
        command.args(["--endpoints", endpoint]).args(self.client_flags(name)).args(arguments);
        run(command, PATIENCE)
    }

    /// Users, their roles, and authentication. Each user has the password, and is whoever shows a certificate with the name.
    pub(crate) fn enable_auth(&self, server: &Server) {
        for arguments in [
            &["user", "add", &format!("root:{PASSWORD}")][..],
            &["user", "add", &format!("alice:{PASSWORD}")],
            &["user", "add", &format!("stranger:{PASSWORD}")],
            &["role", "add", "root"],
            &["role", "add", "everything"],
            &["role", "grant-permission", "everything", "readwrite", "", "--prefix"],
            &["user", "grant-role", "root", "root"],
            &["user", "grant-role", "alice", "everything"],
            &["auth", "enable"],
        ] {
            let told = self.ctl(&server.endpoint(), ROOT, arguments);
            assert_eq!(told.code, Some(0), "{arguments:?}: {}{}", told.stdout, told.stderr);
        }
    }

    /// A token of a user, got over JSON with the certificate without a name.
    pub(crate) fn token(&self, server: &Server, user: &str) -> String {
        let Pair { certificate, key } = self.pair(NAMELESS);
        let mut command = Command::new("curl");
        command.args(["-s", "--max-time", "20", "--cacert", &self.trusted()]);
        command.args(["--cert", &certificate, "--key", &key]);
        command.args(["-d", &format!(r#"{{"name":"{user}","password":"{PASSWORD}"}}"#)]);
        command.arg(format!("{}/v3/auth/authenticate", server.endpoint()));
        let told = run(command, PATIENCE).stdout;
        let answer: Value = serde_json::from_str(&told).unwrap_or_default();
        answer["token"].as_str().unwrap_or_else(|| panic!("no token for {user}: {told}")).to_owned()
    }
}
