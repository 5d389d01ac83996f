//! HTTP services of a port: gRPC by its content type, and the same API as JSON, and pages for people and probes:
//! health, version, metrics. Never touches a socket.
//!
//! ```text
//!  request ─► HTTP/2 and application/grpc? ─────────────────────► rpc
//!         └─► is the host allowed? ─┬─► /v3/…: JSON ─► gateway ────┘   with CORS headers
//!                                   │     └ an upgrade ─► websocket ─► gateway
//!                                   └─► a page
//! ```

mod gateway;
mod health;
mod pages;
mod paths;
mod peers;
mod websocket;

use std::cell::Cell;
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, Request, Response, StatusCode, Version};
use tonic::body::Body;

use self::websocket::Accepted;
use crate::actors::ReplicaClient;
use crate::auth::Permissions;
use crate::io::{OpenConnection, PeerCertificate, UpgradedIo};
use crate::rpc::{MeteredResponse, Policy, Services, Source};

/// The services of a port.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Endpoints {
    /// gRPC and HTTP (`--listen-client-urls`).
    All,
    /// gRPC alone, where HTTP has ports of its own.
    Grpc,
    /// HTTP alone (`--listen-client-http-urls`).
    Http,
    /// Health and metrics alone (`--listen-metrics-urls`).
    Metrics,
    /// Pages for other members and operators (`--listen-peer-urls`).
    Peers,
}

impl Endpoints {
    const fn grpc(self) -> bool {
        matches!(self, Self::All | Self::Grpc)
    }
}

/// Options of a port.
#[derive(Clone, Debug)]
pub struct Options {
    /// `--cors`: origins whose scripts may send requests; `*` or nothing for all.
    pub origins: Vec<String>,
    /// `--host-whitelist`: host names that requests may use for this member; `*` or nothing for all.
    pub hosts: Vec<String>,
    /// The services.
    pub serves: Endpoints,
    /// `--enable-grpc-gateway`: true to serve the API as JSON too.
    pub gateway: bool,
    /// True if requests of the gateway have the identity of the client's certificate; etcd's never have.
    pub gateway_certificate_names: bool,
    /// `--warning-unary-request-duration`.
    pub slow: Duration,
    /// The audit log, and the limits of requests.
    pub policy: Arc<Policy>,
    /// The command line of the process.
    pub command_line: Vec<String>,
    /// Feature gates: name, stage, and true if enabled.
    pub features: Vec<(&'static str, &'static str, bool)>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            origins: vec!["*".to_owned()],
            hosts: vec!["*".to_owned()],
            serves: Endpoints::All,
            gateway: true,
            gateway_certificate_names: false,
            slow: Duration::from_millis(300),
            policy: Arc::default(),
            command_line: Vec::new(),
            features: Vec::new(),
        }
    }
}

/// The services of one port for one executor's connections. Clones are the same.
#[derive(Clone)]
pub struct HttpService {
    port: Rc<Port>,
    client: Rc<Client>,
}

struct Port {
    replica: ReplicaClient,
    services: Services,
    options: Options,
}

/// The client of one connection.
#[derive(Default)]
struct Client {
    peer: Arc<str>,
    /// Its certificate, if it has sent one.
    certificate: Option<Arc<PeerCertificate>>,
    is_secure: bool,
    /// The handler for the connection after an upgrade.
    upgrade: Cell<Option<Accepted>>,
}

type Answer = Pin<Box<dyn Future<Output = Result<Response<MeteredResponse>, Infallible>>>>;

impl HttpService {
    /// The services of this replica.
    pub fn new(replica: &ReplicaClient, options: Options) -> Self {
        let services = Services::new(replica, options.slow, &options.policy);
        let port = Port { replica: replica.clone(), services, options };
        Self { port: Rc::new(port), client: Rc::default() }
    }

    /// The same, for a connection.
    #[must_use]
    pub fn to(&self, connection: &OpenConnection) -> Self {
        let client = Client {
            peer: Arc::from(connection.peer()),
            certificate: connection.certificate(),
            is_secure: connection.is_secure(),
            upgrade: Cell::default(),
        };
        Self { port: Rc::clone(&self.port), client: Rc::new(client) }
    }

    /// The client as the gateway sees it.
    fn caller(&self) -> gateway::Caller {
        let (peer, certificate) = (Arc::clone(&self.client.peer), self.gateway_certificate());
        gateway::Caller { peer, certificate }
    }

