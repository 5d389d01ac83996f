//! What the audit log says of requests, and of which: who asked for what, and what came of it. Neither values nor passwords
//! nor tokens get this far: [`Target::of`] takes keys and names out of a request and nothing else.
//!
//! ```text
//!  request ─► Target: keys, names, ids ─► Rules: is it logged? ─► Record::line ─► a queue, a thread, a file
//! ```

mod record;
mod rules;
mod target;
#[cfg(test)]
mod tests;
mod text;
mod wire;

pub use self::record::Record;
pub use self::rules::{Class, Rules};
pub use self::target::Target;
pub use self::wire::response_revision;
