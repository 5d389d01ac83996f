//! Sockets under [`crate::http2`]: dials endpoints, with TLS where asked for, and moves bytes.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::stream::{StreamExt as _, TryStreamExt as _, iter};
use prost::Message;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;

use crate::http2::{Connection, Event, Failure};

/// One read takes at most this much; a list of 500 KB then needs few system calls.
const READ_BYTES: usize = 256 << 10;
const DIAL_TIMEOUT_DEFAULT: Duration = Duration::from_secs(5);
/// Connections of one thread that are dialed at once.
const DIALS_MAX: usize = 128;

/// A stream of bytes in both directions, with or without TLS.
trait Socket: AsyncRead + AsyncWrite + Unpin {}
impl<T: AsyncRead + AsyncWrite + Unpin> Socket for T {}

/// Where to connect and how. Shared by all threads.
#[derive(Clone)]
pub struct Dialer {
    /// As given: `host:port`, `http://host:port` or `https://host:port`.
    pub endpoints: Vec<String>,
    /// For `https://` endpoints, and for all when certificates were given.
    pub tls: Option<Arc<tokio_rustls::rustls::ClientConfig>>,
    /// True if endpoints without a scheme use TLS.
    pub secure: bool,
    /// Sent with every call.
    pub metadata: Vec<(String, String)>,
    /// Zero means [`DIAL_TIMEOUT_DEFAULT`].
    pub timeout: Duration,
    /// Endpoints from the last member list; empty as long as none was read.
    pub members: Arc<Mutex<Vec<String>>>,
}

impl Dialer {
    /// Connects to the endpoints of these numbers, many at a time; the channels in their order.
    ///
    /// # Errors
    /// One of them has no connection within the timeout.
    pub async fn dial_all(&self, numbers: impl Iterator<Item = usize>) -> io::Result<Vec<Channel>> {
        iter(numbers).map(|number| self.dial(number)).buffered(DIALS_MAX).try_collect().await
    }

    /// Connects to the endpoint of this number, modulo their count, and waits until the server's
    /// settings have been received.
    ///
    /// # Errors
    /// There is no connection within the timeout.
    pub async fn dial(&self, number: usize) -> io::Result<Channel> {
        let limit = if self.timeout.is_zero() { DIAL_TIMEOUT_DEFAULT } else { self.timeout };
        let endpoint = &self.endpoint(number);
        match tokio::time::timeout(limit, self.dial_endpoint(endpoint)).await {
            Ok(Ok(channel)) => Ok(channel),
            Ok(Err(error)) => Err(io::Error::new(error.kind(), format!("{endpoint}: {error}"))),
            Err(_) => {
                let what = format!("{endpoint}: no connection within {limit:?}");
                Err(io::Error::new(io::ErrorKind::TimedOut, what))
            }
        }
    }

    fn endpoint(&self, number: usize) -> String {
        let members = self.members.lock().unwrap_or_else(PoisonError::into_inner);
        let all = if members.is_empty() { &self.endpoints } else { &*members };
        all[number % all.len()].clone()
    }

    async fn dial_endpoint(&self, endpoint: &str) -> io::Result<Channel> {
        let (authority, secure) = split(endpoint, self.secure);
        let socket = TcpStream::connect(authority).await?;
        socket.set_nodelay(true)?;
        let socket: Box<dyn Socket> = match (&self.tls, secure) {
            (Some(config), true) => {
                let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
                let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
                let name = ServerName::try_from(host).map_err(io::Error::other)?;
                Box::new(TlsConnector::from(Arc::clone(config)).connect(name, socket).await?)
            }
            (None, true) => return Err(io::Error::other("https needs certificates")),
            (_, false) => Box::new(socket),
        };
        let mut channel = Channel {
            socket,
            connection: Connection::new(authority, secure, self.metadata.clone()),
            buffer: vec![0; READ_BYTES].into(),
        };
        while !channel.connection.is_settled() {
            channel.turn(&mut |_| ()).await?;
        }
        Ok(channel)
    }
}

