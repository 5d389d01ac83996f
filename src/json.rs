//! Protobuf messages as JSON, the way Go's `protojson` reads and writes them, which is what etcd's clients
//! see: driven by descriptors alone, so that a message that is added needs nothing here.
//!
//! ```text
//!  bytes ─► Values ─► one JSON value ─► Schema::encode ─► protobuf bytes ─► a service
//!           syntax, in encoding/json's words      types, in protojson's words
//!  JSON  ◄──────────────────────────── Schema::print ◄─── protobuf bytes ◄─┘
//! ```
//!
//! Both ways go straight from text to encoded bytes and back: no message is built in between, and large values
//! are copied once. What is wrong is told in the words of the Go libraries (`encoding/json` of Go 1.26 and
//! `google.golang.org/protobuf` 1.36), which people and scripts know.

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
