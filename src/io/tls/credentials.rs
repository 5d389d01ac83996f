//! The certificates, keys and trust of one side, as they are now: read from files, and read again when those change.
//!
//! All files are read together, and replace what there was only if all of them are right: whoever replaces one after
//! the other, or half of one, leaves the last good ones in use. Connections that are open stay.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use gotls::{ClientVerifier, Leaf, Revoked, Roots, ServerVerifier, SkipVerification, Trust};
use rustls::server::NoServerSessionStorage;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, ServerConfig};

use super::files::{Contents, Stamps};
use super::options::{Options, PairFiles};
use crate::io::{clock, thread};
use crate::metrics::{self, CertificateRole};
use crate::types::Fault;

/// How often files are looked at while connections come.
const LOOK_MS: u64 = 250;
/// How often they are looked at anyway.
const LOOK_IDLE: Duration = Duration::from_secs(10);
/// Days before a certificate ends at which the log says so.
const WARN_DAYS: [i64; 3] = [30, 7, 1];
const DAY_SECONDS: i64 = 24 * 3600;

/// All that there are, for those who ask for all of them.
static ALL: Mutex<Vec<Weak<TlsCredentials>>> = Mutex::new(Vec::new());

/// The TLS configurations of one side, which follow its files.
pub struct TlsCredentials {
    options: Options,
    current: ArcSwap<Current>,
    /// When the files were last looked at.
    looked_ms: AtomicU64,
    seen: Mutex<Seen>,
    /// How many of [`WARN_DAYS`] were told for the certificates of now.
    warned: AtomicU8,
}

impl std::fmt::Debug for TlsCredentials {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "TlsCredentials({})", self.options.kind)
    }
}

/// The end of a certificate.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CertificateEnd {
    /// `server`, `client` or `ca`.
    pub role: &'static str,
    /// Its file.
    pub path: String,
    /// The last second at which it is valid, since 1970.
    pub not_after: i64,
}

/// How the files looked when they were last read, and what is in use.
struct Seen {
    stamps: Stamps,
    contents: Contents,
}

