//! The caller of a request: what of its metadata goes on to the members.

use std::time::Duration;

use tonic::metadata::MetadataMap;
use tonic::{Code, Request, Status};

/// The version that calls without one of their own are made with, as by etcd's client in the proxy.
const API_VERSION: &str = "3.7";
/// `grpc-timeout` has eight digits at most.
const TIMEOUT_DIGITS_MAX: usize = 8;

/// The caller, and how long it waits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Caller {
    /// The token of a user, which is passed on as it is.
    pub(super) token: Option<String>,
    /// The caller wants an error rather than an answer of a member without a leader.
    pub(super) requires_leader: bool,
    api_version: Option<String>,
    pub(super) timeout: Option<Duration>,
}

impl Caller {
    /// The proxy itself.
    pub(super) fn proxy() -> Self {
        Self::default()
    }

    /// The proxy, with this much time.
    pub(super) fn hasty(timeout: Duration) -> Self {
        Self { timeout: Some(timeout), ..Self::default() }
    }

    pub(super) fn of(metadata: &MetadataMap) -> Self {
        let text = |name: &str| Some(metadata.get(name)?.to_str().ok()?.to_owned());
        Self {
            token: text("token"),
            requires_leader: text("hasleader").as_deref() == Some("true"),
            api_version: text("client-api-version"),
            timeout: text("grpc-timeout").as_deref().and_then(timeout),
        }
    }

    /// The caller of a stream that is shared: without a time.
    pub(super) fn of_stream(token: Option<String>, requires_leader: bool) -> Self {
        Self { token, requires_leader, ..Self::default() }
    }

    /// The same caller of a call that lasts: its stream has a time, calls for it have none.
    pub(super) fn without_time(self) -> Self {
        Self { timeout: None, ..self }
    }

    /// A request to a member in the caller's name.
    pub(super) fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        let metadata = request.metadata_mut();
        let version = self.api_version.as_deref().unwrap_or(API_VERSION);
        if let Ok(version) = version.parse() {
            metadata.insert("client-api-version", version);
        }
        if let Some(token) = self.token.as_ref().and_then(|it| it.parse().ok()) {
            metadata.insert("token", token);
        }
        if self.requires_leader {
            metadata.insert("hasleader", "true".parse().expect("is ASCII"));
        }
        if let Some(timeout) = self.timeout {
            request.set_timeout(timeout);
        }
        request
    }
}

/// A header `grpc-timeout`; one that is none is ignored.
fn timeout(text: &str) -> Option<Duration> {
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if number.is_empty() || number.len() > TIMEOUT_DIGITS_MAX {
        return None;
    }
    let number: u64 = number.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(number * 3600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

/// True if a member refused because of who called.
pub(super) fn is_refusal_of_user(status: &Status) -> bool {
    matches!(status.code(), Code::PermissionDenied | Code::Unauthenticated)
        || status.message() == "etcdserver: user name is empty"
}

/// The status of a call whose time is over.
pub(super) fn too_late() -> Status {
    Status::deadline_exceeded("context deadline exceeded")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_read() {
        assert_eq!(timeout("5S"), Some(Duration::from_secs(5)));
        assert_eq!(timeout("99999999n"), Some(Duration::from_nanos(99_999_999)));
        for wrong in ["", "S", "5", "5x", "999999999S", "5é"] {
            assert_eq!(timeout(wrong), None, "{wrong}");
        }
    }
}
