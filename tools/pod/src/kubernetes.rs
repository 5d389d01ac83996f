//! The one question to the API server: how many pods the set shall have.

use std::path::PathBuf;

use bytes::Bytes;
use dial::tls::{self, Security};
use dial::{Dialer, Socket};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::header::{ACCEPT, AUTHORIZATION, HOST};
use hyper::{Request, Response, StatusCode, body::Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::time::timeout;

use crate::limits::{API_BYTES_MAX, API_TIME_MAX};

/// The API server, and the files of this pod's service account.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Api {
    pub(crate) url: String,
    pub(crate) account: PathBuf,
    pub(crate) set: String,
}

impl Api {
    /// The number of pods that the set shall have.
    ///
    /// # Errors
    /// The API server cannot be asked, or does not tell: also if there is no such set any more.
    pub(crate) async fn replicas(&self) -> Result<u32, String> {
        let asking = timeout(API_TIME_MAX, self.ask());
        asking.await.unwrap_or_else(|_| Err("no answer in time".to_owned()))
    }

    async fn ask(&self) -> Result<u32, String> {
        let namespace = self.file("namespace")?;
        let path = format!(
            "/apis/apps/v1/namespaces/{}/statefulsets/{}/scale",
            namespace.trim(),
            self.set
        );
        let ca = self.account.join("ca.crt");
        let is_secure = self.url.starts_with("https://");
        let security = Security {
            cacert: if is_secure { ca.display().to_string() } else { String::new() },
            insecure_transport: !is_secure,
            ..Security::default()
        };
        let dialer = Dialer::new(&self.url, tls::config(&security)?, tls::default);
        let socket = dialer.open(&self.url).await?;
        // HTTP/2 takes the host from the URL.
        let request = match is_secure {
            true => Request::get(format!("{}{path}", self.url)),
            false => Request::get(path).header(HOST, dial::authority(&self.url)),
        };
        let request = request
            .header(ACCEPT, "application/json")
            // It changes while the pod runs.
            .header(AUTHORIZATION, format!("Bearer {}", self.file("token")?.trim()))
            .body(Empty::<Bytes>::new())
            .map_err(|error| error.to_string())?;
        let (status, body) = exchange(socket, is_secure, request).await?;
        if status != StatusCode::OK {
            return Err(format!("{status}: {}", String::from_utf8_lossy(&body).trim()));
        }
        replicas_in(&body)
    }

    fn file(&self, name: &str) -> Result<String, String> {
        let path = self.account.join(name);
        std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))
    }
}

/// HTTP/2 is agreed on in the handshake of TLS; without TLS it is HTTP/1.1.
async fn exchange(
    socket: Box<dyn Socket>,
    is_secure: bool,
    request: Request<Empty<Bytes>>,
) -> Result<(StatusCode, Bytes), String> {
    let text = |error: hyper::Error| error.to_string();
    let io = TokioIo::new(socket);
    if is_secure {
        let made = hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await;
        let (mut sender, connection) = made.map_err(text)?;
        let connection = tokio::spawn(connection);
        let answer = read(sender.send_request(request).await.map_err(text)?).await;
        connection.abort();
        return answer;
    }
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.map_err(text)?;
    let connection = tokio::spawn(connection);
    let answer = read(sender.send_request(request).await.map_err(text)?).await;
    connection.abort();
    answer
}

async fn read(response: Response<Incoming>) -> Result<(StatusCode, Bytes), String> {
    let status = response.status();
    let body = Limited::new(response.into_body(), API_BYTES_MAX).collect().await;
    Ok((status, body.map_err(|error| error.to_string())?.to_bytes()))
}

/// `spec.replicas` of a Scale; a field that is missing is 0 there.
fn replicas_in(body: &[u8]) -> Result<u32, String> {
    let scale: serde_json::Value =
        serde_json::from_slice(body).map_err(|error| error.to_string())?;
    if scale["kind"] != "Scale" {
        return Err(format!("the answer is a {}, not a Scale", scale["kind"]));
    }
    let number = &scale["spec"]["replicas"];
    if number.is_null() {
        return Ok(0);
    }
    let replicas = number.as_u64().and_then(|it| u32::try_from(it).ok());
    replicas.ok_or_else(|| format!("replicas are {number}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replicas_are_read_from_a_scale_alone() {
        assert_eq!(replicas_in(br#"{"kind":"Scale","spec":{"replicas":5}}"#), Ok(5));
        assert_eq!(replicas_in(br#"{"kind":"Scale","spec":{}}"#), Ok(0));
        for wrong in
            ["", "{}", r#"{"kind":"Scale","spec":{"replicas":-1}}"#, r#"{"kind":"Status"}"#]
        {
            assert!(replicas_in(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }
}
