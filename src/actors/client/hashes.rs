//! Hashes of what members hold.

use std::time::Duration;

use futures_lite::future::yield_now;

use super::{ReplicaClient, outcome};
use crate::cluster::HashKvReply;
use crate::peer::{Answer, PeerRequest};
use crate::types::{Error, MemberId, Refusal};

/// Entries hashed before others get their turn.
const HASH_TURN_ENTRIES: usize = 1000;

impl ReplicaClient {
    /// The hash of what this member holds up to a revision; of all of it for 0.
    ///
    /// # Errors
    /// That revision is compacted or not there yet, or the store cannot be read.
    pub async fn hash_kv(&self, revision: i64) -> Result<HashKvReply, Error> {
        let state = self.state();
        let mut cursor = state.read.hash_kv(revision)?;
        loop {
            if let Some(found) = cursor.step(&state.read.view, HASH_TURN_ENTRIES)? {
                return Ok(HashKvReply {
                    hash: found.hash,
                    compact_revision: found.compact_revision,
                    revision: found.revision,
                    newest: state.read.revision,
                });
            }
            yield_now().await;
        }
    }

    /// What the other members say to the same question; nothing from those that do not answer.
    pub async fn hashes_of_others(
        &self,
        revision: i64,
    ) -> Vec<(MemberId, Option<Result<HashKvReply, Refusal>>)> {
        let (own, state) = (self.node().member_id, self.state());
        let wait = Duration::from_millis(self.node().request_timeout_ms);
        let mut answers = Vec::new();
        for member in state.members.iter().filter(|member| member.id != own) {
            let answer = match self.handles.peers.is_connected(member.id, 0) {
                true => {
                    self.handles.peers.ask(member.id, PeerRequest::HashKv(revision), wait).await
                }
                false => None,
            };
            let hashed = |answer: Answer| HashKvReply {
                hash: answer.hash,
                compact_revision: answer.compact_revision,
                revision: answer.hash_revision,
                newest: answer.revision,
            };
            answers.push((member.id, answer.map(|answer| outcome(answer).map(hashed))));
        }
        answers
    }
}
