//! The end of a pod. Kubernetes sends the same signal to a pod that is scaled away and to one that is restarted or drained; the
//! number of pods that the set shall have tells them apart.

use basalt_proto::etcdserverpb::Member;
use tokio::time::{Instant, sleep, timeout_at};

use crate::limits::{DECIDE_TIME_MAX, LEAVE_PAUSE, LEAVE_TIME_MAX};
use crate::names::Ordinal;
use crate::{Pod, log};

/// True if the set shall not have this pod any more. A set that is scaled to none is paused, and keeps its members.
fn is_scaled_away(ordinal: Ordinal, replicas: u32) -> bool {
    replicas > 0 && ordinal >= replicas
}

impl Pod {
    /// Removes this pod's member while it runs, if the pod is scaled away. Otherwise, or if that cannot be found out, it
    /// stays a member; the leader removes it if it was scaled away nevertheless.
    pub(crate) async fn leave_if_scaled_away(&self) {
        let began = Instant::now();
        let replicas = loop {
            match self.replicas().await {
                None => return,
                Some(Ok(replicas)) => break replicas,
                Some(Err(why)) => {
                    log::warn("leave", "the API server does not tell the number of pods")
                        .text("error", &why)
                        .write();
                }
            }
            if began.elapsed() > DECIDE_TIME_MAX {
                return;
            }
            sleep(LEAVE_PAUSE).await;
        };
        if !is_scaled_away(self.ordinal, replicas) {
            let line = log::info("leave", "this pod stays a member");
            line.number("replicas", i64::from(replicas)).write();
            return;
        }
        let leaving = timeout_at(Instant::now() + LEAVE_TIME_MAX, self.leave(replicas));
        if leaving.await.is_err() {
            log::warn("leave", "this member could not leave in time; the leader removes it")
                .write();
        }
    }

    async fn leave(&self, replicas: u32) {
        loop {
            match self.try_leave(replicas).await {
                Ok(text) => return log::info("leave", text).write(),
                Err(why) => log::warn("leave", "not removed yet").text("error", &why).write(),
            }
            sleep(LEAVE_PAUSE).await;
        }
    }

    async fn try_leave(&self, replicas: u32) -> Result<&'static str, String> {
        let members = self.members.list(self.all().await).await?;
        let Some(own) = self.own(&members) else { return Ok("this member is removed") };
        let stays = |member: &&Member| member.id != own.id && !member.is_learner;
        if !members.iter().any(|member| stays(&member)) {
            return Ok("this is the last voter, which stays");
        }
        let own_endpoint = self.names.client_url(self.ordinal);
        if self.members.leader(&own_endpoint).await == Some(own.id) {
            // No election. The lowest ordinal stays longest.
            let heirs = members.iter().filter(stays).filter(|it| !it.name.is_empty());
            let heir = heirs.min_by_key(|it| self.names.ordinal_of(&it.peer_ur_ls));
            if let Some(heir) = heir {
                self.members.move_leader(&own_endpoint, heir.id).await?;
            }
        }
        let remaining: Vec<_> = (0..replicas).map(|it| self.names.client_url(it)).collect();
        self.members.remove(&remaining, own.id).await?;
        Ok("this member is removed")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_leaves_only_if_its_set_shall_not_have_it() {
        for (ordinal, replicas, leaves) in
            [(2, 3, false), (3, 3, true), (4, 3, true), (0, 1, false), (1, 1, true), (1, 0, false)]
        {
            assert_eq!(is_scaled_away(ordinal, replicas), leaves, "{ordinal} of {replicas}");
        }
    }
}
