//! A query to one server and its answer: by UDP, and by TCP if it does not fit.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use super::message::{CANNOT_UNMARSHAL, Message, UDP_BYTES_MAX};
use super::system::System;
use crate::files::why;

const INVALID: &str = "invalid DNS response";

/// # Errors
/// Go's text without the name and the server.
pub(super) async fn exchange(
    system: &System,
    server: SocketAddr,
    query: &[u8],
) -> Result<Vec<u8>, String> {
    if !system.tcp_only {
        let answer = over_udp(server, query, system.timeout).await?;
        let message = Message::new(&answer).ok_or(CANNOT_UNMARSHAL)?;
        if !message.has_one_question() {
            return Err(INVALID.to_owned());
        }
        if !message.is_cut_short() {
            return Ok(answer);
        }
    }
    let answer = over_tcp(server, query, system.timeout).await?;
    let message = Message::new(&answer).ok_or(CANNOT_UNMARSHAL)?;
    match message.is_answer_to(query) && message.has_one_question() {
        true => Ok(answer),
        false => Err(INVALID.to_owned()),
    }
}

async fn over_udp(server: SocketAddr, query: &[u8], time: Duration) -> Result<Vec<u8>, String> {
    let any = if server.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let no_dial = |it: io::Error| format!("dial udp {server}: connect: {}", why(&it));
    let socket = UdpSocket::bind(any).await.map_err(no_dial)?;
    socket.connect(server).await.map_err(no_dial)?;
    let ends = Ends { network: "udp", near: socket.local_addr().ok(), far: server };
    let work = async {
        socket.send(query).await.map_err(|it| ends.failed("write", &it))?;
        let mut answer = vec![0; UDP_BYTES_MAX.into()];
        loop {
            let size = socket.recv(&mut answer).await.map_err(|it| ends.failed("read", &it))?;
            // Other datagrams may be forged.
            if Message::new(&answer[..size]).is_some_and(|it| it.is_answer_to(query)) {
                answer.truncate(size);
                return Ok(answer);
            }
        }
    };
    timeout(time, work).await.unwrap_or_else(|_| Err(ends.late("read")))
}

async fn over_tcp(server: SocketAddr, query: &[u8], time: Duration) -> Result<Vec<u8>, String> {
    let mut ends = Ends { network: "tcp", near: None, far: server };
    let dialed = timeout(time, TcpStream::connect(server)).await;
    let dialed = dialed.map_err(|_| ends.late("dial"))?;
    let mut stream = dialed.map_err(|it| format!("dial tcp {server}: connect: {}", why(&it)))?;
    ends.near = stream.local_addr().ok();
    let work = async {
        let length = u16::try_from(query.len()).expect("a question is short").to_be_bytes();
        let framed = [&length, query].concat();
        stream.write_all(&framed).await.map_err(|it| ends.failed("write", &it))?;
        let length = stream.read_u16().await.map_err(|it| ends.failed("read", &it))?;
        let mut answer = vec![0; length.into()];
        stream.read_exact(&mut answer).await.map_err(|it| ends.failed("read", &it))?;
        Ok(answer)
    };
    timeout(time, work).await.unwrap_or_else(|_| Err(ends.late("read")))
}

/// Both ends of a connection, for Go's error text.
struct Ends {
    network: &'static str,
    near: Option<SocketAddr>,
    far: SocketAddr,
}

impl Ends {
    fn failed(&self, deed: &str, error: &io::Error) -> String {
        if error.kind() == io::ErrorKind::UnexpectedEof {
            return "EOF".to_owned();
        }
        format!("{}: {deed}: {}", self.doing(deed), why(error))
    }

    fn late(&self, deed: &str) -> String {
        format!("{}: i/o timeout", self.doing(deed))
    }

    fn doing(&self, deed: &str) -> String {
        let near = self.near.map(|it| format!("{it}->")).unwrap_or_default();
        format!("{deed} {} {near}{}", self.network, self.far)
    }
}
