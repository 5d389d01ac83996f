//! Watches and renewals that clients share without noticing.

use basalt_proto::etcdserverpb::watch_request::RequestUnion;
use basalt_proto::etcdserverpb::{
    LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest, LeaseKeepAliveResponse,
    WatchCreateRequest, WatchProgressRequest, WatchRequest, WatchResponse,
};
use prost::Message as _;
use tokio::time::timeout;

use super::{PATIENCE, Proxy};
use crate::process::{self, Server, Setup};
use crate::wire::{LEASE_GRANT, LEASE_KEEP_ALIVE, Talk, WATCH, Wire};

const UPSTREAM: &str = "basalt_grpc_proxy_upstream_watches";
const COALESCED: &str = "etcd_grpc_proxy_watchers_coalescing_total";

fn create(key: &str, start_revision: i64) -> bytes::Bytes {
    let create = WatchCreateRequest {
        key: key.to_owned().into(),
        start_revision,
        ..WatchCreateRequest::default()
    };
    request(RequestUnion::CreateRequest(create))
}

fn request(union: RequestUnion) -> bytes::Bytes {
    WatchRequest { request_union: Some(union) }.encode_to_vec().into()
}

async fn next(talk: &mut Talk) -> WatchResponse {
    let message = timeout(PATIENCE, talk.answers.message()).await.expect("in time");
    WatchResponse::decode(message.expect("no error").expect("no end")).expect("a message")
}

/// The values of the next events, each of which comes once and in order.
async fn values(talk: &mut Talk, count: usize) -> Vec<String> {
    let mut values = Vec::new();
    while values.len() < count {
        for event in next(talk).await.events {
            let pair = event.kv.expect("a pair");
            assert!(event.prev_kv.is_none(), "nobody asked for it");
            values.push(String::from_utf8_lossy(&pair.value).into_owned());
        }
    }
    values
}

async fn put_all(wire: &Wire, from: usize, to: usize) -> Vec<String> {
    let values: Vec<String> = (from..to).map(|it| it.to_string()).collect();
    for value in &values {
        wire.put("w", value).await.expect("a put");
    }
    values
}

/// Watchers of one range, on streams of their own.
async fn watchers(proxy: &Proxy, starts: &[i64]) -> Vec<Talk> {
    let mut talks = Vec::new();
    for start in starts {
        let wire = Wire::new(&proxy.endpoint());
        let mut talk = wire.talk(WATCH, create("w", *start)).await.expect("a stream");
        let created = next(&mut talk).await;
        assert!(created.created && !created.canceled, "{created:?}");
        assert!(created.header.expect("a header").cluster_id != 0);
        talks.push(talk);
    }
    talks
}

#[tokio::test(flavor = "multi_thread")]
async fn watchers_of_one_range_share_one_watch_and_see_every_event_once() {
    let mut server = Setup::new(process::basalt()).start();
    let proxy = Proxy::grpc(&server, &[]);
    let direct = Wire::new(&server.endpoint());
    let before = put_all(&direct, 0, 10).await;
    let mut now = watchers(&proxy, &[0; 8]).await;
    assert_eq!((proxy.metric(UPSTREAM), proxy.metric(COALESCED)), (1, 7));
    // Revisions 2 to 11: these two begin before the others, and join them when they have caught up.
    let mut past = watchers(&proxy, &[2, 7]).await;
    assert_eq!(values(&mut past[0], 10).await, before);
    assert_eq!(values(&mut past[1], 5).await, before[5..]);
    let after = put_all(&direct, 10, 40).await;
    for talk in now.iter_mut().chain(&mut past) {
        assert_eq!(values(talk, 30).await, after);
    }
    proxy.wait_for_metric(UPSTREAM, 1);
    assert!(proxy.metric("etcd_grpc_proxy_events_coalescing_total") > 0);
    // The member restarts: nobody misses an event, and nobody sees one twice.
    restart(&mut server);
    let direct = Wire::new(&server.endpoint());
    let later = put_all(&direct, 40, 60).await;
    for talk in now.iter_mut().chain(&mut past) {
        assert_eq!(values(talk, 20).await, later);
    }
    // The last one to go ends the watch at the member.
    drop(now);
    proxy.wait_for_metric(COALESCED, 1);
    drop(past);
    proxy.wait_for_metric(UPSTREAM, 0);
}

fn restart(server: &mut Server) {
    let port = server.port;
    server.kill();
    server.start();
    assert_eq!(server.port, port, "another process has taken the port");
}

