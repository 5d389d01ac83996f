//! Go's results for the same texts, obtained from etcd 3.7.1.

use basalt_proto::DESCRIPTORS;
use basalt_proto::etcdserverpb::{
    Compare, RangeRequest, RangeResponse, ResponseHeader, StatusResponse, TxnRequest, WatchRequest,
    compare, watch_request,
};
use basalt_proto::mvccpb::KeyValue;
use prost::Message;
use prost_types::FileDescriptorSet;

use super::{Operation, Schema, Spelling, Values, openapi};

fn schema() -> Schema {
    Schema::new(&FileDescriptorSet::decode(DESCRIPTORS).expect("descriptors"))
}

/// All values of a text that arrives in pieces of `size` bytes.
fn values(text: &[u8], size: usize) -> Result<Vec<String>, String> {
    let (mut values, mut found) = (Values::default(), Vec::new());
    let text_of = |value: super::Value| String::from_utf8_lossy(value.text()).into_owned();
    for piece in text.chunks(size) {
        values.push(piece);
        while let Some(value) = values.take()? {
            found.push(text_of(value));
        }
    }
    while let Some(value) = values.last()? {
        found.push(text_of(value));
    }
    Ok(found)
}

fn read<M: Message + Default>(name: &str, text: &str) -> Result<M, String> {
    let schema = schema();
    let mut values = Values::default();
    values.push(text.as_bytes());
    let value = values.last()?.expect("a value");
    let bytes = schema.encode(schema.find(name).expect("known"), &value)?;
    Ok(M::decode(&bytes[..]).expect("what was encoded can be decoded"))
}

fn range(text: &str) -> Result<RangeRequest, String> {
    read("etcdserverpb.RangeRequest", text)
}

fn print<M: Message>(name: &str, message: &M) -> String {
    let schema = schema();
    let (mut out, bytes) = (String::new(), message.encode_to_vec());
    let id = schema.find(name).expect("known");
    schema.print(id, &bytes, Spelling::Plain, &mut out).expect("a message");
    out
}

