//! Errors of calls, with the texts of etcd's Go client.

use basalt_proto::codes::code_name;
use tonic::{Code, Status};

use gocompat::quote::quote;

/// Reason why a call has no response.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) status: Status,
    /// The deadline was exceeded.
    pub(crate) late: bool,
}

impl Refusal {
    /// The server's error; a connection's failure has grpc-go's text.
    pub(crate) fn of(status: Status) -> Self {
        let status = match is_transport(&status) {
            true => Status::unavailable("error reading from server: EOF"),
            false => status,
        };
        Self { status, late: false }
    }

    /// No server answered in time; `dial_error` is the error of the last dial, if one failed.
    pub(crate) fn late(dial_error: &str) -> Self {
        let text = match dial_error {
            "" => "context deadline exceeded".to_owned(),
            why => format!("latest balancer error: connection error: desc = {}", quote(why)),
        };
        Self { status: Status::deadline_exceeded(text), late: true }
    }

    /// The text that etcdctl prints: etcd's own errors by their text, others with their code.
    pub(crate) fn text(&self) -> String {
        match self.late {
            true => "context deadline exceeded".to_owned(),
            false if KNOWN.contains(&self.status.message()) => self.status.message().to_owned(),
            false => self.grpc_text(),
        }
    }

    /// As grpc-go prints a status.
    pub(crate) fn grpc_text(&self) -> String {
        let code = code_name(self.status.code() as i32);
        format!("rpc error: code = {code} desc = {}", self.status.message())
    }

    pub(crate) fn is_permission_denied(&self) -> bool {
        self.status.message() == "etcdserver: permission denied"
    }

    /// True if a new token may help.
    pub(crate) fn is_stale_token(&self) -> bool {
        matches!(
            self.status.message(),
            "etcdserver: user name is empty"
                | "etcdserver: invalid auth token"
                | "etcdserver: revision of auth store is old"
        )
    }
}

/// True if the status is not from a server: the connection broke.
pub(crate) fn is_transport(status: &Status) -> bool {
    std::error::Error::source(status).is_some()
}

/// The text of a reason that came without a status.
pub(crate) fn reason(code: Code, reason: &str) -> String {
    Refusal::of(Status::new(code, reason)).text()
}

/// Texts of etcd's own refusals; others are printed with their code.
const KNOWN: &[&str] = &[
    "etcdserver: Peer URLs already exists",
    "etcdserver: authentication failed, invalid user ID or password",
    "etcdserver: authentication is not enabled",
    "etcdserver: bad leader transferee",
    "etcdserver: can only promote a learner member",
    "etcdserver: can only promote a learner member which is in sync with leader",
    "etcdserver: cluster ID mismatch",
    "etcdserver: cluster has a downgrade job in progress",
    "etcdserver: cluster version not found during downgrade",
    "etcdserver: corrupt cluster",
    "etcdserver: duplicate key given in txn request",
    "etcdserver: given member URLs are invalid",
    "etcdserver: invalid auth management",
    "etcdserver: invalid auth token",
    "etcdserver: invalid downgrade target version",
    "etcdserver: invalid sort option",
    "etcdserver: key is not provided",
    "etcdserver: key not found",
    "etcdserver: leader changed",
    "etcdserver: lease already exists",
    "etcdserver: lease is provided",
    "etcdserver: member ID already exist",
    "etcdserver: member not found",
    "etcdserver: mvcc: database space exceeded",
    "etcdserver: mvcc: required revision has been compacted",
    "etcdserver: mvcc: required revision is a future revision",
    "etcdserver: no inflight downgrade job",
    "etcdserver: no leader",
    "etcdserver: not capable",
    "etcdserver: not leader",
    "etcdserver: permission denied",
    "etcdserver: permission is not granted to the role",
    "etcdserver: re-configuration failed due to not enough started members",
    "etcdserver: request is too large",
    "etcdserver: request timed out",
    "etcdserver: request timed out, possibly due to connection lost",
    "etcdserver: request timed out, possibly due to previous leader failure",
    "etcdserver: requested lease not found",
    "etcdserver: revision of auth store is old",
    "etcdserver: role is not granted to the user",
    "etcdserver: role name already exists",
    "etcdserver: role name is empty",
    "etcdserver: role name not found",
    "etcdserver: root user does not exist",
    "etcdserver: root user does not have root role",
    "etcdserver: rpc not supported for learner",
    "etcdserver: server stopped",
    "etcdserver: too large lease TTL",
    "etcdserver: too many learner members in cluster",
    "etcdserver: too many operations in txn request",
    "etcdserver: too many requests",
    "etcdserver: unhealthy cluster",
    "etcdserver: user name already exists",
    "etcdserver: user name is empty",
    "etcdserver: user name not found",
    "etcdserver: value is provided",
    "etcdserver: wrong downgrade target version format",
];
