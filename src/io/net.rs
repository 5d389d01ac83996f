//! Sockets: listening, accepting, spreading connections over executors, and hyper on top.
//!
//! ```text
//!  Listener ─accept─► Connection ─handover (bounded)─► executor ─serve─► HTTP/2 (gRPC) or HTTP/1
//!      └ waits while descriptors lack                         │ chosen by the first bytes of a connection
//!                                                             └─► UpgradedIo: another protocol, by an HTTP/1 upgrade
//! ```
//!
//! A connection is given to the executor that has the fewest: the kernel's own distribution by hash is uneven for the
//! few and busy connections that gRPC clients open, and round robin becomes uneven as soon as some of them have closed.
//! Of equals the first is chosen, which runs consensus: a single client there waits for no other core.

mod address;
mod answer;
mod dialer;
mod drive;
mod guard;
mod hyper_io;
mod merge;
mod open;
mod output;
mod progress;
mod scheduler;
mod secure;
mod socket;
#[cfg(test)]
mod tests;
mod upgraded;
mod wire;

use std::future::{Future, poll_fn};
use std::os::fd::AsFd as _;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_lite::future::yield_now;
use hyper::body::{Body, Incoming};
use hyper::server::conn::{http1, http2};
use hyper::service::Service;

use self::answer::BoundedService;
pub use self::answer::MayStall;
use self::drive::until_closed;
use self::guard::Guard;
use self::hyper_io::{Clock, Socket};
use self::open::{ConnectionCount, ConnectionPermit, OpenSlot, log_accept_failed, turned_away};
use self::output::Duplex;
use self::scheduler::{ConnectionScheduler, Handle};
use self::socket::{Stream, end_after};
use super::clock::{self, Instant};
use super::descriptors::Lane;
use super::reactor;
use super::tls::{HANDSHAKE_TIME, PeerCertificate, Session};
use crate::types::Fault;

pub use self::address::Address;
pub use self::dialer::Dialer;
pub use self::open::{Closing, close_connections};
pub use self::progress::{ClientKind, UnsentBytes, request_is_late, set_stall_time, stall_time};
pub use self::secure::Secure;
pub use self::upgraded::UpgradedIo;
pub use self::wire::{Wire, resolve};

/// First bytes of an HTTP/2 connection (RFC 9113, 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// How long a connection may take to say what it speaks, the handshake of TLS included.
const PREFACE_TIME: Duration = HANDSHAKE_TIME;
/// How long one may take that may only ask for health, and the beginnings of such questions.
const PROBE_TIME: Duration = Duration::from_secs(1);
const PROBES: [&[u8]; 4] = [b"GET /health", b"GET /livez", b"GET /readyz", b"GET /metrics"];
/// Timeout of an HTTP/1 client's next request, idle time included; longer than the scrape interval of monitoring systems.
const HTTP1_TIME: Duration = Duration::from_secs(150);
/// Bytes a client may send ahead on one stream, and on all streams of a connection.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;
/// Bytes of responses queued for one stream.
const SEND_BUFFER: usize = 1 << 20;
/// Bytes of one request's headers.
const HEADERS_MAX: u32 = 64 << 10;
/// Streams that a client opened and reset before they were handled; more is an attack (CVE-2023-44487). Clients that
/// cancel all their requests at once must not look like one.
const RESETS_MAX: usize = 1024;
/// Connections that the kernel may queue until they are accepted, if its own limit allows as many.
const BACKLOG: i32 = 4096;
/// Connections queued for an executor; past it accepting waits.
const HANDOVERS_MAX: usize = 1024;
/// Time for which another member may leave bytes unacknowledged until its connection ends. The kernel by itself would
/// retransmit for a quarter of an hour.
const PEER_SILENCE_MAX: Duration = Duration::from_secs(20);
/// Pause before accepting is tried again after it failed, or while too many connections are open.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// An accepted connection that is sent to its executor.
pub struct Connection {
    stream: Accepted,
    port: usize,
    permit: ConnectionPermit,
    began: Instant,
    identity: Identity,
}

/// An accepted socket on its way to an executor.
struct Accepted {
    socket: reactor::Accepted,
    is_unix: bool,
    /// TLS over it, whose handshake is done.
    session: Option<Box<Session>>,
}

