//! Raises the cluster's feature level to the highest that all members support.

use basalt_proto::etcdserverpb::FeatureLevelSetRequest;

use crate::actors::ReplicaClient;
use crate::cluster::level_to_set;
use crate::command::Command;
use crate::types::FeatureLevel;

/// Lowers the level that this member supports, so that a test can run members of two versions.
const ENVIRONMENT: &str = "BASALT_FEATURE_LEVEL";

/// The feature level that this member supports.
pub(super) fn supported() -> FeatureLevel {
    let lowered = std::env::var(ENVIRONMENT).ok().and_then(|text| text.parse().ok());
    lowered.map_or(FeatureLevel::NEWEST, FeatureLevel::new).min(FeatureLevel::NEWEST)
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
