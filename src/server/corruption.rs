//! Watches over members that should hold the same: before this one serves, and now and then while it leads.

use std::time::Duration;

use basalt_proto::etcdserverpb::alarm_request::AlarmAction;
use basalt_proto::etcdserverpb::{AlarmRequest, AlarmType};

use crate::actors::Desk;
use crate::cluster::{Hashed, corrupt_member, minority};
use crate::command::Command;
use crate::io::{clock, fatal};
use crate::types::{Error, Fault, MemberId, Refusal};

/// This member's hash.
async fn own(desk: &Desk, revision: i64) -> Result<Hashed, Refusal> {
    let hashed = Error::refusal(desk.hash_kv(revision).await);
    hashed.unwrap_or_else(|fault| fatal(&fault))
}

/// Compares what this member holds with the others that can be reached, before it serves clients.
///
/// # Errors
/// They contradict each other.
pub(super) async fn check_first(desk: &Desk) -> Result<(), Fault> {
    let id = format!("{:x}", desk.node().member_id);
    tracing::info!(local_member_id = id, "starting initial corruption check");
    clock::sleep(Duration::from_millis(desk.node().election_timeout_ms)).await;
    let hashed = own(desk, 0).await;
    let hashed = hashed.map_err(|why| Fault::new(format!("{id} failed to fetch hash ({why})")))?;
    let mut differ = false;
    for (other, answer) in desk.hashes_of_others(hashed.revision).await {
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

/// Compares all members every so often, while this one leads. Runs for ever.
pub(super) async fn watch(desk: Desk, every: Duration) {
    loop {
        clock::sleep(every).await;
        if desk.leads() {
            // What cannot be asked now is asked the next time.
            let _ = check(&desk).await;
        }
    }
}

async fn check(desk: &Desk) -> Result<(), Refusal> {
    let before = own(desk, 0).await?;
    let answers = desk.hashes_of_others(before.revision).await;
    desk.read_index().await?;
    let after = own(desk, 0).await?;
    let others: Vec<_> = answered(answers).collect();
    if let Some(corrupt) = corrupt_member(desk.node().member_id, &before, &after, &others) {
        raise(desk, corrupt).await?;
    }
    tracing::info!(number_of_peers_checked = others.len(), "finished peer corruption check");
    Ok(())
}

/// Compares what all members hashed at their newest compaction, while this one leads. Runs for ever.
pub(super) async fn watch_compactions(desk: Desk, every: Duration) {
    let mut checked = 0;
    loop {
        clock::sleep(every).await;
        let compacted = desk.state().read.compacted;
        if desk.leads()
            && compacted > checked
            && check_compaction(&desk, compacted).await == Ok(true)
        {
            checked = compacted;
        }
    }
}

/// Whether all members could be compared, or somebody was found out.
async fn check_compaction(desk: &Desk, compacted: i64) -> Result<bool, Refusal> {
    let hashed = own(desk, compacted).await?;
    let answers = desk.hashes_of_others(compacted).await;
    let count = answers.len() + 1;
    let same_compaction =
        answered(answers).filter(|(_, it)| it.compact_revision == hashed.compact_revision);
    let mut hashes: Vec<_> = same_compaction.collect();
    hashes.push((desk.node().member_id, hashed));
    let corrupt = minority(count, &hashes);
    for member in &corrupt {
        raise(desk, *member).await?;
    }
    let done = hashes.len() == count || !corrupt.is_empty();
    tracing::info!(revision = compacted, done, "finished compaction hash check");
    Ok(done)
}

fn answered(
    answers: Vec<(MemberId, Option<Result<Hashed, Refusal>>)>,
) -> impl Iterator<Item = (MemberId, Hashed)> {
    answers.into_iter().filter_map(|(id, answer)| Some((id, answer?.ok()?)))
}

async fn raise(desk: &Desk, corrupt: MemberId) -> Result<(), Refusal> {
    tracing::error!(
        member = format!("{corrupt:x}"),
        "found corruption: members contradict each other"
    );
    let alarm = Command::Alarm(AlarmRequest {
        action: AlarmAction::Activate as i32,
        member_id: corrupt,
        alarm: AlarmType::Corrupt as i32,
    });
    desk.propose(alarm).await.map(drop)
}
