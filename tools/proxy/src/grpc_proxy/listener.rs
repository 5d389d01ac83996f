//! Listeners and their connections: HTTP/1 and HTTP/2 on one port, with TLS or without.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use gotls::{Allowed, ClientVerifier, Revoked, Roots, Trust};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use rustls::ServerConfig;
use rustls::server::NoServerSessionStorage;
use rustls::sign::SingleCertAndKey;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

use super::options::{Listening, Options, tell_tls};
use super::services::Services;
use crate::limits::{ACCEPT_BACKOFF, HANDSHAKE_TIME_MAX};
use crate::{Failure, SelfSign, info, warn};

/// The parts that every connection needs.
#[derive(Clone)]
pub(super) struct Served {
    pub(super) services: Arc<Services>,
    pub(super) options: Arc<Options>,
}

/// TLS towards clients. The files are read again when they have changed, as certificates are renewed.
pub(super) struct Secured {
    listening: Listening,
    current: Mutex<Current>,
}

#[derive(Default)]
struct Current {
    config: Option<Arc<ServerConfig>>,
    /// When the files were modified.
    modified: Vec<Option<SystemTime>>,
}

impl Secured {
    /// None without TLS. A certificate is made if the flags ask for one.
    ///
    /// # Errors
    /// The certificate cannot be made.
    pub(super) fn new(
        options: &Options,
        self_sign: SelfSign,
    ) -> Result<Option<Arc<Self>>, Failure> {
        let mut listening = options.listening.clone();
        let has_files = [&listening.cert, &listening.key, &listening.trusted_ca];
        if has_files.iter().all(|it| it.is_empty()) {
            let Some(years) = listening.auto_years else { return Ok(None) };
            let dir = Path::new(&listening.data_dir).join("fixtures/proxy");
            let hosts = [options.listen.clone()];
            let (cert, key) = self_sign(&dir, &hosts, years).map_err(Failure::Error)?;
            listening.cert = cert.display().to_string();
            listening.key = key.display().to_string();
        }
        let Listening { cert, key, trusted_ca, .. } = &listening;
        tell_tls("etcdmain/grpc_proxy.go:241", "gRPC proxy server TLS", cert, key, trusted_ca);
        Ok(Some(Arc::new(Self { listening, current: Mutex::default() })))
    }

    /// Itself, after its files have been read once.
    ///
    /// # Errors
    /// A file is wrong.
    pub(super) fn checked(self: Arc<Self>, listener: &TcpListener) -> Result<Arc<Self>, Failure> {
        let failed = |why| {
            Failure::Fatal("etcdmain/grpc_proxy.go:459", "failed to create TLS listener", why)
        };
        if self.listening.cert.is_empty() && self.listening.key.is_empty() {
            return Err(failed(no_files(listener)));
        }
        let config = self.load().map_err(failed)?;
        let modified = self.modified();
        *self.current.lock().expect("no holder panics") =
            Current { config: Some(config), modified };
        Ok(self)
    }

    fn modified(&self) -> Vec<Option<SystemTime>> {
        let Listening { cert, key, trusted_ca, crl, .. } = &self.listening;
        let of = |path: &String| std::fs::metadata(path).and_then(|it| it.modified()).ok();
        [cert, key, trusted_ca, crl].into_iter().map(of).collect()
    }

    /// The configuration of the files as they are; of those before if they are wrong now.
    fn config(&self) -> Option<Arc<ServerConfig>> {
        let modified = self.modified();
        let mut current = self.current.lock().expect("no holder panics");
        if current.modified != modified {
            match self.load() {
                Ok(config) => current.config = Some(config),
                Err(why) => warn(
                    "proxy/listener.rs",
                    "failed to reload certificates; the ones before stay in use",
                )
                .text("error", &why)
                .write(),
            }
            current.modified = modified;
        }
        current.config.clone()
    }

