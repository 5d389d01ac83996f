//! The gateway over a websocket, for clients such as browsers that cannot otherwise send while they receive: each
//! message is a part of a POST's body, each line of the response a message. Handles an upgrade of any path below `/v3/`
//! as etcd's proxy does (tmc/grpc-websocket-proxy).
//!
//! ```text
//!  messages ─► Talk ─► body of a POST ─► gateway
//!     ▲          │                          │
//!     └──────────┴◄── a line, a message ◄───┘
//! ```
//!
//! A unary call gets its request at the end of the body, as over HTTP: over a websocket, never. The end of the response
//! closes the connection, without a close frame, and the end of the connection ends the call.

use std::future::{Future, poll_fn};
use std::io::{self, Read, Write};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::{Buf as _, Bytes, BytesMut};
use flume::r#async::SendFut;
use futures_lite::StreamExt as _;
use http_body_util::StreamBody;
use hyper::body::{Body as _, Frame};
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, Request, Response, StatusCode, Version};
use sha1::{Digest as _, Sha1};
use tonic::body::Body;
use tungstenite::protocol::{Message, Role, WebSocket, WebSocketConfig};

use super::gateway::Caller;
use super::{gateway, text};
use crate::io::UpgradedIo;
use crate::rpc::Services;
use crate::types::limits::{JSON_OVERHEAD_MAX, WEBSOCKET_READ_BYTES};

/// Constant that is hashed with a client's key, to confirm the websocket (RFC 6455, 1.3).
const MAGIC: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// The cookie with a browser's token, which cannot set headers.
const TOKEN_COOKIE: &str = "token";
/// Headers of the upgrade that are copied to the request.
const HANDED_ON: [HeaderName; 2] = [header::ORIGIN, header::REFERER];

/// A granted upgrade, before its messages.
pub(super) struct Accepted {
    head: Parts,
    path: String,
}

/// True if this request asks for an upgrade to a websocket.
pub(super) fn is_wanted(head: &Parts) -> bool {
    head.version == Version::HTTP_11
        && has_token(&head.headers, &header::CONNECTION, "upgrade")
        && has_token(&head.headers, &header::UPGRADE, "websocket")
}

fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|it| it.trim().eq_ignore_ascii_case(token))
}

/// The response to the upgrade, and its continuation if it is granted.
pub(super) fn accept(head: &Parts, path: &str) -> (Response<Body>, Option<Accepted>) {
    let refused = |status: StatusCode| {
        let reason = status.canonical_reason().unwrap_or_default();
        let mut response = text(status, format!("{reason}\n"));
        let version = HeaderValue::from_static("13");
        response.headers_mut().insert(header::SEC_WEBSOCKET_VERSION, version);
        (response, None)
    };
    if head.method != Method::GET {
        return refused(StatusCode::METHOD_NOT_ALLOWED);
    }
    let is_13 = has_token(&head.headers, &header::SEC_WEBSOCKET_VERSION, "13");
    let key = head.headers.get(header::SEC_WEBSOCKET_KEY).filter(|_| is_13);
    let Some(key) = key.filter(|key| is_key(key.as_bytes())) else {
        return refused(StatusCode::BAD_REQUEST);
    };
    let proof = Sha1::new().chain_update(key).chain_update(MAGIC).finalize();
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    if let Ok(proof) = HeaderValue::try_from(BASE64_STANDARD.encode(proof)) {
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, proof);
    }
    if protocol(&head.headers).is_some_and(|protocol| protocol.starts_with("Bearer")) {
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static("Bearer"));
    }
    let accepted = posted(head).map(|head| Accepted { head, path: path.to_owned() });
    (response, accepted)
}

/// True for sixteen bytes in base64.
fn is_key(key: &[u8]) -> bool {
    BASE64_STANDARD.decode(key).is_ok_and(|key| key.len() == 16)
}

fn protocol(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::SEC_WEBSOCKET_PROTOCOL)?.to_str().ok()
}

