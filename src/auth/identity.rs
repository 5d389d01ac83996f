//! The user that makes a request, and the source of that knowledge.

use std::sync::Arc;

use basalt_proto::etcdserverpb::RequestHeader;

/// How an identity is known.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Source {
    /// By a simple token.
    Token,
    /// By a signed token.
    Jwt,
    /// By the common name of a certificate that was verified.
    CertificateName,
    /// The member itself.
    Internal,
}

/// In whose name a request is made. Nobody is no identity; a certificate without a name makes a user with the empty name,
/// who is somebody.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AuthInfo {
    /// The user's name; there may be no such user.
    pub user: Arc<str>,
    /// The auth revision at which the identity was established; never 0.
    pub revision: u64,
    /// How it is known.
    pub source: Source,
}

impl AuthInfo {
    /// As a check takes it.
    pub fn principal(&self) -> Principal<'_> {
        Principal { user: &self.user, revision: self.revision }
    }
}

/// A user, and the auth revision that the request was made at: what an entry's header says of its proposer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Principal<'a> {
    /// The user's name.
    pub user: &'a str,
    /// Never 0.
    pub revision: u64,
}

impl<'a> Principal<'a> {
    /// The proposer of an entry; nobody if the header names no revision.
    pub fn of(header: &'a RequestHeader) -> Option<Self> {
        let RequestHeader { username, auth_revision, .. } = header;
        (*auth_revision != 0).then_some(Self { user: username, revision: *auth_revision })
    }
}