    /// The certificate of calls of the gateway. Its name is a user's with `--gateway-client-cert-auth` only.
    fn gateway_certificate(&self) -> Option<Arc<PeerCertificate>> {
        match &self.client.certificate {
            Some(certificate) if !self.port.options.gateway_certificate_names => {
                Some(Arc::new(certificate.without_user()))
            }
            certificate => certificate.clone(),
        }
    }

    /// True if the gateway ignores the name in the client's certificate, which its owner does not expect.
    fn ignores_name(&self) -> bool {
        let user = self.client.certificate.as_ref().and_then(|certificate| certificate.user());
        user.is_some_and(|name| !name.is_empty())
            && !self.port.options.gateway_certificate_names
            && self.port.replica.with_permissions(Permissions::is_enabled)
    }

    /// Continues a connection on which HTTP has ended, if an upgrade was granted on it.
    pub async fn switched(self, connection: UpgradedIo) {
        if let Some(accepted) = self.client.upgrade.take() {
            let caller = self.caller();
            websocket::talk(self.port.services.clone(), caller, accepted, connection).await;
        }
    }
}

impl hyper::service::Service<Request<Incoming>> for HttpService {
    type Response = Response<MeteredResponse>;
    type Error = Infallible;
    type Future = Answer;

    fn call(&self, mut request: Request<Incoming>) -> Answer {
        if let Some(certificate) = &self.client.certificate {
            request.extensions_mut().insert(Arc::clone(certificate));
        }
        if is_grpc(&request) && self.port.options.serves.grpc() {
            return self.port.services.call(request.map(Source::Wire), &self.client.peer);
        }
        let front = self.clone();
        Box::pin(async move { Ok(front.answer(request).await.map(MeteredResponse::plain)) })
    }
}

