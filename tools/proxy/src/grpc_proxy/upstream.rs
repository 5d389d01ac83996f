//! The members behind the proxy: a connection to each, calls in turn. A call whose connection could not be made was not
//! sent, and goes to the next member; one that broke is sent again only if it changes nothing.

use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::task::{Context, Poll};
use std::time::Duration;

use basalt_proto::etcdserverpb::{MemberListRequest, MemberListResponse};
use bytes::Bytes;
use dial::{Dialer, KeepAlive, Socket};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::codegen::tokio_stream::Stream;
use tonic::transport::Channel;
use tonic::{Status, Streaming};

use super::caller::{Caller, too_late};
use super::codec::{Raw, decode, encode, in_gos_words};
use super::options::{Options, tell_tls};
use crate::limits::{ATTEMPTS_MAX, ENDPOINT_DOWN, ROUND_BACKOFF};
use crate::{Failure, warn};

/// tonic's text for a call whose time is over.
const TIMEOUT_EXPIRED: &str = "Timeout expired";

/// Calls that change nothing, or the same if they are made twice.
const REPEATABLE: &[&str] = &[
    "/etcdserverpb.KV/Range",
    "/etcdserverpb.Lease/LeaseTimeToLive",
    "/etcdserverpb.Lease/LeaseLeases",
    "/etcdserverpb.Cluster/MemberList",
    "/etcdserverpb.Maintenance/Status",
    "/etcdserverpb.Maintenance/HashKV",
    "/etcdserverpb.Auth/UserList",
    "/etcdserverpb.Auth/UserGet",
    "/etcdserverpb.Auth/RoleGet",
    "/etcdserverpb.Auth/RoleList",
];

/// All members.
pub(super) struct Upstream {
    endpoints: RwLock<Vec<Arc<Endpoint>>>,
    next: AtomicUsize,
    dialer: Dialer,
    /// The same for HTTP/1, of pages.
    page_dialer: Dialer,
    keep_alive: KeepAlive,
    send_bytes_max: usize,
    receive_bytes_max: usize,
}

/// One member.
struct Endpoint {
    address: String,
    /// The lock is held while the connection is made, so that it is made once.
    link: tokio::sync::Mutex<Option<Channel>>,
    /// The time of its last failure to connect.
    failed: Mutex<Option<Instant>>,
}

impl Endpoint {
    fn new(address: String) -> Arc<Self> {
        Arc::new(Self { address, link: tokio::sync::Mutex::default(), failed: Mutex::default() })
    }

    fn is_down(&self) -> bool {
        let failed = self.failed.lock().expect("no holder panics");
        failed.is_some_and(|at| at.elapsed() < ENDPOINT_DOWN)
    }

    fn set_failed(&self, failed: bool) {
        *self.failed.lock().expect("no holder panics") = failed.then(Instant::now);
    }
}

impl Upstream {
    /// # Errors
    /// There are no endpoints, or a file of the TLS flags is wrong.
    pub(super) async fn new(options: &Options) -> Result<Self, Failure> {
        let endpoints = options.find_endpoints().await?;
        let security = &options.security;
        let config = dial::tls::config(security).map_err(Failure::Error)?;
        if let Some(config) = &config {
            refuse_common_name(&security.cert)?;
            if security.skip_verify {
                let message = "--insecure-skip-tls-verify was given, this grpc proxy process skips authentication of \
                               etcd server TLS certificates. This option should be enabled only for testing purposes.";
                warn("etcdmain/grpc_proxy.go:435", message).write();
            }
            let (cert, key, ca) = (&security.cert, &security.key, &security.cacert);
            tell_tls("etcdmain/grpc_proxy.go:438", "gRPC proxy client TLS", cert, key, ca);
            debug_assert_eq!(config.alpn_protocols, [b"h2"]);
        }
        let no_endpoints = || Failure::Error("etcdclient: no available endpoints".to_owned());
        let first = endpoints.first().ok_or_else(no_endpoints)?;
        let for_pages = |config: Arc<rustls::ClientConfig>| {
            let mut config = (*config).clone();
            config.alpn_protocols = vec![b"http/1.1".to_vec()];
            Arc::new(config)
        };
        let page_dialer =
            Dialer::new(first, config.clone().map(for_pages), || for_pages(dial::tls::default()));
        Ok(Self {
            dialer: Dialer::new(first, config, dial::tls::default),
            page_dialer,
            endpoints: RwLock::new(endpoints.into_iter().map(Endpoint::new).collect()),
            next: AtomicUsize::new(0),
            keep_alive: options.keep_alive,
            send_bytes_max: options.send_bytes_max,
            receive_bytes_max: options.receive_bytes_max,
        })
    }

