//! Lines, rules and targets of the audit log.

use std::time::Duration;

use basalt_proto::etcdserverpb::request_op::Request;
use basalt_proto::etcdserverpb::{
    AuthUserAddRequest, AuthenticateRequest, PutRequest, PutResponse, RangeRequest, RequestOp,
    ResponseHeader, TxnRequest,
};
use basalt_proto::rpc::{METHODS, Rpc, Unary};
use prost::Message as _;

use super::*;
use crate::types::limits::AUDIT_OPERATIONS_MAX;

const SECRET: &str = "a value or a password";

fn put(key: &[u8]) -> PutRequest {
    let (key, value) = (key.to_vec().into(), SECRET.as_bytes().into());
    PutRequest { key, value, ..PutRequest::default() }
}

fn line(rpc: Unary, message: &[u8]) -> String {
    let fields = Target::of(Rpc::Unary(rpc), message).to_fields();
    let record = AuditRecord {
        time: Duration::from_secs(1_800_000_000),
        user: Some("alice"),
        source: "token",
        certificate: None,
        address: "10.0.0.1:2000",
        rpc: Rpc::Unary(rpc),
        fields: &fields,
        code: 0,
        revision: 7,
        took: Duration::from_micros(250),
    };
    String::from_utf8(record.line()).expect("UTF-8")
}

#[test]
fn a_line_says_who_did_what_and_never_with_which_value() {
    let line_of_put = line(Unary::KVPut, &put(b"/a").encode_to_vec());
    let expected = r#"{"ts":"2027-01-15T08:00:00.000000Z","user":"alice","source":"token","remote":"10.0.0.1:2000","rpc":"/etcdserverpb.KV/Put","key":"/a","code":"OK","revision":7,"took-us":250}"#;
    assert_eq!(line_of_put, format!("{expected}\n"));
    let odd = line(Unary::KVPut, &put(b"\xff\n").encode_to_vec());
    assert!(odd.contains(r#""key-hex":"ff0a""#), "{odd}");

    let range = RangeRequest { key: "r".into(), range_end: "s".into(), ..RangeRequest::default() };
    let nested = TxnRequest {
        success: vec![RequestOp { request: Some(Request::RequestPut(put(b"/b"))) }],
        ..TxnRequest::default()
    };
    let txn = TxnRequest {
        success: vec![
            RequestOp { request: Some(Request::RequestPut(put(b"/a"))) },
            RequestOp { request: Some(Request::RequestTxn(nested)) },
        ],
        failure: vec![RequestOp { request: Some(Request::RequestRange(range)) }],
        ..TxnRequest::default()
    };
    let of_txn = line(Unary::KVTxn, &txn.encode_to_vec());
    let ops = r#""ops":[{"op":"put","key":"/a"},{"op":"range","key":"r","range-end":"s"},{"op":"put","key":"/b"}]"#;
    assert!(of_txn.contains(ops), "{of_txn}");
    let add = AuthUserAddRequest {
        name: "bob".into(),
        password: SECRET.into(),
        hashed_password: SECRET.into(),
        options: None,
    };
    let of_add = line(Unary::AuthUserAdd, &add.encode_to_vec());
    let login = AuthenticateRequest { name: "bob".into(), password: SECRET.into() };
    let of_login = line(Unary::Authenticate, &login.encode_to_vec());
    assert!(of_add.contains(r#""name":"bob""#) && of_login.contains(r#""name":"bob""#));
    for line in [line_of_put, odd, of_txn, of_add, of_login] {
        assert!(!line.contains(SECRET) && line.matches('\n').count() == 1, "{line}");
    }
}

#[test]
fn long_transactions_make_short_lines() {
    let operations = (0..1000).map(|key| RequestOp {
        request: Some(Request::RequestPut(put(format!("/{key}").as_bytes()))),
    });
    let txn = TxnRequest { success: operations.collect(), ..TxnRequest::default() };
    let message = txn.encode_to_vec();
    let target = Target::of(Rpc::Unary(Unary::KVTxn), &message);
    assert_eq!(
        (target.ranges.len(), target.more),
        (AUDIT_OPERATIONS_MAX, 1000 - AUDIT_OPERATIONS_MAX)
    );
}

#[test]
fn whatever_bytes_come_a_target_is_made_of_them() {
    for method in METHODS {
        for length in 0..64_u8 {
            let message: Vec<u8> =
                (0..length).map(|at| at.wrapping_mul(length).wrapping_add(10)).collect();
            let _ = Target::of(method.rpc, &message);
        }
    }
}

#[test]
fn a_responses_revision_is_that_of_its_header() {
    let header = ResponseHeader { revision: 42, raft_term: 7, ..ResponseHeader::default() };
    let response = PutResponse { header: Some(header), ..PutResponse::default() };
    assert_eq!(response_revision(&response.encode_to_vec()), 42);
    assert_eq!(response_revision(&[]), 0);
}

#[test]
fn the_first_rule_that_holds_decides() {
    let rules = "skip rpc=reads; log user=alice prefix=/secrets/ ;skip prefix=/ rpc=Put;";
    let rules = Rules::parse(rules).expect("they parse");
    let admits = |rpc: Unary, user: Option<&str>, key: &[u8]| {
        rules.admits(Rpc::Unary(rpc), user, &put(key).encode_to_vec())
    };
    assert!(!admits(Unary::KVRange, Some("alice"), b"/secrets/a"));
    assert!(admits(Unary::KVPut, Some("alice"), b"/secrets/a"));
    assert!(!admits(Unary::KVPut, Some("bob"), b"/secrets/a"));
    assert!(!admits(Unary::KVPut, None, b"/secrets/a"));
    assert!(admits(Unary::KVPut, None, b"other"), "no rule is about it");
    assert!(admits(Unary::KVDeleteRange, Some("bob"), b"/a"));
    let all = Rules::parse("skip").expect("it parses");
    assert!(all.admits(Rpc::Unary(Unary::AuthUserAdd), None, b""), "always");
    assert!(!all.admits(Rpc::Unary(Unary::KVPut), None, b""));
    for wrong in ["put", "log rpc=Nothing", "skip key=/a", "log user"] {
        assert!(Rules::parse(wrong).is_err(), "{wrong}");
    }
    assert_eq!(Rules::parse(""), Ok(Rules::default()));
}

#[test]
fn a_range_touches_a_prefix_if_a_key_in_it_could_begin_so() {
    let touches = |key: &str, range_end: &str, prefix: &str| {
        let range = RangeRequest {
            key: key.to_owned().into(),
            range_end: range_end.to_owned().into(),
            ..RangeRequest::default()
        };
        Target::of(Rpc::Unary(Unary::KVRange), &range.encode_to_vec()).touches(prefix.as_bytes())
    };
    assert!(touches("/a/b", "", "/a/"));
    assert!(!touches("/a", "", "/a/"));
    assert!(touches("/", "0", "/a/"));
    assert!(touches("/a/x", "/b", "/a/"));
    assert!(!touches("/b", "/c", "/a/"));
    assert!(!touches("/", "/a/", "/a/"));
    assert!(touches("\0", "\0", "/a/"));
    assert!(!touches("/b", "\0", "/a/"));
}
