//! The flags about TLS towards clients and towards other members, checked with etcd's texts, and the credentials for
//! both.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use gotls::{Allowed, Suites};

use super::settings::{Flags, Level, Note};
use super::table;
use super::values::Url;
use crate::io::{
    CertificateEnd, PairFiles, TlsCredentials, TlsOptions, TlsVersions, make_self_signed,
};
use crate::types::Fault;

/// ALPN protocols of client ports. etcd answers `http/1.1` without naming it.
const CLIENT_PROTOCOLS: &[&[u8]] = &[b"h2", b"http/1.1"];
/// ALPN protocols of peer ports.
const PEER_PROTOCOLS: &[&[u8]] = &[b"http/1.1"];

/// One side.
#[derive(Clone, Debug)]
pub(super) struct Side {
    options: TlsOptions,
    /// `--auto-tls`: a certificate is made for these hosts unless one is given.
    auto: Option<Vec<String>>,
    /// `--self-signed-cert-validity`, in years.
    validity_years: u64,
}

/// Both sides.
#[derive(Clone, Debug)]
pub(super) struct Sides {
    pub(super) client: Side,
    pub(super) peer: Side,
}

impl Side {
    /// Tells if it has a certificate, or will.
    fn has_certificate(&self) -> bool {
        self.options.server.is_some() || self.auto.is_some()
    }

    /// Reads the files, and makes them if they are to be made. Nothing if flags ask for no TLS here.
    ///
    /// # Errors
    /// They cannot be used.
    fn open(mut self, data_dir: &Path) -> Result<Option<Arc<TlsCredentials>>, Fault> {
        let kind = self.options.kind;
        match (&self.auto, &self.options.server) {
            (Some(_), Some(_)) => tracing::warn!("ignoring {kind} auto TLS since certs given"),
            (Some(hosts), None) => {
                let dir = data_dir.join("fixtures").join(kind);
                tracing::info!("automatically generate certificates");
                let made = make_self_signed(&dir, hosts, self.validity_years, kind == "peer")?;
                self.options.server = Some(made.clone());
                self.options.client = Some(made);
                self.options.self_signed = true;
            }
            (None, _) => (),
        }
        let none = TlsOptions {
            kind,
            suites: self.options.suites.clone(),
            versions: self.options.versions,
            protocols: self.options.protocols,
            ..TlsOptions::default()
        };
        if self.options == none {
            return Ok(None);
        }
        TlsCredentials::open(self.options).map(Some)
    }
}

impl Sides {
    /// Reads what flags say. Things to log are added to `notes`.
    ///
    /// # Errors
    /// A contradiction among flags.
    pub(super) fn read(
        flags: &Flags,
        peers: &[Url],
        clients: &[Url],
        notes: &mut Vec<Note>,
    ) -> Result<Self, String> {
        let (suites, skipped) = Suites::parse(&table::CIPHER_SUITES.get(flags))?;
        let versions = versions(flags, &suites);
        if !skipped.is_empty() {
            let text = "cipher suites that this version does not offer are skipped";
            notes.push(Note::new(Level::Warn, text).about("cipher-suites", skipped.join(",")));
        }
        if suites.lack_tls12() {
            let text = "no cipher suite for TLS 1.2 is left; only TLS 1.3 is served";
            notes.push(Note::new(Level::Warn, text));
        }
        let validity_years = table::SELF_SIGNED_CERT_VALIDITY.get(flags);
        let hosts = |urls: &[Url]| urls.iter().map(|url| url.rest.clone()).collect();
        let client = TlsOptions {
            kind: "client",
            certificate_users: table::CLIENT_CERT_AUTH.get(flags),
            revoked: file(table::CLIENT_CRL_FILE.get(flags)),
            allowed: allowed(
                table::CLIENT_CERT_ALLOWED_CN.get(flags),
                table::CLIENT_CERT_ALLOWED_HOSTNAME.get(flags),
            )?,
            suites: suites.clone(),
            versions,
            protocols: CLIENT_PROTOCOLS,
            skips_address_check: table::CLIENT_SKIP_CLIENT_SAN_VERIFICATION.get(flags),
            ..trust(
                table::TRUSTED_CA_FILE.get(flags),
                table::CLIENT_CERT_AUTH.get(flags),
                pair(table::CERT_FILE.get(flags), table::KEY_FILE.get(flags))?,
                client_pair(table::CLIENT_CERT_FILE.get(flags), table::CLIENT_KEY_FILE.get(flags))?,
            )
        };
        let peer = TlsOptions {
            kind: "peer",
            revoked: file(table::PEER_CRL_FILE.get(flags)),
            allowed: allowed(
                table::PEER_CERT_ALLOWED_CN.get(flags),
                table::PEER_CERT_ALLOWED_HOSTNAME.get(flags),
            )?,
            suites,
            versions,
            protocols: PEER_PROTOCOLS,
            skips_address_check: table::PEER_SKIP_CLIENT_SAN_VERIFICATION.get(flags),
            ..trust(
                table::PEER_TRUSTED_CA_FILE.get(flags),
                table::PEER_CLIENT_CERT_AUTH.get(flags),
                pair(table::PEER_CERT_FILE.get(flags), table::PEER_KEY_FILE.get(flags))?,
                client_pair(
                    table::PEER_CLIENT_CERT_FILE.get(flags),
                    table::PEER_CLIENT_KEY_FILE.get(flags),
                )?,
            )
        };
        let side = |options, is_auto: bool, urls| Side {
            options,
            auto: is_auto.then(|| hosts(urls)),
            validity_years,
        };
        Ok(Self {
            client: side(client, table::AUTO_TLS.get(flags), clients),
            peer: side(peer, table::PEER_AUTO_TLS.get(flags), peers),
        })
    }

