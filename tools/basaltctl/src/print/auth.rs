//! The permissions of a role.

use std::fmt::Write as _;

use basalt_proto::authpb::Permission;
use basalt_proto::authpb::permission::Type;
use basalt_proto::etcdserverpb::AuthRoleGetResponse;

use crate::client::requests::prefix_end;
use crate::print::fields;

/// A role with its permissions, in the format `simple`.
pub(crate) fn role(name: &str, answer: &AuthRoleGetResponse) -> Vec<u8> {
    let mut out = format!("Role {name}\n").into_bytes();
    if name == "root" && answer.perm.is_empty() {
        out.extend_from_slice(b"KV Read:\n\t[, <open ended>\nKV Write:\n\t[, <open ended>\n");
        return out;
    }
    for (title, kind) in [("KV Read:\n", Type::Read), ("KV Write:\n", Type::Write)] {
        out.extend_from_slice(title.as_bytes());
        for permission in &answer.perm {
            if permission.perm_type() == kind || permission.perm_type() == Type::Readwrite {
                range(&mut out, permission);
            }
        }
    }
    out
}

fn range(out: &mut Vec<u8>, permission: &Permission) {
    let (key, end) = (&permission.key, &permission.range_end);
    out.push(b'\t');
    if end.is_empty() {
        out.extend_from_slice(key);
        out.push(b'\n');
        return;
    }
    out.push(b'[');
    out.extend_from_slice(key);
    match end.as_ref() {
        b"\0" => out.extend_from_slice(b", <open ended>"),
        end => {
            out.extend_from_slice(b", ");
            out.extend_from_slice(end);
            out.push(b')');
        }
    }
    if !key.is_empty() && prefix_end(key) == *end {
        out.extend_from_slice(b" (prefix ");
        out.extend_from_slice(key);
        out.push(b')');
    }
    out.push(b'\n');
}

/// The same as `"Name" : value` lines.
pub(crate) fn role_fields(answer: &AuthRoleGetResponse, hex: bool) -> String {
    let mut out = fields::only_header(answer.header.as_ref(), hex);
    for permission in &answer.perm {
        let _ = writeln!(out, "\"PermType\" :  {}", permission.perm_type().as_str_name());
        fields::text(&mut out, "Key", &permission.key);
        fields::text(&mut out, "RangeEnd", &permission.range_end);
    }
    out
}
