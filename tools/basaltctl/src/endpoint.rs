//! endpoint health, status, hashkv; member list.

use std::time::Instant;

use basalt_proto::etcdserverpb::cluster_client::ClusterClient;
use basalt_proto::etcdserverpb::kv_client::KvClient;
use basalt_proto::etcdserverpb::maintenance_client::MaintenanceClient;
use basalt_proto::etcdserverpb::{HashKvRequest, MemberListRequest, RangeRequest, StatusRequest};
use bytes::Bytes;

use crate::args::{Args, Spec};
use crate::client::{Client, endpoints};
use crate::{Failure, exit, output};

const SPEC: Spec = Spec { values: &["rev", "consistency"], switches: &["cluster"] };

/// `endpoint health`: a linearizable read of each endpoint.
#[allow(clippy::disallowed_methods, reason = "a person wants to know how long it took")]
pub(crate) async fn health(rest: Vec<String>) -> Result<(), Failure> {
    let args = Args::read(rest, SPEC)?;
    let mut unhealthy = false;
    for endpoint in endpoints(&args) {
        let began = Instant::now();
        let outcome = async {
            let client = Client::connect_to(&args, std::slice::from_ref(&endpoint)).await?;
            let request =
                RangeRequest { key: Bytes::from_static(b"health"), ..RangeRequest::default() };
            client.ask(KvClient::new(client.channel.clone()).range(request)).await
        };
        let took = began.elapsed();
        match outcome.await {
            Ok(_) => {
                let took = took.max(began.elapsed());
                output::line(&format!(
                    "{endpoint} is healthy: successfully committed proposal: took = {took:?}"
                ));
            }
            Err(failure) => {
                unhealthy = true;
                output::error(&format!(
                    "{endpoint} is unhealthy: failed to commit proposal: {}",
                    failure.text
                ));
            }
        }
    }
    if unhealthy { Err(Failure::new(exit::ERROR, "unhealthy cluster")) } else { Ok(()) }
}

/// `endpoint status`.
pub(crate) async fn status(rest: Vec<String>) -> Result<(), Failure> {
    let args = Args::read(rest, SPEC)?;
    for endpoint in endpoints(&args) {
        let client = Client::connect_to(&args, std::slice::from_ref(&endpoint)).await?;
        let mut maintenance = MaintenanceClient::new(client.channel.clone());
        let status = client.ask(maintenance.status(StatusRequest {})).await?;
        let member = status.header.as_ref().map_or(0, |header| header.member_id);
        let megabytes = status.db_size as f64 / 1e6;
        output::line(&format!(
            "{endpoint}, {member:x}, {}, {}, {megabytes:.0} MB, {}, {}, {}, {}, {}, {}",
            status.version,
            status.storage_version,
            status.leader == member,
            status.is_learner,
            status.raft_term,
            status.raft_index,
            status.raft_applied_index,
            status.errors.join(", ")
        ));
    }
    Ok(())
}

/// `endpoint hashkv`.
pub(crate) async fn hash_kv(rest: Vec<String>) -> Result<(), Failure> {
    let args = Args::read(rest, SPEC)?;
    let revision = args.number("rev")?;
    for endpoint in endpoints(&args) {
        let client = Client::connect_to(&args, std::slice::from_ref(&endpoint)).await?;
        let mut maintenance = MaintenanceClient::new(client.channel.clone());
        let hash = client.ask(maintenance.hash_kv(HashKvRequest { revision })).await?;
        output::line(&format!("{endpoint}, {}, {}", hash.hash, hash.hash_revision));
    }
    Ok(())
}

/// `member list`.
pub(crate) async fn members(rest: Vec<String>) -> Result<(), Failure> {
    let args = Args::read(rest, SPEC)?;
    let client = Client::connect(&args).await?;
    let linearizable = args.get("consistency", "l") == "l";
    let mut cluster = ClusterClient::new(client.channel.clone());
    let members = client.ask(cluster.member_list(MemberListRequest { linearizable })).await?;
    for member in members.members {
        let state = if member.name.is_empty() { "unstarted" } else { "started" };
        output::line(&format!(
            "{:x}, {state}, {}, {}, {}, {}",
            member.id,
            member.name,
            member.peer_ur_ls.join(","),
            member.client_ur_ls.join(","),
            member.is_learner
        ));
    }
    Ok(())
}
