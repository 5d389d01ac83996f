//! Watches and tokens: each watch is checked when it is made, and lives on whatever happens to the token or to auth.

use std::time::Duration;

use basalt_proto::etcdserverpb::watch_request::RequestUnion;
use basalt_proto::etcdserverpb::{
    AuthUserDeleteRequest, AuthUserDeleteResponse, WatchCreateRequest, WatchRequest, WatchResponse,
};
use bytes::Bytes;
use prost::Message as _;
use tokio::time::{sleep, timeout};

use super::{PATIENCE, disable_auth};
use crate::compare::runtime;
use crate::logins::{enable, login, outcome, used};
use crate::process::{self, Server, Setup};
use crate::wire::{self, Talk, Wire};

/// Of a token, in seconds.
const TTL: u64 = 2;

fn create(key: &'static str, range_end: &'static [u8]) -> Bytes {
    let range_end = Bytes::from_static(range_end);
    let create = WatchCreateRequest { key: key.into(), range_end, ..Default::default() };
    let request_union = Some(RequestUnion::CreateRequest(create));
    WatchRequest { request_union }.encode_to_vec().into()
}

/// The next answer, without what is each server's own.
async fn next(talk: &mut Talk) -> String {
    let answer = match timeout(PATIENCE, talk.answers.message()).await.expect("in time") {
        Ok(Some(answer)) => WatchResponse::decode(answer).expect("a response"),
        Ok(None) => return "the end".to_owned(),
        Err(status) => return format!("{:?} {}", status.code(), status.message()),
    };
    let keys: Vec<_> = answer.events.iter().filter_map(|it| it.kv.as_ref()).collect();
    let keys: Vec<_> = keys.iter().map(|kv| String::from_utf8_lossy(&kv.key)).collect();
    format!(
        "{} created {} canceled {} {:?} {keys:?}",
        answer.watch_id, answer.created, answer.canceled, answer.cancel_reason
    )
}

/// The next two, which watchers of one key get in any order.
async fn two(talk: &mut Talk) -> [String; 2] {
    let mut two = [next(talk).await, next(talk).await];
    two.sort();
    two
}

async fn ask(talk: &mut Talk, request: Bytes) -> String {
    talk.send.send(request).await.expect("the stream is open");
    next(talk).await
}

/// etcd-io/etcd#12385 (an expired token), #7789 (no user), PR 16240 and 14548 (auth switched off), PR 14547 (others on a
/// stream with a refused watch), GHSA-xg4h-6gfc-h4m8 (`\0` as the end).
async fn conversation(server: &Server) -> Vec<String> {
    let wire = Wire::new(&server.endpoint());
    crate::logins::told(server, &["role", "add", "one"]);
    crate::logins::told(server, &["role", "grant-permission", "one", "read", "a"]);
    crate::logins::told(server, &["user", "add", "reader:pw"]);
    crate::logins::told(server, &["user", "grant-role", "reader", "one"]);
    enable(server, &[("root", "r")]);
    let root = async || {
        let token = login(server, "root", "r").await.expect("it is right");
        wire.clone().with_token(&token)
    };
    let mut told = Vec::new();
    let mut nobodys = wire.talk(wire::WATCH, create("a", b"")).await.expect("a stream");
    told.push(next(&mut nobodys).await);
    let reader = login(server, "reader", "pw").await.expect("it is right");
    let as_reader = wire.clone().with_token(&reader);
    let mut talk = as_reader.talk(wire::WATCH, create("a", b"")).await.expect("a stream");
    told.push(next(&mut talk).await);
    for (key, end) in [("b", &b""[..]), ("a", b"\0"), ("a", b"b"), ("a", b"")] {
        told.push(ask(&mut talk, create(key, end)).await);
    }
    // A refused watch delivers nothing; the others go on.
    root().await.put("a1", "x").await.expect("root may");
    root().await.put("a", "x").await.expect("root may");
    told.extend(two(&mut talk).await);
    sleep(Duration::from_secs(TTL * 2 + 1)).await;
    told.push(format!("{:?}", used(server, &reader).await));
    told.push(ask(&mut talk, create("a", b"")).await);
    root().await.put("a", "y").await.expect("root may");
    told.extend(two(&mut talk).await);
    let delete = AuthUserDeleteRequest { name: "reader".to_owned() };
    let path = "/etcdserverpb.Auth/UserDelete";
    let deleted = root().await.ask::<_, AuthUserDeleteResponse>(path, &delete).await;
    deleted.expect("root may");
    root().await.put("a", "z").await.expect("root may");
    told.extend(two(&mut talk).await);
    // Off: tokens, good and bad, are nobody's business, and the old stream takes new watches.
    disable_auth(&root().await).await;
    told.push(format!("{:?}", used(server, &reader).await));
    told.push(format!("{:?}", outcome(&wire.put("a", "nobody").await)));
    told.extend(two(&mut talk).await);
    told.push(ask(&mut talk, create("b", b"")).await);
    told
}

#[test]
fn watches_outlive_tokens_users_and_auth_as_with_etcd() {
    runtime().block_on(async {
        let setup = |binary| {
            let setup = Setup::new(binary).flag("bcrypt-cost", "4");
            setup.flag("auth-token-ttl", &TTL.to_string()).start()
        };
        let [own, other] = [process::basalt(), process::etcd()].map(setup);
        let (own, other) = tokio::join!(conversation(&own), conversation(&other));
        assert_eq!(own, other, "Basalt on the left, etcd on the right");
        let refused = own.iter().filter(|told| told.contains("denied")).count();
        assert_eq!(refused, 3, "{own:#?}");
    });
}
