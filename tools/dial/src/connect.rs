//! Connects to an endpoint as typed: `host:port`, `http://`, `https://`, `unix://`, `unixs://`.

use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;
use tonic::transport::{Channel, Endpoint, Uri};

use crate::preface::{Prefaced, Socket};
use crate::{dns, tls};

/// The smallest ping interval of grpc-go; servers end connections with a smaller one.
const KEEPALIVE_MIN: Duration = Duration::from_secs(10);
/// Bytes of a connection that were received and not read. h2 ends connections with many small DATA frames, of which it
/// allows more the larger this is: some 30,000, one for each message of a burst on one stream.
pub const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;
/// Timeout of a connection attempt.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(20);
/// The peer's text if it was never reached.
pub const NO_PEER: &str = "Peer{Addr: <nil>, LocalAddr: <nil>, AuthInfo: <nil>}";

/// Pings on idle connections, to find that the other side is gone.
#[derive(Clone, Copy, Debug, Default)]
pub struct KeepAlive {
    /// Interval; none without one. grpc-go raises it to ten seconds.
    pub interval: Option<Duration>,
    /// Time for the answer.
    pub timeout: Duration,
    /// Ping without a call in flight, too.
    pub while_idle: bool,
}

/// Makes connections: with TLS or without, the first endpoint decides for all.
#[derive(Clone)]
pub struct Dialer {
    tls: Option<Arc<ClientConfig>>,
    authority: String,
}

/// A connection, and its two ends as the log shows them.
pub struct Link {
    pub channel: Channel,
    pub peer: String,
}

/// An endpoint without its scheme.
pub fn authority(endpoint: &str) -> &str {
    match endpoint.split_once("://") {
        Some((_, rest)) => rest,
        None => {
            let rest = endpoint.strip_prefix("unix:").or(endpoint.strip_prefix("unixs:"));
            rest.unwrap_or(endpoint)
        }
    }
}

fn scheme(endpoint: &str) -> &str {
    match endpoint.split_once(':') {
        Some((scheme @ ("http" | "https" | "unix" | "unixs"), _)) => scheme,
        _ => "",
    }
}

impl Dialer {
    /// `configured` is the TLS configuration from the flags.
    pub fn new(
        first: &str,
        configured: Option<Arc<ClientConfig>>,
        default: impl FnOnce() -> Arc<ClientConfig>,
    ) -> Self {
        let tls = match scheme(first) {
            "http" => None,
            "https" | "unixs" => Some(configured.unwrap_or_else(default)),
            _ => configured,
        };
        let authority = match scheme(first) {
            "unix" | "unixs" => "localhost".to_owned(),
            _ => authority(first).split('/').next().unwrap_or_default().to_owned(),
        };
        Self { tls, authority }
    }

    /// # Errors
    /// grpc-go's error text.
    pub async fn link(&self, keep_alive: KeepAlive, endpoint: &str) -> Result<Link, String> {
        let link = tokio::time::timeout(CONNECT_TIME_MAX, self.try_link(keep_alive, endpoint));
        let late = "transport: Error while dialing: dial tcp: i/o timeout";
        link.await.unwrap_or_else(|_| Err(late.to_owned()))
    }

    async fn try_link(&self, keep_alive: KeepAlive, endpoint: &str) -> Result<Link, String> {
        let (socket, ends) =
            self.socket(endpoint).await.map_err(|it| format!("transport: {it}"))?;
        let (socket, heard) = Prefaced::new(socket);
        let secure = if self.tls.is_some() { "tls" } else { "insecure" };
        let peer = format!("Peer{{{ends}, AuthInfo: '{secure}'}}");
        // The stream below is encrypted already; tonic would refuse https without its own TLS.
        let uri = Endpoint::from_shared(format!("http://{}", self.authority))
            .map_err(|it| format!("transport: {it}"))?;
        let uri = uri.initial_connection_window_size(CONNECTION_WINDOW_BYTES);
        let uri = match keep_alive.interval {
            Some(interval) => uri
                .http2_keep_alive_interval(interval.max(KEEPALIVE_MIN))
                .keep_alive_timeout(keep_alive.timeout)
                .keep_alive_while_idle(keep_alive.while_idle),
            None => uri,
        };
        let channel = uri
            .connect_with_connector(Opened(Some(TokioIo::new(socket))))
            .await
            .map_err(|it| format!("transport: {it}"))?;
        match heard.await {
            Ok(Ok(())) => Ok(Link { channel, peer }),
            Ok(Err(why)) => Err(format!("error reading server preface: {why}")),
            Err(_) => Err("error reading server preface: EOF".to_owned()),
        }
    }

    /// The socket alone, for protocols other than gRPC.
    ///
    /// # Errors
    /// grpc-go's error text.
    pub async fn open(&self, endpoint: &str) -> Result<Box<dyn Socket>, String> {
        self.socket(endpoint).await.map(|it| it.0)
    }

