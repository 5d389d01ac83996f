//! Raises the cluster version to the highest that all members support: asks the members while this member leads, and
//! before it joins them.

use std::time::Duration;

use basalt_proto::membershippb::ClusterVersionSetRequest;

use super::levels;
use crate::actors::ReplicaClient;
use crate::cluster::{Fit, Member, Version, Versions, decide, may_join};
use crate::command::Command;
use crate::io::{self, clock};
use crate::types::{Fault, MemberId, Refusal};

/// Interval at which a leader asks; etcd's too.
const EVERY: Duration = Duration::from_secs(5);

/// Timeout for one address of a member.
const ASK_TIME: Duration = Duration::from_secs(2);

/// A member's versions; `None` if it does not answer at any of its addresses. Blocks.
fn ask(member: &Member) -> Option<Versions> {
    let remote_member_id = format!("{:x}", member.id);
    let told = member.peer_urls.iter().find_map(|url| {
        let answer = io::get(&io::Address::of_url(url), "/version", ASK_TIME);
        let told = answer.and_then(|(_, body)| {
            serde_json::from_str(&body)
                .map_err(|error| format!("the answer does not read: {error}"))
        });
        let address = format!("{url}/version");
        let warn = |error| {
            tracing::warn!(address, remote_member_id, error, "failed to reach the peer URL");
        };
        told.map_err(warn).ok()
    });
    if told.is_none() {
        tracing::warn!(remote_member_id, "failed to get version");
    }
    told
}

/// The versions of the other members. Blocks: not for executors.
fn ask_all(members: &[Member], own: MemberId) -> Vec<(MemberId, Option<Versions>)> {
    let others = members.iter().filter(|member| member.id != own);
    others.map(|member| (member.id, ask(member))).collect()
}

/// Checks that this member, which has not joined yet, supports the version of the members. etcd also looks for
/// downgrades in progress; here there are none. Blocks: not for executors.
///
/// # Errors
/// It does not, or no member reports its version.
pub(super) fn check_joining(members: &[Member], own: MemberId) -> Result<(), Fault> {
    let clusters = ask_all(members, own).into_iter().map(|(id, told)| cluster_version(id, &told?));
    if may_join(clusters) {
        return Ok(());
    }
    Err(Fault::new("incompatible with current running cluster"))
}

/// The cluster version that a member reports.
fn cluster_version(id: MemberId, told: &Versions) -> Option<Version> {
    let (remote_member_id, version) = (format!("{id:x}"), &told.cluster);
    let read = version.parse();
    match read.as_ref().map(|version| Fit::of(*version)) {
        Ok(Fit::Fits) => (),
        Ok(Fit::TooLow) => tracing::warn!(
            remote_member_id,
            remote_member_cluster_version = version,
            minimum_cluster_version_supported = %Version::LOWEST,
            "cluster version of remote member is not compatible; too low"
        ),
        Ok(Fit::TooHigh) => tracing::warn!(
            remote_member_id,
            remote_member_cluster_version = version,
            maximum_cluster_version_supported = %Version::SERVER.minor(),
            "cluster version of remote member is not compatible; too high"
        ),
        Err(error) => tracing::warn!(
            remote_member_id,
            remote_member_cluster_version = version,
            %error,
            "failed to parse cluster version of remote member"
        ),
    }
    read.ok()
}

/// Decides at intervals, and whenever this member becomes leader, as `led` notifies. Ends with the sender of `led`.
pub(super) async fn watch(replica: ReplicaClient, led: flume::Receiver<()>) {
    while !matches!(clock::deadline(EVERY, led.recv_async()).await, Some(Err(_))) {
        // A leader that cannot decide now tries again in the next round.
        if replica.leads()
            && let Err(error) = check(&replica).await
        {
            tracing::error!(%error, "failed to monitor cluster version");
        }
    }
}

async fn check(replica: &ReplicaClient) -> Result<(), Fault> {
    // Decisions of earlier leaders are applied then, and a majority still follows this one.
    if replica.read_index().await.is_err() || !replica.leads() {
        return Ok(());
    }
    let (own, members) = (replica.node().member_id, replica.state().members.clone());
    let told = io::spawn_blocking("versions", move || ask_all(&members, own)).await?;
    let others = told.into_iter().map(|(id, told)| server_version(id, &told?));
    let servers: Vec<_> = others.chain([Some(Version::SERVER)]).collect();
    let agreed = replica.state().cluster_version;
    if let Some(version) = decide(agreed, servers) {
        set(replica, agreed, version).await;
    }
    levels::raise(replica).await;
    Ok(())
}

/// The version that a member reports for itself.
fn server_version(id: MemberId, told: &Versions) -> Option<Version> {
    let (remote_member_id, remote_member_version) = (format!("{id:x}"), &told.server);
    let read = remote_member_version.parse();
    match &read {
        Ok(server) if *server > Version::SERVER => tracing::warn!(
            local_member_version = %Version::SERVER,
            remote_member_id,
            remote_member_version,
            "leader found higher-versioned member"
        ),
        Ok(_) => (),
        Err(error) => tracing::warn!(
            remote_member_id,
            remote_member_version,
            %error,
            "failed to parse server version of remote member"
        ),
    }
    read.ok()
}

async fn set(replica: &ReplicaClient, from: Option<Version>, to: Version) {
    let cluster_version = to.short();
    match from.map(Version::short) {
        None => {
            tracing::info!(cluster_version, "setting up initial cluster version using v3 API");
        }
        Some(from) => {
            tracing::info!(from, to = cluster_version, "updating cluster version using v3 API");
        }
    }
    let command = Command::ClusterVersionSet(ClusterVersionSetRequest { ver: to.to_string() });
    match replica.propose(command).await {
        Ok(_) => tracing::info!(cluster_version, "cluster version is updated"),
        Err(error @ Refusal::Stopped) => {
            tracing::warn!(%error, "aborting cluster version update; server is stopped");
        }
        Err(error) => tracing::error!(%error, "failed to update cluster version"),
    }
}
