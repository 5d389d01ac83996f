//! Messages in various framings, compressions and pieces: the server accepts the same ones as etcd, and refuses malformed
//! ones with etcd's texts, before anything is executed.

use std::io::{Read as _, Write as _};

use basalt_proto::etcdserverpb::{PutRequest, RangeRequest, RangeResponse};
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use prost::Message;

use crate::curl::{self, framed};
use crate::process::{self, Server, Setup, basalt};

const PUT: &str = "/etcdserverpb.KV/Put";
const RANGE: &str = "/etcdserverpb.KV/Range";
const WATCH: &str = "/etcdserverpb.Watch/Watch";
const PLAIN: u8 = 0;
const COMPRESSED: u8 = 1;
const HEAD_BYTES: usize = 5;
/// More than a server accepts.
const LARGE: usize = 3 << 20;

fn gzip(message: &[u8]) -> Vec<u8> {
    let mut packed = GzEncoder::new(Vec::new(), Compression::best());
    packed.write_all(message).unwrap();
    packed.finish().unwrap()
}

/// The responses of both; Go varies the blanks of one text deliberately, so that no program relies on it.
fn both(servers: &[Server; 2], path: &str, body: &[u8], encoding: &str) -> [Vec<String>; 2] {
    let headers: Vec<_> = Some(format!("grpc-encoding: {encoding}"))
        .filter(|_| !encoding.is_empty())
        .into_iter()
        .collect();
    // A response before the request was read to its end is at times discarded by curl.
    let told = |server| {
        let mut attempts = (0..20).map(|_| curl::call(server, path, body, &headers).lines);
        attempts.find(|lines| lines.len() > 1).unwrap_or_default()
    };
    servers.each_ref().map(|server| {
        told(server).iter().map(|line| line.replace("proto:%C2%A0", "proto: ")).collect()
    })
}

#[test]
fn messages_are_taken_and_refused_as_by_etcd() {
    let servers = [Setup::new(process::etcd()).start(), Setup::new(basalt()).start()];
    let get = RangeRequest { key: "k".into(), ..RangeRequest::default() }.encode_to_vec();
    let plain = framed(PLAIN, &get);
    let bomb =
        gzip(&PutRequest { value: vec![0; LARGE].into(), ..PutRequest::default() }.encode_to_vec());
    assert!(bomb.len() < LARGE / 100);
    let cases: &[(&str, Vec<u8>, &str)] = &[
        ("nothing", vec![], ""),
        ("one byte", vec![0], ""),
        ("a head that is cut off", plain[..4].to_vec(), ""),
        ("a message that is cut off", plain[..plain.len() - 1].to_vec(), ""),
        ("an empty message", framed(PLAIN, &[]), ""),
        ("no protobuf", framed(PLAIN, &[255; 3]), ""),
        ("another flag", framed(2, &get), ""),
        ("more than there may be", [&[0, 0x7f, 255, 255, 255][..], &get].concat(), ""),
        ("more than there can be", [&[0, 255, 255, 255, 255][..], &get].concat(), ""),
        ("compressed, but as what?", framed(COMPRESSED, &gzip(&get)), ""),
        ("compressed as nothing", framed(COMPRESSED, &gzip(&get)), "identity"),
        ("a compression nobody knows", framed(COMPRESSED, &gzip(&get)), "foo"),
        ("a compression nobody knows, unused", plain.clone(), "foo"),
        ("compressed", framed(COMPRESSED, &gzip(&get)), "gzip"),
        ("not compressed, but might be", plain.clone(), "gzip"),
        ("compressed, an empty message", framed(COMPRESSED, &gzip(&[])), "gzip"),
        ("said to be compressed", framed(COMPRESSED, &get), "gzip"),
        ("said to be compressed, and long", framed(COMPRESSED, &[7; 100]), "gzip"),
        ("compressed and cut off", framed(COMPRESSED, &gzip(&get)[..20]), "gzip"),
        ("a few bytes that become many", framed(COMPRESSED, &bomb), "gzip"),
        ("plain", plain.clone(), ""),
        ("two", [plain.clone(), framed(PLAIN, &[255; 3])].concat(), ""),
        ("one and a bit", [&plain[..], &[0, 0]].concat(), ""),
    ];
    for (what, body, encoding) in cases {
        let [theirs, ours] = both(&servers, RANGE, body, encoding);
        assert!(theirs.len() > 1, "etcd does not answer: {what}");
        assert_eq!(theirs, ours, "{what}: etcd is on the left");
    }
    for path in ["/etcdserverpb.KV/Nothing", "/no.Service/Range", "/nothing"] {
        let [theirs, ours] = both(&servers, path, &plain, "");
        assert_eq!(theirs, ours, "{path}: etcd is on the left");
    }
    // Streams, as far as they end by themselves.
    for (what, body, encoding) in cases {
        if ["no protobuf", "another flag", "compressed, but as what?", "a compression nobody knows"]
            .contains(what)
            || what.starts_with("more than there")
            || what.starts_with("said to be")
        {
            let [theirs, ours] = both(&servers, WATCH, body, encoding);
            assert!(theirs.len() > 1, "etcd does not answer: {what}");
            assert_eq!(theirs, ours, "{what}, to watch: etcd is on the left");
        }
    }
}

#[test]
fn compressed_requests_get_compressed_responses() {
    let server = Setup::new(basalt()).start();
    let encoding = ["grpc-encoding: gzip".to_owned()];
    let value = vec![b'v'; 10_000];
    let put = PutRequest { key: "k".into(), value: value.clone().into(), ..PutRequest::default() };
    let told =
        curl::call(&server, PUT, &framed(COMPRESSED, &gzip(&put.encode_to_vec())), &encoding);
    assert_eq!(told.lines, ["HTTP/2 200", "grpc-encoding: gzip", "grpc-status: 0"]);
    let get = RangeRequest { key: "k".into(), ..RangeRequest::default() }.encode_to_vec();
    let told = curl::call(&server, RANGE, &framed(COMPRESSED, &gzip(&get)), &encoding);
    assert_eq!(told.body[0], COMPRESSED);
    assert!(told.body.len() < 1000, "{}", told.body.len());
    let mut message = Vec::new();
    GzDecoder::new(&told.body[HEAD_BYTES..]).read_to_end(&mut message).unwrap();
    let range = RangeResponse::decode(&message[..]).unwrap();
    assert_eq!(range.kvs[0].value, value);
    let told = curl::call(&server, RANGE, &framed(PLAIN, &get), &[]);
    assert_eq!(told.body[0], PLAIN);
    assert_eq!(RangeResponse::decode(&told.body[HEAD_BYTES..]).unwrap(), range);
}
