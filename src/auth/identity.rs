//! The user that makes a request, and the source of that knowledge.

use std::sync::Arc;

use basalt_proto::etcdserverpb::RequestHeader;

use super::Permissions;
use crate::types::LogIndex;

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
pub struct Identity {
    /// The user's name; there may be no such user.
    pub user: Arc<str>,
    /// The auth revision at which the identity was established; never 0.
    pub revision: u64,
    /// How it is known.
    pub source: Source,
}

impl Identity {
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

/// The result of a look at a token.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Identified {
    /// It is this one's.
    Known(Identity),
    /// Nobody's: forged, expired, or taken back.
    Invalid,
    /// It was made by an entry that is not applied here yet: to be asked again once this index is. The asker bounds the wait.
    NotApplied(LogIndex),
}

/// Tells whose a token is. One for a member, asked by all cores.
pub trait TokenProvider: Send + Sync {
    /// Whose this token is. `permissions` are those that the request is judged by: a simple token counts as of their revision.
    fn identify(&self, token: &[u8], permissions: &Permissions) -> Identified;
}

/// No token is anybody's.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoTokens;

impl TokenProvider for NoTokens {
    fn identify(&self, _token: &[u8], _permissions: &Permissions) -> Identified {
        Identified::Invalid
    }
}