fn is_grpc(request: &Request<Incoming>) -> bool {
    let kind = request.headers().get(header::CONTENT_TYPE);
    request.version() == Version::HTTP_2
        && kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

/// Plain text.
const TEXT: &str = "text/plain; charset=utf-8";

/// A page.
fn page(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Body::new(Full::new(body.into())));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// Text that browsers must not interpret as another type.
fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Body> {
    let mut response = page(status, TEXT, body);
    response
        .headers_mut()
        .insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

fn not_found() -> Response<Body> {
    text(StatusCode::NOT_FOUND, "404 page not found\n")
}

fn method_not_allowed() -> Response<Body> {
    let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed\n");
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET"));
    response
}

impl HttpService {
    /// Handles requests other than gRPC.
    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let (head, body) = request.into_parts();
        let Port { replica, options, .. } = &*self.port;
        match options.serves {
            Endpoints::All | Endpoints::Http => (),
            Endpoints::Grpc => return not_found(),
            Endpoints::Metrics => return routes(replica, options, &head).await,
            Endpoints::Peers => {
                return peers::answer(replica, &options.policy, (&head, &self.client.peer)).await;
            }
        }
        // DNS rebinding does not work over TLS: the certificate names the host.
        if !self.client.is_secure && !is_allowed(&options.hosts, host(&head)) {
            tracing::warn!(
                host = host(&head),
                "rejecting HTTP request to prevent DNS rebinding attacks"
            );
            return text(StatusCode::MISDIRECTED_REQUEST, MISDIRECTED);
        }
        let mut response = match head.method {
            Method::OPTIONS => Response::new(Body::empty()),
            _ => self.route(&head, body).await,
        };
        allow_origin(&options.origins, &head, response.headers_mut());
        response
    }

    async fn route(&self, head: &Parts, body: Incoming) -> Response<Body> {
        let Port { replica, services, options } = &*self.port;
        let path = paths::meant(head);
        if let Some(elsewhere) = paths::redirection(head, &path, options.gateway) {
            return elsewhere;
        }
        if path.starts_with("/v3/") && self.ignores_name() {
            tracing::warn!("rejected a request of a client with a common name to the gateway");
            return text(StatusCode::BAD_REQUEST, NAME_IGNORED);
        }
        match path.strip_prefix("/v3/") {
            Some(_) if options.gateway && websocket::is_wanted(head) => {
                let (answer, accepted) = websocket::accept(head, &path);
                self.client.upgrade.set(accepted);
                answer
            }
            Some(_) if options.gateway => {
                let body = Body::new(body);
                gateway::answer(services, &self.caller(), head, &path, body).await
            }
            // No page reads a body; hyper discards a received one.
            Some(_) | None => routes(replica, options, head).await,
        }
    }
}

const NAME_IGNORED: &str = "CommonName of client sending a request against gateway will be ignored and \
    not used as expected\n";

const MISDIRECTED: &str = "This member is not known under the host name of your request, and answers it \
    under none that it does not know, so that a web page cannot reach it through a name of its own \
    (CVE-2018-5702). Ask it under a name in --host-whitelist, or add this one there.\n";

/// The host that a request is for, without the port.
fn host(head: &Parts) -> &str {
    let header = head.headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let host = header.or_else(|| head.uri.authority().map(|authority| authority.as_str()));
    let host = host.unwrap_or_default();
    match host.rsplit_once(':') {
        // A bare IPv6 address has colons without a port.
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => {
            name.trim_start_matches('[').trim_end_matches(']')
        }
        Some(_) | None => host,
    }
}

fn is_allowed(list: &[String], name: &str) -> bool {
    list.is_empty() || list.iter().any(|allowed| allowed == "*" || allowed == name)
}

fn allow_origin(origins: &[String], head: &Parts, headers: &mut HeaderMap) {
    let asked = head.headers.get(header::ORIGIN);
    let allowed = if is_allowed(origins, "*") {
        HeaderValue::from_static("*")
    } else if let Some(origin) = asked
        && origin.to_str().is_ok_and(|origin| is_allowed(origins, origin))
    {
        origin.clone()
    } else {
        return;
    };
    let fixed: [(HeaderName, &'static str); 2] = [
        (header::ACCESS_CONTROL_ALLOW_METHODS, "POST, GET, OPTIONS, PUT, DELETE"),
        (header::ACCESS_CONTROL_ALLOW_HEADERS, "accept, content-type, authorization"),
    ];
    for (name, value) in fixed {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
}

async fn routes(replica: &ReplicaClient, options: &Options, head: &Parts) -> Response<Body> {
    let (path, query) = (head.uri.path(), head.uri.query().unwrap_or_default());
    let gets = head.method == Method::GET;
    let whole = options.serves != Endpoints::Metrics;
    match path {
        "/metrics" => pages::metrics(replica, options).await,
        "/health" if gets => health::health(replica, query).await,
        "/version" if gets && whole => pages::version(replica),
        "/debug/vars" if gets && whole => pages::variables(replica, options).await,
        "/openapi.json" if gets && whole && options.gateway => gateway::description(),
        "/health" => method_not_allowed(),
        "/version" | "/debug/vars" if whole => method_not_allowed(),
        "/openapi.json" if whole && options.gateway => method_not_allowed(),
        _ => match health::Probe::find(path) {
            Some(probe) if gets => probe.answer(replica, query).await,
            Some(_) => method_not_allowed(),
            None => not_found(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(host: &str, origin: Option<&str>) -> Parts {
        let mut request = Request::builder().uri("/").header("host", host);
        if let Some(origin) = origin {
            request = request.header("origin", origin);
        }
        request.body(()).expect("a request").into_parts().0
    }

    #[test]
    fn hosts_are_names_without_ports() {
        let hosts = ["a:1", "a", "[::1]:2379", "10.0.0.1:2379"];
        let found = hosts.map(|name| host(&head(name, None)).to_owned());
        assert_eq!(found, ["a", "a", "::1", "10.0.0.1"]);
        assert!(is_allowed(&["*".to_owned()], "x") && is_allowed(&[], "x"));
        assert!(!is_allowed(&["a".to_owned()], "b"));
    }

    #[test]
    fn only_listed_origins_are_allowed() {
        let allowed = |list: &[&str], origin| {
            let list: Vec<_> = list.iter().map(|&origin| origin.to_owned()).collect();
            let mut headers = HeaderMap::new();
            allow_origin(&list, &head("a", origin), &mut headers);
            let value = headers.get(header::ACCESS_CONTROL_ALLOW_ORIGIN);
            value.map(|value| value.to_str().expect("text").to_owned())
        };
        assert_eq!(allowed(&["*"], None).as_deref(), Some("*"));
        assert_eq!(allowed(&["http://a"], Some("http://a")).as_deref(), Some("http://a"));
        assert_eq!(allowed(&["http://a"], Some("http://b")), None);
        assert_eq!(allowed(&["http://a"], None), None);
    }
}
