//! Comparisons that need time or an order of their own: leases that expire, the order in which
//! leases are listed, the versions a member reports, and the plain HTTP pages.

use std::time::{Duration, Instant};

use basalt_proto::etcdserverpb::{
    LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest, LeaseKeepAliveResponse,
    LeaseLeasesRequest, LeaseLeasesResponse, LeaseTimeToLiveRequest, LeaseTimeToLiveResponse,
    PutRequest, PutResponse, RangeRequest, StatusRequest, StatusResponse, WatchCreateRequest,
    WatchRequest, watch_request::RequestUnion,
};
use bytes::Bytes;
use prost::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::answer::Answer;
use super::{difference, runtime, setups};
use crate::process::Server;
use crate::wire::{self, Wire};

/// Runs one test against both servers; the results must be equal.
fn alike<T: PartialEq + std::fmt::Debug>(story: impl AsyncFn(&Server, Wire) -> T) {
    let (etcd, basalt) = setups();
    let (etcd, basalt) = (etcd.start(), basalt.start());
    let told = runtime().block_on(async {
        let wires = (Wire::new(&etcd.endpoint()), Wire::new(&basalt.endpoint()));
        tokio::join!(story(&etcd, wires.0), story(&basalt, wires.1))
    });
    assert!(told.0 == told.1, "{}", difference(&told.0, &told.1));
}

async fn grant(wire: &Wire, id: i64, ttl: i64) -> i64 {
    let request = LeaseGrantRequest { id, ttl };
    let granted: LeaseGrantResponse = wire.ask(wire::LEASE_GRANT, &request).await.unwrap();
    granted.ttl
}

async fn put_leased(wire: &Wire, key: &'static str, lease: i64) {
    let key = Bytes::from_static(key.as_bytes());
    let request = PutRequest { key, lease, ..Default::default() };
    let _: PutResponse = wire.ask(wire::PUT, &request).await.unwrap();
}

async fn time_to_live(wire: &Wire, id: i64) -> LeaseTimeToLiveResponse {
    let request = LeaseTimeToLiveRequest { id, keys: true };
    wire.ask(wire::LEASE_TIME_TO_LIVE, &request).await.unwrap()
}

