//! While the member runs: has a learner promoted, and a leader remove members whose pods are gone for good.

use std::collections::BTreeSet;

use basalt_proto::etcdserverpb::Member;
use tokio::time::sleep;

use crate::limits::{KEEP_PAUSE, PROMOTE_PAUSE};
use crate::names::Ordinal;
use crate::{Pod, log, states};

impl Pod {
    /// Returns if the cluster has removed this member.
    pub(crate) async fn keep(&self) {
        let mut gone_before = BTreeSet::new();
        loop {
            let endpoints = self.all().await;
            let Ok(members) = self.members.list(endpoints).await else {
                sleep(KEEP_PAUSE.min(PROMOTE_PAUSE)).await;
                continue;
            };
            let Some(own) = self.own(&members) else { return };
            if own.is_learner {
                self.promote(own.id).await;
                sleep(PROMOTE_PAUSE).await;
                continue;
            }
            if !own.name.is_empty() {
                self.dirs.end_founding();
                self.dirs.drop_aside();
            }
            gone_before = self.remove_gone(own.id, &members, &gone_before).await;
            sleep(KEEP_PAUSE).await;
        }
    }

    async fn promote(&self, own: u64) {
        match self.members.promote(&self.others().await, own).await {
            Ok(()) => log::info("keeper", "promoted").write(),
            // It is repeated until the learner has caught up.
            Err(why) => log::info("keeper", "not promoted yet").text("reason", &why).write(),
        }
    }

    /// The leader removes members whose pods were scaled away and could not leave by themselves: those that the set shall
    /// not have and that do not answer, twice in a row. Returns the ones that are gone now.
    async fn remove_gone(
        &self,
        own: u64,
        members: &[Member],
        gone_before: &BTreeSet<Ordinal>,
    ) -> BTreeSet<Ordinal> {
        let ordinals = members.iter().filter_map(|it| self.names.ordinal_of(&it.peer_ur_ls));
        let highest = ordinals.max().unwrap_or(0);
        let own_endpoint = self.names.client_url(self.ordinal);
        if self.members.leader(&own_endpoint).await != Some(own) {
            return BTreeSet::new();
        }
        let Some(Ok(replicas)) = self.replicas().await else { return BTreeSet::new() };
        let mut gone = BTreeSet::new();
        // A set that is scaled to none is paused.
        for ordinal in (replicas.max(1)..=highest).filter(|_| replicas > 0) {
            if states::ask(&self.names.state_address(ordinal)).await.is_none() {
                gone.insert(ordinal);
            }
        }
        for member in members {
            let Some(ordinal) = self.names.ordinal_of(&member.peer_ur_ls) else { continue };
            if !gone.contains(&ordinal) || !gone_before.contains(&ordinal) {
                continue;
            }
            let removed = self.members.remove(std::slice::from_ref(&own_endpoint), member.id).await;
            let line = match &removed {
                Ok(()) => log::warn("keeper", "removed a member whose pod is scaled away"),
                Err(why) => log::warn("keeper", "not removed yet").text("error", why),
            };
            line.text("pod", &self.names.name(ordinal)).write();
        }
        gone
    }
}
