//! Read-only pages: versions, metrics, variables.

use hyper::{Response, StatusCode};
use tonic::body::Body;

use super::{Options, page};
use crate::actors::ReplicaClient;
use crate::cluster::Version;
use crate::io::{Pool, process_stats};
use crate::metrics::{Gauges, Process};
use crate::rpc::is_learner;

const JSON: &str = "application/json";

/// `/version`.
pub(super) fn version(replica: &ReplicaClient) -> Response<Body> {
    let state = replica.state();
    let told = |version: Option<Version>, none: &str| {
        version.map_or_else(|| none.to_owned(), |version| version.to_string())
    };
    let server = Version::SERVER;
    let cluster = told(state.cluster_version, "not_decided");
    let storage = told(state.cluster_version.map(Version::storage), "unknown");
    // Unlike a map, a formatted text keeps etcd's order.
    let body =
        format!(r#"{{"etcdserver":"{server}","etcdcluster":"{cluster}","storage":"{storage}"}}"#);
    page(StatusCode::OK, JSON, body)
}

/// `/metrics`.
pub(super) async fn metrics(replica: &ReplicaClient, options: &Options) -> Response<Body> {
    let process = Pool::Stats.run_if_wanted(process_stats).await;
    const KIND: &str = "text/plain; version=0.0.4; charset=utf-8; escaping=underscores";
    page(StatusCode::OK, KIND, crate::metrics::text(&gauges(replica, options, process)))
}

fn gauges(replica: &ReplicaClient, options: &Options, process: Process) -> Gauges {
    let (state, now, node) = (replica.state(), replica.status(), replica.node());
    Gauges {
        has_leader: now.leader != 0,
        is_leader: now.leader == node.member_id,
        is_learner: is_learner(replica),
        committed: now.committed,
        applied: now.applied,
        disk_bytes: state.disk_bytes,
        bytes_in_use: state.bytes_in_use(),
        quota_bytes: node.quota_bytes,
        revision: state.read.revision,
        compacted: state.read.compacted,
        keys: state.read.keys() as u64,
        member_id: node.member_id,
        members: state.members.iter().map(|member| member.id).collect(),
        peers: replica.peers().counts(),
        alarms: replica
            .alarms()
            .iter()
            .map(|it| (it.member_id, it.alarm().as_str_name()))
            .collect(),
        features: options.features.clone(),
        process,
        version: Version::SERVER.to_string(),
        cluster_version: state.cluster_version.map(Version::short),
        feature_levels: (state.feature_level.number(), node.feature_level.number()),
    }
}

/// `/debug/vars`: the variables that Go's programs publish, as far as they exist here.
pub(super) async fn variables(replica: &ReplicaClient, options: &Options) -> Response<Body> {
    let process = Pool::Stats.run_if_wanted(process_stats).await;
    let (now, node) = (replica.status(), replica.node());
    let is_leader = now.leader == node.member_id;
    let body = serde_json::json!({
        "cmdline": options.command_line,
        "file_descriptor_limit": process.files_max,
        "memstats": { "Sys": process.resident_bytes },
        "raft.status": {
            "id": format!("{:x}", node.member_id),
            "term": now.term,
            "commit": now.committed,
            "lead": format!("{:x}", now.leader),
            "raftState": if is_leader { "StateLeader" } else { "StateFollower" },
            "applied": now.applied,
        },
    });
    page(StatusCode::OK, "application/json; charset=utf-8", format!("{body:#}\n"))
}