    /// Number of members.
    pub(super) fn len(&self) -> usize {
        self.endpoints.read().expect("no holder panics").len()
    }

    /// The addresses, one after the other, from a different one each time.
    pub(super) fn addresses(&self) -> Vec<String> {
        let endpoints = self.endpoints.read().expect("no holder panics");
        let turn = self.next.fetch_add(1, Ordering::Relaxed) % endpoints.len().max(1);
        let all = endpoints.iter().map(|it| it.address.clone());
        let mut all: Vec<String> = all.collect();
        all.rotate_left(turn);
        all
    }

    /// A connection to a member's pages.
    ///
    /// # Errors
    /// Go's text.
    pub(super) async fn open_page(&self, address: &str) -> Result<Box<dyn Socket>, String> {
        self.page_dialer.open(address).await
    }

    /// One request, one response.
    ///
    /// # Errors
    /// The member's error, or no member could be reached.
    pub(super) async fn unary(
        &self,
        path: &'static str,
        caller: &Caller,
        message: Bytes,
    ) -> Result<Bytes, Status> {
        let answer = self.try_unary(path, caller, message);
        match caller.timeout {
            Some(time) => timeout(time, answer).await.unwrap_or_else(|_| Err(too_late())),
            None => answer.await,
        }
    }

    async fn try_unary(
        &self,
        path: &'static str,
        caller: &Caller,
        message: Bytes,
    ) -> Result<Bytes, Status> {
        self.check_size(&message)?;
        let mut attempt = 0;
        loop {
            let (endpoint, channel) = self.connected(&mut attempt).await?;
            let mut grpc = self.grpc(channel);
            let ready = grpc.ready().await;
            let sent = ready.is_ok();
            let answer = match ready {
                Ok(()) => {
                    let request = caller.request(message.clone());
                    grpc.unary(request, PathAndQuery::from_static(path), Raw).await
                }
                Err(error) => Err(Status::unavailable(error.to_string())),
            };
            let status = match answer {
                Ok(answer) => return Ok(answer.into_inner()),
                Err(status) => status,
            };
            if sent && !is_broken(&status) {
                return Err(passed_on(status));
            }
            *endpoint.link.lock().await = None;
            attempt += 1;
            if attempt >= ATTEMPTS_MAX || (sent && !REPEATABLE.contains(&path)) {
                return Err(passed_on(status));
            }
        }
    }

    /// A stream of responses to a stream of requests.
    ///
    /// # Errors
    /// The member's error, or no member could be reached.
    pub(super) async fn stream(
        &self,
        path: &'static str,
        caller: &Caller,
        requests: impl Stream<Item = Bytes> + Send + 'static,
    ) -> Result<Streaming<Bytes>, Status> {
        let mut attempt = 0;
        loop {
            let (endpoint, channel) = self.connected(&mut attempt).await?;
            let mut grpc = self.grpc(channel);
            if grpc.ready().await.is_err() {
                *endpoint.link.lock().await = None;
                attempt += 1;
                if attempt >= ATTEMPTS_MAX {
                    return Err(Status::unavailable("error reading from server: EOF"));
                }
                continue;
            }
            let request = caller.request(requests);
            let answer = grpc.streaming(request, PathAndQuery::from_static(path), Raw).await;
            return match answer {
                Ok(answer) => Ok(answer.into_inner()),
                Err(status) => {
                    if is_broken(&status) {
                        *endpoint.link.lock().await = None;
                    }
                    Err(passed_on(status))
                }
            };
        }
    }

    fn grpc(&self, channel: Channel) -> Grpc<Channel> {
        Grpc::new(channel)
            .max_decoding_message_size(self.receive_bytes_max)
            .max_encoding_message_size(usize::MAX)
    }

    fn check_size(&self, message: &Bytes) -> Result<(), Status> {
        let (length, limit) = (message.len(), self.send_bytes_max);
        match length > limit {
            true => Err(Status::resource_exhausted(format!(
                "trying to send message larger than max ({length} vs. {limit})"
            ))),
            false => Ok(()),
        }
    }

