//! End to end: a gRPC client, HTTP/2, the service, the hub and its actor, over a store of the test.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use basalt_proto::etcdserverpb::watch_client::WatchClient;
use basalt_proto::etcdserverpb::watch_request::RequestUnion;
use basalt_proto::etcdserverpb::{
    ResponseHeader, WatchCancelRequest, WatchCreateRequest, WatchProgressRequest, WatchRequest,
    WatchResponse,
};
use basalt_proto::server::etcdserverpb::watch_server::WatchServer;
use futures_lite::Stream as _;
use tokio::task::LocalSet;
use tokio::time::timeout;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Server};
use tonic::{Code, Request, Status, Streaming};

use super::{Responses, Watch};
use crate::actors::watch::{self, Handle, History, Options, Published, Sessions, Source};
use crate::types::Fault;
use crate::types::limits::WATCH_STREAM_BYTES_SHARE;
use crate::watch::StreamOptions;
use crate::watch::fixture::Store;

struct Member {
    store: Mutex<Store>,
    leader: AtomicBool,
}

impl Source for Member {
    fn header(&self) -> ResponseHeader {
        ResponseHeader { cluster_id: 1, member_id: 2, raft_term: 3, revision: 0 }
    }

    fn published(&self) -> Published {
        self.store.lock().unwrap().published()
    }

    fn history(&self, from: i64, revisions_max: usize, bytes_max: usize) -> Result<History, Fault> {
        Ok(self.store.lock().unwrap().history(from, revisions_max, bytes_max))
    }

    fn has_leader(&self) -> bool {
        self.leader.load(Ordering::Relaxed)
    }
}

struct Bench {
    member: Arc<Member>,
    handle: Handle,
    sessions: Sessions,
    channel: Channel,
}

const OPTIONS: Options = Options {
    hub_bytes_max: 256 << 20,
    max_request_bytes: 1 << 20,
    streams: StreamOptions { progress_interval_ms: 100, no_leader_ms_max: 300, seed: 1 },
};

/// Runs a test against a server on this thread.
fn serve<F: Future<Output = ()>>(test: impl FnOnce(Bench) -> F) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, async {
        let member = Arc::new(Member { store: Mutex::default(), leader: AtomicBool::new(true) });
        let (handle, mailbox) = watch::mailbox(Arc::<Member>::clone(&member), OPTIONS);
        let (sessions, actor) = watch::start(mailbox);
        let actor = tokio::task::spawn_local(actor);
        let incoming = TcpIncoming::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = format!("http://{}", incoming.local_addr().unwrap());
        let service = WatchServer::new(Watch { sessions: sessions.clone(), replica: None });
        tokio::spawn(Server::builder().serve_with_incoming(service, incoming));
        let channel = Channel::from_shared(address).unwrap().connect().await.unwrap();
        test(Bench { member, handle: handle.clone(), sessions, channel }).await;
        handle.stop().await;
        actor.await.unwrap().unwrap();
    });
}

struct Client {
    requests: flume::Sender<WatchRequest>,
    responses: Streaming<WatchResponse>,
}

impl Bench {
    fn put(&self, key: &str, value: &str) {
        self.put_all(&[(key, value)]);
    }

    fn put_all(&self, pairs: &[(&str, &str)]) {
        let (events, revision) = {
            let mut store = self.member.store.lock().unwrap();
            let change =
                |(key, value): &(&str, &str)| ((*key).to_owned(), Some((*value).to_owned()));
            let events = store.change(&pairs.iter().map(change).collect::<Vec<_>>());
            (events, store.revision())
        };
        self.handle.events(&Arc::from(events), revision);
    }

    async fn stream(&self, hasleader: bool) -> Result<Client, Status> {
        let (requests, receiver) = flume::unbounded();
        let mut request = Request::new(receiver.into_stream());
        if hasleader {
            request.metadata_mut().insert("hasleader", "true".parse().unwrap());
        }
        let responses = WatchClient::new(self.channel.clone()).watch(request).await?.into_inner();
        Ok(Client { requests, responses })
    }
}

impl Client {
    fn send(&self, request: RequestUnion) {
        self.requests.send(WatchRequest { request_union: Some(request) }).unwrap();
    }

    fn create(&self, key: &str, start_revision: i64) {
        let key = key.to_owned().into();
        let request = WatchCreateRequest { key, start_revision, ..WatchCreateRequest::default() };
        self.send(RequestUnion::CreateRequest(request));
    }

    async fn try_next(&mut self) -> Result<WatchResponse, Status> {
        let next = timeout(Duration::from_secs(10), self.responses.message()).await;
        next.expect("a response in time").map(|response| response.expect("no end"))
    }

    async fn next(&mut self) -> WatchResponse {
        self.try_next().await.unwrap()
    }

    /// Reads until a response has events up to `revision`; returns the revisions of all events.
    async fn until(&mut self, revision: i64) -> Vec<i64> {
        let mut seen = Vec::new();
        while seen.last() != Some(&revision) {
            let events = self.next().await.events;
            seen.extend(events.into_iter().map(|event| event.kv.unwrap().mod_revision));
        }
        seen
    }
}