    async fn socket(&self, endpoint: &str) -> Result<(Box<dyn Socket>, String), String> {
        let (socket, name, ends) = match scheme(endpoint) {
            "unix" | "unixs" => {
                let path = authority(endpoint);
                let socket = UnixStream::connect(path).await;
                let socket = socket.map_err(|it| while_dialing(&dial_error("unix", path, &it)))?;
                let name = path.rsplit('/').next().unwrap_or_default();
                let name = name.split(':').next().unwrap_or_default();
                let ends = format!("Addr: '{path}', LocalAddr: '@'");
                (Box::new(socket) as Box<dyn Socket>, name.to_owned(), ends)
            }
            _ => {
                let address = authority(endpoint).split('/').next().unwrap_or_default();
                let socket = tcp(address).await.map_err(|it| while_dialing(&it))?;
                let show = |it: io::Result<std::net::SocketAddr>| {
                    it.map_or_else(|_| "<nil>".to_owned(), |it| format!("'{it}'"))
                };
                let (far, near) = (show(socket.peer_addr()), show(socket.local_addr()));
                let host = address.rsplit_once(':').map_or(address, |it| it.0);
                let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
                let ends = format!("Addr: {far}, LocalAddr: {near}");
                (Box::new(socket) as Box<dyn Socket>, host, ends)
            }
        };
        let Some(tls) = &self.tls else { return Ok((socket, ends)) };
        let failed = |it: &dyn std::fmt::Display| format!("authentication handshake failed: {it}");
        // Certificates have no dot at the end of a name.
        let name = name.strip_suffix('.').unwrap_or(&name).to_owned();
        let name = ServerName::try_from(name).map_err(|it| failed(&it))?;
        let secured = TlsConnector::from(tls.clone()).connect(name, socket).await;
        let secured = secured.map_err(|it| failed(&tls::why(&it)))?;
        Ok((Box::new(secured), ends))
    }
}

/// Connects to `host:port`.
///
/// # Errors
/// Go's text.
pub async fn tcp(address: &str) -> Result<TcpStream, String> {
    let failed = |why: String| format!("dial tcp: {why}");
    let (host, port) = split(address).map_err(failed)?;
    // An empty host is this machine.
    let named = if host.is_empty() { "localhost" } else { host };
    let Ok(found) = tokio::net::lookup_host((named, port)).await else {
        return Err(failed(dns::why_unknown(host).await));
    };
    let mut first = None;
    for address in found {
        match TcpStream::connect(address).await {
            Ok(socket) => {
                let _ = socket.set_nodelay(true);
                return Ok(socket);
            }
            // The error of the first address is returned, as in Go.
            Err(it) => {
                let shown = if host.is_empty() { format!(":{port}") } else { address.to_string() };
                first.get_or_insert(dial_error("tcp", &shown, &it));
            }
        }
    }
    Err(first.unwrap_or_else(|| failed(format!("lookup {host}: no such host"))))
}

/// grpc-go's prefix.
fn while_dialing(why: &str) -> String {
    format!("Error while dialing: {why}")
}

/// Listens on `host:port`; without a host on all addresses.
///
/// # Errors
/// Go's text.
pub async fn listen(address: &str) -> Result<TcpListener, String> {
    let (host, port) = split(address).map_err(|why| format!("listen tcp: {why}"))?;
    let hosts = if host.is_empty() { &["::", "0.0.0.0"][..] } else { &[host][..] };
    let mut failed = String::new();
    for host in hosts {
        match TcpListener::bind((*host, port)).await {
            Ok(listener) => return Ok(listener),
            Err(error) if error.raw_os_error().is_some() => {
                failed = format!("listen tcp {address}: bind: {}", crate::files::why(&error));
            }
            Err(_) => failed = format!("listen tcp: {}", dns::why_unknown(host).await),
        }
    }
    Err(failed)
}

/// Host and port, which follows the last colon.
///
/// # Errors
/// Go's error text.
fn split(address: &str) -> Result<(&str, u16), String> {
    let wrong = |why: &str| Err(format!("address {address}: {why} in address"));
    let Some((host, port)) = address.rsplit_once(':') else { return wrong("missing port") };
    let host = match host.strip_prefix('[').map(|it| it.strip_suffix(']')) {
        Some(Some(host)) => host,
        Some(None) if address.contains("]:") => return wrong("too many colons"),
        Some(None) if address.contains(']') => return wrong("missing port"),
        Some(None) => return wrong("missing ']'"),
        None if host.contains(':') => return wrong("too many colons"),
        None => host,
    };
    match port.parse() {
        Ok(number) => Ok((host, number)),
        Err(_) if port.is_empty() => Ok((host, 0)),
        Err(_) if port.bytes().all(|it| it.is_ascii_digit()) => {
            Err(format!("address {port}: invalid port"))
        }
        Err(_) => Err(format!("lookup tcp/{port}: unknown port")),
    }
}

fn dial_error(network: &str, address: &str, error: &io::Error) -> String {
    let why = crate::files::why(error);
    format!("dial {network} {address}: connect: {why}")
}

/// Returns the open socket to tonic; a second call returns none.
struct Opened(Option<TokioIo<Prefaced>>);

impl tower_service::Service<Uri> for Opened {
    type Response = TokioIo<Prefaced>;
    type Error = io::Error;
    type Future = std::future::Ready<Result<Self::Response, io::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), io::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        std::future::ready(self.0.take().ok_or_else(|| io::ErrorKind::NotConnected.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_taken_apart_as_go_does() {
        for (address, host, port) in
            [("a:1", "a", 1), ("[::1]:65535", "::1", 65535), (":2", "", 2), ("a:", "a", 0)]
        {
            assert_eq!(split(address), Ok((host, port)));
        }
        for (address, why) in [
            ("a", "address a: missing port in address"),
            ("[::1]", "address [::1]: missing port in address"),
            ("[::1", "address [::1: missing ']' in address"),
            ("[::1]:2:3", "address [::1]:2:3: too many colons in address"),
            ("::1:2", "address ::1:2: too many colons in address"),
            ("a:99999", "address 99999: invalid port"),
            ("a:b", "lookup tcp/b: unknown port"),
        ] {
            assert_eq!(split(address), Err(why.to_owned()));
        }
    }
}
