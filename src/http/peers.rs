//! Pages of the peer port: members, version, and promotions.

use std::sync::Arc;

use hyper::header::{HeaderName, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, Response, StatusCode};
use tonic::body::Body;

use super::{TEXT, method_not_allowed, not_found, page, pages, text};
use crate::actors::ReplicaClient;
use crate::rpc::{Policy, promote_by_http};
use crate::types::Refusal;

const JSON: &str = "application/json";
const CLUSTER: HeaderName = HeaderName::from_static("x-etcd-cluster-id");

pub(super) async fn answer(
    replica: &ReplicaClient,
    policy: &Arc<Policy>,
    (head, address): (&Parts, &Arc<str>),
) -> Response<Body> {
    let path = head.uri.path();
    let gets = head.method == Method::GET;
    let mut response = match path {
        "/members" | "/members/" if gets => members(replica),
        "/version" if gets => pages::version(replica),
        "/health" if gets => super::health::health(replica, "").await,
        "/raft/probing" if gets => page(StatusCode::OK, JSON, "{\"OK\":true}\n"),
        "/downgrade/enabled" if gets => page(StatusCode::OK, TEXT, "false"),
        "/members" | "/version" | "/health" => method_not_allowed(),
        _ => match path.strip_prefix("/members/promote/") {
            Some(id) if head.method == Method::POST => {
                promote(replica, policy, (head, address), id).await
            }
            Some(_) => method_not_allowed(),
            None => not_found(),
        },
    };
    let cluster = format!("{:x}", replica.node().cluster_id);
    if let Ok(value) = HeaderValue::from_str(&cluster) {
        response.headers_mut().insert(CLUSTER, value);
    }
    response
}

fn members(replica: &ReplicaClient) -> Response<Body> {
    let members = serde_json::to_string(&replica.state().members).unwrap_or_default();
    page(StatusCode::OK, JSON, format!("{members}\n"))
}

/// Promotes a learner, as another member of an etcd cluster asks for it.
async fn promote(
    replica: &ReplicaClient,
    policy: &Arc<Policy>,
    from: (&Parts, &Arc<str>),
    id: &str,
) -> Response<Body> {
    let Ok(id) = id.parse() else {
        return text(StatusCode::NOT_FOUND, format!("member {id} not found in cluster\n"));
    };
    let promoted = promote_by_http(replica, policy, from, id).await;
    match promoted {
        Ok(()) => members(replica),
        Err(refusal @ Refusal::MemberNotFound) => {
            text(StatusCode::NOT_FOUND, format!("{refusal}\n"))
        }
        Err(refusal @ (Refusal::LearnerNotReady | Refusal::MemberNotLearner)) => {
            text(StatusCode::PRECONDITION_FAILED, format!("{refusal}\n"))
        }
        Err(refusal) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{refusal}\n")),
    }
}