#[test]
fn a_client_watches_cancels_and_asks_for_progress() {
    serve(|bench| async move {
        let mut client = bench.stream(true).await.unwrap();
        client.create("a", 0);
        let created = client.next().await;
        assert!(created.created && created.watch_id == 0);
        let header = ResponseHeader { cluster_id: 1, member_id: 2, revision: 1, raft_term: 3 };
        assert_eq!(created.header, Some(header));
        bench.put("a", "1");
        bench.put("b", "1");
        bench.put("a", "2");
        assert_eq!(client.until(4).await, [2, 4]);
        client.send(RequestUnion::ProgressRequest(WatchProgressRequest {}));
        let progress = client.next().await;
        assert_eq!((progress.watch_id, progress.header.unwrap().revision), (-1, 4));
        client.create("a", 1);
        assert_eq!(client.next().await.watch_id, 1);
        assert_eq!(client.until(4).await, [2, 4]);
        client.send(RequestUnion::CancelRequest(WatchCancelRequest { watch_id: 0 }));
        assert!(client.next().await.canceled);
        bench.put("a", "3");
        let last = client.next().await;
        assert_eq!((last.watch_id, last.events.len()), (1, 1));
    });
}

#[test]
fn a_stream_goes_on_when_its_client_has_no_more_requests() {
    serve(|bench| async move {
        let mut client = bench.stream(false).await.unwrap();
        client.create("a", 0);
        assert!(client.next().await.created);
        drop(std::mem::replace(&mut client.requests, flume::unbounded().0));
        bench.put("a", "1");
        assert_eq!(client.until(2).await, [2]);
    });
}

#[test]
fn a_client_that_does_not_read_is_sent_all_later_and_delays_nobody() {
    serve(|bench| async move {
        let mut slow = bench.stream(false).await.unwrap();
        let mut quick = bench.stream(false).await.unwrap();
        slow.create("a", 0);
        quick.create("a", 0);
        assert!(quick.next().await.created);
        assert!(slow.next().await.created);
        let value = "x".repeat(100_000);
        for revision in 2..=201 {
            bench.put("a", &value);
            assert_eq!(quick.until(revision).await, [revision]);
        }
        // 20 MB were written; the slow stream holds as much as its limit.
        tokio::time::sleep(Duration::from_millis(250)).await;
        let stats = bench.handle.stats();
        assert_eq!((stats.streams, stats.watchers, stats.behind), (2, 2, 1));
        assert!(stats.bytes < 5 << 20, "{} bytes held", stats.bytes);
        assert_eq!(slow.until(201).await, (2..=201).collect::<Vec<_>>());
    });
}

#[test]
fn http2_is_given_a_window_of_responses_at_once() {
    serve(|bench| async move {
        let session = bench.sessions.open(false).unwrap();
        let create = WatchCreateRequest { key: "a".into(), ..WatchCreateRequest::default() };
        session.request(WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) });
        let value = "x".repeat(1000);
        (0..1000).for_each(|_| bench.put("a", &value));
        tokio::time::sleep(Duration::from_millis(250)).await;
        let waiting = session.waiting();
        assert!(waiting > 900, "{waiting}");
        let mut responses = Responses::new(session, futures_lite::stream::pending(), None);
        let mut given = 0;
        let next = |responses: &mut Responses<_>| {
            Pin::new(responses).poll_next(&mut Context::from_waker(Waker::noop()))
        };
        while let Poll::Ready(Some(Ok(_))) = next(&mut responses) {
            given += 1;
        }
        assert!((40..WATCH_STREAM_BYTES_SHARE / value.len()).contains(&given), "{given}");
    });
}

#[test]
fn batches_beyond_the_mailbox_are_read_from_history() {
    serve(|bench| async move {
        let mut client = bench.stream(false).await.unwrap();
        client.create("a", 0);
        assert!(client.next().await.created);
        // The actor does not run in between: more than the mailbox's capacity.
        for _ in 0..3000 {
            bench.put("a", "1");
        }
        assert_eq!(client.until(3001).await, (2..=3001).collect::<Vec<_>>());
        bench.put("a", "2");
        assert_eq!(client.until(3002).await, [3002]);
    });
}

#[test]
fn a_stream_that_requires_a_leader_ends_without_one() {
    serve(|bench| async move {
        let mut strict = bench.stream(true).await.unwrap();
        let mut lenient = bench.stream(false).await.unwrap();
        strict.create("a", 0);
        lenient.create("a", 0);
        assert!(strict.next().await.created);
        assert!(lenient.next().await.created);
        bench.member.leader.store(false, Ordering::Relaxed);
        let end = strict.try_next().await.unwrap_err();
        assert_eq!((end.code(), end.message()), (Code::Unavailable, "etcdserver: no leader"));
        let refused = bench.stream(true).await.err().unwrap();
        assert_eq!(
            (refused.code(), refused.message()),
            (Code::Unavailable, "etcdserver: no leader")
        );
        bench.put("a", "1");
        assert_eq!(lenient.until(2).await, [2]);
    });
}

#[test]
fn a_closed_stream_leaves_nothing_behind() {
    serve(|bench| async move {
        let mut client = bench.stream(false).await.unwrap();
        for _ in 0..5000 {
            client.create("a", 0);
        }
        for _ in 0..5000 {
            assert!(client.next().await.created);
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
        assert_eq!(bench.handle.stats().watchers, 5000);
        drop(client);
        tokio::time::sleep(Duration::from_millis(250)).await;
        assert_eq!(bench.handle.stats(), watch::HubStats::default());
        bench.put("a", "1");
        // A later watch starts from the published state, though the hub has not received it.
        let mut client = bench.stream(false).await.unwrap();
        client.create("a", 0);
        assert_eq!(client.next().await.header.unwrap().revision, 2);
        bench.put("a", "2");
        assert_eq!(client.until(3).await, [3]);
    });
}

#[test]
fn streams_end_when_the_member_stops() {
    serve(|bench| async move {
        let mut client = bench.stream(false).await.unwrap();
        client.create("a", 0);
        assert!(client.next().await.created);
        bench.handle.stop().await;
        let end = client.try_next().await.unwrap_err();
        assert_eq!((end.code(), end.message()), (Code::Unavailable, "etcdserver: server stopped"));
    });
}