#[test]
fn values_are_found_however_they_are_cut() {
    let text = br#" {"a":"}\"{","b":[1,{}]}[]5 "x"null 1.5e3{}  7"#;
    let whole = values(text, text.len()).expect("right syntax");
    let expected = [r#"{"a":"}\"{","b":[1,{}]}"#, "[]", "5", r#""x""#, "null", "1.5e3", "{}", "7"];
    assert_eq!(whole, expected);
    for size in 1..text.len() {
        assert_eq!(values(text, size).as_ref(), Ok(&whole), "in pieces of {size}");
    }
    assert_eq!(values(b" \n", 1), Ok(Vec::new()));
}

#[test]
fn wrong_syntax_is_told_in_gos_words() {
    let cases = [
        ("garbage", "invalid character 'g' looking for beginning of value"),
        ("{'a':1}", r"invalid character '\'' looking for beginning of object key string"),
        ("{\"a\":1,}", "invalid character '}' looking for beginning of object key string"),
        ("{\"a\" 1}", "invalid character '1' after object key"),
        ("{\"a\":1 2}", "invalid character '2' after object key:value pair"),
        ("[1 2]", "invalid character '2' after array element"),
        ("\"a\tb\"", r"invalid character '\t' in string literal"),
        (r#""\x""#, "invalid character 'x' in string escape code"),
        (r#""\u12g4""#, r"invalid character 'g' in \u hexadecimal character escape"),
        ("-x", "invalid character 'x' in numeric literal"),
        ("1.x", "invalid character 'x' after decimal point in numeric literal"),
        ("1ex", "invalid character 'x' in exponent of numeric literal"),
        ("trux", "invalid character 'x' in literal true (expecting 'e')"),
        ("nil", "invalid character 'i' in literal null (expecting 'u')"),
        ("{\"a\":", "unexpected EOF"),
        ("\u{1}", r"invalid character '\x01' looking for beginning of value"),
        ("é", "invalid character 'Ã' looking for beginning of value"),
    ];
    for (text, error) in cases {
        assert_eq!(values(text.as_bytes(), 3), Err(error.to_owned()), "{text}");
    }
    let deep = "[".repeat(10_001);
    let error = "invalid character '[' exceeded max depth";
    assert_eq!(values(deep.as_bytes(), 4096), Err(error.to_owned()));
}

#[test]
fn mismatches_have_gos_error_texts() {
    let cases = [
        ("5", "syntax error (line 1:1): unexpected token 5"),
        ("null", "syntax error (line 1:1): unexpected token null"),
        (r#"{"key":5}"#, "(line 1:8): invalid value for bytes field key: 5"),
        (
            "{\n  \"é\":1, \"range_end\":{}}",
            "(line 2:22): invalid value for bytes field rangeEnd: {",
        ),
        (r#"{"key":"a"}"#, r#"(line 1:8): invalid value for bytes field key: "a""#),
        (r#"{"limit":1.5}"#, "(line 1:10): invalid value for int64 field limit: 1.5"),
        (r#"{"limit":" 1"}"#, r#"(line 1:10): invalid value for int64 field limit: " 1""#),
        (r#"{"sort_order":"UP","sort_order":1}"#, r#"(line 1:20): duplicate field "sort_order""#),
        (r#"{"count_only":1}"#, "(line 1:15): invalid value for bool field countOnly: 1"),
        (r#"{"x":"\ud800"}"#, "unexpected EOF"),
        (
            r#"{"x":"\ud800","y":1}"#,
            r#"syntax error (line 1:6): invalid escape code "\",\"y\":" in string"#,
        ),
    ];
    for (text, error) in cases {
        assert_eq!(range(text), Err(format!("proto: {error}")), "{text}");
    }
    let txn = |text| read::<TxnRequest>("etcdserverpb.TxnRequest", text);
    let error = "proto: (line 1:26): error parsing \"mod_revision\", oneof \
        etcdserverpb.Compare.target_union is already set";
    let text = r#"{"compare":[{"version":1,"mod_revision":2}]}"#;
    assert_eq!(txn(text), Err(error.to_owned()));
    let error = "proto: syntax error (line 1:12): unexpected token {";
    assert_eq!(txn(r#"{"compare":{}}"#), Err(error.to_owned()));
    let deep = |depth: usize| {
        let begin = r#"{"success":[{"request_txn":"#.repeat(depth);
        format!(r#"{begin}{{"compare":[{{"key":"YQ=="}}]}}{}"#, "}]}".repeat(depth))
    };
    let max = basalt_proto::nested::DEPTH_MAX;
    let nested = |depth| read::<TxnRequest>("etcdserverpb.TxnRequest", &deep(depth));
    assert!(nested(max).is_ok());
    assert_eq!(nested(max + 1), Err("proto: exceeded max recursion depth".to_owned()));
}

#[test]
fn every_way_of_writing_a_field_is_read() {
    let expected = RangeRequest {
        key: "a?".into(),
        range_end: vec![0xfb, 0xff].into(),
        limit: 1000,
        sort_order: 2,
        sort_target: 4,
        count_only: true,
        ..RangeRequest::default()
    };
    let same = [
        r#"{"key":"YT8=","range_end":"+/8=","limit":"1000","sort_order":"DESCEND","sort_target":4,
            "count_only":true}"#,
        r#"{"key":"YT8","rangeEnd":"-_8","limit":1e3,"sortOrder":2,"sortTarget":"VALUE",
            "countOnly":true,"unknown":[{"a":null}],"serializable":null}"#,
        r#"{"key":"YT\u0038\n\n","range_end":"-_8=","limit":1000.0,"sort_order":2.0,
            "sort_target":"VALUE","count_only":true,"[ext]":1}"#,
        // The unused bits of a padded character are ignored.
        r#"{"key":"YT9=","range_end":"+/9","limit":"10000e-1","sort_order":20e-1,"sort_target":4,
            "countOnly":true}"#,
    ];
    for text in same {
        assert_eq!(range(text).as_ref(), Ok(&expected), "{text}");
    }
    assert_eq!(range(r#"{"sort_order":"NOPE"}"#), Ok(RangeRequest::default()));
    assert_eq!(range(r#"{"limit":"-9223372036854775808"}"#).expect("fits").limit, i64::MIN);
    assert!(range(r#"{"limit":"9223372036854775808"}"#).is_err());
}

#[test]
fn choices_and_lists_are_read() {
    let zero =
        Compare { target_union: Some(compare::TargetUnion::Version(0)), ..Compare::default() };
    let text = r#"{"compare":[{"version":"0"}],"success":[],"failure":null}"#;
    let read_txn: TxnRequest = read("etcdserverpb.TxnRequest", text).expect("it fits");
    assert_eq!(read_txn.compare, [zero]);
    let text = r#"{"create_request":{"filters":["NODELETE",0]}}"#;
    let watch: WatchRequest = read("etcdserverpb.WatchRequest", text).expect("it fits");
    let Some(watch_request::RequestUnion::CreateRequest(create)) = watch.request_union else {
        panic!("no create request: {watch:?}");
    };
    assert_eq!(create.filters, [1, 0]);
}

#[test]
fn messages_are_printed_as_protojson_prints_them() {
    let key_value = KeyValue { key: "a\u{0}".into(), version: 1, lease: -1, ..KeyValue::default() };
    let response = RangeResponse {
        header: Some(ResponseHeader::default()),
        kvs: vec![key_value, KeyValue::default()],
        more: true,
        count: i64::MAX,
    };
    let expected = r#"{"header":{},"kvs":[{"key":"YQA=","version":"1","lease":"-1"},{}],"more":true,"count":"9223372036854775807"}"#;
    assert_eq!(print("etcdserverpb.RangeResponse", &response), expected);
    let status = StatusResponse {
        errors: vec!["<a\n\u{1}\"".to_owned(), String::new()],
        ..StatusResponse::default()
    };
    let expected = r#"{"errors":["<a\n\u0001\"",""]}"#;
    assert_eq!(print("etcdserverpb.StatusResponse", &status), expected);
    let none = Compare {
        target_union: Some(compare::TargetUnion::Lease(0)),
        result: 9,
        ..Compare::default()
    };
    assert_eq!(print("etcdserverpb.Compare", &none), r#"{"result":9,"lease":"0"}"#);
    let mut html = String::new();
    super::quote("<&>\u{2028}", Spelling::Html, &mut html);
    assert_eq!(html, r#""\u003c\u0026\u003e\u2028""#);
}

#[test]
fn printed_messages_are_read_back() {
    let schema = schema();
    let response = StatusResponse {
        header: Some(ResponseHeader { cluster_id: u64::MAX, ..ResponseHeader::default() }),
        version: "3.7.1".to_owned(),
        is_learner: true,
        errors: vec!["x".to_owned(); 3],
        ..StatusResponse::default()
    };
    let text = print("etcdserverpb.StatusResponse", &response);
    assert_eq!(read("etcdserverpb.StatusResponse", &text), Ok(response));
    let id = schema.find("etcdserverpb.StatusResponse").expect("known");
    let mut out = String::new();
    assert!(schema.print(id, &[0x0a, 0xff], Spelling::Plain, &mut out).is_err());
}

#[test]
fn the_description_names_every_message_it_refers_to() {
    let range = Operation {
        path: "/v3/kv/range",
        service: "etcdserverpb.KV",
        method: "Range",
        streams: false,
    };
    let watch = Operation {
        path: "/v3/watch",
        service: "etcdserverpb.Watch",
        method: "Watch",
        streams: true,
    };
    let document = openapi(&schema(), "3.7.1", &[range, watch]);
    let text = document.to_string();
    let references = text.split("\"#/components/schemas/").skip(1);
    for name in references.filter_map(|rest| rest.split('"').next()) {
        assert!(document["components"]["schemas"].get(name).is_some(), "{name} is missing");
    }
    let events = &document["components"]["schemas"]["etcdserverpb.WatchResponse"]["properties"];
    assert_eq!(events["events"]["items"]["$ref"], "#/components/schemas/mvccpb.Event");
    assert!(document["paths"]["/v3/watch"]["post"]["responses"]["200"].is_object());
}