/// The request of which the messages are the body. Its token is sent as a protocol, `Bearer, <token>`, or as a cookie.
fn posted(head: &Parts) -> Option<Parts> {
    let mut request = Request::new(());
    *request.method_mut() = Method::POST;
    *request.uri_mut() = head.uri.clone();
    let headers = request.headers_mut();
    for name in HANDED_ON {
        if let Some(value) = head.headers.get(&name) {
            headers.insert(name, value.clone());
        }
    }
    let from_protocol = protocol(&head.headers).map(|protocol| {
        let token = protocol.split_once("Bearer,").map(|(_, token)| token.trim_matches(' '));
        token.map_or_else(String::new, |token| format!("Bearer {token}"))
    });
    let from_cookie = cookie(&head.headers).map(|token| format!("Bearer {token}"));
    if let Some(authorization) = from_cookie.or(from_protocol) {
        headers.insert(header::AUTHORIZATION, HeaderValue::try_from(authorization).ok()?);
    }
    Some(request.into_parts().0)
}

fn cookie(headers: &HeaderMap) -> Option<&str> {
    let lines = headers.get_all(header::COOKIE).iter().filter_map(|line| line.to_str().ok());
    let mut pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.split_once('='));
    let (_, value) = pairs.find(|(name, _)| name.trim() == TOKEN_COOKIE)?;
    Some(value.trim().trim_matches('"'))
}

/// Transfers messages between call and connection until one of both ends.
pub(super) async fn talk(
    services: Services,
    caller: Caller,
    accepted: Accepted,
    connection: UpgradedIo,
) {
    // One message waits to be read by the gateway; then the connection is not read, and TCP pushes back.
    let (requests, body) = flume::bounded::<Bytes>(1);
    let frames = body.into_stream().map(|piece| Ok::<_, tonic::Status>(Frame::data(piece)));
    let bytes_max = services.receive_max().saturating_mul(JSON_OVERHEAD_MAX);
    let answer = Box::pin(async move {
        let Accepted { head, path } = accepted;
        let body = Body::new(StreamBody::new(frames));
        gateway::answer(&services, &caller, &head, &path, body).await
    });
    let config = WebSocketConfig::default()
        .read_buffer_size(WEBSOCKET_READ_BYTES)
        .write_buffer_size(0)
        .max_message_size(Some(bytes_max))
        .max_frame_size(Some(bytes_max));
    let frames = WebSocket::from_raw_socket(Memory::default(), Role::Server, Some(config));
    let mut talk = Talk {
        connection,
        frames,
        requests,
        sending: None,
        answer: Answer::Awaited(answer),
        is_over: false,
        buffer: vec![0; WEBSOCKET_READ_BYTES],
    };
    // However it ends, there is no one to report to.
    let _ = poll_fn(|context| talk.poll(context)).await;
}

/// The buffers between socket and frames: received bytes, and bytes to send.
#[derive(Default)]
struct Memory {
    came: BytesMut,
    leaving: BytesMut,
}

impl Read for Memory {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.came.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let count = self.came.len().min(into.len());
        self.came.copy_to_slice(&mut into[..count]);
        Ok(count)
    }
}

