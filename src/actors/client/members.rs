//! Changes of the membership and of the leadership.

use prost::Message as _;

use super::slot::Slot;
use super::{ASK_PAUSE, ReplicaClient};
use crate::cluster;
use crate::io::clock;
use crate::peer::PeerRequest;
use crate::types::{ConfChange, MemberId, Refusal};

/// Bytes that a change of the membership takes, about.
const CONF_CHANGE_BYTES: usize = 1 << 10;

impl ReplicaClient {
    /// Changes the membership and waits until the change is applied.
    ///
    /// # Errors
    /// The change is invalid, or could not be made in time.
    pub async fn change_members(
        &self,
        change: impl FnOnce(u64) -> ConfChange,
    ) -> Result<(), Refusal> {
        if self.shared.stopping() {
            return Err(Refusal::Stopped);
        }
        let slot = Slot::acquire(&self.pending, CONF_CHANGE_BYTES).await?;
        self.handles.consensus.conf_change(change(slot.id()).encode_to_vec().into()).await;
        slot.reply().await.map(drop)
    }

    /// Gives a learner a vote, on this member or by a question to the leader.
    ///
    /// # Errors
    /// The member is no learner, is not ready, or it could not be done in time.
    pub async fn promote(&self, id: MemberId) -> Result<(), Refusal> {
        if self.leads() {
            return self.promote_here(id).await;
        }
        self.ask_leader(&PeerRequest::Promote(id)).await.map(drop)
    }

    /// Gives a learner a vote; on the leader.
    ///
    /// # Errors
    /// See [`ReplicaClient::promote`].
    pub async fn promote_here(&self, id: MemberId) -> Result<(), Refusal> {
        if !self.leads() {
            return Err(Refusal::NotLeader);
        }
        let Some((matched, last)) = self.handles.consensus.matched(id).await else {
            return Err(Refusal::MemberNotFound);
        };
        if !cluster::is_caught_up(matched, last) {
            return Err(Refusal::LearnerNotReady);
        }
        if self.node().strict_reconfig && !cluster::is_ready_to_promote(&self.state().members) {
            return Err(Refusal::MemberNotEnoughStarted);
        }
        self.change_members(|request| cluster::promote(request, id)).await
    }

    /// Transfers leadership and waits until the other member leads.
    ///
    /// # Errors
    /// It took too long.
    pub async fn move_leader(&self, to: MemberId) -> Result<(), Refusal> {
        let until_ms = clock::now_ms() + self.node().request_timeout_ms;
        self.handles.consensus.transfer(to);
        while clock::now_ms() < until_ms {
            if self.status().leader == to {
                return Ok(());
            }
            clock::sleep(ASK_PAUSE).await;
        }
        Err(Refusal::TimeoutLeaderTransfer)
    }
}