    fn load(&self) -> Result<Arc<ServerConfig>, String> {
        let Listening { cert, key, trusted_ca, crl, suites, versions, .. } = &self.listening;
        if cert.is_empty() || key.is_empty() {
            return Err(format!(
                "KeyFile and CertFile must both be present[key: {key}, cert: {cert}]"
            ));
        }
        let read = |path: &str| dial::files::read(Path::new(path));
        let pair = gotls::key_pair(&read(cert)?, &read(key)?)?;
        let provider = gotls::provider(suites);
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(versions)
            .map_err(|error| error.to_string())?;
        let revoked = (!crl.is_empty()).then(|| Revoked::parse(&read(crl)?)).transpose()?;
        let builder = match trusted_ca.is_empty() {
            true => builder.with_no_client_auth(),
            false => {
                let roots = Roots::parse(&read(trusted_ca)?)?;
                let trust = Trust { roots, revoked, allowed: Allowed::All };
                builder.with_client_cert_verifier(ClientVerifier::new(provider, trust))
            }
        };
        let mut config = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(pair)));
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        // A resumed session shows no certificate, so that one that was revoked would go on being used.
        config.send_tls13_tickets = 0;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        Ok(Arc::new(config))
    }
}

/// The error of a listener that has neither certificate nor key.
fn no_files(listener: &TcpListener) -> String {
    let address = listener.local_addr().map_or_else(|_| String::new(), |it| it.to_string());
    format!("cannot listen on TLS for {address}: KeyFile and CertFile are not presented")
}

/// A listener, with TLS or without.
type Listener = (TcpListener, Option<Arc<Secured>>);

/// The listeners of `--metrics-addr`.
///
/// # Errors
/// An address is wrong or in use.
pub(super) async fn metrics(
    served: &Served,
    secured: Option<&Arc<Secured>>,
) -> Result<Vec<Listener>, Failure> {
    let mut listeners = Vec::new();
    for url in &served.options.metrics {
        let Some((scheme, rest)) = url.split_once("://") else {
            return Err(Failure::Error(format!("cannot parse {}", gocompat::quote::quote(url))));
        };
        let address = rest.split('/').next().unwrap_or_default();
        if !matches!(scheme, "http" | "https") {
            return Err(Failure::Error(format!("listen {scheme}: unknown network {scheme}")));
        }
        let listener = dial::listen(address).await.map_err(Failure::Error)?;
        let secured = match (scheme, secured) {
            ("http", _) => None,
            (_, Some(secured)) => Some(Arc::clone(secured)),
            (_, None) => return Err(Failure::Error(no_files(&listener))),
        };
        listeners.push((listener, secured));
        info("etcdmain/grpc_proxy.go:670", "gRPC proxy listening for metrics")
            .text("address", url)
            .write();
    }
    Ok(listeners)
}

/// Accepts connections without end.
pub(super) async fn serve(listener: TcpListener, secured: Option<Arc<Secured>>, served: Served) {
    loop {
        let Ok((socket, peer)) = listener.accept().await else {
            sleep(ACCEPT_BACKOFF).await;
            continue;
        };
        let _ = socket.set_nodelay(true);
        let (secured, served) = (secured.clone(), served.clone());
        tokio::spawn(async move {
            let peer = peer.to_string();
            match secured {
                None => connection(socket, &served, &peer).await,
                Some(secured) => shake_hands(&secured, socket, &served, &peer).await,
            }
        });
    }
}

async fn shake_hands(secured: &Secured, socket: TcpStream, served: &Served, peer: &str) {
    let Some(config) = secured.config() else { return };
    let accepted = timeout(HANDSHAKE_TIME_MAX, TlsAcceptor::from(config).accept(socket)).await;
    match accepted {
        Ok(Ok(socket)) => connection(socket, served, peer).await,
        Ok(Err(error)) => {
            warn("embed/config_logging.go:169", "rejected connection on client endpoint")
                .text("remote-addr", peer)
                .text("error", &dial::tls::why(&error))
                .write()
        }
        Err(_) => {}
    }
}

async fn connection(
    socket: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    served: &Served,
    peer: &str,
) {
    let options = &served.options;
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HANDSHAKE_TIME_MAX);
    builder
        .http2()
        .timer(TokioTimer::new())
        .initial_connection_window_size(dial::CONNECTION_WINDOW_BYTES)
        .max_concurrent_streams(options.streams_max)
        .keep_alive_interval(options.ping_interval)
        .keep_alive_timeout(options.ping_timeout);
    let peer: Arc<str> = peer.into();
    let service = service_fn(|request| {
        let (services, peer) = (Arc::clone(&served.services), Arc::clone(&peer));
        async move { Ok::<_, std::convert::Infallible>(services.answer(peer, request).await) }
    });
    // An error is the end of this connection alone.
    let _ = builder.serve_connection(TokioIo::new(socket), service).await;
}
