//! Users, roles and permissions: replicated, in the records of etcd's buckets.
//!
//! ```text
//!  entry ─► Auth: users, roles, revision ─publish─► Arc<Permissions> ─► sessions: identities of tokens, checks of reads
//!                        └─► the same Permissions at the index of an entry: checks of its proposer
//! ```
//!
//! [`Auth`] changes with entries of the log alone. Its state is one immutable [`Permissions`], published with the
//! rest of the state, so that a check asks nobody and shares nothing that is written. Tokens are another
//! room's: [`Identified`] is its answer to the question whose one is, and a [`Change`] tells it which of them must go.
//!
//! Rules and the order of errors are those of etcd 3.7 (`server/auth/store.go`, `server/etcdserver/apply/auth.go`), except that
//! a permission that is granted again is always replaced, and that the roles of [`Capability`] exist.

mod builtin;
mod changes;
mod checks;
mod identity;
mod intervals;
mod permissions;
mod provider;

pub use self::builtin::Capability;
pub use self::changes::{Auth, Change, is_enabled};
pub use self::checks::{AttachedKeys, NoAttachedKeys};
pub use self::identity::{AuthInfo, Principal, Source};
pub use self::intervals::Intervals;
pub use self::permissions::{Action, AuthRole, Permissions, User};
pub use self::provider::Identified;

/// The user, and the role, that may do everything.
pub const ROOT: &str = "root";

#[cfg(test)]
mod tests;
