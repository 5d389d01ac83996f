//! Hosts [`crate::mvcc::AutoCompaction`]: compacts by `--auto-compaction-mode` and `--auto-compaction-retention`. One
//! per member; only the leader's does something. It has no mailbox: only time wakes it.

use std::sync::Arc;

use basalt_proto::etcdserverpb::CompactionRequest;

use super::{ReplicaClient, Shared};
use crate::command::Command;
use crate::io::clock::{self, Instant};
use crate::mvcc::{AutoCompaction, Retention};
use crate::types::Refusal;

/// Runs until the member stops.
pub async fn run(retention: Retention, replica: ReplicaClient, shared: Arc<Shared>) {
    let mut auto = AutoCompaction::new(retention, clock::now_ms());
    let newest = || shared.state().read.revision;
    while let Some(pause) = auto.pause() {
        auto.note(newest());
        clock::sleep(pause).await;
        if shared.stopping() {
            return;
        }
        if shared.status().leader != shared.node.member_id {
            continue;
        }
        let Some(revision) = auto.due(clock::now_ms(), newest()) else { continue };
        tracing::info!(revision = revision, ?retention, "starting auto compaction");
        let began = Instant::now();
        match compact(&replica, revision).await {
            Ok(()) | Err(Refusal::Compacted) => {
                auto.done(revision, clock::now_ms());
                tracing::info!(
                    revision,
                    took_ms = began.elapsed().as_millis() as u64,
                    "completed auto compaction"
                );
            }
            Err(refusal) => {
                tracing::warn!(
                    revision,
                    error = %refusal,
                    "failed auto compaction; it is tried again"
                );
            }
        }
    }
}

async fn compact(replica: &ReplicaClient, revision: i64) -> Result<(), Refusal> {
    let compaction = CompactionRequest { revision, physical: false };
    replica.propose(Command::Compaction(compaction)).await.map(drop)
}