impl Write for Memory {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.leaving.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// State of the gateway's response.
enum Answer {
    Awaited(Pin<Box<dyn Future<Output = Response<Body>>>>),
    /// The body, and the beginning of a line of it.
    Read(Body, BytesMut),
}

/// One call over one connection.
struct Talk {
    connection: UpgradedIo,
    frames: WebSocket<Memory>,
    requests: flume::Sender<Bytes>,
    /// A message that is being sent to the body.
    sending: Option<SendFut<'static, Bytes>>,
    answer: Answer,
    /// Only buffered bytes are still to be sent.
    is_over: bool,
    buffer: Vec<u8>,
}

impl Talk {
    /// Sends, answers and reads, in this order: while a client does not take sent bytes, nothing more is sent or read,
    /// so that nothing accumulates here.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(self.poll_send(context))?;
            if self.is_over {
                return Poll::Ready(Ok(()));
            }
            if let Poll::Ready(line) = self.poll_line(context) {
                match line {
                    Some(line) => self.say(&line),
                    None => self.is_over = true,
                }
                continue;
            }
            if let Some(sending) = &mut self.sending {
                // A call that reads no more requests may still answer.
                let _ = ready!(Pin::new(sending).poll(context));
                self.sending = None;
            }
            ready!(self.poll_read(context))?;
        }
    }

    fn poll_send(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let leaving = &mut self.frames.get_mut().leaving;
        while !leaving.is_empty() {
            let sent = ready!(self.connection.poll_write(context, leaving))?;
            leaving.advance(sent);
        }
        Poll::Ready(Ok(()))
    }

    /// The next line of the response that is not empty.
    fn poll_line(&mut self, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        loop {
            let (body, begun) = match &mut self.answer {
                Answer::Awaited(answer) => {
                    let answer = ready!(answer.as_mut().poll(context));
                    self.answer = Answer::Read(answer.into_body(), BytesMut::new());
                    continue;
                }
                Answer::Read(body, begun) => (body, begun),
            };
            if let Some(end) = begun.iter().position(|byte| *byte == b'\n') {
                let line = begun.split_to(end).freeze();
                begun.advance(1);
                if !line.is_empty() {
                    return Poll::Ready(Some(line));
                }
                continue;
            }
            match ready!(Pin::new(body).poll_frame(context)) {
                Some(Ok(frame)) => {
                    begun.extend_from_slice(frame.data_ref().map_or(&[][..], |data| &data[..]));
                }
                Some(Err(_)) | None => {
                    let rest = begun.split().freeze();
                    return Poll::Ready(Some(rest).filter(|rest| !rest.is_empty()));
                }
            }
        }
    }

    fn say(&mut self, line: &[u8]) {
        let text = String::from_utf8_lossy(line).into_owned();
        // It fails when the client has closed, which the next read detects.
        let _ = self.frames.send(Message::text(text));
    }

    /// Reads one message, or some bytes of it. Pings are answered by `frames`.
    fn poll_read(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.frames.read() {
            Ok(message @ (Message::Text(_) | Message::Binary(_))) => {
                let mut piece = BytesMut::from(&message.into_data()[..]);
                piece.extend_from_slice(b"\n");
                self.sending = Some(self.requests.clone().into_send_async(piece.freeze()));
            }
            Ok(Message::Ping(_) | Message::Pong(_) | Message::Close(_) | Message::Frame(_)) => (),
            Err(tungstenite::Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                let count = ready!(self.connection.poll_read(context, &mut self.buffer))?;
                self.is_over = count == 0;
                self.frames.get_mut().came.extend_from_slice(&self.buffer[..count]);
            }
            // Closed, or an invalid frame.
            Err(_) => self.is_over = true,
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(headers: &[(&str, &str)]) -> Parts {
        let request =
            headers.iter().fold(Request::builder().uri("/v3/watch"), |it, (name, value)| {
                it.header(*name, *value)
            });
        request.body(()).expect("a request").into_parts().0
    }

    const UPGRADE: [(&str, &str); 4] = [
        ("connection", "keep-alive, Upgrade"),
        ("upgrade", "WebSocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];

    #[test]
    fn an_upgrade_is_proved_as_the_standard_says() {
        let head = head(&UPGRADE);
        assert!(is_wanted(&head));
        let (response, accepted) = accept(&head, "/v3/watch");
        assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
        let proof = response.headers().get("sec-websocket-accept").expect("a proof");
        // The example of RFC 6455, 1.3.
        assert_eq!(proof, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert!(accepted.is_some());
    }

    #[test]
    fn invalid_handshakes_are_refused() {
        assert!(!is_wanted(&head(&UPGRADE[..1])));
        for left_out in [2, 3] {
            let mut headers = UPGRADE.to_vec();
            headers.remove(left_out);
            let (response, accepted) = accept(&head(&headers), "/v3/watch");
            assert_eq!(response.status(), StatusCode::BAD_REQUEST);
            assert!(accepted.is_none());
        }
    }

    #[test]
    fn a_token_comes_as_a_protocol_or_as_a_cookie() {
        let token = |headers: &[(&str, &str)]| {
            let posted = posted(&head(headers)).expect("a request");
            let value = posted.headers.get(header::AUTHORIZATION);
            value.map(|value| value.to_str().expect("text").to_owned())
        };
        assert_eq!(token(&[]), None);
        assert_eq!(token(&[("authorization", "x")]), None);
        let protocol = ("sec-websocket-protocol", "Bearer,a.b");
        assert_eq!(token(&[protocol]).as_deref(), Some("Bearer a.b"));
        assert_eq!(token(&[("sec-websocket-protocol", "chat")]).as_deref(), Some(""));
        let cookie = ("cookie", "x=y; token=c.d");
        assert_eq!(token(&[protocol, cookie]).as_deref(), Some("Bearer c.d"));
    }
}
