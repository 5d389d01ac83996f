//! Raises the cluster's feature level to the highest that all members support.

use std::time::Duration;

use basalt_proto::etcdserverpb::FeatureLevelSetRequest;

use crate::actors::ReplicaClient;
use crate::cluster::level_to_set;
use crate::command::Command;
use crate::io::clock;
use crate::types::FeatureLevel;

/// Lowers the level that this member supports, so that a test can run members of two versions.
const ENVIRONMENT: &str = "BASALT_FEATURE_LEVEL";

/// The feature level that this member supports.
pub(super) fn supported() -> FeatureLevel {
    let lowered = std::env::var(ENVIRONMENT).ok().and_then(|text| text.parse().ok());
    lowered.map_or(FeatureLevel::NEWEST, FeatureLevel::new).min(FeatureLevel::NEWEST)
}

/// How often a leader looks whether all members support a higher level, as long as it supports one: what a level adds is refused
/// until then, and clients of a new cluster do not wait for the next round of versions.
const EVERY: Duration = Duration::from_millis(100);

/// Raises the level until it is the one that this member supports. It never falls.
pub(super) async fn watch(replica: ReplicaClient) {
    while replica.state().feature_level < replica.node().feature_level {
        // A new leader has not applied what the one before it agreed on until it has applied an entry of its own.
        if replica.leads() && replica.state().applied_term == replica.status().term {
            raise(&replica).await;
        }
        clock::sleep(EVERY).await;
    }
}

/// Raises the level of the cluster if all members support a higher one, as stated in their connections to this
/// member, the leader.
pub(super) async fn raise(replica: &ReplicaClient) {
    let (state, node) = (replica.state(), replica.node());
    let supported = state.members.iter().map(|member| match member.id == node.member_id {
        true => Some(node.feature_level),
        false => replica.peers().feature_level(member.id),
    });
    let Some(level) = level_to_set(state.feature_level, supported) else { return };
    let set = FeatureLevelSetRequest { level: level.number() };
    if let Err(error) = replica.propose(Command::FeatureLevelSet(set)).await {
        // Tried again in the next round.
        tracing::warn!(%error, level = level.number(), "failed to raise the feature level");
    }
}