/// The authority of an endpoint, and true if it wants TLS.
fn split(endpoint: &str, secure: bool) -> (&str, bool) {
    match endpoint.split_once("://") {
        Some((scheme, authority)) => (authority.trim_end_matches('/'), scheme == "https"),
        None => (endpoint, secure),
    }
}

/// A connection with its socket.
pub struct Channel {
    socket: Box<dyn Socket>,
    /// Opens calls; its output is sent by the next [`Self::turn`].
    pub connection: Connection,
    buffer: Box<[u8]>,
}

impl Channel {
    /// Writes the output and reads the input. Ready after bytes were received.
    ///
    /// # Errors
    /// The connection cannot be used any more.
    pub fn poll_turn(
        &mut self,
        context: &mut Context<'_>,
        on: &mut impl FnMut(Event<'_>),
    ) -> Poll<io::Result<()>> {
        while !self.connection.outgoing().is_empty() {
            let sent = Pin::new(&mut self.socket).poll_write(context, self.connection.outgoing());
            match sent {
                Poll::Ready(Ok(bytes)) => self.connection.sent(bytes),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => break,
            }
        }
        // A TLS stream buffers; on a plain socket this does nothing.
        if let Poll::Ready(Err(error)) = Pin::new(&mut self.socket).poll_flush(context) {
            return Poll::Ready(Err(error));
        }
        let mut buffer = ReadBuf::new(&mut self.buffer);
        match Pin::new(&mut self.socket).poll_read(context, &mut buffer) {
            Poll::Ready(Ok(())) if buffer.filled().is_empty() => {
                let what = "the server closed the connection";
                Poll::Ready(Err(io::Error::new(io::ErrorKind::UnexpectedEof, what)))
            }
            Poll::Ready(Ok(())) => {
                let taken = self.connection.receive(buffer.filled(), on);
                Poll::Ready(taken.map_err(io::Error::other))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => Poll::Pending,
        }
    }

    /// [`Self::poll_turn`] as a future.
    ///
    /// # Errors
    /// The connection cannot be used any more.
    pub async fn turn(&mut self, on: &mut impl FnMut(Event<'_>)) -> io::Result<()> {
        poll_fn(|context| self.poll_turn(context, on)).await
    }

    /// One call with one response, with nothing else on this channel.
    ///
    /// # Errors
    /// The status is not OK, or the connection failed.
    pub async fn call<R: Message + Default>(
        &mut self,
        path: &'static str,
        request: &impl Message,
    ) -> Result<R, Failure> {
        while !self.connection.can_open() {
            if self.connection.is_leaving() {
                return Err(Failure::unavailable("the server is going away"));
            }
            self.turn(&mut |_| ()).await.map_err(|error| lost(&error))?;
        }
        self.connection.open(0, path, &request.encode_to_vec(), true);
        let mut answer = None;
        let mut outcome = None;
        while outcome.is_none() {
            let mut on = |event: Event<'_>| match event {
                Event::Message { body, .. } => answer = Some(R::decode(body)),
                Event::End { outcome: end, .. } => outcome = Some(end),
            };
            self.turn(&mut on).await.map_err(|error| lost(&error))?;
        }
        match (outcome, answer) {
            (Some(Err(failure)), _) => Err(failure),
            (_, Some(Ok(answer))) => Ok(answer),
            (_, Some(Err(error))) => Err(Failure::unavailable(error.to_string())),
            (_, None) => Err(Failure::unavailable("status OK without an answer")),
        }
    }
}

/// The failure of calls whose connection broke.
pub fn lost(error: &io::Error) -> Failure {
    Failure::unavailable(format!("connection lost: {error}"))
}

#[cfg(test)]
mod tests {
    use super::split;

    #[test]
    fn endpoints_may_name_their_scheme() {
        assert_eq!(split("127.0.0.1:2379", false), ("127.0.0.1:2379", false));
        assert_eq!(split("127.0.0.1:2379", true), ("127.0.0.1:2379", true));
        assert_eq!(split("http://a:1/", true), ("a:1", false));
        assert_eq!(split("https://[::1]:2", false), ("[::1]:2", true));
    }
}
