//! The field numbers of an entry, checked before it is decoded: prost skips fields that it does not know, and a member
//! that skips a part of an entry would diverge from the others.

use std::fmt;

use basalt_proto::etcdserverpb::InternalRaftRequest;
use bytes::Bytes;
use prost::Message as _;
use prost::encoding::{DecodeContext, decode_key, skip_field};

use crate::types::Fault;

/// Fields beside the command: the id and the header.
const ID: u32 = 1;
const HEADER: u32 = 100;

/// Fields that hold a command; a test compares them with the variants of [`Command`](super::Command).
pub(super) const COMMANDS: [u32; 25] = [
    4, 5, 6, 7, 8, 9, 10, 1000, 1011, 1100, 1101, 1103, 1104, 1105, 1200, 1201, 1203, 1204, 1300,
    1301, 10_000, 10_001, 10_002, 10_003, 10_004,
];

/// Checks that an entry contains one command, and no field that this version does not know.
///
/// # Errors
/// The text names the offending field.
pub(super) fn check(data: &Bytes) -> Result<(), Fault> {
    let (mut rest, mut command) = (&data[..], None);
    while !rest.is_empty() {
        let (field, wire_type) = decode_key(&mut rest).map_err(|error| unreadable(&error))?;
        skip_field(wire_type, field, &mut rest, DecodeContext::default())
            .map_err(|error| unreadable(&error))?;
        if field == ID || field == HEADER {
            continue;
        }
        if !COMMANDS.contains(&field) {
            return Err(unknown(data, field));
        }
        if command.is_some_and(|other| other != field) {
            return Err(Fault::new("it holds two commands"));
        }
        command = Some(field);
    }
    command.map(drop).ok_or_else(empty)
}

/// The fault for a field that this version does not know. Bytes that no version could read are reported as damage.
fn unknown(data: &Bytes, field: u32) -> Fault {
    if let Err(error) = InternalRaftRequest::decode(data.clone()) {
        return unreadable(&error);
    }
    Fault::new(format!("it holds a command that this version does not know (field {field})"))
}

pub(super) fn unreadable(error: &impl fmt::Display) -> Fault {
    Fault::new(format!("it does not read: {error}"))
}

pub(super) fn empty() -> Fault {
    Fault::new("it holds no command")
}
