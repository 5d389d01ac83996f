//! Advisories and audits, as far as no other test replays them.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::process::Command;

use basalt_proto::authpb::permission::Type;
use basalt_proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use basalt_proto::etcdserverpb::{
    Compare, DeleteRangeRequest, LeaseGrantRequest, LeaseGrantResponse, PutRequest, RangeRequest,
    RequestOp, TxnRequest, TxnResponse, request_op,
};
use prost::Message as _;

use super::PATIENCE;
use crate::abuse::Frames;
use crate::auth::{Administrator, login};
use crate::compare::runtime;
use crate::gateway::{ask, framed};
use crate::logins::outcome;
use crate::process::{self, Scratch, Server, Setup, run};
use crate::tls::certificates::{Authority, Wanted};
use crate::tls::secured;
use crate::wire::{self, Wire};

/// A transaction with one operation, inside of `depth` others, in a branch that is taken or in one that is not.
fn nested(operation: request_op::Request, depth: usize, is_taken: bool) -> TxnRequest {
    let mut request = operation;
    for _ in 0..depth {
        request = request_op::Request::RequestTxn(branch(request, is_taken));
    }
    branch(request, is_taken)
}

fn branch(request: request_op::Request, is_taken: bool) -> TxnRequest {
    let operations = vec![RequestOp { request: Some(request) }];
    // Without a compare the first branch is taken.
    match is_taken {
        true => TxnRequest { success: operations, ..Default::default() },
        false => TxnRequest { failure: operations, ..Default::default() },
    }
}

/// Operations on `w`, which the user may write, on `r`, which it may read, and on `x`, which it may not.
fn operations() -> Vec<(&'static str, request_op::Request)> {
    let put = |key: &'static str| PutRequest { key: key.into(), ..Default::default() };
    let delete = |key: &'static str| DeleteRangeRequest { key: key.into(), ..Default::default() };
    let range = |key: &'static str| RangeRequest { key: key.into(), ..Default::default() };
    let compare = |key: &'static str| TxnRequest {
        compare: vec![Compare {
            result: CompareResult::Greater.into(),
            target: CompareTarget::Version.into(),
            key: key.into(),
            target_union: Some(TargetUnion::Version(-1)),
            ..Default::default()
        }],
        ..Default::default()
    };
    use request_op::Request::{RequestDeleteRange, RequestPut, RequestRange, RequestTxn};
    let mut operations = Vec::new();
    for key in ["w", "r", "x"] {
        operations.push(("put", RequestPut(put(key))));
        operations.push(("put prev_kv", RequestPut(PutRequest { prev_kv: true, ..put(key) })));
        operations.push(("put own lease", RequestPut(PutRequest { lease: 1, ..put(key) })));
        operations.push(("put foreign lease", RequestPut(PutRequest { lease: 2, ..put(key) })));
        operations.push(("delete", RequestDeleteRange(delete(key))));
        let prev_kv = DeleteRangeRequest { prev_kv: true, ..delete(key) };
        operations.push(("delete prev_kv", RequestDeleteRange(prev_kv)));
        operations.push(("range", RequestRange(range(key))));
        operations.push(("compare", RequestTxn(compare(key))));
    }
    operations
}