/// The configurations in use: swapped as a whole.
struct Current {
    server: Option<Arc<ServerConfig>>,
    client: Arc<ClientConfig>,
    /// Roles, files and the last seconds of the certificates.
    ends: Vec<(CertificateRole, String, i64)>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl TlsCredentials {
    /// Reads the files.
    ///
    /// # Errors
    /// One of them cannot be used, in Go's words.
    pub fn open(options: Options) -> Result<Arc<Self>, Fault> {
        let stamps = Stamps::look(&options);
        let contents = Contents::read(&options).map_err(Fault::new)?;
        let current = load(&options, &contents).map_err(|(path, why)| {
            tracing::error!(path = %path, error = why, "failed to load certificates");
            Fault::new(why)
        })?;
        let credentials = Arc::new(Self {
            options,
            current: ArcSwap::from_pointee(current),
            looked_ms: AtomicU64::new(clock::now_ms()),
            seen: Mutex::new(Seen { stamps, contents }),
            warned: AtomicU8::new(0),
        });
        credentials.tell_ends();
        let mut all = lock(&ALL);
        all.push(Arc::downgrade(&credentials));
        if all.len() == 1 {
            drop(all);
            watch()?;
        }
        Ok(credentials)
    }

    /// The certificates of this side, and when they end.
    pub fn ends(&self) -> Vec<CertificateEnd> {
        let current = self.current.load();
        let ends = current.ends.iter().map(|(role, path, not_after)| CertificateEnd {
            role: role.name(),
            path: path.clone(),
            not_after: *not_after,
        });
        ends.collect()
    }

    /// The options of this side.
    pub(super) fn options(&self) -> &Options {
        &self.options
    }

    /// The configuration to accept a connection with now. `None` if this side has no certificate.
    pub(super) fn server(&self) -> Option<Arc<ServerConfig>> {
        self.look_if_due();
        self.current.load().server.clone()
    }

    /// The configuration to dial with now.
    pub(in crate::io) fn client(&self) -> Arc<ClientConfig> {
        self.look_if_due();
        Arc::clone(&self.current.load().client)
    }

    fn look_if_due(&self) {
        let (now_ms, looked_ms) = (clock::now_ms(), self.looked_ms.load(Ordering::Relaxed));
        let is_due = now_ms.saturating_sub(looked_ms) >= LOOK_MS;
        let claim = |to| {
            let (order, failed) = (Ordering::Relaxed, Ordering::Relaxed);
            self.looked_ms.compare_exchange(looked_ms, to, order, failed).is_ok()
        };
        if is_due && claim(now_ms) {
            self.look(false);
        }
    }

    /// Reads the files again if they look otherwise than before, or if it is asked for.
    fn look(&self, anyway: bool) {
        let mut seen = lock(&self.seen);
        let stamps = Stamps::look(&self.options);
        if !anyway && stamps == seen.stamps {
            return;
        }
        // Looked at before it is read: what changes in between is read again.
        seen.stamps = stamps;
        let failed = |path: &str, why: &str| {
            metrics::TLS_RELOADS_FAILED.add(1);
            tracing::warn!(
                side = self.options.kind,
                path,
                error = why,
                "failed to reload certificates; the ones before stay in use"
            );
        };
        let contents = match Contents::read(&self.options) {
            Ok(contents) => contents,
            Err(why) => return failed("", &why),
        };
        if contents == seen.contents {
            return;
        }
        match load(&self.options, &contents) {
            Ok(current) => {
                self.current.store(Arc::new(current));
                seen.contents = contents;
                metrics::TLS_RELOADS.add(1);
                tracing::info!(side = self.options.kind, "reloaded certificates");
                self.warned.store(0, Ordering::Relaxed);
                self.tell_ends();
            }
            Err((path, why)) => failed(&path, &why),
        }
    }

    /// Shows when certificates end, and warns of those that end soon.
    fn tell_ends(&self) {
        let current = self.current.load();
        let now = i64::try_from(clock::unix_time().as_secs()).unwrap_or(i64::MAX);
        // One that is shown to both sides is told of once.
        let (mut soonest, mut told) = (usize::MAX, BTreeSet::new());
        for (role, path, not_after) in &current.ends {
            metrics::certificate_ends(self.options.kind, *role, *not_after);
            let left_days = (not_after - now) / DAY_SECONDS;
            let due = WARN_DAYS.iter().filter(|days| left_days < **days).count();
            let is_first = told.insert(path);
            if is_first && due > usize::from(self.warned.load(Ordering::Relaxed)) {
                tracing::warn!(
                    side = self.options.kind,
                    path,
                    days_left = left_days,
                    not_after =
                        gocompat::time::rfc3339(Duration::from_secs(not_after.unsigned_abs())),
                    "a certificate expires soon"
                );
            }
            soonest = soonest.min(WARN_DAYS.len() - due);
        }
        let due = WARN_DAYS.len().saturating_sub(soonest);
        self.warned.store(due as u8, Ordering::Relaxed);
    }
}

/// Reads all files again, whatever they look like.
pub fn reload_all() {
    let all: Vec<_> = lock(&ALL).iter().filter_map(Weak::upgrade).collect();
    all.iter().for_each(|credentials| credentials.look(true));
}

/// Starts the thread that looks at the files now and then.
#[allow(clippy::disallowed_methods, reason = "a thread of its own, which hosts nothing")]
fn watch() -> Result<(), Fault> {
    let watching = || loop {
        std::thread::sleep(LOOK_IDLE);
        let all: Vec<_> = lock(&ALL).iter().filter_map(Weak::upgrade).collect();
        for credentials in all {
            credentials.look(false);
            credentials.tell_ends();
        }
    };
    thread::start("certificates", watching).map(drop)
}

/// The file that is wrong, and why.
type Wrong = (String, String);

fn load(options: &Options, contents: &Contents) -> Result<Current, Wrong> {
    let mut ends = Vec::new();
    let roots = match &options.trusted_ca {
        Some(path) => {
            let roots = Roots::parse(contents.of(path)).map_err(|why| wrong(path, why))?;
            for root in roots.certificates() {
                let leaf = Leaf::parse(root).map_err(|why| wrong(path, why))?;
                ends.push((CertificateRole::Authority, path.display().to_string(), leaf.not_after));
            }
            roots
        }
        None => gotls::system_roots(),
    };
    let revoked = options
        .revoked
        .as_ref()
        .map(|path| Revoked::parse(contents.of(path)).map_err(|why| wrong(path, why)));
    let trust = Trust { roots, revoked: revoked.transpose()?, allowed: options.allowed.clone() };
    let pair = |files: &Option<PairFiles>, role, ends: &mut Vec<_>| {
        let Some(files) = files else { return Ok(None) };
        let (certificate, key) = (contents.of(&files.certificate), contents.of(&files.key));
        let pair =
            gotls::key_pair(certificate, key).map_err(|why| wrong(&files.certificate, why))?;
        let leaf = Leaf::parse(&pair.cert[0]).map_err(|why| wrong(&files.certificate, why))?;
        ends.push((role, files.certificate.display().to_string(), leaf.not_after));
        Ok::<_, Wrong>(Some(pair))
    };
    let shown = pair(&options.server, CertificateRole::Server, &mut ends)?;
    let own = pair(&options.client, CertificateRole::Client, &mut ends)?;
    let unusable = |why: String| (String::new(), why);
    let server = shown.map(|pair| server_config(options, trust.clone(), pair).map_err(unusable));
    let client = client_config(options, trust, own).map_err(unusable)?;
    Ok(Current { server: server.transpose()?, client, ends })
}

fn wrong(path: &Path, why: String) -> Wrong {
    (path.display().to_string(), why)
}

fn server_config(
    options: &Options,
    trust: Trust,
    pair: Arc<CertifiedKey>,
) -> Result<Arc<ServerConfig>, String> {
    let provider = gotls::provider(&options.suites);
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(options.versions.list())
        .map_err(|error| error.to_string())?;
    let builder = match options.demands_certificates {
        true => builder.with_client_cert_verifier(ClientVerifier::new(provider, trust)),
        false => builder.with_no_client_auth(),
    };
    let mut config = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(pair)));
    config.alpn_protocols = options.protocols.iter().map(|it| it.to_vec()).collect();
    // No resumption: no certificate is verified then, so that one that was revoked would live on.
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    // As Go's servers choose: OpenSSL's clients name AES-256 with SHA-384 first, which costs a tenth of a handshake more.
    config.ignore_client_order = true;
    Ok(Arc::new(config))
}

fn client_config(
    options: &Options,
    trust: Trust,
    pair: Option<Arc<CertifiedKey>>,
) -> Result<Arc<ClientConfig>, String> {
    let provider = gotls::provider(&options.suites);
    let verifier: Arc<dyn rustls::client::danger::ServerCertVerifier> = match options.self_signed {
        true => SkipVerification::new(provider),
        false => ServerVerifier::new(provider, trust),
    };
    let versions = options.versions.list();
    // Only other members are dialed, and they speak no HTTP/2.
    gotls::client_config(&options.suites, versions, verifier, pair, &[b"http/1.1"]).map(Arc::new)
}