#[test]
fn leases_run_out_and_take_their_keys_along() {
    alike(async |_, wire| {
        let began = Instant::now();
        // One second is less than the shortest TTL that is granted.
        let short = grant(&wire, 1, 0).await;
        let long = grant(&wire, 2, 600).await;
        for (key, lease) in [("b", 1), ("a", 1), ("c", 2), ("d", 0), ("e", 1)] {
            put_leased(&wire, key, lease).await;
        }
        // A put without a lease detaches the key from it.
        put_leased(&wire, "e", 0).await;
        let before = wire.everything(0).await.unwrap().kvs;
        while time_to_live(&wire, 1).await.granted_ttl != 0 {
            assert!(began.elapsed() < Duration::from_secs(15), "lease 1 does not run out");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert!(began.elapsed().as_secs() + 1 >= u64::try_from(short).unwrap(), "ran out early");
        let gone = time_to_live(&wire, 1).await;
        let after = wire.everything(0).await.unwrap();
        let revision = after.header.as_ref().map(|it| it.revision);
        (
            short,
            long,
            before,
            after.kvs,
            revision,
            gone.ttl,
            gone.keys,
            wire.hash_kv(0).await.unwrap().hash,
        )
    });
}

#[test]
fn a_lease_kept_alive_does_not_run_out() {
    alike(async |_, wire| {
        let ttl = grant(&wire, 5, 2).await;
        put_leased(&wire, "kept", 5).await;
        let began = Instant::now();
        let request = Bytes::from(LeaseKeepAliveRequest { id: 5 }.encode_to_vec());
        let mut talk = wire.talk(wire::LEASE_KEEP_ALIVE, request.clone()).await.unwrap();
        while began.elapsed() < Duration::from_secs(5) {
            let bytes = talk.answers.message().await.unwrap().unwrap();
            let answer = LeaseKeepAliveResponse::decode(bytes).unwrap();
            assert_eq!((answer.id, answer.ttl), (5, ttl));
            tokio::time::sleep(Duration::from_millis(300)).await;
            talk.send.send(request.clone()).await.unwrap();
        }
        (ttl, wire.get("kept").await.unwrap().kvs)
    });
}

#[test]
fn leases_are_listed_by_the_time_they_run_out() {
    alike(async |_, wire| {
        for (id, ttl) in [(4, 400), (1, 100), (3, 300), (2, 200), (9, 50)] {
            grant(&wire, id, ttl).await;
        }
        let request = LeaseLeasesRequest {};
        let listed: LeaseLeasesResponse = wire.ask(wire::LEASE_LEASES, &request).await.unwrap();
        listed.leases
    });
}

#[test]
fn versions_are_reported_alike() {
    alike(async |server, wire| {
        let until = Instant::now() + Duration::from_secs(12);
        // The storage version is decided some seconds after the start.
        loop {
            let status: StatusResponse = wire.ask(wire::STATUS, &StatusRequest {}).await.unwrap();
            let page = page(server, "GET /version").await;
            if status.storage_version == "3.7.0" || Instant::now() > until {
                break (status.version, status.storage_version, page);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
}

#[test]
fn health_pages_are_alike() {
    alike(async |server, wire| {
        wire.put("a", "b").await.unwrap();
        let mut pages = Vec::new();
        for request in [
            "GET /health",
            "GET /health?serializable=true",
            "GET /health?exclude=NOSPACE",
            "POST /health",
            "GET /livez",
            "GET /readyz",
            "GET /livez/serializable_read",
            "GET /readyz/data_corruption",
            "GET /readyz/nothing",
            "GET /readyz?exclude=nothing",
            "POST /version",
            "GET /nowhere",
            "GET /v2/keys",
            "OPTIONS /health",
        ] {
            pages.push((request, page(server, request).await));
        }
        pages
    });
}

#[test]
fn a_streamed_range_with_a_sort_target_is_sorted_if_it_is_one_chunk() {
    alike(async |_, wire| {
        let mut told = Vec::new();
        // Nine keys and ten: the first chunk takes no more.
        for (prefix, values) in [("k0", "416902537"), ("k1", "8")] {
            for (key, value) in values.chars().enumerate() {
                wire.put(&format!("{prefix}{key}"), &value.to_string()).await.unwrap();
            }
            for (sort_target, limit) in
                [(1, 0), (2, 0), (3, 0), (4, 0), (4, 10), (4, 20), (4, 4), (1, 4)]
            {
                for keys_only in [false, true] {
                    let request = RangeRequest {
                        key: "k".into(),
                        range_end: "l".into(),
                        sort_target,
                        limit,
                        keys_only,
                        ..Default::default()
                    };
                    let chunks = wire.collect(wire::RANGE_STREAM, request.encode_to_vec().into());
                    let Answer::Range(mut whole) = Answer::joined(chunks.await) else {
                        panic!("no range for {request:?}");
                    };
                    // etcd counts the keys after the last one of the sorted chunk, as if that were the last of all.
                    if whole.more {
                        whole.count = 0;
                    }
                    told.push(whole);
                }
            }
        }
        let values =
            |at: usize| -> Vec<_> { told[at].kvs.iter().map(|kv| kv.value.clone()).collect() };
        assert_eq!(values(6), ["0", "1", "2", "3", "4", "5", "6", "7", "9"], "sorted by value");
        told
    });
}

#[test]
fn open_watches_are_counted_alike() {
    alike(async |server, wire| {
        let create = |key: &'static str| {
            let create = WatchCreateRequest { key: key.into(), ..Default::default() };
            let request_union = Some(RequestUnion::CreateRequest(create));
            Bytes::from(WatchRequest { request_union }.encode_to_vec())
        };
        let first = wire.talk(wire::WATCH, create("a")).await.unwrap();
        let second = wire.talk(wire::WATCH, create("b")).await.unwrap();
        for key in ["c", "d"] {
            second.send.send(create(key)).await.unwrap();
        }
        let mut told = vec![watches_counted(server, [2, 4, 0]).await];
        drop(second);
        told.push(watches_counted(server, [1, 1, 0]).await);
        drop(first);
        told.push(watches_counted(server, [0, 0, 0]).await);
        told
    });
}

/// Streams, watchers and slow watchers, once they are as expected or much time has passed.
async fn watches_counted(server: &Server, expected: [u64; 3]) -> Vec<Option<u64>> {
    let began = Instant::now();
    loop {
        let (_, _, text) = page(server, "GET /metrics").await;
        let value = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name))?;
            line.trim().parse().ok()
        };
        let counted = ["watch_stream", "watcher", "slow_watcher"]
            .map(|it| value(&format!("etcd_debugging_mvcc_{it}_total ")));
        if counted == expected.map(Some) || began.elapsed() > Duration::from_secs(10) {
            return counted.to_vec();
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Status line, the headers with a meaning, and the body.
async fn page(server: &Server, request: &str) -> (String, Vec<String>, String) {
    let mut stream = TcpStream::connect(("127.0.0.1", server.port)).await.unwrap();
    let text = format!("{request} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n");
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let mut lines = head.lines().map(str::to_owned);
    let status = lines.next().unwrap_or_default();
    let mut headers: Vec<_> = lines
        .map(|line| {
            line.split_once(':')
                .map_or(line.clone(), |(name, value)| format!("{}:{value}", name.to_lowercase()))
        })
        .filter(|line| !line.starts_with("date:") && !line.starts_with("connection:"))
        .collect();
    headers.sort();
    (status, headers, body.to_owned())
}