    /// Checks that what is listened on has a certificate where it needs one, and notes where one is not used.
    ///
    /// # Errors
    /// A URL with TLS has no certificate.
    pub(super) fn check(
        &self,
        peers: &[Url],
        clients: &[&Url],
        metrics: &[Url],
        notes: &mut Vec<Note>,
    ) -> Result<(), String> {
        for url in peers {
            match (url.is_secure(), self.peer.has_certificate()) {
                (true, false) => {
                    return Err(format!(
                        "cannot listen on TLS for {}: KeyFile and CertFile are not presented",
                        url.rest
                    ));
                }
                (false, has_certificate) => {
                    self.peer.note_ignored(url, has_certificate, notes);
                }
                (true, true) => (),
            }
        }
        for url in clients {
            match (url.is_secure(), self.client.has_certificate()) {
                (true, false) => {
                    return Err(format!(
                        "TLS key/cert (--cert-file, --key-file) must be provided for client url {} \
                         with HTTPS scheme",
                        url.text
                    ));
                }
                (false, has_certificate) => {
                    self.client.note_ignored(url, has_certificate, notes);
                }
                (true, true) => (),
            }
        }
        match metrics.iter().find(|url| url.scheme == "https" && !self.client.has_certificate()) {
            Some(url) => Err(format!(
                "client TLS key/cert (--cert-file, --key-file) must be provided for metrics secure url {:?}",
                url.text
            )),
            None => Ok(()),
        }
    }

    /// True if only clients with certificates are served.
    pub(super) fn demands_client_certificates(&self) -> bool {
        self.client.options.demands_certificates
    }

    /// True if only members with certificates are served.
    pub(super) fn demands_peer_certificates(&self) -> bool {
        self.peer.options.demands_certificates
    }

    /// Flags that demand certificates without a CA.
    pub(super) fn trusting_the_system(&self) -> impl Iterator<Item = &'static str> {
        let sides = [(&self.client, "--client-cert-auth"), (&self.peer, "--peer-client-cert-auth")];
        let is_meant = |options: &TlsOptions| {
            options.demands_certificates && options.trusted_ca.is_none() && options.server.is_some()
        };
        sides.into_iter().filter_map(move |(side, flag)| is_meant(&side.options).then_some(flag))
    }

    /// Files of private keys that are given.
    pub(super) fn keys(&self) -> impl Iterator<Item = PathBuf> {
        let pairs = |side: &'_ Side| [side.options.server.clone(), side.options.client.clone()];
        let all = [pairs(&self.client), pairs(&self.peer)].into_iter().flatten().flatten();
        let keys: BTreeSet<_> = all.map(|pair| pair.key).collect();
        keys.into_iter()
    }

    /// The certificates of each side that has files, read as at a start. Those that are made at the start are left out.
    pub(super) fn inspect(&self) -> Vec<(&'static str, Result<Vec<CertificateEnd>, Fault>)> {
        let with_files =
            [&self.client, &self.peer].into_iter().filter(|side| side.options.has_files());
        let ends = |side: &Side| TlsCredentials::open(side.options.clone()).map(|it| it.ends());
        with_files.map(|side| (side.options.kind, ends(side))).collect()
    }

    /// The credentials of both sides: clients', then members'.
    ///
    /// # Errors
    /// Files cannot be used.
    pub(super) fn open(&self, data_dir: &Path) -> Result<Opened, Fault> {
        let peer = self.peer.clone().open(data_dir)?;
        Ok(Opened { client: self.client.clone().open(data_dir)?, peer })
    }
}