/// CVE-2026-33343 (transactions in each other), CVE-2026-44283 (`prev_kv` and leases of puts in them).
#[test]
fn permissions_are_checked_at_each_depth_of_both_branches_as_by_etcd() {
    let tried = async |server: &Server| {
        let wire = Wire::new(&server.endpoint());
        for (lease, key) in [(1, "w"), (2, "x")] {
            let grant = LeaseGrantRequest { ttl: 600, id: lease };
            wire.ask::<_, LeaseGrantResponse>(wire::LEASE_GRANT, &grant).await.expect("a lease");
            let put = PutRequest { key: key.into(), lease, ..Default::default() };
            let put: Result<basalt_proto::etcdserverpb::PutResponse, _> =
                wire.ask(wire::PUT, &put).await;
            put.expect("auth is off");
        }
        let administrator = Administrator(wire.clone());
        administrator.user("u", "pw").await;
        administrator.role("r", &[(Type::Write, "w", ""), (Type::Read, "r", "")]).await;
        administrator.give("u", "r").await;
        administrator.enable("pw").await;
        let token = login(&wire, "u", "pw").await.expect("the password is right");
        let user = wire.with_token(&token);
        let mut told = Vec::new();
        for (name, operation) in operations() {
            for depth in 0..=4 {
                for is_taken in [true, false] {
                    let request = nested(operation.clone(), depth, is_taken);
                    let answer: Result<TxnResponse, _> = user.ask(wire::TXN, &request).await;
                    let what = format!("{name} {operation:?} at {depth}, taken {is_taken}");
                    told.push((what, outcome(&answer)));
                }
            }
        }
        told
    };
    runtime().block_on(async {
        let [own, other] = [process::basalt(), process::etcd()]
            .map(|binary| Setup::new(binary).flag("bcrypt-cost", "4").start());
        let (own, other) = tokio::join!(tried(&own), tried(&other));
        for (own, other) in own.iter().zip(&other) {
            assert_eq!(own, other, "Basalt on the left, etcd on the right");
        }
        // The same at every depth and in both branches.
        for all in own.chunks(10) {
            assert!(all.iter().all(|(_, outcome)| *outcome == all[0].1), "{all:#?}");
        }
        let denied = own.iter().filter(|(_, outcome)| outcome.0 == 7).count();
        assert!(denied > 100 && denied < own.len(), "{denied} of {}", own.len());
    });
}

/// CVE-2018-1098, -1099 and -5702: names under which a member may be asked, and origins that may read answers.
#[test]
fn names_and_origins_are_checked_as_by_etcd() {
    let [own, other] = [process::basalt(), process::etcd()].map(|binary| {
        let setup = Setup::new(binary)
            .flag("host-whitelist", "good.example")
            .flag("cors", "http://good.example:80");
        setup.start()
    });
    let request = |host: &str, origin: &str, method: &str| {
        let text = format!(
            "{method} /health HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{origin}\r\n"
        );
        text.into_bytes()
    };
    for host in ["good.example", "good.example:1", "evil.example", "127.0.0.1", "localhost", ""] {
        for origin in ["", "Origin: http://good.example:80\r\n", "Origin: http://evil.example\r\n"]
        {
            for method in ["GET", "OPTIONS"] {
                let bytes = request(host, origin, method);
                let [own, other] = [&own, &other].map(|server| {
                    let answer = ask(server, &bytes, None).evened();
                    // The page that explains the refusal is each server's own.
                    let is_refused = answer.status.contains(" 421 ");
                    let body = if is_refused { String::new() } else { answer.body.clone() };
                    (answer.status.clone(), answer.header("access-control-allow-origin"), body)
                });
                assert_eq!(own, other, "{host:?} {origin:?} {method}");
            }
        }
    }
}

/// CVE-2018-1098: over TLS the certificate tells the name.
#[test]
fn any_name_is_served_over_tls() {
    let place = Scratch::new();
    let authority = Authority::new(place.path(), "ca");
    let pair = authority.issue("server", &Wanted { hosts: &["evil.example"], ..Wanted::default() });
    for binary in [process::basalt(), process::etcd()] {
        let server = secured(Setup::new(binary).flag("host-whitelist", "good.example"), &pair);
        let mut curl = Command::new("curl");
        curl.args(["-s", "--max-time", "20", "--cacert", &authority.file, "--http1.1"]);
        curl.args(["--resolve", &format!("evil.example:{}:127.0.0.1", server.port)]);
        curl.arg(format!("https://evil.example:{}/health", server.port));
        assert!(run(curl, PATIENCE).stdout.contains("true"), "{}", server.logs.tail());
    }
}

/// GHSA-pm3m-32r3-7mfh.
#[test]
fn a_negative_retention_does_no_harm() {
    for mode in ["periodic", "revision"] {
        for value in ["-1", "-1h"] {
            let setup = Setup::new(process::basalt())
                .flag("auto-compaction-mode", mode)
                .flag("auto-compaction-retention", value);
            let mut server = Server::new(setup);
            server.launch();
            if !server.wait_ready(std::time::Duration::from_secs(10)) {
                let status = server.wait_exit(PATIENCE).expect("it ends, or serves");
                assert_eq!(status.code(), Some(1), "{mode} {value}: {}", server.logs.tail());
                continue;
            }
            let before = processor_ticks(&server);
            std::thread::sleep(std::time::Duration::from_secs(1));
            let used = processor_ticks(&server) - before;
            assert!(used < 50, "{mode} {value}: {used} ticks of the processor in a second");
            runtime().block_on(async {
                let wire = Wire::new(&server.endpoint());
                wire.put("a", "1").await.expect("it serves");
                assert_eq!(wire.get("a").await.expect("it is there").kvs.len(), 1);
            });
        }
    }
}

