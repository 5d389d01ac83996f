//! Sockets: accepting, spreading connections over executors, and hyper on top.
//!
//! One port speaks HTTP/2 (gRPC, with prior knowledge) and HTTP/1: the first bytes of a connection tell which.

use std::cell::RefCell;
use std::future::Future;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_lite::{AsyncRead, AsyncReadExt as _, AsyncWrite};
use glommio::net::{AcceptedTcpStream, TcpListener, TcpStream};
use hyper::body::{Body, Incoming};
use hyper::rt::ReadBufCursor;
use hyper::service::Service;

use super::clock;
use crate::types::Fault;

/// What an HTTP/2 connection begins with (RFC 9113, 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// How long a connection may take to say what it speaks.
const PREFACE_TIME: Duration = Duration::from_secs(10);
/// Bytes read at once; shared by all connections of an executor.
const READ_BYTES: usize = 64 << 10;
/// Bytes a client may send ahead on one stream, and on all streams of a connection.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;
/// Bytes of answers waiting for one connection's socket.
const SEND_BUFFER: usize = 1 << 20;
/// Connections on their way to an executor; past it accepting waits.
const HANDOVERS_MAX: usize = 1024;

/// A connection on its way to its executor.
pub struct Connection(AcceptedTcpStream);

/// A socket that listens. Belongs to the executor that made it.
pub struct Listener(TcpListener);

/// Listens on `host:port`.
///
/// # Errors
/// The address is taken or not this machine's.
pub fn listen(address: &str) -> Result<Listener, Fault> {
    let cannot = |error: String| Fault::new(format!("listen tcp {address}: {error}"));
    let mut found = address.to_socket_addrs().map_err(|error| cannot(error.to_string()))?;
    let resolved: SocketAddr = found.next().ok_or_else(|| cannot("no such address".to_owned()))?;
    TcpListener::bind(resolved).map(Listener).map_err(|error| cannot(error.to_string()))
}

/// The two ends of the way to one executor.
pub fn handover() -> (flume::Sender<Connection>, flume::Receiver<Connection>) {
    flume::bounded(HANDOVERS_MAX)
}

impl Listener {
    /// Accepts for ever, giving each connection to the next executor.
    pub async fn accept(self, executors: Vec<flume::Sender<Connection>>) {
        for to in executors.iter().cycle() {
            match self.0.shared_accept().await {
                Ok(stream) => {
                    if to.send_async(Connection(stream)).await.is_err() {
                        return;
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    clock::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
}

/// How HTTP/2 is spoken.
#[derive(Clone, Copy, Debug)]
pub struct Http2 {
    /// `--max-concurrent-streams`.
    pub streams_max: u32,
    /// `--grpc-keepalive-interval`; zero for none.
    pub keep_alive: Duration,
    /// `--grpc-keepalive-timeout`.
    pub keep_alive_timeout: Duration,
}

/// Serves a connection on this executor until it ends.
pub async fn serve<S, B>(connection: Connection, http2: Http2, service: S)
where
    S: Service<hyper::Request<Incoming>, Response = hyper::Response<B>> + Clone + 'static,
    S::Future: 'static,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    B: Body + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let mut stream = connection.0.bind_to_executor();
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let Some(Some(begin)) = clock::deadline(PREFACE_TIME, begin(&mut stream)).await else { return };
    let speaks_http2 = begin.starts_with(b"PRI");
    let socket = Socket { stream, begin };
    if speaks_http2 {
        let mut builder = hyper::server::conn::http2::Builder::new(Local);
        builder
            .timer(Clock)
            .max_concurrent_streams(http2.streams_max)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_send_buf_size(SEND_BUFFER)
            .keep_alive_timeout(http2.keep_alive_timeout);
        if !http2.keep_alive.is_zero() {
            builder.keep_alive_interval(http2.keep_alive);
        }
        drop(builder.serve_connection(socket, service).await);
    } else {
        let mut builder = hyper::server::conn::http1::Builder::new();
        builder.timer(Clock).header_read_timeout(PREFACE_TIME);
        drop(builder.serve_connection(socket, service).await);
    }
}

/// Reads until it is clear what the client speaks; `None` if it hangs up before.
async fn begin(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut begin = vec![0; PREFACE.len()];
    let mut length = 0;
    while length < PREFACE.len() && PREFACE.starts_with(&begin[..length]) {
        match stream.read(&mut begin[length..]).await {
            Ok(read) if read > 0 => length += read,
            Ok(_) | Err(_) => return None,
        }
    }
    begin.truncate(length);
    Some(begin)
}

/// A glommio stream as hyper wants it, with what was read of it already.
struct Socket {
    stream: TcpStream,
    begin: Vec<u8>,
}

thread_local! {
    static READ: RefCell<Vec<u8>> = RefCell::new(vec![0; READ_BYTES]);
}

impl hyper::rt::Read for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        mut into: ReadBufCursor<'_>,
    ) -> Poll<std::io::Result<()>> {
        if !self.begin.is_empty() {
            let count = self.begin.len().min(into.remaining());
            into.put_slice(&self.begin[..count]);
            self.begin.drain(..count);
            return Poll::Ready(Ok(()));
        }
        // Read into a buffer that all connections share and copy what came: hyper's own is not initialised,
        // and a copy of what is mostly a few hundred bytes is cheaper than filling it with zeros.
        READ.with_borrow_mut(|buffer| {
            let room = into.remaining().min(READ_BYTES);
            let read = ready!(Pin::new(&mut self.stream).poll_read(context, &mut buffer[..room]))?;
            into.put_slice(&buffer[..read]);
            Poll::Ready(Ok(()))
        })
    }
}

impl hyper::rt::Write for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_close(context)
    }
}

/// Runs hyper's tasks on this executor.
#[derive(Clone, Copy)]
struct Local;

impl<F: Future + 'static> hyper::rt::Executor<F> for Local {
    fn execute(&self, task: F) {
        super::spawn(async move {
            // Let the connection read on first, so that answers gather and leave in one write.
            futures_lite::future::yield_now().await;
            task.await;
        });
    }
}

/// hyper's clock.
#[derive(Clone, Copy)]
struct Clock;

struct Timer(clock::Sleep);

impl Future for Timer {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        Pin::new(&mut self.0).poll(context)
    }
}

impl hyper::rt::Sleep for Timer {}

impl hyper::rt::Timer for Clock {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn hyper::rt::Sleep>> {
        Box::pin(Timer(clock::sleep(duration)))
    }

    fn sleep_until(&self, deadline: std::time::Instant) -> Pin<Box<dyn hyper::rt::Sleep>> {
        self.sleep(deadline.duration_since(self.now()))
    }
}