/// The identity of the other end, by TLS.
#[derive(Clone, Default)]
struct Identity {
    is_secure: bool,
    certificate: Option<Arc<PeerCertificate>>,
}

impl Connection {
    /// Opens it on this executor; `None` if its client has disconnected already. glommio's own call to ask an accepted
    /// socket for its peer fails then and closes the socket, and so does the socket's owner again, when the descriptor
    /// may be that of another connection or file.
    pub fn open(self) -> Option<OpenConnection> {
        let Self { stream, port, permit, began, identity } = self;
        let stream = bind(stream)?;
        Some(OpenConnection { stream, port, permit, began, identity })
    }
}

/// A connection on its executor.
pub struct OpenConnection {
    stream: Stream,
    port: usize,
    permit: ConnectionPermit,
    began: Instant,
    identity: Identity,
}

impl OpenConnection {
    /// The number that was given to [`Listener::accept`].
    pub fn port(&self) -> usize {
        self.port
    }

    /// The address of the other end; `@` for a unix socket, as Go prints it.
    pub fn peer(&self) -> String {
        match self.stream.tcp() {
            Some(stream) => stream.peer_addr().map_or_else(|_| String::new(), |it| it.to_string()),
            None => "@".to_owned(),
        }
    }

    /// Tells if it is encrypted.
    pub fn is_secure(&self) -> bool {
        self.identity.is_secure
    }

    /// The certificate that the other end has shown and that was verified; nothing without one.
    pub fn certificate(&self) -> Option<Arc<PeerCertificate>> {
        self.identity.certificate.clone()
    }

    /// The time left of the timeout for a connection's first bytes.
    fn preface_time(&self, whole: Duration) -> Duration {
        whole.saturating_sub(self.began.elapsed())
    }
}

/// A listening socket. Belongs to the executor that made it.
pub struct Listener(Listening);

enum Listening {
    Tcp(reactor::Listener),
    Unix(reactor::Listener),
}

/// Listens.
///
/// # Errors
/// The address is in use, or not this machine's.
pub fn listen(address: &Address) -> Result<Listener, Fault> {
    match address {
        Address::Tcp(address) => listen_tcp(address),
        Address::Unix(path) => listen_unix(path),
    }
}

/// glommio's own way to bind lets other processes bind the same port, and is refused while connections of an
/// earlier run linger; std's is right in both.
fn listen_tcp(address: &str) -> Result<Listener, Fault> {
    let cannot = |error: std::io::Error| {
        let in_use = error.kind() == std::io::ErrorKind::AddrInUse;
        let error =
            if in_use { "bind: address already in use".to_owned() } else { error.to_string() };
        Fault::new(format!("listen tcp {address}: {error}"))
    };
    let listener = std::net::TcpListener::bind(address).map_err(cannot)?;
    rustix::net::listen(&listener, BACKLOG).map_err(|error| cannot(error.into()))?;
    Ok(Listener(Listening::Tcp(reactor::Listener::new(listener.into()).map_err(cannot)?)))
}

fn listen_unix(path: &str) -> Result<Listener, Fault> {
    // A socket file of an earlier run blocks the path; a member that still listens there has locked the data directory,
    // so that this code is not reached.
    drop(std::fs::remove_file(path));
    let cannot = |error: &dyn std::fmt::Display| Fault::new(format!("listen unix {path}: {error}"));
    let listener = std::os::unix::net::UnixListener::bind(path).map_err(|error| cannot(&error))?;
    rustix::net::listen(&listener, BACKLOG).map_err(|error| cannot(&error))?;
    let listener = reactor::Listener::new(listener.into()).map_err(|error| cannot(&error))?;
    Ok(Listener(Listening::Unix(listener)))
}

/// The queue of connections of one executor. Cheap to clone.
#[derive(Clone)]
pub struct ConnectionSender {
    to: flume::Sender<Connection>,
    share: ConnectionCount,
}

/// The two ends of the queue of one executor.
pub fn handover() -> (ConnectionSender, flume::Receiver<Connection>) {
    let (to, connections) = flume::bounded(HANDOVERS_MAX);
    (ConnectionSender { to, share: ConnectionCount::default() }, connections)
}

