//! Simple tokens, in etcd's format: sixteen random letters, a dot, and the index of the entry that made the token. Unlike
//! etcd's they are part of the replicated state, so that they are valid on every member, and after restarts and changes of
//! the leader. Only hashes of the letters are in the log and in the store: whoever reads those has no token.
//!
//! ```text
//!  entries ─► TokenStore: bounded for each user, in the store ─► TokenTable: shared by all cores, which look tokens up
//!  members ◄─ TokenRenew, TokenSweep ◄──────────────────────  and note that one was used
//! ```
//!
//! Times are ms since 1970, and arguments. A token that is used is renewed at once where that is seen, and for the other
//! members by an entry, now and then, for all tokens together.

mod format;
mod replicated;
mod table;
#[cfg(test)]
mod tests;

pub use self::format::{TokenHash, fingerprint, hash, letters, parse, token};
pub use self::replicated::TokenStore;
pub use self::table::{Token, TokenTable};
