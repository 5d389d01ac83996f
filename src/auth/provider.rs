//! The interface of tokens: a provider gives the identity of each.

use super::{AuthInfo, Permissions};
use crate::types::LogIndex;

/// The result of a look at a token.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Identified {
    /// It is this one's.
    Known(AuthInfo),
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
