//! Leases, whose time the leader keeps.

use bytes::Bytes;

use super::ReplicaClient;
use crate::peer::PeerRequest;
use crate::types::{LeaseId, Refusal};

/// The answer to a request for a lease's time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TimeToLive {
    /// Seconds left; −1 when there is no such lease or it has expired.
    pub ttl: i64,
    /// Seconds granted; 0 when there is no such lease.
    pub granted: i64,
    /// Attached keys, sorted.
    pub keys: Vec<Bytes>,
}

impl ReplicaClient {
    /// Renews a lease, here or on the leader; returns its new time to live in seconds, 0 if there is no such lease.
    ///
    /// # Errors
    /// No leader could be asked in time.
    pub async fn keep_alive(&self, id: LeaseId) -> Result<i64, Refusal> {
        if self.leads() {
            return self.keep_alive_here(id).await;
        }
        self.ask_leader(&PeerRequest::Renew(id)).await.map(|answer| answer.ttl)
    }

    /// Renews a lease on this member, which leads.
    ///
    /// # Errors
    /// This member does not lead, or is stopping.
    pub async fn keep_alive_here(&self, id: LeaseId) -> Result<i64, Refusal> {
        // A deposed leader that does not know it could renew a lease that the next leader revokes.
        self.confirm_leader().await.map_err(|_| Refusal::NotPrimaryLessor)?;
        if !self.leads() {
            return Err(Refusal::NotLeader);
        }
        match self.handles.lease.keep_alive(id).await? {
            // The grant may have been acknowledged by a member that applied it earlier than this one.
            0 => {
                self.read_index().await.map_err(|_| Refusal::NotPrimaryLessor)?;
                self.handles.lease.keep_alive(id).await
            }
            ttl => Ok(ttl),
        }
    }

    /// Time left of a lease, and its keys if wanted.
    ///
    /// # Errors
    /// No leader could be asked in time.
    pub async fn time_to_live(&self, id: LeaseId, keys: bool) -> Result<TimeToLive, Refusal> {
        if self.leads() {
            return self.time_to_live_here(id, keys).await;
        }
        let ask =
            if keys { PeerRequest::TimeToLiveAndKeys(id) } else { PeerRequest::TimeToLive(id) };
        let answer = self.ask_leader(&ask).await?;
        Ok(TimeToLive { ttl: answer.ttl, granted: answer.granted, keys: answer.keys })
    }

    /// Time left of a lease, on this member, which leads.
    ///
    /// # Errors
    /// This member does not lead, or is stopping.
    pub async fn time_to_live_here(&self, id: LeaseId, keys: bool) -> Result<TimeToLive, Refusal> {
        self.read_index().await?;
        if !self.leads() {
            return Err(Refusal::NotLeader);
        }
        let Some((granted, ttl)) = self.handles.lease.time_to_live(id).await? else {
            return Ok(TimeToLive { ttl: -1, ..TimeToLive::default() });
        };
        let keys = if keys { self.handles.apply.lease_keys(id).await? } else { Vec::new() };
        Ok(TimeToLive { ttl, granted, keys })
    }

    /// All leases in the order of expiry.
    ///
    /// # Errors
    /// The member is stopping.
    pub async fn leases(&self) -> Result<Vec<LeaseId>, Refusal> {
        self.handles.lease.list().await
    }
}
