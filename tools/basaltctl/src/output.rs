//! What goes to standard output and standard error.

use std::io::Write as _;

use basalt_proto::etcdserverpb::ResponseHeader;
use basalt_proto::mvccpb::KeyValue;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

/// Writes text; a closed pipe ends the program as it does others.
pub(crate) fn text(text: &str) {
    bytes(text.as_bytes());
}

pub(crate) fn line(line: &str) {
    bytes(line.as_bytes());
    bytes(b"\n");
}

pub(crate) fn bytes(bytes: &[u8]) {
    let mut out = std::io::stdout().lock();
    if out.write_all(bytes).and_then(|()| out.flush()).is_err() {
        std::process::exit(0);
    }
}

pub(crate) fn error(line: &str) {
    // Nobody is left to be told.
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// A key or value on a line of its own.
pub(crate) fn raw(value: &[u8], hex: bool) {
    if hex {
        let escaped: String = value.iter().map(|byte| format!("\\x{byte:02x}")).collect();
        line(&escaped);
    } else {
        bytes(value);
        bytes(b"\n");
    }
}

pub(crate) fn key_value(kv: &KeyValue, hex: bool) {
    raw(&kv.key, hex);
    raw(&kv.value, hex);
}

/// A header as Go's `encoding/json` prints it: zero fields left out.
pub(crate) fn header(header: Option<&ResponseHeader>) -> Value {
    let Some(header) = header else { return json!({}) };
    let mut fields = Map::new();
    let numbers = [
        ("cluster_id", json!(header.cluster_id), header.cluster_id != 0),
        ("member_id", json!(header.member_id), header.member_id != 0),
        ("revision", json!(header.revision), header.revision != 0),
        ("raft_term", json!(header.raft_term), header.raft_term != 0),
    ];
    fields.extend(numbers.into_iter().filter(|it| it.2).map(|it| (it.0.to_owned(), it.1)));
    Value::Object(fields)
}

pub(crate) fn kv_json(kv: &KeyValue) -> Value {
    let mut fields = Map::new();
    let fill = [
        ("key", json!(STANDARD.encode(&kv.key)), !kv.key.is_empty()),
        ("create_revision", json!(kv.create_revision), kv.create_revision != 0),
        ("mod_revision", json!(kv.mod_revision), kv.mod_revision != 0),
        ("version", json!(kv.version), kv.version != 0),
        ("value", json!(STANDARD.encode(&kv.value)), !kv.value.is_empty()),
        ("lease", json!(kv.lease), kv.lease != 0),
    ];
    fields.extend(fill.into_iter().filter(|it| it.2).map(|it| (it.0.to_owned(), it.1)));
    Value::Object(fields)
}