#[tokio::test(flavor = "multi_thread")]
async fn progress_is_told_when_all_events_before_it_are() {
    let server = Setup::new(process::basalt()).start();
    let proxy = Proxy::grpc(&server, &[]);
    let direct = Wire::new(&server.endpoint());
    let mut talk = watchers(&proxy, &[0]).await.remove(0);
    talk.send.send(create("other", 0)).await.expect("the stream is open");
    assert_eq!(next(&mut talk).await.watch_id, 1);
    for round in 0..20 {
        put_all(&direct, round, round + 1).await;
        let written = direct.get("w").await.expect("a read").header.expect("a header").revision;
        let ask = || request(RequestUnion::ProgressRequest(WatchProgressRequest {}));
        talk.send.send(ask()).await.expect("the stream is open");
        let mut seen = 0;
        loop {
            let response = next(&mut talk).await;
            let revision = response.header.expect("a header").revision;
            seen += response.events.len();
            if response.watch_id == -1 {
                if revision >= written {
                    break;
                }
                talk.send.send(ask()).await.expect("the stream is open");
            }
        }
        assert_eq!(seen, 1, "the event comes before the progress");
    }
}

/// etcd drops requests for progress while a watch catches up. A client that asks once is answered all the same.
#[tokio::test(flavor = "multi_thread")]
async fn progress_of_a_watch_that_catches_up_is_told() {
    let etcd = Setup::new(process::etcd()).start();
    let proxy = Proxy::grpc(&etcd, &[]);
    put_all(&Wire::new(&etcd.endpoint()), 0, 100).await;
    let mut talk = watchers(&proxy, &[2]).await.remove(0);
    let ask = request(RequestUnion::ProgressRequest(WatchProgressRequest {}));
    talk.send.send(ask).await.expect("the stream is open");
    assert_eq!(values(&mut talk, 100).await.len(), 100);
    let progress = next(&mut talk).await;
    assert_eq!((progress.watch_id, progress.header.expect("a header").revision), (-1, 101));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compacted_or_invalid_watch_is_canceled() {
    let server = Setup::new(process::basalt()).start();
    let proxy = Proxy::grpc(&server, &[]);
    let direct = Wire::new(&server.endpoint());
    put_all(&direct, 0, 10).await;
    super::told(&server.endpoint(), &["compaction", "8"]);
    let mut talk = watchers(&proxy, &[3]).await.remove(0);
    let canceled = next(&mut talk).await;
    assert!(canceled.canceled && canceled.compact_revision == 8, "{canceled:?}");
    assert!(!canceled.created && canceled.watch_id == 0);
    talk.send.send(create("w", -1)).await.expect("the stream is open");
    let refused = next(&mut talk).await;
    assert!(refused.canceled && refused.created && refused.watch_id == -1, "{refused:?}");
    talk.send.send(create("w", 0)).await.expect("the stream is open");
    assert_eq!(next(&mut talk).await.watch_id, 1, "the stream goes on");
    proxy.wait_for_metric(UPSTREAM, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn renewals_of_one_lease_are_shared() {
    const CLIENTS: usize = 50;
    let server = Setup::new(process::basalt()).start();
    let proxy = Proxy::grpc(&server, &[]);
    let direct = Wire::new(&server.endpoint());
    let grant = LeaseGrantRequest { ttl: 600, id: 7 };
    direct.ask::<_, LeaseGrantResponse>(LEASE_GRANT, &grant).await.expect("a lease");
    let renew = LeaseKeepAliveRequest { id: 7 }.encode_to_vec();
    let mut talks = Vec::new();
    for _ in 0..CLIENTS {
        let wire = Wire::new(&proxy.endpoint());
        talks.push(wire.talk(LEASE_KEEP_ALIVE, renew.clone().into()).await.expect("a stream"));
    }
    for talk in &mut talks {
        let response = answer(talk).await;
        assert!(response.id == 7 && (599..=600).contains(&response.ttl), "{response:?}");
    }
    let page = super::told_page(&server.endpoint(), "/metrics");
    let renewals: usize = page
        .lines()
        .find_map(|line| line.strip_prefix("etcd_debugging_lease_renewed_total "))
        .unwrap_or_else(|| panic!("{page}"))
        .parse()
        .expect("a number");
    assert!((1..CLIENTS).contains(&renewals), "{renewals} for {CLIENTS} clients");
    // A lease that is revoked through the proxy is gone at once.
    super::told(&proxy.endpoint(), &["lease", "revoke", "7"]);
    talks[0].send.send(renew.into()).await.expect("the stream is open");
    assert_eq!(answer(&mut talks[0]).await.ttl, 0);
}

async fn answer(talk: &mut Talk) -> LeaseKeepAliveResponse {
    let message = timeout(PATIENCE, talk.answers.message()).await.expect("in time");
    LeaseKeepAliveResponse::decode(message.expect("no error").expect("no end")).expect("a message")
}
