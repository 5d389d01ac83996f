//! `"Name" : value` lines.

use std::fmt::Write as _;

use basalt_proto::etcdserverpb::ResponseHeader;
use basalt_proto::mvccpb::KeyValue;

use gocompat::quote::quote;

/// `"Name" : value`.
pub(crate) fn line(out: &mut String, name: &str, value: impl std::fmt::Display) {
    let _ = writeln!(out, "\"{name}\" : {value}");
}

pub(crate) fn text(out: &mut String, name: &str, value: impl AsRef<[u8]>) {
    line(out, name, quote(value));
}

/// A member's or the cluster's id.
pub(crate) fn id(out: &mut String, name: &str, id: u64, hex: bool) {
    match hex {
        true => line(out, name, format_args!("{id:x}")),
        false => line(out, name, id),
    }
}

pub(crate) fn lease(out: &mut String, name: &str, id: i64, hex: bool) {
    match hex {
        true => line(out, name, format_args!("{id:016x}")),
        false => line(out, name, id),
    }
}

/// The lines of a header; a missing one is all zero.
pub(crate) fn header(out: &mut String, header: Option<&ResponseHeader>, hex: bool) {
    let header = header.copied().unwrap_or_default();
    id(out, "ClusterID", header.cluster_id, hex);
    id(out, "MemberID", header.member_id, hex);
    if header.revision > 0 {
        line(out, "Revision", header.revision);
    }
    line(out, "RaftTerm", header.raft_term);
}

/// The lines of a response that has only a header.
pub(crate) fn only_header(of: Option<&ResponseHeader>, hex: bool) -> String {
    let mut out = String::new();
    header(&mut out, of, hex);
    out
}

pub(crate) fn key_value(out: &mut String, prefix: &str, kv: &KeyValue, hex: bool) {
    text(out, &format!("{prefix}Key"), &kv.key);
    line(out, &format!("{prefix}CreateRevision"), kv.create_revision);
    line(out, &format!("{prefix}ModRevision"), kv.mod_revision);
    line(out, &format!("{prefix}Version"), kv.version);
    text(out, &format!("{prefix}Value"), &kv.value);
    lease(out, &format!("{prefix}Lease"), kv.lease, hex);
}
