//! How other members are reached at their URLs: plainly, or with TLS.

use std::io::{Error, ErrorKind, Result};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::os::fd::OwnedFd;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};

use super::Address;
use super::wire::Wire;
use crate::io::clock::Instant;
use crate::io::tls::{Options, TlsCredentials};

/// Dials other members.
#[derive(Clone, Debug, Default)]
pub struct Dialer(Option<Arc<TlsCredentials>>);

impl Dialer {
    /// With what flags say of the side of members, if they say anything.
    pub fn new(credentials: Option<Arc<TlsCredentials>>) -> Self {
        Self(credentials)
    }

    /// The credentials to dial with. Without flags: the system's roots and no certificate, as in etcd.
    fn credentials(&self) -> Result<Arc<TlsCredentials>> {
        static USUAL: OnceLock<Option<Arc<TlsCredentials>>> = OnceLock::new();
        let usual = || {
            let options = Options { kind: "peer", ..Options::default() };
            USUAL.get_or_init(|| TlsCredentials::open(options).ok()).clone()
        };
        let unusable = || Error::other("the certificates that the system trusts cannot be read");
        self.0.clone().or_else(usual).ok_or_else(unusable)
    }

    /// Connects to the first address of a URL that answers within `wait`, and makes the handshake of TLS within as long.
    ///
    /// # Errors
    /// None does, or it is not who it should be.
    pub async fn dial(&self, url: &str, wait: Duration) -> Result<Wire> {
        let address = Address::of_url(url);
        if !is_secure(url) {
            return Wire::dial(&address, wait).await;
        }
        let (credentials, name) = (self.credentials()?, server_name(&address)?);
        let plain = Wire::dial(&address, wait).await?;
        let secured = plain.secure(&credentials, name, wait).await;
        if let Err(error) = &secured {
            tracing::warn!(url, %error, "failed to make a TLS handshake with a member");
        }
        secured
    }

    /// Asks another member over HTTP: head and body of what `path` gives, within `wait` for each of its addresses to
    /// connect, and another `wait` for the answer. Blocks: not for executors.
    ///
    /// # Errors
    /// Nobody is there, or answers too late or with anything but 200.
    pub fn get(
        &self,
        url: &str,
        path: &str,
        wait: Duration,
    ) -> std::result::Result<(String, String), String> {
        let text = |error: Error| error.to_string();
        let address = Address::of_url(url);
        let (stream, host) = connect(&address, wait).map_err(text)?;
        if !is_secure(url) {
            return ask(&mut Plain(stream), &host, path, wait);
        }
        let config = self.credentials().map_err(text)?.client();
        let name = server_name(&address).map_err(text)?;
        let connection = ClientConnection::new(config, name).map_err(|it| it.to_string())?;
        // Each read that the handshake takes, too, ends in time.
        stream.set_read_timeout(Some(wait)).map_err(text)?;
        let told = ask(&mut StreamOwned::new(connection, stream), &host, path, wait);
        told.map_err(|why| format!("tls: {why}"))
    }
}

fn is_secure(url: &str) -> bool {
    url.starts_with("https:") || url.starts_with("unixs:")
}

/// The name that the certificate of who is dialed must be valid for.
fn server_name(address: &Address) -> Result<ServerName<'static>> {
    let host = match address {
        Address::Tcp(name) => name.rsplit_once(':').map_or(name.as_str(), |(host, _)| host),
        Address::Unix(path) => {
            let last = path.rsplit('/').next().unwrap_or(path);
            last.split(':').next().unwrap_or(last)
        }
    };
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    ServerName::try_from(host).map_err(|error| Error::new(ErrorKind::InvalidInput, error))
}

/// A socket to the first address that answers, and the host for HTTP. Unix sockets behave the same from here on.
fn connect(address: &Address, wait: Duration) -> Result<(TcpStream, String)> {
    let name = match address {
        Address::Tcp(name) => name,
        Address::Unix(socket) => {
            let stream = std::os::unix::net::UnixStream::connect(socket)?;
            return Ok((OwnedFd::from(stream).into(), "localhost".to_owned()));
        }
    };
    let mut last = Error::other(format!("{address} has no address"));
    for address in name.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, wait) {
            Ok(stream) => return Ok((stream, address.to_string())),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// A stream for HTTP whose reads have a timeout.
trait Asked: std::io::Read + std::io::Write {
    fn socket(&self) -> &TcpStream;
}

struct Plain(TcpStream);

impl std::io::Read for Plain {
    fn read(&mut self, into: &mut [u8]) -> Result<usize> {
        self.0.read(into)
    }
}

impl std::io::Write for Plain {
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> Result<()> {
        self.0.flush()
    }
}

impl Asked for Plain {
    fn socket(&self) -> &TcpStream {
        &self.0
    }
}

impl Asked for StreamOwned<ClientConnection, TcpStream> {
    fn socket(&self) -> &TcpStream {
        &self.sock
    }
}

fn ask(
    stream: &mut impl Asked,
    host: &str,
    path: &str,
    wait: Duration,
) -> std::result::Result<(String, String), String> {
    let text = |error: Error| error.to_string();
    let late = || text(ErrorKind::TimedOut.into());
    let began = Instant::now();
    stream.socket().set_write_timeout(Some(wait)).map_err(text)?;
    let ask = format!("GET {path} HTTP/1.0\r\nHost: {host}\r\n\r\n");
    stream.write_all(ask.as_bytes()).map_err(text)?;
    let (mut answer, mut piece) = (Vec::new(), [0; ANSWER_PIECE_BYTES]);
    while answer.len() < ANSWER_BYTES_MAX {
        // A peer that sends a byte at times must not block the caller for ever.
        let left = wait.checked_sub(began.elapsed()).filter(|left| !left.is_zero());
        stream.socket().set_read_timeout(Some(left.ok_or_else(late)?)).map_err(text)?;
        match stream.read(&mut piece) {
            Ok(0) => break,
            Ok(count) => answer.extend_from_slice(&piece[..count]),
            // TLS that was not closed in order; HTTP tells if something is missing.
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => break,
            Err(error) => return Err(text(error)),
        }
    }
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    match head.split(' ').nth(1) {
        Some("200") => Ok((head.to_owned(), body.to_owned())),
        _ => Err(head.lines().next().unwrap_or_default().to_owned()),
    }
}

/// Bytes of an answer of another member's HTTP side.
const ANSWER_BYTES_MAX: usize = 1 << 20;
/// Bytes of it that are read at once.
const ANSWER_PIECE_BYTES: usize = 8 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_are_valid_for_the_host_of_the_url() {
        let name =
            |url: &str| server_name(&Address::of_url(url)).map(|it| it.to_str().into_owned());
        for (url, host) in [
            ("https://a.example:2380", "a.example"),
            ("https://127.0.0.1:2380", "127.0.0.1"),
            ("https://[::1]:2380", "::1"),
            ("unixs://localhost:1", "localhost"),
            ("unixs:///run/peer.sock", "peer.sock"),
        ] {
            assert_eq!(name(url).ok().as_deref(), Some(host), "{url}");
        }
        assert!(is_secure("https://a:1") && !is_secure("http://a:1") && !is_secure("unix://a"));
    }
}
