//! The identity of a token, as those who know tokens give it.

use super::AuthInfo;
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