/// The credentials of both sides.
#[derive(Clone, Debug)]
pub(super) struct Opened {
    pub(super) client: Option<Arc<TlsCredentials>>,
    pub(super) peer: Option<Arc<TlsCredentials>>,
}

impl Side {
    fn note_ignored(&self, url: &Url, has_certificate: bool, notes: &mut Vec<Note>) {
        let (scheme, flag, field) = match self.options.kind {
            "peer" => ("HTTP", "--peer-client-cert-auth", "peer-url"),
            _ => ("http or unix", "--client-cert-auth", "client-url"),
        };
        let mut warn = |text: String| {
            notes.push(Note::new(Level::Warn, text).about(field, url.text.clone()));
        };
        if has_certificate {
            warn(format!(
                "scheme is {scheme} while key and cert files are present; ignoring key and cert files"
            ));
        }
        if self.options.demands_certificates && self.options.trusted_ca.is_none() {
            warn(format!(
                "scheme is {scheme} while {flag} is enabled; ignoring client cert auth for this URL"
            ));
        }
    }
}

fn versions(flags: &Flags, suites: &Suites) -> TlsVersions {
    let (min, max) = (table::TLS_MIN_VERSION.get(flags), table::TLS_MAX_VERSION.get(flags));
    match (min.as_str(), max.as_str()) {
        ("TLS1.3", _) => TlsVersions::Tls13,
        (_, "TLS1.2") => TlsVersions::Tls12,
        _ if suites.lack_tls12() => TlsVersions::Tls13,
        _ => TlsVersions::Both,
    }
}

fn trust(
    trusted_ca: String,
    demands: bool,
    server: Option<PairFiles>,
    client: Option<PairFiles>,
) -> TlsOptions {
    let trusted_ca = file(trusted_ca);
    TlsOptions {
        // As in etcd a CA alone demands certificates.
        demands_certificates: demands || trusted_ca.is_some(),
        trusted_ca,
        client: client.or_else(|| server.clone()),
        server,
        ..TlsOptions::default()
    }
}

fn file(name: String) -> Option<PathBuf> {
    Some(name).filter(|name| !name.is_empty()).map(PathBuf::from)
}

fn pair(certificate: String, key: String) -> Result<Option<PairFiles>, String> {
    match (file(certificate), file(key)) {
        (Some(certificate), Some(key)) => Ok(Some(PairFiles { certificate, key })),
        (None, None) => Ok(None),
        (certificate, key) => {
            let text = |path: Option<PathBuf>| {
                path.map_or_else(String::new, |path| path.display().to_string())
            };
            let (key, certificate) = (text(key), text(certificate));
            Err(format!(
                "KeyFile and CertFile must both be present[key: {key}, cert: {certificate}]"
            ))
        }
    }
}

fn client_pair(certificate: String, key: String) -> Result<Option<PairFiles>, String> {
    if certificate.is_empty() != key.is_empty() {
        return Err(format!(
            "ClientKeyFile and ClientCertFile must both be present or both absent: \
             key: {key}, cert: {certificate}]"
        ));
    }
    pair(certificate, key)
}

fn allowed(names: Vec<String>, hosts: Vec<String>) -> Result<Allowed, String> {
    match (names.is_empty(), hosts.is_empty()) {
        (true, true) => Ok(Allowed::All),
        (false, true) => Ok(Allowed::CommonNames(names)),
        (true, false) => Ok(Allowed::HostNames(hosts)),
        (false, false) => {
            let list = |all: &[String]| {
                let quoted: Vec<_> = all.iter().map(|it| format!("{it:?}")).collect();
                quoted.join(" ")
            };
            Err(format!(
                "AllowedCNs and AllowedHostnames are mutually exclusive (cns=[{}], hostnames=[{}])",
                list(&names),
                list(&hosts)
            ))
        }
    }
}