/// Processor time of a server in hundredths of a second.
fn processor_ticks(server: &Server) -> u64 {
    let line = std::fs::read_to_string(format!("/proc/{}/stat", server.pid())).expect("it runs");
    let (_, fields) = line.rsplit_once(')').expect("a name");
    let fields: Vec<_> = fields.split_whitespace().collect();
    fields[11..13].iter().map(|it| it.parse::<u64>().expect("a number")).sum()
}

/// ADA-etcd-22 (a header that is no text), and grpc-go's CVE-2026-33186 (a path without its slash).
#[test]
fn odd_headers_and_paths_are_answered_and_do_nothing() {
    for binary in [process::basalt(), process::etcd()] {
        let server = Setup::new(binary).start();
        for version in [&b"\xff\xfe"[..], b"", b"3.7", &[b'x'; 4000]] {
            let header = [b"client-api-version: ", version].concat();
            let mut curl = Command::new("curl");
            curl.args(["-s", "--http2-prior-knowledge", "--max-time", "20", "-H"]);
            curl.arg(OsStr::from_bytes(&header));
            curl.args(["-H", "content-type: application/grpc", "-H", "te: trailers"]);
            curl.args(["-X", "POST", "-d", ""]);
            curl.arg(format!("{}/etcdserverpb.KV/Range", server.endpoint()));
            assert!(run(curl, PATIENCE).code.is_some(), "no answer");
        }
        let put = PutRequest { key: "a".into(), value: "b".into(), ..Default::default() };
        for path in ["etcdserverpb.KV/Put", "//etcdserverpb.KV/Put", "/x/etcdserverpb.KV/Put"] {
            let mut frames = Frames::open(&server);
            frames.call(path, &crate::curl::framed(0, &put.encode_to_vec()));
            // A ping is answered when the call has been, or the connection is ended.
            frames.ping();
        }
        runtime().block_on(async {
            let wire = Wire::new(&server.endpoint());
            assert!(wire.get("a").await.expect("it serves").kvs.is_empty(), "it was served");
            wire.put("a", "b").await.expect("it serves");
        });
        let bytes = framed("GET", "/health", "Client-Api-Version: \u{ff}\r\n", b"");
        assert!(ask(&server, &bytes, None).status.contains(" 200 "));
    }
}

/// TOB-015 to -017: versions and suites that are too weak.
#[test]
fn weak_suites_and_versions_are_refused() {
    let place = Scratch::new();
    let authority = Authority::new(place.path(), "ca");
    let pair = authority.issue("server", &Wanted::default());
    let server = secured(Setup::new(process::basalt()), &pair);
    let handshake = |arguments: &[&str]| {
        let mut openssl = Command::new("openssl");
        openssl.args(["s_client", "-connect", &format!("127.0.0.1:{}", server.port)]);
        openssl.args(arguments);
        let told = run(openssl, PATIENCE);
        told.stdout.contains("Cipher is ") && !told.stdout.contains("Cipher is (NONE)")
    };
    assert!(handshake(&["-tls1_3"]) && handshake(&["-tls1_2"]));
    let weakest = "@SECLEVEL=0";
    for arguments in [
        &["-tls1", "-cipher", &*format!("ALL:{weakest}")][..],
        &["-tls1_1", "-cipher", &format!("ALL:{weakest}")],
        &["-tls1_2", "-cipher", &format!("ECDHE-ECDSA-AES128-SHA:{weakest}")],
        &["-tls1_2", "-cipher", &format!("ECDHE-ECDSA-AES256-SHA384:{weakest}")],
        &["-tls1_2", "-cipher", &format!("AES128-GCM-SHA256:{weakest}")],
    ] {
        assert!(!handshake(arguments), "{arguments:?}");
    }
}
