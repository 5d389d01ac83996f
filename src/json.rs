//! Protobuf messages as JSON, as Go's `protojson` reads and writes them, which is the form that etcd's clients use:
//! driven by descriptors alone, so that a new message needs no code here.
//!
//! ```text
//!  bytes ─► Values ─► one JSON value ─► Schema::encode ─► protobuf bytes ─► a service
//!           syntax, in encoding/json's words      types, in protojson's words
//!  JSON  ◄──────────────────────────── Schema::print ◄─── protobuf bytes ◄─┘
//! ```
//!
//! Text is converted to encoded bytes and back directly: no message is built in between, and large values are copied
//! once. Errors have the texts of the Go libraries (`encoding/json` of Go 1.26 and `google.golang.org/protobuf` 1.36),
//! which people and scripts know.

mod base64;
mod number;
mod openapi;
mod print;
mod read;
mod scan;
mod schema;
mod token;
mod values;

pub use self::openapi::{Operation, openapi};
pub use self::print::{Spelling, quote};
pub use self::schema::{MessageId, Schema};
pub use self::values::{Value, Values};

#[cfg(test)]
mod tests;
