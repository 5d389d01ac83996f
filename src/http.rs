//! The HTTP/1 side of the client port: health, version, metrics.

use std::future::Future;
use std::pin::Pin;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::{Method, Request, Response, StatusCode};
use tonic::body::Body;

use crate::actors::Desk;
use crate::rpc::{ETCD_CLUSTER_VERSION, ETCD_VERSION, Services};

/// Everything a client port serves: gRPC by its content type, the rest here. Cheap to clone.
#[derive(Clone)]
pub struct Front {
    desk: Desk,
    services: Services,
}

type Answer = Pin<Box<dyn Future<Output = Result<Response<Body>, std::convert::Infallible>>>>;

impl Front {
    /// Serves what this desk answers.
    pub fn new(desk: &Desk) -> Self {
        Self { desk: desk.clone(), services: Services::new(desk) }
    }
}

impl hyper::service::Service<Request<Incoming>> for Front {
    type Response = Response<Body>;
    type Error = std::convert::Infallible;
    type Future = Answer;

    fn call(&self, request: Request<Incoming>) -> Answer {
        let kind = request.headers().get("content-type");
        if kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc")) {
            let answer = self.services.call(request);
            return Box::pin(async move { Ok(answer.await) });
        }
        let desk = self.desk.clone();
        Box::pin(async move { Ok(answer(&desk, &request).await) })
    }
}

fn text(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Body::new(Full::new(body.into())));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert("content-type", hyper::header::HeaderValue::from_static(content_type));
    response
}

const PLAIN: &str = "text/plain; charset=utf-8";

async fn answer(desk: &Desk, request: &Request<Incoming>) -> Response<Body> {
    let path = request.uri().path();
    let query = request.uri().query().unwrap_or_default();
    if request.method() == Method::OPTIONS {
        return cors(text(StatusCode::OK, PLAIN, ""));
    }
    let response = match path {
        "/health" | "/version" | "/metrics" if request.method() != Method::GET => {
            let mut response = text(StatusCode::METHOD_NOT_ALLOWED, PLAIN, "Method Not Allowed\n");
            response.headers_mut().insert("allow", hyper::header::HeaderValue::from_static("GET"));
            response
        }
        "/health" => health(desk, query).await,
        "/version" => text(StatusCode::OK, "application/json", version(desk)),
        "/metrics" => {
            let kind = "text/plain; version=0.0.4; charset=utf-8";
            text(StatusCode::OK, kind, crate::metrics::text(&metrics(desk)))
        }
        _ => check(desk, path, query).await,
    };
    cors(response)
}

fn cors(mut response: Response<Body>) -> Response<Body> {
    let headers = response.headers_mut();
    for (name, value) in [
        ("access-control-allow-methods", "POST, GET, OPTIONS, PUT, DELETE"),
        ("access-control-allow-origin", "*"),
        ("access-control-allow-headers", "accept, content-type, authorization"),
    ] {
        headers.insert(name, hyper::header::HeaderValue::from_static(value));
    }
    response
}

fn version(desk: &Desk) -> String {
    let cluster = desk.state().cluster_version.clone();
    let cluster = cluster.as_deref().unwrap_or("not_decided");
    format!(
        r#"{{"etcdserver":"{ETCD_VERSION}","etcdcluster":"{cluster}","storage":"{ETCD_CLUSTER_VERSION}"}}"#
    )
}

/// The values of a repeatable query parameter.
fn parameters<'a>(query: &'a str, name: &str) -> Vec<&'a str> {
    let pairs = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    pairs.filter(|(key, _)| *key == name).map(|(_, value)| value).collect()
}

async fn health(desk: &Desk, query: &str) -> Response<Body> {
    let excluded = parameters(query, "exclude");
    let serializable = parameters(query, "serializable").contains(&"true");
    let alarms = desk.state().alarms.clone();
    let mut alarm = alarms.iter().map(|alarm| alarm.alarm().as_str_name());
    let alarm = alarm.find(|name| !excluded.contains(name));
    let reason = match alarm {
        Some(name) => format!("ALARM {name}"),
        None if serializable => String::new(),
        None if desk.status().leader == 0 => "RAFT NO LEADER".to_owned(),
        None => match desk.read_index().await {
            Ok(()) => String::new(),
            Err(refusal) => format!("RANGE ERROR:{refusal}"),
        },
    };
    if reason.is_empty() {
        return text(StatusCode::OK, PLAIN, r#"{"health":"true","reason":""}"#);
    }
    let body = serde_json::json!({ "health": "false", "reason": reason });
    text(StatusCode::SERVICE_UNAVAILABLE, PLAIN, format!("{body}\n"))
}

/// The checks of `/livez` and `/readyz`, in the order in which they are printed.
fn checks(path: &str) -> Option<Vec<&str>> {
    let all = match path.split('/').nth(1)? {
        "livez" => vec!["serializable_read"],
        "readyz" => {
            vec!["data_corruption", "serializable_read", "linearizable_read", "non_learner"]
        }
        _ => return None,
    };
    match path.split('/').nth(2) {
        None | Some("") => Some(all),
        Some(one) => all.contains(&one).then(|| vec![one]),
    }
}

async fn run_check(desk: &Desk, name: &str) -> Result<(), String> {
    match name {
        "data_corruption" => {
            let corrupt =
                desk.state().alarms.iter().any(|it| it.alarm().as_str_name() == "CORRUPT");
            if corrupt { Err("alarm activated: CORRUPT".to_owned()) } else { Ok(()) }
        }
        "linearizable_read" => desk.read_index().await.map_err(|refusal| refusal.to_string()),
        // The published state can always be read, and this member votes.
        _ => Ok(()),
    }
}

async fn check(desk: &Desk, path: &str, query: &str) -> Response<Body> {
    let Some(names) = checks(path) else {
        return text(StatusCode::NOT_FOUND, PLAIN, "404 page not found\n");
    };
    let excluded = parameters(query, "exclude");
    let (mut lines, mut failed) = (String::new(), false);
    for name in names.into_iter().filter(|name| !excluded.contains(name)) {
        match run_check(desk, name).await {
            Ok(()) => lines.push_str(&format!("[+]{name} ok\n")),
            Err(error) => {
                failed = true;
                lines.push_str(&format!("[-]{name} failed: {error}\n"));
            }
        }
    }
    if failed {
        return text(StatusCode::SERVICE_UNAVAILABLE, PLAIN, format!("{lines}\n"));
    }
    let verbose = query.split('&').any(|pair| pair == "verbose" || pair.starts_with("verbose="));
    text(StatusCode::OK, PLAIN, if verbose { format!("{lines}ok\n") } else { "ok\n".to_owned() })
}

fn metrics(desk: &Desk) -> crate::metrics::Gauges {
    let (state, now, node) = (desk.state(), desk.status(), desk.node());
    crate::metrics::Gauges {
        has_leader: now.leader != 0,
        is_leader: now.leader == node.member_id,
        committed: now.committed,
        applied: now.applied,
        disk_bytes: state.disk_bytes,
        quota_bytes: node.quota_bytes,
        revision: state.read.revision,
        compacted: state.read.compacted,
        member_id: node.member_id,
        process: crate::io::process_stats(),
        version: ETCD_VERSION,
        cluster_version: state.cluster_version.clone(),
    }
}
