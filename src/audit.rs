//! Content of the audit log: which requests are in it, and for each the user, the keys and the outcome. Neither values nor passwords
//! nor tokens get this far: [`Target::of`] takes keys and names out of a request and nothing else.
//!
//! ```text
//!  request ─► Target: keys, names, ids ─► Rules: is it logged? ─► AuditRecord::line ─► a queue, a thread, a file
//! ```

mod record;
mod rules;
mod target;
#[cfg(test)]
mod tests;
mod text;
mod wire;

pub use self::record::AuditRecord;
pub use self::rules::{Class, Rules};
pub use self::target::Target;
pub use self::wire::response_revision;
