//! The pages for people and their monitors: a member's `/metrics`, the health of the members and of the proxy, and the
//! proxy's own numbers.

use std::sync::Arc;
use std::time::Duration;

use basalt_proto::etcdserverpb::watch_request::RequestUnion;
use basalt_proto::etcdserverpb::{WatchCreateRequest, WatchRequest};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Full, Limited};
use hyper::header::{ALLOW, CONTENT_TYPE, HOST};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tonic::Status;
use tonic::body::Body;

use super::caller::{Caller, is_refusal_of_user};
use super::codec::encode;
use super::kv::Kv;
use super::metrics::{Gauges, Metrics};
use super::options::Options;
use super::upstream::{Requests, Upstream};
use super::watch::Watches;
use crate::limits::PAGE_BYTES_MAX;
use crate::warn;

const READ_TIME_MAX: Duration = Duration::from_secs(1);
const WATCH_TIME_MAX: Duration = Duration::from_secs(3);
const PAGE_TIME_MAX: Duration = Duration::from_secs(30);
const METRICS_TYPE: &str = "text/plain; version=0.0.4";
const TEXT_TYPE: &str = "text/plain; charset=utf-8";

/// The pages.
pub(super) struct Pages {
    kv: Arc<Kv>,
    watches: Watches,
    metrics: Arc<Metrics>,
    upstream: Arc<Upstream>,
    /// Clients are told of an address, so that there is a proxy that can be healthy.
    is_advertised: bool,
}

impl Pages {
    pub(super) fn new(
        options: &Options,
        kv: &Arc<Kv>,
        watches: &Watches,
        metrics: &Arc<Metrics>,
        upstream: &Arc<Upstream>,
    ) -> Self {
        Self {
            kv: Arc::clone(kv),
            watches: watches.clone(),
            metrics: Arc::clone(metrics),
            upstream: Arc::clone(upstream),
            is_advertised: !options.advertised.is_empty(),
        }
    }

    /// Answers a request that is not gRPC's.
    pub(super) async fn answer<B>(&self, request: &Request<B>) -> Response<Body> {
        let is_get = request.method() == Method::GET;
        match request.uri().path() {
            "/metrics" => self.member_metrics().await,
            "/proxy/metrics" => page(StatusCode::OK, METRICS_TYPE, self.own_metrics()),
            "/health" | "/proxy/health" if !is_get => {
                let mut refused = error(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed");
                refused.headers_mut().insert(ALLOW, hyper::header::HeaderValue::from_static("GET"));
                refused
            }
            "/health" => self.health(self.check_members().await),
            "/proxy/health" => self.health(self.check_proxy().await),
            _ => error(StatusCode::NOT_FOUND, "404 page not found"),
        }
    }

    fn own_metrics(&self) -> String {
        let coalesced = self.watches.coalesced();
        self.metrics.page(&Gauges {
            cached: self.kv.cached(),
            watchers_coalesced: coalesced.watchers,
            events_coalesced: coalesced.events,
            watches: self.watches.groups(),
        })
    }

    fn health(&self, checked: Result<(), String>) -> Response<Body> {
        let (is_healthy, reason) = match checked {
            Ok(()) => (true, String::new()),
            Err(reason) => (false, reason),
        };
        let text = serde_json::json!({ "health": is_healthy.to_string(), "reason": reason });
        let text = text.to_string();
        if is_healthy {
            Metrics::count(&self.metrics.healthy);
            return page(StatusCode::OK, TEXT_TYPE, text);
        }
        Metrics::count(&self.metrics.unhealthy);
        warn("etcdhttp/health.go:101", "/health error")
            .text("output", &text)
            .number("status-code", 503)
            .write();
        error(StatusCode::SERVICE_UNAVAILABLE, &text)
    }

    /// A linearizable read. A refusal of the user is an answer of a healthy member.
    async fn check_members(&self) -> Result<(), String> {
        match self.kv.probe("a", false, &Caller::hasty(READ_TIME_MAX)).await {
            Ok(()) => Ok(()),
            Err(status) if is_refusal_of_user(&status) => Ok(()),
            Err(status) => Err(format!("GET ERROR:{}", status.message())),
        }
    }

    /// The same, and a watch. etcd's proxy connects to its advertised address for that; here the request is on this
    /// connection already.
    async fn check_proxy(&self) -> Result<(), String> {
        if !self.is_advertised {
            return Err("no connection to proxy".to_owned());
        }
        self.check_members().await?;
        let watch = timeout(WATCH_TIME_MAX, self.try_watch()).await;
        watch.map_err(|_| "WATCH TIMEOUT".to_owned())?.map_err(|it| it.message().to_owned())
    }

    async fn try_watch(&self) -> Result<(), Status> {
        let create = WatchCreateRequest { key: "a".into(), ..WatchCreateRequest::default() };
        let union = Some(RequestUnion::CreateRequest(create));
        let (requests, inbox) = mpsc::channel(1);
        let _ = requests.try_send(encode(&WatchRequest { request_union: union }));
        let method = "/etcdserverpb.Watch/Watch";
        let opened = self.upstream.stream(method, &Caller::proxy(), Requests(inbox)).await;
        opened?.message().await.map(drop)
    }

    /// The page of the first member that answers.
    async fn member_metrics(&self) -> Response<Body> {
        for address in self.upstream.addresses() {
            match timeout(PAGE_TIME_MAX, self.fetch(&address)).await {
                Ok(Ok(text)) => return page(StatusCode::OK, METRICS_TYPE, text),
                Ok(Err(why)) => warn("proxy/pages.rs", "no metrics of an endpoint")
                    .text("endpoint", &address)
                    .text("error", &why)
                    .write(),
                Err(_) => {}
            }
        }
        error(StatusCode::INTERNAL_SERVER_ERROR, "Internal server error")
    }

    async fn fetch(&self, address: &str) -> Result<Bytes, String> {
        let socket = self.upstream.open_page(address).await?;
        let text = |error: hyper::Error| error.to_string();
        let io = TokioIo::new(socket);
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(io).await.map_err(text)?;
        let connection = tokio::spawn(connection);
        let request = Request::get("/metrics")
            .header(HOST, dial::authority(address))
            .body(Empty::<Bytes>::new())
            .map_err(|error| error.to_string())?;
        let response = sender.send_request(request).await.map_err(text)?;
        let body = Limited::new(response.into_body(), PAGE_BYTES_MAX).collect().await;
        connection.abort();
        body.map(|it| it.to_bytes()).map_err(|error| error.to_string())
    }
}

fn page(code: StatusCode, kind: &'static str, text: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Body::new(Full::new(text.into())));
    *response.status_mut() = code;
    let kind = hyper::header::HeaderValue::from_static(kind);
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

/// As Go's `http.Error`.
fn error(code: StatusCode, text: &str) -> Response<Body> {
    let mut response = page(code, TEXT_TYPE, format!("{text}\n"));
    let nosniff = hyper::header::HeaderValue::from_static("nosniff");
    response.headers_mut().insert("x-content-type-options", nosniff);
    response
}