    /// A connection to the member whose turn it is; failed ones are left out at first. `attempt` counts the members that
    /// could not be reached.
    async fn connected(&self, attempt: &mut usize) -> Result<(Arc<Endpoint>, Channel), Status> {
        loop {
            let why = match self.connect_next().await {
                Ok(found) => return Ok(found),
                Err(why) => why,
            };
            *attempt += 1;
            if *attempt >= ATTEMPTS_MAX {
                let text = format!("connection error: desc = {}", gocompat::quote::quote(why));
                return Err(Status::unavailable(text));
            }
            if attempt.is_multiple_of(self.len().max(1)) {
                sleep(ROUND_BACKOFF).await;
            }
        }
    }

    async fn connect_next(&self) -> Result<(Arc<Endpoint>, Channel), String> {
        let endpoint = {
            let endpoints = self.endpoints.read().expect("no holder panics");
            let turn = self.next.fetch_add(1, Ordering::Relaxed);
            let at = |it: usize| &endpoints[(turn.wrapping_add(it)) % endpoints.len()];
            let up = (0..endpoints.len()).map(at).find(|it| !it.is_down());
            Arc::clone(up.unwrap_or_else(|| at(0)))
        };
        let mut link = endpoint.link.lock().await;
        if let Some(channel) = &*link {
            let channel = channel.clone();
            drop(link);
            return Ok((endpoint, channel));
        }
        match self.dialer.link(self.keep_alive, &endpoint.address).await {
            Ok(made) => {
                *link = Some(made.channel.clone());
                endpoint.set_failed(false);
                drop(link);
                Ok((endpoint, made.channel))
            }
            Err(why) => {
                endpoint.set_failed(true);
                Err(why)
            }
        }
    }

    /// Other endpoints; those that were there already keep their connections.
    fn replace(&self, addresses: Vec<String>) {
        let mut endpoints = self.endpoints.write().expect("no holder panics");
        let known = |address: &String| endpoints.iter().find(|it| it.address == *address).cloned();
        let new = addresses.into_iter().map(|it| known(&it).unwrap_or_else(|| Endpoint::new(it)));
        *endpoints = new.collect();
    }
}

/// Replaces the endpoints by those of the cluster's members, at intervals.
pub(super) async fn follow_members(upstream: Arc<Upstream>, interval: Duration) {
    loop {
        sleep(interval).await;
        let request = encode(&MemberListRequest { linearizable: true });
        let caller = Caller::hasty(interval);
        let answer = upstream.unary("/etcdserverpb.Cluster/MemberList", &caller, request).await;
        let answer = answer.and_then(decode::<MemberListResponse>);
        match answer {
            Ok(list) => {
                let members =
                    list.members.into_iter().filter(|it| !it.name.is_empty() && !it.is_learner);
                let addresses: Vec<String> = members.flat_map(|it| it.client_ur_ls).collect();
                if !addresses.is_empty() {
                    upstream.replace(addresses);
                }
            }
            Err(status) => warn("v3@v3.7.1/client.go:220", "Auto sync endpoints failed.")
                .text("error", status.message())
                .write(),
        }
    }
}

/// Requests of a stream to a member, from a bounded channel.
pub(super) struct Requests(pub(super) mpsc::Receiver<Bytes>);

impl Stream for Requests {
    type Item = Bytes;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        self.0.poll_recv(context)
    }
}

/// A common name would be a user, whom every client of the proxy could then be.
fn refuse_common_name(cert: &str) -> Result<(), Failure> {
    if cert.is_empty() {
        return Ok(());
    }
    let text = dial::files::read(std::path::Path::new(cert)).map_err(Failure::Error)?;
    match gotls::common_name(&text).map_err(Failure::Error)? {
        Some(name) if !name.is_empty() => {
            Err(Failure::Error(format!("cert has non empty Common Name ({name}): {cert}")))
        }
        _ => Ok(()),
    }
}

/// True if the connection broke: statuses of members have no source.
fn is_broken(status: &Status) -> bool {
    std::error::Error::source(status).is_some() && status.message() != TIMEOUT_EXPIRED
}

/// The status as it goes to the caller: code, text and details, without the metadata of this connection.
fn passed_on(status: Status) -> Status {
    if status.message() == TIMEOUT_EXPIRED {
        return too_late();
    }
    if is_broken(&status) {
        return Status::unavailable("error reading from server: EOF");
    }
    let status = in_gos_words(status);
    let details = Bytes::copy_from_slice(status.details());
    Status::with_details(status.code(), status.message(), details)
}

/// The same for an error inside a stream.
pub(super) fn of_stream(status: Status) -> Status {
    passed_on(status)
}
