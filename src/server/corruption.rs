//! Corruption checks: compares the hashes of the members before this one serves, and at intervals while it leads.

use std::time::Duration;

use basalt_proto::etcdserverpb::alarm_request::AlarmAction;
use basalt_proto::etcdserverpb::{AlarmRequest, AlarmType};

use crate::actors::ReplicaClient;
use crate::cluster::{HashKvReply, corrupt_member, minority};
use crate::command::Command;
use crate::io::{clock, fatal};
use crate::types::{Error, Fault, MemberId, Refusal};

/// This member's hash.
async fn own(replica: &ReplicaClient, revision: i64) -> Result<HashKvReply, Refusal> {
    let hashed = Error::refusal(replica.hash_kv(revision).await);
    hashed.unwrap_or_else(|fault| fatal(&fault))
}

/// Compares this member's keys with those of the reachable members, before it serves clients.
///
/// # Errors
/// The hashes contradict each other.
pub(super) async fn check_first(replica: &ReplicaClient) -> Result<(), Fault> {
    let id = format!("{:x}", replica.node().member_id);
    tracing::info!(local_member_id = id, "starting initial corruption check");
    clock::sleep(Duration::from_millis(replica.node().election_timeout_ms)).await;
    let hashed = own(replica, 0).await;
    let hashed = hashed.map_err(|why| Fault::new(format!("{id} failed to fetch hash ({why})")))?;
    let mut differ = false;
    for (other, answer) in replica.hashes_of_others(hashed.revision).await {
        let remote = format!("{other:x}");
        match answer {
            Some(Ok(theirs)) if theirs.contradicts(&hashed) => {
                differ = true;
                tracing::warn!(remote, "found different hash values from remote peer");
            }
            Some(Ok(theirs)) if theirs.hash != hashed.hash => {
                tracing::warn!(remote, "found different compact revision values from remote peer");
            }
            Some(Err(why)) => tracing::warn!(remote, %why, "cannot fetch hash from remote peer"),
            Some(Ok(_)) | None => (),
        }
    }
    if differ {
        return Err(Fault::new(format!("{id} found data inconsistency with peers")));
    }
    tracing::info!(local_member_id = id, "initial corruption checking passed; no corruption");
    Ok(())
}

/// Compares all members at intervals, while this one leads. Runs for ever.
pub(super) async fn watch(replica: ReplicaClient, every: Duration) {
    loop {
        clock::sleep(every).await;
        if replica.leads() {
            // A failed check is repeated in the next round.
            let _ = check(&replica).await;
        }
    }
}

async fn check(replica: &ReplicaClient) -> Result<(), Refusal> {
    let before = own(replica, 0).await?;
    let answers = replica.hashes_of_others(before.revision).await;
    replica.read_index().await?;
    let after = own(replica, 0).await?;
    let others: Vec<_> = answered(answers).collect();
    if let Some(corrupt) = corrupt_member(replica.node().member_id, &before, &after, &others) {
        raise(replica, corrupt).await?;
    }
    tracing::info!(number_of_peers_checked = others.len(), "finished peer corruption check");
    Ok(())
}

/// Compares the members' hashes of their newest compaction, while this one leads. Runs for ever.
pub(super) async fn watch_compactions(replica: ReplicaClient, every: Duration) {
    let mut checked = 0;
    loop {
        clock::sleep(every).await;
        let compacted = replica.state().read.compacted;
        if replica.leads()
            && compacted > checked
            && check_compaction(&replica, compacted).await == Ok(true)
        {
            checked = compacted;
        }
    }
}

/// True if all members could be compared, or a corrupt one was found.
async fn check_compaction(replica: &ReplicaClient, compacted: i64) -> Result<bool, Refusal> {
    let hashed = own(replica, compacted).await?;
    let answers = replica.hashes_of_others(compacted).await;
    let count = answers.len() + 1;
    let same_compaction =
        answered(answers).filter(|(_, it)| it.compact_revision == hashed.compact_revision);
    let mut hashes: Vec<_> = same_compaction.collect();
    hashes.push((replica.node().member_id, hashed));
    let corrupt = minority(count, &hashes);
    for member in &corrupt {
        raise(replica, *member).await?;
    }
    let done = hashes.len() == count || !corrupt.is_empty();
    tracing::info!(revision = compacted, done, "finished compaction hash check");
    Ok(done)
}

fn answered(
    answers: Vec<(MemberId, Option<Result<HashKvReply, Refusal>>)>,
) -> impl Iterator<Item = (MemberId, HashKvReply)> {
    answers.into_iter().filter_map(|(id, answer)| Some((id, answer?.ok()?)))
}

async fn raise(replica: &ReplicaClient, corrupt: MemberId) -> Result<(), Refusal> {
    tracing::error!(
        member = format!("{corrupt:x}"),
        "found corruption: members contradict each other"
    );
    let alarm = Command::Alarm(AlarmRequest {
        action: AlarmAction::Activate as i32,
        member_id: corrupt,
        alarm: AlarmType::Corrupt as i32,
    });
    replica.propose(alarm).await.map(drop)
}
