//! The headers that a service sees: the token, headers sent with the prefix `Grpc-Metadata-`, and common ones with the
//! prefix `grpcgateway-`, which also shows that the request came through the gateway.

use std::sync::Arc;
use std::time::Duration;

use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::http::request::Parts;
use tonic::Status;

use crate::rpc::timeout;
use crate::types::limits::GATEWAY_TIMEOUT_MAX;

/// Headers that are passed on with a prefix.
const COMMON: &[&str] = &[
    "accept",
    "accept-charset",
    "accept-language",
    "accept-ranges",
    "authorization",
    "cache-control",
    "content-type",
    "cookie",
    "date",
    "expect",
    "from",
    "host",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-schedule-tag-match",
    "if-unmodified-since",
    "max-forwards",
    "origin",
    "pragma",
    "referer",
    "user-agent",
    "via",
    "warning",
];

/// The headers of the gRPC request.
pub(super) fn of(head: &Parts, peer: &Arc<str>) -> HeaderMap {
    let mut metadata = HeaderMap::new();
    metadata.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    metadata.insert(header::TE, HeaderValue::from_static("trailers"));
    for (name, value) in &head.headers {
        if name == header::AUTHORIZATION {
            metadata.append(name, value.clone());
        }
        let name = match name.as_str().strip_prefix("grpc-metadata-") {
            Some(name) => name.to_owned(),
            None if COMMON.contains(&name.as_str()) => format!("grpcgateway-{name}"),
            None => continue,
        };
        let Ok(handed_on) = HeaderName::try_from(name) else { continue };
        // The headers of framing and timeout are set here.
        let is_ours = [header::CONTENT_TYPE, header::TE, header::CONTENT_LENGTH]
            .contains(&handed_on)
            || handed_on == "grpc-timeout";
        let is_plain = value.as_bytes().iter().all(|byte| (0x20..0x7f).contains(byte));
        if is_plain && !is_ours {
            metadata.append(handed_on, value.clone());
        }
    }
    let host = head.headers.get("x-forwarded-host").or_else(|| head.headers.get(header::HOST));
    if let Some(host) = host {
        metadata.insert("x-forwarded-host", host.clone());
    }
    let before = head.headers.get_all("x-forwarded-for").iter().filter_map(|it| it.to_str().ok());
    let here = peer.rsplit_once(':').map(|(address, _)| address.trim_matches(['[', ']']));
    let way: Vec<_> = before.chain(here).collect();
    if let Ok(way) = HeaderValue::try_from(way.join(", ")) {
        metadata.insert("x-forwarded-for", way);
    }
    metadata
}

/// The client's timeout: `Grpc-Timeout`, digits and a unit.
///
/// # Errors
/// The value is malformed.
pub(super) fn timeout(headers: &HeaderMap) -> Result<Option<Duration>, Status> {
    let Some(value) = headers.get("grpc-timeout") else { return Ok(None) };
    let text = String::from_utf8_lossy(value.as_bytes()).into_owned();
    match decoded(&text) {
        // A timer is kept until it expires: distant ones are not worth it.
        Some(timeout) => Ok(Some(timeout).filter(|timeout| *timeout <= GATEWAY_TIMEOUT_MAX)),
        None => Err(Status::invalid_argument(format!("invalid grpc-timeout: {text}"))),
    }
}

/// Go's `ParseInt`, which reads the number here, accepts a sign.
fn decoded(text: &str) -> Option<Duration> {
    timeout::parse(text.strip_prefix('+').unwrap_or(text)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_see_the_token_and_what_is_meant_for_them() {
        let mut request = hyper::Request::builder().header("host", "a:1");
        for (name, value) in [
            ("authorization", "token"),
            ("grpc-metadata-hasleader", "true"),
            ("grpc-metadata-content-type", "x"),
            ("grpc-metadata-grpc-timeout", "1n"),
            ("x-other", "no"),
            ("x-forwarded-for", "10.0.0.1"),
        ] {
            request = request.header(name, value);
        }
        let head = request.body(()).expect("a request").into_parts().0;
        let metadata = of(&head, &Arc::from("10.0.0.2:55"));
        let found = |name: &str| metadata.get(name).and_then(|value| value.to_str().ok());
        assert_eq!(found("authorization"), Some("token"));
        assert_eq!(found("grpcgateway-authorization"), Some("token"));
        assert_eq!(found("hasleader"), Some("true"));
        assert_eq!(found("content-type"), Some("application/grpc"));
        assert_eq!(found("x-forwarded-for"), Some("10.0.0.1, 10.0.0.2"));
        assert_eq!(found("x-forwarded-host"), Some("a:1"));
        assert_eq!((found("x-other"), found("grpc-timeout")), (None, None));
    }

    #[test]
    fn timeouts_are_digits_and_a_unit() {
        assert_eq!(decoded("5S"), Some(Duration::from_secs(5)));
        assert_eq!(decoded("100m"), Some(Duration::from_millis(100)));
        for wrong in ["", "S", "5", "5x", "-5S", "5é"] {
            assert_eq!(decoded(wrong), None, "{wrong}");
        }
    }
}