impl Listener {
    /// Accepts connections of a lane, giving each to the executor with the fewest, marked with `port`. Ends when this
    /// executor closes its connections, or another one is gone: who connects to a member that stops is refused
    /// at once and goes elsewhere, instead of being taken and then dropped. With `secure` a handshake comes before that.
    pub async fn accept(
        self,
        lane: Lane,
        port: usize,
        executors: Vec<ConnectionSender>,
        secure: Option<Secure>,
    ) {
        let secure = secure.map(|secure| secure.on(lane, port, executors.clone()));
        let slot = OpenSlot::take();
        loop {
            let next =
                async { (ConnectionPermit::enter(lane, ACCEPT_PAUSE).await, self.next().await) };
            let Some((permit, stream)) = slot.or_closing(next).await else { return };
            // Thousands may come at once.
            yield_now().await;
            if let Some(secure) = &secure {
                secure.take(stream, permit).await;
                continue;
            }
            let Some(sender) = executors.iter().min_by_key(|it| it.share.count()) else { return };
            let permit = permit.with(&sender.share);
            let (began, identity) = (Instant::now(), Identity::default());
            let connection = Connection { stream, port, permit, began, identity };
            if sender.to.send_async(connection).await.is_err() {
                return;
            }
        }
    }

    async fn next(&self) -> Accepted {
        loop {
            match self.try_next().await {
                Ok(stream) => return stream,
                Err(error) => {
                    log_accept_failed(&error);
                    clock::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    async fn try_next(&self) -> Result<Accepted, String> {
        let (accepted, is_unix) = match &self.0 {
            Listening::Tcp(listener) => (listener.accept().await, false),
            Listening::Unix(listener) => (listener.accept().await, true),
        };
        let socket = accepted.map_err(|error| error.to_string())?;
        Ok(Accepted { socket, is_unix, session: None })
    }
}

/// Options of HTTP/2.
#[derive(Clone, Copy, Debug)]
pub struct Http2 {
    /// `--max-concurrent-streams`.
    pub streams_max: u32,
    /// Streams of all connections of an executor.
    pub streams_of_executor_max: usize,
    /// Bytes of answers that HTTP/2 may keep for all connections of an executor until new streams are refused.
    pub unsent_max: usize,
    /// `--grpc-keepalive-min-time`: the least time between two pings of a client.
    pub ping_min: Duration,
    /// `--grpc-keepalive-interval`; zero for none.
    pub keep_alive: Duration,
    /// `--grpc-keepalive-timeout`.
    pub keep_alive_timeout: Duration,
}

/// Serves a connection on this executor until it ends. After the end of HTTP/1 the connection is passed to `switched`:
/// if a response was `101 Switching Protocols`, the client uses another protocol from here on.
pub async fn serve<S, B, F>(
    connection: OpenConnection,
    options: Http2,
    service: S,
    switched: impl FnOnce(UpgradedIo) -> F,
) where
    S: Service<hyper::Request<Incoming>, Response = hyper::Response<B>> + Clone + Unpin + 'static,
    S::Future: Unpin + 'static,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    B: Body<Data = Bytes> + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    F: Future<Output = ()>,
{
    // Held until the connection ends.
    let whole_time = connection.preface_time(PREFACE_TIME);
    let OpenConnection { mut stream, mut permit, .. } = connection;
    let slot = OpenSlot::take();
    let time = if permit.is_spare() { PROBE_TIME } else { whole_time };
    let begin = clock::deadline(time, begin(&mut stream, PREFACE));
    let begin = slot.or_closing(begin).await.flatten().flatten();
    let is_probe = |begin: &Vec<u8>| PROBES.iter().any(|probe| begin.starts_with(probe));
    let is_spare = permit.is_spare();
    if is_spare && !begin.as_ref().is_some_and(is_probe) {
        return turned_away();
    }
    let Some(begin) = begin else { return };
    let speaks_http2 = begin.starts_with(b"PRI");
    if let Some(stream) = stream.tcp() {
        // A client that reads a response of HTTP/1 may pause.
        let silence = if speaks_http2 { options.keep_alive_timeout } else { stall_time() };
        // Refused by no kernel that has the option, and of no harm if it is.
        let _ = end_after(stream.as_fd(), silence);
    }
    let (turn, stream) = (ConnectionScheduler::new(), Duplex::new(stream));
    let socket = Socket::new(stream.clone(), begin, turn.handle());
    if speaks_http2 {
        let now = Duration::from_millis(clock::now_ms());
        stream.judge(Guard::new(options.ping_min, now));
        let builder = http2_builder(options, turn.handle());
        let (streams_max, unsent_max) = (options.streams_of_executor_max, options.unsent_max);
        let service =
            BoundedService::new(service, turn.handle().flow().clone(), streams_max, unsent_max);
        let serving = pin!(builder.serve_connection(socket.with_frames(), service));
        until_closed(&slot, turn, stream, serving, http2::Connection::graceful_shutdown).await;
    } else {
        let mut builder = http1::Builder::new();
        builder
            .timer(Clock)
            .header_read_timeout(if is_spare { PROBE_TIME } else { HTTP1_TIME })
            .keep_alive(!is_spare)
            .max_buf_size(HEADERS_MAX as usize)
            // As Go writes them, for scripts that grep.
            .title_case_headers(true);
        let mut serving = builder.serve_connection(socket, service);
        let pinned = Pin::new(&mut serving);
        until_closed(&slot, turn, stream, pinned, http1::Connection::graceful_shutdown).await;
        let parts = serving.into_parts();
        // Ends by itself when the executor closes.
        switched(UpgradedIo::new(parts.io, parts.read_buf)).await;
    }
}

/// Serves a connection to the peer port: from another member, which begins with `magic`, or HTTP/1.
pub async fn serve_peer<S, B, F>(
    connection: OpenConnection,
    magic: &'static [u8],
    service: S,
    member: impl FnOnce(Wire) -> F,
) where
    S: Service<hyper::Request<Incoming>, Response = hyper::Response<B>> + Clone + 'static,
    S::Future: 'static,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    B: Body + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    F: Future<Output = ()>,
{
    let time = connection.preface_time(PREFACE_TIME);
    let OpenConnection { mut stream, permit, .. } = connection;
    let begin = clock::deadline(time, begin(&mut stream, magic)).await;
    let Some(Some(begin)) = begin else { return };
    if begin == magic {
        member(Wire::accepted(stream, permit)).await;
        return;
    }
    let slot = OpenSlot::take();
    let mut builder = http1::Builder::new();
    builder.timer(Clock).header_read_timeout(HTTP1_TIME).max_buf_size(HEADERS_MAX as usize);
    builder.title_case_headers(true);
    let (turn, stream) = (ConnectionScheduler::new(), Duplex::new(stream));
    let socket = Socket::new(stream.clone(), begin, turn.handle());
    let serving = pin!(builder.serve_connection(socket, service));
    until_closed(&slot, turn, stream, serving, http1::Connection::graceful_shutdown).await;
}

fn http2_builder(options: Http2, turn: Handle) -> http2::Builder<Handle> {
    let mut builder = http2::Builder::new(turn);
    builder
        .timer(Clock)
        .max_concurrent_streams(options.streams_max)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .max_header_list_size(HEADERS_MAX)
        .max_pending_accept_reset_streams(RESETS_MAX)
        // gRPC does not use it, and etcd sends none.
        .auto_date_header(false);
    if !options.keep_alive.is_zero() {
        builder.keep_alive_interval(options.keep_alive);
        builder.keep_alive_timeout(options.keep_alive_timeout);
    }
    builder
}

/// Opens an accepted socket on this executor; `None` if its client has disconnected already.
fn bind(accepted: Accepted) -> Option<Stream> {
    let Accepted { socket, is_unix, session } = accepted;
    let stream = Stream::of(socket.bind().ok()?, is_unix).ok()?;
    Some(match session {
        Some(session) => stream.secured(session),
        None => stream,
    })
}

/// Reads until it is clear whether the client begins with `preface`; `None` if it hangs up before.
async fn begin(stream: &mut Stream, preface: &[u8]) -> Option<Vec<u8>> {
    let mut begin = vec![0; preface.len()];
    let mut length = 0;
    while length < preface.len() && preface.starts_with(&begin[..length]) {
        let read = poll_fn(|context| stream.poll_read(context, &mut begin[length..]));
        match read.await {
            Ok(read) if read > 0 => length += read,
            Ok(_) | Err(_) => return None,
        }
    }
    begin.truncate(length);
    Some(begin)
}
