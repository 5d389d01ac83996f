//! Hashes of the members' keys.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

use super::{ReplicaClient, State, outcome};
use crate::cluster::HashKvReply;
use crate::io::Pool;
use crate::mvcc::HashCursor;
use crate::peer::{Answer, PeerRequest};
use crate::store::StoreHash;
use crate::types::limits::HASHES_RUNNING_MAX;
use crate::types::{Error, Fault, MemberId, Refusal};

/// Entries hashed in one step: less than a millisecond, unless they are read from the disk.
const STEP_ENTRIES: usize = 256;

/// Hashes under way: each keeps a view, and a list of what is superseded. Others wait their turn.
static RUNNING: Semaphore = Semaphore::const_new(HASHES_RUNNING_MAX);

impl ReplicaClient {
    /// The hash of all that this member holds.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn hash(&self) -> Result<u32, Fault> {
        let _running = RUNNING.acquire().await;
        let started = (self.state(), StoreHash::default());
        let step = |(state, hash): &mut (Arc<State>, StoreHash)| {
            hash.step(&state.read.view, STEP_ENTRIES).transpose()
        };
        Pool::Hashes.run_in_slices(started, step).await
    }

    /// The hash of what this member holds up to a revision; of all of it for 0.
    ///
    /// # Errors
    /// The revision is compacted or does not exist yet, or the store cannot be read.
    pub async fn hash_kv(&self, revision: i64) -> Result<HashKvReply, Error> {
        let _running = RUNNING.acquire().await;
        let state = self.state();
        let started = (Arc::clone(&state), state.read.hash_kv(revision)?);
        let step = |(state, cursor): &mut (Arc<State>, HashCursor)| {
            cursor.step(&state.read.view, STEP_ENTRIES).transpose()
        };
        let found = Pool::Hashes.run_in_slices(started, step).await?;
        Ok(HashKvReply {
            hash: found.hash,
            compact_revision: found.compact_revision,
            revision: found.revision,
            newest: state.read.revision,
        })
    }

    /// The answers of the other members to the same question; those that do not answer are omitted.
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
